//! Counters under upstream's names, in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the duration buckets, in seconds.
const BUCKETS: [f64; 10] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 1.0, 2.0, 5.0, 10.0];
/// How many label sets are kept; what comes after is counted as `other`.
const SERIES_MAX: usize = 2000;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    verb: &'static str,
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
}

impl Metrics {
    /// Counts one answered request.
    pub fn count(
        &self,
        verb: &'static str,
        (group, version, resource, subresource): (&str, &str, &str, &str),
        code: u16,
        took: Duration,
    ) {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let full = all.len() >= SERIES_MAX;
        let text = |t: &str| if full { String::from("other") } else { t.to_owned() };
        let series = Series {
            verb,
            group: text(group),
            version: text(version),
            resource: text(resource),
            subresource: text(subresource),
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

    /// The text that `/metrics` answers.
    pub fn text(&self) -> String {
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut out = String::from("# TYPE apiserver_request_total counter\n");
        let labels = |s: &Series| {
            format!(
                "verb=\"{}\",group=\"{}\",version=\"{}\",resource=\"{}\",subresource=\"{}\"",
                s.verb, s.group, s.version, s.resource, s.subresource
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
        out
    }
}
