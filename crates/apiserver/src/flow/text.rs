//! The metrics `apiserver_flowcontrol_…` (`apiserver/pkg/util/flowcontrol/metrics/metrics.go`).

use std::fmt::Write as _;

use corten_flowcontrol::{FlowStats, Histogram};

use super::{Flow, Managed, now};

/// One metric: its name behind the prefix, its type, and its lines.
struct Family {
    name: &'static str,
    kind: &'static str,
    lines: String,
}

impl Family {
    fn new(name: &'static str, kind: &'static str) -> Family {
        Family { name, kind, lines: String::new() }
    }

    fn add(&mut self, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.lines, "apiserver_flowcontrol_{}{{{labels}}} {value}", self.name);
    }

    fn histogram(&mut self, labels: &str, histogram: &Histogram) {
        if histogram.count == 0 {
            return;
        }
        let (name, sum, count) = (self.name, histogram.sum, histogram.count);
        let lines = &mut self.lines;
        for (bound, below) in histogram.cumulative() {
            let _ = writeln!(lines, "apiserver_flowcontrol_{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(lines, "apiserver_flowcontrol_{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(lines, "apiserver_flowcontrol_{name}_sum{{{labels}}} {sum}");
        let _ = writeln!(lines, "apiserver_flowcontrol_{name}_count{{{labels}}} {count}");
    }
}

/// A number of a level.
type OfLevel = (&'static str, fn(&Managed, u64) -> f64);

const OF_LEVELS: &[OfLevel] = &[
    ("nominal_limit_seats", |managed, _| managed.limits.nominal as f64),
    ("lower_limit_seats", |managed, _| managed.limits.min as f64),
    ("upper_limit_seats", |managed, _| managed.limits.max as f64),
    ("current_limit_seats", |_, limit| limit as f64),
    ("demand_seats_high_watermark", |managed, _| managed.demand.highest as f64),
    ("demand_seats_average", |managed, _| managed.demand.average),
    ("demand_seats_stdev", |managed, _| managed.demand.deviation),
    ("demand_seats_smoothed", |managed, _| managed.demand.smoothed),
    ("target_seats", |managed, _| managed.target),
];

/// A number of a schema at a level.
type OfFlow = (&'static str, &'static str, fn(&FlowStats) -> u64);

const OF_FLOWS: &[OfFlow] = &[
    ("dispatched_requests_total", "counter", |stats| stats.dispatched),
    ("request_dispatch_no_accommodation_total", "counter", |stats| stats.no_accommodation),
    ("current_executing_requests", "gauge", |stats| stats.executing.0),
    ("current_executing_seats", "gauge", |stats| stats.executing.1),
    ("current_inqueue_requests", "gauge", |stats| stats.waiting.0),
    ("current_inqueue_seats", "gauge", |stats| stats.waiting.1),
];

/// A histogram of a schema at a level, with the label that it has besides.
type OfRequests = (&'static str, &'static str, fn(&FlowStats) -> &Histogram);

const OF_REQUESTS: &[OfRequests] = &[
    ("request_wait_duration_seconds", ",execute=\"false\"", |stats| &stats.wait_seconds[0]),
    ("request_wait_duration_seconds", ",execute=\"true\"", |stats| &stats.wait_seconds[1]),
    ("request_execution_seconds", ",type=\"watch\"", |stats| &stats.run_seconds[0]),
    ("request_execution_seconds", ",type=\"regular\"", |stats| &stats.run_seconds[1]),
    ("request_queue_length_after_enqueue", "", |stats| &stats.queue_length),
    ("work_estimated_seats", "", |stats| &stats.seats),
    ("watch_count_samples", "", |stats| &stats.watchers),
];

/// Why requests are turned away, in the order of [`FlowStats::rejected`].
const REASONS: [&str; 3] = ["queue-full", "concurrency-limit", "time-out"];

impl Flow {
    /// All metrics as text.
    pub fn text(&self) -> String {
        self.adjust_if_due(now(&*self.clock));
        let control = self.control();
        let mut families: Vec<Family> = OF_LEVELS.iter().map(|(name, _)| Family::new(name, "gauge")).collect();
        families.extend(OF_FLOWS.iter().map(|(name, kind, _)| Family::new(name, kind)));
        for (name, ..) in OF_REQUESTS {
            if families.last().is_none_or(|last| last.name != *name) {
                families.push(Family::new(name, "histogram"));
            }
        }
        families.push(Family::new("rejected_requests_total", "counter"));
        families.push(Family::new("current_r", "gauge"));
        let mut all = Families(families);
        for (name, managed) in &control.levels {
            let queues = managed.level.queues();
            let of_level = format!("priority_level=\"{name}\"");
            for (family, value) in OF_LEVELS {
                all.at(family).add(&of_level, value(managed, queues.limit()));
            }
            all.at("current_r").add(&of_level, queues.progress());
            for stats in queues.stats() {
                let labels = format!("flow_schema=\"{}\",{of_level}", stats.schema);
                for (family, _, value) in OF_FLOWS {
                    all.at(family).add(&labels, value(stats));
                }
                for (family, label, histogram) in OF_REQUESTS {
                    all.at(family).histogram(&format!("{labels}{label}"), histogram(stats));
                }
                for (reason, count) in REASONS.into_iter().zip(stats.rejected).filter(|(_, count)| *count > 0) {
                    let labels = format!("{labels},reason=\"{reason}\"");
                    all.at("rejected_requests_total").add(&labels, count);
                }
            }
        }
        let mut out = String::new();
        for family in all.0.iter().filter(|family| !family.lines.is_empty()) {
            let _ = writeln!(out, "# TYPE apiserver_flowcontrol_{} {}", family.name, family.kind);
            out.push_str(&family.lines);
        }
        let _ = writeln!(out, "# TYPE apiserver_flowcontrol_seat_fair_frac gauge");
        let _ = writeln!(out, "apiserver_flowcontrol_seat_fair_frac {}", control.fair_fraction);
        out
    }
}

struct Families(Vec<Family>);

impl Families {
    fn at(&mut self, name: &str) -> &mut Family {
        self.0.iter_mut().find(|family| family.name == name).expect("the families are made of the same tables")
    }
}
