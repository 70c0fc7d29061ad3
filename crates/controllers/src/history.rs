//! Revisions of a template as ControllerRevisions, for StatefulSet and DaemonSet (`pkg/controller/history`).

use std::sync::Arc;

use corten_kinds::id;
use corten_object::{LabelSelector, Object, ObjectKey};
use corten_tree::{Tree, tree};
use corten_views::ControllerRevision;

use crate::{Action, Plan, Typed, Verb, World, hash, owners};

/// Label of a DaemonSet's revisions and pods (the hash), and of a StatefulSet's pods (the revision's name).
pub const REVISION_HASH: &str = "controller-revision-hash";
/// Label of a StatefulSet's revisions.
pub const STATEFUL_HASH: &str = "controller.kubernetes.io/hash";

/// An owner's revisions, the oldest first.
pub struct History {
    /// All of them.
    pub revisions: Vec<Typed<ControllerRevision>>,
    /// Which is the present template's.
    pub update: usize,
}

/// What must happen before the history is as it should be.
pub enum Sync {
    /// Nothing.
    Ready(History),
    /// This, first.
    First(Plan),
}

/// The data of a revision of a template: a patch that brings it back.
fn data_of(template: &Tree) -> Tree {
    let mut template = template.clone();
    template.insert("$patch", "replace");
    tree!({"spec": {"template": (template)}})
}

/// The template in a revision's data.
pub fn template_of(revision: &Typed<ControllerRevision>) -> Tree {
    let mut template = revision.tree().path("data.spec.template").cloned().unwrap_or_else(Tree::map);
    template.remove("$patch");
    template
}

/// Brings the history up to date with the template of `owner`, whose tree is `tree`. `hash_label` gets the hash.
pub fn sync(
    world: &World<'_>,
    owner: &Arc<Object>,
    tree: &Tree,
    selector: &LabelSelector,
    collisions: Option<i64>,
    hash_label: &'static str,
) -> Sync {
    let claimed = owners::claim::<ControllerRevision>(world, owner, id::CONTROLLER_REVISION, selector, |_| true);
    if !claimed.actions.is_empty() {
        return Sync::First(Plan::of(claimed.actions));
    }
    let mut revisions = claimed.owned;
    revisions.retain(|r| !r.head().is_deleting());
    revisions.sort_by(|a, b| (a.revision, a.head().created, a.name()).cmp(&(b.revision, b.head().created, b.name())));
    let template = tree.path("spec.template").cloned().unwrap_or_else(Tree::map);
    let data = data_of(&template);
    let same = |r: &Typed<ControllerRevision>| r.tree().path("data").is_some_and(|d| d.semantically_equal(&data));
    let next = revisions.last().map_or(0, |r| r.revision) + 1;
    match revisions.iter().rposition(same) {
        Some(at) if at + 1 == revisions.len() => Sync::Ready(History { revisions, update: at }),
        // An older one again: it becomes the newest.
        Some(at) => Sync::First(Plan::of(vec![Action::patch(&revisions[at].object, tree!({"revision": (next)}))])),
        None => Sync::First(create(world, owner, tree, &template, data, next, collisions, hash_label)),
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one object, used once")]
fn create(
    world: &World<'_>,
    owner: &Arc<Object>,
    tree: &Tree,
    template: &Tree,
    mut data: Tree,
    revision: i64,
    collisions: Option<i64>,
    hash_label: &'static str,
) -> Plan {
    let suffix = hash::compute(template, collisions);
    // `ControllerRevisionName`: a name that is too long with its hash loses its end.
    const PREFIX_MAX: usize = 223;
    let prefix = owner.head.name.get(..PREFIX_MAX).unwrap_or(&owner.head.name);
    let name = format!("{prefix}-{suffix}");
    let key = ObjectKey::new(id::CONTROLLER_REVISION, &owner.head.namespace, &name);
    if world.state.get(&key).is_some() && collided(world, &key) {
        let count = collisions.unwrap_or(0) + 1;
        return Plan::of(vec![Action::patch_status(owner, tree!({"collisionCount": (count)}))]);
    }
    let mut labels = template.path("metadata.labels").cloned().unwrap_or_else(Tree::map);
    labels.insert(hash_label, suffix);
    let mut metadata = tree!({
        "labels": (labels),
        "ownerReferences": [(owners::controller_reference(world, owner))]
    });
    if let Some(annotations) = tree.path("metadata.annotations") {
        metadata.insert("annotations", annotations.clone());
    }
    // Clients compare it byte by byte with what they make of the template (`pkg/controller/daemon/update.go`, `Match`).
    data.sort_keys();
    let body = tree!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": (metadata),
        "data": (data),
        "revision": (revision)
    });
    Plan::of(vec![Action::create(key, body).while_alive(owner)])
}

/// Whether making this revision failed because another object has its name.
fn collided(world: &World<'_>, key: &ObjectKey) -> bool {
    let failed = |f: &crate::Failed| f.verb == Verb::Create && f.key == *key && f.status.is_already_exists();
    world.last.is_some_and(|o| o.failures.iter().any(failed))
}

/// Deletions of the oldest revisions beyond the limit; `live` says which are in use.
pub fn truncate(history: &History, limit: i64, live: impl Fn(&Typed<ControllerRevision>) -> bool) -> Vec<Action> {
    let idle: Vec<_> = history.revisions.iter().filter(|r| !live(r)).collect();
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    idle.into_iter().take(surplus).map(|r| Action::delete(&r.object)).collect()
}
