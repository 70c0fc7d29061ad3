//! Counters under upstream's names, in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the duration buckets, in seconds (`apiserver/pkg/endpoints/metrics/metrics.go`).
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// How many label sets are kept; what comes after is counted as `other`.
const SERIES_MAX: usize = 2000;

/// What a request was about, as it is counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Labels<'a> {
    /// API group, version, resource and subresource; empty for other paths.
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// `resource`, `namespace` or `cluster`; empty for other paths.
    pub scope: &'static str,
    /// `All` for a dry run.
    pub dry_run: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    verb: &'static str,
    scope: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Debug, Default, Clone)]
struct Measured {
    count: u64,
    sum: f64,
    buckets: [u64; BUCKETS.len()],
}

/// What has been counted.
#[derive(Default)]
pub(crate) struct Metrics {
    series: Mutex<BTreeMap<Series, Measured>>,
    /// Requests being answered: those that change something, and the others.
    in_flight: [AtomicU64; 2],
}

/// A request being answered, until this is dropped.
pub(crate) struct InFlight<'m>(&'m AtomicU64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request for as long as it is being answered.
    pub fn enter(&self, mutating: bool) -> InFlight<'_> {
        let counter = &self.in_flight[usize::from(!mutating)];
        counter.fetch_add(1, Ordering::Relaxed);
        InFlight(counter)
    }

    /// Counts one answered request.
    pub fn count(&self, verb: &'static str, labels: Labels<'_>, code: u16, took: Duration) {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let full = all.len() >= SERIES_MAX;
        let text = |t: &str| if full { String::from("other") } else { t.to_owned() };
        let series = Series {
            verb,
            scope: labels.scope,
            dry_run: labels.dry_run,
            group: text(labels.group),
            version: text(labels.version),
            resource: text(labels.resource),
            subresource: text(labels.subresource),
            code,
        };
        let measured = all.entry(series).or_default();
        let seconds = took.as_secs_f64();
        measured.count += 1;
        measured.sum += seconds;
        for (bucket, bound) in measured.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    /// The text that `/metrics` answers; `objects` are groups and resources with the number of their objects.
    pub fn text<'o>(&self, objects: impl Iterator<Item = (&'o str, &'o str, usize)>) -> String {
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut out = String::from("# TYPE apiserver_request_total counter\n");
        let labels = |s: &Series| {
            format!(
                "component=\"apiserver\",dry_run=\"{}\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
                s.dry_run, s.group, s.resource, s.scope, s.subresource, s.verb, s.version
            )
        };
        for (series, measured) in &all {
            let _ = writeln!(
                out,
                "apiserver_request_total{{code=\"{}\",{}}} {}",
                series.code,
                labels(series),
                measured.count
            );
        }
        out.push_str("# TYPE apiserver_request_duration_seconds histogram\n");
        let mut by_labels: BTreeMap<String, Measured> = BTreeMap::new();
        for (series, measured) in &all {
            let sum = by_labels.entry(labels(series)).or_default();
            sum.count += measured.count;
            sum.sum += measured.sum;
            for (a, b) in sum.buckets.iter_mut().zip(measured.buckets) {
                *a += b;
            }
        }
        for (labels, measured) in &by_labels {
            const NAME: &str = "apiserver_request_duration_seconds";
            for (count, bound) in measured.buckets.iter().zip(BUCKETS) {
                let _ = writeln!(out, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(out, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {}", measured.count);
            let _ = writeln!(out, "{NAME}_sum{{{labels}}} {}", measured.sum);
            let _ = writeln!(out, "{NAME}_count{{{labels}}} {}", measured.count);
        }
        out.push_str("# TYPE apiserver_current_inflight_requests gauge\n");
        for (kind, counter) in ["mutating", "readOnly"].into_iter().zip(&self.in_flight) {
            let now = counter.load(Ordering::Relaxed);
            let _ = writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {now}");
        }
        // The older name goes by the resource with its group, the newer one has labels for both.
        let (mut old, mut new) = (String::new(), String::new());
        for (group, resource, count) in objects {
            let dot = if group.is_empty() { "" } else { "." };
            let _ = writeln!(old, "apiserver_storage_objects{{resource=\"{resource}{dot}{group}\"}} {count}");
            let _ = writeln!(new, "apiserver_resource_objects{{group=\"{group}\",resource=\"{resource}\"}} {count}");
        }
        out.push_str("# TYPE apiserver_resource_objects gauge\n");
        out.push_str(&new);
        out.push_str("# TYPE apiserver_storage_objects gauge\n");
        out.push_str(&old);
        out
    }
}
