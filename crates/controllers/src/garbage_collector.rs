//! Garbage collection: what becomes of objects whose owners go (`pkg/controller/garbagecollector`).
//!
//! Over all kinds, by owner references alone. Upstream keeps a graph; here the cache's owner index and uid index are the
//! graph, at one revision, so an owner that is not there is certainly gone.

use std::sync::Arc;

use corten_kinds::Scope;
use corten_object::{Object, OwnerReference};
use corten_tree::{Tree, tree};

use crate::{Action, Changed, Controller, EventNote, Key, Plan, Wake, Watch, World, Write, owners};

/// The controller.
pub struct GarbageCollector;

/// The finalizer of an object whose dependents go first.
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents stay.
const ORPHAN: &str = "orphan";

const WATCHES: &[Watch] = &[Watch { kind: None, wake: Wake::By(wake) }];

fn wake(change: &Changed<'_>, out: &mut Vec<Key>) {
    let object = change.object();
    let head = &object.head;
    let Some(new) = change.new else {
        // Its dependents have lost it, and its owners may wait for it.
        out.extend(change.state.by_owner(&head.uid).map(|o| o.key()));
        wake_owners(change, object, out);
        return;
    };
    let collecting = has_finalizer(new, FOREGROUND) || has_finalizer(new, ORPHAN);
    let same = change.old.is_some_and(|old| {
        old.head.owners == head.owners && old.head.deleted == head.deleted && old.head.finalizers == head.finalizers
    });
    if same || (head.owners.is_empty() && change.old.is_none_or(|o| o.head.owners.is_empty()) && !collecting) {
        return;
    }
    out.push(new.key());
    wake_owners(change, new, out);
    if let Some(old) = change.old.filter(|old| old.head.owners != head.owners) {
        wake_owners(change, old, out);
    }
    if head.is_deleting() && collecting {
        out.extend(change.state.by_owner(&head.uid).map(|o| o.key()));
    }
}

/// Owners that are being deleted in the foreground may be done.
fn wake_owners(change: &Changed<'_>, object: &Object, out: &mut Vec<Key>) {
    let owners = object.head.owners.iter().filter_map(|r| change.state.by_uid(&r.uid));
    out.extend(owners.filter(|o| o.head.is_deleting()).map(|o| o.key()));
}

fn has_finalizer(object: &Object, name: &str) -> bool {
    object.head.finalizers.iter().any(|f| *f == *name)
}

/// Whether an object waits for its dependents.
fn waits(object: &Object) -> bool {
    object.head.is_deleting() && has_finalizer(object, FOREGROUND)
}

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    fn component(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn user(&self) -> String {
        String::from("system:serviceaccount:kube-system:generic-garbage-collector")
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(object) = world.state.get(key) else { return Plan::empty() };
        if object.head.is_deleting() {
            if has_finalizer(object, ORPHAN) {
                return orphan_dependents(world, object);
            }
            if has_finalizer(object, FOREGROUND) {
                return delete_dependents(world, object);
            }
            return Plan::empty();
        }
        collect(world, object)
    }
}

/// How an owner stands, seen from a dependent.
#[derive(PartialEq, Clone, Copy)]
enum Standing {
    /// It is there (or of a kind that nobody knows, so nobody can tell).
    Solid,
    /// It is gone.
    Dangling,
    /// It waits for its dependents to go.
    Waiting,
}

fn standing(world: &World<'_>, object: &Object, reference: &OwnerReference) -> Standing {
    let Some(kind) = world.state.registry().gvk(&reference.api_version, &reference.kind) else {
        return Standing::Solid;
    };
    let found = world.state.by_uid(&reference.uid).filter(|owner| {
        let near = kind.scope == Scope::Cluster || owner.head.namespace == object.head.namespace;
        owner.kind == kind.id && owner.head.name == reference.name && near
    });
    match found {
        None => Standing::Dangling,
        Some(owner) if waits(owner) => Standing::Waiting,
        Some(_) => Standing::Solid,
    }
}

/// `attemptToDeleteItem`
fn collect(world: &World<'_>, object: &Arc<Object>) -> Plan {
    let references = &object.head.owners;
    if references.is_empty() {
        return Plan::empty();
    }
    let mut plan = decide(world, object, references);
    if !plan.stages.is_empty() {
        plan.events.extend(references.iter().filter_map(|r| misplaced(world, object, r)));
    }
    plan
}

/// Tells people that an owner is in another namespace, where it cannot own this object (`reportInvalidNamespaceOwnerRef`).
fn misplaced(world: &World<'_>, object: &Arc<Object>, reference: &OwnerReference) -> Option<EventNote> {
    let owner = world.state.by_uid(&reference.uid)?;
    let (own, its) = (&object.head.namespace, &owner.head.namespace);
    if its.is_empty() || own == its {
        return None;
    }
    let OwnerReference { api_version, kind, name, uid, .. } = reference;
    let shown = format!("[{api_version}/{kind}, namespace: {own}, name: {name}, uid: {uid}]");
    let message = format!("ownerRef {shown} does not exist in namespace {own:?}");
    Some(EventNote::warning(object, "OwnerRefInvalidNamespace", message))
}

fn decide(world: &World<'_>, object: &Arc<Object>, references: &[OwnerReference]) -> Plan {
    let standings: Vec<Standing> = references.iter().map(|r| standing(world, object, r)).collect();
    let any = |standing| standings.contains(&standing);
    if any(Standing::Solid) {
        if standings.iter().all(|s| *s == Standing::Solid) {
            return Plan::empty();
        }
        let solid = |r: &OwnerReference| {
            let at = references.iter().position(|x| x.uid == r.uid);
            at.is_some_and(|at| standings[at] == Standing::Solid)
        };
        return Plan::of(vec![keep_owners(object, solid)]);
    }
    let dependents: Vec<_> = world.state.by_owner(&object.head.uid).collect();
    let blocked = any(Standing::Waiting) && !dependents.is_empty();
    if blocked && dependents.iter().any(|d| waits(d)) && references.iter().any(|r| r.block_owner_deletion) {
        // A circle: everyone in it would wait for the others. This one's owners wait for it no longer.
        return Plan::of(vec![unblock(object)]);
    }
    let policy = if blocked { "Foreground" } else { policy_of(object) };
    // Only as it was seen: a new owner may just have been added.
    let write = Write::Delete {
        key: object.key(),
        uid: object.head.uid.to_string(),
        revision: Some(object.head.revision),
        propagation: policy,
        grace_seconds: None,
    };
    Plan::of(vec![write.into()])
}

/// What the object's own finalizers ask for.
fn policy_of(object: &Object) -> &'static str {
    if has_finalizer(object, ORPHAN) {
        "Orphan"
    } else if has_finalizer(object, FOREGROUND) {
        "Foreground"
    } else {
        "Background"
    }
}

fn keep_owners(object: &Object, keep: impl Fn(&OwnerReference) -> bool) -> Action {
    let rest = owners::references_without(object, |r| !keep(r));
    Action::patch(object, tree!({"metadata": {"ownerReferences": (rest)}}))
}

/// Takes `blockOwnerDeletion` off all references (`unblockOwnerReferencesStrategicMergePatch`).
fn unblock(object: &Object) -> Action {
    let free = |reference: &OwnerReference| {
        owners::reference_tree(&OwnerReference { block_owner_deletion: false, ..reference.clone() })
    };
    let references: Vec<Tree> = object.head.owners.iter().map(free).collect();
    Action::patch(object, tree!({"metadata": {"ownerReferences": (references)}}))
}

/// Dependents lose the reference, then the object its finalizer.
fn orphan_dependents(world: &World<'_>, object: &Object) -> Plan {
    let dependents = world.state.by_owner(&object.head.uid);
    let mut plan = Plan::of(dependents.map(|d| keep_owners(d, |r| r.uid != object.head.uid)).collect());
    if plan.stages.is_empty() {
        plan.stage([without_finalizer(object, ORPHAN)]);
    }
    plan
}

/// Waits for the dependents that block; each of them is collected under its own key.
fn delete_dependents(world: &World<'_>, object: &Object) -> Plan {
    let blocks = |d: &Object| d.head.owners.iter().any(|r| r.uid == object.head.uid && r.block_owner_deletion);
    let mut dependents = world.state.by_owner(&object.head.uid);
    if dependents.any(|d| blocks(d)) {
        return Plan::empty();
    }
    Plan::of(vec![without_finalizer(object, FOREGROUND)])
}

fn without_finalizer(object: &Object, name: &str) -> Action {
    let rest = object.head.finalizers.iter().filter(|f| **f != *name);
    let rest: Vec<Tree> = rest.map(|f| Tree::from(f.as_str())).collect();
    Action::patch(object, tree!({"metadata": {"finalizers": (rest)}}))
}
