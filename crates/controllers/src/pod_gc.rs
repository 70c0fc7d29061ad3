//! Pods that nobody looks after any more (`pkg/controller/podgc`): on nodes that are gone, ending without a node, ended and too
//! many.

use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::Tree;
use corten_views::Pod;

use crate::{Action, Changed, Controller, Key, Plan, Typed, Watch, World, Write, status};
use corten_object::conditions::{self, NewCondition};

/// The controller.
pub struct PodGc {
    /// How many ended pods may stay.
    pub terminated_max: usize,
}

const WATCHES: &[Watch] = &[Watch::by(id::POD, changed), Watch::by(id::NODE, node_gone)];

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

fn node_gone(change: &Changed<'_>, out: &mut Vec<Key>) {
    if change.new.is_none() {
        let name = &change.object().head.name;
        out.extend(change.state.by_index(id::POD, "spec.nodeName", name).map(|pod| pod.key()));
    }
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
            return if pod.is_terminating() { Plan::of(vec![force(&pod)]) } else { Plan::empty() };
        }
        if world.state.find(id::NODE, "", &pod.spec.node_name).is_some() {
            return Plan::empty();
        }
        let mut plan = Plan::of(fail(world, &pod).into_iter().collect());
        plan.stage([force(&pod)]);
        plan
    }
}

impl PodGc {
    fn too_many(&self, world: &World<'_>) -> Plan {
        let mut ended: Vec<_> = world.list::<Pod>(id::POD, "");
        ended.retain(|p| p.is_terminal() && !p.is_terminating());
        let surplus = ended.len().saturating_sub(self.terminated_max);
        if surplus == 0 {
            return Plan::empty();
        }
        ended.sort_by_key(|p| (p.status.reason != "Evicted", p.head().created, p.name().to_owned()));
        Plan::of(ended.iter().take(surplus).map(force).collect())
    }
}

/// The pod counts as failed before it goes, so that its controller can tell why.
fn fail(world: &World<'_>, pod: &Typed<Pod>) -> Option<Action> {
    let before = status::of(&pod.tree());
    let mut after: Tree = before.clone();
    if !pod.is_terminal() {
        after.insert("phase", "Failed");
        let condition = NewCondition {
            kind: "DisruptionTarget",
            status: "True",
            reason: "DeletionByPodGC",
            message: String::from("PodGC: node no longer exists"),
        };
        conditions::set(&mut after, &condition, world.now, "");
    }
    status::write(&pod.object, &before, &after)
}

fn force(pod: &Typed<Pod>) -> Action {
    let uid = pod.uid().to_owned();
    Write::Delete { key: pod.key(), uid, revision: None, propagation: "", grace_seconds: Some(0) }.into()
}
