//! The small kinds of `storage.k8s.io`.

use corten_tree::Tree;

use crate::Errors;
use crate::print;
use crate::spec::{Hooks, KindSpec, Subresource};
use crate::validate::{Spot, names};
use crate::{Column, Count, Of, RowContext, TextOr, column};

const GROUP: &str = "storage.k8s.io";

/// `storage.k8s.io/v1 CSIDriver`
pub(crate) const CSI_DRIVER: KindSpec = KindSpec {
    group: GROUP,
    kind: "CSIDriver",
    returns_deleted: true,
    unconditional_update: false,
    plural: "csidrivers",
    columns: &[
        Column::NAME,
        column("AttachRequired", &Of(|o, _| flag(o, "spec.attachRequired", true))).boolean(),
        column("PodInfoOnMount", &Of(|o, _| flag(o, "spec.podInfoOnMount", false))).boolean(),
        column("StorageCapacity", &Of(|o, _| flag(o, "spec.storageCapacity", false))).boolean(),
        column("TokenRequests", &Of(token_requests)),
        column("RequiresRepublish", &Of(|o, _| flag(o, "spec.requiresRepublish", false))).boolean(),
        column("Modes", &Of(modes)),
        Column::AGE,
    ],
    hooks: Hooks { default: Some(driver_default), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

/// `storage.k8s.io/v1 CSINode`
pub(crate) const CSI_NODE: KindSpec = KindSpec {
    group: GROUP,
    kind: "CSINode",
    returns_deleted: true,
    unconditional_update: false,
    plural: "csinodes",
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
    columns: &[Column::NAME, column("Drivers", &Count("spec.drivers")).integer(), Column::AGE],
    ..KindSpec::CLUSTER
};

/// `storage.k8s.io/v1 CSIStorageCapacity`
pub(crate) const CSI_STORAGE_CAPACITY: KindSpec = KindSpec {
    group: GROUP,
    kind: "CSIStorageCapacity",
    unconditional_update: false,
    plural: "csistoragecapacities",
    columns: &[
        Column::NAME,
        column("StorageClassName", &TextOr("storageClassName", "")),
        column("Capacity", &TextOr("capacity", "<unset>")),
    ],
    ..KindSpec::NAMESPACED
};

/// `storage.k8s.io/v1 VolumeAttachment`
pub(crate) const VOLUME_ATTACHMENT: KindSpec = KindSpec {
    group: GROUP,
    kind: "VolumeAttachment",
    returns_deleted: true,
    unconditional_update: false,
    plural: "volumeattachments",
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
    columns: &[
        Column::NAME,
        column("Attacher", &TextOr("spec.attacher", "")).format("name"),
        column("PV", &TextOr("spec.source.persistentVolumeName", "")),
        column("Node", &TextOr("spec.nodeName", "")),
        column("Attached", &Of(|o, _| flag(o, "status.attached", false))).boolean(),
        Column::AGE,
    ],
    ..KindSpec::CLUSTER
};

/// `storage.k8s.io/v1 VolumeAttributesClass`
pub(crate) const VOLUME_ATTRIBUTES_CLASS: KindSpec = KindSpec {
    group: GROUP,
    kind: "VolumeAttributesClass",
    returns_deleted: true,
    plural: "volumeattributesclasses",
    short: &["vac"],
    columns: &[Column::NAME, column("DriverName", &TextOr("driverName", "")), Column::AGE],
    hooks: Hooks {
        validate: Some(attributes_validate),
        validate_update: Some(attributes_validate_update),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

fn flag(object: &Tree, path: &str, default: bool) -> Tree {
    Tree::Bool(object.path(path).and_then(Tree::as_bool).unwrap_or(default))
}

fn token_requests(driver: &Tree, _: &RowContext) -> Tree {
    match driver.path("spec.tokenRequests").and_then(Tree::as_list) {
        Some(requests) => print::joined_field(requests, "audience"),
        None => Tree::from("<unset>"),
    }
}

fn modes(driver: &Tree, _: &RowContext) -> Tree {
    let modes = print::joined(driver.list_at("spec.volumeLifecycleModes"), ",");
    Tree::from(if modes.is_empty() { "<none>".to_owned() } else { modes })
}

/// `SetDefaults_CSIDriver`.
fn driver_default(driver: &mut Tree) {
    driver.set_default("spec.attachRequired", true);
    driver.set_default("spec.fsGroupPolicy", "ReadWriteOnceWithFSType");
    for flag in
        ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount", "preventPodSchedulingIfMissing"]
    {
        driver.set_default(&format!("spec.{flag}"), false);
    }
    if driver.list_at("spec.volumeLifecycleModes").is_empty() {
        driver.set("spec.volumeLifecycleModes", vec!["Persistent"]);
    }
}

/// `ValidateVolumeAttributesClass` (`pkg/apis/storage/validation/validation.go`)
fn attributes_validate(class: &Tree, errors: &mut Errors) {
    let driver = Spot::of(class, "driverName");
    match driver.str("") {
        "" => driver.required("", "", errors),
        name => driver.each("", names::label_key(&name.to_lowercase()), errors),
    }
    let parameters = Spot::of(class, "parameters");
    if parameters.map("").is_empty() {
        parameters.required("", "must contain at least one key/value pair", errors);
    }
    if parameters.map("").keys().any(str::is_empty) {
        parameters.invalid_as("", "", "field can not be empty.", errors);
    }
}

fn attributes_validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    for field in ["driverName", "parameters"] {
        let (new, old) = (Spot::of(new, field), Spot::of(old, field));
        if !new.tree.semantically_equal(old.tree) {
            new.forbidden("", format!("updates to {field} are forbidden."), errors);
        }
    }
}
