//! Counting pods exactly once, and ending the job when all are counted (`trackJobStatusAndRemoveFinalizers`).

use corten_object::time;
use corten_tree::{Tree, tree};
use corten_views::Pod;

use super::indexes::index_of;
use super::pods::{is_tracked, untrack};
use super::{Ending, Sync};
use crate::{Action, EventNote, Typed, status};
use corten_object::conditions::{self, NewCondition};

/// How many pods may be waiting to be counted at once.
const UNCOUNTED_MAX: usize = 500;

impl Sync<'_> {
    /// The counters of what runs, once `created` more pods are made.
    pub(super) fn counters(&mut self, created: usize) {
        let ready = self.active.iter().filter(|p| p.is_ready()).count() as i64;
        status::count(&mut self.status, "active", (self.active.len() + created) as i64);
        self.status.insert("ready", ready);
        self.status.insert("terminating", self.terminating);
    }

    /// Notes the pods that have ended, and says which need not be held any longer once that is written.
    pub(super) fn track(&mut self, ending: Option<&Ending>) -> Vec<Action> {
        let before = self.uncounted();
        let tracked = |uid: &String| self.pods.iter().any(|p| p.uid() == uid && is_tracked(p));
        let mut succeeded: Vec<String> = before.succeeded.iter().filter(|u| tracked(u)).cloned().collect();
        let mut failed: Vec<String> = before.failed.iter().filter(|u| tracked(u)).cloned().collect();
        // Those whose finalizer is gone count now.
        let counted_succeeded = (before.succeeded.len() - succeeded.len()) as i64;
        let counted_failed = (before.failed.len() - failed.len()) as i64;
        let mut indexes = self.succeeded_before.clone();
        let mut release = Vec::new();
        for pod in self.pods.iter().filter(|p| is_tracked(p)) {
            if !self.may_release(pod, ending) {
                continue;
            }
            release.push(untrack(pod));
            let uid = pod.uid().to_owned();
            if pod.status.phase == "Succeeded" && !failed.contains(&uid) {
                match index_of(pod).filter(|_| self.job.is_indexed() && self.has_valid_index(pod)) {
                    Some(index) => drop(indexes.0.insert(index)),
                    None if !self.job.is_indexed() && !succeeded.contains(&uid) => succeeded.push(uid),
                    None => {}
                }
            } else if self.counts_as_failed(pod, ending) && !failed.contains(&uid) {
                failed.push(uid);
            }
            let new_indexes = usize::try_from(indexes.count() - self.succeeded_before.count()).unwrap_or(0);
            if new_indexes + succeeded.len() + failed.len() >= UNCOUNTED_MAX {
                break;
            }
        }
        let old = &self.job.status;
        if self.job.is_indexed() {
            status::count(&mut self.status, "succeeded", indexes.count());
            let text = indexes.to_string();
            if text.is_empty() {
                self.status.remove("completedIndexes");
            } else {
                self.status.insert("completedIndexes", text);
            }
            if let Some(failed) = &self.failed_indexes {
                self.status.insert("failedIndexes", failed.to_string());
            }
        } else {
            status::count(&mut self.status, "succeeded", old.succeeded + counted_succeeded);
        }
        status::count(&mut self.status, "failed", old.failed + counted_failed);
        self.status.insert("uncountedTerminatedPods", uncounted(succeeded, failed));
        release
    }

    /// `canRemoveFinalizer`
    fn may_release(&self, pod: &Typed<Pod>, ending: Option<&Ending>) -> bool {
        if self.job.head().is_deleting() || ending.is_some() || pod.status.phase == "Succeeded" {
            return true;
        }
        let waits = index_of(pod).and_then(|i| self.delayed.get(&i)).is_some_and(|p| p.uid() == pod.uid());
        self.is_failed(pod) && !waits
    }

    fn counts_as_failed(&self, pod: &Typed<Pod>, ending: Option<&Ending>) -> bool {
        let failing = ending.is_some_and(|e| e.kind == "FailureTarget");
        (self.is_failed(pod) || failing) && self.has_valid_index(pod) && !self.verdict(pod).ignored
    }

    /// Says why the job ends, and that it has ended once nothing is left to count; then answers with the events about it
    /// (`enactJobFinished`, `recordJobFinished`).
    pub(super) fn finish(&mut self, ending: Ending, all_released: bool) -> Vec<EventNote> {
        if conditions::find(&self.status, ending.kind).is_none_or(|c| c.str_at("status") != "True") {
            self.condition(ending.kind, "True", &ending.reason, ending.message.clone());
        }
        let left = self.status.path("uncountedTerminatedPods").is_some_and(|u| !u.is_empty_value());
        if !all_released || left || !self.active.is_empty() || self.terminating > 0 {
            return Vec::new();
        }
        let complete = ending.kind == "SuccessCriteriaMet";
        let kind = if complete { "Complete" } else { "Failed" };
        let condition = NewCondition { kind, status: "True", reason: &ending.reason, message: ending.message.clone() };
        conditions::replace(&mut self.status, &condition, self.world.now, "lastProbeTime");
        let job = self.job.object.clone();
        if complete {
            self.status.insert("completionTime", time::format(self.world.now));
            let mut notes = Vec::new();
            if self.job.spec.completions.is_some_and(|c| self.status.i64_at("succeeded").unwrap_or(0) > c) {
                let text = "Too many succeeded pods running after completion count reached";
                notes.push(EventNote::warning(&job, "TooManySucceededPods", text));
            }
            notes.push(EventNote::normal(&job, "Completed", "Job completed"));
            return notes;
        }
        vec![EventNote::warning(&job, reason_of(&ending.reason), ending.message)]
    }
}

fn uncounted(mut succeeded: Vec<String>, mut failed: Vec<String>) -> Tree {
    succeeded.sort();
    failed.sort();
    let mut out = tree!({});
    if !succeeded.is_empty() {
        out.insert("succeeded", succeeded);
    }
    if !failed.is_empty() {
        out.insert("failed", failed);
    }
    out
}

/// The reasons that jobs fail for, as events name them.
fn reason_of(reason: &str) -> &'static str {
    const KNOWN: &[&str] =
        &["BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded", "PodFailurePolicy"];
    KNOWN.iter().find(|known| **known == reason).copied().unwrap_or("Failed")
}
