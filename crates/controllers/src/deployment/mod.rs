//! Deployment: rolls its replica sets from one template to the next (`pkg/controller/deployment`).
//!
//! Upstream does several dependent writes in one sync; here each plan holds one step, and the next reconcile, which sees
//! that step done, does the next.

mod cause;
mod progress;
mod revision;
mod rollback;
mod scale;

use std::cmp::Reverse;

use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::{Tree, tree};
use corten_views::meta::compile;
use corten_views::{Deployment, Pod, ReplicaSet};

use crate::{
    Action, Changed, Controller, EventNote, Key, Plan, Typed, Verb, Watch, World, beyond, hash, names, owners,
    replica_set, status,
};
use corten_object::conditions::{self, NewCondition};

/// The controller.
pub struct DeploymentController;

const WATCHES: &[Watch] = &[
    Watch::itself(id::DEPLOYMENT),
    Watch::controller(id::REPLICA_SET, id::DEPLOYMENT),
    Watch::by(id::REPLICA_SET, orphan),
    Watch::by(id::POD, pod_gone),
    Watch::by(id::POD, pod_tells),
];

/// A replica set without a controller wakes the deployments that could adopt it.
fn orphan(change: &Changed<'_>, out: &mut Vec<Key>) {
    let set = change.object();
    if change.new.is_none() || set.head.controller().is_some() || !change.selection_changed() {
        return;
    }
    for deployment in change.state.list_in(id::DEPLOYMENT, &set.head.namespace) {
        let matches = |d: Typed<Deployment>| compile(d.spec.selector.as_ref()).matches(&set.head.labels);
        if Typed::read(deployment).is_some_and(matches) {
            out.push(deployment.key());
        }
    }
}

/// A pod that ended or went may let a Recreate rollout go on.
fn pod_gone(change: &Changed<'_>, out: &mut Vec<Key>) {
    let ended = |o| Typed::<Pod>::read(o).is_some_and(|p| p.is_terminal());
    if change.new.is_some_and(|new| !ended(new)) {
        return;
    }
    let Some(set) = replica_set::set_of(change.state, change.object()) else { return };
    let Some(set) = change.state.get(&set) else { return };
    out.extend(crate::watch::controller_key(change.state, set, id::DEPLOYMENT));
}

/// A pod that changed may say why a rollout does not go on, to deployments that want to know.
fn pod_tells(change: &Changed<'_>, out: &mut Vec<Key>) {
    let Some(pod) = change.new.and_then(Typed::<Pod>::read).filter(|p| !p.is_ready()) else { return };
    let Some(set) = replica_set::set_of(change.state, &pod.object).and_then(|key| change.state.get(&key)) else {
        return;
    };
    let Some(key) = crate::watch::controller_key(change.state, set, id::DEPLOYMENT) else { return };
    let deployment = change.state.get(&key).and_then(Typed::<Deployment>::read);
    if deployment.is_some_and(|d| beyond::is_on(&d.metadata, beyond::EXPLAIN_ROLLOUT)) {
        out.push(key);
    }
}

/// A deployment with its replica sets, and the status that is being made.
struct Rollout<'r> {
    world: &'r World<'r>,
    deployment: Typed<Deployment>,
    tree: Tree,
    /// The oldest set with the deployment's template.
    new: Option<Typed<ReplicaSet>>,
    /// All others.
    old: Vec<Typed<ReplicaSet>>,
    /// The status as stored.
    status_before: Tree,
    /// The status to write.
    status: Tree,
    events: Vec<EventNote>,
}

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn component(&self) -> &'static str {
        "deployment-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(deployment) = world.get::<Deployment>(key) else { return Plan::empty() };
        let selector = compile(deployment.spec.selector.as_ref());
        if selector.is_everything() {
            return selects_all(&deployment);
        }
        let claimed = owners::claim::<ReplicaSet>(world, &deployment.object, id::REPLICA_SET, &selector, |_| true);
        if !claimed.actions.is_empty() {
            return Plan::of(claimed.actions);
        }
        let mut rollout = Rollout::new(world, deployment, claimed.owned);
        if rollout.deployment.head().is_deleting() {
            rollout.sync_status();
            return rollout.finish(Vec::new());
        }
        if let Some(plan) = rollout.sync_revision() {
            return plan;
        }
        rollout.paused_condition();
        if rollout.deployment.spec.paused || rollout.is_scaling_event() {
            return rollout.scale_event();
        }
        if let Some(plan) = rollout.roll_back() {
            return plan;
        }
        match rollout.deployment.spec.strategy.r#type.as_str() {
            "Recreate" => rollout.recreate(),
            _ => rollout.rolling(),
        }
    }
}

fn selects_all(deployment: &Typed<Deployment>) -> Plan {
    let mut plan = Plan::empty();
    if deployment.status.observed_generation < deployment.head().generation {
        let generation = deployment.head().generation;
        plan.stage([Action::patch_status(&deployment.object, tree!({"observedGeneration": (generation)}))]);
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        plan.events.push(EventNote::warning(&deployment.object, "SelectingAll", message));
    }
    plan
}

fn replicas(set: &Typed<ReplicaSet>) -> i64 {
    set.spec.replicas.unwrap_or(1)
}

/// Whether two templates mean the same apart from the hash label (`EqualIgnoreHash`).
fn same_template(a: &Tree, b: &Tree) -> bool {
    let without_hash = |t: &Tree| {
        let mut t = t.clone();
        if let Some(Tree::Map(labels)) = t.path_mut("metadata.labels") {
            labels.remove(names::POD_TEMPLATE_HASH);
        }
        t
    };
    without_hash(a).semantically_equal(&without_hash(b))
}

impl<'r> Rollout<'r> {
    fn new(world: &'r World<'r>, deployment: Typed<Deployment>, mut sets: Vec<Typed<ReplicaSet>>) -> Rollout<'r> {
        let tree = deployment.tree();
        sets.sort_by(|a, b| (a.head().created, a.name()).cmp(&(b.head().created, b.name())));
        let template = tree.path("spec.template").cloned().unwrap_or_default();
        let is_new =
            |s: &Typed<ReplicaSet>| s.tree().path("spec.template").is_some_and(|own| same_template(own, &template));
        let new = sets.iter().position(is_new).map(|at| sets.remove(at));
        let status = status::of(&tree);
        Rollout { world, deployment, tree, new, old: sets, status_before: status.clone(), status, events: Vec::new() }
    }

    /// Whether the deployment asks for something beyond Kubernetes.
    fn is_on(&self, annotation: &str) -> bool {
        beyond::is_on(&self.deployment.metadata, annotation)
    }

    fn desired(&self) -> i64 {
        self.deployment.spec.replicas.unwrap_or(1)
    }

    fn all(&self) -> impl Iterator<Item = &Typed<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    fn active_old(&self) -> Vec<&Typed<ReplicaSet>> {
        self.old.iter().filter(|s| replicas(s) > 0).collect()
    }

    fn has_deadline(&self) -> bool {
        self.deployment.spec.progress_deadline_seconds.is_some_and(|s| s != i64::from(i32::MAX))
    }

    /// A plan of these actions and the status.
    fn finish(self, mut actions: Vec<Action>) -> Plan {
        let requeue = self.progress_check();
        let write = status::write(&self.deployment.object, &self.status_before, &self.status);
        if write.is_none() {
            actions.extend(self.note_complete());
        }
        actions.extend(write);
        let mut plan = Plan::of(actions);
        plan.requeue = requeue;
        plan.events = self.events;
        plan
    }

    /// `rolloutRolling`
    fn rolling(mut self) -> Plan {
        let Some(new) = self.new.clone() else { return self.create_new() };
        let up = self.scale_new(&new);
        if !up.is_empty() {
            self.sync_rollout_status();
            return self.finish(up);
        }
        let down = self.scale_down_old(&new);
        if !down.is_empty() {
            self.sync_rollout_status();
            return self.finish(down);
        }
        self.conclude()
    }

    /// `rolloutRecreate`
    fn recreate(mut self) -> Plan {
        let down: Vec<Action> = self.active_old().into_iter().filter_map(|s| self.scale_set(s, 0, false)).collect();
        if !down.is_empty() || self.old_pods_run() {
            self.sync_rollout_status();
            return self.finish(down);
        }
        let Some(new) = self.new.clone() else { return self.create_new() };
        match self.scale_set(&new, self.desired(), false) {
            Some(up) => {
                self.sync_rollout_status();
                self.finish(vec![up])
            }
            None => self.conclude(),
        }
    }

    fn conclude(mut self) -> Plan {
        let clean = if self.is_complete(&self.status_before) { self.clean_up() } else { Vec::new() };
        self.sync_rollout_status();
        self.finish(clean)
    }

    /// Whether a pod of an old set still runs (`oldPodsRunning`).
    fn old_pods_run(&self) -> bool {
        let namespace = self.deployment.namespace();
        let runs = |set: &Typed<ReplicaSet>| {
            let pods = self.world.controlled::<Pod>(id::POD, namespace, set.uid());
            set.status.replicas > 0 || pods.iter().any(|p| !p.is_terminal())
        };
        self.old.iter().any(runs)
    }

    /// Old sets beyond the history's limit (`cleanupDeployment`).
    fn clean_up(&self) -> Vec<Action> {
        let limit = self.deployment.spec.revision_history_limit.filter(|l| *l != i64::from(i32::MAX));
        let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else { return Vec::new() };
        let mut sets: Vec<_> = self.old.iter().filter(|s| !s.head().is_deleting()).collect();
        sets.sort_by_key(|s| (revision::of(&s.metadata), s.head().created));
        let surplus = sets.len().saturating_sub(limit);
        let idle = |s: &&Typed<ReplicaSet>| {
            s.status.replicas == 0 && replicas(s) == 0 && s.head().generation <= s.status.observed_generation
        };
        sets.into_iter().take(surplus).filter(idle).map(|s| Action::delete(&s.object)).collect()
    }

    /// Makes the set of the present template (`getNewReplicaSet`).
    fn create_new(mut self) -> Plan {
        let template = self.tree.path("spec.template").cloned().unwrap_or_default();
        let collisions = self.deployment.status.collision_count;
        let suffix = hash::compute(&template, collisions);
        let name = revision::set_name(self.deployment.name(), &suffix);
        let key = ObjectKey::new(id::REPLICA_SET, self.deployment.namespace(), &name);
        if let Some(plan) = self.failed_create(&key) {
            return plan;
        }
        let body = self.new_set(template, &suffix);
        let size = body.i64_at("spec.replicas").unwrap_or(0);
        let about = &self.deployment.object;
        let failed = format!("Failed to create new replica set \"{name}\": ");
        let mut create = Action::create(key, body).while_alive(about).on_failure(EventNote::warning(
            about,
            "ReplicaSetCreateError",
            failed,
        ));
        if size > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            create = create.on_success(EventNote::normal(about, "ScalingReplicaSet", message));
        }
        let mut plan = Plan::of(vec![create]);
        if self.has_deadline() {
            let message = format!("Created new replica set \"{name}\"");
            self.progressing("True", "NewReplicaSetCreated", message);
            plan.stage(status::write(&self.deployment.object, &self.status_before, &self.status));
        }
        plan
    }

    fn new_set(&self, mut template: Tree, suffix: &str) -> Tree {
        template.make_map_at("metadata.labels").insert(names::POD_TEMPLATE_HASH, suffix);
        let mut selector = self.tree.path("spec.selector").cloned().unwrap_or_else(Tree::map);
        selector.make_map_at("matchLabels").insert(names::POD_TEMPLATE_HASH, suffix);
        let labels = template.path("metadata.labels").cloned().unwrap_or_default();
        let mut spec = tree!({"replicas": (self.new_replicas(0)), "selector": (selector), "template": (template)});
        if self.deployment.spec.min_ready_seconds > 0 {
            spec.insert("minReadySeconds", self.deployment.spec.min_ready_seconds);
        }
        tree!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "labels": (labels),
                "annotations": (self.new_annotations()),
                "ownerReferences": [(owners::controller_reference(self.world, &self.deployment.object))]
            },
            "spec": (spec)
        })
    }

    /// What the last failure to make the set asks for: a collision is counted, other errors are told; then it is tried again.
    fn failed_create(&mut self, key: &ObjectKey) -> Option<Plan> {
        let failed = self.world.last?.failures.iter().find(|f| f.verb == Verb::Create && f.key == *key)?;
        if failed.status.is_already_exists() {
            self.world.state.get(key)?;
            let count = self.deployment.status.collision_count.unwrap_or(0) + 1;
            let patch = tree!({"collisionCount": (count)});
            return Some(Plan::of(vec![Action::patch_status(&self.deployment.object, patch)]));
        }
        if failed.status.is_conflict() || !self.has_deadline() {
            return None;
        }
        let message = format!("Failed to create new replica set \"{}\": {}", key.name, failed.status.message);
        self.progressing("False", "ReplicaSetCreateError", message);
        status::write(&self.deployment.object, &self.status_before, &self.status).map(|a| Plan::of(vec![a]))
    }

    fn progressing(&mut self, status: &str, reason: &str, message: String) {
        let condition = NewCondition { kind: "Progressing", status, reason, message };
        conditions::set(&mut self.status, &condition, self.world.now, "lastUpdateTime");
    }

    /// A pause or resume is noted, so that the time until then does not count as lack of progress (`checkPausedConditions`).
    fn paused_condition(&mut self) {
        if !self.has_deadline() {
            return;
        }
        let reason = conditions::find(&self.status, "Progressing").map_or("", |c| c.str_at("reason")).to_owned();
        let paused = self.deployment.spec.paused;
        if reason == "ProgressDeadlineExceeded" || paused == (reason == "DeploymentPaused") {
            return;
        }
        if paused {
            self.progressing("Unknown", "DeploymentPaused", "Deployment is paused".into());
        } else {
            self.progressing("Unknown", "DeploymentResumed", "Deployment is resumed".into());
        }
    }

    /// A change of size, or anything while paused: sizes follow, the rollout does not go on (`sync`).
    fn scale_event(mut self) -> Plan {
        let mut actions = self.scale_proportionally();
        if self.deployment.spec.paused {
            actions.extend(self.clean_up());
        }
        self.sync_status();
        self.finish(actions)
    }

    /// The sets with pods, from the newest.
    fn newest_first(&self) -> Vec<&Typed<ReplicaSet>> {
        let mut sets: Vec<_> = self.old.iter().collect();
        sets.sort_by_key(|s| Reverse((s.head().created, s.name().to_owned())));
        sets
    }
}
