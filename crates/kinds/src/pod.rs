//! Pod.

use crate::Column;
use crate::spec::{Fact, Generation, KindSpec, Subresource};

/// `v1 Pod`
pub(crate) const POD: KindSpec = KindSpec {
    kind: "Pod",
    plural: "pods",
    short: &["po"],
    categories: &["all"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS],
    columns: &[Column::AGE],
    facts: &[Fact::indexed("spec.nodeName"), Fact::selectable("status.phase")],
    ..KindSpec::NAMESPACED
};
