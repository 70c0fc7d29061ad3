//! Endpoints.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Hooks, KindSpec};
use crate::{Column, Of, RowContext, column};

/// `v1 Endpoints`
pub(crate) const ENDPOINTS: KindSpec = KindSpec {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short: &["ep"],
    create_on_update: true,
    columns: &[Column::NAME, column("Endpoints", &Of(endpoints)), Column::AGE],
    served_by: Some("controllers"),
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

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
