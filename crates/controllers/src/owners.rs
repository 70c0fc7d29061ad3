//! Adoption and release: which objects a controller's object owns (`pkg/controller/controller_ref_manager.go`).

use std::sync::Arc;

use corten_object::{KindId, LabelSelector, Object, OwnerReference, View};
use corten_tree::{Map, Tree, tree};

use crate::world::controlled;
use crate::{Action, Typed, World};

/// What is owned: which kind, by which labels, and which finalizer it has as long as it is (empty: none).
pub struct Owned<'o> {
    /// The kind of the objects.
    pub kind: KindId,
    /// Which of them.
    pub selector: &'o LabelSelector,
    /// The finalizer that comes with adoption and goes with release.
    pub finalizer: &'static str,
    /// Of which of its objects nothing is decided any more: they are its own, but not among those that are answered, and are not
    /// decoded.
    pub settled: &'o dyn Fn(&Object) -> bool,
}

/// What an owner owns.
pub struct Claimed<V> {
    /// Its objects: they have its reference and match its selector. Without those that are settled.
    pub owned: Vec<Typed<V>>,
    /// Adoptions and releases to do before anything else is decided; the next reconcile sees them done.
    pub actions: Vec<Action>,
}

/// The reference that makes `owner` the managing controller, as a tree.
pub fn controller_reference(world: &World<'_>, owner: &Object) -> Tree {
    reference(world, owner, true)
}

/// A reference to `owner`; with `controller` it is the managing one and blocks the owner's foreground deletion.
pub fn reference(world: &World<'_>, owner: &Object, controller: bool) -> Tree {
    let kind = world.state.registry().get(owner.kind);
    let mut out = tree!({
        "apiVersion": (kind.api_version()),
        "kind": (kind.kind.clone()),
        "name": (owner.head.name.as_str()),
        "uid": (owner.head.uid.as_str())
    });
    if controller {
        out.insert("controller", true);
        out.insert("blockOwnerDeletion", true);
    }
    out
}

/// A reference that is there already, as a tree.
pub fn reference_tree(reference: &OwnerReference) -> Tree {
    let mut out = Map::new();
    out.insert("apiVersion", reference.api_version.as_str());
    out.insert("kind", reference.kind.as_str());
    out.insert("name", reference.name.as_str());
    out.insert("uid", reference.uid.as_str());
    if reference.controller {
        out.insert("controller", true);
    }
    if reference.block_owner_deletion {
        out.insert("blockOwnerDeletion", true);
    }
    Tree::Map(out)
}

/// The list of an object's references, without those that `drop` names.
pub fn references_without(object: &Object, drop: impl Fn(&OwnerReference) -> bool) -> Tree {
    // The stored references may have a `blockOwnerDeletion: false`, which means the same as none.
    Tree::List(object.head.owners.iter().filter(|r| !drop(r)).map(reference_tree).collect())
}

/// Sorts a kind's objects in the owner's namespace into what it owns, adopts and releases.
pub fn claim<V: View>(
    world: &World<'_>,
    owner: &Arc<Object>,
    kind: KindId,
    selector: &LabelSelector,
    adoptable: impl Fn(&Typed<V>) -> bool,
) -> Claimed<V> {
    claim_owned(world, owner, &Owned { kind, selector, finalizer: "", settled: &|_| false }, adoptable)
}

/// Like [`claim`]; the finalizer is part of being owned.
pub fn claim_owned<V: View>(
    world: &World<'_>,
    owner: &Arc<Object>,
    owned: &Owned<'_>,
    adoptable: impl Fn(&Typed<V>) -> bool,
) -> Claimed<V> {
    let Owned { kind, selector, finalizer, settled } = *owned;
    let namespace = &owner.head.namespace;
    let mut claimed = Claimed { owned: Vec::new(), actions: Vec::new() };
    for object in controlled(world.state, kind, namespace, &owner.head.uid) {
        if selector.matches(&object.head.labels) {
            if !settled(object) {
                claimed.owned.extend(Typed::read(object));
            }
        } else if !owner.head.is_deleting() && !object.head.is_deleting() {
            claimed.actions.push(release(owner, object, finalizer));
        }
    }
    if owner.head.is_deleting() || selector.is_everything() {
        return claimed;
    }
    for object in controlled(world.state, kind, namespace, "") {
        if object.head.is_deleting() || !selector.matches(&object.head.labels) {
            continue;
        }
        if Typed::read(object).is_some_and(|typed| adoptable(&typed)) {
            claimed.actions.push(adopt(world, owner, object, finalizer));
        }
    }
    claimed
}

fn adopt(world: &World<'_>, owner: &Object, object: &Object, finalizer: &str) -> Action {
    let Tree::List(mut references) = references_without(object, |r| r.uid == owner.head.uid) else {
        unreachable!("references are a list")
    };
    references.push(controller_reference(world, owner));
    let mut metadata = tree!({"ownerReferences": (references)});
    if !finalizer.is_empty() && !object.head.finalizers.iter().any(|f| **f == *finalizer) {
        let mut finalizers = finalizers_without(object, finalizer);
        finalizers.push(Tree::from(finalizer));
        metadata.insert("finalizers", finalizers);
    }
    Action::patch(object, tree!({"metadata": (metadata)})).while_alive(owner)
}

fn release(owner: &Object, object: &Object, finalizer: &str) -> Action {
    let rest = references_without(object, |r| r.uid == owner.head.uid);
    let mut metadata = tree!({"ownerReferences": (rest)});
    if !finalizer.is_empty() && object.head.finalizers.iter().any(|f| **f == *finalizer) {
        metadata.insert("finalizers", finalizers_without(object, finalizer));
    }
    Action::patch(object, tree!({"metadata": (metadata)}))
}

/// An object's finalizers but this one, as trees.
pub fn finalizers_without(object: &Object, finalizer: &str) -> Vec<Tree> {
    object.head.finalizers.iter().filter(|f| ***f != *finalizer).map(|f| Tree::from(f.as_str())).collect()
}
