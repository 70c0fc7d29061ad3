//! What the controllers of pods share: making them from templates, counting, choosing which go first.

use std::cmp::Reverse;
use std::collections::HashMap;
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
///
/// Ages of the same size are equal, so that it is not always the youngest that goes; upstream then takes the uid at once, which is
/// no order of more than two pods, and here comes last.
pub fn choose_victims(pods: &[Typed<Pod>], related: &[Typed<Pod>], count: usize, now: Timestamp) -> Vec<Typed<Pod>> {
    if count >= pods.len() {
        return pods.to_vec();
    }
    let mut together: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|r| r.is_active()) {
        *together.entry(&pod.spec.node_name).or_default() += 1;
    }
    let mut sorted: Vec<&Typed<Pod>> = pods.iter().collect();
    sorted.sort_by_cached_key(|pod| {
        let company = together.get(pod.spec.node_name.as_str()).copied().unwrap_or(0);
        progress(pod, (deletion_cost(pod), company), &|since| age_bucket(since, now))
    });
    sorted.into_iter().take(count).cloned().collect()
}

/// The `count` pods that have got the least far, without regard to cost or company (`ActivePods`).
pub fn choose_newest(pods: &[Typed<Pod>], count: usize) -> Vec<Typed<Pod>> {
    let mut sorted: Vec<&Typed<Pod>> = pods.iter().collect();
    sorted.sort_by_cached_key(|pod| progress(pod, (0, 0), &Reverse));
    sorted.into_iter().take(count).cloned().collect()
}

/// How far a pod has got, as something to sort by: who has got the least far goes first. `age` sorts times, the younger first.
fn progress<'p, A: Ord>(
    pod: &'p Typed<Pod>,
    (cost, company): (i32, usize),
    age: &dyn Fn(Timestamp) -> A,
) -> impl Ord + use<'p, A> {
    let phase = match pod.status.phase.as_str() {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    };
    let ready_since = pod.ready_condition().filter(|c| c.is_true()).and_then(|c| c.last_transition_time);
    (
        (pod.is_scheduled(), phase, pod.is_ready(), cost, Reverse(company)),
        (ready_since.map(age), Reverse(restarts(pod)), pod.head().created.map(age), pod.uid()),
    )
}

/// How often a pod's containers have been restarted at most, and then how often its sidecars (`maxContainerRestarts`).
fn restarts(pod: &Pod) -> (i32, i32) {
    let is_sidecar = |name: &str| pod.spec.init_containers.iter().any(|c| c.name == name && c.is_sidecar());
    let sidecars = pod.status.init_container_statuses.iter().filter(|c| is_sidecar(&c.name));
    let most = |counts: &mut dyn Iterator<Item = i32>| counts.max().unwrap_or(0);
    (
        most(&mut pod.status.container_statuses.iter().map(|c| c.restart_count)),
        most(&mut sidecars.map(|c| c.restart_count)),
    )
}

/// The power of two of an age: younger first, but ages of the same size are equal.
fn age_bucket(since: Timestamp, now: Timestamp) -> i32 {
    let age = now.duration_since(since).as_nanos();
    if age > 0 { age.ilog2() as i32 } else { -1 }
}

fn deletion_cost(pod: &Pod) -> i32 {
    pod.metadata.annotations.get(names::POD_DELETION_COST).and_then(|c| c.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use corten_base::Revision;

    use super::*;

    fn pod(number: u32, ready_at: &str, restarts: u32) -> Typed<Pod> {
        let tree = tree!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": (format!("p{number}")), "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z",
                "uid": (format!("{:08x}", number.wrapping_mul(2_654_435_761)))},
            "spec": {"nodeName": "a"},
            "status": {"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": (i64::from(restarts))}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": ready_at}]}});
        let object = Object::parse(id::POD, tree.to_json_string().into(), Revision(1), &[""; 0]).unwrap();
        Typed::read(&Arc::new(object)).unwrap()
    }

    /// Five hundred pods that got ready within three seconds, some of which have restarted: the order is one of all of them, so that
    /// sorting goes through, whatever their order was, and those that restarted go first.
    #[test]
    fn victims_are_in_one_order_when_ages_are_alike() {
        let times = ["2026-01-01T00:00:33Z", "2026-01-01T00:00:34Z", "2026-01-01T00:00:35Z"];
        let mut pods: Vec<_> = (0..500).map(|n| pod(n, times[n as usize * 7 % 3], n % 5)).collect();
        let now: Timestamp = "2026-01-01T00:01:30Z".parse().unwrap();
        let names = |pods: &[Typed<Pod>]| -> Vec<String> {
            choose_victims(pods, pods, 300, now).iter().map(|p| p.name().to_owned()).collect()
        };
        let victims = names(&pods);
        assert!(victims[..100].iter().all(|name| name[1..].parse::<u32>().unwrap() % 5 == 4), "{:?}", &victims[..100]);
        pods.reverse();
        assert_eq!(names(&pods), victims);
        pods.rotate_left(123);
        assert_eq!(names(&pods), victims);
    }
}
