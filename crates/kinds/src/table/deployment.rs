//! Deployment.

use corten_object::LabelSelector;
use corten_tree::Tree;

use crate::spec::{Generation, KindSpec, Subresource};
use crate::{Column, Number, Of, RowContext, column, print, wide};

/// `apps/v1 Deployment`
pub(crate) const DEPLOYMENT: KindSpec = KindSpec {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    short: &["deploy"],
    categories: &["all"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::scale("spec.replicas", "status.replicas", "spec.selector"), Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Ready", &Of(ready)),
        column("Up-to-date", &Number("status.updatedReplicas")),
        column("Available", &Number("status.availableReplicas")),
        Column::AGE,
        wide("Containers", &Of(|o, _| print::joined_field(o.list_at("spec.template.spec.containers"), "name"))),
        wide("Images", &Of(|o, _| print::joined_field(o.list_at("spec.template.spec.containers"), "image"))),
        wide("Selector", &Of(selector)),
    ],
    served_by: Some("controllers"),
    ..KindSpec::NAMESPACED
};

/// `ready/desired`, as StatefulSets show it too.
pub(super) fn ready(object: &Tree, _: &RowContext) -> Tree {
    let number = |path| object.i64_at(path).unwrap_or_default();
    Tree::from(format!("{}/{}", number("status.readyReplicas"), number("spec.replicas")))
}

fn selector(object: &Tree, _: &RowContext) -> Tree {
    let parsed = LabelSelector::from_tree(object.path("spec.selector"));
    Tree::from(parsed.map_or_else(|_| "<invalid>".to_owned(), |s| s.to_string()))
}
