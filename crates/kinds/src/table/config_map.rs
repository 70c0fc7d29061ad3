//! ConfigMap.

use corten_tree::Tree;

use crate::spec::KindSpec;
use crate::{Column, Of, column};

/// `v1 ConfigMap`
pub(crate) const CONFIG_MAP: KindSpec = KindSpec {
    kind: "ConfigMap",
    plural: "configmaps",
    short: &["cm"],
    columns: &[
        Column::NAME,
        column("Data", &Of(|o, _| Tree::Int((o.map_at("data").len() + o.map_at("binaryData").len()) as i64))),
        Column::AGE,
    ],
    served_by: Some("node"),
    ..KindSpec::NAMESPACED
};
