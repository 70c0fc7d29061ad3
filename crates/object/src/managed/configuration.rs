//! A configuration merged into an object without ownership: what a MutatingAdmissionPolicy applies.
//!
//! Rules and words: `apiserver/pkg/admission/plugin/policy/mutating/patch/smd.go` (`ApplyStructuredMergeDiff`, `validatePatch`).

use corten_schema::{Schema, TypeId};
use corten_tree::Tree;

use super::atom::{Atom, Ty};
use super::merge::{merge, validate};

/// What `live`, an object of type `ty`, becomes when a configuration is merged into it.
///
/// # Errors
/// The configuration does not fit the type, sets a part of what is one value (the rest would silently go), or cannot be merged.
pub fn merge_configuration(schema: &Schema, ty: TypeId, live: &Tree, configuration: &Tree) -> Result<Tree, String> {
    let root = Ty::root(schema, ty);
    validate(schema, root, configuration)
        .map_err(|why| format!("failed to convert patch object to typed object: {why}"))?;
    let mut atomics = Vec::new();
    find_atomics(schema, root, configuration, "", &mut atomics);
    if !atomics.is_empty() {
        let paths = atomics.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}"));
    }
    merge(schema, root, live, configuration).map_err(|why| format!("failed to merge patch: {why}"))
}

/// The paths of all maps, structs and lists in a value that are one value to their type (`findAtomics`).
fn find_atomics(schema: &Schema, ty: Ty<'_>, value: &Tree, path: &str, found: &mut Vec<String>) {
    match (ty, value) {
        // Nothing is known of what is inside: all of it is one value, and so is every container in a list of it.
        (Ty::Untyped, Tree::Map(_)) | (Ty::Deduced, Tree::List(_)) => found.push(path.to_owned()),
        (Ty::Untyped, Tree::List(items)) => {
            found.push(path.to_owned());
            for (i, item) in items.iter().enumerate() {
                find_atomics(schema, ty, item, &format!("{path}[{i}]"), found);
            }
        }
        _ => match (ty.atom(schema, Some(value)), value) {
            (Atom::Map(map), Tree::Map(entries)) => {
                if map.atomic {
                    found.push(path.to_owned());
                }
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                for (key, value) in entries {
                    if let (Some(ty), true) = map.member(schema, key) {
                        find_atomics(schema, ty, value, &format!("{path}.{key}"), found);
                    }
                }
            }
            (Atom::List(list), Tree::List(items)) => {
                if list.atomic() {
                    found.push(path.to_owned());
                }
                for (i, item) in items.iter().enumerate() {
                    find_atomics(schema, list.item, item, &format!("{path}[{i}]"), found);
                }
            }
            _ => {}
        },
    }
}

#[cfg(test)]
mod tests {
    use corten_tree::tree;

    use super::*;

    fn merged(configuration: &Tree) -> Result<Tree, String> {
        let schema = corten_schema::builtin();
        let live = tree!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"annotations": {"a": "1"}},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [
                {"name": "x", "image": "x:1", "args": ["one"]}, {"name": "y", "image": "y:1"}]}}}});
        merge_configuration(schema, schema.gvk("apps", "v1", "Deployment").unwrap(), &live, configuration)
    }

    #[test]
    fn apply_configuration_merges_lists_by_key_and_removes_nothing() {
        let new =
            merged(&tree!({"metadata": {"annotations": {"b": "2"}}, "spec": {"replicas": 3, "template": {"spec": {
            "containers": [{"name": "y", "image": "y:2"}]}}}}))
            .unwrap();
        assert_eq!(new.path("metadata.annotations").unwrap().to_json_string(), r#"{"a":"1","b":"2"}"#);
        assert_eq!(
            new.path("spec").unwrap().to_json_string(),
            concat!(
                r#"{"replicas":3,"selector":{"matchLabels":{"a":"b"}},"template":{"spec":{"containers":["#,
                r#"{"name":"x","image":"x:1","args":["one"]},{"name":"y","image":"y:2"}]}}}"#
            )
        );
    }

    #[test]
    fn apply_configuration_refuses_atomics_and_what_the_schema_does_not_have() {
        for (configuration, expected) in [
            (
                tree!({"spec": {"selector": {"matchLabels": {"c": "d"}},
                    "template": {"spec": {"containers": [{"name": "x", "args": ["two"]}]}}}}),
                "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector, \
                 .spec.template.spec.containers[0].args",
            ),
            (
                tree!({"spec": {"replica": 3}}),
                "failed to convert patch object to typed object: .spec.replica: field not declared in schema",
            ),
        ] {
            assert_eq!(merged(&configuration).unwrap_err(), expected);
        }
    }
}
