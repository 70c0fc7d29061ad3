//! ReplicaSet.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Fact, Generation, Hooks, KindSpec, Subresource};
use crate::{Column, Number, Of, column, print, wide};

/// `apps/v1 ReplicaSet`
pub(crate) const REPLICA_SET: KindSpec = KindSpec {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    short: &["rs"],
    categories: &["all"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::scale("spec.replicas", "status.replicas", "spec.selector"), Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Desired", &Number("spec.replicas")).integer(),
        column("Current", &Number("status.replicas")).integer(),
        column("Ready", &Number("status.readyReplicas")).integer(),
        Column::AGE,
        wide("Containers", &Of(|o, _| print::joined_field(o.list_at("spec.template.spec.containers"), "name"))),
        wide("Images", &Of(|o, _| print::joined_field(o.list_at("spec.template.spec.containers"), "image"))),
        wide("Selector", &Of(|o, _| print::selector(o.path("spec.selector")))),
    ],
    facts: &[Fact::kept("status.replicas").zero("0")],
    served_by: Some("controllers"),
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

fn default(set: &mut Tree) {
    set.set_default("spec.replicas", 1);
    defaults::at(set, "spec.template.spec", defaults::pod_spec);
}
