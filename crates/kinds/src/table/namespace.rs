//! Namespace.

use corten_object::managed::Ownable;
use corten_tree::{Tree, tree};

use crate::defaults;
use crate::spec::{Fact, Hooks, KindSpec, Subresource, SubresourceKind, Verbs};
use crate::validate::{Spot, names};
use crate::{Column, TextOr, column};
use crate::{Errors, WriteContext};

/// `v1 Namespace`
pub(crate) const NAMESPACE: KindSpec = KindSpec {
    kind: "Namespace",
    returns_deleted: true,
    plural: "namespaces",
    short: &["ns"],
    verbs: Verbs::OneByOne,
    name_check: names::dns_label,
    subresources: &[
        Subresource::of("finalize", SubresourceKind::Update, &["update"]).owning(Ownable::Except(&["status"])),
        Subresource::STATUS,
    ],
    columns: &[Column::NAME, column("Status", &TextOr("status.phase", "")), Column::AGE],
    facts: &[Fact::selectable("status.phase")],
    served_by: Some("controllers"),
    hooks: Hooks {
        default: Some(default),
        prepare_create: Some(prepare_create),
        prepare_update: Some(prepare_update),
        validate: Some(validate),
        validate_status: Some(validate_status),
        subresource: Some(finalize),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

/// The label that names the namespace (unless generateName has yet to), and the phase.
fn default(namespace: &mut Tree) {
    let name = namespace.str_at("metadata.name").to_owned();
    if !name.is_empty() {
        let labels = namespace.make_map_at("metadata.labels");
        labels.insert("kubernetes.io/metadata.name", name);
        labels.sort_keys();
    }
    defaults::text(namespace, "status.phase", "Active");
}

/// `ValidateNamespace`
fn validate(namespace: &Tree, errors: &mut Errors) {
    let spec = Spot::of(namespace, "spec");
    for name in spec.list("finalizers").iter().filter_map(Tree::as_str) {
        for why in names::label_key(name) {
            spec.invalid_as("finalizers", name, why, errors);
        }
        if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            spec.invalid_as("finalizers", name, detail, errors);
        }
    }
}

/// The finalizer of a namespace's contents.
const FINALIZER: &str = "kubernetes";

/// A new namespace is active, and kept until the controller has emptied it. (`namespaceStrategy.PrepareForCreate`)
fn prepare_create(namespace: &mut Tree, _: &WriteContext) {
    namespace.set("status", tree!({"phase": "Active"}));
    let mut finalizers: Vec<Tree> = namespace.list_at("spec.finalizers").to_vec();
    if !finalizers.iter().any(|f| f.as_str() == Some(FINALIZER)) {
        finalizers.push(Tree::from(FINALIZER));
    }
    namespace.set("spec.finalizers", Tree::List(finalizers));
    default(namespace);
}

/// Finalizers change through `finalize` only.
fn prepare_update(namespace: &mut Tree, old: &Tree, _: &WriteContext) {
    match old.path("spec.finalizers") {
        Some(finalizers) => namespace.set("spec.finalizers", finalizers.clone()),
        None => drop(namespace.remove("spec.finalizers")),
    }
}

/// `…/finalize`: only the finalizers of the spec change.
fn finalize(_: &str, new: &mut Tree, old: &Tree, errors: &mut Errors) {
    let mut merged = old.clone();
    if let Some(version) = new.path("metadata.resourceVersion").cloned() {
        merged.set("metadata.resourceVersion", version);
    }
    merged.set("spec.finalizers", Tree::List(new.list_at("spec.finalizers").to_vec()));
    for finalizer in Spot::of(&merged, "spec").items("finalizers") {
        let name = finalizer.str("");
        finalizer.each("", names::label_key(name), errors);
        if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
            finalizer.invalid("", "name is neither a standard finalizer name nor is it fully qualified", errors);
        }
    }
    *new = merged;
}

/// `ValidateNamespaceStatusUpdate`
fn validate_status(new: &Tree, _: &Tree, errors: &mut Errors) {
    let deleting = new.path("metadata.deletionTimestamp").is_some();
    let expected = if deleting { "Terminating" } else { "Active" };
    let status = Spot::of(new, "status");
    if status.str("phase") != expected {
        let state = if deleting { "not empty" } else { "empty" };
        let detail = format!("may only be '{expected}' if `deletionTimestamp` is {state}");
        // The capital letter is upstream's.
        status.invalid_as("Phase", status.str("phase"), detail, errors);
    }
}
