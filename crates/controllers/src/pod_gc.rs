//! Pods that nobody looks after any more (`pkg/controller/podgc`): on nodes that are gone, ending without a node, ended and too
//! many.

use std::sync::Arc;
use std::time::Duration;

use corten_base::Timestamp;
use corten_kinds::id;
use corten_object::{Object, ObjectKey};
use corten_tree::Tree;
use corten_views::{Node, Pod};

use crate::{Action, Changed, Controller, Key, Plan, Typed, Watch, World, Write, status};
use corten_object::conditions::{self, NewCondition};

/// The controller.
pub struct PodGc {
    /// How many ended pods may stay.
    pub terminated_max: usize,
}

/// How long a node must have been gone until its pods go (upstream's `quarantineTime`): it may register again.
const QUARANTINE: Duration = Duration::from_secs(40);
/// The taint that somebody sets on a node that is off for good: its pods need not be heard of again.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

const WATCHES: &[Watch] = &[Watch::by(id::POD, changed), Watch::by(id::NODE, node_changed)];

/// Stands for all ended pods together.
fn everything() -> Key {
    ObjectKey::new(id::POD, "", "")
}

fn changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let Some(new) = change.new else { return };
    let facts = |o| Typed::<Pod>::read(o).map(|p| (p.spec.node_name.clone(), p.is_terminating(), p.is_terminal()));
    if change.old.and_then(facts) == facts(new) {
        return;
    }
    out.push(new.key());
    if Typed::<Pod>::read(new).is_some_and(|p| p.is_terminal()) {
        out.push(everything());
    }
}

/// A node that is gone, or is out of service now, wakes its pods.
fn node_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let off = |node| Typed::<Node>::read(node).is_some_and(|n| is_out_of_service(&n));
    let began = |new| off(new) && !change.old.is_some_and(off);
    if change.new.is_none_or(began) {
        let name = &change.object().head.name;
        out.extend(change.state.by_index(id::POD, "spec.nodeName", name).map(|pod| pod.key()));
    }
}

fn is_out_of_service(node: &Node) -> bool {
    !node.is_ready() && node.spec.taints.iter().any(|t| t.key == OUT_OF_SERVICE)
}

impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn component(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn user(&self) -> String {
        String::from("system:serviceaccount:kube-system:pod-garbage-collector")
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        if *key == everything() {
            return self.too_many(world);
        }
        let Some(pod) = world.get::<Pod>(key) else { return Plan::empty() };
        if !pod.is_scheduled() {
            return if pod.is_terminating() { end(world, &pod, None) } else { Plan::empty() };
        }
        if let Some(node) = world.find::<Node>(id::NODE, "", &pod.spec.node_name) {
            let end_now = pod.is_terminating() && is_out_of_service(&node);
            return if end_now { end(world, &pod, None) } else { Plan::empty() };
        }
        let since = world.kept::<Timestamp>().copied().unwrap_or(world.now);
        let passed = Duration::try_from(world.now.duration_since(since)).unwrap_or_default();
        match QUARANTINE.saturating_sub(passed) {
            Duration::ZERO => end(world, &pod, Some("PodGC: node no longer exists")),
            left => Plan { requeue: Some(left), keep: Some(Arc::new(since)), ..Plan::empty() },
        }
    }
}

impl PodGc {
    fn too_many(&self, world: &World<'_>) -> Plan {
        if world.state.count(id::POD) <= self.terminated_max {
            return Plan::empty();
        }
        let ended = |pod: &Object| {
            matches!(world.state.fact(pod, "status.phase"), "Failed" | "Succeeded") && !pod.head.is_deleting()
        };
        let surplus = world.state.list(id::POD).filter(|pod| ended(pod)).count().saturating_sub(self.terminated_max);
        if surplus == 0 {
            return Plan::empty();
        }
        let mut ended = world.list_where::<Pod>(id::POD, "", ended);
        ended.sort_by_key(|p| (p.status.reason != "Evicted", p.head().created, p.name().to_owned()));
        Plan::of(ended.iter().take(surplus).map(force).collect())
    }
}

/// The pod counts as failed before it goes, so that its controller can tell; with `disrupted` a condition says why
/// (`markFailedAndDeletePodWithCondition`).
fn end(world: &World<'_>, pod: &Typed<Pod>, disrupted: Option<&str>) -> Plan {
    let before = status::of(&pod.tree());
    let mut after: Tree = before.clone();
    if !pod.is_terminal() {
        after.insert("phase", "Failed");
        if let Some(message) = disrupted {
            let message = message.to_owned();
            let condition =
                NewCondition { kind: "DisruptionTarget", status: "True", reason: "DeletionByPodGC", message };
            conditions::set(&mut after, &condition, world.now, "");
        }
    }
    let mut plan = Plan::of(status::write(&pod.object, &before, &after).into_iter().collect());
    plan.stage([force(pod)]);
    plan
}

fn force(pod: &Typed<Pod>) -> Action {
    let uid = pod.uid().to_owned();
    Write::Delete { key: pod.key(), uid, revision: None, propagation: "", grace_seconds: Some(0) }.into()
}
