//! Secret.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Fact, Hooks, KindSpec};
use crate::{Column, Count, TextOr, column};

/// `v1 Secret`
pub(crate) const SECRET: KindSpec = KindSpec {
    kind: "Secret",
    plural: "secrets",
    columns: &[Column::NAME, column("Type", &TextOr("type", "")), column("Data", &Count("data")), Column::AGE],
    facts: &[Fact::selectable("type")],
    served_by: Some("node"),
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

fn default(secret: &mut Tree) {
    defaults::text(secret, "type", "Opaque");
}
