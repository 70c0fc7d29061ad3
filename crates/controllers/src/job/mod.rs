//! Job: so many pods that end well (`pkg/controller/job/job_controller.go`).
//!
//! Each pod has a finalizer until it is counted, so that each counts exactly once whatever crashes: its uid goes into
//! `status.uncountedTerminatedPods`, then the finalizer goes, then the counter moves. One plan does the first two, as
//! stages; the next one, which sees the finalizers gone, does the third.

mod back_off;
mod indexes;
mod pods;
mod policy;
mod track;
mod ttl;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use corten_kinds::id;
use corten_object::{Object, OwnerReference, time};
use corten_tree::Tree;
use corten_views::meta::compile;
use corten_views::{Job, Pod};

use crate::{Action, Changed, Controller, EventNote, Key, Plan, Typed, Watch, World, owners, status};
use back_off::BackOff;
use corten_object::conditions::{self, NewCondition};
use indexes::{FAILURES, IGNORED, Indexes, index_of, number};
use pods::{finished_at, is_held, is_tracked, untrack};
pub use ttl::TtlController;

/// The finalizer of pods that are not counted yet.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const MANAGER: &str = "kubernetes.io/job-controller";

/// The controller.
pub struct JobController;

const WATCHES: &[Watch] = &[
    Watch::itself(id::JOB),
    Watch::controller(id::POD, id::JOB),
    Watch::by(id::POD, orphan),
    Watch::by(id::JOB, gone),
];

/// A pod without a controller wakes the jobs that could adopt it; one whose job is gone is looked after itself.
fn orphan(change: &Changed<'_>, out: &mut Vec<Key>) {
    let (Some(pod), object) = (change.new, change.object()) else { return };
    let tracked = is_held(object);
    match pod.head.controller() {
        Some(owner) if tracked && is_job(owner) && change.state.by_uid(&owner.uid).is_none() => out.push(pod.key()),
        None if change.selection_changed() => {
            if tracked {
                out.push(pod.key());
            }
            for job in change.state.list_in(id::JOB, &pod.head.namespace) {
                let matches = |j: Typed<Job>| compile(j.spec.selector.as_ref()).matches(&pod.head.labels);
                if Typed::read(job).is_some_and(matches) {
                    out.push(job.key());
                }
            }
        }
        _ => {}
    }
}

/// Whether a reference names a job. (The pods of others are theirs, whatever finalizers they have.)
fn is_job(owner: &OwnerReference) -> bool {
    *owner.kind == *"Job" && *owner.api_version == *"batch/v1"
}

/// The pods of a job that is gone.
fn gone(change: &Changed<'_>, out: &mut Vec<Key>) {
    if change.new.is_none() {
        out.extend(change.state.owned(&change.object().head.uid, id::POD).map(|pod| pod.key()));
    }
}

impl Controller for JobController {
    fn name(&self) -> &'static str {
        "job"
    }

    fn component(&self) -> &'static str {
        "job-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        if key.kind == id::POD {
            return release_orphan(world, key);
        }
        let Some(job) = world.get::<Job>(key) else { return Plan::empty() };
        let foreign = job.spec.managed_by.as_deref().is_some_and(|m| m != MANAGER);
        if foreign || job.finished().is_some() {
            return release_finished(world, &job, foreign);
        }
        let selector = compile(job.spec.selector.as_ref());
        let labels = &job.spec.template.metadata.labels;
        if !selector.matches_with(|label| labels.get(label).map(String::as_str)) {
            // Pods of such a template would never be the job's own.
            return Plan::empty();
        }
        // Most pods of a large job are counted successes: only what failed since the last of them asks for them again.
        let settled = |pod: &Object| !is_held(pod) && world.state.fact(pod, "status.phase") == "Succeeded";
        let owned = owners::Owned { kind: id::POD, selector: &selector, finalizer: TRACKING, settled: &settled };
        let claimed = owners::claim_owned::<Pod>(world, &job.object, &owned, |_| true);
        if !claimed.actions.is_empty() {
            return Plan { keep: world.kept.cloned(), ..Plan::of(claimed.actions) };
        }
        Sync::new(world, job, claimed.owned).plan()
    }
}

/// A tracked pod without a job need not wait any more.
fn release_orphan(world: &World<'_>, key: &Key) -> Plan {
    let Some(pod) = world.get::<Pod>(key).filter(is_tracked) else { return Plan::empty() };
    let owner = pod.head().controller();
    if owner.is_some_and(|o| !is_job(o) || world.state.by_uid(&o.uid).is_some()) {
        return Plan::empty();
    }
    Plan::of(vec![untrack(&pod)])
}

/// A finished job's pods that came to light late need not wait any more either.
fn release_finished(world: &World<'_>, job: &Typed<Job>, foreign: bool) -> Plan {
    if foreign {
        return Plan::empty();
    }
    let pods = world.controlled::<Pod>(id::POD, job.namespace(), job.uid());
    Plan::of(pods.iter().filter(|p| is_tracked(p)).map(untrack).collect())
}

/// A job with its pods, and what follows from them.
struct Sync<'s> {
    world: &'s World<'s>,
    job: Typed<Job>,
    tree: Tree,
    /// All but the successes that are counted.
    pods: Vec<Typed<Pod>>,
    active: Vec<Typed<Pod>>,
    terminating: i64,
    succeeded: i64,
    failed: i64,
    succeeded_before: Indexes,
    succeeded_indexes: Indexes,
    failed_indexes: Option<Indexes>,
    /// By index: the failed pod that keeps the count of failures until its successor is there.
    delayed: BTreeMap<i64, Typed<Pod>>,
    back_off: BackOff,
    before: Tree,
    status: Tree,
}

/// How a job ends: the condition that says so first.
struct Ending {
    kind: &'static str,
    reason: String,
    message: String,
}

impl Ending {
    fn failure(reason: &str, message: &str) -> Ending {
        Ending { kind: "FailureTarget", reason: reason.into(), message: message.into() }
    }

    fn success(reason: &str, message: &str) -> Ending {
        Ending { kind: "SuccessCriteriaMet", reason: reason.into(), message: message.into() }
    }
}

impl<'s> Sync<'s> {
    fn new(world: &'s World<'s>, job: Typed<Job>, pods: Vec<Typed<Pod>>) -> Sync<'s> {
        let tree = job.tree();
        let status = status::of(&tree);
        let active: Vec<_> = pods.iter().filter(|p| p.is_active()).cloned().collect();
        let terminating = pods.iter().filter(|p| p.is_terminating() && !p.is_terminal()).count() as i64;
        let mut sync = Sync {
            world,
            tree,
            active,
            terminating,
            pods,
            succeeded: 0,
            failed: 0,
            succeeded_before: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            delayed: BTreeMap::new(),
            back_off: BackOff::default(),
            before: status.clone(),
            status,
            job,
        };
        sync.count();
        if sync.job.spec.backoff_limit_per_index.is_none() {
            sync.back_off = BackOff::observe(world.kept(), &sync);
        }
        sync
    }

    fn completions(&self) -> i64 {
        self.job.spec.completions.unwrap_or(i64::from(i32::MAX))
    }

    fn is_suspended(&self) -> bool {
        self.job.spec.suspend == Some(true)
    }

    fn replaces_only_failed(&self) -> bool {
        self.job.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    /// `isPodFailed`
    fn is_failed(&self, pod: &Typed<Pod>) -> bool {
        pod.status.phase == "Failed"
            || (!self.replaces_only_failed() && pod.is_terminating() && pod.status.phase != "Succeeded")
    }

    fn verdict(&self, pod: &Typed<Pod>) -> policy::Verdict {
        policy::judge(self.job.spec.pod_failure_policy.as_ref(), pod)
    }

    fn uncounted(&self) -> corten_views::batch::UncountedTerminatedPods {
        self.job.status.uncounted_terminated_pods.clone().unwrap_or_default()
    }

    /// Whether a pod counts for one of the job's indexes (or the job has none).
    fn has_valid_index(&self, pod: &Typed<Pod>) -> bool {
        !self.job.is_indexed() || index_of(pod).is_some_and(|i| i < self.completions())
    }

    fn count(&mut self) {
        let uncounted = self.uncounted();
        let countable = |s: &Self, p: &&Typed<Pod>| is_tracked(p) && s.has_valid_index(p);
        let succeeded = self.pods.iter().filter(|p| countable(self, p) && p.status.phase == "Succeeded");
        let new_succeeded = succeeded.filter(|p| !uncounted.succeeded.iter().any(|u| u == p.uid())).count();
        let failed = self.pods.iter().filter(|p| countable(self, p) && self.is_failed(p));
        let failed = failed.filter(|p| !uncounted.failed.iter().any(|u| u == p.uid()));
        let new_failed = failed.filter(|p| !self.verdict(p).ignored).count();
        let status = &self.job.status;
        self.succeeded = status.succeeded + (new_succeeded + uncounted.succeeded.len()) as i64;
        self.failed = status.failed + (new_failed + uncounted.failed.len()) as i64;
        if self.job.is_indexed() {
            self.count_indexes();
        }
    }

    fn count_indexes(&mut self) {
        let completions = self.completions();
        self.succeeded_before = Indexes::parse(&self.job.status.completed_indexes, completions);
        let mut succeeded = self.succeeded_before.clone();
        let new = self.pods.iter().filter(|p| is_tracked(p) && p.status.phase == "Succeeded");
        succeeded.0.extend(new.filter_map(|p| index_of(p)).filter(|i| *i < completions));
        self.succeeded_indexes = succeeded;
        self.succeeded = self.succeeded_indexes.count();
        let Some(limit) = self.job.spec.backoff_limit_per_index else { return };
        let mut failed = Indexes::parse(self.job.status.failed_indexes.as_deref().unwrap_or_default(), completions);
        let valid = |p: &&Typed<Pod>| is_tracked(p) && self.has_valid_index(p);
        let gave_up = |p: &&Typed<Pod>| {
            let verdict = self.verdict(p);
            self.is_failed(p) && (verdict.fail_index || (!verdict.ignored && number(p, FAILURES) >= limit))
        };
        failed.0.extend(self.pods.iter().filter(|p| valid(p) && gave_up(p)).filter_map(|p| index_of(p)));
        let mut delayed: BTreeMap<i64, Typed<Pod>> = BTreeMap::new();
        for pod in self.pods.iter().filter(|p| valid(p) && self.is_failed(p)) {
            let Some(index) = index_of(pod) else { continue };
            let done = self.succeeded_indexes.has(index) || failed.has(index);
            if done || self.active.iter().any(|p| index_of(p) == Some(index)) {
                continue;
            }
            let rank = |p: &Typed<Pod>| (number(p, FAILURES) + number(p, IGNORED), finished_at(p));
            if delayed.get(&index).is_none_or(|old| rank(old) <= rank(pod)) {
                delayed.insert(index, pod.clone());
            }
        }
        self.failed_indexes = Some(failed);
        self.delayed = delayed;
    }

    /// Why the job is to end, if it is (`syncJob`).
    fn ending(&self) -> Option<Ending> {
        for kind in ["SuccessCriteriaMet", "FailureTarget"] {
            if let Some(c) = conditions::find(&self.before, kind).filter(|c| c.str_at("status") == "True") {
                return Some(Ending { kind, reason: c.str_at("reason").into(), message: c.str_at("message").into() });
            }
        }
        let spec = &self.job.spec;
        if spec.pod_failure_policy.is_some() {
            let message = self.pods.iter().filter(|p| self.is_failed(p)).find_map(|p| self.verdict(p).fail_job);
            if let Some(message) = message {
                return Some(Ending::failure("PodFailurePolicy", &message));
            }
        }
        if self.failed > spec.backoff_limit.unwrap_or(6) || self.restarted_too_often() {
            let message = "Job has reached the specified backoff limit";
            return Some(Ending::failure("BackoffLimitExceeded", message));
        }
        if self.deadline().is_some_and(|left| left.is_zero()) {
            return Some(Ending::failure("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        if self.job.is_indexed() { self.indexed_ending() } else { None }
    }

    fn indexed_ending(&self) -> Option<Ending> {
        let spec = &self.job.spec;
        if let Some(failed) = &self.failed_indexes {
            if spec.max_failed_indexes.is_some_and(|max| failed.count() > max) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return Some(Ending::failure("MaxFailedIndexesExceeded", message));
            }
            if failed.count() > 0 && failed.count() + self.succeeded_indexes.count() >= self.completions() {
                return Some(Ending::failure("FailedIndexes", "Job has failed indexes"));
            }
        }
        let met = policy::success(spec.success_policy.as_ref(), self.completions(), &self.succeeded_indexes)?;
        Some(Ending::success("SuccessPolicy", &met))
    }

    /// `pastBackoffLimitOnFailure`
    fn restarted_too_often(&self) -> bool {
        if self.job.spec.template.spec.restart_policy != "OnFailure" {
            return false;
        }
        let runs = self.pods.iter().filter(|p| matches!(p.status.phase.as_str(), "Running" | "Pending"));
        let statuses = runs.flat_map(|p| p.status.init_container_statuses.iter().chain(&p.status.container_statuses));
        let restarts: i64 = statuses.map(|s| i64::from(s.restart_count)).sum();
        match self.job.spec.backoff_limit.unwrap_or(6) {
            0 => restarts > 0,
            limit => restarts >= limit,
        }
    }

    /// How long until the job's time is up.
    fn deadline(&self) -> Option<Duration> {
        let seconds = self.job.spec.active_deadline_seconds.filter(|_| !self.is_suspended())?;
        let left =
            jiff::SignedDuration::from_secs(seconds) - self.world.now.duration_since(self.job.status.start_time?);
        Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
    }

    fn condition(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let condition = NewCondition { kind, status, reason, message };
        conditions::replace(&mut self.status, &condition, self.world.now, "lastProbeTime");
    }

    fn plan(mut self) -> Plan {
        let now = time::format(self.world.now);
        if self.job.status.start_time.is_none() && !self.is_suspended() {
            self.status.insert("startTime", now);
        }
        let mut plan = Plan::empty();
        let mut ending = self.ending();
        let mut wanted = pods::Wanted::default();
        let mut deletions: Vec<Action> = Vec::new();
        if ending.is_some() {
            deletions = self.active.iter().map(|p| crate::pods::delete(&self.job.object, p)).collect();
        } else {
            if !self.job.head().is_deleting() {
                wanted = self.manage();
            }
            ending = self.completed();
            if ending.is_none() && !self.job.head().is_deleting() {
                plan.events.extend(self.suspension());
            }
        }
        let mut release = self.track(ending.as_ref());
        // Pods first, so that the status counts them already; unless that has just failed, for nothing follows a failure, or there is
        // something else that follows the status.
        let pods_first = release.is_empty() && self.world.last.is_none_or(|last| last.failures.is_empty());
        self.counters(if pods_first { wanted.create.len() } else { 0 });
        let mut finished = ending.map_or(Vec::new(), |e| self.finish(e, release.is_empty()));
        let write = status::write(&self.job.object, &self.before, &self.status);
        let write = write.map(|w| match finished.pop() {
            Some(note) => w.on_success(note),
            None => w,
        });
        plan.events.extend(finished);
        let (before, beside) = if pods_first { (wanted.create, Vec::new()) } else { (Vec::new(), wanted.create) };
        plan.stage(before);
        plan.stage(write);
        release.extend(wanted.surplus.iter().filter(|p| is_tracked(p)).map(untrack));
        deletions.extend(wanted.surplus.iter().map(|p| crate::pods::delete(&self.job.object, p)));
        if wanted.surplus.is_empty() {
            release.append(&mut deletions);
        }
        release.extend(beside);
        plan.stage(release);
        plan.stage(deletions);
        if let Some(left) = self.deadline().filter(|left| !left.is_zero()) {
            plan.requeue_after(left);
        }
        if let Some(wait) = wanted.wait {
            plan.requeue_after(wait);
        }
        if !self.back_off.is_empty() {
            plan.keep = Some(Arc::new(self.back_off));
        }
        plan
    }

    /// Whether enough pods have succeeded and none runs any more.
    fn completed(&self) -> Option<Ending> {
        let enough = match self.job.spec.completions {
            None => self.succeeded > 0,
            Some(completions) => self.succeeded >= completions,
        };
        let message = "Reached expected number of succeeded pods";
        (enough && self.active.is_empty()).then(|| Ending::success("CompletionsReached", message))
    }

    /// The condition that the job is suspended or resumed, and the event about that.
    fn suspension(&mut self) -> Option<EventNote> {
        let suspended = conditions::find(&self.before, "Suspended").is_some_and(|c| c.str_at("status") == "True");
        if self.is_suspended() == suspended {
            return None;
        }
        let job = self.job.object.clone();
        if self.is_suspended() {
            self.condition("Suspended", "True", "JobSuspended", "Job suspended".into());
            self.status.remove("startTime");
            Some(EventNote::normal(&job, "Suspended", "Job suspended"))
        } else {
            self.condition("Suspended", "False", "JobResumed", "Job resumed".into());
            let now = time::format(self.world.now);
            self.status.insert("startTime", now);
            Some(EventNote::normal(&job, "Resumed", "Job resumed"))
        }
    }
}
