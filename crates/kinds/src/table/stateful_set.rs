//! StatefulSet.

use super::deployment::ready;
use crate::spec::{Generation, KindSpec, Subresource};
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
    ..KindSpec::NAMESPACED
};
