//! PersistentVolume.

use corten_tree::{Tree, tree};

use crate::defaults;
use crate::spec::{Hooks, KindSpec, Subresource};
use crate::validate::{NOT_POSITIVE, Spot, affinity, names, pod_update, quantity as amount, volume, workload};
use crate::{Column, Of, RowContext, TextOr, column, print, wide};
use crate::{Errors, WriteContext};

/// `v1 PersistentVolume`
pub(crate) const PERSISTENT_VOLUME: KindSpec = KindSpec {
    kind: "PersistentVolume",
    returns_deleted: true,
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
    hooks: Hooks {
        default: Some(default),
        prepare_create: Some(prepare_create),
        validate: Some(validate),
        validate_update: Some(validate_update),
        ..Hooks::NONE
    },
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

fn prepare_create(volume: &mut Tree, _: &WriteContext) {
    volume.set("status", tree!({"phase": "Pending"}));
}

/// Where a volume's bytes are.
const SOURCES: &[&str] = &[
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "hostPath",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// `ValidatePersistentVolumeSpec`
fn validate(object: &Tree, errors: &mut Errors) {
    let spec = Spot::of(object, "spec");
    workload::access_modes(&spec, "", errors);
    let capacity = spec.child("capacity");
    match capacity.map("").get("storage") {
        None => match capacity.map("").len() {
            0 => spec.required("capacity", "", errors),
            _ => spec.unsupported("capacity", &["storage"], errors),
        },
        Some(value) => {
            let at = Spot::at(value, capacity.path.key("storage"));
            if amount(value).is_some_and(|q| q.sign() <= 0) {
                at.invalid("", NOT_POSITIVE, errors);
            }
        }
    }
    if !spec.str("persistentVolumeReclaimPolicy").is_empty() {
        spec.one_of("persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"], errors);
    }
    if spec.has("nodeAffinity") {
        match spec.some("nodeAffinity.required") {
            None => spec.required("nodeAffinity.required", "must specify required node constraints", errors),
            Some(required) => affinity::validate_node_selector(&required, errors),
        }
    }
    source(&spec, errors);
    let class = spec.str("storageClassName");
    if !class.is_empty() {
        spec.each("storageClassName", names::dns_subdomain(class), errors);
    }
    spec.optional_one_of("volumeMode", &["Block", "Filesystem"], errors);
}

fn source(spec: &Spot<'_>, errors: &mut Errors) {
    let mut found = false;
    for name in SOURCES {
        let Some(source) = spec.some(name) else { continue };
        if found {
            spec.forbidden(name, "may not specify more than 1 volume type", errors);
            continue;
        }
        found = true;
        match *name {
            "hostPath" => volume::host_path(&source, errors),
            "nfs" => volume::nfs(&source, errors),
            "local" => {
                if source.str("path").is_empty() {
                    source.required("path", "", errors);
                } else {
                    volume::no_backsteps(&source, "path", errors);
                }
                if !spec.has("nodeAffinity") {
                    spec.required("nodeAffinity", "Local volume requires node affinity", errors);
                }
            }
            "csi" => {
                volume::csi_driver_name(&source, "driver", errors);
                if source.str("volumeHandle").is_empty() {
                    source.required("volumeHandle", "", errors);
                }
            }
            _ => {}
        }
    }
    if !found {
        spec.required("", "must specify a volume type", errors);
    }
}

/// The source and the mode stay.
fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let pick = |tree: &Tree| -> Tree {
        let spec = tree.map_at("spec");
        Tree::Map(SOURCES.iter().filter_map(|s| Some(((*s).into(), spec.get(s)?.clone()))).collect())
    };
    let (now, was) = (pick(new), pick(old));
    let spec = Spot::of(new, "spec");
    if !now.semantically_equal(&was) {
        let detail =
            format!("spec.persistentvolumesource is immutable after creation\n{}", pod_update::difference(&was, &now));
        spec.forbidden("persistentvolumesource", detail, errors);
    }
    // Upstream leaves the parent out of the path.
    let mode = |tree| Spot::at(Spot::of(tree, "spec.volumeMode").tree, corten_tree::FieldPath::of("volumeMode"));
    mode(new).immutable(&mode(old), "", errors);
}
