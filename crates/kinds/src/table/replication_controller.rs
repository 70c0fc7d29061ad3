//! ReplicationController.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Fact, Generation, Hooks, KindSpec, Subresource};
use crate::{Column, Number, Of, column, print, wide};

/// `v1 ReplicationController`
pub(crate) const REPLICATION_CONTROLLER: KindSpec = KindSpec {
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    short: &["rc"],
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
        wide("Selector", &Of(|o, _| print::labels(o.map_at("spec.selector")))),
    ],
    facts: &[Fact::selectable("status.replicas").zero("0")],
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

/// `SetDefaults_ReplicationController`: the template's labels are selector and labels of the controller.
fn default(controller: &mut Tree) {
    defaults::labels_from(controller, "spec.template.metadata.labels", "spec.selector");
    defaults::labels_from(controller, "spec.template.metadata.labels", "metadata.labels");
    controller.set_default("spec.replicas", 1);
    defaults::at(controller, "spec.template.spec", defaults::pod_spec);
}
