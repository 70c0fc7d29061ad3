//! ServiceAccount.

use corten_tree::Tree;

use crate::spec::{Hooks, KindSpec, Subresource};

/// `v1 ServiceAccount`
pub(crate) const SERVICE_ACCOUNT: KindSpec = KindSpec {
    kind: "ServiceAccount",
    returns_deleted: true,
    plural: "serviceaccounts",
    short: &["sa"],
    subresources: &[Subresource::action("token", ("authentication.k8s.io", "v1", "TokenRequest"))],
    served_by: Some("controllers"),
    hooks: Hooks { warnings: Some(warnings), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

/// An annotation that goes away, where it appears. (`warnIfHasEnforceMountableSecretsAnnotation`)
fn warnings(account: &Tree, old: Option<&Tree>) -> Vec<String> {
    const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
    let has = |tree: &Tree| tree.map_at("metadata.annotations").contains(ENFORCE);
    if !has(account) || old.is_some_and(has) {
        return Vec::new();
    }
    vec![format!(
        "metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
    )]
}
