//! PersistentVolumeClaim.

use corten_tree::Tree;

use super::persistent_volume::{access_modes, class, phase, quantity, text_or_unset};
use crate::defaults;
use crate::spec::{Hooks, KindSpec, Subresource};
use crate::{Column, Of, RowContext, TextOr, column, wide};

/// `v1 PersistentVolumeClaim`
pub(crate) const PERSISTENT_VOLUME_CLAIM: KindSpec = KindSpec {
    kind: "PersistentVolumeClaim",
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
    served_by: Some("controllers"),
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
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
