//! PersistentVolume.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Hooks, KindSpec, Subresource};
use crate::{Column, Of, RowContext, TextOr, column, print, wide};

/// `v1 PersistentVolume`
pub(crate) const PERSISTENT_VOLUME: KindSpec = KindSpec {
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    short: &["pv"],
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Capacity", &Of(|o, _| quantity(o, "spec.capacity"))),
        column("Access Modes", &Of(|o, _| access_modes(o.list_at("spec.accessModes")))),
        column("Reclaim Policy", &TextOr("spec.persistentVolumeReclaimPolicy", "")),
        column("Status", &Of(phase)),
        column("Claim", &Of(claim)),
        column("StorageClass", &Of(class)),
        column("VolumeAttributesClass", &Of(|o, _| text_or_unset(o, "spec.volumeAttributesClassName"))),
        column("Reason", &TextOr("status.reason", "")),
        Column::AGE,
        wide("VolumeMode", &Of(|o, _| text_or_unset(o, "spec.volumeMode"))),
    ],
    served_by: Some("controllers"),
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

/// The `storage` quantity of a resource map; an absent one prints as Go's zero quantity.
pub(super) fn quantity(object: &Tree, path: &str) -> Tree {
    Tree::from(object.map_at(path).get("storage").map_or_else(|| "0".to_owned(), print::plain))
}

/// Short names of access modes, each once, in upstream's order (`pkg/apis/core/helper.GetAccessModesAsString`).
pub(super) fn access_modes(modes: &[Tree]) -> Tree {
    let has = |long: &str| modes.iter().any(|m| m.as_str() == Some(long));
    let all =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    Tree::from(all.iter().filter(|(long, _)| has(long)).map(|(_, short)| *short).collect::<Vec<_>>().join(","))
}

/// The phase, or Terminating.
pub(super) fn phase(object: &Tree, _: &RowContext) -> Tree {
    let deleting = object.path("metadata.deletionTimestamp").is_some();
    Tree::from(if deleting { "Terminating" } else { object.str_at("status.phase") })
}

/// The class, from the old annotation or the field.
pub(super) fn class(object: &Tree, _: &RowContext) -> Tree {
    match object.at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]) {
        Some(class) => class.clone(),
        None => Tree::from(object.str_at("spec.storageClassName")),
    }
}

/// The text at a path, `<unset>` if there is none.
pub(super) fn text_or_unset(object: &Tree, path: &str) -> Tree {
    object.path(path).cloned().unwrap_or_else(|| Tree::from("<unset>"))
}

fn claim(volume: &Tree, _: &RowContext) -> Tree {
    match volume.path("spec.claimRef") {
        Some(claim) => Tree::from(format!("{}/{}", claim.str_at("namespace"), claim.str_at("name"))),
        None => Tree::from(""),
    }
}

fn default(volume: &mut Tree) {
    defaults::text(volume, "status.phase", "Pending");
    defaults::text(volume, "spec.persistentVolumeReclaimPolicy", "Retain");
    volume.set_default("spec.volumeMode", "Filesystem");
    defaults::resource_list(volume, "spec.capacity");
    defaults::at(volume, "spec.hostPath", |path| defaults::value(path, "type", ""));
    defaults::at(volume, "spec.iscsi", |iscsi| defaults::text(iscsi, "iscsiInterface", "default"));
}
