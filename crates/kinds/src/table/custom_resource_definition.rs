//! CustomResourceDefinition.

use corten_tree::Tree;

use crate::Column;
use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};

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
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

/// `pkg/apis/apiextensions/v1/defaults.go`.
fn default(definition: &mut Tree) {
    let kind = definition.str_at("spec.names.kind").to_owned();
    defaults::text(definition, "spec.names.singular", &kind.to_lowercase());
    if !kind.is_empty() {
        defaults::text(definition, "spec.names.listKind", &format!("{kind}List"));
    }
    if definition.path("spec.conversion").is_none() {
        definition.set("spec.conversion.strategy", "None");
    }
    defaults::at(definition, "spec.conversion.webhook.clientConfig.service", |s| defaults::value(s, "port", 443));
    if definition.list_at("status.storedVersions").is_empty() {
        let storage = definition.list_at("spec.versions").iter().find(|v| v.bool_at("storage"));
        if let Some(name) = storage.map(|v| v.str_at("name").to_owned()) {
            definition.set("status.storedVersions", vec![name]);
        }
    }
}
