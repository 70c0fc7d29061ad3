//! NetworkPolicy.

use corten_tree::Tree;

use crate::Errors;
use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec};
use crate::validate::{Spot, labels, names, service};
use crate::{Column, Of, column, print};

/// `networking.k8s.io/v1 NetworkPolicy`
pub(crate) const NETWORK_POLICY: KindSpec = KindSpec {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    short: &["netpol"],
    generation: Generation::OnChangeOf(&["spec"]),
    columns: &[
        Column::NAME,
        column("Pod-Selector", &Of(|o, _| print::selector(o.path("spec.podSelector")))),
        Column::AGE,
    ],
    hooks: Hooks { default: Some(default), validate: Some(validate), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

/// `SetDefaults_NetworkPolicy` and `SetDefaults_NetworkPolicyPort`.
fn default(policy: &mut Tree) {
    if policy.list_at("spec.policyTypes").is_empty() {
        let egress = !policy.list_at("spec.egress").is_empty();
        let types = if egress { vec!["Ingress", "Egress"] } else { vec!["Ingress"] };
        policy.set("spec.policyTypes", types);
    }
    for rules in ["spec.ingress", "spec.egress"] {
        defaults::each(policy, rules, |rule| {
            defaults::each(rule, "ports", |port| defaults::value(port, "protocol", "TCP"));
        });
    }
}

/// `ValidateNetworkPolicySpec`
fn validate(policy: &Tree, errors: &mut Errors) {
    let spec = Spot::of(policy, "spec");
    labels::validate_selector(&spec.child("podSelector"), errors);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.items(rules) {
            rule.items("ports").iter().for_each(|port| port_range(port, errors));
            rule.items(peers).iter().for_each(|peer| validate_peer(peer, errors));
        }
    }
    if spec.list("policyTypes").len() > 2 {
        spec.invalid("policyTypes", "may not specify more than two policyTypes", errors);
        return;
    }
    for kind in spec.items("policyTypes") {
        if !matches!(kind.str(""), "Ingress" | "Egress") {
            kind.unsupported("", &["Ingress", "Egress"], errors);
        }
    }
}

fn port_range(port: &Spot<'_>, errors: &mut Errors) {
    port.optional_one_of("protocol", &["TCP", "UDP", "SCTP"], errors);
    match port.child("port").tree {
        Tree::Null if port.has("endPort") => {
            port.invalid("endPort", "may not be specified when `port` is not specified", errors);
        }
        Tree::Null => {}
        Tree::Str(name) => {
            if port.has("endPort") {
                port.invalid("endPort", "may not be specified when `port` is non-numeric", errors);
            }
            port.each("port", names::port_name(name), errors);
        }
        number => {
            let number = number.as_i64().unwrap_or_default();
            port.each("port", names::port_number(number), errors);
            if let Some(end) = port.int("endPort") {
                if end < number {
                    port.invalid("endPort", "must be greater than or equal to `port`", errors);
                }
                port.each("endPort", names::port_number(end), errors);
            }
        }
    }
}

fn validate_peer(peer: &Spot<'_>, errors: &mut Errors) {
    for selector in ["podSelector", "namespaceSelector"] {
        labels::validate_selector(&peer.child(selector), errors);
    }
    let selectors = peer.has("podSelector") || peer.has("namespaceSelector");
    let Some(block) = peer.some("ipBlock") else {
        if !selectors {
            peer.required("", "must specify a peer", errors);
        }
        return;
    };
    if selectors {
        peer.forbidden("", "may not specify both ipBlock and another peer", errors);
    }
    if block.str("cidr").is_empty() {
        block.required("cidr", "", errors);
        return;
    }
    let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    for cidr in std::iter::once(block.child("cidr")).chain(block.items("except")) {
        if !service::is_cidr(cidr.str("")) {
            cidr.invalid("", detail, errors);
        }
    }
}
