//! Lease.

use crate::spec::KindSpec;
use crate::{Column, TextOr, column};

/// `coordination.k8s.io/v1 Lease`
pub(crate) const LEASE: KindSpec = KindSpec {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    create_on_update: true,
    columns: &[Column::NAME, column("Holder", &TextOr("spec.holderIdentity", "")), Column::AGE],
    served_by: Some("controllers"),
    ..KindSpec::NAMESPACED
};
