//! PersistentVolume.

use corten_object::time;
use corten_tree::{Tree, tree};

use crate::defaults;
use crate::spec::{Hooks, KindSpec, Subresource};
use crate::validate::{
    NOT_POSITIVE, Spot, affinity, names, quantity as amount, resources, volume, volume_source, workload,
};
use crate::{Column, Of, RowContext, TextOr, column, print, wide};
use crate::{Errors, WriteContext, difference, warnings};

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
        prepare_status: Some(prepare_status),
        warnings: Some(warnings),
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
    match object.at(&["metadata", "annotations", STORAGE_CLASS]) {
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
    defaults::at(volume, "spec", |spec| defaults::declared(spec, "core.v1.PersistentVolumeSource"));
}

fn prepare_create(volume: &mut Tree, context: &WriteContext) {
    let now = time::format(context.now);
    volume.set("status", tree!({"phase": "Pending", "lastPhaseTransitionTime": now}));
}

/// A change of phase is dated. (`persistentvolumeStatusStrategy.PrepareForUpdate`)
fn prepare_status(volume: &mut Tree, old: &Tree, context: &WriteContext) {
    const TIME: &str = "status.lastPhaseTransitionTime";
    let moved = volume.str_at("status.phase") != old.str_at("status.phase");
    match (moved, volume.path(TIME).filter(|t| !t.is_null()).cloned(), old.path(TIME).cloned()) {
        (false, None, Some(kept)) => volume.set(TIME, kept),
        (true, given, kept) if given.is_none() || given == kept => volume.set(TIME, time::format(context.now)),
        _ => {}
    }
}

/// Where a volume's bytes are, in the order in which upstream looks.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
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
    workload::access_modes(&spec, errors);
    capacity(&spec, errors);
    if !spec.str("persistentVolumeReclaimPolicy").is_empty() {
        spec.one_of("persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"], errors);
    }
    if spec.has("nodeAffinity") {
        match spec.some("nodeAffinity.required") {
            None => spec.required("nodeAffinity.required", "must specify required node constraints", errors),
            Some(required) => affinity::validate_node_selector(&required, errors),
        }
    }
    source(&spec, object.str_at("metadata.name"), errors);
    let root = spec.str("hostPath.path").split('/').all(|part| matches!(part, "" | "."));
    if spec.has("hostPath.path") && root && spec.str("persistentVolumeReclaimPolicy") == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        spec.forbidden("persistentVolumeReclaimPolicy", detail, errors);
    }
    let class = spec.str("storageClassName");
    if !class.is_empty() {
        spec.each("storageClassName", names::dns_subdomain(class), errors);
    }
    spec.optional_one_of("volumeMode", &["Block", "Filesystem"], errors);
    attributes_class(&spec, errors);
    mount_options(object, &spec, errors);
}

/// The same of a volume that an attachment describes itself, which may say less.
pub(crate) fn validate_inline(spec: &Spot<'_>, errors: &mut Errors) {
    const INLINE: &str = "in the context of inline volumes";
    let refuse = |field: &str, errors: &mut Errors| {
        if spec.has(field) {
            spec.forbidden(field, format!("may not be specified {INLINE}"), errors);
        }
    };
    refuse("claimRef", errors);
    if !spec.map("capacity").is_empty() {
        refuse("capacity", errors);
    }
    if !spec.has("csi") {
        spec.required("csi", format!("has to be specified {INLINE}"), errors);
    }
    workload::access_modes(spec, errors);
    if !matches!(spec.str("persistentVolumeReclaimPolicy"), "" | "Retain") {
        spec.forbidden("persistentVolumeReclaimPolicy", format!("may only be Retain {INLINE}"), errors);
    }
    refuse("nodeAffinity", errors);
    source(spec, "", errors);
    if !spec.str("storageClassName").is_empty() {
        refuse("storageClassName", errors);
    }
    if !matches!(spec.str("volumeMode"), "" | "Filesystem") {
        spec.forbidden("volumeMode", format!("may not specify volumeMode other than Filesystem {INLINE}"), errors);
    }
    attributes_class(spec, errors);
}

fn attributes_class(spec: &Spot<'_>, errors: &mut Errors) {
    const ATTRIBUTES: &str = "volumeAttributesClassName";
    if !spec.has(ATTRIBUTES) {
        return;
    }
    match spec.str(ATTRIBUTES) {
        "" => spec.required(ATTRIBUTES, "an empty string is disallowed", errors),
        class => spec.each(ATTRIBUTES, names::dns_subdomain(class), errors),
    }
    if !spec.has("csi") {
        spec.required("csi", "has to be specified when using volumeAttributesClassName", errors);
    }
}

fn capacity(spec: &Spot<'_>, errors: &mut Errors) {
    let capacity = spec.child("capacity");
    let resources = capacity.map("");
    if resources.is_empty() {
        spec.required("capacity", "", errors);
    }
    if !resources.contains("storage") || resources.len() > 1 {
        let shown = Tree::Map(resources.clone());
        errors.push(corten_object::FieldError::not_supported_value(&capacity.path, &shown, &["storage"]));
    }
    for (name, value) in resources.iter() {
        let at = Spot::at(value, capacity.path.key(name));
        resources::basic(&at, errors);
        if amount(value).is_some_and(|q| q.sign() <= 0) {
            at.invalid("", NOT_POSITIVE, errors);
        }
    }
}

/// What the old annotation for mount options may stand beside. (`pkg/volume/validation.checkMountOption`)
const TAKE_MOUNT_OPTIONS: &[&str] = &[
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "iscsi",
    "cinder",
    "cephfs",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
];

fn mount_options(object: &Tree, spec: &Spot<'_>, errors: &mut Errors) {
    let annotations = Spot::of(object, "metadata.annotations");
    if annotations.map("").contains(MOUNT_OPTIONS) && !TAKE_MOUNT_OPTIONS.iter().any(|source| spec.has(source)) {
        annotations.forbidden(MOUNT_OPTIONS, "may not specify mount options for this volume type", errors);
    }
}

fn source(spec: &Spot<'_>, volume: &str, errors: &mut Errors) {
    let mut found = false;
    for name in SOURCES {
        let Some(source) = spec.some(name) else { continue };
        if found && *name != "flexVolume" {
            let shown = if *name == "cephfs" { "cephFS" } else { name };
            spec.forbidden(shown, "may not specify more than 1 volume type", errors);
            continue;
        }
        found = true;
        match *name {
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
            "csi" => volume_source::csi_volume(&source, errors),
            shared => {
                if let Some(check) = volume_source::check_of(shared) {
                    check(&source, volume_source::Of::PersistentVolume(volume), errors);
                }
            }
        }
    }
    if !found {
        spec.required("", "must specify a volume type", errors);
    }
}

/// The source, the mode and where it is reached from stay. (`ValidatePersistentVolumeUpdate`)
fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let pick = |tree: &Tree| -> Tree {
        let spec = tree.map_at("spec");
        Tree::Map(SOURCES.iter().filter_map(|s| Some(((*s).into(), spec.get(s)?.clone()))).collect())
    };
    let (mut now, was) = (pick(new), pick(old));
    const EXPAND_SECRET: &str = "csi.controllerExpandSecretRef";
    if was.path("csi").is_some() && was.path(EXPAND_SECRET).is_none() {
        now.remove(EXPAND_SECRET);
    }
    let spec = Spot::of(new, "spec");
    if !now.semantically_equal(&was) {
        let text = difference::between("core.v1.PersistentVolumeSource", &was, &now);
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{text}");
        spec.forbidden("persistentvolumesource", detail, errors);
    }
    // Upstream leaves the parent out of the path.
    let alone =
        |tree, field: &str| Spot::at(Spot::of(tree, &format!("spec.{field}")).tree, corten_tree::FieldPath::of(field));
    alone(new, "volumeMode").immutable(&alone(old, "volumeMode"), "", errors);
    let (affinity, before) = (alone(new, "nodeAffinity"), alone(old, "nodeAffinity"));
    if before.has("") && !affinity.tree.semantically_equal(before.tree) && !renamed(affinity.tree, before.tree) {
        let schema = corten_schema::builtin();
        let shown = corten_schema::internal::shown_as(schema, "core.v1.VolumeNodeAffinity", affinity.tree);
        let detail = "field is immutable, except for updating from beta label to GA";
        affinity.invalid_as("", shown, detail, errors);
    }
    const ATTRIBUTES: &str = "volumeAttributesClassName";
    if !spec.has(ATTRIBUTES) && Spot::of(old, "spec").has(ATTRIBUTES) {
        spec.forbidden(ATTRIBUTES, "update from non-nil value to nil is forbidden", errors);
    }
}

/// Node labels and what they became.
const GRADUATED: &[(&str, &str)] = &[
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// Whether nothing but old node labels in an affinity were replaced by new ones.
fn renamed(new: &Tree, old: &Tree) -> bool {
    let mut old = old.clone();
    let terms = new.list_at("required.nodeSelectorTerms");
    if let Some(Tree::List(before)) = old.path_mut("required.nodeSelectorTerms") {
        for (term, before) in terms.iter().zip(before) {
            let Some(Tree::List(before)) = before.path_mut("matchExpressions") else { continue };
            for (expression, before) in term.list_at("matchExpressions").iter().zip(before) {
                let key = expression.str_at("key");
                if GRADUATED.contains(&(before.str_at("key"), key)) {
                    before.set("key", key);
                }
            }
        }
    }
    new.semantically_equal(&old)
}

const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

/// Sources that stopped working, by the names that upstream's warnings have for them.
const DEAD: &[(&str, &str, &str)] = &[
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// `GetWarningsForPersistentVolume`
fn warnings(volume: &Tree, _: Option<&Tree>) -> Vec<String> {
    let mut out = Vec::new();
    let annotations = Spot::of(volume, "metadata.annotations");
    for (key, message) in [
        (STORAGE_CLASS, "deprecated since v1.8; use \"storageClassName\" attribute instead"),
        (MOUNT_OPTIONS, "deprecated since v1.31; use \"mountOptions\" attribute instead"),
    ] {
        if annotations.map("").contains(key) {
            out.push(format!("{}: {message}", annotations.path.key(key)));
        }
    }
    let spec = Spot::of(volume, "spec");
    if spec.str("persistentVolumeReclaimPolicy") == "Recycle" {
        out.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to \
             use dynamic provisioning."
                .to_owned(),
        );
    }
    for term in spec.items("nodeAffinity.required.nodeSelectorTerms") {
        warnings::node_selector_term(&term, false, &mut out);
    }
    for (source, shown, message) in DEAD {
        if spec.has(source) {
            out.push(format!("{}: {message}", spec.path.child(shown)));
        }
    }
    out
}

/// The old annotation for a storage class.
pub(super) const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
