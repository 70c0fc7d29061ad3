//! The kinds of `resource.k8s.io` (dynamic resource allocation).

use corten_object::time;
use corten_tree::Tree;

use crate::print;
use crate::spec::{Fact, Generation, Hooks, KindSpec, Subresource};
use crate::validate::{Spot, device_claim, device_slice};
use crate::{Column, Of, RowContext, TextOr, WriteContext, column};

const GROUP: &str = "resource.k8s.io";

/// `resource.k8s.io/v1 DeviceClass`
pub(crate) const DEVICE_CLASS: KindSpec = KindSpec {
    group: GROUP,
    kind: "DeviceClass",
    returns_deleted: true,
    plural: "deviceclasses",
    generation: Generation::OnChangeOf(&["spec"]),
    hooks: Hooks {
        validate_create: Some(|class, errors| device_claim::validate_class(class, None, errors)),
        validate_update: Some(|new, old, errors| device_claim::validate_class(new, Some(old), errors)),
        ..Hooks::NONE
    },
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
    hooks: Hooks {
        prepare_create: Some(taint_time),
        prepare_update: Some(taint_moved),
        validate: Some(device_claim::validate_taint_rule),
        validate_status: Some(device_claim::validate_taint_rule_status),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

/// `SetDefaults_DeviceTaint`
fn taint_time(rule: &mut Tree, context: &WriteContext) {
    if rule.path("spec.taint").is_some() && rule.path("spec.taint.timeAdded").is_none() {
        rule.set("spec.taint.timeAdded", time::format(context.now));
    }
}

/// The time is when the effect was added, as far as the client does not say otherwise (`deviceTaintRuleStrategy`).
fn taint_moved(rule: &mut Tree, old: &Tree, context: &WriteContext) {
    taint_time(rule, context);
    let differs = |field: &str| rule.path(field) != old.path(field);
    if differs("spec.taint.effect") && !differs("spec.taint.timeAdded") {
        rule.set("spec.taint.timeAdded", time::format(context.now));
    }
}

/// `resource.k8s.io/v1 ResourceClaim`
pub(crate) const RESOURCE_CLAIM: KindSpec = KindSpec {
    group: GROUP,
    kind: "ResourceClaim",
    returns_deleted: true,
    plural: "resourceclaims",
    counting: crate::quota::Counting::Evaluated(&crate::quota::RESOURCE_CLAIMS),
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
    columns: &[Column::NAME, column("State", &Of(state)), Column::AGE],
    hooks: Hooks {
        default: Some(|claim| device_claim::default_spec(claim, "spec")),
        prepare_create: Some(|claim, _| device_claim::drop_disabled(claim, "spec")),
        prepare_status: Some(drop_deallocated),
        validate_create: Some(|claim, errors| device_claim::validate_spec(&Spot::of(claim, "spec"), errors)),
        validate_status: Some(device_claim::validate_status),
        validate_in_namespace: Some(|new, old, labels, errors| {
            device_claim::admin_access(new, old, "spec", labels, errors);
        }),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

/// `resource.k8s.io/v1 ResourceClaimTemplate`
pub(crate) const RESOURCE_CLAIM_TEMPLATE: KindSpec = KindSpec {
    group: GROUP,
    kind: "ResourceClaimTemplate",
    plural: "resourceclaimtemplates",
    immutable: &["spec"],
    hooks: Hooks {
        default: Some(|template| device_claim::default_spec(template, "spec.spec")),
        prepare_create: Some(|template, _| device_claim::drop_disabled(template, "spec.spec")),
        validate_create: Some(device_claim::validate_template),
        validate_in_namespace: Some(|new, old, labels, errors| {
            device_claim::admin_access(new, old, "spec.spec", labels, errors);
        }),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

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
    hooks: Hooks {
        prepare_create: Some(|slice, _| device_slice::drop_disabled(slice)),
        validate_create: Some(|slice, errors| device_slice::validate(slice, None, errors)),
        validate_update: Some(|new, old, errors| device_slice::validate(new, Some(old), errors)),
        ..Hooks::NONE
    },
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

/// What a claim's device reported goes with the allocation. (`dropDeallocatedStatusDevices`)
fn drop_deallocated(new: &mut Tree, old: &Tree, _: &crate::WriteContext) {
    let results = |tree: &Tree| tree.list_at("status.allocation.devices.results").to_vec();
    let id = |tree: &Tree| ["driver", "pool", "device", "shareID"].map(|field| tree.str_at(field).to_owned());
    let kept: Vec<_> = results(new).iter().map(id).collect();
    let gone: Vec<_> = results(old).iter().map(id).filter(|id| !kept.contains(id)).collect();
    if gone.is_empty() {
        return;
    }
    if let Some(devices) = new.path_mut("status.devices").and_then(Tree::as_list_mut) {
        devices.retain(|device| !gone.contains(&id(device)));
        if devices.is_empty() {
            new.remove("status.devices");
        }
    }
}
