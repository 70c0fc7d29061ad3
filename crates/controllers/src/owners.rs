//! Adoption and release: which objects a controller's object owns (`pkg/controller/controller_ref_manager.go`).

use std::sync::Arc;

use corten_object::{KindId, LabelSelector, Object, OwnerReference, View};
use corten_tree::{Map, Tree, tree};

use crate::world::controlled;
use crate::{Action, Typed, World};

/// What an owner owns.
pub struct Claimed<V> {
    /// Its objects: they have its reference and match its selector.
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
    let namespace = &owner.head.namespace;
    let mut claimed = Claimed { owned: Vec::new(), actions: Vec::new() };
    for object in controlled(world.state, kind, namespace, &owner.head.uid) {
        if selector.matches(&object.head.labels) {
            claimed.owned.extend(Typed::read(object));
        } else if !owner.head.is_deleting() && !object.head.is_deleting() {
            claimed.actions.push(release(owner, object));
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
            claimed.actions.push(adopt(world, owner, object));
        }
    }
    claimed
}

fn adopt(world: &World<'_>, owner: &Object, object: &Object) -> Action {
    let Tree::List(mut references) = references_without(object, |r| r.uid == owner.head.uid) else {
        unreachable!("references are a list")
    };
    references.push(controller_reference(world, owner));
    Action::patch(object, tree!({"metadata": {"ownerReferences": (references)}})).while_alive(owner)
}

fn release(owner: &Object, object: &Object) -> Action {
    let rest = references_without(object, |r| r.uid == owner.head.uid);
    Action::patch(object, tree!({"metadata": {"ownerReferences": (rest)}}))
}
