//! Deployment.

use corten_object::LabelSelector;
use corten_object::managed::Ownable;
use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::validate::{Spot, workload};
use crate::{Column, Number, Of, RowContext, WriteContext, column, print, wide};
use crate::{Errors, warnings};

/// `apps/v1 Deployment`
pub(crate) const DEPLOYMENT: KindSpec = KindSpec {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    short: &["deploy"],
    categories: &["all"],
    // A rollback's annotations count, too.
    generation: Generation::OnChangeOf(&["spec", "metadata.annotations"]),
    subresources: &[
        Subresource::scale("spec.replicas", "status.replicas", "spec.selector"),
        Subresource::STATUS.owning(Ownable::Except(&["spec", "metadata.labels"])),
    ],
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
    immutable: &["spec.selector"],
    served_by: Some("controllers"),
    pod_spec: "spec.template.spec",
    hooks: Hooks {
        default: Some(default),
        prepare_status: Some(prepare_status),
        validate: Some(validate),
        validate_status: Some(validate_status),
        warnings: Some(warnings::template),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

/// A write of the status leaves the labels alone (`deploymentStatusStrategy.PrepareForUpdate`).
fn prepare_status(deployment: &mut Tree, old: &Tree, _: &WriteContext) {
    match old.path("metadata.labels") {
        Some(labels) => deployment.set("metadata.labels", labels.clone()),
        None => drop(deployment.remove("metadata.labels")),
    }
}

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

const WORKLOAD: workload::Workload = workload::Workload { selector_of: "deployment", kind: "ReplicaSet" };

/// `ValidateDeploymentSpec` in `pkg/apis/apps/validation/validation.go`.
fn validate(deployment: &Tree, errors: &mut Errors) {
    let spec = Spot::of(deployment, "spec");
    spec.non_negative("replicas", errors);
    workload::validate_workload_selector(&spec, &WORKLOAD, errors);
    workload::validate_restarting_template(&spec, &WORKLOAD, errors);
    strategy(&spec.child("strategy"), errors);
    spec.non_negative("minReadySeconds", errors);
    spec.non_negative("revisionHistoryLimit", errors);
    spec.non_negative("progressDeadlineSeconds", errors);
    let min_ready = spec.int("minReadySeconds").unwrap_or_default();
    if spec.int("progressDeadlineSeconds").is_some_and(|deadline| deadline <= min_ready) {
        spec.invalid("progressDeadlineSeconds", "must be greater than minReadySeconds", errors);
    }
}

fn strategy(strategy: &Spot<'_>, errors: &mut Errors) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.str("type") {
        "Recreate" => {
            if strategy.has("rollingUpdate") {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                strategy.forbidden("rollingUpdate", detail, errors);
            }
        }
        "RollingUpdate" => {
            workload::int_or_percent(&rolling, "maxUnavailable", errors);
            workload::int_or_percent(&rolling, "maxSurge", errors);
            let zero = |field| workload::int_or_percent_value(&rolling, field) == 0;
            if zero("maxUnavailable") && zero("maxSurge") {
                rolling.invalid("maxUnavailable", "may not be 0 when `maxSurge` is 0", errors);
            }
            workload::at_most_100_percent(&rolling, "maxUnavailable", errors);
        }
        _ => unsupported_strategy(strategy, &["Recreate", "RollingUpdate"], errors),
    }
}

/// Upstream shows the whole strategy.
pub(super) fn unsupported_strategy(strategy: &Spot<'_>, supported: &[&str], errors: &mut Errors) {
    errors.push(corten_object::FieldError::not_supported_value(&strategy.path, strategy.tree, supported));
}

/// `ValidateDeploymentStatusUpdate`
fn validate_status(new: &Tree, old: &Tree, errors: &mut Errors) {
    let status = Spot::of(new, "status");
    workload::validate_counts(
        &status,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ],
        &["updatedReplicas", "readyReplicas", "availableReplicas"],
        "readyReplicas",
        errors,
    );
    workload::collisions_only_grow(new, old, errors);
}
