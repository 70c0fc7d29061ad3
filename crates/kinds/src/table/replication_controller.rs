//! ReplicationController.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Fact, Generation, Hooks, KindSpec, Subresource};
use crate::validate::{Spot, pod, workload};
use crate::{Column, Number, Of, column, print, wide};
use crate::{Errors, warnings};

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
    orphans_by_default: true,
    facts: &[Fact::selectable("status.replicas").zero("0")],
    counting: crate::quota::Counting::ObjectsAndPlural,
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

/// `SetDefaults_ReplicationController`: the template's labels are selector and labels of the controller.
fn default(controller: &mut Tree) {
    defaults::labels_from(controller, "spec.template.metadata.labels", "spec.selector");
    defaults::labels_from(controller, "spec.template.metadata.labels", "metadata.labels");
    controller.set_default("spec.replicas", 1);
    defaults::at(controller, "spec.template.spec", defaults::pod_spec);
}

const WORKLOAD: workload::Workload =
    workload::Workload { selector_of: "replicationcontroller", kind: "ReplicationController" };

/// `ValidateReplicationControllerSpec`
fn validate(controller: &Tree, errors: &mut Errors) {
    let spec = Spot::of(controller, "spec");
    spec.non_negative("minReadySeconds", errors);
    let selector = spec.map("selector");
    if selector.is_empty() {
        spec.required("selector", "", errors);
    }
    spec.non_negative("replicas", errors);
    let Some(template) = spec.some("template") else {
        spec.required("template", "", errors);
        return;
    };
    let own = template.map("metadata.labels");
    if !selector.iter().all(|(key, value)| own.get(key) == Some(value)) {
        template.invalid("metadata.labels", "`selector` does not match template `labels`", errors);
    }
    pod::validate_template(&template, errors);
    workload::restarts_always(&template, &WORKLOAD, errors);
}

fn validate_status(new: &Tree, _: &Tree, errors: &mut Errors) {
    let status = Spot::of(new, "status");
    workload::validate_counts(
        &status,
        &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"],
        &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        "readyReplicas",
        errors,
    );
}
