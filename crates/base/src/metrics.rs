//! Counters, gauges and histograms by their labels, in Prometheus' text form.
//!
//! As in upstream there is one register for the process: a [`Family`] is a `static` of the part that counts, and whoever serves
//! `/metrics` adds the families' texts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// How many label sets a family keeps; what comes after is counted together under labels that say `other`.
const SERIES_MAX: usize = 2000;

/// What a family's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Counter,
    Gauge,
    /// With upper bounds.
    Histogram(&'static [Bound]),
}

/// An upper bound as text: what it says is what is written as `le`.
type Bound = &'static str;

/// What is counted under one name.
pub struct Family {
    name: &'static str,
    labels: &'static [&'static str],
    sort: Sort,
    series: RwLock<BTreeMap<Vec<String>, Arc<Series>>>,
}

/// What is counted under one set of labels, by many at once.
#[derive(Debug)]
pub struct Series {
    bounds: Box<[f64]>,
    /// By the first bound that a value is within; not added up.
    within: Box<[AtomicU64]>,
    /// Of a histogram how many values, else the number itself.
    count: AtomicU64,
    /// The sum of a histogram's values, as the bits of a number.
    sum: AtomicU64,
}

impl Series {
    fn new(sort: Sort) -> Series {
        let bounds: Box<[f64]> = match sort {
            Sort::Histogram(bounds) => bounds.iter().map(|b| b.parse().unwrap_or(f64::INFINITY)).collect(),
            _ => Box::default(),
        };
        let within = bounds.iter().map(|_| AtomicU64::new(0)).collect();
        Series { bounds, within, count: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.count.fetch_add(more, Ordering::Relaxed);
    }

    /// One less, of a gauge.
    pub fn decrement(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, value: u64) {
        self.count.store(value, Ordering::Relaxed);
    }

    /// Takes a value into a histogram.
    pub fn observe(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(within) = self.within.get(at) {
            within.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let add = |bits: u64| Some((f64::from_bits(bits) + value).to_bits());
        // It never refuses, so that the outcome says nothing.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Takes a duration into a histogram of seconds.
    pub fn took(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }
}

/// One more of a gauge, until this is dropped.
pub struct Held(Arc<Series>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

impl Family {
    const fn new(name: &'static str, labels: &'static [&'static str], sort: Sort) -> Family {
        Family { name, labels, sort, series: RwLock::new(BTreeMap::new()) }
    }

    /// What only grows. The labels are in the order in which they are written.
    pub const fn counter(name: &'static str, labels: &'static [&'static str]) -> Family {
        Family::new(name, labels, Sort::Counter)
    }

    /// What comes and goes.
    pub const fn gauge(name: &'static str, labels: &'static [&'static str]) -> Family {
        Family::new(name, labels, Sort::Gauge)
    }

    /// Values by upper bounds, which are written as they are given.
    pub const fn histogram(name: &'static str, labels: &'static [&'static str], bounds: &'static [Bound]) -> Family {
        Family::new(name, labels, Sort::Histogram(bounds))
    }

    /// What is counted under these values of the labels. Who counts often keeps it.
    pub fn with(&self, values: &[&str]) -> Arc<Series> {
        let key: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        if let Some(series) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return series.clone();
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let full = all.len() >= SERIES_MAX && !all.contains_key(&key);
        let key = if full { vec!["other".to_owned(); self.labels.len()] } else { key };
        all.entry(key).or_insert_with(|| Arc::new(Series::new(self.sort))).clone()
    }

    /// One more of a gauge for as long as what is returned lives.
    pub fn hold(&self, values: &[&str]) -> Held {
        let series = self.with(values);
        series.increment();
        Held(series)
    }

    /// Prometheus' text; nothing if nothing has been counted.
    pub fn text(&self, out: &mut String) {
        let all: Vec<(Vec<String>, Arc<Series>)> = {
            let all = self.series.read().unwrap_or_else(PoisonError::into_inner);
            all.iter().map(|(key, series)| (key.clone(), series.clone())).collect()
        };
        if all.is_empty() {
            return;
        }
        let sort = match self.sort {
            Sort::Counter => "counter",
            Sort::Gauge => "gauge",
            Sort::Histogram(_) => "histogram",
        };
        let name = self.name;
        let _ = writeln!(out, "# TYPE {name} {sort}");
        for (key, series) in all {
            let labels: Vec<String> =
                self.labels.iter().zip(&key).map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = labels.join(",");
            let count = series.count.load(Ordering::Relaxed);
            let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let Sort::Histogram(bounds) = self.sort else {
                let _ = writeln!(out, "{name}{braces} {count}");
                continue;
            };
            let comma = if labels.is_empty() { "" } else { "," };
            let mut below = 0;
            for (bound, within) in bounds.iter().zip(&series.within) {
                below += within.load(Ordering::Relaxed);
                let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
            let _ = writeln!(out, "{name}_sum{braces} {}", f64::from_bits(series.sum.load(Ordering::Relaxed)));
            let _ = writeln!(out, "{name}_count{braces} {count}");
        }
    }
}

/// A label's value as the text form wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_count_by_labels_and_escape_their_values() {
        static SEEN: Family = Family::counter("seen_total", &["a", "b"]);
        SEEN.with(&["x", "y\"z\n"]).increment();
        SEEN.with(&["x", "y\"z\n"]).add(2);
        let mut text = String::new();
        SEEN.text(&mut text);
        assert_eq!(text, "# TYPE seen_total counter\nseen_total{a=\"x\",b=\"y\\\"z\\n\"} 3\n");
    }

    #[test]
    fn histograms_add_up_their_buckets() {
        static TOOK: Family = Family::histogram("took_seconds", &[], &["0.1", "1", "1e+06"]);
        let series = TOOK.with(&[]);
        for value in [0.1, 0.5, 2.0, 2e6] {
            series.observe(value);
        }
        let mut text = String::new();
        TOOK.text(&mut text);
        let expected = "# TYPE took_seconds histogram\ntook_seconds_bucket{le=\"0.1\"} 1\ntook_seconds_bucket{le=\"1\"} 2\n\
                        took_seconds_bucket{le=\"1e+06\"} 3\ntook_seconds_bucket{le=\"+Inf\"} 4\ntook_seconds_sum 2000002.6\n\
                        took_seconds_count 4\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn gauges_are_held_and_series_are_bounded() {
        static NOW: Family = Family::gauge("now", &["n"]);
        let (one, two) = (NOW.hold(&["x"]), NOW.hold(&["x"]));
        drop(one);
        let shown = || {
            let mut text = String::new();
            NOW.text(&mut text);
            text
        };
        assert!(shown().contains("now{n=\"x\"} 1\n"));
        drop(two);
        for i in 0..SERIES_MAX + 20 {
            NOW.with(&[&i.to_string()]).set(1);
        }
        let text = shown();
        assert_eq!(text.lines().count(), SERIES_MAX + 2);
        assert!(text.contains("now{n=\"other\"} 1\n"));
    }
}
