//! Claims of a StatefulSet's pods: making them, and who owns them (`persistentVolumeClaimRetentionPolicy`).

use std::sync::Arc;

use corten_kinds::id;
use corten_object::{Object, ObjectKey, OwnerReference};
use corten_tree::{Tree, tree};
use corten_views::{PersistentVolumeClaim, Pod, Quantity, StatefulSet};

use super::identity::claim_name;
use crate::{Action, EventNote, Typed, World, beyond, owners};

/// What a pod needs of its claims.
pub(super) enum Claims {
    /// They are all there, or will be after these creations.
    Ready(Vec<Action>),
    /// One is being deleted: the pod must wait.
    Ending,
}

/// The claims of an ordinal.
pub(super) fn of(world: &World<'_>, set: &Typed<StatefulSet>, tree: &Tree, ordinal: i64) -> Claims {
    let policy = set.spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
    let pod = format!("{}-{ordinal}", set.name());
    // A claim that a former pod of the name owns goes with it, soon (`PodClaimIsStale`).
    let is_stale = |claim: &Object| {
        policy.when_scaled == "Delete"
            && !world.state.get(&ObjectKey::new(id::POD, set.namespace(), &pod)).is_some_and(|p| owns(p, claim))
            && claim.head.owners.iter().any(|r| is_ref(r, "v1", "Pod", &pod))
    };
    let mut missing = Vec::new();
    for template in tree.list_at("spec.volumeClaimTemplates") {
        let name = claim_name(template.str_at("metadata.name"), set.name(), ordinal);
        let key = ObjectKey::new(id::PERSISTENT_VOLUME_CLAIM, set.namespace(), &name);
        match world.state.get(&key) {
            Some(claim) if claim.head.is_deleting() || is_stale(claim) => return Claims::Ending,
            Some(_) => {}
            None => missing.push(create(set, tree, template, key, ordinal)),
        }
    }
    Claims::Ready(missing)
}

/// Whether a reference names this object, by whatever uid (`matchesRef`).
fn is_ref(reference: &OwnerReference, api_version: &str, kind: &str, name: &str) -> bool {
    *reference.api_version == *api_version && *reference.kind == *kind && *reference.name == *name
}

fn owns(owner: &Object, claim: &Object) -> bool {
    claim.head.owners.iter().any(|r| r.uid == owner.head.uid)
}

fn create(set: &Typed<StatefulSet>, tree: &Tree, template: &Tree, key: ObjectKey, ordinal: i64) -> Action {
    let mut metadata = Tree::map();
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.at(&["metadata", field]).filter(|v| !v.is_empty_value()) {
            metadata.set(field, value.clone());
        }
    }
    let mut labels = metadata.get("labels").cloned().unwrap_or_else(Tree::map);
    for (name, value) in tree.map_at("spec.selector.matchLabels").iter() {
        labels.insert(name.to_owned(), value.clone());
    }
    metadata.insert("labels", labels);
    let body = tree!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": (metadata),
        "spec": (template.path("spec").cloned().unwrap_or_else(Tree::map))
    });
    let pod = format!("{}-{ordinal}", set.name());
    let done = format!("Create Claim {} Pod {pod} in StatefulSet {} success", key.name, set.name());
    let failed = format!("Create Claim {} for Pod {pod} in StatefulSet {} failed error: ", key.name, set.name());
    Action::create(key, body)
        .on_success(EventNote::normal(&set.object, "SuccessfulCreate", done))
        .on_failure(EventNote::warning(&set.object, "FailedCreate", failed))
}

/// The writes that let the claims of an ordinal grow to what the templates request, for sets that ask for it.
pub(super) fn grow(world: &World<'_>, set: &Typed<StatefulSet>, tree: &Tree, ordinal: i64) -> Vec<Action> {
    if !beyond::is_on(&set.metadata, beyond::GROW_CLAIMS) {
        return Vec::new();
    }
    const STORAGE: &str = "spec.resources.requests.storage";
    let quantity = |tree: &Tree| tree.path(STORAGE).and_then(Tree::as_str).and_then(Quantity::parse);
    let one = |template: &Tree| {
        let name = claim_name(template.str_at("metadata.name"), set.name(), ordinal);
        let claim = world.state.find(id::PERSISTENT_VOLUME_CLAIM, set.namespace(), &name)?;
        let (wanted, there) = (quantity(template)?, quantity(&claim.to_tree())?);
        if there >= wanted || claim.head.is_deleting() {
            return None;
        }
        let mut patch = tree!({});
        patch.set(STORAGE, wanted.as_str());
        let done = format!("Grow Claim {name} in StatefulSet {} from {there} to {wanted}", set.name());
        let failed = format!("Grow Claim {name} in StatefulSet {} failed error: ", set.name());
        let action = Action::patch(claim, patch)
            .on_success(EventNote::normal(&set.object, "SuccessfulUpdate", done))
            .on_failure(EventNote::warning(&set.object, "FailedUpdate", failed));
        Some(action)
    };
    tree.list_at("spec.volumeClaimTemplates").iter().filter_map(one).collect()
}

/// The writes that make the set or the pod own the claims, and what to tell of them.
#[derive(Default)]
pub(super) struct Owned {
    /// The writes.
    pub actions: Vec<Action>,
    /// What stands in the way.
    pub events: Vec<EventNote>,
}

/// Makes the set or the pod own the claims of an ordinal, as the policy says (`updateClaimOwnerRefForSetAndPod`).
pub(super) fn own(
    world: &World<'_>,
    set: &Typed<StatefulSet>,
    pod: &Typed<Pod>,
    ordinal: i64,
    in_range: bool,
) -> Owned {
    let policy = set.spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
    let (when_deleted, when_scaled) = (policy.when_deleted == "Delete", policy.when_scaled == "Delete");
    let owner: Option<&Arc<Object>> = match (when_scaled, when_deleted) {
        (true, _) if !in_range => Some(&pod.object),
        (_, true) => Some(&set.object),
        _ => None,
    };
    let mut owned = Owned::default();
    for template in &set.spec.volume_claim_templates {
        let name = claim_name(&template.metadata.name, set.name(), ordinal);
        let claim = world.find::<PersistentVolumeClaim>(id::PERSISTENT_VOLUME_CLAIM, set.namespace(), &name);
        let Some(claim) = claim else { continue };
        let others = (when_scaled || when_deleted) && has_other_controller(set, pod, &claim);
        let Some(action) = own_one(world, set, pod, &claim, owner.filter(|_| !others)) else { continue };
        owned.actions.push(action);
        if others {
            let text = format!(
                "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, the \
                 retention policy is ignored for this claim"
            );
            owned.events.push(EventNote::warning(&set.object, "ConflictingController", text));
        }
    }
    owned
}

/// Whether someone else than the set and the pod manages a claim (`hasUnexpectedController`).
fn has_other_controller(set: &Typed<StatefulSet>, pod: &Typed<Pod>, claim: &Typed<PersistentVolumeClaim>) -> bool {
    claim.head().owners.iter().any(|r| r.controller && r.uid != *set.uid() && r.uid != *pod.uid())
}

fn own_one(
    world: &World<'_>,
    set: &Typed<StatefulSet>,
    pod: &Typed<Pod>,
    claim: &Typed<PersistentVolumeClaim>,
    owner: Option<&Arc<Object>>,
) -> Option<Action> {
    let ours = |uid: &str| uid == set.uid() || uid == pod.uid();
    let references = &claim.head().owners;
    // Of a former set or pod of the same name: the garbage collector's to look after.
    let stale = |r: &OwnerReference| {
        !ours(&r.uid) && (is_ref(r, "apps/v1", "StatefulSet", set.name()) || is_ref(r, "v1", "Pod", pod.name()))
    };
    if references.iter().any(stale) {
        return None;
    }
    let wanted = owner.map(|o| o.head.uid.as_str());
    let present: Vec<_> = references.iter().filter(|r| ours(&r.uid)).collect();
    let right = match wanted {
        None => present.is_empty(),
        Some(uid) => present.len() == 1 && present[0].uid == *uid && present[0].controller,
    };
    if right {
        return None;
    }
    let Tree::List(mut rest) = owners::references_without(&claim.object, |r| ours(&r.uid)) else { return None };
    rest.extend(owner.map(|o| owners::controller_reference(world, o)));
    Some(Action::patch(&claim.object, tree!({"metadata": {"ownerReferences": (rest)}})))
}
