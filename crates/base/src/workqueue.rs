//! What the work queues of this process have seen, under upstream's names (`component-base/metrics/prometheus/workqueue`).
//!
//! As in upstream there is one register for the process: whoever serves `/metrics` adds [`text`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upper bounds of durations in seconds: ten nanoseconds to ten seconds.
const BOUNDS: [(f64, &str); 10] = [
    (1e-8, "1e-08"),
    (1e-7, "1e-07"),
    (1e-6, "1e-06"),
    (1e-5, "9.999999999999999e-06"),
    (1e-4, "9.999999999999999e-05"),
    (1e-3, "0.001"),
    (1e-2, "0.01"),
    (0.1, "0.1"),
    (1.0, "1"),
    (10.0, "10"),
];

/// By queue; bounded by the number of controllers, whose names are constants.
static QUEUES: Mutex<BTreeMap<&'static str, Arc<Mutex<Seen>>>> = Mutex::new(BTreeMap::new());

/// Where one queue notes what happens.
#[derive(Clone, Default)]
pub struct QueueMetrics(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    adds: u64,
    retries: u64,
    depth: u64,
    waited: Histogram,
    worked: Histogram,
    /// Since when keys are being worked on, and how many since then.
    running: BTreeMap<Instant, u32>,
}

#[derive(Default)]
struct Histogram {
    within: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

impl Histogram {
    fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.count += 1;
        self.seconds += seconds;
        if let Some(at) = BOUNDS.iter().position(|(bound, _)| seconds <= *bound) {
            self.within[at] += 1;
        }
    }

    fn text(&self, name: &str, queue: &str, out: &mut String) {
        let mut below = 0;
        for ((_, bound), within) in BOUNDS.iter().zip(self.within) {
            below += within;
            let _ = writeln!(out, "{name}_bucket{{name=\"{queue}\",le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(out, "{name}_bucket{{name=\"{queue}\",le=\"+Inf\"}} {}", self.count);
        let _ = writeln!(out, "{name}_sum{{name=\"{queue}\"}} {}", self.seconds);
        let _ = writeln!(out, "{name}_count{{name=\"{queue}\"}} {}", self.count);
    }
}

impl QueueMetrics {
    /// Those of the queue of this name in this process's register.
    pub fn of(name: &'static str) -> QueueMetrics {
        let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
        QueueMetrics(queues.entry(name).or_default().clone())
    }

    fn note(&self, what: impl FnOnce(&mut Seen)) {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A key was added; it waits now.
    pub fn added(&self) {
        self.note(|seen| {
            seen.adds += 1;
            seen.depth += 1;
        });
    }

    /// A key is worked on from now, having waited since `since`. Returns the beginning.
    pub fn taken(&self, since: Instant) -> Instant {
        let now = Instant::now();
        self.note(|seen| {
            seen.depth = seen.depth.saturating_sub(1);
            seen.waited.add(now - since);
            *seen.running.entry(now).or_default() += 1;
        });
        now
    }

    /// The work on a key that began at `begun` is over.
    pub fn done(&self, begun: Instant) {
        self.note(|seen| {
            seen.worked.add(begun.elapsed());
            if let Some(count) = seen.running.get_mut(&begun) {
                *count -= 1;
                if *count == 0 {
                    seen.running.remove(&begun);
                }
            }
        });
    }

    /// A key comes back after a failure.
    pub fn retried(&self) {
        self.note(|seen| seen.retries += 1);
    }
}

/// Prometheus' text of all queues of this process.
pub fn text() -> String {
    let queues: Vec<(&str, Arc<Mutex<Seen>>)> = QUEUES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .map(|(name, seen)| (*name, seen.clone()))
        .collect();
    text_of(&queues)
}

/// What one number of a queue is.
type Number = fn(&Seen) -> f64;

fn text_of(queues: &[(&str, Arc<Mutex<Seen>>)]) -> String {
    const NUMBERS: [(&str, &str, Number); 5] = [
        ("workqueue_adds_total", "counter", |seen| seen.adds as f64),
        ("workqueue_depth", "gauge", |seen| seen.depth as f64),
        ("workqueue_longest_running_processor_seconds", "gauge", |seen| {
            seen.running.keys().next().map_or(0.0, |begun| begun.elapsed().as_secs_f64())
        }),
        ("workqueue_retries_total", "counter", |seen| seen.retries as f64),
        ("workqueue_unfinished_work_seconds", "gauge", |seen| {
            // The sum of nothing is -0 in Rust.
            0.0 + seen.running.iter().map(|(begun, n)| begun.elapsed().as_secs_f64() * f64::from(*n)).sum::<f64>()
        }),
    ];
    let mut out = String::new();
    for (name, kind, number) in NUMBERS {
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for (queue, seen) in queues {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = writeln!(out, "{name}{{name=\"{queue}\"}} {}", number(&seen));
        }
    }
    for (name, waited) in [("workqueue_queue_duration_seconds", true), ("workqueue_work_duration_seconds", false)] {
        let _ = writeln!(out, "# TYPE {name} histogram");
        for (queue, seen) in queues {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let histogram = if waited { &seen.waited } else { &seen.worked };
            histogram.text(name, queue, &mut out);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workqueue_metrics_count_and_time_what_a_queue_does() {
        let metrics = QueueMetrics::default();
        let added = Instant::now();
        for _ in 0..3 {
            metrics.added();
        }
        let begun = metrics.taken(added);
        metrics.done(begun);
        let still = metrics.taken(added);
        metrics.retried();
        let text = text_of(&[("q", metrics.0.clone())]);
        for line in [
            "workqueue_adds_total{name=\"q\"} 3\n",
            "workqueue_depth{name=\"q\"} 1\n",
            "workqueue_retries_total{name=\"q\"} 1\n",
            "workqueue_queue_duration_seconds_count{name=\"q\"} 2\n",
            "workqueue_work_duration_seconds_count{name=\"q\"} 1\n",
            "workqueue_work_duration_seconds_bucket{name=\"q\",le=\"+Inf\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("workqueue_unfinished_work_seconds{name=\"q\"} 0\n"), "{text}");
        metrics.done(still);
        assert!(text_of(&[("q", metrics.0.clone())]).contains("workqueue_unfinished_work_seconds{name=\"q\"} 0\n"));
    }
}
