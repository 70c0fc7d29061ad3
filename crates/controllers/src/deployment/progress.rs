//! A deployment's status: counts and the conditions Available, Progressing and ReplicaFailure.

use std::time::Duration;

use corten_kinds::id;
use corten_object::time;
use corten_tree::{Tree, tree};
use corten_views::Pod;

use super::cause::{self, Cause};
use super::{Rollout, replicas};
use crate::{EventNote, beyond, status};
use corten_object::conditions::{self, NewCondition};

impl Rollout<'_> {
    /// Counts and availability (`calculateStatus`).
    pub(super) fn sync_status(&mut self) {
        let sum = |f: fn(&corten_views::ReplicaSet) -> i64| -> i64 { self.all().map(|s| f(s)).sum() };
        let available = sum(|s| s.status.available_replicas);
        let total: i64 = self.all().map(replicas).sum();
        let actual = sum(|s| s.status.replicas);
        let ready = sum(|s| s.status.ready_replicas);
        let updated = self.new.as_ref().map_or(0, |s| s.status.replicas);
        let terminating = self.terminating();
        let enough = available >= self.desired() - self.max_unavailable();
        let out = &mut self.status;
        out.insert("observedGeneration", self.deployment.head().generation);
        status::count(out, "replicas", actual);
        status::count(out, "updatedReplicas", updated);
        status::count(out, "readyReplicas", ready);
        status::count(out, "availableReplicas", available);
        status::count(out, "unavailableReplicas", (total - available).max(0));
        match terminating {
            Some(n) => drop(out.make_map().insert("terminatingReplicas", n)),
            None => drop(out.remove("terminatingReplicas")),
        }
        let (status, reason, message) = if enough {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        let condition = NewCondition { kind: "Available", status, reason, message: message.into() };
        conditions::set(out, &condition, self.world.now, "lastUpdateTime");
    }

    /// The sum over the sets; `None` if one that was synced has not said.
    fn terminating(&self) -> Option<i64> {
        let mut sum = 0;
        for set in self.all() {
            match set.status.terminating_replicas {
                Some(n) => sum += n,
                None if set.status.observed_generation == 0 => {}
                None => return None,
            }
        }
        Some(sum)
    }

    /// Whether a status says that the rollout is complete (`DeploymentComplete`).
    pub(super) fn is_complete(&self, status: &Tree) -> bool {
        let count = |field| status.i64_at(field).unwrap_or(0);
        ["updatedReplicas", "replicas", "availableReplicas"].iter().all(|f| count(f) == self.desired())
            && count("observedGeneration") >= self.deployment.head().generation
    }

    /// The status during a rollout (`syncRolloutStatus`).
    pub(super) fn sync_rollout_status(&mut self) {
        self.sync_status();
        if self.has_deadline() {
            self.progress();
        } else {
            conditions::remove(&mut self.status, "Progressing");
        }
        let failure = self
            .new
            .iter()
            .chain(&self.old)
            .find_map(|set| conditions::find(&status::of(&set.tree()), "ReplicaFailure").cloned());
        match failure {
            Some(condition) => self.replica_failure(&condition),
            None => conditions::remove(&mut self.status, "ReplicaFailure"),
        }
    }

    fn replica_failure(&mut self, condition: &Tree) {
        let same = |old: &Tree| ["status", "reason"].iter().all(|f| old.str_at(f) == condition.str_at(f));
        if conditions::find(&self.status, "ReplicaFailure").is_some_and(same) {
            return;
        }
        let at = condition.str_at("lastTransitionTime");
        let made = tree!({
            "type": "ReplicaFailure",
            "status": (condition.str_at("status")),
            "lastUpdateTime": (at),
            "lastTransitionTime": (at),
            "reason": (condition.str_at("reason")),
            "message": (condition.str_at("message"))
        });
        conditions::push(&mut self.status, made);
    }

    fn progress(&mut self) {
        let reason = conditions::find(&self.status_before, "Progressing").map(|c| c.str_at("reason").to_owned());
        let count = |status: &Tree, field| status.i64_at(field).unwrap_or(0);
        let idle = count(&self.status, "replicas") == count(&self.status, "updatedReplicas")
            && reason.as_deref() == Some("NewReplicaSetAvailable");
        if idle {
            return;
        }
        let subject = match &self.new {
            Some(new) => format!("ReplicaSet \"{}\"", new.name()),
            None => format!("Deployment \"{}\"", self.deployment.name()),
        };
        if self.is_complete(&self.status) {
            self.progressing("True", "NewReplicaSetAvailable", format!("{subject} has successfully progressed."));
        } else if self.has_progressed() {
            let message = format!("{subject} is progressing.");
            let condition = NewCondition { kind: "Progressing", status: "True", reason: "ReplicaSetUpdated", message };
            conditions::replace(&mut self.status, &condition, self.world.now, "lastUpdateTime");
        } else if self.has_timed_out() {
            let why = self.cause().map(|cause| format!(" {}", cause.message)).unwrap_or_default();
            let message = format!("{subject} has timed out progressing.{why}");
            self.progressing("False", "ProgressDeadlineExceeded", message);
        } else if let Some(cause) = self.cause() {
            self.explain(cause);
        }
    }

    /// What keeps the new set's pods from becoming ready, if the deployment asks for that.
    fn cause(&self) -> Option<Cause> {
        let new = self.new.as_ref().filter(|_| self.is_on(beyond::EXPLAIN_ROLLOUT))?;
        let pods = self.world.controlled::<Pod>(id::POD, self.deployment.namespace(), new.uid());
        let refused = || {
            let failure = conditions::find(&status::of(&new.tree()), "ReplicaFailure").cloned()?;
            Some(Cause { reason: failure.str_at("reason").into(), message: failure.str_at("message").into() })
        };
        cause::find(self.world, &pods).or_else(refused)
    }

    /// The condition `Progressing` says why nothing goes on; the time until the deadline counts on from the last progress.
    fn explain(&mut self, cause: Cause) {
        let Some(before) = conditions::find(&self.status, "Progressing").cloned() else { return };
        if before.str_at("reason") == cause.reason && before.str_at("message") == cause.message {
            return;
        }
        if before.str_at("reason") != cause.reason {
            let note = EventNote::warning(&self.deployment.object, "RolloutBlocked", cause.message.as_str());
            self.events.push(note);
        }
        let mut after = before;
        after.insert("status", "True");
        after.insert("reason", cause.reason);
        after.insert("message", cause.message);
        conditions::push(&mut self.status, after);
    }

    /// `DeploymentProgressing`
    fn has_progressed(&self) -> bool {
        let (old, new) = (&self.status_before, &self.status);
        let count = |status: &Tree, field| status.i64_at(field).unwrap_or(0);
        let outdated = |status| count(status, "replicas") - count(status, "updatedReplicas");
        outdated(new) < outdated(old)
            || ["updatedReplicas", "readyReplicas", "availableReplicas"].iter().any(|f| count(new, f) > count(old, f))
    }

    /// `DeploymentTimedOut`
    fn has_timed_out(&self) -> bool {
        let Some(condition) = conditions::find(&self.status, "Progressing") else { return false };
        match condition.str_at("reason") {
            "NewReplicaSetAvailable" => false,
            "ProgressDeadlineExceeded" => true,
            _ => self.deadline(condition).is_some_and(|left| left < jiff::SignedDuration::ZERO),
        }
    }

    fn deadline(&self, condition: &Tree) -> Option<jiff::SignedDuration> {
        let updated = time::parse(condition.str_at("lastUpdateTime"))?;
        let seconds = self.deployment.spec.progress_deadline_seconds?;
        Some(jiff::SignedDuration::from_secs(seconds) - self.world.now.duration_since(updated))
    }

    /// When to look whether the deadline has passed (`requeueStuckDeployment`).
    pub(super) fn progress_check(&self) -> Option<Duration> {
        if !self.has_deadline() || self.deployment.spec.paused || self.is_complete(&self.status) {
            return None;
        }
        let condition = conditions::find(&self.status, "Progressing")?;
        if matches!(condition.str_at("reason"), "ProgressDeadlineExceeded" | "NewReplicaSetAvailable") {
            return None;
        }
        let left = Duration::try_from(self.deadline(condition)?).unwrap_or(Duration::ZERO);
        Some(left + Duration::from_secs(1))
    }
}
