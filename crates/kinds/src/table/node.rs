//! Node.

use std::collections::BTreeSet;

use corten_tree::Tree;

use crate::defaults;
use crate::print;
use crate::spec::{Fact, Hooks, KindSpec, PROXY, Subresource};
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
    served_by: Some("node"),
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

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

fn default(node: &mut Tree) {
    for list in ["status.capacity", "status.allocatable"] {
        defaults::resource_list(node, list);
    }
    if let Some(capacity) = node.path("status.capacity").cloned() {
        node.set_default("status.allocatable", capacity);
    }
}
