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

use crate::{Changed, Controller, EventNote, Key, Plan, Typed, Watch, World, go_text, status};
use corten_object::conditions;

/// The controller.
pub struct DisruptionController;

/// How long an eviction that was granted may take until it no longer counts, and its condition no longer holds.
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
    let state = |p: Typed<Pod>| (p.is_ready(), p.is_terminating(), p.is_terminal(), disrupted_since(&p));
    let facts = |o| Typed::<Pod>::read(o).map(state);
    if !change.selection_changed() && change.old.and_then(facts) == change.new.and_then(facts) {
        return;
    }
    if let Some(pod) = change.new.filter(|pod| Typed::read(pod).is_some_and(|p| disrupted_since(&p).is_some())) {
        out.push(pod.key());
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
        if key.kind == id::POD {
            return stale_disruption(world, key);
        }
        let Some(budget) = world.get::<PodDisruptionBudget>(key) else { return Plan::empty() };
        let selector = compile(budget.spec.selector.as_ref());
        let pods = world.list_where::<Pod>(id::POD, budget.namespace(), |pod| selector.matches(&pod.head.labels));
        let mut plan = Plan::empty();
        let before = status::of(&budget.tree());
        let after = match expected(world, &budget, &pods) {
            Ok(Expected { pods: expected, healthy: desired, unmanaged }) => {
                let (disrupted, recheck) = disrupted(&budget, &pods, world.now);
                plan.requeue = recheck;
                plan.events.extend(not_deleted(&budget, &pods, &disrupted));
                let after = healthy(world, &budget, &pods, expected, desired, disrupted, &before);
                // Upstream tells these at each sync; once for each change of state is as much news.
                if !after.semantically_equal(&before) {
                    plan.events.extend(remarks(&budget, pods.is_empty(), unmanaged));
                }
                after
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

/// What people should know of the pods that a budget selects.
fn remarks(budget: &Typed<PodDisruptionBudget>, none: bool, unmanaged: bool) -> Vec<EventNote> {
    let mut out = Vec::new();
    if none {
        out.push(EventNote::normal(&budget.object, "NoPods", "No matching pods found"));
    }
    if unmanaged {
        let selector = go_text::selector(budget.tree().path("spec.selector"));
        let message = format!(
            "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the \
             status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these \
             pods please set \".spec.minAvailable\" field of the PDB to an integer value."
        );
        out.push(EventNote::warning(&budget.object, "UnmanagedPods", message));
    }
    out
}

/// How many pods a budget reckons with.
struct Expected {
    /// How many there should be.
    pods: i64,
    /// How many of them healthy.
    healthy: i64,
    /// Whether there are some that nobody controls.
    unmanaged: bool,
}

/// How many pods there should be, and how many of them healthy (`getExpectedPodCount`).
fn expected(world: &World<'_>, budget: &PodDisruptionBudget, pods: &[Typed<Pod>]) -> Result<Expected, String> {
    let scaled = |value: &IntOrString, total| value.scaled(total, true).ok_or_else(|| format!("invalid value {value}"));
    if let Some(max) = &budget.spec.max_unavailable {
        let (scale, unmanaged) = scale(world, pods)?;
        return Ok(Expected { pods: scale, healthy: (scale - scaled(max, scale)?).max(0), unmanaged });
    }
    match &budget.spec.min_available {
        None => Ok(Expected { pods: 0, healthy: 0, unmanaged: false }),
        Some(IntOrString::Int(n)) => Ok(Expected { pods: pods.len() as i64, healthy: *n, unmanaged: false }),
        Some(percent) => {
            let (scale, unmanaged) = scale(world, pods)?;
            Ok(Expected { pods: scale, healthy: scaled(percent, scale)?, unmanaged })
        }
    }
}

/// The sum of the sizes that the pods' controllers have, and whether there are pods without one, which count as nothing
/// (`getExpectedScale`).
fn scale(world: &World<'_>, pods: &[Typed<Pod>]) -> Result<(i64, bool), String> {
    let mut scales: BTreeMap<String, i64> = BTreeMap::new();
    let mut unmanaged = false;
    for pod in pods {
        let Some(owner) = pod.head().controller() else {
            unmanaged = true;
            continue;
        };
        let unknown = || format!("found no controllers for pod \"{}\"", pod.name());
        let mut owner = world.state.by_uid(&owner.uid).ok_or_else(unknown)?;
        // A replica set's size is its deployment's while it is rolled.
        if owner.kind == id::REPLICA_SET
            && let Some(parent) = owner.head.controller().filter(|o| *o.kind == *"Deployment")
        {
            owner = world.state.by_uid(&parent.uid).ok_or_else(unknown)?;
        }
        let kind = world.state.registry().get(owner.kind);
        let Some(paths) = kind.versions.iter().find_map(|version| kind.scale_paths(version)) else {
            let resource = match &*kind.group {
                "" => kind.plural.to_string(),
                group => format!("{}.{group}", kind.plural),
            };
            return Err(format!("{resource} does not implement the scale subresource"));
        };
        scales.insert(owner.head.uid.to_string(), owner.to_tree().i64_at(&paths.spec).unwrap_or(0));
    }
    Ok((scales.values().sum(), unmanaged))
}

/// Pods that were to be evicted and are still there after their time.
fn not_deleted(
    budget: &Typed<PodDisruptionBudget>,
    pods: &[Typed<Pod>],
    waiting: &BTreeMap<String, Timestamp>,
) -> Vec<EventNote> {
    let granted =
        |p: &&Typed<Pod>| budget.status.disrupted_pods.contains_key(p.name()) && !waiting.contains_key(p.name());
    // Upstream names the namespace twice.
    let namespace = budget.namespace();
    let message = format!("Pod was expected by PDB {namespace}/{namespace} to be deleted but it wasn't");
    let late = pods.iter().filter(|p| !p.is_terminating()).filter(granted);
    late.map(|p| EventNote::warning(&p.object, "NotDeleted", message.as_str())).collect()
}

/// Since when a pod has had the condition that something disrupts it, if that was no kubelet and it has not ended
/// (`nonTerminatingPodHasStaleDisruptionCondition`).
fn disrupted_since(pod: &Pod) -> Option<Timestamp> {
    let condition = pod.condition("DisruptionTarget").filter(|c| c.is_true() && c.reason != "TerminationByKubelet")?;
    condition.last_transition_time.filter(|_| pod.is_active())
}

/// A pod that was to be disrupted and was not is a pod like any other (`syncStalePodDisruption`).
fn stale_disruption(world: &World<'_>, key: &Key) -> Plan {
    let Some(pod) = world.get::<Pod>(key) else { return Plan::empty() };
    let Some(since) = disrupted_since(&pod) else { return Plan::empty() };
    if let Ok(left) = Duration::try_from(EVICTION_TIMEOUT - world.now.duration_since(since))
        && !left.is_zero()
    {
        return Plan { requeue: Some(left), ..Plan::empty() };
    }
    let before = status::of(&pod.tree());
    let mut after = before.clone();
    let now = time::format(world.now);
    conditions::push(&mut after, tree!({"type": "DisruptionTarget", "status": "False", "lastTransitionTime": (now)}));
    Plan::of(status::write(&pod.object, &before, &after).into_iter().collect())
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
