//! How many replicas a metric asks for (`replica_calculator.go`).

use std::collections::{BTreeMap, BTreeSet};

use corten_base::Timestamp;
use corten_tree::Tree;
use corten_views::Pod;
use jiff::SignedDuration;

use crate::Typed;

/// How far the ratio of usage to target may be off before anything is done (`--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE: f64 = 0.1;
/// How long after its start a pod's CPU usage may be that of its beginning (`…-cpu-initialization-period`).
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_secs(300);
/// Within what time of its start a pod that was never ready becomes so (`…-initial-readiness-delay`).
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// What a pod uses of something, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PodMetric {
    pub value: i64,
    pub at: Timestamp,
    pub window: SignedDuration,
}

/// Usage by pod.
pub(super) type PodMetrics = BTreeMap<String, PodMetric>;

/// The tolerances of an autoscaler (`tolerancesForHpa`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerances {
    down: f64,
    up: f64,
}

impl Tolerances {
    pub fn of(behavior: Option<&Tree>) -> Tolerances {
        let one = |rules: &str| {
            let text = behavior.and_then(|b| b.at(&[rules, "tolerance"])).and_then(Tree::as_str);
            text.and_then(super::metrics::quantity).map_or(TOLERANCE, |q| q.to_f64())
        };
        Tolerances { down: one("scaleDown"), up: one("scaleUp") }
    }

    fn holds(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// What is being scaled.
pub(super) struct Scaled<'s> {
    /// The size that is wanted of it now.
    pub spec_replicas: i64,
    /// The size that it has.
    pub status_replicas: i64,
    /// The pods that its selector selects.
    pub pods: &'s [Typed<Pod>],
    pub tolerances: Tolerances,
    pub now: Timestamp,
}

/// Go's conversion of a rounded-up float to `int32`, within its bounds.
fn rounded_up(replicas: f64) -> i64 {
    (replicas.ceil() as i64).clamp(0, i64::from(i32::MAX))
}

/// The pods by what their metrics are good for (`groupPods`).
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
}

impl Scaled<'_> {
    /// Sorts the pods, and takes metrics out that say nothing.
    fn groups(&self, metrics: &mut PodMetrics, is_cpu: bool) -> Groups {
        let mut groups = Groups { ready: 0, unready: BTreeSet::new(), missing: BTreeSet::new() };
        for pod in self.pods {
            let name = pod.name();
            if pod.is_terminating() || pod.status.phase == "Failed" {
                metrics.remove(name);
            } else if pod.status.phase == "Pending" {
                groups.unready.insert(name.to_owned());
            } else {
                match metrics.get(name) {
                    None => drop(groups.missing.insert(name.to_owned())),
                    Some(metric) if is_cpu && self.is_starting(pod, metric) => {
                        groups.unready.insert(name.to_owned());
                    }
                    Some(_) => groups.ready += 1,
                }
            }
        }
        metrics.retain(|name, _| !groups.unready.contains(name));
        groups
    }

    /// Whether a pod's CPU usage is that of its start, or that of one that was never ready.
    fn is_starting(&self, pod: &Pod, metric: &PodMetric) -> bool {
        let (Some(ready), Some(started)) = (pod.ready_condition(), pod.status.start_time) else { return true };
        let after = |delay| started.checked_add(delay).unwrap_or(started);
        let changed = ready.last_transition_time.unwrap_or(started);
        if after(CPU_INITIALIZATION) > self.now {
            let window_full = changed.checked_add(metric.window).unwrap_or(changed);
            return ready.status == "False" || metric.at < window_full;
        }
        ready.status == "False" && after(INITIAL_READINESS) > changed
    }

    /// The size for metrics of pods: `ratio` tells usage by target of metrics, `fill` what a pod without metrics counts as when
    /// the size is to shrink (`GetResourceReplicas`, `calcPlainMetricReplicas`).
    fn by_pods(
        &self,
        mut metrics: PodMetrics,
        is_cpu: bool,
        mut ratio: impl FnMut(&PodMetrics) -> Result<f64, String>,
        fill: impl Fn(&str) -> i64,
    ) -> Result<i64, String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".into());
        }
        let groups = self.groups(&mut metrics, is_cpu);
        if metrics.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".into());
        }
        let used = ratio(&metrics)?;
        let unready_grow = !groups.unready.is_empty() && used > 1.0;
        if !unready_grow && groups.missing.is_empty() {
            let stays = self.tolerances.holds(used);
            return Ok(if stays { self.spec_replicas } else { rounded_up(used * groups.ready as f64) });
        }
        let mut set = |name: &String, value| {
            metrics.insert(name.clone(), PodMetric { value, at: self.now, window: SignedDuration::ZERO });
        };
        if used < 1.0 {
            groups.missing.iter().for_each(|name| set(name, fill(name)));
        } else if used > 1.0 {
            groups.missing.iter().for_each(|name| set(name, 0));
        }
        if unready_grow {
            groups.unready.iter().for_each(|name| set(name, 0));
        }
        let again = ratio(&metrics)?;
        if self.tolerances.holds(again) || (used < 1.0 && again > 1.0) || (used > 1.0 && again < 1.0) {
            return Ok(self.spec_replicas);
        }
        let size = rounded_up(again * metrics.len() as f64);
        let turns = (again < 1.0 && size > self.spec_replicas) || (again > 1.0 && size < self.spec_replicas);
        Ok(if turns { self.spec_replicas } else { size })
    }

    /// For a percentage of what pods request: the size, the percentage in use and the average usage.
    pub fn by_utilization(
        &self,
        metrics: PodMetrics,
        requests: Result<BTreeMap<String, i64>, String>,
        target: i64,
        is_cpu: bool,
    ) -> Result<(i64, i64, i64), String> {
        let mut first: Option<(i64, i64)> = None;
        let requested = requests.as_ref().ok().cloned().unwrap_or_default();
        let size = self.by_pods(
            metrics,
            is_cpu,
            |metrics| {
                let requests = requests.as_ref().map_err(Clone::clone)?;
                let (percent, average) = utilization(metrics, requests)?;
                first.get_or_insert((percent, average));
                Ok(percent as f64 / target as f64)
            },
            |name| requested.get(name).copied().unwrap_or(0).saturating_mul(target.max(100)) / 100,
        )?;
        let (percent, average) = first.unwrap_or_default();
        Ok((size, percent, average))
    }

    /// For an average per pod, in thousandths: the size and the average in use.
    pub fn by_average(&self, metrics: PodMetrics, target: i64, is_cpu: bool) -> Result<(i64, i64), String> {
        let mut first: Option<i64> = None;
        let size = self.by_pods(
            metrics,
            is_cpu,
            |metrics| {
                let average = sum(metrics.values().map(|m| m.value)) / metrics.len() as i64;
                first.get_or_insert(average);
                Ok(average as f64 / target as f64)
            },
            |_| target,
        )?;
        Ok((size, first.unwrap_or_default()))
    }

    /// For one value that is to stay at a target whatever the size (`getUsageRatioReplicaCount`).
    pub fn by_value(&self, usage: i64, target: i64) -> Result<i64, String> {
        let ratio = usage as f64 / target as f64;
        if self.spec_replicas == 0 {
            return Ok(rounded_up(ratio));
        }
        if self.tolerances.holds(ratio) {
            return Ok(self.spec_replicas);
        }
        if self.pods.is_empty() {
            let why = "no pods returned by selector while calculating replica count";
            return Err(format!("unable to calculate ready pods: {why}"));
        }
        let ready = self.pods.iter().filter(|p| p.status.phase == "Running" && p.is_ready()).count();
        Ok(rounded_up(ratio * ready as f64))
    }

    /// For one value that all replicas share: the size and the share of each (`GetObjectPerPodMetricReplicas`).
    pub fn by_share(&self, usage: i64, target: i64) -> (i64, i64) {
        let replicas = self.status_replicas;
        let ratio = usage as f64 / (target as f64 * replicas as f64);
        let size = if self.tolerances.holds(ratio) { replicas } else { rounded_up(usage as f64 / target as f64) };
        (size, (usage as f64 / replicas as f64).ceil() as i64)
    }
}

/// A sum that stays within its type: metrics come from anybody.
fn sum(values: impl Iterator<Item = i64>) -> i64 {
    values.fold(0, i64::saturating_add)
}

/// The percentage of the requests that is in use, and the average usage (`GetResourceUtilizationRatio`).
fn utilization(metrics: &PodMetrics, requests: &BTreeMap<String, i64>) -> Result<(i64, i64), String> {
    let known: Vec<(i64, i64)> =
        metrics.iter().filter_map(|(name, metric)| Some((metric.value, *requests.get(name)?))).collect();
    let (used, requested) = (sum(known.iter().map(|k| k.0)), sum(known.iter().map(|k| k.1)));
    if requested == 0 {
        return Err("no metrics returned matched known pods".into());
    }
    Ok((used.saturating_mul(100) / requested, used / known.len() as i64))
}

/// What each pod requests of a resource, in thousandths (`calculateRequests`).
pub(super) fn requests(pods: &[Typed<Pod>], container: &str, resource: &str) -> Result<BTreeMap<String, i64>, String> {
    pods.iter().map(|pod| Ok((pod.name().to_owned(), requests_of(pod, container, resource)?))).collect()
}

fn requests_of(pod: &Typed<Pod>, container: &str, resource: &str) -> Result<i64, String> {
    let whole = pod.spec.resources.as_ref().map(|r| &r.requests).filter(|r| !r.is_empty() && container.is_empty());
    if let Some(quantity) = whole.and_then(|requests| requests.get(resource)) {
        return Ok(quantity.milli());
    }
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut sum = 0;
    let mut found = false;
    for c in pod.spec.containers.iter().chain(sidecars).filter(|c| container.is_empty() || c.name == container) {
        found = true;
        match c.resources.requests.get(resource) {
            Some(quantity) => sum += quantity.milli(),
            None if whole.is_some() => {}
            None => {
                return Err(format!("missing request for {resource} in container {} of Pod {}", c.name, pod.name()));
            }
        }
    }
    if whole.is_some() && sum == 0 {
        return Err(format!("missing pod-level request for {resource} in Pod {}", pod.name()));
    }
    if !container.is_empty() && !found {
        return Err(format!("container {container} not found in Pod {}", pod.name()));
    }
    Ok(sum)
}
