//! PodDisruptionBudget.

use corten_tree::Tree;

use crate::spec::{Generation, KindSpec, Subresource};
use crate::{Column, Number, Of, column, print};

/// `policy/v1 PodDisruptionBudget`
pub(crate) const POD_DISRUPTION_BUDGET: KindSpec = KindSpec {
    group: "policy",
    kind: "PodDisruptionBudget",
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
    ..KindSpec::NAMESPACED
};

fn bound(budget: &Tree, path: &str) -> Tree {
    Tree::from(budget.path(path).map_or_else(|| "N/A".to_owned(), print::plain))
}
