//! The kind of `storagemigration.k8s.io`.

use corten_tree::Tree;

use crate::spec::{KindSpec, Subresource};
use crate::{Column, Of, RowContext, column};

/// `storagemigration.k8s.io/v1 StorageVersionMigration`
pub(crate) const STORAGE_VERSION_MIGRATION: KindSpec = KindSpec {
    group: "storagemigration.k8s.io",
    kind: "StorageVersionMigration",
    unconditional_update: false,
    plural: "storageversionmigrations",
    subresources: &[Subresource::STATUS],
    columns: &[Column { format: "", ..Column::NAME }, column("Resource", &Of(resource)), column("Status", &Of(status))],
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
