//! DaemonSet.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
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
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

/// `SetDefaults_DaemonSet` in `pkg/apis/apps/v1/defaults.go`.
fn default(set: &mut Tree) {
    defaults::at(set, "spec", |spec| {
        defaults::text(spec, "updateStrategy.type", "RollingUpdate");
        if spec.str_at("updateStrategy.type") == "RollingUpdate" {
            spec.set_default("updateStrategy.rollingUpdate.maxUnavailable", 1);
            spec.set_default("updateStrategy.rollingUpdate.maxSurge", 0);
        }
        spec.set_default("revisionHistoryLimit", 10);
        defaults::at(spec, "template.spec", defaults::pod_spec);
    });
}
