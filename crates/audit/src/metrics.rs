//! Counters under upstream's names (`apiserver/pkg/audit/metrics.go`).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::policy::Level;

/// The parts that can fail.
pub(crate) const PLUGINS: [&str; 4] = ["buffered", "log", "truncate", "webhook"];
/// Levels in the order of [`Level`].
const LEVELS: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];

/// What has been counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    events: AtomicU64,
    levels: [AtomicU64; 4],
    errors: [AtomicU64; 4],
    rejected: AtomicU64,
}

impl Metrics {
    pub fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    pub fn level(&self, level: Level) {
        self.levels[level as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Some events were not recorded as they should be.
    pub fn errors(&self, plugin: &'static str, events: usize) {
        if let Some(at) = PLUGINS.iter().position(|p| *p == plugin) {
            self.errors[at].fetch_add(events as u64, Ordering::Relaxed);
        }
    }

    pub fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// In Prometheus' text form; a series that has never counted is left out, as upstream's vectors do.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let _ = writeln!(out, "# TYPE apiserver_audit_event_total counter");
        let _ = writeln!(out, "apiserver_audit_event_total {}", get(&self.events));
        for (name, label, names, counters) in [
            ("apiserver_audit_error_total", "plugin", PLUGINS, &self.errors),
            ("apiserver_audit_level_total", "level", LEVELS, &self.levels),
        ] {
            let _ = writeln!(out, "# TYPE {name} counter");
            for (value, count) in names.iter().zip(counters).map(|(n, c)| (n, get(c))).filter(|(_, c)| *c > 0) {
                let _ = writeln!(out, "{name}{{{label}=\"{value}\"}} {count}");
            }
        }
        let _ = writeln!(out, "# TYPE apiserver_audit_requests_rejected_total counter");
        let _ = writeln!(out, "apiserver_audit_requests_rejected_total {}", get(&self.rejected));
        out
    }
}
