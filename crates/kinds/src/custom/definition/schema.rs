//! The schema of a version: what may stand in it, and how it fits together.

use std::collections::HashSet;

use corten_object::FieldError;
use corten_schema::structural::Props;
use corten_tree::{FieldPath, Tree};

use super::super::formats;
use super::super::rules::{self, CostLimits};
use super::{Leniency, defaults, structural};
use crate::Errors;
use crate::validate::Spot;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What may stand at the root of a schema with a status subresource, by upstream's Go names.
const ROOT_FIELDS: [(&str, &str); 22] = [
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XValidations", "x-kubernetes-validations"),
];

/// What holds for a node because of where it stands.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    /// Inside of an object's metadata.
    in_metadata: bool,
    /// Why no default may be given.
    no_defaults: Option<String>,
}

/// The schemas right below one.
pub(super) fn children(schema: &Tree) -> Vec<&Tree> {
    let mut found = Vec::new();
    for field in ["items", "not", "additionalProperties", "additionalItems"] {
        match schema.get(field) {
            Some(inner @ Tree::Map(_)) => found.push(inner),
            Some(Tree::List(inner)) => found.extend(inner.iter()),
            _ => {}
        }
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        found.extend(schema.list_at(field));
    }
    for field in ["properties", "patternProperties", "definitions", "dependencies"] {
        found.extend(schema.map_at(field).values().filter(|inner| inner.as_map().is_some()));
    }
    found
}

/// Whether a schema or one inside it is as wanted.
pub(super) fn any(schema: &Tree, wanted: fn(&Tree) -> bool) -> bool {
    wanted(schema) || children(schema).into_iter().any(|inner| any(inner, wanted))
}

pub(super) fn has_odd_type(schema: &Tree) -> bool {
    let ty = schema.str_at("type");
    !ty.is_empty() && !TYPES.contains(&ty)
}

pub(super) fn is_granular_set(schema: &Tree) -> bool {
    let items = schema.get("items").filter(|items| items.as_map().is_some());
    schema.str_at("x-kubernetes-list-type") == "set"
        && items.is_some_and(|items| match items.str_at("type") {
            "array" => !matches!(items.str_at("x-kubernetes-list-type"), "" | "atomic"),
            "object" => items.str_at("x-kubernetes-map-type") != "atomic",
            _ => false,
        })
}

pub(super) fn has_loose_keys(schema: &Tree) -> bool {
    let mut errors = Errors::new();
    keys_are_there(&Spot::at(schema, FieldPath::ROOT), &mut errors);
    !errors.is_empty()
}

/// Formats that nobody checks, and sets of what is no scalar.
pub(super) fn dubious(schema: &Tree, found: &mut Vec<String>) {
    let format = schema.str_at("format");
    if !format.is_empty() {
        let known = match schema.str_at("type") {
            "" | "string" => formats::is_known(format),
            "integer" => matches!(format, "int32" | "int64"),
            "number" => matches!(format, "float" | "double"),
            _ => false,
        };
        if !known {
            found.push(format!("unrecognized format {format:?}"));
        }
    }
    let items = schema.str_at("items.type");
    if schema.str_at("x-kubernetes-list-type") == "set" && matches!(items, "object" | "array") {
        found.push(format!(
            "x-kubernetes-list-type: set for items of type {items:?} is not supported by server-side apply or CEL validation rules"
        ));
    }
    children(schema).into_iter().for_each(|inner| dubious(inner, found));
}

/// Finds the faults of `schema` with its `openAPIV3Schema`, wherever upstream shows it.
pub(super) fn validate(schema: &Spot<'_>, status: bool, leniency: Leniency, limits: &CostLimits, errors: &mut Errors) {
    let Some(root) = schema.some("openAPIV3Schema") else { return };
    let before = errors.len();
    if status {
        root_fields(schema, &root, errors);
    }
    if root.bool("nullable") {
        schema.forbidden("openAPIV3Schema.nullable", "nullable cannot be true at the root", errors);
    }
    let unsupported = structural::unsupported(root.tree);
    if unsupported.is_none() {
        let found = structural::faults(root.tree, &root.path);
        let structural = found.is_empty();
        if !leniency.unstructured {
            errors.extend(found);
        }
        if structural {
            defaults::validate(&root, leniency, errors);
        }
    }
    let place = Place { root: true, ..Place::default() };
    node(&root, &place, leniency, errors);
    if errors.len() > before {
        return;
    }
    match unsupported {
        Some(why) => root.invalid_as("", "", why, errors),
        None => rules::check(&Props::parse(root.tree), &root.path, limits, errors),
    }
}

/// All expressions of a schema's rules.
pub(super) fn expressions(schema: &Tree, found: &mut HashSet<String>) {
    for rule in schema.list_at("x-kubernetes-validations") {
        found.extend(["rule", "messageExpression"].map(|field| rule.str_at(field).to_owned()));
    }
    children(schema).into_iter().for_each(|inner| expressions(inner, found));
}

fn root_fields(schema: &Spot<'_>, root: &Spot<'_>, errors: &mut Errors) {
    let Some(map) = root.tree.as_map() else { return };
    for (field, value) in map.iter() {
        let zero = match value {
            Tree::Null | Tree::Bool(false) => true,
            Tree::Str(text) => text.is_empty(),
            _ => false,
        };
        if zero {
            continue;
        }
        if field == "type" && root.str("type") != "object" {
            let why =
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            schema.invalid("openAPIV3Schema.type", why, errors);
            return;
        }
        if !ROOT_FIELDS.iter().any(|(_, known)| *known == field) {
            let names: Vec<&str> = ROOT_FIELDS.iter().map(|(name, _)| *name).collect();
            let why = format!(
                "only {} fields are allowed at the root of the schema if the status subresource is enabled",
                format_args!("[{}]", names.join(" "))
            );
            schema.invalid("openAPIV3Schema", why, errors);
            return;
        }
    }
}

fn node(spot: &Spot<'_>, place: &Place, leniency: Leniency, errors: &mut Errors) {
    alone(spot, place, leniency, errors);
    if spot.bool("uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        spot.forbidden("uniqueItems", why, errors);
    }
    let inner = Place { root: false, ..place.clone() };
    if spot.has("additionalProperties") {
        let additional = spot.child("additionalProperties");
        if !spot.map("properties").is_empty() && additional.tree != &Tree::Bool(true) {
            spot.forbidden("additionalProperties", "additionalProperties and properties are mutual exclusive", errors);
        }
        if additional.tree.as_map().is_some() {
            let mut inner = inner.clone();
            if place.in_metadata {
                inner.no_defaults = Some("inside additionalProperties applying to object metadata".into());
            }
            node(&additional, &inner, leniency, errors);
        }
    }
    let object = place.root || spot.bool("x-kubernetes-embedded-resource");
    for (name, property) in spot.map("properties").iter() {
        let mut inner = inner.clone();
        if object && matches!(name, "metadata" | "kind" | "apiVersion") {
            inner.in_metadata = true;
            if place.root {
                inner.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        node(&Spot::at(property, spot.path.child("properties").key(name)), &inner, leniency, errors);
    }
    if let Some(not) = spot.some("not") {
        node(&not, &inner, leniency, errors);
    }
    for field in ["allOf", "oneOf", "anyOf"] {
        spot.items(field).iter().for_each(|found| node(found, &inner, leniency, errors));
    }
    for (name, found) in spot.map("definitions").iter() {
        node(&Spot::at(found, spot.path.child("definitions").key(name)), &inner, leniency, errors);
    }
    match spot.child("items").tree {
        Tree::Map(_) => node(&spot.child("items"), &inner, leniency, errors),
        Tree::List(_) => spot.items("items").iter().for_each(|found| node(found, &inner, leniency, errors)),
        _ => {}
    }
    for (name, found) in spot.map("dependencies").iter().filter(|(_, found)| found.as_map().is_some()) {
        node(&Spot::at(found, spot.path.child("dependencies").key(name)), &inner, leniency, errors);
    }
    lists_and_maps(spot, leniency, errors);
    if !leniency.loose_keys {
        keys_are_there(spot, errors);
    }
    rules(spot, errors);
}

/// What must hold for a node whatever is inside it (`specStandardValidatorV3`).
fn alone(spot: &Spot<'_>, place: &Place, leniency: Leniency, errors: &mut Errors) {
    if !leniency.odd_types && has_odd_type(spot.tree) {
        let mut sorted = TYPES;
        sorted.sort_unstable();
        spot.unsupported("type", &sorted, errors);
    }
    if let Some(why) = place.no_defaults.as_ref().filter(|_| spot.has("default")) {
        spot.forbidden("default", format!("must not be set {why}"), errors);
    }
    if !spot.str("id").is_empty() {
        spot.forbidden("id", "id is not supported", errors);
    }
    if spot.has("additionalItems") {
        spot.forbidden("additionalItems", "additionalItems is not supported", errors);
    }
    for field in ["patternProperties", "definitions", "dependencies"] {
        if !spot.map(field).is_empty() {
            spot.forbidden(field, format!("{field} is not supported"), errors);
        }
    }
    if spot.tree.get("$ref").is_some_and(|text| !text.is_null()) {
        errors.push(FieldError::forbidden(&spot.path.child("$ref"), "$ref is not supported"));
    }
    if spot.str("type") == "null" {
        spot.forbidden("type", "type cannot be set to null, use nullable as an alternative", errors);
    }
    if spot.child("items").tree.as_list().is_some_and(|items| !items.is_empty()) {
        spot.forbidden("items", "items must be a schema object and not an array", errors);
    }
    if place.in_metadata && spot.bool("x-kubernetes-embedded-resource") {
        spot.forbidden("x-kubernetes-embedded-resource", "must not be used inside of resource meta", errors);
    }
}

fn lists_and_maps(spot: &Spot<'_>, leniency: Leniency, errors: &mut Errors) {
    if spot.tree.get("x-kubernetes-preserve-unknown-fields") == Some(&Tree::Bool(false)) {
        spot.invalid("x-kubernetes-preserve-unknown-fields", "must be true or undefined", errors);
    }
    let needs_type = |field: &str, wanted: &str, errors: &mut Errors| {
        let why = format!("must be {wanted} if {field} is specified");
        match spot.str("type") {
            "" => spot.required("type", why, errors),
            ty if ty != wanted => spot.invalid("type", why, errors),
            _ => {}
        }
    };
    if spot.has("x-kubernetes-map-type") {
        needs_type("x-kubernetes-map-type", "object", errors);
        if !matches!(spot.str("x-kubernetes-map-type"), "atomic" | "granular") {
            spot.unsupported("x-kubernetes-map-type", &["atomic", "granular"], errors);
        }
    }
    let list_type = spot.str("x-kubernetes-list-type");
    if spot.has("x-kubernetes-list-type") {
        needs_type("x-kubernetes-list-type", "array", errors);
        if spot.str("type") == "array" && !leniency.granular_sets && is_granular_set(spot.tree) {
            let field =
                if spot.str("items.type") == "array" { "x-kubernetes-list-type" } else { "x-kubernetes-map-type" };
            let shown = spot.tree.path("items.x-kubernetes-list-type").cloned().unwrap_or_default();
            let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
            spot.child("items").invalid_as(field, shown, why, errors);
        }
        if !matches!(list_type, "atomic" | "set" | "map") {
            spot.unsupported("x-kubernetes-list-type", &["atomic", "set", "map"], errors);
        }
    }
    let keys = spot.list("x-kubernetes-list-map-keys");
    if !keys.is_empty() && list_type != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        match spot.has("x-kubernetes-list-type") {
            false => spot.required("x-kubernetes-list-type", why, errors),
            true => spot.invalid("x-kubernetes-list-type", why, errors),
        }
    }
    if list_type == "map" {
        list_map(spot, keys, errors);
    }
}

fn list_map(spot: &Spot<'_>, keys: &[Tree], errors: &mut Errors) {
    if keys.is_empty() {
        let why = "must not be empty if x-kubernetes-list-type is map";
        spot.required("x-kubernetes-list-map-keys", why, errors);
    }
    let items = spot.child("items");
    match items.tree {
        Tree::Map(_) => {}
        Tree::List(_) => {
            let why = "must only have a single schema if x-kubernetes-list-type is map";
            return spot.invalid("items", why, errors);
        }
        _ => return spot.required("items", "must have a schema if x-kubernetes-list-type is map", errors),
    }
    if items.str("type") != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        return items.invalid_as("type", items.str("type"), why, errors);
    }
    let mut seen: Vec<&str> = Vec::new();
    for key in keys.iter().filter_map(Tree::as_str) {
        match items.map("properties").get(key) {
            Some(property) if matches!(property.str_at("type"), "array" | "object") => {
                let at = items.path.child("properties").key(key);
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                Spot::at(property, at).invalid_as("type", "object", why, errors);
            }
            Some(_) => {}
            None => {
                let why = "entries must all be names of item properties";
                spot.invalid("x-kubernetes-list-map-keys", why, errors);
            }
        }
        if seen.contains(&key) {
            spot.invalid("x-kubernetes-list-map-keys", "must not contain duplicate entries", errors);
        }
        seen.push(key);
    }
}

/// The items of sets and maps are never null, and keys are always there. (`validateMapListKeysMapSet`)
fn keys_are_there(spot: &Spot<'_>, errors: &mut Errors) {
    let list_type = spot.str("x-kubernetes-list-type");
    let items = spot.child("items");
    if !matches!(list_type, "set" | "map") || items.tree.as_map().is_none() {
        return;
    }
    if items.bool("nullable") {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        items.forbidden("nullable", why, errors);
    }
    if list_type != "map" {
        return;
    }
    let required = items.list("required");
    for key in spot.list("x-kubernetes-list-map-keys").iter().filter_map(Tree::as_str) {
        let Some(property) = items.map("properties").get(key) else { continue };
        let found = Spot::at(property, items.path.child("properties").key(key));
        if !required.iter().any(|name| name.as_str() == Some(key)) && !found.has("default") {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            found.required("default", why, errors);
        }
        if found.bool("nullable") {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            found.forbidden("nullable", why, errors);
        }
    }
}

/// The form of `x-kubernetes-validations`; what the expressions say is checked where they are compiled.
fn rules(spot: &Spot<'_>, errors: &mut Errors) {
    let breaks = |text: &str| text.contains(['\n', '\r']);
    for rule in spot.items("x-kubernetes-validations") {
        let (text, message) = (rule.str("rule").trim(), rule.str("message"));
        if text.is_empty() {
            rule.required("rule", "rule is not specified", errors);
        } else if !message.is_empty() && message.trim().is_empty() {
            rule.invalid("message", "must be non-empty if specified", errors);
        } else if breaks(message.trim()) {
            rule.invalid("message", "must not contain line breaks", errors);
        } else if breaks(text) && message.trim().is_empty() {
            rule.required("message", "message must be specified if rule contains line breaks", errors);
        }
        let expression = rule.str("messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            rule.required("messageExpression", "messageExpression must be non-empty if specified", errors);
        }
        if rule.has("reason") && !REASONS.contains(&rule.str("reason")) {
            rule.unsupported("reason", &REASONS, errors);
        }
        let path = rule.str("fieldPath");
        if path.is_empty() {
            continue;
        }
        if path.trim().is_empty() {
            rule.invalid("fieldPath", "must be non-empty if specified", errors);
        }
        if breaks(path) {
            rule.invalid("fieldPath", "must not contain line breaks", errors);
        }
        if field_path(path, &Props::parse(spot.tree), true).is_err() {
            rule.invalid("fieldPath", "must be a valid path", errors);
        }
    }
}

/// The names on a path like `.spec['a.b'].c`, and the node that it leads to; why not, in upstream's words.
/// (`schema/cel/validation.go` `ValidFieldPath`)
pub(crate) fn field_path<'p>(text: &str, props: &'p Props, brackets: bool) -> Result<(Vec<String>, &'p Props), String> {
    const END: &str = "unexpected end of JSON path";
    let mut names = Vec::new();
    let mut at = props;
    let mut tokens = tokens(text).into_iter();
    while let Some(token) = tokens.next() {
        let name = match token {
            "." => tokens.next().ok_or(END)?.to_owned(),
            "[" if !brackets => return Err("array notation is not allowed".into()),
            "[" => {
                let quoted = tokens.next().ok_or(END)?;
                let inner = quoted.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
                let inner = inner.filter(|_| quoted.len() >= 2);
                let inner = inner.ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
                let end = tokens.next().ok_or(END)?;
                if end != "]" {
                    return Err(format!("expected ] but got {end}"));
                }
                inner.replace("\\'", "'").replace("\\\\", "\\")
            }
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        let next = match at.properties.is_empty() {
            false => at.property(&name),
            true => at.additional.schema(),
        };
        at = next.ok_or("does not refer to a valid field")?;
        names.push(name);
    }
    Ok((names, at))
}

fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '.' | '[' | ']' => 1,
            '\'' => {
                let mut escaped = false;
                let close = rest.char_indices().skip(1).find(|(_, c)| {
                    let ends = *c == '\'' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    ends
                });
                close.map_or(rest.len(), |(at, _)| at + 1)
            }
            _ => rest.find(['.', '[', ']']).unwrap_or(rest.len()),
        };
        found.push(&rest[..end]);
        rest = &rest[end..];
    }
    found
}
