//! A pod's conditions (`pkg/kubelet/status/generate.go`).

use corten_base::Timestamp;
use corten_object::time;
use corten_tree::Tree;
use corten_views::{Pod, PodStatus};

use crate::status::{ContainerReport, State};
use crate::{Lifecycle, Memory, Observed, resize, restart};

struct Condition {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

fn condition(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition { kind, holds, reason, message: message.into() }
}

/// Conditions of others as they are in the object, then the node's own five, and that of an eviction.
pub(crate) fn generate(
    pod: &Pod,
    observed: &Observed,
    reports: &[&ContainerReport],
    phase: &str,
    previous: &PodStatus,
    memory: &Memory,
    now: Timestamp,
) -> Tree {
    let containers_ready = containers_ready(pod, reports, phase);
    let mut own = vec![
        sandbox_ready(observed, memory),
        initialized(pod, reports, phase, previous),
        ready(pod, &containers_ready),
        containers_ready,
        condition("PodScheduled", true, "", ""),
    ];
    if let Some(message) = memory.ending.as_ref().and_then(|ending| ending.disruption.clone()) {
        own.push(condition("DisruptionTarget", true, "TerminationByKubelet", message));
    }
    if let Some((holds, reason, message)) = restart::condition(pod, observed, previous, phase) {
        own.push(condition(restart::CONDITION, holds, reason, message));
    }
    let mut out = Vec::new();
    let is_own = |kind: &str| own.iter().any(|o| o.kind == kind) || resize::is_own_condition(kind);
    for other in pod.status.conditions.iter().filter(|c| !is_own(&c.r#type)) {
        let mut tree = Tree::map();
        tree.insert("type", &other.r#type);
        if let Some(generation) = other.observed_generation.filter(|g| *g != 0) {
            tree.insert("observedGeneration", generation);
        }
        tree.insert("status", &other.status);
        for (key, at) in [("lastProbeTime", other.last_probe_time), ("lastTransitionTime", other.last_transition_time)]
        {
            if let Some(at) = at {
                tree.insert(key, time::format(at));
            }
        }
        texts(&mut tree, &other.reason, &other.message);
        out.push(tree);
    }
    out.extend(memory.resizing.conditions());
    for c in own {
        let status = if c.holds { "True" } else { "False" };
        let before = previous.conditions.iter().find(|p| p.r#type == c.kind && p.status == status);
        let since = before.and_then(|p| p.last_transition_time).unwrap_or(now);
        let mut tree = Tree::map();
        tree.insert("type", c.kind);
        if pod.metadata.generation != 0 && c.kind != restart::CONDITION {
            tree.insert("observedGeneration", pod.metadata.generation);
        }
        tree.insert("status", status);
        tree.insert("lastTransitionTime", time::format(since));
        texts(&mut tree, c.reason, &c.message);
        out.push(tree);
    }
    Tree::List(out)
}

fn texts(tree: &mut Tree, reason: &str, message: &str) {
    for (key, text) in [("reason", reason), ("message", message)] {
        if !text.is_empty() {
            tree.insert(key, text);
        }
    }
}

fn sandbox_ready(observed: &Observed, memory: &Memory) -> Condition {
    const KIND: &str = "PodReadyToStartContainers";
    const REASON: &str = "PodSandboxNotReady";
    match &observed.sandbox {
        Some(sandbox) if sandbox.ready && memory.lifecycle < Lifecycle::Terminated => condition(KIND, true, "", ""),
        Some(_) => condition(KIND, false, REASON, "pod sandbox is not ready"),
        None => condition(KIND, false, REASON, "no pod sandbox exists"),
    }
}

/// `[a b]`, as Go prints a list.
fn go_list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn join(unknown: &[&str], others: &[&str], what: &str) -> String {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: {}", go_list(unknown)));
    }
    if !others.is_empty() {
        parts.push(format!("containers with {what} status: {}", go_list(others)));
    }
    parts.join(", ")
}

fn containers_ready(pod: &Pod, reports: &[&ContainerReport], phase: &str) -> Condition {
    const KIND: &str = "ContainersReady";
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.is_sidecar());
    for container in sidecars.chain(&pod.spec.containers) {
        match reports.iter().find(|r| r.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(report) if !report.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(KIND, false, "PodCompleted", "");
    }
    if phase == "Failed" {
        return condition(KIND, false, "PodFailed", "");
    }
    match join(&unknown, &unready, "unready") {
        message if message.is_empty() => condition(KIND, true, "", ""),
        message => condition(KIND, false, "ContainersNotReady", message),
    }
}

fn ready(pod: &Pod, containers_ready: &Condition) -> Condition {
    const KIND: &str = "Ready";
    if !containers_ready.holds {
        return condition(KIND, false, containers_ready.reason, containers_ready.message.clone());
    }
    let mut missing = Vec::new();
    for gate in &pod.spec.readiness_gates {
        let kind = &gate.condition_type;
        match pod.condition(kind) {
            None => missing.push(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some(c) if !c.is_true() => {
                missing.push(format!("the status of pod readiness gate {kind:?} is not \"True\", but {}", c.status));
            }
            Some(_) => {}
        }
    }
    match missing.is_empty() {
        true => condition(KIND, true, "", ""),
        false => condition(KIND, false, "ReadinessGatesNotReady", missing.join(", ")),
    }
}

fn initialized(pod: &Pod, reports: &[&ContainerReport], phase: &str, previous: &PodStatus) -> Condition {
    const KIND: &str = "Initialized";
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in &pod.spec.init_containers {
        match reports.iter().find(|r| r.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(r) if container.is_sidecar() && r.started != Some(true) => incomplete.push(container.name.as_str()),
            Some(r) if !container.is_sidecar() && !r.ready => incomplete.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(KIND, true, "PodCompleted", "");
    }
    let ran = |r: &&ContainerReport| !matches!(r.state, State::Waiting { .. });
    if pod.spec.containers.iter().any(|c| reports.iter().any(|r| r.name == c.name && ran(r))) {
        return condition(KIND, true, "", "");
    }
    match join(&unknown, &incomplete, "incomplete") {
        message if message.is_empty() => condition(KIND, true, "", ""),
        // Init containers that are run again for a restart of all do not take it back.
        _ if corten_views::meta::is_true(&previous.conditions, KIND) => condition(KIND, true, "", ""),
        message => condition(KIND, false, "ContainersNotInitialized", message),
    }
}
