//! The small kinds of `storage.k8s.io`.

use corten_tree::Tree;

use crate::Errors;
use crate::print;
use crate::spec::{Hooks, KindSpec, Subresource};
use crate::validate::{Spot, names};
use crate::{Column, Of, TextOr, column};

const GROUP: &str = "storage.k8s.io";

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
        column("Attached", &Of(|o, _| print::flag(o, "status.attached", false))).boolean(),
        Column::AGE,
    ],
    hooks: Hooks {
        validate: Some(attachment_validate),
        validate_status: Some(|new, _, errors| attachment_validate(new, errors)),
        ..Hooks::NONE
    },
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
        validate_create: Some(attributes_validate),
        validate_update: Some(attributes_validate_update),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

/// The most bytes of an attachment's metadata, and of an error's message.
const METADATA_BYTES_MAX: usize = 256 << 10;
const MESSAGE_BYTES_MAX: usize = 1024;

/// `ValidateVolumeAttachment`; what the types declare comes from the schema table.
fn attachment_validate(attachment: &Tree, errors: &mut Errors) {
    let spec = Spot::of(attachment, "spec");
    let source = spec.child("source");
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.has("persistentVolumeName"), source.has("inlineVolumeSpec")) {
        (false, false) => source.required("", ONE, errors),
        (true, true) => source.forbidden("", ONE, errors),
        (true, false) if source.str("persistentVolumeName").is_empty() => {
            source.required("persistentVolumeName", "must specify non empty persistentVolumeName", errors);
        }
        (false, true) => super::persistent_volume::validate_inline(&source.child("inlineVolumeSpec"), errors),
        _ => {}
    }
    for message in names::dns_subdomain(spec.str("nodeName")) {
        spec.invalid_as("nodeName", spec.str("nodeName"), message, errors);
    }
    let status = Spot::of(attachment, "status");
    let metadata = status.map("attachmentMetadata");
    let size: usize = metadata.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > METADATA_BYTES_MAX {
        status.too_long("attachmentMetadata", METADATA_BYTES_MAX, errors);
    }
    for error in ["attachError", "detachError"].into_iter().filter_map(|field| status.some(field)) {
        if error.str("message").len() > MESSAGE_BYTES_MAX {
            error.too_long("message", MESSAGE_BYTES_MAX, errors);
        }
        error.in_range("errorCode", 0, i32::MAX.into(), errors);
    }
    if source.has("persistentVolumeName") {
        source.each("persistentVolumeName", names::dns_subdomain(source.str("persistentVolumeName")), errors);
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
    attributes_validate(new, errors);
}
