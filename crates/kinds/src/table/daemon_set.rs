//! DaemonSet.

use crate::spec::{Generation, KindSpec, Subresource};
use crate::{Column, Number, Of, column, print, wide};

/// `apps/v1 DaemonSet`
pub(crate) const DAEMON_SET: KindSpec = KindSpec {
    group: "apps",
    kind: "DaemonSet",
    plural: "daemonsets",
    short: &["ds"],
    categories: &["all"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Desired", &Number("status.desiredNumberScheduled")).integer(),
        column("Current", &Number("status.currentNumberScheduled")).integer(),
        column("Ready", &Number("status.numberReady")).integer(),
        column("Up-to-date", &Number("status.updatedNumberScheduled")).integer(),
        column("Available", &Number("status.numberAvailable")).integer(),
        column("Node Selector", &Of(|o, _| print::labels(o.map_at("spec.template.spec.nodeSelector")))),
        Column::AGE,
        wide("Containers", &Of(|o, _| print::joined_field(o.list_at("spec.template.spec.containers"), "name"))),
        wide("Images", &Of(|o, _| print::joined_field(o.list_at("spec.template.spec.containers"), "image"))),
        wide("Selector", &Of(|o, _| print::selector(o.path("spec.selector")))),
    ],
    served_by: Some("controllers"),
    ..KindSpec::NAMESPACED
};
