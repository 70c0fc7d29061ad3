//! Deployment.

use corten_object::LabelSelector;
use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
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
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
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

/// `SetDefaults_Deployment` in `pkg/apis/apps/v1/defaults.go`.
fn default(deployment: &mut Tree) {
    defaults::at(deployment, "spec", |spec| {
        spec.set_default("replicas", 1);
        defaults::text(spec, "strategy.type", "RollingUpdate");
        if spec.str_at("strategy.type") == "RollingUpdate" {
            spec.set_default("strategy.rollingUpdate.maxUnavailable", "25%");
            spec.set_default("strategy.rollingUpdate.maxSurge", "25%");
        }
        spec.set_default("revisionHistoryLimit", 10);
        spec.set_default("progressDeadlineSeconds", 600);
        defaults::at(spec, "template.spec", defaults::pod_spec);
    });
}
