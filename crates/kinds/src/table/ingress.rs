//! Ingress.

use corten_tree::Tree;

use super::service::load_balancer_addresses;
use crate::spec::{Generation, KindSpec, Subresource};
use crate::{Column, Of, RowContext, TextOr, column};

/// `networking.k8s.io/v1 Ingress`
pub(crate) const INGRESS: KindSpec = KindSpec {
    group: "networking.k8s.io",
    kind: "Ingress",
    plural: "ingresses",
    short: &["ing"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Class", &TextOr("spec.ingressClassName", "<none>")),
        column("Hosts", &Of(hosts)),
        column("Address", &Of(|o, _| Tree::from(load_balancer_addresses(o).join(",")))),
        column("Ports", &Of(|o, _| Tree::from(if o.list_at("spec.tls").is_empty() { "80" } else { "80, 443" }))),
        Column::AGE,
    ],
    ..KindSpec::NAMESPACED
};

/// How many hosts show.
const SHOWN: usize = 3;

/// `formatHosts`: the count of further rules, as upstream has it, is of all rules past the third.
fn hosts(ingress: &Tree, _: &RowContext) -> Tree {
    let rules = ingress.list_at("spec.rules");
    let mut shown: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= shown.len() == SHOWN;
        let host = rule.str_at("host");
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    Tree::from(match more {
        _ if shown.is_empty() => "*".to_owned(),
        true => format!("{} + {} more...", shown.join(","), rules.len() - SHOWN),
        false => shown.join(","),
    })
}
