//! StatefulSet.

use super::deployment::ready;
use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::{Column, Of, column, print, wide};

/// `apps/v1 StatefulSet`
pub(crate) const STATEFUL_SET: KindSpec = KindSpec {
    group: "apps",
    kind: "StatefulSet",
    plural: "statefulsets",
    short: &["sts"],
    categories: &["all"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::scale("spec.replicas", "status.replicas", "spec.selector"), Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Ready", &Of(ready)),
        Column::AGE,
        wide("Containers", &Of(|o, _| print::joined_field(o.list_at("spec.template.spec.containers"), "name"))),
        wide("Images", &Of(|o, _| print::joined_field(o.list_at("spec.template.spec.containers"), "image"))),
    ],
    served_by: Some("controllers"),
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

/// `SetDefaults_StatefulSet` in `pkg/apis/apps/v1/defaults.go`.
fn default(set: &mut Tree) {
    defaults::at(set, "spec", |spec| {
        defaults::text(spec, "podManagementPolicy", "OrderedReady");
        if spec.str_at("updateStrategy.type").is_empty() {
            spec.set("updateStrategy.type", "RollingUpdate");
            spec.set_default("updateStrategy.rollingUpdate", Tree::map());
        }
        if spec.str_at("updateStrategy.type") == "RollingUpdate" {
            defaults::at(spec, "updateStrategy.rollingUpdate", |rolling| {
                rolling.set_default("partition", 0);
                rolling.set_default("maxUnavailable", 1);
            });
        }
        defaults::text(spec, "persistentVolumeClaimRetentionPolicy.whenDeleted", "Retain");
        defaults::text(spec, "persistentVolumeClaimRetentionPolicy.whenScaled", "Retain");
        spec.set_default("replicas", 1);
        spec.set_default("revisionHistoryLimit", 10);
        defaults::at(spec, "template.spec", defaults::pod_spec);
        defaults::each(spec, "volumeClaimTemplates", |claim| {
            defaults::claim_spec(claim);
            defaults::text(claim, "status.phase", "Pending");
        });
    });
}
