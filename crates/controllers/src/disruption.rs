//! Pod disruption budgets: how many pods may be evicted now (`pkg/controller/disruption`).

use std::collections::BTreeMap;
use std::time::Duration;

use corten_base::Timestamp;
use corten_kinds::id;
use corten_object::time;
use corten_tree::{Tree, tree};
use corten_views::meta::compile;
use corten_views::{IntOrString, Pod, PodDisruptionBudget};
use jiff::SignedDuration;

use crate::{Changed, Controller, EventNote, Key, Plan, Typed, Watch, World, status};
use corten_object::conditions;

/// The controller.
pub struct DisruptionController;

/// How long an eviction that was granted may take until it no longer counts.
const EVICTION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);

const WATCHES: &[Watch] = &[
    Watch::itself(id::POD_DISRUPTION_BUDGET),
    Watch::by(id::POD, pod_changed),
    Watch::by(id::REPLICA_SET, scaled),
    Watch::by(id::REPLICATION_CONTROLLER, scaled),
    Watch::by(id::DEPLOYMENT, scaled),
    Watch::by(id::STATEFUL_SET, scaled),
];

fn pod_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let state = |p: Typed<Pod>| (p.is_ready(), p.is_terminating(), p.is_terminal());
    let facts = |o| Typed::<Pod>::read(o).map(state);
    if !change.selection_changed() && change.old.and_then(facts) == change.new.and_then(facts) {
        return;
    }
    for budget in change.state.list_in(id::POD_DISRUPTION_BUDGET, &change.object().head.namespace) {
        let Some(view) = Typed::<PodDisruptionBudget>::read(budget) else { continue };
        let selector = compile(view.spec.selector.as_ref());
        if [change.old, change.new].into_iter().flatten().any(|pod| selector.matches(&pod.head.labels)) {
            out.push(budget.key());
        }
    }
}

/// A controller's size counts.
fn scaled(change: &Changed<'_>, out: &mut Vec<Key>) {
    let object = change.object();
    if change.old.is_some_and(|old| old.head.generation == object.head.generation) && change.new.is_some() {
        return;
    }
    out.extend(change.state.list_in(id::POD_DISRUPTION_BUDGET, &object.head.namespace).map(|b| b.key()));
}

impl Controller for DisruptionController {
    fn name(&self) -> &'static str {
        "disruption"
    }

    fn component(&self) -> &'static str {
        "controllermanager"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(budget) = world.get::<PodDisruptionBudget>(key) else { return Plan::empty() };
        let selector = compile(budget.spec.selector.as_ref());
        let mut pods = world.list::<Pod>(id::POD, budget.namespace());
        pods.retain(|p| selector.matches(&p.head().labels) && !p.is_terminal());
        let mut plan = Plan::empty();
        let before = status::of(&budget.tree());
        let after = match expected(world, &budget, &pods) {
            Ok((expected, desired)) => {
                let (disrupted, recheck) = disrupted(&budget, &pods, world.now);
                plan.requeue = recheck;
                healthy(world, &budget, &pods, expected, desired, disrupted, &before)
            }
            Err(message) => {
                let text = format!("Failed to calculate the number of expected pods: {message}");
                let failed = failed(world, &budget, &message, &before);
                if !failed.semantically_equal(&before) {
                    let note = EventNote::warning(&budget.object, "CalculateExpectedPodCountFailed", text);
                    plan.events.push(note);
                }
                failed
            }
        };
        plan.stage(status::write(&budget.object, &before, &after));
        plan
    }
}

/// How many pods there should be, and how many of them healthy (`getExpectedPodCount`).
fn expected(world: &World<'_>, budget: &PodDisruptionBudget, pods: &[Typed<Pod>]) -> Result<(i64, i64), String> {
    let scaled = |value: &IntOrString, total| value.scaled(total, true).ok_or_else(|| format!("invalid value {value}"));
    if let Some(max) = &budget.spec.max_unavailable {
        let scale = scale(world, pods)?;
        return Ok((scale, (scale - scaled(max, scale)?).max(0)));
    }
    match &budget.spec.min_available {
        None => Ok((0, 0)),
        Some(IntOrString::Int(n)) => Ok((pods.len() as i64, *n)),
        Some(percent) => {
            let scale = scale(world, pods)?;
            Ok((scale, scaled(percent, scale)?))
        }
    }
}

/// The sum of the sizes that the pods' controllers have; pods without one count as nothing.
fn scale(world: &World<'_>, pods: &[Typed<Pod>]) -> Result<i64, String> {
    let mut scales: BTreeMap<String, i64> = BTreeMap::new();
    for pod in pods {
        let Some(owner) = pod.head().controller() else { continue };
        let unknown = || format!("found no controllers for pod \"{}\"", pod.name());
        let mut owner = world.state.by_uid(&owner.uid).ok_or_else(unknown)?;
        // A replica set's size is its deployment's while it is rolled.
        if let Some(parent) = owner.head.controller().and_then(|o| world.state.by_uid(&o.uid)) {
            owner = parent;
        }
        if let Some(replicas) = owner.to_tree().i64_at("spec.replicas") {
            scales.insert(owner.head.uid.to_string(), replicas);
        } else {
            return Err(unknown());
        }
    }
    Ok(scales.values().sum())
}

/// Evictions that were granted and are not done yet, and when to look again.
fn disrupted(
    budget: &PodDisruptionBudget,
    pods: &[Typed<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Timestamp>, Option<Duration>) {
    let mut out = BTreeMap::new();
    let mut recheck: Option<Duration> = None;
    for (name, since) in &budget.status.disrupted_pods {
        let waiting = pods.iter().any(|p| p.name() == name && !p.is_terminating());
        let left = EVICTION_TIMEOUT - now.duration_since(*since);
        if let Some(left) = Duration::try_from(left).ok().filter(|left| waiting && !left.is_zero()) {
            recheck = Some(recheck.map_or(left, |r| r.min(left)));
            out.insert(name.clone(), *since);
        }
    }
    (out, recheck)
}

fn healthy(
    world: &World<'_>,
    budget: &Typed<PodDisruptionBudget>,
    pods: &[Typed<Pod>],
    expected: i64,
    desired: i64,
    disrupted: BTreeMap<String, Timestamp>,
    before: &Tree,
) -> Tree {
    let counts = |p: &&Typed<Pod>| p.is_ready() && !p.is_terminating() && !disrupted.contains_key(p.name());
    let current = pods.iter().filter(counts).count() as i64;
    let allowed = if expected > 0 { (current - desired).max(0) } else { 0 };
    let mut out = before.clone();
    out.insert("observedGeneration", budget.head().generation);
    out.insert("disruptionsAllowed", allowed);
    out.insert("currentHealthy", current);
    out.insert("desiredHealthy", desired);
    out.insert("expectedPods", expected);
    let mut map = Tree::map();
    for (name, since) in &disrupted {
        map.insert(name.clone(), time::format(*since));
    }
    out.insert("disruptedPods", map);
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    condition(world, budget, &mut out, status, reason, "");
    out
}

fn failed(world: &World<'_>, budget: &Typed<PodDisruptionBudget>, message: &str, before: &Tree) -> Tree {
    let mut out = before.clone();
    out.insert("observedGeneration", budget.head().generation);
    out.insert("disruptionsAllowed", 0);
    condition(world, budget, &mut out, "False", "SyncFailed", message);
    out
}

fn condition(
    world: &World<'_>,
    budget: &Typed<PodDisruptionBudget>,
    out: &mut Tree,
    status: &str,
    reason: &str,
    message: &str,
) {
    const KIND: &str = "DisruptionAllowed";
    let old = conditions::find(out, KIND);
    let transition = old
        .filter(|c| c.str_at("status") == status)
        .map_or_else(|| time::format(world.now), |c| c.str_at("lastTransitionTime").to_owned());
    let made = tree!({
        "type": (KIND),
        "status": (status),
        "observedGeneration": (budget.head().generation),
        "lastTransitionTime": (transition),
        "reason": (reason),
        "message": (message)
    });
    conditions::push(out, made);
}
