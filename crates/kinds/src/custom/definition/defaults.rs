//! Defaults must be valid values of their own schema (`apiserver/schema/defaulting/validation.go`).

use corten_schema::structural::{Props, lower};
use corten_schema::{Options, SchemaBuilder, UnknownFields, canonicalise};
use corten_tree::{FieldPath, Tree, tree};

use super::super::correlate::deep_equal;
use super::super::rules::{self, Rules};
use super::super::{lists, values};
use super::Leniency;
use crate::Errors;
use crate::validate::Spot;

/// Finds the faults of all defaults of a structural schema.
pub(super) fn validate(root: &Spot<'_>, leniency: Leniency, errors: &mut Errors) {
    node(root, false, true, leniency, errors);
}

/// Whether a schema has defaults with fields that are not described.
pub(super) fn has_unpruned(schema: &Tree) -> bool {
    let own = schema.get("default").filter(|value| !value.is_null());
    own.is_some_and(|value| !is_pruned(schema, value)) || super::schema::children(schema).into_iter().any(has_unpruned)
}

fn node(spot: &Spot<'_>, in_metadata: bool, root: bool, leniency: Leniency, errors: &mut Errors) {
    let embedded = root || spot.bool("x-kubernetes-embedded-resource");
    let in_metadata = in_metadata && !embedded;
    if let Some(value) = spot.tree.get("default").filter(|value| !value.is_null()) {
        let at = spot.path.child("default");
        if !in_metadata && !leniency.unpruned_defaults && !is_pruned(spot.tree, value) {
            spot.invalid("default", "must not have unknown fields", errors);
        }
        let props = Props::parse(spot.tree);
        let before = errors.len();
        lists::validate_embedded(&props, value, &at, errors);
        if errors.len() == before {
            value_faults(&props, value, root, &at, errors);
        }
    }
    if let Some(items) = spot.some("items") {
        node(&items, in_metadata, false, leniency, errors);
    }
    for (name, property) in spot.map("properties").iter() {
        let in_metadata = in_metadata || (embedded && matches!(name, "metadata" | "apiVersion" | "kind"));
        let found = Spot::at(property, spot.path.child("properties").key(name));
        node(&found, in_metadata, false, leniency, errors);
    }
}

fn value_faults(props: &Props, value: &Tree, root: bool, at: &FieldPath, errors: &mut Errors) {
    let before = errors.len();
    values::validate(props, value, None, at, errors);
    if errors.len() > before {
        return;
    }
    if let Some(rules) = Rules::compile_node(props, root) {
        let _ = rules::validate(&rules, props, value, Some(value), at, errors);
        if errors.len() == before {
            let _ = rules::validate(&rules, props, value, None, at, errors);
        }
    }
}

/// Whether decoding drops nothing of a default. The value is decoded as the one member of an object.
fn is_pruned(schema: &Tree, value: &Tree) -> bool {
    let holder = Props::parse(&tree!({"type": "object", "properties": {"v": (schema.clone())}}));
    let mut builder = SchemaBuilder::default();
    let Ok(ty) = lower(&mut builder, "default", Some(&holder)) else { return true };
    let options = Options { unknown: UnknownFields::Ignore, ..Options::default() };
    match canonicalise(&builder.build(), ty, &tree!({"v": (value.clone())}), options) {
        Ok(decoded) => deep_equal(decoded.tree.get("v").unwrap_or(&Tree::Null), value),
        // What cannot be decoded (wrong metadata) is found by the checks after this.
        Err(_) => true,
    }
}
