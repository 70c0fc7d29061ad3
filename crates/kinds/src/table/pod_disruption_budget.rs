//! PodDisruptionBudget.

use corten_tree::Tree;

use crate::Errors;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::validate::{Spot, conditions, labels, workload};
use crate::{Column, Number, Of, column, print};

/// `policy/v1 PodDisruptionBudget`
pub(crate) const POD_DISRUPTION_BUDGET: KindSpec = KindSpec {
    group: "policy",
    kind: "PodDisruptionBudget",
    unconditional_update: false,
    plural: "poddisruptionbudgets",
    short: &["pdb"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Min Available", &Of(|o, _| bound(o, "spec.minAvailable"))),
        column("Max Unavailable", &Of(|o, _| bound(o, "spec.maxUnavailable"))),
        column("Allowed Disruptions", &Number("status.disruptionsAllowed")).integer(),
        Column::AGE,
    ],
    served_by: Some("controllers"),
    hooks: Hooks { validate: Some(validate), validate_status: Some(validate_status), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

fn bound(budget: &Tree, path: &str) -> Tree {
    Tree::from(budget.path(path).map_or_else(|| "N/A".to_owned(), print::plain))
}

/// `ValidatePodDisruptionBudgetSpec`
fn validate(budget: &Tree, errors: &mut Errors) {
    let spec = Spot::of(budget, "spec");
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        spec.invalid("", "minAvailable and maxUnavailable cannot be both set", errors);
    }
    for field in ["minAvailable", "maxUnavailable"] {
        workload::int_or_percent(&spec, field, errors);
        workload::at_most_100_percent(&spec, field, errors);
    }
    labels::validate_selector(&spec.child("selector"), errors);
    spec.optional_one_of("unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"], errors);
}

fn validate_status(new: &Tree, _: &Tree, errors: &mut Errors) {
    let status = Spot::of(new, "status");
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        status.non_negative(field, errors);
    }
    for condition in status.items("conditions") {
        conditions::validate(&condition, errors);
    }
}
