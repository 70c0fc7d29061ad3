//! Validation: upstream's rules, messages and field paths, all faults at once.
//!
//! [`meta`] holds what every kind's metadata must satisfy; the pipeline calls it for every kind, CRDs included.
//! The other modules hold what several kinds share (pod specs, resources, volumes, selectors); a kind's own rules are in its file.
//! The value at a place together with its path is a [`Spot`]; a path is only built when there is a fault to report.

pub(crate) mod affinity;
pub(crate) mod certificates;
pub(crate) mod conditions;
pub(crate) mod container;
pub(crate) mod declared;
pub mod device_claim;
pub(crate) mod device_slice;
pub(crate) mod hpa;
pub(crate) mod job;
pub(crate) mod job_status;
pub mod labels;
pub mod meta;
pub use corten_schema::names;
pub use service::address_faults;
pub(crate) mod os;
pub(crate) mod pod;
pub(crate) mod pod_status;
pub(crate) mod pod_update;
pub(crate) mod policy;
pub(crate) mod probe;
pub(crate) mod profiles;
pub(crate) mod quota;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod service;
pub(crate) mod volume;
pub(crate) mod volume_source;
pub(crate) mod webhook;
pub(crate) mod workload;

use std::fmt::Display;

use corten_object::{CauseKind, FieldError};
use corten_schema::scalars::Quantity;
use corten_tree::{FieldPath, Map, Tree};

use crate::Errors;

/// What upstream says of a number below zero.
pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";
/// What upstream says of a number that is not above zero.
pub(crate) const NOT_POSITIVE: &str = "must be greater than zero";
/// What upstream says of a field that changed.
pub(crate) const IMMUTABLE: &str = "field is immutable";

static NULL: Tree = Tree::Null;

/// A value and where it stands. `field` arguments are dotted names below it; the empty name is the value itself.
#[derive(Clone)]
pub struct Spot<'t> {
    /// The value; null if absent.
    pub tree: &'t Tree,
    /// Its path.
    pub path: FieldPath,
}

impl<'t> Spot<'t> {
    /// The value at a dotted path of an object.
    pub fn of(object: &'t Tree, dotted: &str) -> Spot<'t> {
        Spot { tree: object.path(dotted).unwrap_or(&NULL), path: FieldPath::of(dotted) }
    }

    /// A value at a path.
    pub fn at(tree: &'t Tree, path: FieldPath) -> Spot<'t> {
        Spot { tree, path }
    }

    fn value(&self, field: &str) -> &'t Tree {
        if field.is_empty() { self.tree } else { self.tree.path(field).unwrap_or(&NULL) }
    }

    fn place(&self, field: &str) -> FieldPath {
        if field.is_empty() { self.path.clone() } else { self.path.child(field) }
    }

    /// The value of a field.
    pub fn child(&self, field: &str) -> Spot<'t> {
        Spot { tree: self.value(field), path: self.place(field) }
    }

    /// The value of a field, if it is there.
    pub fn some(&self, field: &str) -> Option<Spot<'t>> {
        self.has(field).then(|| self.child(field))
    }

    /// The items of a list field.
    pub fn items(&self, field: &str) -> Vec<Spot<'t>> {
        let items = self.value(field).as_list().unwrap_or_default();
        if items.is_empty() {
            return Vec::new();
        }
        let path = self.place(field);
        items.iter().enumerate().map(|(i, tree)| Spot { tree, path: path.index(i) }).collect()
    }

    /// Whether a field is there (and not null).
    pub fn has(&self, field: &str) -> bool {
        !self.value(field).is_null()
    }

    /// The text of a field; empty if there is none.
    pub fn str(&self, field: &str) -> &'t str {
        self.value(field).as_str().unwrap_or_default()
    }

    /// The integer of a field.
    pub fn int(&self, field: &str) -> Option<i64> {
        self.value(field).as_i64()
    }

    /// The boolean of a field; false if there is none.
    pub fn bool(&self, field: &str) -> bool {
        self.value(field).as_bool().unwrap_or_default()
    }

    /// The map of a field; empty if there is none.
    pub fn map(&self, field: &str) -> &'t Map {
        static EMPTY: Map = Map::new();
        self.value(field).as_map().unwrap_or(&EMPTY)
    }

    /// The list of a field; empty if there is none.
    pub fn list(&self, field: &str) -> &'t [Tree] {
        self.value(field).as_list().unwrap_or_default()
    }

    /// Reports that a field must be there.
    pub fn required(&self, field: &str, detail: impl Display, errors: &mut Errors) {
        errors.push(FieldError::required(&self.place(field), detail));
    }

    /// Reports that a field's value is malformed.
    pub fn invalid(&self, field: &str, detail: impl Display, errors: &mut Errors) {
        errors.push(FieldError::invalid(&self.place(field), self.value(field), detail));
    }

    /// Reports a malformed value of which another form is shown.
    pub fn invalid_as(&self, field: &str, shown: impl Into<Tree>, detail: impl Display, errors: &mut Errors) {
        errors.push(FieldError::invalid(&self.place(field), &shown.into(), detail));
    }

    /// Reports each message as a malformed value of the field.
    pub fn each(&self, field: &str, messages: Vec<String>, errors: &mut Errors) {
        for message in messages {
            self.invalid(field, message, errors);
        }
    }

    /// Reports that a field may not be set.
    pub fn forbidden(&self, field: &str, detail: impl Display, errors: &mut Errors) {
        errors.push(FieldError::forbidden(&self.place(field), detail));
    }

    /// Reports that a field's text is none of the supported ones.
    pub fn unsupported(&self, field: &str, supported: &[&str], errors: &mut Errors) {
        errors.push(FieldError::not_supported(&self.place(field), self.str(field), supported));
    }

    /// Reports that a field's value occurs twice.
    pub fn duplicate(&self, field: &str, errors: &mut Errors) {
        errors.push(FieldError::duplicate(&self.place(field), self.value(field)));
    }

    /// Reports that a field refers to nothing.
    pub fn not_found(&self, field: &str, errors: &mut Errors) {
        errors.push(FieldError::not_found(&self.place(field), self.value(field)));
    }

    /// Reports that a text is too long.
    pub fn too_long(&self, field: &str, bytes_max: usize, errors: &mut Errors) {
        errors.push(FieldError::too_long(&self.place(field), bytes_max));
    }

    /// Reports that a list is too long.
    pub fn too_many(&self, field: &str, max: usize, errors: &mut Errors) {
        errors.push(FieldError::too_many(&self.place(field), self.list(field).len(), max));
    }

    /// Checks a text against the supported ones; an empty text is missing.
    pub fn one_of(&self, field: &str, supported: &[&str], errors: &mut Errors) {
        match self.str(field) {
            "" => self.required(field, "", errors),
            text if supported.contains(&text) => {}
            _ => self.unsupported(field, supported, errors),
        }
    }

    /// Checks a text against the supported ones, if the field is there.
    pub fn optional_one_of(&self, field: &str, supported: &[&str], errors: &mut Errors) {
        if self.has(field) && !supported.contains(&self.str(field)) {
            self.unsupported(field, supported, errors);
        }
    }

    /// Checks that a number, if there is one, is not negative.
    pub fn non_negative(&self, field: &str, errors: &mut Errors) {
        if self.int(field).is_some_and(|n| n < 0) {
            self.invalid(field, NEGATIVE, errors);
        }
    }

    /// Checks a number, if there is one, against bounds.
    pub fn in_range(&self, field: &str, min: i64, max: i64, errors: &mut Errors) {
        if self.int(field).is_some_and(|n| n < min || n > max) {
            self.invalid(field, names::range(min, max), errors);
        }
    }

    /// Checks that a field means the same in the old object.
    pub fn immutable(&self, old: &Spot<'_>, field: &str, errors: &mut Errors) {
        if !self.value(field).semantically_equal(old.value(field)) {
            self.invalid(field, IMMUTABLE, errors);
        }
    }
}

/// A fault of a kind that [`FieldError`] has no constructor for.
pub(crate) fn fault(path: &FieldPath, kind: CauseKind, body: impl Into<String>) -> FieldError {
    FieldError { path: path.clone(), kind, body: body.into(), value: None }
}

/// The quantity of a value, if it is one.
pub(crate) fn quantity(tree: &Tree) -> Option<Quantity> {
    match tree {
        Tree::Str(text) => text.parse().ok(),
        Tree::Int(n) => n.to_string().parse().ok(),
        _ => None,
    }
}
