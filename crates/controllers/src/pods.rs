//! What the controllers of pods share: making them from templates, counting, choosing which go first.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;
use std::time::Duration;

use corten_base::Timestamp;
use corten_kinds::id;
use corten_object::{Object, ObjectKey};
use corten_tree::{Tree, tree};
use corten_views::Pod;

use crate::{Action, EventNote, Typed, World, names, owners};

/// A pod made of a template tree: its labels, annotations and finalizers, its spec, and the owner's reference
/// (`controller.GetPodFromTemplate`). The name is still missing.
pub fn from_template(world: &World<'_>, template: &Tree, owner: &Object) -> Tree {
    let mut metadata = Tree::map();
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.at(&["metadata", field]).filter(|v| !v.is_empty_value()) {
            metadata.set(field, value.clone());
        }
    }
    metadata.insert("ownerReferences", vec![owners::controller_reference(world, owner)]);
    let spec = template.path("spec").cloned().unwrap_or_else(Tree::map);
    tree!({"apiVersion": "v1", "kind": "Pod", "metadata": (metadata), "spec": (spec)})
}

/// The creation of a pod with a generated name, with the events that people know.
pub fn create_generated(world: &World<'_>, owner: &Arc<Object>, mut pod: Tree) -> Action {
    let prefix = format!("{}-", owner.head.name);
    let name = world.generate_name(&prefix);
    pod.set("metadata.generateName", prefix);
    create(owner, &name, pod)
}

/// The creation of a pod of this name, with the events that people know.
pub fn create(owner: &Arc<Object>, name: &str, pod: Tree) -> Action {
    let key = ObjectKey::new(id::POD, &owner.head.namespace, name);
    Action::create(key, pod)
        .while_alive(owner)
        .on_success(EventNote::normal(owner, "SuccessfulCreate", format!("Created pod: {name}")))
        .on_failure(EventNote::warning(owner, "FailedCreate", "Error creating: "))
}

/// The deletion of a pod, with the events that people know.
pub fn delete(owner: &Arc<Object>, pod: &Typed<Pod>) -> Action {
    Action::delete(&pod.object)
        .on_success(EventNote::normal(owner, "SuccessfulDelete", format!("Deleted pod: {}", pod.name())))
        .on_failure(EventNote::warning(owner, "FailedDelete", "Error deleting: "))
}

/// The pods that are neither ended nor ending.
pub fn active(pods: &[Typed<Pod>]) -> Vec<Typed<Pod>> {
    pods.iter().filter(|p| p.is_active()).cloned().collect()
}

/// Whether a pod has not been ready since its start: its `Ready` condition is absent, or false since then.
pub fn was_never_ready(pod: &Pod) -> bool {
    let Some(ready) = pod.ready_condition() else { return true };
    let (Some(since), Some(started)) = (ready.last_transition_time, pod.status.start_time) else { return false };
    // Times are whole seconds; a pod that was ready for less than that is none that served.
    ready.status == "False" && since.duration_since(started) <= jiff::SignedDuration::from_secs(1)
}

/// How many pods are ready, and how many available.
pub fn count_ready(pods: &[Typed<Pod>], min_ready_seconds: i64, now: Timestamp) -> (i64, i64) {
    let ready = pods.iter().filter(|p| p.is_ready()).count();
    let available = pods.iter().filter(|p| p.is_available(min_ready_seconds, now)).count();
    (ready as i64, available as i64)
}

/// When the next ready pod becomes available by the mere passing of time.
pub fn next_available(pods: &[Typed<Pod>], min_ready_seconds: i64, now: Timestamp) -> Option<Duration> {
    pods.iter().filter_map(|p| p.available_in(min_ready_seconds, now)).filter(|d| !d.is_zero()).min()
}

/// The `count` pods that go first when there are too many; `related` are pods of the same family, that a pod shares its node with.
/// (`ActivePodsWithRanks` in `pkg/controller/controller_utils.go`)
pub fn choose_victims(pods: &[Typed<Pod>], related: &[Typed<Pod>], count: usize, now: Timestamp) -> Vec<Typed<Pod>> {
    let together =
        |pod: &Pod| related.iter().filter(|r| r.is_active() && r.spec.node_name == pod.spec.node_name).count();
    let mut ranked: Vec<(usize, &Typed<Pod>)> = pods.iter().map(|p| (together(p), p)).collect();
    if count < ranked.len() {
        ranked.sort_by(|(a_rank, a), (b_rank, b)| {
            let by_age = |x, y| age_bucket(x, now).cmp(&age_bucket(y, now)).then_with(|| a.uid().cmp(b.uid()));
            compare(a, (deletion_cost(a), *a_rank), b, (deletion_cost(b), *b_rank), by_age)
        });
    }
    ranked.into_iter().take(count).map(|(_, p)| p.clone()).collect()
}

/// The `count` pods that have got the least far, without regard to cost or company (`ActivePods`).
pub fn choose_newest(pods: &[Typed<Pod>], count: usize) -> Vec<Typed<Pod>> {
    let mut sorted: Vec<&Typed<Pod>> = pods.iter().collect();
    sorted.sort_by(|a, b| compare(a, (0, 0), b, (0, 0), |x, y| y.cmp(&x)));
    sorted.into_iter().take(count).cloned().collect()
}

/// Which of two pods goes first: each with its cost and rank, `by_age` compares times that differ.
fn compare(
    a: &Typed<Pod>,
    a_rank: (i32, usize),
    b: &Typed<Pod>,
    b_rank: (i32, usize),
    by_age: impl Fn(Timestamp, Timestamp) -> Ordering,
) -> Ordering {
    let phase = |p: &Pod| match p.status.phase.as_str() {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    };
    let first = |p: &Typed<Pod>, (cost, rank)| (p.is_scheduled(), phase(p), p.is_ready(), cost, Reverse(rank));
    let order = first(a, a_rank).cmp(&first(b, b_rank));
    if order != Ordering::Equal {
        return order;
    }
    let ready_since = |p: &Pod| p.ready_condition().filter(|c| c.is_true()).and_then(|c| c.last_transition_time);
    let by_time = |x: Option<Timestamp>, y: Option<Timestamp>| match (x, y) {
        (x, y) if x == y => None,
        (None, _) => Some(Ordering::Less),
        (_, None) => Some(Ordering::Greater),
        (Some(x), Some(y)) => Some(by_age(x, y)),
    };
    if a.is_ready()
        && let Some(order) = by_time(ready_since(a), ready_since(b))
    {
        return order;
    }
    let restarts = |p: &Pod| p.status.container_statuses.iter().map(|c| c.restart_count).max().unwrap_or(0);
    let order = restarts(b).cmp(&restarts(a));
    if order != Ordering::Equal {
        return order;
    }
    by_time(a.head().created, b.head().created).unwrap_or(Ordering::Equal)
}

/// The power of two of an age: younger first, but ages of the same size are equal.
fn age_bucket(since: Timestamp, now: Timestamp) -> i32 {
    let age = now.duration_since(since).as_nanos();
    if age > 0 { age.ilog2() as i32 } else { -1 }
}

fn deletion_cost(pod: &Pod) -> i32 {
    pod.metadata.annotations.get(names::POD_DELETION_COST).and_then(|c| c.parse().ok()).unwrap_or(0)
}
