//! NetworkPolicy.

use corten_tree::Tree;

use crate::Errors;
use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec};
use crate::validate::{Spot, labels, names};
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
    hooks: Hooks { default: Some(default), validate: Some(validate), warnings: Some(warnings), ..Hooks::NONE },
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

/// `networkPolicyWarnings`
fn warnings(policy: &Tree, _: Option<&Tree>) -> Vec<String> {
    let mut out = Vec::new();
    let spec = Spot::of(policy, "spec");
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules = spec.items(rules);
        let peers = rules.iter().flat_map(|rule| rule.items(peers));
        for block in peers.filter_map(|peer| peer.some("ipBlock")) {
            crate::warnings::range(&block.path.child("cidr"), block.str("cidr"), &mut out);
            for except in block.items("except") {
                crate::warnings::range(&except.path, except.str(""), &mut out);
            }
        }
    }
    out
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
    let cidr = block.str("cidr");
    block.each("cidr", names::cidr(cidr), errors);
    for except in block.items("except") {
        let faults = names::cidr(except.str(""));
        let fits = is_strict_subset(cidr, except.str(""));
        except.each("", faults, errors);
        if fits == Some(false) {
            except.invalid("", "must be a strict subset of `cidr`", errors);
        }
    }
}

/// Whether a range lies in another and is smaller; `None` where one of them is no range.
fn is_strict_subset(whole: &str, part: &str) -> Option<bool> {
    let parse = |text: &str| {
        let (ip, bits) = text.split_once('/')?;
        let ip: std::net::IpAddr = ip.parse().ok()?;
        let (value, width) = match ip {
            std::net::IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
            std::net::IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let bits: u32 = bits.parse().ok().filter(|bits| *bits <= width)?;
        Some((value, bits, width))
    };
    let ((whole, whole_bits, whole_width), (part, bits, width)) = (parse(whole)?, parse(part)?);
    let differs = (whole ^ part).checked_shr(128 - whole_bits).unwrap_or(0);
    Some(whole_width == width && whole_bits < bits && differs == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_of_an_ip_block_lie_in_it() {
        assert_eq!(is_strict_subset("1.2.3.0/24", "1.2.3.4/32"), Some(true));
        assert_eq!(is_strict_subset("0.0.0.0/0", "10.0.0.0/8"), Some(true));
        assert_eq!(is_strict_subset("1.2.3.0/24", "1.2.3.0/24"), Some(false));
        assert_eq!(is_strict_subset("1.2.3.0/24", "1.2.4.0/25"), Some(false));
        assert_eq!(is_strict_subset("::/0", "10.0.0.0/8"), Some(false));
        assert_eq!(is_strict_subset("::/0", "fd00::/8"), Some(true));
        assert_eq!(is_strict_subset("x", "fd00::/8"), None);
    }
}
