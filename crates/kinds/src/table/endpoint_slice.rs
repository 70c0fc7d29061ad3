//! EndpointSlice.

use corten_tree::Tree;

use crate::Errors;
use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec};
use crate::validate::{Spot, names, service};
use crate::{Column, Of, RowContext, TextOr, column, print};

/// `discovery.k8s.io/v1 EndpointSlice`
pub(crate) const ENDPOINT_SLICE: KindSpec = KindSpec {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    generation: Generation::OnChange,
    columns: &[
        Column::NAME,
        column("AddressType", &TextOr("addressType", "")),
        column("Ports", &Of(ports)),
        column("Endpoints", &Of(endpoints)),
        Column::AGE,
    ],
    immutable: &["addressType"],
    served_by: Some("net"),
    hooks: Hooks {
        default: Some(default),
        prepare_create: Some(|slice, _| drop_topology(slice, None)),
        prepare_update: Some(|slice, old, _| drop_topology(slice, Some(old))),
        validate: Some(validate),
        validate_create: Some(endpoints_of),
        validate_update: Some(validate_update),
        warnings: Some(warnings),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

/// How many ports and addresses show.
const SHOWN: usize = 3;

fn ports(slice: &Tree, _: &RowContext) -> Tree {
    let one = |port: &Tree| match (port.i64_at("port"), port.path("name").and_then(Tree::as_str)) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => "*".to_owned(),
    };
    Tree::from(print::with_more(&slice.list_at("ports").iter().map(one).collect::<Vec<_>>(), SHOWN))
}

fn endpoints(slice: &Tree, _: &RowContext) -> Tree {
    let addresses = slice.list_at("endpoints").iter().flat_map(|e| e.list_at("addresses"));
    let all: Vec<String> = addresses.filter_map(Tree::as_str).map(str::to_owned).collect();
    Tree::from(print::with_more(&all, SHOWN))
}

fn default(slice: &mut Tree) {
    defaults::each(slice, "ports", |port| {
        port.set_default("name", "");
        port.set_default("protocol", "TCP");
    });
}

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;

/// `ValidateEndpointSlice`
fn validate(slice: &Tree, errors: &mut Errors) {
    Spot::of(slice, "addressType").one_of("", &["FQDN", "IPv4", "IPv6"], errors);
    let ports = Spot::of(slice, "ports");
    if ports.list("").len() > PORTS_MAX {
        ports.too_many("", PORTS_MAX, errors);
        return;
    }
    let mut seen = Vec::new();
    for port in ports.items("") {
        let name = port.str("name");
        if !name.is_empty() {
            port.each("name", names::dns_label(name), errors);
        }
        if seen.contains(&name) {
            port.duplicate("name", errors);
        }
        seen.push(name);
        port.one_of("protocol", &["SCTP", "TCP", "UDP"], errors);
        if port.has("appProtocol") {
            port.each("appProtocol", names::label_key(port.str("appProtocol")), errors);
        }
    }
}

/// What stands in a slice already may stay, whatever it is.
fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    if Spot::of(new, "endpoints").tree != Spot::of(old, "endpoints").tree {
        endpoints_of(new, errors);
    }
}

/// The topology of v1beta1 cannot be written by v1, but for a node name that was there. (`dropTopologyOnV1`)
fn drop_topology(slice: &mut Tree, old: Option<&Tree>) {
    const HOST: &str = "kubernetes.io/hostname";
    let host = |endpoint: &Tree| {
        endpoint.map_at("deprecatedTopology").get(HOST).and_then(Tree::as_str).unwrap_or_default().to_owned()
    };
    let before: Vec<String> = old.map(|old| old.list_at("endpoints").iter().map(host).collect()).unwrap_or_default();
    if old.is_some_and(|old| old.path("endpoints") == slice.path("endpoints")) {
        return;
    }
    defaults::each(slice, "endpoints", |endpoint| {
        let name = host(endpoint);
        let known = !name.is_empty() && before.contains(&name) && names::dns_subdomain(&name).is_empty();
        if endpoint.path("nodeName").is_none() && known {
            endpoint.set("nodeName", name);
        }
        endpoint.remove("deprecatedTopology");
    });
}

fn warnings(slice: &Tree, old: Option<&Tree>) -> Vec<String> {
    let mut out = Vec::new();
    let kind = slice.str_at("addressType");
    if old.is_none() && kind == "FQDN" {
        out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    if kind != "FQDN" {
        for address in Spot::of(slice, "endpoints").items("").iter().flat_map(|e| e.items("addresses")) {
            crate::warnings::address(&address.path, address.str(""), &mut out);
        }
    }
    out
}

fn endpoints_of(slice: &Tree, errors: &mut Errors) {
    let endpoints = Spot::of(slice, "endpoints");
    if endpoints.list("").len() > ENDPOINTS_MAX {
        endpoints.too_many("", ENDPOINTS_MAX, errors);
        return;
    }
    for endpoint in endpoints.items("") {
        one(&endpoint, slice.str_at("addressType"), errors);
    }
}

fn one(endpoint: &Spot<'_>, kind: &str, errors: &mut Errors) {
    match endpoint.list("addresses").len() {
        0 => endpoint.required("addresses", "", errors),
        n if n > ADDRESSES_MAX => endpoint.too_many("addresses", ADDRESSES_MAX, errors),
        _ => {}
    }
    for address in endpoint.items("addresses") {
        let text = address.str("");
        if kind == "FQDN" {
            address.each("", names::dns_subdomain(text.strip_suffix('.').unwrap_or(text)), errors);
            continue;
        }
        let faults = names::ip(text);
        if faults.is_empty() {
            let v6 = text.contains(':');
            if v6 != (kind == "IPv6") {
                endpoint.invalid_as("addresses", text, format!("must be an {kind} address"), errors);
            }
            service::endpoint_ip(&address, "", errors);
        }
        address.each("", faults, errors);
    }
    if endpoint.has("nodeName") {
        endpoint.each("nodeName", names::dns_subdomain(endpoint.str("nodeName")), errors);
    }
    if endpoint.has("hostname") {
        endpoint.each("hostname", names::dns_label(endpoint.str("hostname")), errors);
    }
    if let Some(hints) = endpoint.some("hints") {
        validate_hints(&hints, errors);
    }
}

/// The most hints of each sort.
const HINTS_MAX: usize = 8;

/// `validateHints`
fn validate_hints(hints: &Spot<'_>, errors: &mut Errors) {
    for (list, check) in [("forZones", names::label_value as names::NameCheck), ("forNodes", names::dns_subdomain)] {
        if hints.list(list).len() > HINTS_MAX {
            hints.too_many(list, HINTS_MAX, errors);
            return;
        }
        let mut seen = Vec::new();
        for hint in hints.items(list) {
            let name = hint.str("name");
            if seen.contains(&name) {
                hint.duplicate("name", errors);
            }
            seen.push(name);
            for message in check(name) {
                hint.invalid_as("name", name, message, errors);
            }
        }
    }
}
