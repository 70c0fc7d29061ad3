//! The small kinds of `networking.k8s.io`.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::{Column, Of, RowContext, TextOr, column, print};

/// `networking.k8s.io/v1 IngressClass`
pub(crate) const INGRESS_CLASS: KindSpec = KindSpec {
    group: "networking.k8s.io",
    kind: "IngressClass",
    plural: "ingressclasses",
    generation: Generation::OnChangeOf(&["spec"]),
    columns: &[
        Column { cell: &Of(class_name), ..Column::NAME },
        column("Controller", &TextOr("spec.controller", "")),
        column("Parameters", &Of(parameters)),
        Column::AGE,
    ],
    hooks: Hooks { default: Some(class_default), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

/// `networking.k8s.io/v1 IPAddress`
pub(crate) const IP_ADDRESS: KindSpec = KindSpec {
    group: "networking.k8s.io",
    kind: "IPAddress",
    plural: "ipaddresses",
    short: &["ip"],
    columns: &[Column::NAME, column("ParentRef", &Of(parent))],
    ..KindSpec::CLUSTER
};

/// `networking.k8s.io/v1 ServiceCIDR`
pub(crate) const SERVICE_CIDR: KindSpec = KindSpec {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("CIDRs", &Of(|o, _| Tree::from(print::joined(o.list_at("spec.cidrs"), ",")))),
        Column::AGE,
    ],
    ..KindSpec::CLUSTER
};

fn class_name(class: &Tree, _: &RowContext) -> Tree {
    let annotation = class.at(&["metadata", "annotations", "ingressclass.kubernetes.io/is-default-class"]);
    let name = class.str_at("metadata.name");
    let default = annotation.and_then(Tree::as_str) == Some("true");
    Tree::from(if default { format!("{name} (default)") } else { name.to_owned() })
}

fn parameters(class: &Tree, _: &RowContext) -> Tree {
    let Some(parameters) = class.path("spec.parameters") else { return Tree::from("<none>") };
    let (kind, name) = (parameters.str_at("kind"), parameters.str_at("name"));
    Tree::from(match parameters.path("apiGroup").and_then(Tree::as_str) {
        Some(group) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    })
}

fn parent(address: &Tree, _: &RowContext) -> Tree {
    let Some(parent) = address.path("spec.parentRef") else { return Tree::from("<none>") };
    let (group, resource) = (parent.str_at("group"), parent.str_at("resource"));
    let mut text = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }.to_lowercase();
    if !parent.str_at("namespace").is_empty() {
        text = format!("{text}/{}", parent.str_at("namespace"));
    }
    Tree::from(format!("{text}/{}", parent.str_at("name")))
}

fn class_default(class: &mut Tree) {
    defaults::at(class, "spec.parameters", |parameters| defaults::value(parameters, "scope", "Cluster"));
}
