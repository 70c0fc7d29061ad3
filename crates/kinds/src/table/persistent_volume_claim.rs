//! PersistentVolumeClaim.

use corten_tree::{Tree, tree};

use super::persistent_volume::{access_modes, class, phase, quantity, text_or_unset};
use crate::defaults;
use crate::spec::{Hooks, KindSpec, Subresource};
use crate::validate::{Spot, pod_update, quantity as amount, resources, workload};
use crate::{Column, Of, RowContext, TextOr, column, wide};
use crate::{Errors, WriteContext};

/// `v1 PersistentVolumeClaim`
pub(crate) const PERSISTENT_VOLUME_CLAIM: KindSpec = KindSpec {
    kind: "PersistentVolumeClaim",
    returns_deleted: true,
    plural: "persistentvolumeclaims",
    short: &["pvc"],
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Status", &Of(phase)),
        column("Volume", &TextOr("spec.volumeName", "")),
        column("Capacity", &Of(|o, _| if_bound(o, |o| quantity(o, "status.capacity")))),
        column("Access Modes", &Of(|o, _| if_bound(o, |o| access_modes(o.list_at("status.accessModes"))))),
        column("StorageClass", &Of(class_or_empty)),
        column("VolumeAttributesClass", &Of(|o, _| text_or_unset(o, "spec.volumeAttributesClassName"))),
        Column::AGE,
        wide("VolumeMode", &Of(|o, _| text_or_unset(o, "spec.volumeMode"))),
    ],
    counting: crate::quota::Counting::Evaluated(&crate::quota::VOLUME_CLAIMS),
    served_by: Some("controllers"),
    hooks: Hooks {
        default: Some(default),
        prepare_create: Some(prepare_create),
        validate: Some(validate),
        validate_update: Some(validate_update),
        validate_status: Some(validate_status),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

fn if_bound(claim: &Tree, cell: fn(&Tree) -> Tree) -> Tree {
    if claim.str_at("spec.volumeName").is_empty() { Tree::from("") } else { cell(claim) }
}

fn class_or_empty(claim: &Tree, context: &RowContext) -> Tree {
    class(claim, context)
}

fn default(claim: &mut Tree) {
    defaults::text(claim, "status.phase", "Pending");
    defaults::claim_spec(claim);
    for list in ["status.capacity", "status.allocatedResources"] {
        defaults::resource_list(claim, list);
    }
}

fn prepare_create(claim: &mut Tree, _: &WriteContext) {
    claim.set("status", tree!({"phase": "Pending"}));
    // dataSource and dataSourceRef mean the same object.
    let (source, reference) = (claim.path("spec.dataSource").cloned(), claim.path("spec.dataSourceRef").cloned());
    match (source, reference) {
        (Some(source), None) => claim.set("spec.dataSourceRef", source),
        (None, Some(reference)) if reference.str_at("namespace").is_empty() => claim.set("spec.dataSource", reference),
        _ => {}
    }
}

fn validate(claim: &Tree, errors: &mut Errors) {
    workload::claim_spec(&Spot::of(claim, "spec"), errors);
}

/// `ValidatePersistentVolumeClaimUpdate`: a bound claim may grow, all else of the spec stays.
fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let spec = Spot::of(new, "spec");
    let mut munged = spec.tree.clone();
    let before = old.path("spec").cloned().unwrap_or_default();
    let mut keep = |field: &str| match before.path(field) {
        Some(value) => munged.set(field, value.clone()),
        None => drop(munged.remove(field)),
    };
    if before.str_at("volumeName").is_empty() {
        keep("volumeName");
    }
    if before.path("storageClassName").is_none() {
        keep("storageClassName");
    }
    if new.str_at("status.phase") == "Bound" {
        keep("resources.requests.storage");
        keep("volumeAttributesClassName");
    }
    if !munged.semantically_equal(&before) {
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
            pod_update::difference(&before, &munged)
        );
        spec.forbidden("", detail, errors);
    }
    let size = |tree: &Tree, list: &str| tree.map_at(list).get("storage").and_then(amount);
    let (now, was) = (size(new, "spec.resources.requests"), size(old, "spec.resources.requests"));
    if let (Some(now), Some(was)) = (now, was)
        && now < was
        && size(old, "status.capacity").is_none_or(|capacity| now <= capacity)
    {
        spec.forbidden("resources.requests.storage", "field can not be less than status.capacity", errors);
    }
}

fn validate_status(new: &Tree, _: &Tree, errors: &mut Errors) {
    let status = Spot::of(new, "status");
    for list in ["capacity", "allocatedResources"] {
        let capacity = status.child(list);
        for (name, value) in capacity.map("").iter() {
            if let Some(value_amount) = amount(value) {
                let at = Spot::at(value, capacity.path.key(name));
                resources::quantity_value(&at, name, &value_amount, errors);
            }
        }
    }
}
