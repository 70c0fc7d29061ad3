//! The kinds of `flowcontrol.apiserver.k8s.io`.

use corten_tree::Tree;

use crate::print;
use crate::spec::{Generation, KindSpec, Subresource};
use crate::{Column, Number, Of, TextOr, column};

/// `flowcontrol.apiserver.k8s.io/v1 FlowSchema`
pub(crate) const FLOW_SCHEMA: KindSpec = KindSpec {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "FlowSchema",
    plural: "flowschemas",
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("PriorityLevel", &TextOr("spec.priorityLevelConfiguration.name", "")),
        column("MatchingPrecedence", &Number("spec.matchingPrecedence")),
        column("DistinguisherMethod", &TextOr("spec.distinguisherMethod.type", "<none>")),
        Column::AGE,
        column(
            "MissingPL",
            &Of(|o, _| {
                let dangling = o.list_at("status.conditions").iter().find(|c| c.str_at("type") == "Dangling");
                Tree::from(dangling.map_or("?", |c| c.str_at("status")))
            }),
        ),
    ],
    ..KindSpec::CLUSTER
};

/// `flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration`
pub(crate) const PRIORITY_LEVEL_CONFIGURATION: KindSpec = KindSpec {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Type", &TextOr("spec.type", "")),
        column("NominalConcurrencyShares", &Of(|o, _| number(o, "spec.limited.nominalConcurrencyShares"))),
        column("Queues", &Of(|o, _| number(o, "spec.limited.limitResponse.queuing.queues"))),
        column("HandSize", &Of(|o, _| number(o, "spec.limited.limitResponse.queuing.handSize"))),
        column("QueueLengthLimit", &Of(|o, _| number(o, "spec.limited.limitResponse.queuing.queueLengthLimit"))),
        Column::AGE,
    ],
    ..KindSpec::CLUSTER
};

fn number(object: &Tree, path: &str) -> Tree {
    object.path(path).cloned().unwrap_or_else(|| print::text_or(&Tree::Null, "", "<none>"))
}
