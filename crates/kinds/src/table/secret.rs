//! Secret.

use crate::spec::{Fact, KindSpec};
use crate::{Column, Count, TextOr, column};

/// `v1 Secret`
pub(crate) const SECRET: KindSpec = KindSpec {
    kind: "Secret",
    plural: "secrets",
    columns: &[Column::NAME, column("Type", &TextOr("type", "")), column("Data", &Count("data")), Column::AGE],
    facts: &[Fact::selectable("type")],
    served_by: Some("node"),
    ..KindSpec::NAMESPACED
};
