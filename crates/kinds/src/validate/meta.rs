//! What every object's metadata must satisfy, on create and on update.
//!
//! `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`, and `pkg/apis/core/validation` for built-in kinds' finalizers.

use corten_object::GroupVersionKind;
use corten_tree::{Map, Tree};

use super::names::{self, NameCheck};
use super::{IMMUTABLE, NEGATIVE, Spot, labels};
use crate::{Errors, Kind};

/// How many bytes all annotations of an object may have.
pub const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// Groups of servers of their own, whose kinds know nothing of the core's rules for finalizers.
const GENERIC_GROUPS: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

/// Finds the faults in a new object's metadata. Names are generated and system fields filled in before this.
pub fn validate_object_meta(kind: &Kind, object: &Tree, errors: &mut Errors) {
    let meta = Spot::of(object, "metadata");
    let check = kind.name_check;
    let generate = meta.str("generateName");
    if !generate.is_empty() {
        meta.each("generateName", generated(check, generate), errors);
    }
    match meta.str("name") {
        "" => meta.required("name", "name or generateName is required", errors),
        name => meta.each("name", check(name), errors),
    }
    match (kind.namespaced(), meta.str("namespace")) {
        (true, "") => meta.required("namespace", "", errors),
        (true, namespace) => meta.each("namespace", names::dns_label(namespace), errors),
        (false, "") => {}
        (false, _) => meta.forbidden("namespace", "not allowed on this type", errors),
    }
    meta.non_negative("generation", errors);
    changeable(kind, &meta, true, errors);
}

/// Finds the faults in a changed object's metadata.
pub fn validate_object_meta_update(kind: &Kind, new: &Tree, old: &Tree, errors: &mut Errors) {
    let (meta, old) = (Spot::of(new, "metadata"), Spot::of(old, "metadata"));
    if old.has("deletionTimestamp") {
        no_new_finalizers(&meta, &old, errors);
    }
    if !kind.unconditional_update && meta.str("resourceVersion").is_empty() {
        meta.invalid_as("resourceVersion", "", "must be specified for an update", errors);
    }
    let generation = meta.int("generation").unwrap_or_default();
    if generation < 0 {
        meta.invalid("generation", NEGATIVE, errors);
    }
    if generation < old.int("generation").unwrap_or_default() {
        meta.invalid_as("generation", generation, "must not be decremented", errors);
    }
    for field in ["name", "namespace", "uid"] {
        if meta.str(field) != old.str(field) {
            meta.invalid_as(field, meta.str(field), IMMUTABLE, errors);
        }
    }
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta.immutable(&old, field, errors);
    }
    changeable(kind, &meta, false, errors);
}

fn generated(check: NameCheck, text: &str) -> Vec<String> {
    names::with_suffix(check, text)
}

/// What is checked of new and changed objects alike.
fn changeable(kind: &Kind, meta: &Spot<'_>, create: bool, errors: &mut Errors) {
    labels::validate_labels(&meta.child("labels"), errors);
    validate_annotations(&meta.child("annotations"), errors);
    owner_references(meta, errors);
    if create {
        finalizers(meta, errors);
    }
    for entry in meta.items("managedFields") {
        managed_fields(&entry, errors);
    }
    if kind.spec.is_some_and(|row| !GENERIC_GROUPS.contains(&row.group)) {
        for finalizer in meta.items("finalizers") {
            let name = finalizer.str("");
            if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
                let detail = "name is neither a standard finalizer name nor is it fully qualified";
                finalizer.invalid("", detail, errors);
            }
        }
    }
}

/// Finds the faults in the metadata of an object that stands inside another; it needs no name.
/// (`apiextensions-apiserver/pkg/apiserver/schema/objectmeta/validation.go` `validateEmbeddedResource`)
pub(crate) fn validate_embedded_meta(meta: &Spot<'_>, errors: &mut Errors) {
    for field in ["generateName", "name"] {
        if !meta.str(field).is_empty() {
            meta.each(field, names::path_segment(meta.str(field)), errors);
        }
    }
    if !meta.str("namespace").is_empty() {
        meta.each("namespace", names::dns_label(meta.str("namespace")), errors);
    }
    meta.non_negative("generation", errors);
    labels::validate_labels(&meta.child("labels"), errors);
    validate_annotations(&meta.child("annotations"), errors);
    owner_references(meta, errors);
    finalizers(meta, errors);
    meta.items("managedFields").iter().for_each(|entry| managed_fields(entry, errors));
}

/// Checks annotations: keys whatever their case, and the size of them all.
pub fn validate_annotations(annotations: &Spot<'_>, errors: &mut Errors) {
    let map: &Map = annotations.map("");
    let mut size = 0;
    for (key, value) in map.iter() {
        for message in names::label_key(&key.to_lowercase()) {
            annotations.invalid_as("", key, message, errors);
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_BYTES_MAX {
        annotations.too_long("", ANNOTATIONS_BYTES_MAX, errors);
    }
}

fn owner_references(meta: &Spot<'_>, errors: &mut Errors) {
    let mut controller = String::new();
    for owner in meta.items("ownerReferences") {
        let api_version = owner.str("apiVersion");
        let gvk = GroupVersionKind::parse(api_version, owner.str("kind"));
        if !api_version.is_empty() && (api_version.matches('/').count() > 1 || gvk.version.is_empty()) {
            owner.invalid("apiVersion", "must be <group>/<version> or <version>", errors);
        }
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.str(field).is_empty() {
                owner.required(field, "must not be empty", errors);
            }
        }
        if api_version == "v1" && gvk.kind == "Event" {
            // The core group keeps its slash.
            owner.invalid("", "/v1, Kind=Event is disallowed from being an owner", errors);
        }
        if owner.bool("controller") {
            let name = format!("{}/{}", owner.str("kind"), owner.str("name"));
            if controller.is_empty() {
                controller = name;
            } else {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {controller} and {name}"
                );
                meta.invalid("ownerReferences", detail, errors);
            }
        }
    }
}

fn finalizers(meta: &Spot<'_>, errors: &mut Errors) {
    let all: Vec<&str> = meta.list("finalizers").iter().filter_map(Tree::as_str).collect();
    for name in &all {
        for message in names::label_key(name) {
            meta.invalid_as("finalizers", *name, message, errors);
        }
    }
    if all.contains(&"orphan") && all.contains(&"foregroundDeletion") {
        meta.invalid("finalizers", "finalizer orphan and foregroundDeletion cannot be both set", errors);
    }
}

fn no_new_finalizers(meta: &Spot<'_>, old: &Spot<'_>, errors: &mut Errors) {
    let before = old.list("finalizers");
    let mut added: Vec<String> = meta
        .list("finalizers")
        .iter()
        .filter(|f| !before.contains(f))
        .filter_map(|f| f.as_str().map(|f| format!("{f:?}")))
        .collect();
    added.sort();
    added.dedup();
    if !added.is_empty() {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            added.join(", ")
        );
        meta.forbidden("finalizers", detail, errors);
    }
}

/// The longest field manager.
const MANAGER_MAX: usize = 128;
/// The longest subresource in managed fields.
const SUBRESOURCE_MAX: usize = 256;

fn managed_fields(entry: &Spot<'_>, errors: &mut Errors) {
    match entry.str("operation") {
        "" => entry.required("operation", "must not be empty", errors),
        "Apply" | "Update" => {}
        _ => entry.unsupported("operation", &["Apply", "Update"], errors),
    }
    if !matches!(entry.str("fieldsType"), "" | "FieldsV1") {
        entry.invalid("fieldsType", "must be `FieldsV1`", errors);
    }
    if entry.str("manager").len() > MANAGER_MAX {
        entry.too_long("manager", MANAGER_MAX, errors);
    }
    if entry.str("subresource").len() > SUBRESOURCE_MAX {
        entry.too_long("subresource", SUBRESOURCE_MAX, errors);
    }
}
