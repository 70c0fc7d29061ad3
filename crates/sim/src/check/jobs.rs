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

/// What was seen of one job.
#[derive(Default)]
pub(super) struct Seen {
    /// Pods that succeeded while they were tracked.
    pub succeeded: HashSet<Istr>,
    indexes: HashSet<String>,
    /// Pods that were there.
    made: HashSet<Istr>,
    failed: HashSet<Istr>,
    failed_at: Option<Timestamp>,
    suspended_since: Option<Timestamp>,
}

/// What was seen of jobs, by uid.
#[derive(Default)]
pub(super) struct Jobs(pub HashMap<Istr, Seen>);

impl Checker {
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
        if view.status.phase == "Failed" && seen.failed.insert(pod.head.uid.clone()) {
            seen.failed_at = Some(self.sim.now());
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
        if seen.suspended_since.is_some_and(|since| now.duration_since(since).unsigned_abs() > super::STALE) {
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
        let soon = seen.failed_at.is_some_and(|at| now.duration_since(at).unsigned_abs() < BACKOFF_MIN);
        if calm && soon && parallelism == 1 {
            faults.push(("failures are waited out", format!("{name} comes at once after a failure")));
        }
        faults.into_iter().for_each(|(invariant, text)| self.fault(invariant, text));
    }

    pub(super) fn job(&mut self, event: &Event) {
        if event.previous.is_none() {
            self.cron_job_created(event);
        }
        let Some(object) = event.object.as_ref().or(event.previous.as_ref()) else { return };
        let Ok(job) = object.view::<Job>() else { return };
        let now = self.sim.now();
        let seen = self.jobs.0.entry(object.head.uid.clone()).or_default();
        seen.suspended_since = job.spec.suspend.unwrap_or(false).then(|| seen.suspended_since.unwrap_or(now));
        let (succeeded, failed, made) = (seen.succeeded.len() as i64, seen.failed.len() as i64, seen.made.len() as i64);
        let status = &job.status;
        let name = &object.head.name;
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
        if !job.metadata.annotations.is_empty()
            && job
                .status
                .uncounted_terminated_pods
                .as_ref()
                .is_some_and(|u| !u.succeeded.is_empty() || !u.failed.is_empty())
        {
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
