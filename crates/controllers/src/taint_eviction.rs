//! Pods leave nodes whose `NoExecute` taints they do not tolerate, or not any longer (`pkg/controller/tainteviction`).

use std::sync::Arc;
use std::time::Duration;

use corten_base::Timestamp;
use corten_kinds::id;
use corten_views::{Node, Pod, Taint};
use jiff::SignedDuration;

use crate::{Action, Changed, Controller, EventNote, Key, Plan, Typed, Watch, World, status};
use corten_object::conditions::{self, NewCondition};

/// The controller.
pub struct TaintEviction;

const WATCHES: &[Watch] = &[Watch::by(id::POD, placed), Watch::by(id::NODE, tainted)];

fn placed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let Some(new) = change.new else { return };
    let node = |p: Typed<Pod>| (p.spec.node_name.clone(), p.spec.tolerations.clone());
    let before = change.old.and_then(Typed::read).map(node);
    if Typed::read(new).map(node) != before {
        out.push(new.key());
    }
}

fn tainted(change: &Changed<'_>, out: &mut Vec<Key>) {
    let taints = |n: Typed<Node>| n.spec.taints.clone();
    let Some(new) = change.new else { return };
    if change.old.and_then(Typed::read).map(taints) != Typed::read(new).map(taints) {
        out.extend(change.state.by_index(id::POD, "spec.nodeName", &new.head.name).map(|pod| pod.key()));
    }
}

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction"
    }

    fn component(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn user(&self) -> String {
        String::from("system:serviceaccount:kube-system:node-controller")
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(pod) = world.get::<Pod>(key) else { return Plan::empty() };
        if pod.is_terminating() || !pod.is_scheduled() || pod.is_terminal() {
            return Plan::empty();
        }
        let Some(node) = world.find::<Node>(id::NODE, "", &pod.spec.node_name) else { return Plan::empty() };
        let taints: Vec<&Taint> = node.spec.taints.iter().filter(|t| t.effect == "NoExecute").collect();
        match time_left(world, &pod, &taints) {
            Some(left) if left.is_zero() => evict(world, &pod),
            Some(left) => Plan { requeue: Some(left), keep: Some(Arc::new(Leaves)), ..Plan::empty() },
            None => Plan { events: world.kept::<Leaves>().map(|_| stays(&pod)).into_iter().collect(), ..Plan::empty() },
        }
    }
}

/// The time of a pod on its node is limited.
struct Leaves;

/// It is not limited any more.
fn stays(pod: &Typed<Pod>) -> EventNote {
    let message = format!("Cancelling deletion of Pod {}/{}", pod.namespace(), pod.name());
    EventNote::normal(&pod.object, "TaintManagerEviction", message)
}

/// How long the pod may stay; `None`: for ever.
fn time_left(world: &World<'_>, pod: &Typed<Pod>, taints: &[&Taint]) -> Option<Duration> {
    let placed_at = pod.condition("PodScheduled").filter(|c| c.is_true()).and_then(|c| c.last_transition_time);
    let placed_at = placed_at.or(pod.head().created);
    let one = |taint: &&Taint| -> Option<Duration> {
        let tolerations: Vec<_> = pod.spec.tolerations.iter().filter(|t| t.tolerates(taint)).collect();
        if tolerations.is_empty() {
            return Some(Duration::ZERO);
        }
        let seconds = tolerations.iter().filter_map(|t| t.toleration_seconds).min()?;
        // A taint without a time gets one soon (node lifecycle), which wakes this again. A pod that came later has its whole time.
        let since = taint.time_added.unwrap_or(world.now).max(placed_at.unwrap_or(Timestamp::MIN));
        let left = SignedDuration::from_secs(seconds.max(0)) - world.now.duration_since(since);
        Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
    };
    taints.iter().filter_map(one).min()
}

fn evict(world: &World<'_>, pod: &Typed<Pod>) -> Plan {
    let before = status::of(&pod.tree());
    let mut after = before.clone();
    let condition = NewCondition {
        kind: "DisruptionTarget",
        status: "True",
        reason: "DeletionByTaintManager",
        message: String::from("Taint manager: deleting due to NoExecute taint"),
    };
    conditions::set(&mut after, &condition, world.now, "");
    let mut plan = Plan::of(status::write(&pod.object, &before, &after).into_iter().collect());
    let message = format!("Marking for deletion Pod {}/{}", pod.namespace(), pod.name());
    let note = EventNote::normal(&pod.object, "TaintManagerEviction", message);
    plan.stage([Action::delete(&pod.object).on_success(note)]);
    plan
}
