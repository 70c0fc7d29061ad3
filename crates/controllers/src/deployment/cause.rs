//! Why a rollout does not go on, from what its pods say (Corten's own: `corten.dev/explain-rollout`).

use corten_kinds::id;
use corten_views::pod::tolerates;
use corten_views::{ContainerStatus, Node, Pod};

use crate::{Typed, World};

/// What keeps a rollout from going on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cause {
    /// One word, as the kubelet or the scheduler has it.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// Reasons for which a container waits that do not pass by themselves.
const CERTAIN: &[&str] = &[
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "CrashLoopBackOff",
];

/// The first thing that is certain to keep one of the pods from becoming ready.
pub(super) fn find(world: &World<'_>, pods: &[Typed<Pod>]) -> Option<Cause> {
    let mut waiting: Vec<&Typed<Pod>> = pods.iter().filter(|p| p.is_active() && !p.is_ready()).collect();
    waiting.sort_by_key(|p| (p.head().created, p.name().to_owned()));
    waiting.into_iter().find_map(|pod| container(pod).or_else(|| unschedulable(world, pod)))
}

fn container(pod: &Typed<Pod>) -> Option<Cause> {
    let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    statuses.into_iter().find_map(|status| {
        let waiting = status.state.waiting.as_ref()?;
        if !CERTAIN.contains(&waiting.reason.as_str()) {
            return None;
        }
        let of = format!("container \"{}\" of pod \"{}\"", status.name, pod.name());
        let message = match crash(status).filter(|_| waiting.reason == "CrashLoopBackOff") {
            Some(crash) => format!("{of} {crash}"),
            None if waiting.message.is_empty() => format!("{of}: {}", waiting.reason),
            None => format!("{of}: {}", waiting.message),
        };
        Some(Cause { reason: waiting.reason.clone(), message })
    })
}

/// How a container ended last: its exit code, and the last line that it left (`terminationMessagePolicy:
/// FallbackToLogsOnError` makes that a line of its log).
fn crash(status: &ContainerStatus) -> Option<String> {
    let ended = status.last_state.terminated.as_ref().or(status.state.terminated.as_ref())?;
    let last = ended.message.lines().rev().find(|line| !line.trim().is_empty());
    let said = last.map(|line| format!(": {}", line.trim())).unwrap_or_default();
    let times = status.restart_count;
    Some(format!("ended with exit code {} ({}) and was restarted {times} times{said}", ended.exit_code, ended.reason))
}

fn unschedulable(world: &World<'_>, pod: &Typed<Pod>) -> Option<Cause> {
    let condition = pod.condition("PodScheduled").filter(|c| c.status == "False" && c.reason == "Unschedulable")?;
    let fix = nearest_fix(world, pod).map(|fix| format!("; nearest fix: {fix}")).unwrap_or_default();
    let message = format!("pod \"{}\" is not scheduled: {}{fix}", pod.name(), condition.message.trim_end_matches('.'));
    Some(Cause { reason: "Unschedulable".into(), message })
}

/// What would let the pod onto the node that needs the fewest changes.
fn nearest_fix(world: &World<'_>, pod: &Typed<Pod>) -> Option<String> {
    let nodes = world.list::<Node>(id::NODE, "");
    let changes = nodes.iter().map(|node| changes(world, pod, node)).filter(|changes| !changes.is_empty());
    changes.min_by_key(|changes| (changes.len(), changes.join(" and "))).map(|changes| changes.join(" and "))
}

/// What would have to change so that the pod fits on a node.
fn changes(world: &World<'_>, pod: &Typed<Pod>, node: &Typed<Node>) -> Vec<String> {
    let mut out = Vec::new();
    let name = node.name();
    if node.spec.unschedulable {
        out.push(format!("uncordon node {name}"));
    }
    if !pod.spec.allows_node(name, |key| node.head().labels.get(key)) {
        out.push(format!("let the pod's node selector or affinity match node {name}"));
    }
    let hard = node.spec.taints.iter().filter(|t| t.effect != "PreferNoSchedule" && t.key != UNSCHEDULABLE);
    for taint in hard.filter(|t| !tolerates(&pod.spec.tolerations, t)) {
        let value = if taint.value.is_empty() { String::new() } else { format!("={}", taint.value) };
        out.push(format!("tolerate the taint {}{value}:{} of node {name}", taint.key, taint.effect));
    }
    let others = world.with_fact::<Pod>(id::POD, "spec.nodeName", name);
    let others: Vec<_> = others.into_iter().filter(|p| !p.is_terminal()).collect();
    for resource in ["cpu", "memory"] {
        let Some(there) = node.status.allocatable.get(resource) else { continue };
        let used: i64 = others.iter().map(|p| requested(p, resource)).fold(0, i64::saturating_add);
        let short = used.saturating_add(requested(pod, resource)).saturating_sub(there.milli());
        if short > 0 {
            let amount = if resource == "cpu" { format!("{short}m") } else { format!("{}", short / 1000) };
            out.push(format!("request {amount} {resource} less, or free as much on node {name}"));
        }
    }
    out
}

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What a pod's containers request together, in thousandths.
fn requested(pod: &Pod, resource: &str) -> i64 {
    let of = |c: &corten_views::Container| c.resources.requests.get(resource).map_or(0, |q| q.milli());
    pod.spec.containers.iter().chain(pod.spec.init_containers.iter().filter(|c| c.is_sidecar())).map(of).sum()
}
