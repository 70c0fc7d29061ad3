//! CustomResourceDefinition.

use corten_base::Timestamp;
use corten_object::managed::Ownable;
use corten_object::time;
use corten_tree::{Tree, tree};

use crate::custom::definition;
use crate::defaults;
use crate::print;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::{Column, Errors, Of, RowContext, TextOr, WriteContext, column, wide};

/// Holds a definition until all objects of its kind are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// `apiextensions.k8s.io/v1 CustomResourceDefinition`
pub(crate) const CUSTOM_RESOURCE_DEFINITION: KindSpec = KindSpec {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    unconditional_update: false,
    plural: "customresourcedefinitions",
    short: &["crd", "crds"],
    categories: &["api-extensions"],
    generation: Generation::OnChangeOf(&["spec"]),
    // It owns no metadata by that, but writes some: its finalizer goes this way.
    subresources: &[Subresource::STATUS.owning(Ownable::Except(&["metadata", "spec"]))],
    columns: &[
        Column::NAME,
        column("Scope", &TextOr("spec.scope", "")),
        column("Versions", &Of(served)),
        Column::CREATED_AT,
        wide("Group", &TextOr("spec.group", "")),
        wide("Kind", &TextOr("spec.names.kind", "")),
        wide("ShortNames", &Of(|o, _| short_names(o))),
        wide("Established", &Of(established)).boolean(),
    ],
    served_by: Some("custom-resource-definition"),
    defines_kinds: true,
    hooks: Hooks {
        default: Some(default),
        prepare_create: Some(prepare_create),
        prepare_update: Some(prepare_update),
        validate_create: Some(validate_create),
        validate_update: Some(definition_update),
        validate_status: Some(validate_status),
        warnings: Some(definition::warnings),
        deleting: Some(deleting),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

/// The versions that are served, the storage version marked.
fn served(definition: &Tree, _: &RowContext) -> Tree {
    let versions = definition.list_at("spec.versions").iter().filter(|v| v.bool_at("served"));
    let mut shown: Vec<String> = versions
        .map(|v| format!("{}{}", v.str_at("name"), if v.bool_at("storage") { "(storage)" } else { "" }))
        .collect();
    shown.sort();
    Tree::from(shown.join(","))
}

fn short_names(definition: &Tree) -> Tree {
    Tree::from(print::joined(definition.list_at("spec.names.shortNames"), ","))
}

fn established(definition: &Tree, _: &RowContext) -> Tree {
    Tree::Bool(print::condition_is(definition, "status.conditions", "Established", "True"))
}

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
}

/// A new definition has stored nothing yet but what its storage version will. (`strategy.PrepareForCreate`)
fn prepare_create(definition: &mut Tree, _: &WriteContext) {
    definition.set("status", Tree::map());
    note_storage_version(definition);
}

fn prepare_update(definition: &mut Tree, _: &Tree, _: &WriteContext) {
    note_storage_version(definition);
}

/// The storage version is one that objects may be stored at from now on.
fn note_storage_version(definition: &mut Tree) {
    let storage = definition.list_at("spec.versions").iter().find(|v| v.bool_at("storage"));
    let Some(name) = storage.map(|v| v.str_at("name").to_owned()) else { return };
    let mut stored = definition.list_at("status.storedVersions").to_vec();
    if !stored.iter().any(|v| v.as_str() == Some(&name)) {
        stored.push(name.into());
        definition.set("status.storedVersions", stored);
    }
}

fn validate_create(new: &Tree, errors: &mut Errors) {
    definition::validate(new, None, errors);
}

fn definition_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    definition::validate(new, Some(old), errors);
}

fn validate_status(new: &Tree, _: &Tree, errors: &mut Errors) {
    definition::validate_status(new, errors);
}

/// The first delete waits for the objects of the kind. (`registry/customresourcedefinition/etcd.go` `Delete`)
fn deleting(definition: &mut Tree, now: Timestamp) {
    let mut finalizers = definition.list_at("metadata.finalizers").to_vec();
    if !finalizers.iter().any(|f| f.as_str() == Some(CLEANUP_FINALIZER)) {
        finalizers.push(CLEANUP_FINALIZER.into());
        definition.set("metadata.finalizers", finalizers);
    }
    let mut conditions = definition.list_at("status.conditions").to_vec();
    conditions.retain(|condition| condition.str_at("type") != "Terminating");
    conditions.push(tree!({"type": "Terminating", "status": "True", "lastTransitionTime": (time::format(now)),
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"}));
    definition.set("status.conditions", conditions);
}
