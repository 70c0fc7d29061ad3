//! What makes a schema structural (`apiextensions-apiserver/pkg/apiserver/schema/validation.go`).

use corten_object::FieldError;
use corten_schema::re2;
use corten_tree::{FieldPath, Tree, tree};

use super::super::correlate::deep_equal;
use crate::Errors;
use crate::validate::Spot;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What keeps a schema from being structural, ordered by text.
pub(super) fn faults(schema: &Tree, at: &FieldPath) -> Errors {
    let mut errors = Errors::new();
    let spot = Spot::at(schema, at.clone());
    node(&spot, Level::Root, &mut errors);
    complete(&spot, &mut errors);
    errors.sort_by_key(ToString::to_string);
    errors
}

/// What cannot be read as a structural schema at all, in upstream's words.
pub(super) fn unsupported(schema: &Tree) -> Option<String> {
    let said = |what: &str| Some(format!("OpenAPIV3Schema '{what}' is not supported"));
    for (field, what) in [("id", "id"), ("$schema", "schema"), ("$ref", "$ref")] {
        if schema.get(field).and_then(Tree::as_str).is_some_and(|text| !text.is_empty()) {
            return said(what);
        }
    }
    for field in ["patternProperties", "dependencies", "definitions"] {
        if schema.get(field).and_then(Tree::as_map).is_some_and(|map| !map.is_empty()) {
            return said(field);
        }
    }
    if schema.get("additionalItems").is_some_and(|value| !value.is_null()) {
        return said("additionalItems");
    }
    if schema.get("items").is_some_and(|items| items.as_list().is_some()) {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".into());
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Tree::Bool(false)) {
        return Some("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".into());
    }
    super::schema::children(schema).into_iter().find_map(unsupported)
}

fn int_or_string_any_of() -> Tree {
    tree!([{"type": "integer"}, {"type": "string"}])
}

fn node(spot: &Spot<'_>, level: Level, errors: &mut Errors) {
    let ty = spot.str("type");
    if ty == "array" && !spot.has("items") {
        spot.required("items", "must be specified", errors);
    }
    if let Some(items) = spot.some("items") {
        node(&items, Level::Item, errors);
    }
    for (name, property) in spot.map("properties").iter() {
        node(&Spot::at(property, spot.path.child("properties").key(name)), Level::Field, errors);
    }
    if spot.has("additionalProperties") {
        if level == Level::Root {
            spot.forbidden("additionalProperties", "must not be used at the root", errors);
        }
        if spot.child("additionalProperties").tree.as_map().is_some() {
            node(&spot.child("additionalProperties"), Level::Field, errors);
        }
    }
    let (embedded, int_or_string) =
        (spot.bool("x-kubernetes-embedded-resource"), spot.bool("x-kubernetes-int-or-string"));
    let preserve = spot.bool("x-kubernetes-preserve-unknown-fields");
    if int_or_string && preserve {
        let why = "must be false if x-kubernetes-int-or-string is true";
        spot.invalid("x-kubernetes-preserve-unknown-fields", why, errors);
    }
    if int_or_string && embedded {
        let why = "must be false if x-kubernetes-int-or-string is true";
        spot.invalid("x-kubernetes-embedded-resource", why, errors);
    }
    let any_of = int_or_string_any_of();
    let skip_any = deep_equal(spot.tree.get("anyOf").unwrap_or(&Tree::Null), &any_of);
    let first = spot.list("allOf").first().and_then(|first| first.get("anyOf"));
    let skip_first = first.is_some_and(|first| deep_equal(first, &any_of));
    values(spot, skip_any, skip_first, errors);
    if embedded && ty != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        if ty.is_empty() { spot.required("type", why, errors) } else { spot.invalid("type", why, errors) }
    } else if ty.is_empty() && !int_or_string && !preserve {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        spot.required("type", why, errors);
    }
    if embedded && spot.has("additionalProperties") {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        spot.forbidden("additionalProperties", why, errors);
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        spot.invalid("type", "must be object at the root", errors);
    }
    type_and_metadata(spot, level, embedded, errors);
    if embedded && !preserve && spot.map("properties").is_empty() {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        spot.required("properties", why, errors);
    }
}

fn type_and_metadata(spot: &Spot<'_>, level: Level, embedded: bool, errors: &mut Errors) {
    let properties = spot.map("properties");
    let checked = level == Level::Root || embedded;
    let at = |name: &str| spot.path.child("properties").key(name);
    for name in ["kind", "apiVersion"] {
        if let Some(found) = properties.get(name).filter(|_| checked)
            && found.str_at("type") != "string"
        {
            Spot::at(found, at(name)).invalid_as("type", found.str_at("type"), "must be string", errors);
        }
    }
    let Some(metadata) = properties.get("metadata") else { return };
    if checked && metadata.str_at("type") != "object" {
        let found = Spot::at(metadata, at("metadata"));
        found.invalid_as("type", metadata.str_at("type"), "must be object", errors);
    }
    if level == Level::Root {
        let inner = metadata.map_at("properties");
        let names_only = inner.keys().all(|key| matches!(key, "name" | "generateName"));
        let others = metadata.as_map().into_iter().flat_map(corten_tree::Map::iter);
        let others = others.filter(|(key, value)| match *key {
            "type" | "default" => false,
            "properties" => !(names_only || inner.is_empty()),
            _ => !value.is_null(),
        });
        if others.count() > 0 {
            let why =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(FieldError::forbidden(&at("metadata"), why));
        }
    }
}

/// The value rules of a node, and those that stand inside its combinations.
fn values(spot: &Spot<'_>, skip_any: bool, skip_first: bool, errors: &mut Errors) {
    if !skip_any {
        spot.items("anyOf").iter().for_each(|inner| nested(inner, false, errors));
    }
    for (i, inner) in spot.items("allOf").iter().enumerate() {
        nested(inner, skip_first && i == 0, errors);
    }
    spot.items("oneOf").iter().for_each(|inner| nested(inner, false, errors));
    if let Some(not) = spot.some("not") {
        nested(&not, false, errors);
    }
    let pattern = spot.str("pattern");
    if !pattern.is_empty()
        && let Err(error) = re2::compile(pattern)
    {
        spot.invalid("pattern", format!("must be a valid regular expression, but isn't: {error}"), errors);
    }
}

/// Inside combinations only rules for values may stand, nothing that changes the structure.
fn nested(spot: &Spot<'_>, skip_any: bool, errors: &mut Errors) {
    values(spot, skip_any, false, errors);
    if let Some(items) = spot.some("items") {
        nested(&items, false, errors);
    }
    for (name, property) in spot.map("properties").iter() {
        nested(&Spot::at(property, spot.path.child("properties").key(name)), false, errors);
    }
    if !spot.str("type").is_empty() {
        spot.forbidden("type", "must be empty to be structural", errors);
    }
    if spot.has("additionalProperties") && spot.child("additionalProperties").tree != &Tree::Bool(false) {
        spot.forbidden("additionalProperties", "must be undefined to be structural", errors);
    }
    if spot.has("default") {
        spot.forbidden("default", "must be undefined to be structural", errors);
    }
    for field in ["title", "description"] {
        if !spot.str(field).is_empty() {
            spot.forbidden(field, "must be empty to be structural", errors);
        }
    }
    for field in [
        "nullable",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
    ] {
        if spot.bool(field) {
            spot.forbidden(field, "must be false to be structural", errors);
        }
    }
    for field in ["x-kubernetes-list-map-keys", "x-kubernetes-validations"] {
        if !spot.list(field).is_empty() {
            spot.forbidden(field, "must be empty to be structural", errors);
        }
    }
    for field in ["x-kubernetes-list-type", "x-kubernetes-map-type"] {
        if spot.has(field) {
            spot.forbidden(field, "must be undefined to be structural", errors);
        }
    }
    if spot.map("properties").contains("metadata") {
        let at = spot.path.child("properties").key("metadata");
        errors.push(FieldError::forbidden(&at, "must not be specified in a nested context"));
    }
}

/// What combinations at the root name must be named by the structure (`complete.go`).
fn complete(spot: &Spot<'_>, errors: &mut Errors) {
    for field in ["anyOf", "allOf", "oneOf"] {
        for inner in spot.items(field) {
            covered(&inner, Some(spot.tree), &spot.path, errors);
        }
    }
    if let Some(not) = spot.some("not") {
        covered(&not, Some(spot.tree), &spot.path, errors);
    }
}

/// `inner` may name what `outer`, which stands at `at`, names.
fn covered(inner: &Spot<'_>, outer: Option<&Tree>, at: &FieldPath, errors: &mut Errors) {
    let missing = |at: &FieldPath, errors: &mut Errors| {
        errors.push(FieldError::required(at, format!("because it is defined in {}", inner.path)));
    };
    let Some(outer) = outer else { return missing(at, errors) };
    if let Some(items) = inner.some("items") {
        let found = outer.get("items").filter(|t| t.as_map().is_some());
        covered(&items, found, &at.child("items"), errors);
    }
    for (name, property) in inner.map("properties").iter() {
        let place = inner.path.child("properties").key(name);
        let found = outer.map_at("properties").get(name);
        covered(&Spot::at(property, place), found, &at.child("properties").key(name), errors);
    }
    for field in ["anyOf", "allOf", "oneOf"] {
        inner.items(field).iter().for_each(|deeper| covered(deeper, Some(outer), at, errors));
    }
    if let Some(not) = inner.some("not") {
        covered(&not, Some(outer), at, errors);
    }
}
