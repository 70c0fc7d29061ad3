//! ReplicaSet and ReplicationController: so many pods of one template (`pkg/controller/replicaset/replica_set.go`).

use std::sync::Arc;

use corten_cache::Objects;
use corten_kinds::id;
use corten_object::{KindId, LabelSelector, Object};
use corten_tree::Tree;
use corten_views::meta::{Texts, compile};
use corten_views::{Pod, ReplicaSet, ReplicationController};

use crate::world::controlled;
use crate::{Changed, Controller, Key, Plan, Typed, Verb, Watch, World, owners, pods, status, watch};
use corten_object::conditions::{self, NewCondition};

/// The most pods made or deleted in one plan.
const BURST: usize = 500;

/// The controller of one of the two kinds.
pub struct ReplicaSetController {
    name: &'static str,
    component: &'static str,
    kind: KindId,
    watches: &'static [Watch],
}

impl ReplicaSetController {
    /// Of `apps/v1 ReplicaSet`.
    pub const REPLICA_SET: ReplicaSetController = ReplicaSetController {
        name: "replicaset",
        component: "replicaset-controller",
        kind: id::REPLICA_SET,
        watches: &[
            Watch::itself(id::REPLICA_SET),
            Watch::controller(id::POD, id::REPLICA_SET),
            Watch::by(id::POD, |change, out| orphan(change, out, id::REPLICA_SET)),
        ],
    };

    /// Of `v1 ReplicationController`.
    pub const REPLICATION: ReplicaSetController = ReplicaSetController {
        name: "replication",
        component: "replication-controller",
        kind: id::REPLICATION_CONTROLLER,
        watches: &[
            Watch::itself(id::REPLICATION_CONTROLLER),
            Watch::controller(id::POD, id::REPLICATION_CONTROLLER),
            Watch::by(id::POD, |change, out| orphan(change, out, id::REPLICATION_CONTROLLER)),
        ],
    };
}

/// A pod without a controller wakes the sets that could adopt it.
fn orphan(change: &Changed<'_>, out: &mut Vec<Key>, kind: KindId) {
    let pod = change.object();
    if change.new.is_none() || pod.head.controller().is_some() || !change.selection_changed() {
        return;
    }
    for object in change.state.list_in(kind, &pod.head.namespace) {
        if Set::read(object).is_some_and(|set| set.selector.matches(&pod.head.labels)) {
            out.push(object.key());
        }
    }
}

/// What the two kinds have in common.
struct Set {
    object: Arc<Object>,
    replicas: i64,
    min_ready_seconds: i64,
    selector: LabelSelector,
    template_labels: Texts,
}

impl Set {
    fn read(object: &Arc<Object>) -> Option<Set> {
        if object.kind == id::REPLICATION_CONTROLLER {
            let view = object.view::<ReplicationController>().ok()?;
            let pairs = view.spec.selector.iter().map(|(k, v)| (k.as_str(), v.as_str()));
            return Some(Set {
                object: object.clone(),
                replicas: view.spec.replicas.unwrap_or(1),
                min_ready_seconds: view.spec.min_ready_seconds,
                selector: LabelSelector::from_labels(pairs),
                template_labels: view.spec.template.as_ref().map(|t| t.metadata.labels.clone()).unwrap_or_default(),
            });
        }
        let view = object.view::<ReplicaSet>().ok()?;
        Some(Set {
            object: object.clone(),
            replicas: view.spec.replicas.unwrap_or(1),
            min_ready_seconds: view.spec.min_ready_seconds,
            selector: compile(view.spec.selector.as_ref()),
            template_labels: view.spec.template.metadata.labels.clone(),
        })
    }
}

impl Controller for ReplicaSetController {
    fn name(&self) -> &'static str {
        self.name
    }

    fn component(&self) -> &'static str {
        self.component
    }

    fn watches(&self) -> &[Watch] {
        self.watches
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(set) = world.state.get(key).and_then(Set::read) else { return Plan::empty() };
        let claimed = owners::claim::<Pod>(world, &set.object, id::POD, &set.selector, |pod| pod.is_active());
        if !claimed.actions.is_empty() {
            return Plan::of(claimed.actions);
        }
        let active = pods::active(&claimed.owned);
        let tree = set.object.to_tree();
        let mut actions = Vec::new();
        let old = status::of(&tree);
        let new = self.status(world, &set, &old, &active, &claimed.owned);
        actions.extend(status::write(&set.object, &old, &new));
        if !set.object.head.is_deleting() {
            actions.extend(self.manage(world, &set, &tree, &active));
        }
        let mut plan = Plan::of(actions);
        plan.requeue = pods::next_available(&active, set.min_ready_seconds, world.now);
        plan
    }
}

impl ReplicaSetController {
    fn manage(&self, world: &World<'_>, set: &Set, tree: &Tree, active: &[Typed<Pod>]) -> Vec<crate::Action> {
        let wanted = usize::try_from(set.replicas).unwrap_or(0);
        if active.len() < wanted {
            let template = tree.path("spec.template").cloned().unwrap_or_default();
            let pod = pods::from_template(world, &template, &set.object);
            let missing = (wanted - active.len()).min(BURST);
            return (0..missing).map(|_| pods::create_generated(world, &set.object, pod.clone())).collect();
        }
        if active.len() == wanted {
            return Vec::new();
        }
        let related = related_pods(world, set, active);
        let victims = pods::choose_victims(active, &related, (active.len() - wanted).min(BURST), world.now);
        victims.iter().map(|pod| pods::delete(&set.object, pod)).collect()
    }

    /// `calculateStatus` in `replica_set_utils.go`
    fn status(&self, world: &World<'_>, set: &Set, old: &Tree, active: &[Typed<Pod>], owned: &[Typed<Pod>]) -> Tree {
        let mut new = old.clone();
        let labeled = active.iter().filter(|p| {
            set.template_labels.iter().all(|(key, value)| p.head().labels.get(key) == Some(value.as_str()))
        });
        let (ready, available) = pods::count_ready(active, set.min_ready_seconds, world.now);
        new.insert("replicas", active.len() as i64);
        status::count(&mut new, "fullyLabeledReplicas", labeled.count() as i64);
        status::count(&mut new, "readyReplicas", ready);
        status::count(&mut new, "availableReplicas", available);
        if self.kind == id::REPLICA_SET {
            let terminating = owned.iter().filter(|p| p.is_terminating() && !p.is_terminal()).count();
            new.insert("terminatingReplicas", terminating as i64);
        }
        new.insert("observedGeneration", set.object.head.generation);
        self.failure(world, set, &mut new, active.len() as i64);
        new
    }

    /// The condition that making or deleting pods failed, from what became of the last plan.
    fn failure(&self, world: &World<'_>, set: &Set, new: &mut Tree, active: i64) {
        let failed = world.last.and_then(|o| o.first_error(Verb::Create).or_else(|| o.first_error(Verb::Delete)));
        match failed {
            Some(_) if conditions::find(new, "ReplicaFailure").is_some() => {}
            Some(failed) => {
                let reason = if failed.verb == Verb::Create { "FailedCreate" } else { "FailedDelete" };
                let message = failed.status.message.clone();
                let condition = NewCondition { kind: "ReplicaFailure", status: "True", reason, message };
                conditions::set(new, &condition, world.now, "");
            }
            // A process that has just begun does not know yet whether it still fails.
            None if world.last.is_some() || active == set.replicas => conditions::remove(new, "ReplicaFailure"),
            None => {}
        }
    }
}

/// The active pods of all sets with the same controller, or of this one (`getIndirectlyRelatedPods`).
fn related_pods(world: &World<'_>, set: &Set, own: &[Typed<Pod>]) -> Vec<Typed<Pod>> {
    let head = &set.object.head;
    let Some(owner) = head.controller() else { return own.to_vec() };
    let siblings = controlled(world.state, set.object.kind, &head.namespace, &owner.uid);
    let pods = |s: &&Arc<Object>| world.controlled::<Pod>(id::POD, &head.namespace, &s.head.uid);
    siblings.iter().flat_map(pods).collect()
}

/// The key of the set that controls a pod.
pub fn set_of(state: &Objects, pod: &Object) -> Option<Key> {
    watch::controller_key(state, pod, id::REPLICA_SET)
}
