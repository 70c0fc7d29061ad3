//! ReplicationController.

use crate::spec::{Fact, Generation, KindSpec, Subresource};
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
    ..KindSpec::NAMESPACED
};
