//! CustomResourceDefinition.

use crate::Column;
use crate::spec::{Generation, KindSpec, Subresource};

/// `apiextensions.k8s.io/v1 CustomResourceDefinition`
pub(crate) const CUSTOM_RESOURCE_DEFINITION: KindSpec = KindSpec {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    short: &["crd", "crds"],
    categories: &["api-extensions"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS],
    columns: &[Column::NAME, Column::CREATED_AT],
    ..KindSpec::CLUSTER
};
