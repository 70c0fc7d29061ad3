//! What is the same for the metadata of every kind: what clients may not set, and what must hold.
//!
//! Rules: `apimachinery/pkg/api/validation/objectmeta.go`, `apiserver/pkg/registry/rest/{create,update,meta}.go`.

use std::collections::BTreeSet;

use corten_base::Timestamp;
use corten_kinds::{Errors, Generation, Kind};
use corten_object::{FieldError, Status, time};
use corten_tree::{FieldPath, Tree};

use super::Request;

/// Bytes that all annotations of an object may have together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// Makes dependents go before their owner.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Makes dependents stay.
pub(crate) const ORPHAN: &str = "orphan";

/// Drops what only the server sets, from a body of a create.
pub(super) fn strip_for_create(tree: &mut Tree) {
    let metadata = tree.make_map_at("metadata");
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
        "managedFields",
    ] {
        metadata.remove(key);
    }
}

/// The system's own fields of a new object.
pub(super) fn stamp(tree: &mut Tree, uid: String, now: Timestamp, kind: &Kind) {
    tree.set("metadata.uid", uid);
    tree.set("metadata.creationTimestamp", time::format(now));
    if kind.generation != Generation::None {
        tree.set("metadata.generation", 1);
    }
}

/// The namespace and name in a body must be those of the request; where the body has none, they are filled in.
pub(super) fn match_request(request: &Request<'_>, kind: &Kind, tree: &mut Tree) -> Result<(), Status> {
    if kind.namespaced() {
        let found = tree.str_at("metadata.namespace");
        if found.is_empty() {
            tree.set("metadata.namespace", request.namespace);
        } else if found != request.namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    if request.name.is_empty() {
        return Ok(());
    }
    match tree.str_at("metadata.name") {
        "" => tree.set("metadata.name", request.name),
        found if found != request.name => {
            return Err(Status::bad_request(format!(
                "the name of the object ({found}) does not match the name on the URL ({})",
                request.name
            )));
        }
        _ => {}
    }
    Ok(())
}

/// Takes over from the old object what an update cannot change.
pub(super) fn keep_system_fields(new: &mut Tree, old: &Tree) {
    for key in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"]
    {
        let path = ["metadata", key];
        match old.at(&path) {
            Some(value) => {
                new.make_map_at("metadata").insert(key, value.clone());
            }
            None => {
                new.make_map_at("metadata").remove(key);
            }
        }
    }
    if old.at(&["metadata", "generateName"]).is_none() && new.str_at("metadata.generateName").is_empty() {
        new.make_map_at("metadata").remove("generateName");
    }
    new.make_map_at("metadata").remove("managedFields");
}

/// Whether the part of the object that its generation counts has changed.
pub(super) fn generation_moves(generation: Generation, new: &Tree, old: &Tree) -> bool {
    let null = Tree::Null;
    let differs = |key: &str| {
        let (a, b) = (new.get(key).unwrap_or(&null), old.get(key).unwrap_or(&null));
        !a.semantically_equal(b)
    };
    match generation {
        Generation::None => false,
        Generation::OnChangeOf(keys) => keys.iter().any(|key| differs(key)),
        Generation::OnChange => {
            let keys = |tree: &Tree| -> BTreeSet<String> {
                tree.as_map().map(|m| m.keys().map(str::to_owned).collect()).unwrap_or_default()
            };
            let skip = ["metadata", "status", "apiVersion", "kind"];
            keys(new).union(&keys(old)).any(|key| !skip.contains(&key.as_str()) && differs(key))
        }
    }
}

/// Faults of any object's metadata.
pub(super) fn validate(kind: &Kind, tree: &Tree, errors: &mut Errors) {
    let path = FieldPath::of("metadata");
    let name = tree.str_at("metadata.name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    } else if let Some(fault) = path_segment_fault(name) {
        errors.push(FieldError::invalid_str(&path.child("name"), name, fault));
    }
    let namespace = tree.str_at("metadata.namespace");
    if kind.namespaced() && namespace.is_empty() {
        errors.push(FieldError::required(&path.child("namespace"), ""));
    } else if !kind.namespaced() && !namespace.is_empty() {
        errors.push(FieldError::forbidden(&path.child("namespace"), "not allowed on this type"));
    }
    for (key, value) in tree.map_at("metadata.labels").iter() {
        if let Some(fault) = qualified_name_fault(key) {
            errors.push(FieldError::invalid_str(&path.child("labels"), key, fault));
        }
        let value = value.as_str().unwrap_or_default();
        if let Some(fault) = label_value_fault(value) {
            errors.push(FieldError::invalid_str(&path.child("labels"), value, fault));
        }
    }
    let mut bytes = 0;
    for (key, value) in tree.map_at("metadata.annotations").iter() {
        bytes += key.len() + value.as_str().unwrap_or_default().len();
        if let Some(fault) = qualified_name_fault(&key.to_lowercase()) {
            errors.push(FieldError::invalid_str(&path.child("annotations"), key, fault));
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(&path.child("annotations"), ANNOTATIONS_BYTES_MAX));
    }
    validate_owners(tree, &path.child("ownerReferences"), errors);
    let finalizers = finalizers_of(tree);
    for finalizer in &finalizers {
        if let Some(fault) = qualified_name_fault(finalizer) {
            errors.push(FieldError::invalid_str(&path.child("finalizers"), finalizer, fault));
        }
    }
    if finalizers.contains(&FOREGROUND) && finalizers.contains(&ORPHAN) {
        let value = Tree::List(finalizers.iter().map(|f| Tree::from(*f)).collect());
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(&path.child("finalizers"), &value, why));
    }
}

fn validate_owners(tree: &Tree, path: &FieldPath, errors: &mut Errors) {
    let owners = tree.list_at("metadata.ownerReferences");
    let mut controller: Option<String> = None;
    for (i, owner) in owners.iter().enumerate() {
        for key in ["apiVersion", "kind", "name", "uid"] {
            if owner.str_at(key).is_empty() {
                errors.push(FieldError::required(&path.index(i).child(key), "must not be empty"));
            }
        }
        if owner.bool_at("controller") {
            let this = format!("{}/{}", owner.str_at("kind"), owner.str_at("name"));
            match &controller {
                Some(first) => errors.push(FieldError::invalid(
                    path,
                    &Tree::List(owners.to_vec()),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                )),
                None => controller = Some(this),
            }
        }
    }
}

/// Faults of a change of any object's metadata.
pub(super) fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    if old.path("metadata.deletionTimestamp").is_none() {
        return;
    }
    let before = finalizers_of(old);
    let mut added: Vec<&str> = finalizers_of(new).into_iter().filter(|f| !before.contains(f)).collect();
    if !added.is_empty() {
        added.sort_unstable();
        let list = added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
        errors.push(FieldError::forbidden(
            &FieldPath::of("metadata.finalizers"),
            format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
            ),
        ));
    }
}

/// Faults of changed fields that the kind's row declares immutable.
pub(super) fn validate_immutable(kind: &Kind, new: &Tree, old: &Tree, errors: &mut Errors) {
    for dotted in &kind.immutable {
        let null = Tree::Null;
        let (a, b) = (new.path(dotted).unwrap_or(&null), old.path(dotted).unwrap_or(&null));
        if !a.semantically_equal(b) {
            errors.push(FieldError::invalid(&FieldPath::of(dotted), a, "field is immutable"));
        }
    }
}

/// `metadata.finalizers`
pub(super) fn finalizers_of(tree: &Tree) -> Vec<&str> {
    tree.list_at("metadata.finalizers").iter().filter_map(Tree::as_str).collect()
}

fn path_segment_fault(name: &str) -> Option<&'static str> {
    match name {
        "." => Some("may not be '.'"),
        ".." => Some("may not be '..'"),
        _ if name.contains('/') => Some("may not contain '/'"),
        _ if name.contains('%') => Some("may not contain '%'"),
        _ => None,
    }
}

const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
     start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
     '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN: &str = "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
     '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(a, z)| a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric()) && bytes.iter().all(inner)
}

fn is_subdomain(text: &str) -> bool {
    let label = |l: &str| {
        let b = l.as_bytes();
        let plain = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        b.first().is_some_and(plain) && b.last().is_some_and(plain) && b.iter().all(|c| plain(c) || *c == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// What is wrong with a label key or a finalizer.
pub(super) fn qualified_name_fault(text: &str) -> Option<String> {
    let (prefix, name) = match text.split_once('/') {
        Some((_, rest)) if rest.contains('/') => {
            return Some(format!("a qualified name must {}", &NAME_PART["name part must ".len()..]).replace(
                "[A-Za-z0-9]')",
                "[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            ));
        }
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    match prefix {
        Some("") => return Some("prefix part must be non-empty".into()),
        Some(prefix) if !is_subdomain(prefix) => return Some(SUBDOMAIN.into()),
        _ => {}
    }
    match name {
        "" => Some("name part must be non-empty".into()),
        _ if name.len() > 63 => Some("name part must be no more than 63 bytes".into()),
        _ if !is_name_part(name) => Some(NAME_PART.into()),
        _ => None,
    }
}

fn label_value_fault(value: &str) -> Option<&'static str> {
    if value.len() > 63 {
        Some("must be no more than 63 bytes")
    } else if !value.is_empty() && !is_name_part(value) {
        Some(LABEL_VALUE)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    #[test]
    fn names_of_labels() {
        for good in ["a", "app.kubernetes.io/name", "A_b.c"] {
            assert_eq!(qualified_name_fault(good), None, "{good}");
        }
        for bad in ["", "/a", "A.io/x", "a/", "-a", "a/b/c", &"x".repeat(64)] {
            assert!(qualified_name_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn generation_counts_what_the_row_says() {
        let old = tree!({"spec": {"a": 1}, "status": {"b": 1}});
        let mut new = old.clone();
        new.set("status.b", 2);
        assert!(!generation_moves(Generation::OnChange, &new, &old));
        new.set("spec.a", 2);
        assert!(generation_moves(Generation::OnChange, &new, &old));
        assert!(generation_moves(Generation::OnChangeOf(&["spec"]), &new, &old));
        assert!(!generation_moves(Generation::None, &new, &old));
    }
}
