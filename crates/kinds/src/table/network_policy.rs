//! NetworkPolicy.

use crate::spec::{Generation, KindSpec};
use crate::{Column, Of, column, print};

/// `networking.k8s.io/v1 NetworkPolicy`
pub(crate) const NETWORK_POLICY: KindSpec = KindSpec {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    short: &["netpol"],
    generation: Generation::OnChangeOf(&["spec"]),
    columns: &[
        Column::NAME,
        column("Pod-Selector", &Of(|o, _| print::selector(o.path("spec.podSelector")))),
        Column::AGE,
    ],
    ..KindSpec::NAMESPACED
};
