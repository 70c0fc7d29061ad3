//! RuntimeClass.

use crate::spec::KindSpec;
use crate::{Column, TextOr, column};

/// `node.k8s.io/v1 RuntimeClass`
pub(crate) const RUNTIME_CLASS: KindSpec = KindSpec {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    unconditional_update: false,
    plural: "runtimeclasses",
    create_on_update: true,
    columns: &[Column::NAME, column("Handler", &TextOr("handler", "")), Column::AGE],
    ..KindSpec::CLUSTER
};
