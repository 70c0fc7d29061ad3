//! The kinds of `resource.k8s.io` (dynamic resource allocation).

use corten_tree::Tree;

use crate::print;
use crate::spec::{Fact, Generation, KindSpec, Subresource};
use crate::{Column, Of, RowContext, TextOr, column};

const GROUP: &str = "resource.k8s.io";

/// `resource.k8s.io/v1 DeviceClass`
pub(crate) const DEVICE_CLASS: KindSpec = KindSpec {
    group: GROUP,
    kind: "DeviceClass",
    returns_deleted: true,
    plural: "deviceclasses",
    generation: Generation::OnChangeOf(&["spec"]),
    ..KindSpec::CLUSTER
};

/// `resource.k8s.io/v1 DeviceTaintRule`
pub(crate) const DEVICE_TAINT_RULE: KindSpec = KindSpec {
    group: GROUP,
    kind: "DeviceTaintRule",
    plural: "devicetaintrules",
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
    columns: &[
        Column::NAME,
        column("Key", &TextOr("spec.taint.key", "")),
        column("Value", &TextOr("spec.taint.value", "")),
        column("Effect", &TextOr("spec.taint.effect", "")),
        column("TimeAdded", &Of(time_added)),
        Column::AGE,
    ],
    ..KindSpec::CLUSTER
};

/// `resource.k8s.io/v1 ResourceClaim`
pub(crate) const RESOURCE_CLAIM: KindSpec = KindSpec {
    group: GROUP,
    kind: "ResourceClaim",
    returns_deleted: true,
    plural: "resourceclaims",
    counting: crate::quota::Counting::Evaluated(&crate::quota::RESOURCE_CLAIMS),
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
    columns: &[Column::NAME, column("State", &Of(state)), Column::AGE],
    ..KindSpec::NAMESPACED
};

/// `resource.k8s.io/v1 ResourceClaimTemplate`
pub(crate) const RESOURCE_CLAIM_TEMPLATE: KindSpec =
    KindSpec { group: GROUP, kind: "ResourceClaimTemplate", plural: "resourceclaimtemplates", ..KindSpec::NAMESPACED };

/// `resource.k8s.io/v1 ResourceSlice`
pub(crate) const RESOURCE_SLICE: KindSpec = KindSpec {
    group: GROUP,
    kind: "ResourceSlice",
    returns_deleted: true,
    plural: "resourceslices",
    generation: Generation::OnChangeOf(&["spec"]),
    columns: &[
        Column::NAME,
        column("Node", &TextOr("spec.nodeName", "")),
        column("Driver", &TextOr("spec.driver", "")),
        column("Pool", &TextOr("spec.pool.name", "")),
        Column::AGE,
    ],
    facts: &[Fact::selectable("spec.nodeName"), Fact::selectable("spec.driver"), Fact::selectable("spec.pool.name")],
    ..KindSpec::CLUSTER
};

fn time_added(rule: &Tree, context: &RowContext) -> Tree {
    Tree::from(match rule.path("spec.taint.timeAdded") {
        Some(_) => print::since(rule, "spec.taint.timeAdded", context),
        None => String::new(),
    })
}

fn state(claim: &Tree, _: &RowContext) -> Tree {
    let deleted = claim.path("metadata.deletionTimestamp").is_some();
    let allocated = claim.path("status.allocation").is_some();
    let reserved = allocated && !claim.list_at("status.reservedFor").is_empty();
    let states =
        [(deleted, "deleted"), (!allocated && !deleted, "pending"), (allocated, "allocated"), (reserved, "reserved")];
    Tree::from(states.iter().filter(|(holds, _)| *holds).map(|(_, name)| *name).collect::<Vec<_>>().join(","))
}
