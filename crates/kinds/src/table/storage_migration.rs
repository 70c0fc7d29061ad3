//! The kind of `storagemigration.k8s.io`.

use corten_tree::Tree;

use crate::Errors;
use crate::print;
use crate::spec::{Hooks, KindSpec, Subresource};
use crate::validate::{IMMUTABLE, Spot, conditions, names};
use crate::{Column, Of, RowContext, column};

/// `storagemigration.k8s.io/v1 StorageVersionMigration`
pub(crate) const STORAGE_VERSION_MIGRATION: KindSpec = KindSpec {
    group: "storagemigration.k8s.io",
    kind: "StorageVersionMigration",
    served_by: Some("controllers"),
    unconditional_update: false,
    plural: "storageversionmigrations",
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
    columns: &[Column { format: "", ..Column::NAME }, column("Resource", &Of(resource)), column("Status", &Of(status))],
    immutable: &["spec"],
    hooks: Hooks { validate: Some(validate), validate_status: Some(validate_status), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

fn resource(migration: &Tree, _: &RowContext) -> Tree {
    let (group, resource) = (migration.str_at("spec.resource.group"), migration.str_at("spec.resource.resource"));
    Tree::from(if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") })
}

fn status(migration: &Tree, _: &RowContext) -> Tree {
    let known =
        |c: &&Tree| c.str_at("status") == "True" && matches!(c.str_at("type"), "Running" | "Failed" | "Succeeded");
    let last = migration.list_at("status.conditions").iter().rev().find(known);
    Tree::from(last.map_or("Unknown", |c| c.str_at("type")))
}

/// `ValidateStorageVersionMigration` (`pkg/apis/storagemigration/validation/validation.go`)
fn validate(migration: &Tree, errors: &mut Errors) {
    let resource = Spot::of(migration, "spec.resource");
    if !resource.str("group").is_empty() {
        resource.each("group", names::dns_subdomain(resource.str("group")), errors);
    }
    match resource.str("resource") {
        "" => resource.required("resource", "resource is required to be set", errors),
        name => resource.each("resource", names::dns_1035_label(name), errors),
    }
}

/// `ValidateStorageVersionMigrationStatusUpdate`
fn validate_status(new: &Tree, old: &Tree, errors: &mut Errors) {
    let status = Spot::of(new, "status");
    let (after, before) = (status.str("resourceVersion"), old.str_at("status.resourceVersion"));
    if !after.is_empty()
        && let Some(why) = resource_version_fault(after)
    {
        status.invalid("resourceVersion", why, errors);
    }
    conditions::validate_all(&status, "conditions", usize::MAX, errors);
    if !before.is_empty() && before != after {
        status.invalid_as("resourceVersion", after, IMMUTABLE, errors);
    }
    let holds = |tree: &Tree, kind: &str| print::condition_is(tree, "status.conditions", kind, "True");
    if holds(new, "Succeeded") && holds(new, "Failed") {
        status.invalid("conditions", "Both success and failed conditions cannot be true at the same time", errors);
    }
    for (kind, name) in [("Succeeded", "Success"), ("Failed", "Failed")] {
        if holds(old, kind) && !holds(new, kind) {
            let detail = format!("{name} condition cannot be set to false once it is true");
            status.invalid("conditions", detail, errors);
        }
    }
}

/// `resourceversion.CompareResourceVersion`
fn resource_version_fault(text: &str) -> Option<String> {
    let bad = text.starts_with('0') || !text.bytes().all(|c| c.is_ascii_digit());
    bad.then(|| format!("resource version is not well formed: {text}"))
}
