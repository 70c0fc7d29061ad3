//! The rules for CustomResourceDefinitions themselves (`apiextensions/validation/validation.go`).
//!
//! Upstream validates a form in which what all versions have in common stands beside them: a fault in the schema of a
//! definition with one version is at `spec.validation.openAPIV3Schema`, and a webhook's configuration is at
//! `spec.conversion.webhookClientConfig`. Clients see those paths.

mod approval;
mod conversion;
mod defaults;
mod schema;
mod structural;

use std::collections::HashSet;

use corten_schema::structural::Props;
use corten_tree::{FieldPath, Tree};

use super::correlate::deep_equal;
use super::rules::CostLimits;
use crate::Errors;
use crate::print::condition_is;
use crate::validate::{Spot, names};

pub use approval::{Approval, approval, is_protected_group};
pub(crate) use schema::field_path;

/// Selectable fields of a version.
const SELECTABLE_MAX: usize = 8;
const COLUMN_TYPES: &str = "boolean,date,integer,number,string";
const COLUMN_FORMATS: &str = "byte,date,date-time,double,float,int32,int64,password";

/// What an update may keep because the old definition had it already.
#[derive(Clone, Copy)]
pub(super) struct Leniency {
    /// The old definition lacks a schema.
    pub schemaless: bool,
    /// The old definition has a schema that is not structural.
    pub unstructured: bool,
    /// The old definition has items of sets that are not atomic.
    pub granular_sets: bool,
    /// The old definition has list keys that are neither required nor have defaults.
    pub loose_keys: bool,
    /// The old definition has defaults with fields that are not described.
    pub unpruned_defaults: bool,
    /// The old definition has types of other names.
    pub odd_types: bool,
}

impl Leniency {
    const NONE: Leniency = Leniency {
        schemaless: false,
        unstructured: false,
        granular_sets: false,
        loose_keys: false,
        unpruned_defaults: false,
        odd_types: false,
    };

    fn of(old: &Tree) -> Leniency {
        let schemas: Vec<Option<&Tree>> =
            old.list_at("spec.versions").iter().map(|v| v.path("schema.openAPIV3Schema")).collect();
        let any = |wanted: fn(&Tree) -> bool| schemas.iter().flatten().any(|s| schema::any(s, wanted));
        Leniency {
            schemaless: schemas.iter().any(Option::is_none),
            unstructured: schemas.iter().flatten().any(|s| !structural::faults(s, &FieldPath::ROOT).is_empty()),
            granular_sets: any(schema::is_granular_set),
            loose_keys: any(schema::has_loose_keys),
            unpruned_defaults: schemas.iter().flatten().any(|s| defaults::has_unpruned(s)),
            odd_types: any(schema::has_odd_type),
        }
    }
}

/// Finds the faults of a new definition, or of a changed one.
pub(crate) fn validate(new: &Tree, old: Option<&Tree>, errors: &mut Errors) {
    let spec = Spot::of(new, "spec");
    if old.is_none() {
        let meta = Spot::of(new, "metadata");
        if meta.str("name") != format!("{}.{}", spec.str("names.plural"), spec.str("group")) {
            meta.invalid("name", "must be spec.names.plural+\".\"+spec.group", errors);
        }
    }
    let leniency = old.map_or(Leniency::NONE, Leniency::of);
    group_and_scope(&spec, errors);
    versions(&spec, old, leniency, errors);
    required_names(&spec, errors);
    resource_names(&spec.child("names"), errors);
    shared_parts(&spec, old, leniency, errors);
    conversion::validate(&spec, old, errors);
    if let Some(old) = old {
        let before = Spot::of(old, "spec");
        if condition_is(old, "status.conditions", "Established", "True") {
            for field in ["scope", "names.kind"] {
                spec.immutable(&before, field, errors);
            }
        }
        for field in ["group", "names.plural"] {
            spec.immutable(&before, field, errors);
        }
    }
    resource_names(&Spot::of(new, "status.acceptedNames"), errors);
    stored_versions(new, errors);
    approval::validate(new, old, errors);
    if spec.bool("preserveUnknownFields") && !old.is_some_and(|old| old.bool_at("spec.preserveUnknownFields")) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        spec.invalid("preserveUnknownFields", why, errors);
    }
}

/// Finds the faults of a definition's changed status.
pub(crate) fn validate_status(new: &Tree, errors: &mut Errors) {
    resource_names(&Spot::of(new, "status.acceptedNames"), errors);
}

/// What a schema lacks to be structural, for the condition that says so.
pub fn structural_faults(definition: &Tree) -> Errors {
    let mut errors = Errors::new();
    for version in Spot::of(definition, "spec").items("versions") {
        if let Some(schema) = version.some("schema.openAPIV3Schema") {
            errors.extend(structural::faults(schema.tree, &schema.path));
        }
    }
    errors
}

/// What is dubious in a new definition, and was not so in the old one.
pub(crate) fn warnings(new: &Tree, old: Option<&Tree>) -> Vec<String> {
    let found = |definition: &Tree| {
        let mut found = Vec::new();
        for version in definition.list_at("spec.versions") {
            if let Some(schema) = version.path("schema.openAPIV3Schema") {
                schema::dubious(schema, &mut found);
            }
        }
        found
    };
    let before = old.map(found).unwrap_or_default();
    let mut seen = HashSet::new();
    found(new).into_iter().filter(|text| !before.contains(text) && seen.insert(text.clone())).collect()
}

fn group_and_scope(spec: &Spot<'_>, errors: &mut Errors) {
    let group = spec.str("group");
    let faults = names::dns_subdomain(group);
    if group.is_empty() {
        spec.required("group", "", errors);
    } else if !faults.is_empty() {
        spec.invalid("group", faults.join(","), errors);
    } else if !group.contains('.') {
        spec.invalid("group", "should be a domain with at least one dot", errors);
    }
    spec.one_of("scope", &["Cluster", "Namespaced"], errors);
}

/// Whether all versions have the same under a name.
fn is_shared(spec: &Spot<'_>, part: &str) -> bool {
    let versions = spec.list("versions");
    let Some(first) = versions.first() else { return false };
    let null = Tree::Null;
    let of = |version: &'_ Tree| version.get(part).cloned().unwrap_or_default();
    let wanted = first.get(part).unwrap_or(&null);
    versions.iter().all(|version| deep_equal(&of(version), wanted))
}

fn versions(spec: &Spot<'_>, old: Option<&Tree>, leniency: Leniency, errors: &mut Errors) {
    let versions = spec.items("versions");
    for version in versions.iter().filter(|_| !leniency.schemaless) {
        if !version.has("schema.openAPIV3Schema") {
            version.required("schema.openAPIV3Schema", "", errors);
        }
    }
    let mut seen = HashSet::new();
    let mut unique = true;
    for version in &versions {
        unique &= seen.insert(version.str("name"));
        let faults = names::dns_1035_label(version.str("name"));
        if !faults.is_empty() {
            version.invalid("name", faults.join(","), errors);
        }
        deprecation_warning(version, errors);
        let status = version.has("subresources.status");
        if !is_shared(spec, "schema") {
            let limits = limits_of(old, version);
            schema::validate(&version.child("schema"), status, leniency, &limits, errors);
        }
        if !is_shared(spec, "subresources") {
            subresources(&version.child("subresources"), errors);
        }
        if !is_shared(spec, "additionalPrinterColumns") {
            version.items("additionalPrinterColumns").iter().for_each(|c| column(c, errors));
        }
        if !is_shared(spec, "selectableFields") {
            selectable_fields(&version.child("selectableFields"), &version.child("schema"), errors);
        }
    }
    if !unique {
        spec.invalid_as("versions", split_versions(spec), "must contain unique version names", errors);
    }
    if versions.iter().filter(|v| v.bool("storage")).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        spec.invalid_as("versions", split_versions(spec), detail, errors);
    }
    if let Some(first) = versions.first().map(|version| version.str("name")).filter(|name| !name.is_empty()) {
        // Upstream's form has the first version's name once more.
        let faults = names::dns_1035_label(first);
        if !faults.is_empty() {
            spec.invalid_as("version", first, faults.join(","), errors);
        }
    }
}

/// The versions without what all have in common, as upstream shows them: by the names of its structs.
fn split_versions(spec: &Spot<'_>) -> Vec<Tree> {
    const FIELDS: [(&str, &str, bool); 9] = [
        ("Name", "name", false),
        ("Served", "served", false),
        ("Storage", "storage", false),
        ("Deprecated", "deprecated", false),
        ("DeprecationWarning", "deprecationWarning", false),
        ("Schema", "schema", true),
        ("Subresources", "subresources", true),
        ("AdditionalPrinterColumns", "additionalPrinterColumns", true),
        ("SelectableFields", "selectableFields", true),
    ];
    let shown = |version: &Tree| {
        let mut out = Tree::map();
        for (go, field, moves) in FIELDS {
            let value = version.get(field).filter(|_| !(moves && is_shared(spec, field))).cloned();
            out.insert(go, value.unwrap_or(if field == "deprecated" { false.into() } else { Tree::Null }));
        }
        out
    };
    spec.list("versions").iter().map(shown).collect()
}

/// What the old definition allows to the rules of a version.
fn limits_of(old: Option<&Tree>, version: &Spot<'_>) -> CostLimits {
    let Some(old) = old else { return CostLimits::default() };
    let mut limits = CostLimits::default();
    for before in old.list_at("spec.versions") {
        let Some(schema) = before.path("schema.openAPIV3Schema") else { continue };
        schema::expressions(schema, &mut limits.known);
        let same = before.str_at("name") == version.str("name");
        limits.unchanged |= same && deep_equal(schema, version.child("schema.openAPIV3Schema").tree);
    }
    limits
}

/// What stands beside the versions in upstream's form.
fn shared_parts(spec: &Spot<'_>, old: Option<&Tree>, leniency: Leniency, errors: &mut Errors) {
    let Some(first) = spec.items("versions").into_iter().next() else { return };
    let moved = |part: &str, to: &str| {
        let found = first.child(part);
        (is_shared(spec, part) && !found.tree.is_null()).then(|| Spot::at(found.tree, spec.path.child(to)))
    };
    let any_status = spec.items("versions").iter().any(|v| v.has("subresources.status"));
    if let Some(found) = moved("schema", "validation") {
        schema::validate(&found, any_status, leniency, &limits_of(old, &first), errors);
    }
    if let Some(found) = moved("subresources", "subresources") {
        subresources(&found, errors);
    }
    if let Some(found) = moved("additionalPrinterColumns", "additionalPrinterColumns") {
        found.items("").iter().for_each(|c| column(c, errors));
    }
    if let Some(found) = moved("selectableFields", "selectableFields") {
        selectable_fields(&found, &first.child("schema"), errors);
    }
}

fn deprecation_warning(version: &Spot<'_>, errors: &mut Errors) {
    let Some(text) = version.tree.get("deprecationWarning").and_then(Tree::as_str) else { return };
    let mut fault = |why: &str| version.invalid("deprecationWarning", why, errors);
    if !version.bool("deprecated") {
        return fault("can only be set for deprecated versions");
    }
    if text.len() > 256 {
        fault("must be <= 256 characters long");
    }
    if text.is_empty() {
        fault("must not be an empty string");
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        fault(&format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
    }
}

fn required_names(spec: &Spot<'_>, errors: &mut Errors) {
    for field in ["plural", "singular", "kind", "listKind"] {
        if spec.str(&format!("names.{field}")).is_empty() {
            spec.required(&format!("names.{field}"), "", errors);
        }
    }
}

fn resource_names(names_of: &Spot<'_>, errors: &mut Errors) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let name = names_of.str(field);
        let faults = names::dns_1035_label(&name.to_lowercase());
        let mixed = field.ends_with("ind");
        let faults = if mixed { faults } else { names::dns_1035_label(name) };
        if !name.is_empty() && !faults.is_empty() {
            let prefix = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            names_of.invalid(field, format!("{prefix}{}", faults.join(",")), errors);
        }
    }
    let words = |field: &str, errors: &mut Errors| {
        for name in names_of.items(field) {
            let faults = names::dns_1035_label(name.str(""));
            if !faults.is_empty() {
                name.invalid("", faults.join(","), errors);
            }
        }
    };
    words("shortNames", errors);
    if !names_of.str("kind").is_empty() && names_of.str("kind") == names_of.str("listKind") {
        names_of.invalid("listKind", "kind and listKind may not be the same", errors);
    }
    words("categories", errors);
}

fn column(column: &Spot<'_>, errors: &mut Errors) {
    if column.str("name").is_empty() {
        column.required("name", "", errors);
    }
    match column.str("type") {
        "" => column.required("type", format!("must be one of {COLUMN_TYPES}"), errors),
        known if COLUMN_TYPES.split(',').any(|ty| ty == known) => {}
        _ => column.invalid("type", format!("must be one of {COLUMN_TYPES}"), errors),
    }
    let format = column.str("format");
    if !format.is_empty() && !COLUMN_FORMATS.split(',').any(|known| known == format) {
        column.invalid("format", format!("must be one of {COLUMN_FORMATS}"), errors);
    }
    match column.str("jsonPath") {
        "" => column.required("JSONPath", "", errors),
        path if !path.starts_with('.') => {
            column.invalid_as("JSONPath", path, "must be a simple json path starting with .", errors);
        }
        _ => {}
    }
}

fn subresources(found: &Spot<'_>, errors: &mut Errors) {
    if !found.has("scale") {
        return;
    }
    let simple = |field: &str, roots: &[&str], why: &str, errors: &mut Errors| {
        let place = format!("scale.{field}");
        let text = found.str(&place);
        if !text.starts_with('.') {
            found.invalid(&place, "must be a simple json path starting with .", errors);
        } else if !roots.iter().any(|root| text.starts_with(root)) {
            found.invalid(&place, why, errors);
        }
    };
    for (field, root, why) in [
        ("specReplicasPath", ".spec.", "should be a json path under .spec"),
        ("statusReplicasPath", ".status.", "should be a json path under .status"),
    ] {
        match found.str(&format!("scale.{field}")) {
            "" => found.required(&format!("scale.{field}"), "", errors),
            _ => simple(field, &[root], why, errors),
        }
    }
    if !found.str("scale.labelSelectorPath").is_empty() {
        let why = "should be a json path under either .spec or .status";
        simple("labelSelectorPath", &[".spec.", ".status."], why, errors);
    }
}

fn selectable_fields(fields: &Spot<'_>, schema: &Spot<'_>, errors: &mut Errors) {
    if fields.list("").is_empty() {
        return;
    }
    let Some(schema) = schema.some("openAPIV3Schema") else {
        fields.invalid_as("", "", "may only be set when `version.schema.openAPIV3Schema` is not included", errors);
        return;
    };
    let props = Props::parse(schema.tree);
    let mut seen = HashSet::new();
    for field in fields.items("") {
        let path = field.str("jsonPath");
        if path.is_empty() {
            field.required("jsonPath", "", errors);
            continue;
        }
        let (names, found) = match schema::field_path(path, &props, false) {
            Ok(found) => found,
            Err(why) => {
                field.invalid("jsonPath", format!("is an invalid path: {why}"), errors);
                continue;
            }
        };
        if names.first().is_some_and(|root| root == "metadata") {
            field.invalid("jsonPath", "must not point to fields in metadata", errors);
        }
        if !matches!(found.type_name.as_str(), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            field.invalid("jsonPath", why, errors);
        }
        if !seen.insert(names) {
            field.duplicate("jsonPath", errors);
        }
    }
    if seen.len() > SELECTABLE_MAX {
        errors.push(corten_object::FieldError::too_many(&fields.path, seen.len(), SELECTABLE_MAX));
    }
}

fn stored_versions(definition: &Tree, errors: &mut Errors) {
    let status = Spot::of(definition, "status");
    let stored: Vec<&str> = status.list("storedVersions").iter().filter_map(Tree::as_str).collect();
    if stored.is_empty() {
        status.invalid_as("storedVersions", Tree::Null, "must have at least one stored version", errors);
        return;
    }
    let versions = definition.list_at("spec.versions");
    for version in versions.iter().filter(|v| v.bool_at("storage")) {
        let name = version.str_at("name");
        if !stored.contains(&name) {
            status.invalid("storedVersions", format!("must have the storage version {name}"), errors);
        }
    }
    for (at, name) in stored.iter().enumerate() {
        if !versions.iter().any(|v| v.str_at("name") == *name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a \
                 storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            status.items("storedVersions")[at].invalid("", why, errors);
        }
    }
}
