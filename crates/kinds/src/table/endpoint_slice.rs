//! EndpointSlice.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec};
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
    served_by: Some("net"),
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
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
