//! PriorityClass.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec};
use crate::{Column, Number, Of, TextOr, column};

/// `scheduling.k8s.io/v1 PriorityClass`
pub(crate) const PRIORITY_CLASS: KindSpec = KindSpec {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    short: &["pc"],
    // Nothing of it may change but its metadata and description: generation stays 1.
    generation: Generation::OnChangeOf(&["value"]),
    columns: &[
        Column::NAME,
        column("Value", &Number("value")).integer(),
        column("Global-Default", &Of(|o, _| Tree::Bool(o.bool_at("globalDefault")))).boolean(),
        Column::AGE,
        column("PreemptionPolicy", &TextOr("preemptionPolicy", "")),
    ],
    served_by: Some("scheduler"),
    hooks: Hooks {
        default: Some(|class| defaults::value(class, "preemptionPolicy", "PreemptLowerPriority")),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};
