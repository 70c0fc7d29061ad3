//! Resizing a running pod in place: what was given to it, what its cgroups have, and the writes between the two
//! (`pkg/kubelet/allocation/allocation_manager.go`, `kuberuntime_manager.go` `computePodResizeAction` and `doPodResizeAction`).

use corten_base::Timestamp;
use corten_object::time;
use corten_tree::Tree;
use corten_views::container::ResourceRequirements;
use corten_views::{Container, Pod};

use crate::allotment::{self, Allotment};
use crate::memory::after;
use crate::plan::Work;
use crate::resources::{Amounts, CgroupValues, Range, amounts, container_cgroup, pod_cgroup};
use crate::{Action, Event, ObservedContainer};

/// Pause before a resize that failed is tried again.
const RETRY: i64 = 10;
/// For the runtime: no limit.
const UNLIMITED: i64 = -1;
const REASON_ERROR: &str = "Error";
const REASON_INFEASIBLE: &str = "Infeasible";
const REASON_DEFERRED: &str = "Deferred";

/// One write to a cgroup.
#[derive(Debug, Clone, PartialEq)]
pub struct ResizeStep {
    /// The container instance's id and name; `None`: the pod's own cgroup.
    pub container: Option<(String, String)>,
    /// What to write; what is `None` stays, -1 is no limit.
    pub values: CgroupValues,
    /// Whether the memory limit becomes smaller: not to be done below what is in use.
    pub shrinks_memory: bool,
}

/// What a worker keeps of a pod's resources. Saved and restored as a tree: a new agent cannot find it elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Resizing {
    /// What the node has promised; `None` before the pod was taken.
    pub allocated: Option<Allotment>,
    /// What was made of it.
    actuated: Allotment,
    /// What was last written to the pod's own cgroup.
    pod_values: CgroupValues,
    pending: Option<Note>,
    progress: Option<Note>,
    under_way: Option<UnderWay>,
    retry_at: Option<Timestamp>,
    /// Whether there is something to save.
    changed: bool,
}

/// One of the two conditions about a resize.
#[derive(Debug, Clone, PartialEq)]
struct Note {
    reason: String,
    message: String,
    generation: i64,
    since: Timestamp,
    looked_at: Timestamp,
}

/// The writes that are being made.
#[derive(Debug)]
struct UnderWay {
    steps: Vec<ResizeStep>,
    towards: Allotment,
    /// Whether the pod as a whole will have what it shall have.
    whole: bool,
}

/// The part of a resource's name.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Memory,
    Cpu,
}

const PARTS: [Part; 2] = [Part::Memory, Part::Cpu];

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Memory => "memory",
            Part::Cpu => "cpu",
        }
    }

    fn of(self, amounts: &Amounts) -> Range {
        match self {
            Part::Memory => amounts.memory,
            Part::Cpu => amounts.cpu,
        }
    }

    /// Only this part, with an absent limit written out.
    fn only(self, values: &CgroupValues) -> CgroupValues {
        match self {
            Part::Memory => {
                CgroupValues { memory_max: Some(values.memory_max.unwrap_or(UNLIMITED)), ..CgroupValues::default() }
            }
            Part::Cpu => CgroupValues {
                cpu_shares: values.cpu_shares,
                cpu_quota: Some(values.cpu_quota.unwrap_or(UNLIMITED)),
                memory_max: None,
            },
        }
    }
}

impl Resizing {
    /// The pod is taken as it asks.
    pub fn begin(&mut self, pod: &Pod) {
        let all = Allotment::of(pod);
        self.actuated = all.clone();
        self.pod_values = pod_cgroup(pod);
        self.allocated = Some(all);
        self.changed = true;
    }

    /// Goes on from what [`Resizing::saved`] gave, and from the conditions that the API has.
    pub fn restore(&mut self, saved: &Tree, pod: &Pod) {
        let number = |key: &str| saved.i64_at(key);
        self.allocated = saved.get("allocated").map(Allotment::from_tree);
        self.actuated = saved.get("actuated").map(Allotment::from_tree).unwrap_or_default();
        self.pod_values = CgroupValues {
            cpu_shares: number("cpuShares").and_then(|n| u64::try_from(n).ok()),
            cpu_quota: number("cpuQuota"),
            memory_max: number("memoryMax"),
        };
        let note = |kind: &str| {
            let found = pod.status.conditions.iter().find(|c| c.r#type == kind)?;
            Some(Note {
                reason: found.reason.clone(),
                message: found.message.clone(),
                generation: found.observed_generation.unwrap_or(0),
                since: found.last_transition_time?,
                looked_at: found.last_probe_time.or(found.last_transition_time)?,
            })
        };
        self.pending = note("PodResizePending");
        self.progress = note("PodResizeInProgress");
    }

    /// What is to be saved, if it has changed since the last call.
    pub fn saved(&mut self) -> Option<Tree> {
        let allocated = self.allocated.as_ref().filter(|_| std::mem::take(&mut self.changed))?;
        let mut out = Tree::map();
        out.insert("allocated", allocated.to_tree());
        out.insert("actuated", self.actuated.to_tree());
        let shares = self.pod_values.cpu_shares.and_then(|n| i64::try_from(n).ok());
        let numbers =
            [("cpuShares", shares), ("cpuQuota", self.pod_values.cpu_quota), ("memoryMax", self.pod_values.memory_max)];
        for (key, number) in numbers {
            if let Some(number) = number {
                out.insert(key, number);
            }
        }
        Some(out)
    }

    /// A container is started with what it has been promised.
    pub fn note_start(&mut self, name: &str) {
        let promised = self.allocated.as_ref().and_then(|a| a.containers.get(name)).cloned();
        if let Some(promised) = promised
            && self.actuated.containers.get(name) != Some(&promised)
        {
            self.actuated.containers.insert(name.to_owned(), promised);
            self.changed = true;
        }
    }

    /// The pod's cgroup is made anew.
    pub fn note_sandbox(&mut self, pod: &Pod) {
        let values = pod_cgroup(pod);
        if self.pod_values != values {
            self.pod_values = values;
            self.changed = true;
        }
    }

    /// The node promises what the pod now asks for (`handlePodResourcesResize`).
    pub fn accept(&mut self, pod: &Pod, now: Timestamp) -> Event {
        self.allocated = Some(Allotment::of(pod));
        self.pending = None;
        self.retry_at = None;
        self.progress = Some(Note::new("", "", pod.metadata.generation, now));
        self.changed = true;
        event(false, "ResizeStarted", "Pod resize started", pod, pod.metadata.generation, "")
    }

    /// The node cannot promise it, now or ever (`SetPodResizePendingCondition`).
    pub fn refuse(&mut self, pod: &Pod, infeasible: bool, message: &str, now: Timestamp) -> Option<Event> {
        let (reason, kind) = match infeasible {
            true => (REASON_INFEASIBLE, "ResizeInfeasible"),
            false => (REASON_DEFERRED, "ResizeDeferred"),
        };
        let generation = pod.metadata.generation;
        let known = self.pending.as_ref().is_some_and(|p| p.reason == reason && p.generation == generation);
        let mut note = Note::new(reason, message, generation, now);
        if let Some(old) = self.pending.as_ref().filter(|p| p.reason == reason) {
            note.since = old.since;
            if known && old.message == message {
                note.looked_at = old.looked_at;
            }
        }
        self.pending = Some(note);
        let prefix = format!("Pod resize {reason}");
        (!known).then(|| event(true, kind, &prefix, pod, generation, message))
    }

    /// The pod asks again for what it has.
    pub fn revert(&mut self) {
        self.pending = None;
    }

    /// Since when a resize has waited.
    pub fn pending_since(&self) -> Option<Timestamp> {
        self.pending.as_ref().map(|p| p.since)
    }

    /// The writes are over: so many have succeeded, and then this went wrong.
    pub fn finish(&mut self, done: usize, error: Option<&str>, pod: &Pod, now: Timestamp) -> Option<Event> {
        let UnderWay { steps, towards, whole } = self.under_way.take()?;
        self.changed = true;
        for step in steps.iter().take(done) {
            let part = if step.values.memory_max.is_some() { Part::Memory } else { Part::Cpu };
            match &step.container {
                Some((_, name)) => {
                    let to = self.actuated.containers.entry(name.clone()).or_default();
                    copy(part, towards.containers.get(name).unwrap_or(&ResourceRequirements::default()), to);
                }
                None => merge(&mut self.pod_values, &step.values),
            }
        }
        let Some(error) = error else {
            if whole {
                self.actuated.pod = towards.pod;
            }
            return None;
        };
        self.retry_at = Some(after(now, RETRY));
        let generation = self.progress.as_ref().map_or(pod.metadata.generation, |p| p.generation);
        let known = self.progress.as_ref().is_some_and(|p| p.reason == REASON_ERROR && p.message == error);
        if known {
            return None;
        }
        let since = self.progress.as_ref().filter(|p| p.reason == REASON_ERROR).map_or(now, |p| p.since);
        self.progress = Some(Note { since, ..Note::new(REASON_ERROR, error, generation, now) });
        Some(event(true, "ResizeError", "Pod resize error", pod, generation, error))
    }

    /// Whether the pod's containers must not be started now: their cgroup is being changed.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// What the pod's own cgroup has.
    pub fn pod_values(&self) -> &CgroupValues {
        &self.pod_values
    }

    /// What a running container really has.
    pub fn actual<'r>(&'r self, container: &'r Container) -> &'r ResourceRequirements {
        self.actuated.containers.get(&container.name).unwrap_or(&container.resources)
    }

    /// `v1.PodCondition`s about resizes.
    pub fn conditions(&self) -> Vec<Tree> {
        let both = [("PodResizePending", &self.pending), ("PodResizeInProgress", &self.progress)];
        both.into_iter().filter_map(|(kind, note)| Some(note.as_ref()?.condition(kind))).collect()
    }
}

/// Whether a condition is one of those that [`Resizing::conditions`] makes.
pub(crate) fn is_own_condition(kind: &str) -> bool {
    matches!(kind, "PodResizePending" | "PodResizeInProgress")
}

impl Note {
    fn new(reason: &str, message: &str, generation: i64, now: Timestamp) -> Note {
        Note { reason: reason.into(), message: message.into(), generation, since: now, looked_at: now }
    }

    fn condition(&self, kind: &str) -> Tree {
        let mut out = Tree::map();
        out.insert("type", kind);
        if self.generation != 0 {
            out.insert("observedGeneration", self.generation);
        }
        out.insert("status", "True");
        out.insert("lastProbeTime", time::format(self.looked_at));
        out.insert("lastTransitionTime", time::format(self.since));
        for (key, text) in [("reason", &self.reason), ("message", &self.message)] {
            if !text.is_empty() {
                out.insert(key, text);
            }
        }
        out
    }
}

/// Whether a container's resize policy asks for a restart between what it has and what it shall have.
pub(crate) fn needs_restart(work: &Work<'_>, container: &Container) -> bool {
    let resizing = &work.memory.resizing;
    if resizing.allocated.is_none() {
        return false;
    }
    let actual = resizing.actuated.apply(work.pod);
    differs(work.pod, &actual, container).is_some_and(|(want, have)| restarts(container, &want, &have))
}

/// What a container shall have and has, where the two differ.
fn differs(pod: &Pod, actual: &Pod, container: &Container) -> Option<(Amounts, Amounts)> {
    let have = crate::container_of(actual, &container.name).map(|c| amounts(actual, c)).unwrap_or_default();
    let want = amounts(pod, container);
    (want != have).then_some((want, have))
}

fn restarts(container: &Container, want: &Amounts, have: &Amounts) -> bool {
    PARTS.iter().any(|part| {
        let policy = container.resize_policy.iter().find(|p| p.resource_name == part.name());
        part.of(want) != part.of(have) && policy.is_some_and(|p| p.restart_policy == "RestartContainer")
    })
}

/// The containers of a pod that can be resized while they run, and their running instances.
fn running<'w>(work: &Work<'w>) -> Vec<(&'w Container, &'w ObservedContainer)> {
    let (pod, observed) = (work.pod, work.observed);
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.is_sidecar());
    let all = sidecars.chain(&pod.spec.containers);
    let instance = |c: &'w Container| Some((c, observed.active(&c.name).filter(|f| f.is_running())?));
    all.filter_map(instance).collect()
}

/// Plans the writes that bring cgroups to what was promised. Memory first, then CPU; for each the pod grows before its
/// containers do, those that shrink go before those that grow, and the pod shrinks last.
pub(crate) fn sync(work: &mut Work<'_>) {
    let (pod, resizing) = (work.pod, &work.memory.resizing);
    let Some(allocated) = resizing.allocated.clone() else { return };
    if resizing.under_way.is_some() {
        return;
    }
    if let Some(at) = resizing.retry_at.filter(|at| work.now < *at) {
        work.wake(at);
        return;
    }
    let actual = resizing.actuated.apply(pod);
    let mut changes = Vec::new();
    let mut restart_due = false;
    for (container, found) in running(work) {
        let Some((want, have)) = differs(pod, &actual, container) else { continue };
        if restarts(container, &want, &have) {
            restart_due = true;
        } else if work.observed.is_starting(&container.name) {
            return;
        } else {
            changes.push((container, found, want, have));
        }
    }
    let (old, new) = (&resizing.pod_values, pod_cgroup(pod));
    let mut steps = Vec::new();
    for part in PARTS {
        let (grown, shrunk) = pod_steps(part, old, &new);
        steps.extend(grown);
        let mut of_part: Vec<_> = changes.iter().filter(|(.., want, have)| part.of(want) != part.of(have)).collect();
        of_part.sort_by_key(|(.., want, have)| size(part.of(want)) > size(part.of(have)));
        for (container, found, want, have) in of_part {
            steps.push(ResizeStep {
                container: Some((found.id.clone(), container.name.clone())),
                values: part.only(&container_cgroup(pod, container)),
                shrinks_memory: part == Part::Memory && limit(want.memory.limit) < limit(have.memory.limit),
            });
        }
        // A container that waits for its restart still has its old share.
        steps.extend(shrunk.filter(|_| !restart_due));
    }
    let resizing = &mut work.memory.resizing;
    if steps.is_empty() {
        if !restart_due && resizing.actuated.pod != allocated.pod {
            resizing.actuated.pod = allocated.pod;
            resizing.changed = true;
        }
        return;
    }
    work.out.actions.push(Action::Resize { steps: steps.clone() });
    resizing.under_way = Some(UnderWay { steps, towards: allocated, whole: !restart_due });
}

/// The writes to the pod's own cgroup: those before its containers' and the one after.
fn pod_steps(part: Part, old: &CgroupValues, new: &CgroupValues) -> (Vec<ResizeStep>, Option<ResizeStep>) {
    let (from, to) = (part.only(old), part.only(new));
    let larger = |a: Option<i64>, b: Option<i64>| limit(a.unwrap_or(0)) > limit(b.unwrap_or(0));
    let step = |values: CgroupValues, shrinks_memory| ResizeStep { container: None, values, shrinks_memory };
    let is_empty = |v: &CgroupValues| *v == CgroupValues::default();
    let mut grow = CgroupValues::default();
    let mut shrink = CgroupValues::default();
    match to.memory_max {
        wanted if larger(wanted, from.memory_max) => grow.memory_max = wanted,
        wanted if larger(from.memory_max, wanted) => shrink.memory_max = wanted,
        _ => {}
    }
    match to.cpu_quota {
        wanted if larger(wanted, from.cpu_quota) => grow.cpu_quota = wanted,
        wanted if larger(from.cpu_quota, wanted) => shrink.cpu_quota = wanted,
        _ => {}
    }
    if to.cpu_shares > from.cpu_shares {
        grow.cpu_shares = to.cpu_shares;
    } else if to.cpu_shares < from.cpu_shares {
        shrink.cpu_shares = to.cpu_shares;
    }
    let before = Some(step(grow, false)).filter(|s| !is_empty(&s.values));
    let shrinks_memory = shrink.memory_max.is_some();
    (before.into_iter().collect(), Some(step(shrink, shrinks_memory)).filter(|s| !is_empty(&s.values)))
}

/// 0 and less mean no limit.
fn limit(value: i64) -> i64 {
    if value <= 0 { i64::MAX } else { value }
}

fn size(range: Range) -> (i64, i64) {
    (limit(range.limit), range.request)
}

fn merge(values: &mut CgroupValues, written: &CgroupValues) {
    let keep = |n: i64| Some(n).filter(|n| *n > 0);
    values.cpu_shares = written.cpu_shares.or(values.cpu_shares);
    if let Some(quota) = written.cpu_quota {
        values.cpu_quota = keep(quota);
    }
    if let Some(memory) = written.memory_max {
        values.memory_max = keep(memory);
    }
}

fn copy(part: Part, from: &ResourceRequirements, to: &mut ResourceRequirements) {
    for (from, to) in [(&from.limits, &mut to.limits), (&from.requests, &mut to.requests)] {
        match from.get(part.name()) {
            Some(quantity) => drop(to.insert(part.name().to_owned(), quantity.clone())),
            None => drop(to.remove(part.name())),
        }
    }
}

/// Sets or takes away the condition that a resize is in progress (`IsPodResizeInProgress`).
pub(crate) fn note_progress(work: &mut Work<'_>) {
    let (pod, now, resizing) = (work.pod, work.now, &work.memory.resizing);
    let Some(allocated) = &resizing.allocated else { return };
    let actual = resizing.actuated.apply(pod);
    let none = ResourceRequirements::default();
    let level = |of: &Allotment| of.pod.clone().unwrap_or_else(|| none.clone());
    let busy = resizing.under_way.is_some()
        || !allotment::same(&level(allocated), &level(&resizing.actuated))
        || running(work).iter().any(|(container, _)| differs(pod, &actual, container).is_some());
    let resizing = &mut work.memory.resizing;
    if busy {
        resizing.progress.get_or_insert_with(|| Note::new("", "", pod.metadata.generation, now));
    } else if let Some(over) = resizing.progress.take() {
        let event = event(false, "ResizeCompleted", "Pod resize completed", pod, over.generation, "");
        work.out.events.push(event);
    }
}

/// An event with a summary of the pod's resources (`pkg/kubelet/events/resize.go`).
fn event(warning: bool, reason: &'static str, prefix: &str, pod: &Pod, generation: i64, error: &str) -> Event {
    let list = |containers: &[Container]| {
        let one = |c: &Container| {
            let mut out = Tree::map();
            out.insert("name", &c.name);
            out.insert("resources", allotment::requirements_tree(&c.resources));
            out
        };
        Tree::List(containers.iter().map(one).collect())
    };
    let mut summary = Tree::map();
    if !pod.spec.init_containers.is_empty() {
        summary.insert("initContainers", list(&pod.spec.init_containers));
    }
    summary.insert("containers", list(&pod.spec.containers));
    summary.insert("generation", generation);
    if !error.is_empty() {
        summary.insert("error", error);
    }
    let message = format!("{prefix}: {}", summary.to_json_string());
    Event { warning, reason, message, container: String::new() }
}
