//! Counters under upstream's names, in Prometheus' text form.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Upper bounds of the duration buckets, in seconds (`apiserver/pkg/endpoints/metrics/metrics.go`).
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// Upper bounds of the sizes of answers, in bytes.
const SIZES: [(u64, &str); 7] = [
    (1_000, "1000"),
    (10_000, "10000"),
    (100_000, "100000"),
    (1_000_000, "1e+06"),
    (10_000_000, "1e+07"),
    (100_000_000, "1e+08"),
    (1_000_000_000, "1e+09"),
];
/// How many label sets are kept; what comes after is counted as `other`.
const SERIES_MAX: usize = 2000;

/// What a request was about, as it is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
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

impl Series {
    fn new(verb: &'static str, labels: Labels<'_>, code: u16) -> Series {
        Series {
            verb,
            scope: labels.scope,
            dry_run: labels.dry_run,
            group: labels.group.to_owned(),
            version: labels.version.to_owned(),
            resource: labels.resource.to_owned(),
            subresource: labels.subresource.to_owned(),
            code,
        }
    }

    fn is(&self, verb: &'static str, labels: Labels<'_>, code: u16) -> bool {
        let own = Labels {
            group: &self.group,
            version: &self.version,
            resource: &self.resource,
            subresource: &self.subresource,
            scope: self.scope,
            dry_run: self.dry_run,
        };
        (self.verb, self.code) == (verb, code) && own == labels
    }
}

/// What is counted of a series, by many at once.
#[derive(Default)]
struct Counters {
    nanos: AtomicU64,
    /// By the first bucket that a request is in; the last are those above all bounds.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    bytes: AtomicU64,
    /// By the first bound that an answer is within; the last are those above all bounds.
    sizes: [AtomicU64; SIZES.len() + 1],
}

impl Counters {
    fn size(&self, size: u64) {
        let at = SIZES.partition_point(|(bound, _)| *bound < size);
        self.sizes[at].fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size, Ordering::Relaxed);
    }

    fn count(&self, (took, size): (Duration, Option<u64>)) {
        if let Some(size) = size {
            self.size(size);
        }
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn read(&self) -> Measured {
        let mut measured = Measured { sum: self.nanos.load(Ordering::Relaxed) as f64 / 1e9, ..Measured::default() };
        for (i, own) in self.buckets.iter().enumerate() {
            measured.count += own.load(Ordering::Relaxed);
            if let Some(bucket) = measured.buckets.get_mut(i) {
                *bucket = measured.count;
            }
        }
        measured.bytes = self.bytes.load(Ordering::Relaxed);
        for (size, own) in measured.sizes.iter_mut().zip(&self.sizes) {
            *size = own.load(Ordering::Relaxed);
        }
        measured
    }
}

#[derive(Debug, Default, Clone)]
struct Measured {
    count: u64,
    sum: f64,
    buckets: [u64; BUCKETS.len()],
    bytes: u64,
    /// Not added up.
    sizes: [u64; SIZES.len() + 1],
}

/// Series by the hash of their labels.
#[derive(Default)]
struct All {
    by_hash: HashMap<u64, Vec<(Series, Arc<Counters>)>>,
    count: usize,
}

/// What has been counted.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Written only when a new series begins.
    series: RwLock<All>,
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

    /// Counts one answered request: how long it took, and the size of the answer if that is known beforehand.
    pub fn count(&self, verb: &'static str, labels: Labels<'_>, code: u16, seen: (Duration, Option<u64>)) {
        self.with(verb, labels, code, |counters| counters.count(seen));
    }

    /// Counts the size of an answer that was counted before its size was known.
    pub fn sized(&self, verb: &'static str, labels: Labels<'_>, code: u16, size: u64) {
        self.with(verb, labels, code, |counters| counters.size(size));
    }

    fn with(&self, verb: &'static str, labels: Labels<'_>, code: u16, count: impl Fn(&Counters)) {
        let hash = {
            let mut hasher = DefaultHasher::new();
            (verb, labels, code).hash(&mut hasher);
            hasher.finish()
        };
        let found = {
            let all = self.series.read().unwrap_or_else(PoisonError::into_inner);
            let same = all.by_hash.get(&hash);
            same.and_then(|same| same.iter().find(|(series, _)| series.is(verb, labels, code)))
                .map(|(_, counters)| count(counters))
        };
        if found.is_none() {
            count(&self.begin(hash, verb, labels, code));
        }
    }

    /// The counters of a series that is new.
    fn begin(&self, hash: u64, verb: &'static str, labels: Labels<'_>, code: u16) -> Arc<Counters> {
        const OTHER: &str = "other";
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let other = Labels { group: OTHER, version: OTHER, resource: OTHER, subresource: OTHER, ..labels };
        let (hash, labels) = if all.count < SERIES_MAX { (hash, labels) } else { (u64::from(code), other) };
        let same = all.by_hash.entry(hash).or_default();
        if let Some((_, counters)) = same.iter().find(|(series, _)| series.is(verb, labels, code)) {
            return counters.clone();
        }
        let counters = Arc::<Counters>::default();
        same.push((Series::new(verb, labels, code), counters.clone()));
        all.count += 1;
        counters
    }

    /// What was counted so far, in order.
    fn measured(&self) -> BTreeMap<Series, Measured> {
        let all = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let each = all.by_hash.values().flatten();
        each.map(|(series, counters)| (series.clone(), counters.read())).collect()
    }

    /// The text that `/metrics` answers; `objects` are groups and resources with the number of their objects.
    pub fn text<'o>(&self, objects: impl Iterator<Item = (&'o str, &'o str, usize)>) -> String {
        let all = self.measured();
        let mut out = sizes(&all);
        out.push_str("# TYPE apiserver_request_total counter\n");
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

/// The sizes of what readers were answered.
fn sizes(all: &BTreeMap<Series, Measured>) -> String {
    const NAME: &str = "apiserver_response_sizes";
    let mut by_labels: BTreeMap<String, (u64, [u64; SIZES.len() + 1])> = BTreeMap::new();
    for (s, measured) in all.iter().filter(|(s, _)| matches!(s.verb, "GET" | "LIST") && !s.resource.is_empty()) {
        let labels = format!(
            "component=\"apiserver\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
            s.group, s.resource, s.scope, s.subresource, s.verb, s.version
        );
        let sum = by_labels.entry(labels).or_default();
        sum.0 += measured.bytes;
        sum.1.iter_mut().zip(measured.sizes).for_each(|(a, b)| *a += b);
    }
    let mut out = format!("# TYPE {NAME} histogram\n");
    for (labels, (bytes, sizes)) in by_labels {
        let mut below = 0;
        for (count, (_, bound)) in sizes.iter().zip(SIZES) {
            below += count;
            let _ = writeln!(out, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {below}");
        }
        let count: u64 = sizes.iter().sum();
        let _ = writeln!(out, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{NAME}_sum{{{labels}}} {bytes}");
        let _ = writeln!(out, "{NAME}_count{{{labels}}} {count}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_their_labels_and_how_long_they_took() {
        let metrics = Metrics::default();
        let pods = Labels { version: "v1", resource: "pods", scope: "resource", ..Labels::default() };
        metrics.count("GET", pods, 200, (Duration::from_millis(5), Some(900)));
        metrics.count("GET", pods, 200, (Duration::from_millis(30), Some(2000)));
        metrics.count("GET", pods, 404, (Duration::from_secs(100), None));
        let text = metrics.text(std::iter::empty());
        let labels = "component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"";
        let sizes = labels.replace("dry_run=\"\",", "");
        for line in [
            format!("apiserver_request_total{{code=\"200\",{labels}}} 2"),
            format!("apiserver_request_total{{code=\"404\",{labels}}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.05\"}} 2"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"60\"}} 2"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 3"),
            format!("apiserver_request_duration_seconds_sum{{{labels}}} 100.035"),
            format!("apiserver_request_duration_seconds_count{{{labels}}} 3"),
            format!("apiserver_response_sizes_bucket{{{sizes},le=\"1000\"}} 1"),
            format!("apiserver_response_sizes_bucket{{{sizes},le=\"10000\"}} 2"),
            format!("apiserver_response_sizes_sum{{{sizes}}} 2900"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn series_are_bounded() {
        let metrics = Metrics::default();
        for i in 0..SERIES_MAX + 50 {
            let resource = i.to_string();
            metrics.count("GET", Labels { resource: &resource, ..Labels::default() }, 200, (Duration::ZERO, None));
        }
        let measured = metrics.measured();
        assert_eq!(measured.len(), SERIES_MAX + 1);
        let other = measured.iter().find(|(series, _)| series.resource == "other").unwrap();
        assert_eq!(other.1.count, 50);
    }
}
