//! The small kinds of `networking.k8s.io`.

use corten_tree::Tree;

use crate::Errors;
use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::validate::{IMMUTABLE, Spot, names};
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
    immutable: &["spec.controller"],
    hooks: Hooks { default: Some(class_default), validate: Some(class_validate), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

/// `networking.k8s.io/v1 IPAddress`
pub(crate) const IP_ADDRESS: KindSpec = KindSpec {
    group: "networking.k8s.io",
    kind: "IPAddress",
    plural: "ipaddresses",
    short: &["ip"],
    columns: &[Column::NAME, column("ParentRef", &Of(parent))],
    name_check: names::canonical_ip,
    hooks: Hooks { validate: Some(address_validate), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

/// `networking.k8s.io/v1 ServiceCIDR`
pub(crate) const SERVICE_CIDR: KindSpec = KindSpec {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
    columns: &[
        Column::NAME,
        column("CIDRs", &Of(|o, _| Tree::from(print::joined(o.list_at("spec.cidrs"), ",")))),
        Column::AGE,
    ],
    hooks: Hooks { validate_create: Some(range_validate), validate_update: Some(range_validate_update), ..Hooks::NONE },
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

/// The longest controller of an ingress class.
const CONTROLLER_MAX: usize = 250;

/// `ValidateIngressClass` (`pkg/apis/networking/validation/validation.go`)
fn class_validate(class: &Tree, errors: &mut Errors) {
    let spec = Spot::of(class, "spec");
    match spec.str("controller") {
        "" => spec.required("controller", "", errors),
        controller => {
            if controller.len() > CONTROLLER_MAX {
                spec.too_long("controller", CONTROLLER_MAX, errors);
            }
            domain_prefixed_path(&spec, controller, errors);
        }
    }
    let Some(parameters) = spec.some("parameters") else { return };
    if parameters.has("apiGroup") {
        parameters.each("apiGroup", names::dns_subdomain(parameters.str("apiGroup")), errors);
    }
    for field in ["kind", "name"] {
        match parameters.str(field) {
            "" => parameters.required(field, format!("{field} is required"), errors),
            text => parameters.each(field, names::path_segment(text), errors),
        }
    }
    match (parameters.str("scope"), parameters.some("namespace")) {
        ("Namespace", None) => {
            parameters.required("namespace", "`parameters.scope` is set to 'Namespace'", errors);
        }
        ("Cluster", Some(_)) => {
            parameters.forbidden("namespace", "`parameters.scope` is set to 'Cluster'", errors);
        }
        ("Namespace", Some(_)) => {
            parameters.each("namespace", names::dns_label(parameters.str("namespace")), errors);
        }
        ("Cluster", None) => {}
        ("", _) => parameters.required("scope", "", errors),
        _ => parameters.unsupported("scope", &["Cluster", "Namespace"], errors),
    }
}

/// `IsDomainPrefixedPath`
fn domain_prefixed_path(spec: &Spot<'_>, text: &str, errors: &mut Errors) {
    let Some((domain, path)) = text.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    else {
        spec.invalid("controller", "must be a domain-prefixed path (such as \"acme.io/foo\")", errors);
        return;
    };
    for message in names::dns_subdomain(domain) {
        spec.invalid_as("controller", domain, message, errors);
    }
    if !path.bytes().all(|c| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&c)) {
        let detail = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        spec.invalid_as("controller", path, detail, errors);
    }
}

/// `ValidateIPAddress`; what the types declare comes from the schema table.
fn address_validate(address: &Tree, errors: &mut Errors) {
    let Some(parent) = Spot::of(address, "spec").some("parentRef") else { return };
    if !parent.str("group").is_empty() {
        parent.each("group", names::dns_subdomain(parent.str("group")), errors);
    }
    for field in ["resource", "name", "namespace"].into_iter().filter(|field| !parent.str(field).is_empty()) {
        parent.each(field, names::path_segment(parent.str(field)), errors);
    }
}

/// `validateServiceCIDRSpec`
fn range_validate(range: &Tree, errors: &mut Errors) {
    let spec = Spot::of(range, "spec");
    let cidrs = spec.items("cidrs");
    if cidrs.is_empty() {
        spec.required("cidrs", "at least one CIDR required", errors);
        return;
    }
    if cidrs.len() > 2 {
        // Upstream shows its struct.
        let mut shown = Tree::map();
        shown.insert("CIDRs", spec.list("cidrs").to_vec());
        spec.invalid_as("cidrs", shown, "may only hold up to 2 values", errors);
        return;
    }
    for cidr in &cidrs {
        let faults = names::cidr(cidr.str(""));
        if faults.is_empty() && canonical_range(cidr.str("")) != cidr.str("") {
            cidr.invalid("", format!("must be in canonical form ({:?})", canonical_range(cidr.str(""))), errors);
        }
        cidr.each("", faults, errors);
    }
    let family = |cidr: &Spot<'_>| {
        let (ip, _) = cidr.str("").split_once('/')?;
        ip.parse::<std::net::IpAddr>().ok().map(|ip| ip.is_ipv4())
    };
    if let [first, second] = &cidrs[..]
        && family(first).is_some()
        && family(first) == family(second)
    {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        spec.invalid("cidrs", detail, errors);
    }
}

/// The range as Go writes it.
fn canonical_range(text: &str) -> String {
    let parsed = text.split_once('/').and_then(|(ip, bits)| Some((ip.parse::<std::net::IpAddr>().ok()?, bits)));
    parsed.map_or_else(|| text.to_owned(), |(ip, bits)| format!("{ip}/{bits}"))
}

/// `ValidateServiceCIDRUpdate`: a second range may come, nothing else changes.
fn range_validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let spec = Spot::of(new, "spec");
    let (after, before) = (spec.items("cidrs"), old.list_at("spec.cidrs"));
    let grows = before.len() == 1 && after.len() == 2;
    if after.len() != before.len() && !grows {
        spec.invalid_as("cidrs", spec.list("cidrs").to_vec(), IMMUTABLE, errors);
        return;
    }
    for cidr in after.iter().zip(before).filter(|(new, old)| new.tree != *old).map(|(new, _)| new) {
        cidr.invalid("", IMMUTABLE, errors);
    }
    if grows {
        range_validate(new, errors);
    }
}
