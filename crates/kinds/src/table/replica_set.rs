//! ReplicaSet.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Fact, Generation, Hooks, KindSpec, Subresource};
use crate::validate::{Spot, workload};
use crate::{Column, Number, Of, column, print, wide};
use crate::{Errors, warnings};

/// `apps/v1 ReplicaSet`
pub(crate) const REPLICA_SET: KindSpec = KindSpec {
    group: "apps",
    kind: "ReplicaSet",
    adopted: true,
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
    immutable: &["spec.selector"],
    facts: &[Fact::kept("status.replicas").zero("0")],
    served_by: Some("controllers"),
    pod_spec: "spec.template.spec",
    hooks: Hooks {
        default: Some(default),
        validate: Some(validate),
        validate_status: Some(validate_status),
        warnings: Some(warnings::template),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

fn default(set: &mut Tree) {
    set.set_default("spec.replicas", 1);
    defaults::at(set, "spec.template.spec", defaults::pod_spec);
}

// The message says deployment upstream, too.
const WORKLOAD: workload::Workload = workload::Workload { selector_of: "deployment", kind: "ReplicaSet" };

/// `ValidateReplicaSetSpec`
fn validate(set: &Tree, errors: &mut Errors) {
    let spec = Spot::of(set, "spec");
    spec.non_negative("replicas", errors);
    spec.non_negative("minReadySeconds", errors);
    workload::validate_workload_selector(&spec, &WORKLOAD, errors);
    workload::validate_restarting_template(&spec, &WORKLOAD, errors);
}

fn validate_status(new: &Tree, _: &Tree, errors: &mut Errors) {
    let status = Spot::of(new, "status");
    workload::validate_counts(
        &status,
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
            "terminatingReplicas",
        ],
        &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        "readyReplicas",
        errors,
    );
}
