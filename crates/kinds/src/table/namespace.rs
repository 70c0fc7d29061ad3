//! Namespace.

use crate::spec::{Fact, KindSpec, Subresource, SubresourceKind, Verbs};
use crate::{Column, TextOr, column};

/// `v1 Namespace`
pub(crate) const NAMESPACE: KindSpec = KindSpec {
    kind: "Namespace",
    plural: "namespaces",
    short: &["ns"],
    verbs: Verbs::OneByOne,
    subresources: &[Subresource::of("finalize", SubresourceKind::Update, &["update"]), Subresource::STATUS],
    columns: &[Column::NAME, column("Status", &TextOr("status.phase", "")), Column::AGE],
    facts: &[Fact::selectable("status.phase")],
    served_by: Some("controllers"),
    ..KindSpec::CLUSTER
};
