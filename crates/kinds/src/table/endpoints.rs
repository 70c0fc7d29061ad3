//! Endpoints.

use corten_tree::Tree;

use crate::Errors;
use crate::defaults;
use crate::spec::{Hooks, KindSpec};
use crate::validate::{Spot, names, service};
use crate::{Column, Of, RowContext, column};

/// `v1 Endpoints`
pub(crate) const ENDPOINTS: KindSpec = KindSpec {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short: &["ep"],
    create_on_update: true,
    deprecated: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    columns: &[Column::NAME, column("Endpoints", &Of(endpoints)), Column::AGE],
    served_by: Some("controllers"),
    hooks: Hooks { default: Some(default), validate: Some(validate), warnings: Some(warnings), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

/// `endpointsWarnings`: what the controller writes is right.
fn warnings(endpoints: &Tree, _: Option<&Tree>) -> Vec<String> {
    let labels = endpoints.map_at("metadata.labels");
    if labels.get("endpoints.kubernetes.io/managed-by").and_then(Tree::as_str) == Some("endpoint-controller") {
        return Vec::new();
    }
    let mut out = Vec::new();
    for subset in Spot::of(endpoints, "subsets").items("") {
        for address in subset.items("addresses").iter().chain(&subset.items("notReadyAddresses")) {
            crate::warnings::address(&address.path.child("ip"), address.str("ip"), &mut out);
        }
    }
    out
}

/// How many addresses show.
const SHOWN: usize = 3;

/// `formatEndpoints`: at most three addresses, then how many more.
fn endpoints(object: &Tree, _: &RowContext) -> Tree {
    let subsets = object.list_at("subsets");
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = || subset.list_at("addresses").iter().map(|a| a.str_at("ip"));
        let ports = subset.list_at("ports");
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let number = port.i64_at("port").unwrap_or_default();
            all.extend(addresses().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{number}"),
                false => format!("{ip}:{number}"),
            }));
        }
    }
    Tree::from(match all.len() {
        _ if subsets.is_empty() => "<none>".to_owned(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN),
        _ => all.join(","),
    })
}

fn default(endpoints: &mut Tree) {
    defaults::each(endpoints, "subsets", |subset| {
        defaults::each(subset, "ports", |port| defaults::text(port, "protocol", "TCP"));
    });
}

/// `validateEndpointSubsets`
fn validate(endpoints: &Tree, errors: &mut Errors) {
    for subset in Spot::of(endpoints, "subsets").items("") {
        if subset.list("addresses").is_empty() && subset.list("notReadyAddresses").is_empty() {
            subset.required("", "must specify `addresses` or `notReadyAddresses`", errors);
        }
        for address in ["addresses", "notReadyAddresses"].iter().flat_map(|list| subset.items(list)) {
            address.each("ip", names::ip(address.str("ip")), errors);
            if !address.str("hostname").is_empty() {
                address.each("hostname", names::dns_label(address.str("hostname")), errors);
            }
            if !address.str("nodeName").is_empty() {
                address.each("nodeName", names::dns_subdomain(address.str("nodeName")), errors);
            }
            service::endpoint_ip(&address, "ip", errors);
        }
        let ports = subset.items("ports");
        for port in &ports {
            match port.str("name") {
                "" if ports.len() > 1 => port.required("name", "", errors),
                "" => {}
                name => port.each("name", names::dns_label(name), errors),
            }
            port.each("port", names::port_number(port.int("port").unwrap_or_default()), errors);
            port.one_of("protocol", &["SCTP", "TCP", "UDP"], errors);
            if port.has("appProtocol") {
                port.each("appProtocol", names::label_key(port.str("appProtocol")), errors);
            }
        }
    }
}
