//! All faults of a custom resource's write (`registry/customresource/{strategy,status_strategy,validator}.go`).

use corten_object::{CauseKind, FieldError};
use corten_schema::structural::Props;
use corten_tree::{FieldPath, Tree};

use super::{Custom, CustomVersion, lists, values};
use crate::Errors;
use crate::kind::{Kind, ScalePaths};

impl Custom {
    /// The faults of a new or changed object besides its metadata's. Returns warnings.
    pub(crate) fn object_faults(
        &self,
        kind: &Kind,
        new: &Tree,
        old: Option<&Tree>,
        errors: &mut Errors,
    ) -> Vec<String> {
        let version = self.version_of(kind, new);
        if let Some(props) = &version.schema {
            values::validate(props, new, old, &FieldPath::ROOT, errors);
        }
        if let Some(scale) = &version.scale {
            replicas(new, &scale.spec, errors);
            scale_status(new, scale, errors);
        }
        structure_faults(version, new, old, errors);
        run_rules(version, new, old, errors)
    }

    /// The faults of a changed status besides its metadata's. Returns warnings.
    pub(crate) fn status_faults(&self, kind: &Kind, new: &Tree, old: &Tree, errors: &mut Errors) -> Vec<String> {
        let version = self.version_of(kind, new);
        let status = version.schema.as_ref().and_then(|props| props.property("status"));
        if let (Some(props), Some(value)) = (status, new.get("status")) {
            values::validate(props, value, old.get("status"), &FieldPath::of("status"), errors);
        }
        if let Some(scale) = &version.scale {
            scale_status(new, scale, errors);
        }
        if let Some(props) = &version.schema {
            list_faults(props, new, Some(old), errors);
        }
        run_rules(version, new, Some(old), errors)
    }
}

fn structure_faults(version: &CustomVersion, new: &Tree, old: Option<&Tree>, errors: &mut Errors) {
    let Some(props) = &version.schema else { return };
    // The object itself is checked elsewhere, whatever its schema says.
    if let Tree::Map(map) = new {
        for (key, value) in map.iter() {
            if let Some(property) = props.property(key) {
                lists::validate_embedded(property, value, &FieldPath::of(key), errors);
            }
        }
    }
    list_faults(props, new, old, errors);
}

/// Repeated items are refused unless there were some before.
fn list_faults(props: &Props, new: &Tree, old: Option<&Tree>, errors: &mut Errors) {
    let mut before = Errors::new();
    if let Some(old) = old {
        lists::validate_lists(props, old, &FieldPath::ROOT, &mut before);
    }
    if before.is_empty() {
        lists::validate_lists(props, new, &FieldPath::ROOT, errors);
    }
}

/// Runs the schema's rules, unless the object's form is wrong; then it says so. (`hasBlockingErr`)
fn run_rules(version: &CustomVersion, new: &Tree, old: Option<&Tree>, errors: &mut Errors) -> Vec<String> {
    use CauseKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    let Some((rules, props)) = version.rules() else { return Vec::new() };
    let blocks = |e: &FieldError| matches!(e.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid);
    if errors.iter().any(blocks) {
        let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        errors.push(FieldError::invalid(&FieldPath::ROOT, &Tree::Null, why));
        return Vec::new();
    }
    super::rules::validate(rules, props, new, old, &FieldPath::ROOT, errors)
}

/// What is dubious in the finalizers that come new. (`generateWarningsFromObj`, `validateKubeFinalizerName`)
pub(crate) fn finalizer_warnings(new: &Tree, old: Option<&Tree>) -> Vec<String> {
    const STANDARD: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];
    let names = |tree: &Tree| -> std::collections::BTreeSet<String> {
        tree.list_at("metadata.finalizers").iter().filter_map(Tree::as_str).map(str::to_owned).collect()
    };
    let before = old.map(names).unwrap_or_default();
    let mut out = Vec::new();
    for name in names(new).difference(&before) {
        let said = |text: &str| format!("metadata.finalizers: {name:?}: {text}");
        out.extend(corten_schema::names::label_key(name).iter().map(|why| said(why)));
        if !name.contains('/') && !STANDARD.contains(&name.as_str()) {
            let path = if name.contains('.') { " including a path (/)" } else { "" };
            out.push(said(&format!(
                "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
            )));
        }
    }
    out
}

fn replicas(object: &Tree, path: &str, errors: &mut Errors) {
    let at = FieldPath::of(&format!(".{path}"));
    match object.path(path) {
        None => {}
        Some(Tree::Int(n)) if *n < 0 => {
            errors.push(FieldError::invalid(&at, &Tree::Int(*n), "should be a non-negative integer"));
        }
        Some(Tree::Int(n)) if *n > i64::from(i32::MAX) => {
            let why = format!("should be less than or equal to {}", i32::MAX);
            errors.push(FieldError::invalid(&at, &Tree::Int(*n), why));
        }
        Some(Tree::Int(_)) => {}
        Some(other) => {
            let why =
                format!(".{path} accessor error: {} is of the type {}, expected int64", shown(other), go_type(other));
            errors.push(FieldError::invalid(&at, &Tree::Int(0), why));
        }
    }
}

fn scale_status(object: &Tree, scale: &ScalePaths, errors: &mut Errors) {
    replicas(object, &scale.status, errors);
    if scale.selector.is_empty() {
        return;
    }
    if let Some(other) = object.path(&scale.selector).filter(|found| found.as_str().is_none()) {
        let path = &scale.selector;
        let why =
            format!(".{path} accessor error: {} is of the type {}, expected string", shown(other), go_type(other));
        errors.push(FieldError::invalid_str(&FieldPath::of(&format!(".{path}")), "", why));
    }
}

/// A value as Go's `%v` prints it, as far as such values occur.
fn shown(value: &Tree) -> String {
    value.as_str().map_or_else(|| value.to_json_string(), str::to_owned)
}

fn go_type(value: &Tree) -> &'static str {
    match value {
        Tree::Null => "<nil>",
        Tree::Bool(_) => "bool",
        Tree::Int(_) => "int64",
        Tree::Float(_) => "float64",
        Tree::Str(_) => "string",
        Tree::List(_) => "[]interface {}",
        Tree::Map(_) | Tree::Raw(_) => "map[string]interface {}",
    }
}
