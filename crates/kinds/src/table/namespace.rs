//! Namespace.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Fact, Hooks, KindSpec, Subresource, SubresourceKind, Verbs};
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
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

/// The label that names the namespace (unless generateName has yet to), and the phase.
fn default(namespace: &mut Tree) {
    let name = namespace.str_at("metadata.name").to_owned();
    if !name.is_empty() {
        let labels = namespace.make_map_at("metadata.labels");
        labels.insert("kubernetes.io/metadata.name", name);
        labels.sort_keys();
    }
    defaults::text(namespace, "status.phase", "Active");
}
