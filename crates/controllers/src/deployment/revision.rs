//! Revisions: which template was when, in annotations that `kubectl rollout` reads.

use corten_object::conditions;
use corten_tree::{Tree, tree};
use corten_views::meta::ObjectMeta;

use super::{Rollout, replicas};
use crate::{Action, Plan, beyond, names};

/// Annotations that a replica set does not take from its deployment.
const NOT_COPIED: &[&str] = &[
    names::LAST_APPLIED,
    names::REVISION,
    names::REVISION_HISTORY,
    names::DESIRED_REPLICAS,
    names::MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// How long the list of former revisions may become, in characters.
const HISTORY_MAX: usize = 2000;

/// The revision in an object's annotations; 0 if there is none.
pub(super) fn of(metadata: &ObjectMeta) -> i64 {
    metadata.annotations.get(names::REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// `deployment-hash`, within the length of a name.
pub(super) fn set_name(deployment: &str, suffix: &str) -> String {
    const NAME_MAX: usize = 253;
    let end = deployment.len().min(NAME_MAX - 1 - suffix.len());
    format!("{}-{suffix}", deployment.get(..end).unwrap_or(deployment))
}

impl Rollout<'_> {
    fn next_revision(&self) -> i64 {
        self.old.iter().map(|s| of(&s.metadata)).max().unwrap_or(0) + 1
    }

    /// The annotations of a set that is about to be made.
    pub(super) fn new_annotations(&self) -> Tree {
        let mut out = self.copied_annotations();
        out.insert(names::REVISION, self.next_revision().to_string());
        out.insert(names::DESIRED_REPLICAS, self.desired().to_string());
        out.insert(names::MAX_REPLICAS, (self.desired() + self.max_surge()).to_string());
        out
    }

    fn copied_annotations(&self) -> Tree {
        let mut out = Tree::map();
        for (key, value) in &self.deployment.metadata.annotations {
            if !NOT_COPIED.contains(&key.as_str()) && !beyond::is_kept(key) {
                out.insert(key.clone(), value.as_str());
            }
        }
        out
    }

    /// Brings the new set's annotations and `minReadySeconds`, and then the deployment's revision, up to date
    /// (`getNewReplicaSet`, `SetNewReplicaSetAnnotations`); `None` if they are.
    pub(super) fn sync_revision(&mut self) -> Option<Plan> {
        let new = self.new.clone()?;
        let mut changes = Tree::map();
        for (key, value) in self.copied_annotations().make_map().iter() {
            if new.metadata.annotations.get(key).map(String::as_str) != value.as_str() {
                changes.insert(key.to_owned(), value.clone());
            }
        }
        let (before, next) = (of(&new.metadata), self.next_revision());
        if before < next {
            changes.insert(names::REVISION, next.to_string());
            if new.metadata.annotations.contains_key(names::REVISION) {
                let history = new.metadata.annotations.get(names::REVISION_HISTORY).map_or("", String::as_str);
                if let Some(history) = longer_history(history, before) {
                    changes.insert(names::REVISION_HISTORY, history);
                }
            }
        }
        let seconds = self.deployment.spec.min_ready_seconds;
        let mut patch = Tree::map();
        if !changes.is_empty_value() {
            patch.set("metadata.annotations", changes);
        }
        if new.spec.min_ready_seconds != seconds {
            patch.set("spec.minReadySeconds", seconds);
        }
        if !patch.is_empty_value() {
            return Some(Plan::of(vec![Action::patch(&new.object, patch)]));
        }
        let revision = new.metadata.annotations.get(names::REVISION).cloned().unwrap_or_default();
        if self.deployment.metadata.annotations.get(names::REVISION) != Some(&revision) {
            let mut annotations = Tree::map();
            annotations.insert(names::REVISION, revision);
            let patch = tree!({"metadata": {"annotations": (annotations)}});
            return Some(Plan::of(vec![Action::patch(&self.deployment.object, patch)]));
        }
        if self.has_deadline() && conditions::find(&self.status, "Progressing").is_none() {
            self.progressing("True", "FoundNewReplicaSet", format!("Found new replica set \"{}\"", new.name()));
        }
        None
    }

    /// Whether the deployment's size was changed since its sets were last scaled (`isScalingEvent`).
    pub(super) fn is_scaling_event(&self) -> bool {
        self.all().filter(|s| replicas(s) > 0).any(|s| {
            let wanted = s.metadata.annotations.get(names::DESIRED_REPLICAS).and_then(|n| n.parse::<u32>().ok());
            wanted.is_some_and(|n| i64::from(n) != self.desired())
        })
    }
}

fn longer_history(history: &str, revision: i64) -> Option<String> {
    let revision = revision.to_string();
    if history.is_empty() {
        return Some(revision);
    }
    let mut rest = history;
    while rest.len() + revision.len() + 1 > HISTORY_MAX {
        rest = rest.split_once(',')?.1;
    }
    Some(format!("{rest},{revision}"))
}
