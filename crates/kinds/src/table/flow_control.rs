//! The kinds of `flowcontrol.apiserver.k8s.io`.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
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
    hooks: Hooks { default: Some(schema_default), ..Hooks::NONE },
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
    hooks: Hooks { default: Some(level_default), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

fn number(object: &Tree, path: &str) -> Tree {
    object.path(path).cloned().unwrap_or_else(|| Tree::from("<none>"))
}

fn schema_default(schema: &mut Tree) {
    if schema.i64_at("spec.matchingPrecedence").unwrap_or_default() == 0 {
        schema.set("spec.matchingPrecedence", 1000);
    }
}

fn level_default(level: &mut Tree) {
    for (part, shares) in [("spec.exempt", 0), ("spec.limited", 30)] {
        defaults::at(level, part, |part| {
            part.set_default("nominalConcurrencyShares", shares);
            part.set_default("lendablePercent", 0);
            defaults::at(part, "limitResponse.queuing", |queuing| {
                for (field, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                    if queuing.i64_at(field).unwrap_or_default() == 0 {
                        queuing.set(field, value);
                    }
                }
            });
        });
    }
}
