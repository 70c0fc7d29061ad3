//! StorageClass.

use corten_tree::Tree;

use crate::Errors;
use crate::spec::{Hooks, KindSpec};
use crate::validate::{Spot, names};
use crate::{Column, Of, RowContext, TextOr, column};

/// `storage.k8s.io/v1 StorageClass`
pub(crate) const STORAGE_CLASS: KindSpec = KindSpec {
    group: "storage.k8s.io",
    kind: "StorageClass",
    returns_deleted: true,
    plural: "storageclasses",
    short: &["sc"],
    columns: &[
        Column { cell: &Of(name), ..Column::NAME },
        column("Provisioner", &TextOr("provisioner", "")),
        column("ReclaimPolicy", &TextOr("reclaimPolicy", "Delete")),
        column("VolumeBindingMode", &TextOr("volumeBindingMode", "Immediate")),
        column("AllowVolumeExpansion", &Of(|o, _| Tree::Bool(o.bool_at("allowVolumeExpansion")))),
        Column::AGE,
    ],
    immutable: &["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"],
    served_by: Some("controllers"),
    hooks: Hooks { default: Some(default), validate: Some(validate), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

/// A cell knows its object only: every class that claims to be the default is marked, where upstream marks the newest.
fn name(class: &Tree, _: &RowContext) -> Tree {
    let annotations = class.map_at("metadata.annotations");
    let says = |key| annotations.get(key).and_then(Tree::as_str) == Some("true");
    let default =
        says("storageclass.kubernetes.io/is-default-class") || says("storageclass.beta.kubernetes.io/is-default-class");
    let name = class.str_at("metadata.name");
    Tree::from(if default { format!("{name} (default)") } else { name.to_owned() })
}

fn default(class: &mut Tree) {
    class.set_default("reclaimPolicy", "Delete");
    class.set_default("volumeBindingMode", "Immediate");
}

fn validate(class: &Tree, errors: &mut Errors) {
    let at = |field| Spot::of(class, field);
    let provisioner = at("provisioner");
    match provisioner.str("") {
        "" => provisioner.required("", "", errors),
        name => {
            let lower = name.to_lowercase();
            for message in names::label_key(&lower) {
                provisioner.invalid_as("", lower.as_str(), message, errors);
            }
        }
    }
    let parameters = at("parameters");
    if parameters.map("").keys().any(str::is_empty) {
        parameters.invalid_as("", "", "field can not be empty.", errors);
    }
    at("reclaimPolicy").optional_one_of("", &["Delete", "Retain"], errors);
    let mode = at("volumeBindingMode");
    if !mode.has("") {
        mode.required("", "", errors);
    }
    mode.optional_one_of("", &["Immediate", "WaitForFirstConsumer"], errors);
    topologies(&at("allowedTopologies"), errors);
}

/// `validateAllowedTopologies` and `ValidateTopologySelectorTerm`
fn topologies(list: &Spot<'_>, errors: &mut Errors) {
    let terms = list.items("");
    let mut seen: Vec<std::collections::BTreeMap<&str, std::collections::BTreeSet<&str>>> = Vec::new();
    for term in &terms {
        let mut keys = std::collections::BTreeMap::new();
        for expression in term.items("matchLabelExpressions") {
            let mut values = std::collections::BTreeSet::new();
            if expression.list("values").is_empty() {
                expression.required("values", "", errors);
            }
            for value in expression.items("values") {
                if !values.insert(value.str("")) {
                    value.duplicate("", errors);
                }
            }
            let key = expression.str("key");
            expression.each("key", names::label_key(key), errors);
            if keys.insert(key, values).is_some() {
                expression.duplicate("key", errors);
            }
        }
        if keys.is_empty() || seen.contains(&keys) {
            let path = term.path.child("matchLabelExpressions");
            errors.push(corten_object::FieldError::duplicate(&path, &Tree::from("")));
        }
        seen.push(keys);
    }
}
