//! CustomResourceDefinition.

use corten_tree::Tree;

use crate::Column;
use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::validate::{Spot, names};
use crate::{Errors, WriteContext};

/// `apiextensions.k8s.io/v1 CustomResourceDefinition`
pub(crate) const CUSTOM_RESOURCE_DEFINITION: KindSpec = KindSpec {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    unconditional_update: false,
    plural: "customresourcedefinitions",
    short: &["crd", "crds"],
    categories: &["api-extensions"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS],
    columns: &[Column::NAME, Column::CREATED_AT],
    hooks: Hooks {
        default: Some(default),
        prepare_create: Some(prepare_create),
        validate: Some(validate),
        validate_update: Some(validate_update),
        ..Hooks::NONE
    },
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

/// A new definition has stored nothing yet but what its storage version will. (`strategy.PrepareForCreate`)
fn prepare_create(definition: &mut Tree, _: &WriteContext) {
    definition.set("status", Tree::map());
    default(definition);
}

/// The main rules of `ValidateCustomResourceDefinition`; structural schemas are checked when they are lowered.
fn validate(definition: &Tree, errors: &mut Errors) {
    let spec = Spot::of(definition, "spec");
    let (group, plural) = (spec.str("group"), spec.str("names.plural"));
    let expected = format!("{plural}.{group}");
    let meta = Spot::of(definition, "metadata");
    if meta.str("name") != expected {
        meta.invalid("name", "must be spec.names.plural+\".\"+spec.group", errors);
    }
    if group.is_empty() {
        spec.required("group", "", errors);
    } else {
        spec.each("group", names::dns_subdomain(group), errors);
        if !group.contains('.') {
            spec.invalid("group", "should be a domain with at least one dot", errors);
        }
    }
    if !matches!(spec.str("scope"), "Cluster" | "Namespaced") {
        match spec.str("scope") {
            "" => spec.required("scope", "", errors),
            _ => spec.unsupported("scope", &["Cluster", "Namespaced"], errors),
        }
    }
    resource_names(&spec.child("names"), errors);
    let versions = spec.items("versions");
    let mut seen = Vec::new();
    for version in &versions {
        let name = version.str("name");
        let faults = names::dns_1035_label(name);
        if !faults.is_empty() {
            version.invalid_as("name", name, faults.join(","), errors);
        }
        if seen.contains(&name) {
            let detail = "must contain unique version names";
            spec.invalid("versions", detail, errors);
        }
        seen.push(name);
        if !version.has("schema.openAPIV3Schema") {
            version.required("schema.openAPIV3Schema", "schemas are required", errors);
        }
    }
    if versions.iter().filter(|v| v.bool("storage")).count() != 1 {
        spec.invalid("versions", "must have exactly one version marked as storage version", errors);
    }
}

fn resource_names(spec: &Spot<'_>, errors: &mut Errors) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let name = spec.str(field);
        if name.is_empty() {
            spec.required(field, "", errors);
            continue;
        }
        let faults = names::dns_1035_label(&name.to_lowercase());
        if !faults.is_empty() {
            let prefix = if field.ends_with("ind") { "may have mixed case, but should otherwise match: " } else { "" };
            spec.invalid(field, format!("{prefix}{}", faults.join(",")), errors);
        }
    }
    for field in ["shortNames", "categories"] {
        for name in spec.items(field) {
            let faults = names::dns_1035_label(name.str(""));
            if !faults.is_empty() {
                name.invalid("", faults.join(","), errors);
            }
        }
    }
    if !spec.str("kind").is_empty() && spec.str("kind") == spec.str("listKind") {
        spec.invalid("listKind", "kind and listKind may not be the same", errors);
    }
}

/// What a definition whose names are in use may not change.
fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let (spec, before) = (Spot::of(new, "spec"), Spot::of(old, "spec"));
    for field in ["group", "names.plural"] {
        spec.immutable(&before, field, errors);
    }
    if crate::print::condition_is(old, "status.conditions", "Established", "True") {
        for field in ["scope", "names.kind"] {
            spec.immutable(&before, field, errors);
        }
    }
}
