//! QoS classes and cgroup values (`pkg/kubelet/cm/helpers_linux.go`, `pkg/kubelet/qos/policy.go`).

use corten_views::container::ResourceRequirements;
use corten_views::quantity::ResourceList;
use corten_views::{Container, Pod};

/// Microseconds of a CFS period.
pub const CPU_PERIOD: u64 = 100_000;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const QUOTA_MIN: i64 = 1_000;

/// How safe a pod is under pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    /// CPU and memory are limited and requested in full.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl QosClass {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }

    /// A pod's class (`pkg/apis/core/v1/helper/qos/qos.go` `ComputePodQOS`).
    pub fn of(pod: &Pod) -> QosClass {
        if let Some(whole) = pod.spec.resources.as_ref().filter(|r| !r.limits.is_empty() || !r.requests.is_empty()) {
            return QosClass::of_requirements(whole);
        }
        let mut classes = pod
            .spec
            .init_containers
            .iter()
            .chain(&pod.spec.containers)
            .map(|c| QosClass::of_requirements(&c.resources));
        let first = classes.next().unwrap_or(QosClass::BestEffort);
        if classes.all(|c| c == first) { first } else { QosClass::Burstable }
    }

    fn of_requirements(r: &ResourceRequirements) -> QosClass {
        let amount = |list: &ResourceList, name: &str| list.get(name).filter(|q| !q.is_zero()).cloned();
        let names = ["cpu", "memory"];
        let any = names.iter().any(|n| amount(&r.requests, n).is_some() || amount(&r.limits, n).is_some());
        if !any {
            return QosClass::BestEffort;
        }
        let full = names.iter().all(|n| {
            let limit = amount(&r.limits, n);
            limit.as_ref().is_some_and(|l| {
                amount(&r.requests, n).is_none_or(|q| q.value() == l.value() && q.milli() == l.milli())
            })
        });
        if full { QosClass::Guaranteed } else { QosClass::Burstable }
    }
}

/// Values for a cgroup; `None` leaves the kernel's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupValues {
    /// In v1's scale.
    pub cpu_shares: Option<u64>,
    /// Microseconds per [`CPU_PERIOD`].
    pub cpu_quota: Option<i64>,
    /// Bytes.
    pub memory_max: Option<i64>,
}

/// CPU weight in v1's scale for thousandths of a core.
pub fn shares(milli_cpu: i64) -> u64 {
    (milli_cpu * 1024 / 1000).clamp(SHARES_MIN, SHARES_MAX) as u64
}

/// Microseconds per [`CPU_PERIOD`] for thousandths of a core.
pub fn quota(milli_cpu: i64) -> i64 {
    (milli_cpu * CPU_PERIOD as i64 / 1000).max(QUOTA_MIN)
}

fn milli(list: &ResourceList) -> Option<i64> {
    list.get("cpu").map(|q| q.milli()).filter(|n| *n > 0)
}

fn bytes(list: &ResourceList) -> Option<i64> {
    list.get("memory").map(|q| q.value()).filter(|n| *n > 0)
}

/// A container's limit, or the pod's where the container has none (`pkg/kubelet/util/util.go` `GetLimits`).
fn limit(pod: &Pod, container: &Container, of: fn(&ResourceList) -> Option<i64>) -> Option<i64> {
    of(&container.resources.limits).or_else(|| of(&pod.spec.resources.as_ref()?.limits))
}

/// A container's cgroup (`kuberuntime_container_linux.go` `generateLinuxContainerResources`).
pub fn container_cgroup(pod: &Pod, container: &Container) -> CgroupValues {
    let requests = &container.resources.requests;
    let cpu_limit = limit(pod, container, milli);
    let request = milli(requests).or_else(|| cpu_limit.filter(|_| !requests.contains_key("cpu")));
    CgroupValues {
        cpu_shares: Some(shares(request.unwrap_or(0))),
        cpu_quota: cpu_limit.map(quota),
        memory_max: limit(pod, container, bytes),
    }
}

/// What of a container's resources its cgroup or its policy depends on (`containerResourcesFromRequirements`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    /// Thousandths of a core; 0 for none.
    pub cpu: Range,
    /// Bytes; 0 for none.
    pub memory: Range,
}

/// A request and a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Range {
    pub request: i64,
    pub limit: i64,
}

/// The amounts of a container in a pod.
pub(crate) fn amounts(pod: &Pod, container: &Container) -> Amounts {
    let requests = &container.resources.requests;
    let range = |of: fn(&ResourceList) -> Option<i64>| Range {
        request: of(requests).unwrap_or(0),
        limit: limit(pod, container, of).unwrap_or(0),
    };
    Amounts { cpu: range(milli), memory: range(bytes) }
}

/// The pod's own cgroup (`ResourceConfigForPod`).
pub fn pod_cgroup(pod: &Pod) -> CgroupValues {
    let class = QosClass::of(pod);
    if class == QosClass::BestEffort {
        return CgroupValues { cpu_shares: Some(SHARES_MIN as u64), ..CgroupValues::default() };
    }
    let request = |c: &Container| milli(&c.resources.requests).or_else(|| milli(&c.resources.limits)).unwrap_or(0);
    let whole = pod.spec.resources.as_ref();
    let all = || pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let limit = |of: fn(&ResourceList) -> Option<i64>| {
        let declared = all().all(|c| of(&c.resources.limits).is_some());
        let overhead = of(&pod.spec.overhead).unwrap_or(0);
        let sum = declared.then(|| total(pod, |c| of(&c.resources.limits).unwrap_or(0)) + overhead);
        whole.and_then(|w| of(&w.limits)).or(sum)
    };
    let requested = whole.and_then(|w| milli(&w.requests)).unwrap_or_else(|| total(pod, request));
    CgroupValues {
        cpu_shares: Some(shares(requested + milli(&pod.spec.overhead).unwrap_or(0))),
        cpu_quota: limit(milli).map(quota),
        memory_max: limit(bytes),
    }
}

/// The larger of all that runs at the end and each init container with the sidecars before it.
fn total(pod: &Pod, of: impl Fn(&Container) -> i64) -> i64 {
    let (mut sidecars, mut init) = (0, 0);
    for container in &pod.spec.init_containers {
        let own = of(container);
        if container.is_sidecar() {
            sidecars += own;
            init = init.max(sidecars);
        } else {
            init = init.max(sidecars + own);
        }
    }
    (pod.spec.containers.iter().map(of).sum::<i64>() + sidecars).max(init)
}

/// How willingly the kernel's OOM killer takes a container (`GetContainerOOMScoreAdjust`).
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i32 {
    const GUARANTEED: i64 = -997;
    // Upstream's system-node-critical.
    if pod.spec.priority.unwrap_or(0) >= 2_000_001_000 {
        return GUARANTEED as i32;
    }
    match QosClass::of(pod) {
        QosClass::Guaranteed => return GUARANTEED as i32,
        QosClass::BestEffort => return 1000,
        QosClass::Burstable => {}
    }
    let score = |request: i64| 1000 - 1000 * request / memory_capacity.max(1);
    let request = |c: &Container| c.resources.requests.get("memory").map_or(0, |q| q.value());
    let mut adjust = score(request(container));
    if container.is_sidecar() {
        adjust = adjust.min(score(pod.spec.containers.iter().map(request).min().unwrap_or(0)));
    }
    adjust.clamp(1000 + GUARANTEED, 999) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: &str) -> Pod {
        serde_json::from_str(&format!(r#"{{"spec":{{"containers":[{{"name":"c","resources":{resources}}}]}}}}"#))
            .unwrap()
    }

    #[test]
    fn classes_and_values() {
        let rows = [
            ("{}", QosClass::BestEffort, Some(2), None, None, 1000),
            (
                r#"{"requests":{"cpu":"100m","memory":"64Mi"}}"#,
                QosClass::Burstable,
                Some(102),
                None,
                None,
                1000 - 1000 * 64 / 4096,
            ),
            (
                r#"{"requests":{"cpu":"1","memory":"1Gi"},"limits":{"cpu":"1000m","memory":"1Gi"}}"#,
                QosClass::Guaranteed,
                Some(1024),
                Some(100_000),
                Some(1 << 30),
                -997,
            ),
            (r#"{"limits":{"cpu":"5m"}}"#, QosClass::Burstable, Some(5), Some(1000), None, 999),
        ];
        for (text, class, cpu_shares, cpu_quota, memory_max, oom) in rows {
            let pod = pod(text);
            assert_eq!(QosClass::of(&pod), class, "{text}");
            let expected = CgroupValues { cpu_shares, cpu_quota, memory_max };
            assert_eq!(container_cgroup(&pod, &pod.spec.containers[0]), expected, "{text}");
            assert_eq!(pod_cgroup(&pod), expected, "{text}");
            assert_eq!(oom_score_adj(&pod, &pod.spec.containers[0], 4 << 30), oom, "{text}");
        }
    }
}
