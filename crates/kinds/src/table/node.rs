//! Node.

use std::collections::BTreeSet;

use corten_schema::internal;
use corten_tree::Tree;

use crate::Errors;
use crate::defaults;
use crate::print;
use crate::spec::{Fact, Hooks, KindSpec, PROXY, Subresource};
use crate::validate::labels::validate_label_name;
use crate::validate::{Spot, names, quantity, resources};
use crate::{Column, Of, RowContext, TextOr, column, wide};

/// `v1 Node`
pub(crate) const NODE: KindSpec = KindSpec {
    kind: "Node",
    plural: "nodes",
    short: &["no"],
    subresources: &[Subresource::connect("proxy", "NodeProxyOptions", PROXY), Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Status", &Of(status)),
        column("Roles", &Of(roles)),
        Column::AGE,
        column("Version", &TextOr("status.nodeInfo.kubeletVersion", "")),
        wide("Internal-IP", &Of(|o, _| address(o, "InternalIP"))),
        wide("External-IP", &Of(|o, _| address(o, "ExternalIP"))),
        wide("OS-Image", &TextOr("status.nodeInfo.osImage", "<unknown>")),
        wide("Kernel-Version", &Of(kernel)),
        wide("Container-Runtime", &TextOr("status.nodeInfo.containerRuntimeVersion", "<unknown>")),
    ],
    facts: &[Fact::selectable("spec.unschedulable").zero("false")],
    status_on_create: true,
    served_by: Some("node"),
    hooks: Hooks {
        default: Some(default),
        prepare_create: Some(|node, _| drop_config(node, None)),
        prepare_status: Some(|node, old, _| drop_config(node, Some(old))),
        validate: Some(validate),
        validate_update: Some(validate_update),
        validate_status: Some(validate_status),
        warnings: Some(warnings),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

/// `fieldIsDeprecatedWarnings`
fn warnings(node: &Tree, _: Option<&Tree>) -> Vec<String> {
    let spec = Spot::of(node, "spec");
    let mut out = Vec::new();
    if spec.has("configSource") {
        out.push("spec.configSource: the feature is removed".to_owned());
    }
    if !spec.str("externalID").is_empty() {
        out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    for range in spec.items("podCIDRs") {
        crate::warnings::range(&range.path, range.str(""), &mut out);
    }
    out
}

fn status(node: &Tree, _: &RowContext) -> Tree {
    let ready = node.list_at("status.conditions").iter().rev().find(|c| c.str_at("type") == "Ready");
    let text = match ready.map(|c| c.str_at("status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = node.bool_at("spec.unschedulable");
    Tree::from(if cordoned { format!("{text},SchedulingDisabled") } else { text.to_owned() })
}

fn roles(node: &Tree, _: &RowContext) -> Tree {
    let role = |(key, value): (&str, &Tree)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => Some(role.to_owned()),
        None if key == "kubernetes.io/role" => value.as_str().map(str::to_owned),
        None => None,
    };
    let roles: BTreeSet<String> =
        node.map_at("metadata.labels").iter().filter_map(role).filter(|r| !r.is_empty()).collect();
    let roles: Vec<String> = roles.into_iter().collect();
    Tree::from(if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") })
}

fn address(node: &Tree, kind: &str) -> Tree {
    let found = node.list_at("status.addresses").iter().find(|a| a.str_at("type") == kind);
    Tree::from(found.map_or("<none>", |a| a.str_at("address")))
}

fn kernel(node: &Tree, _: &RowContext) -> Tree {
    let version = print::text_or(node, "status.nodeInfo.kernelVersion", "<unknown>");
    match node.str_at("status.nodeInfo.architecture") {
        "" => version,
        architecture => Tree::from(format!("{} ({architecture})", version.as_str().unwrap_or_default())),
    }
}

/// What `v1` has two fields for is one list in memory; the older field wins. (`Convert_v1_NodeSpec_To_core_NodeSpec`)
fn pod_cidrs(node: &mut Tree) {
    let one = node.str_at("spec.podCIDR").to_owned();
    let first = node.list_at("spec.podCIDRs").first().and_then(Tree::as_str).unwrap_or_default().to_owned();
    if !one.is_empty() && one != first {
        node.set("spec.podCIDRs", Tree::List(vec![one.into()]));
    } else if one.is_empty() && !first.is_empty() {
        node.set("spec.podCIDR", first);
    }
}

/// What is gone for good may stay where it was. (`dropDisabledFields`)
fn drop_config(node: &mut Tree, old: Option<&Tree>) {
    for field in ["spec.configSource", "status.config"] {
        if old.is_none_or(|old| old.path(field).is_none_or(Tree::is_null)) {
            node.remove(field);
        }
    }
}

fn default(node: &mut Tree) {
    pod_cidrs(node);
    for list in ["status.capacity", "status.allocatable"] {
        defaults::resource_list(node, list);
    }
    if let Some(capacity) = node.path("status.capacity").cloned() {
        node.set_default("status.allocatable", capacity);
    }
}

/// `ValidateNode`
fn validate(node: &Tree, errors: &mut Errors) {
    let mut seen = Vec::new();
    // Upstream reports taints below metadata.
    let path = corten_tree::FieldPath::of("metadata.taints");
    for (i, taint) in node.list_at("spec.taints").iter().enumerate() {
        let taint = Spot::at(taint, path.index(i));
        validate_label_name(&taint, "key", errors);
        let faults = names::label_value(taint.str("value"));
        if !faults.is_empty() {
            taint.invalid("value", faults.join(";"), errors);
        }
        taint.one_of("effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
        let pair = (taint.str("key"), taint.str("effect"));
        if seen.contains(&pair) {
            let shown = internal::shown_as(corten_schema::builtin(), "core.v1.Taint", taint.tree);
            let body = format!("Duplicate value: {shown}: taints must be unique by key and effect pair");
            errors.push(crate::validate::fault(&taint.path, corten_object::CauseKind::Duplicate, body));
        }
        seen.push(pair);
    }
    avoided_pods(node, errors);
    validate_pod_cidrs(&Spot::of(node, "spec"), errors);
    for list in ["capacity", "allocatable"] {
        let list = Spot::of(node, "status").child(list);
        for (name, value) in list.map("").iter() {
            let at = Spot::at(value, list.path.child(name));
            if let Some(amount) = quantity(value) {
                resources::quantity_value(&at, name, &amount, errors);
            }
        }
    }
}

/// `ValidateAvoidPodsInNodeAnnotations`
fn avoided_pods(node: &Tree, errors: &mut Errors) {
    const KEY: &str = "scheduler.alpha.kubernetes.io/preferAvoidPods";
    let annotations = Spot::of(node, "metadata.annotations");
    let text = annotations.map("").get(KEY).and_then(Tree::as_str).unwrap_or_default();
    if text.is_empty() {
        return;
    }
    let avoids = match corten_tree::json::parse(text.as_bytes()) {
        Ok(avoids) => avoids,
        Err(error) => return annotations.invalid_as("AvoidPods", KEY, error.message, errors),
    };
    let list = annotations.path.child(KEY);
    for (i, entry) in avoids.list_at("preferAvoidPods").iter().enumerate() {
        let signature = Spot::at(entry, list.index(i)).child("podSignature");
        let signature = Spot::at(signature.tree, list.index(i).child("PodSignature"));
        match signature.some("podController") {
            None => signature.required("", "", errors),
            Some(controller) if controller.bool("controller") => {}
            Some(_) => {
                let path = signature.path.child("PodController").child("Controller");
                Spot::at(&Tree::Bool(false), path).invalid_as("", false, "must point to a controller", errors);
            }
        }
    }
}

fn validate_pod_cidrs(spec: &Spot<'_>, errors: &mut Errors) {
    let ranges = spec.items("podCIDRs");
    for range in &ranges {
        range.each("", names::cidr(range.str("")), errors);
    }
    let of_six = ranges.iter().filter(|range| range.str("").contains(':')).count();
    let dual = of_six > 0 && of_six < ranges.len();
    if ranges.len() > 2 || (ranges.len() == 2 && !dual) {
        let detail = "may specify no more than one CIDR for each IP family";
        spec.invalid_as("podCIDRs", spec.list("podCIDRs").to_vec(), detail, errors);
    }
}

/// `ValidateNodeUpdate`
fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let (spec, before) = (Spot::of(new, "spec"), Spot::of(old, "spec"));
    if !before.list("podCIDRs").is_empty() && before.list("podCIDRs") != spec.list("podCIDRs") {
        spec.forbidden("podCIDRs", "node updates may not change podCIDR except from \"\" to valid", errors);
    }
    if spec.str("externalID") != before.str("externalID") {
        spec.forbidden("externalID", "may not be updated", errors);
    }
    let addresses = Spot::of(new, "status").items("addresses");
    for (i, address) in addresses.iter().enumerate() {
        if addresses[..i].iter().any(|before| before.tree == address.tree) {
            address.duplicate("", errors);
        }
    }
    let (now, was) = (spec.str("providerID"), before.str("providerID"));
    if !was.is_empty() && now != was {
        let detail =
            if now.is_empty() { "field cannot be cleared once set" } else { "field cannot be modified once set" };
        spec.invalid_as("providerID", Tree::Null, detail, errors);
    }
}

fn validate_status(new: &Tree, old: &Tree, errors: &mut Errors) {
    validate(new, errors);
    validate_update(new, old, errors);
}
