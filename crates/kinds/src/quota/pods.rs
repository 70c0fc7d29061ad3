//! Pods (`pkg/quota/v1/evaluator/core/pods.go`, `k8s.io/component-helpers/resource/helpers.go`).

use std::collections::{BTreeMap, BTreeSet};

use corten_base::Timestamp;
use corten_object::time;
use corten_tree::Tree;

use super::{Evaluator, ResourceList, fits, one};
use crate::qos::qos_class;

const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";
const DEVICE_CLASS: &str = "deviceclass.resource.kubernetes.io/";

pub(super) const EVALUATOR: Evaluator = Evaluator {
    covers,
    usage,
    in_scope,
    update_counts: |subresource, new, old| match subresource {
        "" => is_terminating(new) != is_terminating(old),
        "resize" => true,
        _ => false,
    },
    constraints,
};

fn covers(resource: &str) -> bool {
    const PLAIN: [&str; 10] = [
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
    ];
    let request = resource.strip_prefix(REQUESTS);
    PLAIN.contains(&resource)
        || resource.starts_with(HUGE_PAGES)
        || request.is_some_and(|r| r.starts_with(HUGE_PAGES) || is_extended(r) || r.starts_with(DEVICE_CLASS))
}

/// Whether a resource's name is somebody's own (`!IsNativeResource`).
fn is_extended(resource: &str) -> bool {
    resource.contains('/') && !resource.contains("kubernetes.io/")
}

/// What a pod uses; one that has ended, or whose time to end is over, only its place in the store (`PodUsageFunc`).
fn usage(pod: &Tree, now: Timestamp) -> ResourceList {
    let ended = matches!(pod.str_at("status.phase"), "Failed" | "Succeeded");
    let deleted = time::parse(pod.str_at("metadata.deletionTimestamp"));
    let grace = pod.i64_at("metadata.deletionGracePeriodSeconds").map(i64::unsigned_abs);
    let overdue = deleted
        .zip(grace)
        .and_then(|(at, grace)| at.checked_add(std::time::Duration::from_secs(grace)).ok())
        .is_some_and(|end| now > end);
    if ended || overdue {
        return ResourceList::default();
    }
    compute(&pod_requests(pod, true), &pod_limits(pod, true))
}

/// `podComputeUsageHelper`
fn compute(requests: &ResourceList, limits: &ResourceList) -> ResourceList {
    let mut usage = ResourceList::default();
    usage.set("pods", one());
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(request) = requests.get(name) {
            usage.set(name, request.clone());
            usage.set(&format!("{REQUESTS}{name}"), request.clone());
        }
        if let Some(limit) = limits.get(name) {
            usage.set(&format!("limits.{name}"), limit.clone());
        }
    }
    for (name, request) in requests.iter() {
        if name.starts_with(HUGE_PAGES) {
            usage.set(name, request.clone());
        }
        if name.starts_with(HUGE_PAGES) || is_extended(name) || name.starts_with(DEVICE_CLASS) {
            usage.set(&format!("{REQUESTS}{name}"), request.clone());
        }
    }
    usage
}

/// `podMatchesScopeFunc`
fn in_scope(scope: &Tree, pod: &Tree) -> bool {
    match scope.str_at("scopeName") {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => qos_class(pod) == "BestEffort",
        "NotBestEffort" => qos_class(pod) != "BestEffort",
        "PriorityClass" => {
            let class = Some(pod.str_at("spec.priorityClassName")).filter(|c| !c.is_empty());
            fits(scope, class.as_slice())
        }
        "CrossNamespacePodAffinity" => looks_elsewhere(pod),
        _ => false,
    }
}

fn is_terminating(pod: &Tree) -> bool {
    pod.i64_at("spec.activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0)
}

/// Whether an affinity names other namespaces (`usesCrossNamespacePodAffinity`).
fn looks_elsewhere(pod: &Tree) -> bool {
    let elsewhere = |term: &Tree| !term.list_at("namespaces").is_empty() || term.path("namespaceSelector").is_some();
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let list =
            |name: &str| pod.list_at(&format!("spec.affinity.{kind}.{name}DuringSchedulingIgnoredDuringExecution"));
        let preferred = |term: &Tree| term.path("podAffinityTerm").is_some_and(elsewhere);
        list("required").iter().any(elsewhere) || list("preferred").iter().any(preferred)
    })
}

/// Where cpu or memory are limited, each container must say what it wants of them.
fn constraints(required: &[&str], pod: &Tree) -> Result<(), String> {
    const INSISTED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
    let has_own = ["requests", "limits"]
        .iter()
        .any(|list| pod.map_at(&format!("spec.resources.{list}")).keys().any(is_pod_level));
    if has_own {
        return Ok(());
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in pod.list_at("spec.containers").iter().chain(pod.list_at("spec.initContainers")) {
        let list = |name: &str| ResourceList::of(container.map_at(&format!("resources.{name}")));
        let used = compute(&list("requests"), &list("limits"));
        for name in required.iter().filter(|n| INSISTED.contains(n) && used.get(n).is_none()) {
            missing.entry(name).or_default().insert(container.str_at("name"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let shown = |(name, containers): (&&str, &BTreeSet<&str>)| {
        format!("{name} for: {}", containers.iter().copied().collect::<Vec<&str>>().join(","))
    };
    Err(format!("must specify {}", missing.iter().map(shown).collect::<Vec<String>>().join("; ")))
}

/// Whether pod-level resources may name it.
pub(crate) fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(HUGE_PAGES)
}

/// The larger of what starting and running need (`AggregateContainerRequests`).
fn aggregate(pod: &Tree, amounts: impl Fn(&Tree) -> ResourceList) -> ResourceList {
    let mut running = ResourceList::default();
    for container in pod.list_at("spec.containers") {
        running.add(&amounts(container));
    }
    let (mut sidecars, mut starting) = (ResourceList::default(), ResourceList::default());
    for container in pod.list_at("spec.initContainers") {
        let mut own = amounts(container);
        if container.str_at("restartPolicy") == "Always" {
            running.add(&own);
            sidecars.add(&own);
            own = sidecars.clone();
        } else {
            own.add(&sidecars);
        }
        starting.max(&own);
    }
    running.max(&starting);
    running
}

/// What a pod's containers request together.
pub(crate) fn container_requests(pod: &Tree) -> ResourceList {
    aggregate(pod, |container| ResourceList::of(container.map_at("resources.requests")))
}

/// What a pod's containers are limited to together.
pub(crate) fn container_limits(pod: &Tree) -> ResourceList {
    aggregate(pod, |container| ResourceList::of(container.map_at("resources.limits")))
}

fn with_pod_level(pod: &Tree, list: &str, total: &mut ResourceList) {
    let own = ResourceList::of(pod.map_at(&format!("spec.resources.{list}")));
    for (name, amount) in own.iter().filter(|(name, _)| is_pod_level(name)) {
        total.set(name, amount.clone());
    }
}

/// What the node has given a container (`status`'s amounts; for a resize that cannot be done they count alone).
fn given(pod: &Tree, container: &Tree, list: &str, wanted: ResourceList) -> ResourceList {
    let name = container.str_at("name");
    let statuses = ["containerStatuses", "initContainerStatuses"];
    let mut found = statuses.iter().flat_map(|list| pod.list_at(&format!("status.{list}")));
    let Some(status) = found.find(|s| s.str_at("name") == name) else { return wanted };
    let infeasible = pod
        .list_at("status.conditions")
        .iter()
        .any(|c| c.str_at("type") == "PodResizePending" && c.str_at("reason") == "Infeasible");
    let actual = status.map_at(&format!("resources.{list}"));
    let mut total = if infeasible && !actual.is_empty() { ResourceList::default() } else { wanted };
    total.max(&ResourceList::of(actual));
    if list == "requests" {
        total.max(&ResourceList::of(status.map_at("allocatedResources")));
    }
    total
}

/// A pod's requests; as it runs (with its overhead, and what a resize has not taken away yet), or as it is specified.
pub fn pod_requests(pod: &Tree, as_it_runs: bool) -> ResourceList {
    let mut total = aggregate(pod, |container| {
        let wanted = ResourceList::of(container.map_at("resources.requests"));
        if as_it_runs { given(pod, container, "requests", wanted) } else { wanted }
    });
    with_pod_level(pod, "requests", &mut total);
    if as_it_runs {
        total.add(&ResourceList::of(pod.map_at("spec.overhead")));
    }
    total
}

/// A pod's limits, likewise.
pub fn pod_limits(pod: &Tree, as_it_runs: bool) -> ResourceList {
    let mut total = aggregate(pod, |container| {
        let wanted = ResourceList::of(container.map_at("resources.limits"));
        if as_it_runs { given(pod, container, "limits", wanted) } else { wanted }
    });
    with_pod_level(pod, "limits", &mut total);
    if as_it_runs {
        let overhead = ResourceList::of(pod.map_at("spec.overhead"));
        let limited = overhead.only(|name| total.get(name).is_some_and(|q| !q.is_zero()));
        total.add(&limited);
    }
    total
}

#[cfg(test)]
mod tests {
    use corten_tree::tree;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn quota_usage_of_a_pod_names_requests_limits_and_extended_resources() {
        let pod = tree!({"spec": {"overhead": {"cpu": "10m"}, "containers": [{"name": "a", "resources": {
            "requests": {"cpu": "100m", "memory": "1Gi", "example.com/gpu": "2", "hugepages-2Mi": "4Mi"},
            "limits": {"cpu": "1"}}}]}});
        assert_eq!(
            usage(&pod, now()).to_string(),
            "cpu=110m,hugepages-2Mi=4Mi,limits.cpu=1010m,memory=1Gi,pods=1,requests.cpu=110m,requests.example.com/gpu=2,\
             requests.hugepages-2Mi=4Mi,requests.memory=1Gi"
        );
        let mut over = pod.clone();
        over.set("status.phase", "Succeeded");
        assert!(usage(&over, now()).is_empty());
        over = pod;
        over.set("metadata.deletionTimestamp", "2025-12-31T23:59:00Z");
        over.set("metadata.deletionGracePeriodSeconds", 90);
        assert!(!usage(&over, now()).is_empty());
        over.set("metadata.deletionGracePeriodSeconds", 30);
        assert!(usage(&over, now()).is_empty());
    }

    #[test]
    fn quota_scopes_of_a_pod() {
        let pod = tree!({"spec": {"priorityClassName": "high", "activeDeadlineSeconds": 5, "containers": [{"name": "a"}],
            "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["x"]}]}}}});
        let scope = |name: &str, operator: &str, values: Tree| {
            in_scope(&tree!({"scopeName": name, "operator": operator, "values": (values)}), &pod)
        };
        let none = || tree!([]);
        for name in ["Terminating", "BestEffort", "PriorityClass", "CrossNamespacePodAffinity"] {
            assert!(scope(name, "Exists", none()), "{name}");
        }
        for name in ["NotTerminating", "NotBestEffort"] {
            assert!(!scope(name, "Exists", none()), "{name}");
        }
        assert!(scope("PriorityClass", "In", tree!(["high"])) && !scope("PriorityClass", "NotIn", tree!(["high"])));
        assert!(!scope("PriorityClass", "DoesNotExist", none()));
    }

    #[test]
    fn quota_for_cpu_wants_containers_to_say_theirs() {
        let pod =
            tree!({"spec": {"containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}]}});
        let found = constraints(&["limits.cpu", "requests.cpu", "pods"], &pod);
        assert_eq!(found.unwrap_err(), "must specify limits.cpu for: a,b; requests.cpu for: b");
    }
}
