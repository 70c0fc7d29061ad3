//! Jobs: each pod counts once, none is made that is not needed, and they end as they should.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use corten_base::{Istr, Timestamp};
use corten_cache::Event;
use corten_kinds::id;
use corten_object::Object;
use corten_views::{Job, Pod};

use super::Checker;

const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How soon after a failure was seen no successor may come: ten seconds after it happened, and it may be told late.
const BACKOFF_MIN: Duration = Duration::from_secs(2);
/// The same when the failure happened just then; times are told in whole seconds.
const BACKOFF_KNOWN: Duration = Duration::from_secs(8);

/// Pods of one outcome that a job has noted to be counted (`status.uncountedTerminatedPods`).
#[derive(Default)]
struct Noted {
    pods: HashSet<String>,
    /// What is counted beside them: others that were noted when nobody looked.
    others: i64,
}

impl Noted {
    /// Takes over what is counted: some changes were not seen.
    fn begin(&mut self, counted: i64, waiting: &[String]) {
        self.pods.extend(waiting.iter().cloned());
        self.others = counted + waiting.len() as i64 - self.pods.len() as i64;
    }

    /// What must be counted when these still wait to be.
    fn counted(&mut self, waiting: &[String]) -> i64 {
        self.pods.extend(waiting.iter().cloned());
        self.others + self.pods.len() as i64 - waiting.len() as i64
    }
}

/// What was seen of one job.
#[derive(Default)]
pub(super) struct Seen {
    /// Pods that succeeded while they were tracked.
    succeeded: HashSet<Istr>,
    noted_succeeded: Noted,
    noted_failed: Noted,
    indexes: HashSet<String>,
    /// Pods that were there.
    made: HashSet<Istr>,
    failed: HashSet<Istr>,
    /// No pod is to come before.
    waits_until: Option<Timestamp>,
    suspended_since: Option<Timestamp>,
    resumed_at: Option<Timestamp>,
}

impl Seen {
    /// How many successes count. One that comes when the job has noted the pod as failed already does not: a job that ends
    /// takes what runs as failed, and cannot know better (`trackJobStatusAndRemoveFinalizers`).
    pub fn successes(&self) -> i64 {
        self.succeeded.iter().filter(|uid| !self.noted_failed.pods.contains(uid.as_str())).count() as i64
    }
}

impl Seen {
    /// Whether it is suspended, and whoever acts knows that.
    fn is_known_suspended(&self, now: Timestamp) -> bool {
        self.suspended_since.is_some_and(|since| now.duration_since(since).unsigned_abs() > super::STALE)
    }
}

/// What was seen of jobs, by uid.
#[derive(Default)]
pub(super) struct Jobs(pub HashMap<Istr, Seen>);

impl Checker {
    /// Whether there are jobs that have not finished.
    pub fn jobs_go_on(&self) -> bool {
        let jobs = self.objects.list_in(id::JOB, crate::users::NAMESPACE);
        jobs.filter_map(|o| o.view::<Job>().ok()).any(|job| job.finished().is_none())
    }

    /// Takes over a job as it is.
    pub(super) fn job_known(&mut self, object: &Arc<Object>) {
        let Ok(job) = object.view::<Job>() else { return };
        let waiting = job.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let seen = self.jobs.0.entry(object.head.uid.clone()).or_default();
        seen.noted_succeeded.begin(job.status.succeeded, &waiting.succeeded);
        seen.noted_failed.begin(job.status.failed, &waiting.failed);
    }

    /// Remembers what becomes of a job's pods.
    pub(super) fn job_pod(&mut self, pod: &Arc<Object>) {
        let Some(owner) = pod.head.controller().filter(|o| *o.kind == *"Job") else { return };
        let Ok(view) = pod.view::<Pod>() else { return };
        let seen = self.jobs.0.entry(owner.uid.clone()).or_default();
        seen.made.insert(pod.head.uid.clone());
        let tracked = pod.head.finalizers.iter().any(|f| *f == *TRACKING);
        if tracked && view.status.phase == "Succeeded" && seen.succeeded.insert(pod.head.uid.clone()) {
            seen.indexes.extend(view.metadata.annotations.get(INDEX).cloned());
        }
        // One that somebody deletes while it counts has failed, too, and its end is known at once.
        let deleted = tracked && pod.head.is_deleting() && !view.is_terminal();
        if (deleted || view.status.phase == "Failed") && seen.failed.insert(pod.head.uid.clone()) {
            let wait = if deleted && view.is_ready() { BACKOFF_KNOWN } else { BACKOFF_MIN };
            seen.waits_until = self.sim.now().checked_add(wait).ok();
        }
    }

    pub(super) fn job_pod_created(&mut self, pod: &Arc<Object>) {
        let Some(owner) = self.owner(pod).filter(|o| o.kind == id::JOB) else { return };
        let Ok(job) = owner.view::<Job>() else { return };
        let name = &pod.head.name;
        let pods = self.pods_of(&owner.head.uid);
        let active: Vec<&Arc<Pod>> = pods.iter().filter(|p| p.is_active()).collect();
        let now = self.sim.now();
        let (calm, seen) = (self.is_calm(), self.jobs.0.entry(owner.head.uid.clone()).or_default());
        let mut faults: Vec<(&'static str, String)> = Vec::new();
        let parallelism = job.spec.parallelism.unwrap_or(1);
        if active.len() as i64 > parallelism {
            faults.push(("jobs keep their parallelism", format!("{name} is one of {} active pods", active.len())));
        }
        if job.finished().is_some() {
            faults.push(("no pod after a job's end", format!("{name} was made")));
        }
        if seen.is_known_suspended(now) {
            faults.push(("suspended jobs make no pods", format!("{name} was made")));
        }
        let done =
            seen.succeeded.len() + active.iter().filter(|p| !seen.succeeded.contains(p.metadata.uid.as_str())).count();
        if job.spec.completions.is_some_and(|completions| done as i64 > completions) {
            faults.push(("no pod beyond a job's completions", format!("{name} was made")));
        }
        if let Some(index) = pod.view::<Pod>().ok().and_then(|p| p.metadata.annotations.get(INDEX).cloned()) {
            let same = |p: &&&Arc<Pod>| p.metadata.annotations.get(INDEX) == Some(&index);
            if active.iter().filter(same).count() > 1 || seen.indexes.contains(&index) {
                faults.push(("each index once", format!("{name} is made for an index that has or had its pod")));
            }
        }
        let soon = seen.waits_until.is_some_and(|until| now < until);
        if calm && soon && parallelism == 1 {
            faults.push(("failures are waited out", format!("{name} comes at once after a failure")));
        }
        faults.into_iter().for_each(|(invariant, text)| self.fault(invariant, text));
    }

    /// The deletion of a pod of a job that goes on has begun: it has more of them than it wants.
    pub(super) fn job_pod_condemned(&mut self, pod: &Arc<Object>, before: &Pod, owner: &Object, pods: &[Arc<Pod>]) {
        let Ok(job) = owner.view::<Job>() else { return };
        let now = self.sim.now();
        let seen = self.jobs.0.entry(owner.head.uid.clone()).or_default();
        let ends = |c: &corten_views::Condition| {
            c.is_true() && matches!(c.r#type.as_str(), "SuccessCriteriaMet" | "FailureTarget" | "Complete" | "Failed")
        };
        let resumed = seen.resumed_at.is_some_and(|at| now.duration_since(at).unsigned_abs() <= super::STALE);
        if before.is_terminal() || seen.suspended_since.is_some() || resumed || job.status.conditions.iter().any(ends) {
            return;
        }
        let active = pods.iter().filter(|p| p.is_active()).count() as i64;
        let wanted =
            job.spec.completions.map_or(i64::MAX, |c| c - seen.successes()).min(job.spec.parallelism.unwrap_or(1));
        if active < wanted {
            let text = format!("{} goes, which leaves {active} pods where {wanted} are wanted", pod.head.name);
            self.fault("jobs keep the pods that they want", text);
        }
    }

    /// Time has passed: the pods of jobs that were suspended a while ago are on their way out.
    pub(super) fn suspended_jobs_rest(&mut self) {
        let now = self.sim.now();
        let mut faults = Vec::new();
        for object in self.objects.list_in(id::JOB, crate::users::NAMESPACE) {
            let known = self.jobs.0.get(&object.head.uid).is_some_and(|seen| seen.is_known_suspended(now));
            if known && self.is_calm() {
                let pods = self.pods_of(&object.head.uid);
                let runs = pods.iter().filter(|p| p.is_active());
                faults.extend(runs.map(|p| format!("{} of {} is still there", p.metadata.name, object.head.name)));
            }
        }
        faults.into_iter().for_each(|text| self.fault("suspended jobs rest", text));
    }

    pub(super) fn job(&mut self, event: &Event) {
        if event.previous.is_none() {
            self.cron_job_created(event);
        }
        let Some(object) = event.object.as_ref().or(event.previous.as_ref()) else { return };
        let Ok(job) = object.view::<Job>() else { return };
        let now = self.sim.now();
        let seen = self.jobs.0.entry(object.head.uid.clone()).or_default();
        if seen.suspended_since.is_some() && !job.spec.suspend.unwrap_or(false) {
            seen.resumed_at = Some(now);
        }
        // Of one that was made suspended nobody has ever thought otherwise.
        let since = if event.previous.is_none() { Timestamp::MIN } else { now };
        seen.suspended_since = job.spec.suspend.unwrap_or(false).then(|| seen.suspended_since.unwrap_or(since));
        let (succeeded, failed, made) = (seen.successes(), seen.failed.len() as i64, seen.made.len() as i64);
        let status = &job.status;
        let name = &object.head.name;
        let waiting = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let counted_failed = seen.noted_failed.counted(&waiting.failed);
        // With indexes those that succeeded are told by their indexes alone.
        let counted_succeeded =
            if job.is_indexed() { status.succeeded } else { seen.noted_succeeded.counted(&waiting.succeeded) };
        let early = waiting.succeeded.iter().find(|uid| !seen.succeeded.contains(uid.as_str())).cloned();
        if let Some(early) = early {
            self.fault("jobs count exactly", format!("{name} notes pod {early} as succeeded, which did not"));
        }
        if (status.succeeded, status.failed) != (counted_succeeded, counted_failed) {
            let (some, others) = (status.succeeded, status.failed);
            let text = format!(
                "{name} counts {some}+{others} where {counted_succeeded}+{counted_failed} were noted and let go"
            );
            self.fault("jobs count exactly", text);
        }
        if status.succeeded > succeeded {
            let text = format!("{name} counts {} successes where {succeeded} were", status.succeeded);
            self.fault("jobs count exactly", text);
        }
        if status.failed + status.succeeded > made {
            let text = format!("{name} counts {}+{} where {made} pods were", status.succeeded, status.failed);
            self.fault("jobs count exactly", text);
        }
        let before = event.previous.as_ref().and_then(|old| old.view::<Job>().ok());
        if let Some(before) = &before
            && (before.status.succeeded > status.succeeded || before.status.failed > status.failed)
        {
            self.fault("jobs count exactly", format!("{name} counts backwards"));
        }
        if let Some(end) = job.finished().filter(|_| before.is_some_and(|b| b.finished().is_none())) {
            self.job_ended(&job, &end.r#type, &end.reason, succeeded, failed);
        }
        self.job_gone(event, &job);
    }

    fn job_ended(&mut self, job: &Job, kind: &str, reason: &str, succeeded: i64, failed: i64) {
        let name = &job.metadata.name;
        let limit = job.spec.backoff_limit.unwrap_or(6);
        let completions = job.spec.completions.unwrap_or(1);
        let mut wrong = Vec::new();
        if kind == "Complete" && (succeeded < completions || job.status.succeeded < completions) {
            wrong.push(format!("{name} is complete with {} of {completions}", job.status.succeeded));
        }
        if kind == "Complete" && job.status.failed > limit {
            wrong.push(format!("{name} is complete with {} failures where {limit} are allowed", job.status.failed));
        }
        if reason == "BackoffLimitExceeded" && failed <= limit && self.is_calm() {
            wrong.push(format!("{name} has failed with {failed} failures where {limit} are allowed"));
        }
        let waiting = job.status.uncounted_terminated_pods.as_ref();
        if waiting.is_some_and(|w| !w.succeeded.is_empty() || !w.failed.is_empty()) {
            wrong.push(format!("{name} has ended before all its pods were counted"));
        }
        if reason == "DeadlineExceeded"
            && let (Some(deadline), Some(start)) = (job.spec.active_deadline_seconds, job.status.start_time)
            && self.is_calm()
            && self.sim.wall().duration_since(start).as_secs() < deadline
        {
            wrong.push(format!("{name} was ended before its deadline"));
        }
        wrong.into_iter().for_each(|text| self.fault("jobs end as they should", text));
    }

    /// A finished job goes by itself only after its time.
    fn job_gone(&mut self, event: &Event, job: &Job) {
        let begins = event.object.as_ref().is_some_and(|o| o.head.is_deleting())
            && event.previous.as_ref().is_some_and(|o| !o.head.is_deleting());
        let (Some(ttl), Some(end)) = (job.spec.ttl_seconds_after_finished, job.finished()) else { return };
        let foreground = |o: &Arc<Object>| o.head.finalizers.iter().any(|f| *f == *"foregroundDeletion");
        // Users delete in the background.
        if !begins || !event.object.as_ref().is_some_and(foreground) || !self.is_calm() {
            return;
        }
        let age = end.last_transition_time.map_or(0, |at| self.sim.wall().duration_since(at).as_secs());
        if age < ttl {
            self.fault(
                "finished jobs stay for their time",
                format!("{} went after {age} of {ttl} s", job.metadata.name),
            );
        }
    }
}
