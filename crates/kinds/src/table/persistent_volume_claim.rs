//! PersistentVolumeClaim.

use corten_tree::{Tree, tree};

use super::persistent_volume::{STORAGE_CLASS, access_modes, class, phase, quantity, text_or_unset};
use crate::defaults;
use crate::spec::{Hooks, KindSpec, Subresource};
use crate::validate::{Spot, conditions, names, quantity as amount, resources, workload};
use crate::{Column, Of, RowContext, TextOr, column, wide};
use crate::{Errors, WriteContext, difference, warnings};

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
        prepare_update: Some(prepare_update),
        validate_create: Some(validate_create),
        warnings: Some(warnings),
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
    data_sources(claim, None);
}

/// (`persistentvolumeclaimStrategy.PrepareForUpdate`)
fn prepare_update(claim: &mut Tree, old: &Tree, _: &WriteContext) {
    data_sources(claim, Some(old));
}

const SOURCE: &str = "spec.dataSource";
const REFERENCE: &str = "spec.dataSourceRef";

/// dataSource and dataSourceRef mean the same object. A source that old servers did not know is dropped from the older field, as they
/// did; a reference into another namespace needs a feature that is off. (`EnforceDataSourceBackwardsCompatibility`, `NormalizeDataSources`)
fn data_sources(claim: &mut Tree, old: Option<&Tree>) {
    let there = |tree: &Tree, path| tree.path(path).is_some_and(|value| !value.is_null());
    let had = |path| old.is_some_and(|old| there(old, path));
    if !claim.str_at("spec.dataSourceRef.namespace").is_empty() && !had(REFERENCE) {
        claim.remove(REFERENCE);
    }
    if !had(SOURCE) && !had(REFERENCE) && !there(claim, REFERENCE) {
        let known = matches!(
            (claim.str_at("spec.dataSource.apiGroup"), claim.str_at("spec.dataSource.kind")),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        );
        if !known {
            claim.remove(SOURCE);
        }
    }
    let copy = |tree: &Tree, path: &str| {
        let fields = ["apiGroup", "kind", "name"].iter();
        let from = tree.map_at(path);
        Tree::Map(fields.filter_map(|f| Some(((*f).into(), from.get(f)?.clone()))).collect())
    };
    match (there(claim, SOURCE), there(claim, REFERENCE)) {
        (true, false) => claim.set(REFERENCE, copy(claim, SOURCE)),
        (false, true) if claim.str_at("spec.dataSourceRef.namespace").is_empty() => {
            claim.set(SOURCE, copy(claim, REFERENCE));
        }
        _ => {}
    }
}

fn validate_create(claim: &Tree, errors: &mut Errors) {
    workload::claim_spec(&Spot::of(claim, "spec"), false, errors);
}

/// Whether a claim's class moves from the old annotation to the field, or is set for the first time.
/// (`validateStorageClassUpgradeFromAnnotation`, `validateStorageClassUpgradeFromNil`)
fn class_is_set(new: &Tree, old: &Tree) -> bool {
    let annotation =
        |tree: &Tree| tree.at(&["metadata", "annotations", STORAGE_CLASS]).and_then(Tree::as_str).map(str::to_owned);
    let class = new.path("spec.storageClassName").and_then(Tree::as_str);
    old.path("spec.storageClassName").is_none()
        && class.is_some_and(|class| annotation(old).is_none_or(|before| before == class))
}

/// `ValidatePersistentVolumeClaimUpdate`: a bound claim may grow, all else of the spec stays.
fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let spec = Spot::of(new, "spec");
    let any_group = ["spec.dataSource.apiGroup", "spec.dataSourceRef.apiGroup"].iter().any(|p| old.path(p).is_some());
    workload::claim_spec(&spec, any_group, errors);
    let mut munged = spec.tree.clone();
    let mut before = old.path("spec").cloned().unwrap_or_default();
    let mut keep = |field: &str| match old.path(&format!("spec.{field}")) {
        Some(value) => munged.set(field, value.clone()),
        None => drop(munged.remove(field)),
    };
    if class_is_set(new, old) {
        keep("storageClassName");
    } else {
        let at = |tree| {
            let annotations = Spot::of(tree, "metadata.annotations");
            // Upstream leaves the annotations out of the path.
            let path = corten_tree::FieldPath::of("metadata").key(STORAGE_CLASS);
            Spot::at(annotations.map("").get(STORAGE_CLASS).unwrap_or(&NOTHING), path)
        };
        let (now, was) = (at(new), at(old));
        if now.str("") != was.str("") {
            now.invalid_as("", now.str(""), "field is immutable", errors);
        }
    }
    if new.str_at("status.phase") == "Bound" {
        keep("resources.requests.storage");
        keep("volumeAttributesClassName");
    }
    if before.str_at("volumeName").is_empty() {
        match munged.path("volumeName").cloned() {
            Some(name) => before.set("volumeName", name),
            None => drop(before.remove("volumeName")),
        }
    }
    if !munged.semantically_equal(&before) {
        let text = difference::between("core.v1.PersistentVolumeClaimSpec", &before, &munged);
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{text}"
        );
        spec.forbidden("", detail, errors);
    }
    let size = |tree: &Tree, list: &str| tree.map_at(list).get("storage").and_then(amount).unwrap_or_default();
    let (now, was) = (size(new, "spec.resources.requests"), size(old, "spec.resources.requests"));
    if now < was && now <= size(old, "status.capacity") {
        spec.forbidden("resources.requests.storage", "field can not be less than status.capacity", errors);
    }
    // Upstream leaves the parent out of the path.
    let mode = |tree| Spot::at(Spot::of(tree, "spec.volumeMode").tree, corten_tree::FieldPath::of("volumeMode"));
    mode(new).immutable(&mode(old), "", errors);
    attributes_stay(&spec, old, errors);
}

static NOTHING: Tree = Tree::Null;

/// Once attributes were applied, there is a class.
fn attributes_stay(spec: &Spot<'_>, old: &Tree, errors: &mut Errors) {
    const FIELD: &str = "volumeAttributesClassName";
    if old.path("status.currentVolumeAttributesClassName").is_none()
        || old.path("spec.volumeAttributesClassName") == Some(spec.child(FIELD).tree)
    {
        return;
    }
    if !spec.has(FIELD) {
        let detail = "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil";
        spec.forbidden(FIELD, detail, errors);
    } else if spec.str(FIELD).is_empty() {
        let detail = "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil";
        spec.forbidden(FIELD, detail, errors);
    }
}

const RESIZE_STATES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// `ValidatePersistentVolumeClaimStatusUpdate`
fn validate_status(new: &Tree, _: &Tree, errors: &mut Errors) {
    if new.list_at("spec.accessModes").is_empty() {
        Spot::of(new, "").required("Spec.accessModes", "", errors);
    }
    let status = Spot::of(new, "status");
    let entries = |field: &str| {
        let list = status.child(field);
        let path = list.path.clone();
        let map = list.map("");
        map.iter().map(|(name, value)| (name, Spot::at(value, path.key(name)))).collect::<Vec<_>>()
    };
    for (_, value) in entries("capacity") {
        resources::basic(&value, errors);
    }
    for condition in status.items("healthStatus.healthConditions") {
        if !condition.str("reason").is_empty() {
            conditions::reason(&condition, "reason", errors);
        }
    }
    let states = status.child("allocatedResourceStatuses");
    for (name, state) in entries("allocatedResourceStatuses") {
        resource_key(&states, name, errors);
        if !RESIZE_STATES.contains(&state.str("")) {
            errors.push(corten_object::FieldError::not_supported(&states.path, name, RESIZE_STATES));
        }
    }
    let allocated = status.child("allocatedResources");
    for (name, value) in entries("allocatedResources") {
        let before = errors.len();
        resource_key(&allocated, name, errors);
        if errors.len() == before {
            resources::basic(&value, errors);
        }
    }
}

/// `validatePersistentVolumeClaimResourceKey`; what it finds stands at the map.
fn resource_key(map: &Spot<'_>, name: &str, errors: &mut Errors) {
    let faults = names::label_key(name);
    let sound = faults.is_empty();
    for message in faults {
        map.invalid_as("", name, message, errors);
    }
    if sound && resources::is_native(name) && name != "storage" {
        errors.push(corten_object::FieldError::not_supported(&map.path, name, &["storage"]));
    }
}

/// `GetWarningsForPersistentVolumeClaim`
fn warnings(claim: &Tree, _: Option<&Tree>) -> Vec<String> {
    let mut out = Vec::new();
    let annotations = Spot::of(claim, "metadata.annotations");
    if annotations.map("").contains(STORAGE_CLASS) {
        let path = annotations.path.key(STORAGE_CLASS);
        out.push(format!("{path}: deprecated since v1.8; use \"storageClassName\" attribute instead"));
    }
    warnings::claim_spec(&Spot::of(claim, "spec"), &mut out);
    out
}
