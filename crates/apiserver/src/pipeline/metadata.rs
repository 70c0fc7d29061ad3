//! What is the same for the metadata of every kind: what clients may not set, and what the server does.
//!
//! Rules: `apiserver/pkg/registry/rest/{create,update,meta}.go`. What must hold of metadata is in `kinds` (`Kind::create_faults`).

use std::collections::BTreeSet;

use corten_base::Timestamp;
use corten_kinds::{Generation, Kind};
use corten_object::{FieldError, ObjectKey, Status, time};
use corten_tree::Tree;

use super::Request;
use crate::core::Core;

/// Makes dependents go before their owner.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Makes dependents stay.
pub(crate) const ORPHAN: &str = "orphan";

/// Drops what only the server sets, from a body of a create.
pub(super) fn strip_for_create(tree: &mut Tree) {
    let metadata = tree.make_map_at("metadata");
    for key in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"]
    {
        metadata.remove(key);
    }
}

/// The system's own fields of a new object.
pub(super) fn stamp(tree: &mut Tree, uid: String, now: Timestamp, kind: &Kind) {
    tree.set("metadata.uid", uid);
    tree.set("metadata.creationTimestamp", time::format(now));
    if !matches!(kind.generation, Generation::None | Generation::FromZeroOnChangeOf(_)) {
        tree.set("metadata.generation", 1);
    }
}

impl Core {
    /// The faults that depend on the labels of the object's namespace.
    pub(super) fn namespace_faults(&self, stored: &Kind, new: &Tree, old: Option<&Tree>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(hook) = stored.hooks.validate_in_namespace {
            let key = ObjectKey::new(corten_kinds::id::NAMESPACE, "", new.str_at("metadata.namespace"));
            let namespace = self.cache.get(&key);
            let none = Default::default();
            hook(new, old, namespace.as_ref().map_or(&none, |namespace| &namespace.head.labels), &mut errors);
        }
        errors
    }
}

/// The namespace and name in a body must be those of the request; where the body has none, they are filled in.
pub(super) fn match_request(request: &Request<'_>, kind: &Kind, tree: &mut Tree) -> Result<(), Status> {
    if !kind.namespaced() {
        tree.remove("metadata.namespace");
    } else {
        check_namespace(request, tree)?;
        if tree.str_at("metadata.namespace").is_empty() {
            tree.set("metadata.namespace", request.namespace);
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

/// A body has the request's namespace, or none (`registry/rest/meta.go`, `EnsureObjectNamespaceMatchesRequestNamespace`).
pub(crate) fn check_namespace(request: &Request<'_>, tree: &Tree) -> Result<(), Status> {
    let namespace = tree.str_at("metadata.namespace");
    if request.namespace.is_empty() || namespace.is_empty() || namespace == request.namespace {
        return Ok(());
    }
    Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"))
}

/// The body of an update, or what a patch made, has the name that the request has, and no other namespace
/// (`endpoints/handlers/rest.go`, `checkName`).
pub(super) fn check_name(request: &Request<'_>, tree: &Tree) -> Result<(), Status> {
    let (name, namespace) = (tree.str_at("metadata.name"), tree.str_at("metadata.namespace"));
    let why = if name.is_empty() {
        let wanted = request.name;
        format!("the name of the object ({wanted} based on URL) was undeterminable: name must be provided")
    } else if name != request.name {
        format!("the name of the object ({name}) does not match the name on the URL ({})", request.name)
    } else if !request.namespace.is_empty() && !namespace.is_empty() && namespace != request.namespace {
        format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            request.namespace
        )
    } else {
        return Ok(());
    };
    Err(Status::bad_request(why))
}

/// Takes over from the old object what an update cannot change.
pub(super) fn keep_system_fields(new: &mut Tree, old: &Tree) {
    for key in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"]
    {
        let path = ["metadata", key];
        // Validation refuses a client's own.
        let given = new.at(&path).is_some_and(|value| !value.is_null());
        match old.at(&path) {
            Some(_) if key == "deletionGracePeriodSeconds" && given => {}
            Some(value) => {
                new.make_map_at("metadata").insert(key, value.clone());
            }
            None if given && key.starts_with("deletion") => {}
            None => {
                new.make_map_at("metadata").remove(key);
            }
        }
    }
    if old.at(&["metadata", "generateName"]).is_none() && new.str_at("metadata.generateName").is_empty() {
        new.make_map_at("metadata").remove("generateName");
    }
}

/// Whether the part of the object that its generation counts has changed.
pub(super) fn generation_moves(generation: Generation, new: &Tree, old: &Tree) -> bool {
    let null = Tree::Null;
    let differs = |key: &str| {
        let (a, b) = (new.path(key).unwrap_or(&null), old.path(key).unwrap_or(&null));
        // Nothing and an empty map are the same.
        !(a.semantically_equal(b) || is_empty(a) && is_empty(b))
    };
    match generation {
        Generation::None => false,
        Generation::OnChangeOf(keys) | Generation::FromZeroOnChangeOf(keys) => keys.iter().any(|key| differs(key)),
        Generation::OnChange | Generation::OnAnyChange => {
            let keys = |tree: &Tree| -> BTreeSet<String> {
                tree.as_map().map(|m| m.keys().map(str::to_owned).collect()).unwrap_or_default()
            };
            let skip: &[&str] = match generation {
                Generation::OnAnyChange => &["metadata", "apiVersion", "kind"],
                _ => &["metadata", "status", "apiVersion", "kind"],
            };
            keys(new).union(&keys(old)).any(|key| !skip.contains(&key.as_str()) && differs(key))
        }
    }
}

fn is_empty(tree: &Tree) -> bool {
    tree.is_null() || tree.as_map().is_some_and(|map| map.is_empty())
}

/// `metadata.finalizers`
pub(super) fn finalizers_of(tree: &Tree) -> Vec<&str> {
    tree.list_at("metadata.finalizers").iter().filter_map(Tree::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

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
