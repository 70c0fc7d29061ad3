//! NetworkPolicy.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec};
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
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
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
