//! How upstream's API server shows its types in messages: by the names of its Go structs in memory, in their order, nothing left out.
//!
//! The table has one line per type: `core.SecretReference "Name "Namespace`. Before each name stands what an absent value is: `-`
//! null, `"` an empty text, `!` false, `#` zero, `$` a zero quantity, `{` a struct with its own zeros, `%` an empty struct of
//! meta/v1. A name is that of the JSON field in another case; otherwise the JSON name follows a colon, `.` where the struct's fields
//! stand beside it. `~metadata` is the metadata inlined, in meta/v1's names. Types of meta/v1 keep their JSON names.

use std::collections::HashMap;
use std::sync::LazyLock;

use corten_tree::{Map, Tree};

use crate::model::{Field, FieldType, Schema, TypeId};

/// Type name without version, and its fields.
static TYPES: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    let lines = include_str!("../data/v1.37.internal").lines();
    lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect()
});

/// A value of a type as upstream's messages show it; values of types that are no structs of its own as they are.
pub fn shown(schema: &Schema, ty: &FieldType, value: &Tree) -> Tree {
    match (ty, value) {
        (FieldType::Struct(ty), Tree::Map(_)) => structure(schema, *ty, value).unwrap_or_else(|| value.clone()),
        (FieldType::List(item), Tree::List(items)) => {
            Tree::List(items.iter().map(|value| shown(schema, item, value)).collect())
        }
        (FieldType::Map(item), Tree::Map(map)) => {
            Tree::Map(map.iter().map(|(key, value)| (key.to_owned().into(), shown(schema, item, value))).collect())
        }
        _ => value.clone(),
    }
}

/// A value of a struct by its short name (`core.v1.PodSpec`), as [`shown`].
pub fn shown_as(schema: &Schema, name: &str, value: &Tree) -> Tree {
    match schema.type_by_name(name) {
        Some(ty) => structure(schema, ty, value).unwrap_or_else(|| value.clone()),
        None => value.clone(),
    }
}

fn structure(schema: &Schema, ty: TypeId, value: &Tree) -> Option<Tree> {
    let name = &*schema.def(ty).name;
    let key = match name.split('.').collect::<Vec<_>>()[..] {
        [package, _, short] => format!("{package}.{short}"),
        _ => return None,
    };
    let known = |key: &str| schema.field(ty, key).is_some();
    if value.as_map().is_some_and(|map| !map.is_empty() && !map.keys().any(known)) {
        // It is in this form already.
        return None;
    }
    let mut out = Map::new();
    for word in TYPES.get(&*key)?.split(' ') {
        if word == "~metadata" {
            for (key, value) in value.map_at("metadata").iter() {
                out.push_unchecked(key.to_owned().into(), value.clone());
            }
            continue;
        }
        let (zero, word) = word.split_at(1);
        let (go, json) = word.split_once(':').unwrap_or((word, word));
        let shown = match json {
            "." => beside(schema, ty, go, value),
            json => member(schema, schema.members(ty).find(|f| f.name.eq_ignore_ascii_case(json)), zero, value),
        };
        out.push_unchecked(go.into(), shown);
    }
    Some(Tree::Map(out))
}

/// A struct whose fields stand among its parent's.
fn beside(schema: &Schema, ty: TypeId, go: &str, value: &Tree) -> Tree {
    let inlined = schema.def(ty).fields.iter().filter(|f| f.inline).filter_map(|f| f.ty.as_struct());
    let found = inlined.into_iter().find(|ty| schema.def(*ty).name.rsplit('.').next() == Some(go));
    found.and_then(|ty| structure(schema, ty, value)).unwrap_or_else(Tree::map)
}

fn member(schema: &Schema, field: Option<&Field>, zero: &str, value: &Tree) -> Tree {
    let there = field.and_then(|f| Some((f, value.get(&f.name).filter(|v| !v.is_null())?)));
    match (there, zero) {
        (Some((field, value)), _) => shown(schema, &field.ty, value),
        (None, "\"") => Tree::from(""),
        (None, "!") => Tree::from(false),
        (None, "#") => Tree::Int(0),
        (None, "$") => Tree::from("0"),
        (None, "%") => Tree::map(),
        (None, "{") => {
            let ty = field.and_then(|f| f.ty.as_struct());
            ty.and_then(|ty| structure(schema, ty, &Tree::map())).unwrap_or_else(Tree::map)
        }
        (None, _) => Tree::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    #[test]
    fn names_in_memory() {
        let schema = crate::builtin();
        let shown = |name: &str, value: Tree| shown_as(schema, name, &value).to_json_string();
        assert_eq!(
            shown("core.v1.SeccompProfile", tree!({"type": "RuntimeDefault"})),
            r#"{"Type":"RuntimeDefault","LocalhostProfile":null}"#
        );
        assert_eq!(
            shown("core.v1.PersistentVolumeClaim", tree!({"metadata": {"name": "a"}, "spec": {}})),
            r#"{"name":"a","Spec":{"AccessModes":null,"Selector":null,"Resources":{"Limits":null,"Requests":null},"VolumeName":"","StorageClassName":null,"VolumeMode":null,"DataSource":null,"DataSourceRef":null,"VolumeAttributesClassName":null},"Status":{"Phase":"","AccessModes":null,"Capacity":null,"Conditions":null,"AllocatedResources":null,"AllocatedResourceStatuses":null,"CurrentVolumeAttributesClassName":null,"ModifyVolumeStatus":null,"HealthStatus":null}}"#
        );
        let pod = shown_as(schema, "core.v1.PodSpec", &tree!({"containers": [{"name": "a"}], "serviceAccount": "s"}));
        assert_eq!(pod.str_at("DeprecatedServiceAccount"), "s");
        assert_eq!(pod.list_at("Containers")[0].get("TTY"), Some(&Tree::from(false)));
    }

    /// Every line of the table belongs to a type of the schema, and every name to one of its fields.
    #[test]
    fn the_table_fits_the_schema() {
        let schema = crate::builtin();
        let mut missing = Vec::new();
        for (name, fields) in TYPES.iter() {
            let (package, short) = name.split_once('.').unwrap();
            let versions = ["v1", "v2", "v1beta1", "v1alpha1", "v1beta2"];
            let ty = versions.iter().find_map(|v| schema.type_by_name(&format!("{package}.{v}.{short}")));
            let Some(ty) = ty else { continue };
            for word in fields.split(' ').filter(|w| *w != "~metadata") {
                let (go, json) = word[1..].split_once(':').unwrap_or((&word[1..], &word[1..]));
                if json != "." && !schema.members(ty).any(|f| f.name.eq_ignore_ascii_case(json)) {
                    missing.push(format!("{name}.{go}"));
                }
            }
        }
        assert!(missing.len() < 40, "{missing:?}");
    }
}
