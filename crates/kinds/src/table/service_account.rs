//! ServiceAccount.

use crate::spec::{KindSpec, Subresource};

/// `v1 ServiceAccount`
pub(crate) const SERVICE_ACCOUNT: KindSpec = KindSpec {
    kind: "ServiceAccount",
    returns_deleted: true,
    plural: "serviceaccounts",
    short: &["sa"],
    subresources: &[Subresource::action("token", ("authentication.k8s.io", "v1", "TokenRequest"))],
    served_by: Some("controllers"),
    ..KindSpec::NAMESPACED
};
