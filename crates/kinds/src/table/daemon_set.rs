//! DaemonSet.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::validate::{Spot, labels, pod, workload};
use crate::{Column, Number, Of, column, print, wide};
use crate::{Errors, WriteContext, warnings};

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
    immutable: &["spec.selector"],
    served_by: Some("controllers"),
    pod_spec: "spec.template.spec",
    hooks: Hooks {
        default: Some(default),
        prepare_create: Some(prepare_create),
        prepare_update: Some(prepare_update),
        validate: Some(validate),
        validate_status: Some(validate_status),
        warnings: Some(warnings::template),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

/// `SetDefaults_DaemonSet` in `pkg/apis/apps/v1/defaults.go`.
fn default(set: &mut Tree) {
    // In memory upstream has a number, which `apps/v1` always shows (`pkg/apis/apps/v1/conversion.go`).
    if !set.map_at("metadata.annotations").contains(TEMPLATE_GENERATION) {
        let annotations = set.make_map_at("metadata.annotations");
        annotations.insert(TEMPLATE_GENERATION, "0");
        annotations.sort_keys();
    }
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

/// The annotation in which `apps/v1` shows the template's generation, which has no field there.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn prepare_create(set: &mut Tree, _: &WriteContext) {
    let annotations = set.make_map_at("metadata.annotations");
    let given = annotations.get(TEMPLATE_GENERATION).and_then(Tree::as_str).and_then(|t| t.parse::<i64>().ok());
    annotations.insert(TEMPLATE_GENERATION, given.unwrap_or_default().max(1).to_string());
    annotations.sort_keys();
}

/// The template's generation grows with the template, and no client may set it.
fn prepare_update(set: &mut Tree, old: &Tree, _: &WriteContext) {
    let before = old.map_at("metadata.annotations").get(TEMPLATE_GENERATION).and_then(Tree::as_str);
    let before = before.and_then(|t| t.parse::<i64>().ok()).unwrap_or(1);
    let null = Tree::Null;
    let template = |tree: &Tree| tree.path("spec.template").unwrap_or(&null).clone();
    let changed = !template(set).semantically_equal(&template(old));
    let annotations = set.make_map_at("metadata.annotations");
    annotations.insert(TEMPLATE_GENERATION, (before + i64::from(changed)).to_string());
    annotations.sort_keys();
}

const WORKLOAD: workload::Workload = workload::Workload { selector_of: "daemonset", kind: "DaemonSet" };

/// `ValidateDaemonSetSpec`
fn validate(set: &Tree, errors: &mut Errors) {
    let spec = Spot::of(set, "spec");
    labels::validate_selector(&spec.child("selector"), errors);
    workload::validate_selected_labels(&spec, None, errors);
    if let Some(selector) = spec.some("selector")
        && !labels::selects_something(selector.tree)
    {
        selector.invalid("", "empty selector is invalid for daemonset", errors);
    }
    let template = spec.child("template");
    pod::validate_template(&template, errors);
    workload::restarts_always(&template, &WORKLOAD, errors);
    spec.non_negative("minReadySeconds", errors);
    strategy(&spec.child("updateStrategy"), errors);
    spec.non_negative("revisionHistoryLimit", errors);
}

fn strategy(strategy: &Spot<'_>, errors: &mut Errors) {
    match strategy.str("type") {
        "OnDelete" => return,
        "RollingUpdate" => {}
        _ => {
            super::deployment::unsupported_strategy(strategy, &["RollingUpdate", "OnDelete"], errors);
            return;
        }
    }
    let Some(rolling) = strategy.some("rollingUpdate") else {
        strategy.required("rollingUpdate", "", errors);
        return;
    };
    for check in [workload::int_or_percent, workload::at_most_100_percent] {
        check(&rolling, "maxUnavailable", errors);
        check(&rolling, "maxSurge", errors);
    }
    let some = |field| workload::int_or_percent_value(&rolling, field) != 0;
    match (some("maxUnavailable"), some("maxSurge")) {
        (true, true) => rolling.invalid("maxSurge", "may not be set when maxUnavailable is non-zero", errors),
        (false, false) => rolling.required("maxUnavailable", "cannot be 0 when maxSurge is 0", errors),
        _ => {}
    }
}

/// `ValidateDaemonSetStatusUpdate`
fn validate_status(new: &Tree, old: &Tree, errors: &mut Errors) {
    let status = Spot::of(new, "status");
    for count in [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ] {
        status.non_negative(count, errors);
    }
    workload::collisions_only_grow(new, old, errors);
}
