//! StatefulSet: pods with identities, one after the other (`pkg/controller/statefulset/stateful_set_control.go`).

mod claims;
mod identity;

use std::cmp::Reverse;

use corten_kinds::id;
use corten_tree::Tree;
use corten_views::meta::compile;
use corten_views::{Pod, StatefulSet};

use crate::history::{self, History};
use crate::{Action, Changed, Controller, EventNote, Key, Plan, Typed, Watch, World, beyond, owners, pods, status};
use claims::Claims;
use corten_object::conditions::{self, NewCondition};
use identity::{ordinal_of, revision_of};

/// The controller.
pub struct StatefulSetController;

const WATCHES: &[Watch] = &[
    Watch::itself(id::STATEFUL_SET),
    Watch::controller(id::POD, id::STATEFUL_SET),
    Watch::controller(id::CONTROLLER_REVISION, id::STATEFUL_SET),
    Watch::by(id::POD, selecting),
    Watch::by(id::PERSISTENT_VOLUME_CLAIM, selecting),
];

/// Pods without a controller and claims wake the sets that select them.
fn selecting(change: &Changed<'_>, out: &mut Vec<Key>) {
    let object = change.object();
    let orphan = object.kind == id::POD && object.head.controller().is_none() && change.selection_changed();
    let claim = object.kind == id::PERSISTENT_VOLUME_CLAIM && (change.new.is_none() || change.selection_changed());
    if !orphan && !claim {
        return;
    }
    for set in change.state.list_in(id::STATEFUL_SET, &object.head.namespace) {
        let matches = |s: Typed<StatefulSet>| compile(s.spec.selector.as_ref()).matches(&object.head.labels);
        if Typed::read(set).is_some_and(matches) {
            out.push(set.key());
        }
    }
}

impl Controller for StatefulSetController {
    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn component(&self) -> &'static str {
        "statefulset-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(set) = world.get::<StatefulSet>(key) else { return Plan::empty() };
        let selector = compile(set.spec.selector.as_ref());
        let member = |pod: &Typed<Pod>| ordinal_of(set.name(), pod.name()).is_some();
        let claimed = owners::claim::<Pod>(world, &set.object, id::POD, &selector, member);
        if !claimed.actions.is_empty() {
            return Plan::of(claimed.actions);
        }
        let tree = set.tree();
        let collisions = set.status.collision_count.unwrap_or(0);
        let label = history::STATEFUL_HASH;
        let history = match history::sync(world, &set.object, &tree, &selector, Some(collisions), label) {
            history::Sync::Ready(history) => history,
            history::Sync::First(_) if set.head().is_deleting() => return Plan::empty(),
            history::Sync::First(plan) => return plan,
        };
        let pods = claimed.owned.into_iter().filter(member).collect();
        Update::new(world, set, tree, history, pods).plan()
    }
}

/// What is to happen to the pods, as it is being found out.
struct Update<'u> {
    world: &'u World<'u>,
    set: Typed<StatefulSet>,
    tree: Tree,
    history: History,
    /// Index of the revision that pods below the partition are of.
    current: usize,
    pods: Vec<Typed<Pod>>,
    /// By ordinal from the start: the pod if it is there.
    replicas: Vec<Option<Typed<Pod>>>,
    /// Pods beyond the range, highest ordinal first.
    condemned: Vec<Typed<Pod>>,
    /// Claims to make first.
    claims: Vec<Action>,
    actions: Vec<Action>,
    events: Vec<EventNote>,
}

/// Whether what follows in order must wait.
#[derive(PartialEq)]
enum Step {
    GoOn,
    Wait,
}

impl<'u> Update<'u> {
    fn new(
        world: &'u World<'u>,
        set: Typed<StatefulSet>,
        tree: Tree,
        history: History,
        mut pods: Vec<Typed<Pod>>,
    ) -> Update<'u> {
        let ordinal = |pod: &Typed<Pod>| ordinal_of(set.name(), pod.name()).unwrap_or(0);
        pods.sort_by_key(&ordinal);
        let start = set.spec.ordinals.as_ref().map_or(0, |o| o.start);
        let count = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
        let mut replicas = vec![None; count];
        let mut condemned = Vec::new();
        for pod in &pods {
            let place = usize::try_from(ordinal(pod) - start).ok().and_then(|i| replicas.get_mut(i));
            match place {
                Some(place) => *place = Some(pod.clone()),
                None => condemned.push(pod.clone()),
            }
        }
        condemned.sort_by_key(|pod| Reverse(ordinal(pod)));
        let named = history.revisions.iter().position(|r| r.name() == set.status.current_revision);
        let current = named.unwrap_or(history.update);
        Update {
            world,
            set,
            tree,
            history,
            current,
            pods,
            replicas,
            condemned,
            claims: Vec::new(),
            actions: Vec::new(),
            events: Vec::new(),
        }
    }

    fn start(&self) -> i64 {
        self.set.spec.ordinals.as_ref().map_or(0, |o| o.start)
    }

    fn ordinal(&self, index: usize) -> i64 {
        self.start() + index as i64
    }

    fn is_ordered(&self) -> bool {
        self.set.spec.pod_management_policy != "Parallel"
    }

    fn is_available(&self, pod: &Typed<Pod>) -> bool {
        pod.is_available(self.set.spec.min_ready_seconds, self.world.now)
    }

    fn is_unavailable(&self, pod: &Typed<Pod>) -> bool {
        !self.is_available(pod) || pod.is_terminating()
    }

    fn is_recreate(&self) -> bool {
        self.set.spec.update_strategy.r#type == "Recreate"
    }

    fn update_name(&self) -> &str {
        self.history.revisions[self.history.update].name()
    }

    fn current_name(&self) -> &str {
        self.history.revisions[self.current].name()
    }

    fn plan(mut self) -> Plan {
        self.decide();
        let mut plan = Plan::empty();
        let before = status::of(&self.tree);
        let after = self.status(&before);
        plan.requeue = pods::next_available(&self.pods, self.set.spec.min_ready_seconds, self.world.now);
        plan.events = std::mem::take(&mut self.events);
        let live = |r: &Typed<corten_views::ControllerRevision>| {
            r.name() == self.current_name()
                || r.name() == self.update_name()
                || self.pods.iter().any(|p| revision_of(p) == r.name())
        };
        let limit = self.set.spec.revision_history_limit.unwrap_or(10);
        let mut first = history::truncate(&self.history, limit, live);
        first.extend(status::write(&self.set.object, &before, &after));
        if self.claims.is_empty() {
            first.append(&mut self.actions);
            plan.stage(first);
        } else {
            first.append(&mut self.claims);
            plan.stage(first);
            plan.stage(self.actions);
        }
        plan
    }

    /// `updateStatefulSet`
    fn decide(&mut self) {
        if self.set.head().is_deleting() {
            // Only the status follows what the garbage collector takes away.
            return;
        }
        if self.is_recreate() && self.recreate() == Step::Wait {
            return;
        }
        for index in 0..self.replicas.len() {
            if self.replica(index) == Step::Wait && self.is_ordered() {
                return;
            }
        }
        let unhealthy = self.first_unavailable();
        for index in 0..self.condemned.len() {
            if self.condemn(index, unhealthy.as_deref()) == Step::Wait && self.is_ordered() {
                return;
            }
        }
        if !matches!(self.set.spec.update_strategy.r#type.as_str(), "OnDelete" | "Recreate") {
            self.roll();
        }
    }

    /// The name of the unavailable pod with the lowest ordinal.
    fn first_unavailable(&self) -> Option<String> {
        let ordered = self.replicas.iter().flatten().chain(self.condemned.iter().rev());
        ordered.into_iter().find(|p| self.is_unavailable(p)).map(|p| p.name().to_owned())
    }

    /// Keeps one pod in the range as it should be (`processReplica`).
    fn replica(&mut self, index: usize) -> Step {
        let ordinal = self.ordinal(index);
        let Some(pod) = self.replicas[index].clone() else {
            self.create(ordinal);
            return Step::Wait;
        };
        if pod.is_terminal() {
            if !pod.is_terminating() {
                self.delete(&pod);
            }
            return Step::Wait;
        }
        if self.is_broken(index, &pod) {
            self.delete(&pod);
            return Step::Wait;
        }
        if pod.status.phase == "Pending"
            && let Claims::Ready(missing) = claims::of(self.world, &self.set, &self.tree, ordinal)
        {
            self.claims.extend(missing);
        }
        if pod.is_terminating() || (self.is_ordered() && !self.is_available(&pod)) {
            return Step::Wait;
        }
        if let Some(patch) = identity::repair(&pod, ordinal) {
            self.actions.push(Action::patch(&pod.object, patch));
        }
        let owned = claims::own(self.world, &self.set, &pod, ordinal, true);
        self.take(owned);
        self.actions.extend(claims::grow(self.world, &self.set, &self.tree, ordinal));
        Step::GoOn
    }

    /// Whether a pod is to be replaced without waiting for it (`corten.dev/replace-broken`, upstream's issue 67250): it is of an
    /// outdated revision, to be updated, and was never ready.
    fn is_broken(&self, index: usize, pod: &Typed<Pod>) -> bool {
        let strategy = &self.set.spec.update_strategy;
        let partition = strategy.rolling_update.as_ref().and_then(|r| r.partition).unwrap_or(0);
        beyond::is_on(&self.set.metadata, beyond::REPLACE_BROKEN)
            && strategy.r#type == "RollingUpdate"
            && index as i64 >= partition
            && revision_of(pod) != self.update_name()
            && !pod.is_terminating()
            && pods::was_never_ready(pod)
    }

    fn create(&mut self, ordinal: i64) {
        let Claims::Ready(missing) = claims::of(self.world, &self.set, &self.tree, ordinal) else { return };
        let strategy = &self.set.spec.update_strategy;
        let below = match &strategy.rolling_update {
            Some(rolling) => rolling.partition.unwrap_or(0),
            None if strategy.r#type == "RollingUpdate" => self.set.status.current_replicas,
            None => 0,
        };
        let at = if ordinal < self.start() + below { self.current } else { self.history.update };
        let revision = &self.history.revisions[at];
        let template = history::template_of(revision);
        let body = identity::new_pod(self.world, &self.set, &template, revision.name(), ordinal);
        let (set, name) = (&self.set, format!("{}-{ordinal}", self.set.name()));
        let done = format!("Create Pod {name} in StatefulSet {} successful", set.name());
        let failed = format!("Create Pod {name} in StatefulSet {} failed error: ", set.name());
        let action = pods::create(&set.object, &name, body)
            .on_success(EventNote::normal(&set.object, "SuccessfulCreate", done))
            .on_failure(EventNote::warning(&set.object, "FailedCreate", failed));
        self.claims.extend(missing);
        self.actions.push(action);
    }

    fn delete(&mut self, pod: &Typed<Pod>) {
        let set = &self.set;
        let done = format!("Delete Pod {} in StatefulSet {} successful", pod.name(), set.name());
        let failed = format!("Delete Pod {} in StatefulSet {} failed error: ", pod.name(), set.name());
        let action = Action::delete(&pod.object)
            .on_success(EventNote::normal(&set.object, "SuccessfulDelete", done))
            .on_failure(EventNote::warning(&set.object, "FailedDelete", failed));
        self.actions.push(action);
    }

    fn take(&mut self, owned: claims::Owned) {
        self.actions.extend(owned.actions);
        self.events.extend(owned.events);
    }

    /// Takes one pod beyond the range down (`processCondemned`).
    fn condemn(&mut self, index: usize, first_unavailable: Option<&str>) -> Step {
        let pod = self.condemned[index].clone();
        if let Some(ordinal) = ordinal_of(self.set.name(), pod.name()) {
            let owned = claims::own(self.world, &self.set, &pod, ordinal, false);
            if !owned.actions.is_empty() {
                // The claims must be the pod's before it goes, so that they go with it.
                self.take(owned);
                return Step::Wait;
            }
        }
        if pod.is_terminating() {
            return Step::Wait;
        }
        if self.is_ordered() && !self.is_available(&pod) && first_unavailable != Some(pod.name()) {
            return Step::Wait;
        }
        self.delete(&pod);
        Step::Wait
    }

    /// Deletes pods of other revisions, as many as may be unavailable (`updateStatefulSetAfterInvariantEstablished`).
    fn roll(&mut self) {
        let rolling = self.set.spec.update_strategy.rolling_update.clone().unwrap_or_default();
        let partition = usize::try_from(rolling.partition.unwrap_or(0)).unwrap_or(0);
        let max = rolling.max_unavailable.as_ref().and_then(|m| m.scaled(self.replicas.len() as i64, false));
        let max = usize::try_from(max.unwrap_or(1).max(1)).unwrap_or(1);
        let absent_or = |u: &Update<'_>, pod: &Option<Typed<Pod>>| pod.as_ref().is_none_or(|p| u.is_unavailable(p));
        let unavailable = self.replicas.iter().filter(|p| absent_or(self, p)).count();
        let outdated: Vec<Typed<Pod>> = (self.replicas.iter().skip(partition).rev().flatten())
            .filter(|p| revision_of(p) != self.update_name() && !p.is_terminating())
            .cloned()
            .collect();
        let mut budget = max.saturating_sub(unavailable);
        if !self.is_ordered() {
            // Those that are unavailable anyway cost nothing.
            for pod in outdated.iter().filter(|p| !self.is_available(p)).cloned().collect::<Vec<_>>() {
                self.delete(&pod);
            }
        }
        for pod in &outdated {
            if budget == 0 {
                return;
            }
            if self.is_ordered() || self.is_available(pod) {
                self.delete(pod);
                budget -= 1;
            }
        }
    }

    /// Deletes all pods of other revisions and waits until they are gone (`recreateDeleteAndWait`).
    fn recreate(&mut self) -> Step {
        let outdated: Vec<_> = self.pods.iter().filter(|p| revision_of(p) != self.update_name()).cloned().collect();
        for pod in outdated.iter().filter(|p| !p.is_terminating()) {
            self.delete(pod);
        }
        if outdated.is_empty() { Step::GoOn } else { Step::Wait }
    }

    fn status(&self, before: &Tree) -> Tree {
        let mut out = before.clone();
        let revision_count =
            |name: &str| self.pods.iter().filter(|p| !p.is_terminating() && revision_of(p) == name).count() as i64;
        let running: Vec<Typed<Pod>> = self.pods.iter().filter(|p| p.status.phase == "Running").cloned().collect();
        let (ready, available) = pods::count_ready(&running, self.set.spec.min_ready_seconds, self.world.now);
        let replicas = self.pods.len() as i64;
        let updated = revision_count(self.update_name());
        let (mut current, mut current_name) = (revision_count(self.current_name()), self.current_name());
        let desired = self.replicas.len() as i64;
        let complete = updated == desired && ready == desired && replicas == desired;
        if complete {
            (current, current_name) = (updated, self.update_name());
        }
        out.insert("observedGeneration", self.set.head().generation);
        out.insert("replicas", replicas);
        status::count(&mut out, "readyReplicas", ready);
        status::count(&mut out, "currentReplicas", current);
        status::count(&mut out, "updatedReplicas", updated);
        out.insert("currentRevision", current_name);
        out.insert("updateRevision", self.update_name());
        out.insert("collisionCount", self.set.status.collision_count.unwrap_or(0));
        out.insert("availableReplicas", available);
        if self.is_recreate() {
            self.progressing(&mut out, complete);
        }
        out
    }

    /// The condition of the Recreate strategy.
    fn progressing(&self, out: &mut Tree, complete: bool) {
        let outdated = self.pods.iter().any(|p| revision_of(p) != self.update_name());
        let (status, reason, message) = if complete {
            if conditions::find(out, "Progressing").is_none() {
                return;
            }
            ("False", "RecreateCompleted", "All pods recreated successfully")
        } else if outdated {
            ("True", "RecreateInProgress", "Deleting old revision pods")
        } else if self.current != self.history.update {
            ("True", "RecreateInProgress", "Waiting for new-revision pods to be created")
        } else {
            return;
        };
        let stale = conditions::find(out, "Progressing").is_none_or(|c| c.str_at("message") != message);
        if stale {
            let condition = NewCondition { kind: "Progressing", status, reason, message: message.into() };
            conditions::replace(out, &condition, self.world.now, "");
        }
    }
}
