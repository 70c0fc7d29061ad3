//! The kind of `storagemigration.k8s.io`.

use corten_tree::Tree;

use crate::Errors;
use crate::spec::{Hooks, KindSpec, Subresource};
use crate::validate::{Spot, names};
use crate::{Column, Of, RowContext, column};

/// `storagemigration.k8s.io/v1 StorageVersionMigration`
pub(crate) const STORAGE_VERSION_MIGRATION: KindSpec = KindSpec {
    group: "storagemigration.k8s.io",
    kind: "StorageVersionMigration",
    unconditional_update: false,
    plural: "storageversionmigrations",
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
    columns: &[Column { format: "", ..Column::NAME }, column("Resource", &Of(resource)), column("Status", &Of(status))],
    hooks: Hooks { validate: Some(validate), ..Hooks::NONE },
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
