//! Back to what worked (Corten's own: `corten.dev/auto-rollback`).

use corten_object::conditions;
use corten_tree::{Tree, tree};

use super::Rollout;
use crate::beyond::{AUTO_ROLLBACK, COMPLETE_SET, ROLLED_BACK_FROM};
use crate::{Action, EventNote, Plan, names, status};

impl Rollout<'_> {
    /// Notes the set with which the deployment is complete, so that it is known what to return to; only when nothing else is
    /// to be written to the deployment.
    pub(super) fn note_complete(&self) -> Option<Action> {
        let new = self.new.as_ref().filter(|_| self.is_on(AUTO_ROLLBACK) && self.is_complete(&self.status))?;
        let noted = self.deployment.metadata.annotations.get(COMPLETE_SET);
        let annotations = tree!({COMPLETE_SET: (new.name())});
        (noted.map(String::as_str) != Some(new.name()))
            .then(|| Action::patch(&self.deployment.object, tree!({"metadata": {"annotations": (annotations)}})))
    }

    /// Once the rollout has run out of time: the template of the last complete set is the deployment's again.
    pub(super) fn roll_back(&self) -> Option<Plan> {
        if !self.is_on(AUTO_ROLLBACK) || self.deployment.spec.paused {
            return None;
        }
        let progressing = conditions::find(&self.status_before, "Progressing")?;
        let failed = progressing.str_at("reason") == "ProgressDeadlineExceeded"
            && self.deployment.status.observed_generation == self.deployment.head().generation;
        let complete = self.deployment.metadata.annotations.get(COMPLETE_SET).filter(|_| failed)?;
        let set = self.old.iter().find(|set| set.name() == complete)?;
        let mut wanted = set.tree().path("spec.template").cloned()?;
        if let Some(labels) = wanted.path_mut("metadata.labels").and_then(Tree::as_map_mut) {
            labels.remove(names::POD_TEMPLATE_HASH);
        }
        let before = self.tree.path("spec.template").cloned().unwrap_or_default();
        let change = status::diff(&before, &wanted)?;
        let from = self.new.as_ref().map_or_else(String::new, |new| new.name().to_owned());
        let mut patch = tree!({"metadata": {"annotations": {ROLLED_BACK_FROM: (from.as_str())}}});
        patch.set("spec.template", change);
        let why = progressing.str_at("message");
        let name = self.deployment.name();
        let message = format!("Rolled back deployment \"{name}\" from replica set {from} to {complete}: {why}");
        let note = EventNote::warning(&self.deployment.object, "DeploymentRollback", message);
        Some(Plan::of(vec![Action::patch(&self.deployment.object, patch).on_success(note)]))
    }
}
