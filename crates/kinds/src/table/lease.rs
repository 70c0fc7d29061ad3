//! Lease.

use corten_tree::Tree;

use crate::Errors;
use crate::spec::{Hooks, KindSpec};
use crate::validate::Spot;
use crate::{Column, TextOr, column};

/// `coordination.k8s.io/v1 Lease`
pub(crate) const LEASE: KindSpec = KindSpec {
    group: "coordination.k8s.io",
    kind: "Lease",
    unconditional_update: false,
    plural: "leases",
    create_on_update: true,
    columns: &[Column::NAME, column("Holder", &TextOr("spec.holderIdentity", "")), Column::AGE],
    served_by: Some("controllers"),
    hooks: Hooks {
        prepare_create: Some(|lease, _| drop_disabled(lease, &Tree::Null)),
        prepare_update: Some(|new, old, _| drop_disabled(new, old)),
        validate: Some(validate),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

/// Coordinated leader election is off by default. (`PrepareForCreate`, `PrepareForUpdate`)
fn drop_disabled(lease: &mut Tree, old: &Tree) {
    for field in ["spec.strategy", "spec.preferredHolder"].into_iter().filter(|field| old.path(field).is_none()) {
        lease.remove(field);
    }
}

fn validate(lease: &Tree, errors: &mut Errors) {
    let spec = Spot::of(lease, "spec");
    if spec.int("leaseDurationSeconds").is_some_and(|s| s <= 0) {
        spec.invalid("leaseDurationSeconds", "must be greater than 0", errors);
    }
    spec.non_negative("leaseTransitions", errors);
    if !spec.str("preferredHolder").is_empty() && spec.str("strategy").is_empty() {
        spec.forbidden("preferredHolder", "may only be specified if `strategy` is defined", errors);
    }
}
