//! Nodes that are silent, and the taints that tell pods about a node's state (`pkg/controller/nodelifecycle`).

use std::sync::Arc;
use std::time::Duration;

use corten_base::Timestamp;
use corten_kinds::id;
use corten_object::{Object, ObjectKey, time};
use corten_tree::{Tree, tree};
use corten_views::{Lease, Node, Pod};

use crate::{Action, Changed, Controller, EventNote, Key, Plan, Typed, Watch, World, status};
use corten_object::conditions::{self, NewCondition};

/// The controller.
pub struct NodeLifecycle {
    /// How long a node may be silent.
    pub grace: Duration,
    /// When this process started: before, nobody can have been heard.
    pub started: Option<Timestamp>,
}

const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Conditions whose truth is a taint `NoSchedule`.
const PRESSURES: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// A zone in which more than this share of the nodes, and more than two, are not ready is disrupted as a whole
/// (`--unhealthy-zone-threshold`).
const UNHEALTHY_SHARE: f64 = 0.55;
const UNHEALTHY_MIN: usize = 2;
/// In a disrupted zone of up to so many nodes no pods are evicted (`--large-cluster-size-threshold`).
const SMALL_ZONE: usize = 50;
const ZONE: &str = "topology.kubernetes.io/zone";

const WATCHES: &[Watch] =
    &[Watch::itself(id::NODE), Watch::by(id::LEASE, renewed), Watch::by(id::NODE, readiness_changed)];

/// Whether pods leave a node depends on the state of the others.
fn readiness_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let ready = |o| Typed::<Node>::read(o).is_some_and(|n| n.is_ready());
    if change.old.map(ready) != change.new.map(ready) {
        out.extend(change.state.list(id::NODE).map(|node| node.key()));
    }
}

/// What is done about pods on nodes that are not ready (`handleDisruption`).
#[derive(Clone, Copy, PartialEq)]
enum Eviction {
    /// They are evicted.
    Goes,
    /// No further ones are: so much of the zone is not ready that something else must be wrong.
    Halts,
    /// None are: nothing in the cluster is ready, so it is more likely that the nodes are not heard than that all are broken.
    Never,
}

fn eviction(world: &World<'_>, node: &Typed<Node>) -> Eviction {
    let nodes = world.list::<Node>(id::NODE, "");
    if nodes.iter().all(|n| !n.is_ready()) {
        return Eviction::Never;
    }
    let zone = |n: &Typed<Node>| n.head().labels.get(ZONE).unwrap_or_default().to_owned();
    let own = zone(node);
    let zone: Vec<_> = nodes.iter().filter(|n| zone(n) == own).collect();
    let unready = zone.iter().filter(|n| !n.is_ready()).count();
    let disrupted = unready > UNHEALTHY_MIN && unready as f64 / zone.len() as f64 >= UNHEALTHY_SHARE;
    // A zone that is down as a whole is left by its pods: there are others.
    let halts = disrupted && unready < zone.len() && zone.len() <= SMALL_ZONE;
    if halts { Eviction::Halts } else { Eviction::Goes }
}

fn renewed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let lease = &change.object().head;
    if lease.namespace == *LEASES {
        out.push(ObjectKey::new(id::NODE, "", &lease.name));
    }
}

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    fn component(&self) -> &'static str {
        "node-controller"
    }

    fn user(&self) -> String {
        String::from("system:serviceaccount:kube-system:node-controller")
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let known = world.kept::<Known>();
        let about = |node: &Arc<Object>, reason, what: &str| {
            EventNote::normal(node, reason, format!("Node {} event: {what}", node.head.name))
        };
        let Some(node) = world.get::<Node>(key) else {
            let mut plan = Plan::empty();
            let gone = |Known(node): &Known| {
                about(node, "RemovingNode", &format!("Removing Node {} from Controller", key.name))
            };
            plan.events.extend(known.map(gone));
            return plan;
        };
        let mut plan = self.watch_over(world, &node);
        if known.is_none() {
            let what = format!("Registered Node {} in Controller", key.name);
            plan.events.push(about(&node.object, "RegisteredNode", &what));
        }
        plan.keep = Some(Arc::new(Known(node.object)));
        plan
    }
}

/// A node that this process has seen, as it was then.
struct Known(Arc<Object>);

impl NodeLifecycle {
    fn watch_over(&self, world: &World<'_>, node: &Typed<Node>) -> Plan {
        let left = self.time_left(world, node);
        if left.is_zero() {
            let plan = silence(world, node);
            if !plan.stages.is_empty() {
                return plan;
            }
        }
        let mut plan = taints(world, node);
        plan.requeue = (!left.is_zero()).then_some(left);
        if left.is_zero() {
            plan.stage(pods_not_ready(world, node));
        }
        plan
    }

    /// How long the node may still be silent; zero if it has been for too long.
    fn time_left(&self, world: &World<'_>, node: &Typed<Node>) -> Duration {
        let lease = world.find::<Lease>(id::LEASE, LEASES, node.name());
        let heartbeat =
            corten_views::meta::condition(&node.status.conditions, "Ready").and_then(|c| c.last_heartbeat_time);
        let heard = [lease.and_then(|l| l.spec.renew_time), heartbeat, self.started, node.head().created];
        let Some(last) = heard.into_iter().flatten().max() else { return self.grace };
        let passed = Duration::try_from(world.now.duration_since(last)).unwrap_or(Duration::ZERO);
        self.grace.saturating_sub(passed)
    }
}

/// What the node's conditions become when it is not heard any more.
fn silence(world: &World<'_>, node: &Typed<Node>) -> Plan {
    let before = status::of(&node.tree());
    let mut after = before.clone();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let (reason, message) = match conditions::find(&before, kind) {
            Some(c) if c.str_at("status") == "Unknown" => continue,
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let heartbeat = conditions::find(&before, kind).map(|c| c.str_at("lastHeartbeatTime").to_owned());
        let condition = NewCondition { kind, status: "Unknown", reason, message: message.into() };
        conditions::replace(&mut after, &condition, world.now, "lastHeartbeatTime");
        if let Some(heartbeat) = heartbeat.filter(|h| !h.is_empty())
            && let Some(Tree::List(items)) = after.path_mut("conditions")
            && let Some(last) = items.last_mut()
        {
            last.insert("lastHeartbeatTime", heartbeat);
        }
    }
    let note = format!("Node {} status is now: NodeNotReady", node.name());
    let write = status::write(&node.object, &before, &after);
    Plan::of(write.map(|w| w.on_success(EventNote::normal(&node.object, "NodeNotReady", note))).into_iter().collect())
}

/// The taints that conditions and `spec.unschedulable` ask for; others stay.
fn taints(world: &World<'_>, node: &Typed<Node>) -> Plan {
    let ready = corten_views::meta::condition(&node.status.conditions, "Ready").map_or("Unknown", |c| &c.status);
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match ready {
        "True" => {}
        "False" => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        _ => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
    }
    let pressed = PRESSURES.iter().filter(|(kind, _)| corten_views::meta::is_true(&node.status.conditions, kind));
    wanted.extend(pressed.map(|(_, taint)| (*taint, "NoSchedule")));
    if node.spec.unschedulable {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |key: &str| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, taint)| *taint == key)
    };
    let now = time::format(world.now);
    let before = node.tree().list_at("spec.taints").to_vec();
    let there = |w: &(&str, &str)| before.iter().any(|t| t.str_at("key") == w.0 && t.str_at("effect") == w.1);
    match eviction(world, node) {
        Eviction::Goes => {}
        Eviction::Halts => wanted.retain(|w| w.1 != "NoExecute" || there(w)),
        Eviction::Never => wanted.retain(|w| w.1 != "NoExecute"),
    }
    let mut after: Vec<Tree> = Vec::new();
    for taint in &before {
        let same = |w: &(&str, &str)| w.0 == taint.str_at("key") && w.1 == taint.str_at("effect");
        if ours(taint.str_at("key")) && !wanted.iter().any(same) {
            continue;
        }
        wanted.retain(|w| !same(w));
        let mut taint = taint.clone();
        if taint.str_at("effect") == "NoExecute" {
            // Tolerations that are limited in time count from here.
            taint.set_default("timeAdded", now.as_str());
        }
        after.push(taint);
    }
    for (key, effect) in wanted {
        let mut taint = tree!({"key": (key), "effect": (effect)});
        taint.insert("timeAdded", now.as_str());
        after.push(taint);
    }
    if Tree::List(before).semantically_equal(&Tree::List(after.clone())) {
        return Plan::empty();
    }
    Plan::of(vec![Action::patch(&node.object, tree!({"spec": {"taints": (after)}}))])
}

/// Pods on a node that is not heard are not ready for anybody.
fn pods_not_ready(world: &World<'_>, node: &Typed<Node>) -> Vec<Action> {
    let pods = world.with_fact::<Pod>(id::POD, "spec.nodeName", node.name());
    let ready = pods.into_iter().filter(|p| p.is_ready());
    ready
        .filter_map(|pod| {
            let before = status::of(&pod.tree());
            let mut after = before.clone();
            let Some(Tree::List(items)) = after.path_mut("conditions") else { return None };
            let condition = items.iter_mut().find(|c| c.str_at("type") == "Ready")?;
            condition.insert("status", "False");
            condition.insert("lastTransitionTime", time::format(world.now));
            let note = EventNote::warning(&pod.object, "NodeNotReady", "Node is not ready");
            status::write(&pod.object, &before, &after).map(|w| w.on_success(note))
        })
        .collect()
}
