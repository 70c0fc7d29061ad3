//! The four patches and the sets of fields.

use corten_base::Timestamp;
use corten_object::managed::{self, Context, Ownable, Set, Versions};
use corten_object::patch::{self, PatchKind, merge_patch};
use corten_schema::{Options, TypeId, builtin, canonicalise};
use corten_tree::{Map, Tree, json, tree};

use super::{objects_of_all_kinds, pair, type_of};
use crate::{Class, class};

/// Objects, each with the next of its kind or itself as the other.
pub(super) fn pairs() -> Vec<Vec<u8>> {
    let objects = objects_of_all_kinds();
    let other =
        |i: usize| objects.get(i + 1).filter(|(ty, _)| *ty == objects[i].0).map_or(&objects[i].1, |(_, tree)| tree);
    (0..objects.len()).map(|i| two("object", &objects[i].1, "patch", other(i))).collect()
}

fn two(first: &str, a: &Tree, second: &str, b: &Tree) -> Vec<u8> {
    Tree::Map(Map::from_entries(vec![(first.to_owned().into(), a.clone()), (second.to_owned().into(), b.clone())]))
        .to_json()
}

pub(super) fn json_seeds() -> Vec<Vec<u8>> {
    let object = tree!({"a": {"b": [1, {"c": "d"}], "e~f/g": null}, "h": "i"});
    let operations = [
        tree!([{"op": "add", "path": "/a/b/1", "value": {"x": []}}, {"op": "remove", "path": "/h"}]),
        tree!([{"op": "replace", "path": "/a/e~0f~1g", "value": 1}, {"op": "test", "path": "/a/b/0", "value": 1}]),
        tree!([{"op": "copy", "from": "/a", "path": "/a/b/-"}, {"op": "move", "from": "/a/b/0", "path": "/z"}]),
    ];
    operations.iter().map(|patch| two("object", &object, "patch", patch)).collect()
}

pub(super) fn json_patch(input: &[u8]) -> Class {
    let Some((object, patch)) = pair(input, "object", "patch") else { return class("json-patch", "no pair") };
    let ty = builtin().type_by_name("core.v1.ConfigMap").expect("the table has it");
    match patch::apply(PatchKind::Json, builtin(), ty, object, &patch.to_json()) {
        Ok(patched) => class("patched", patched.strict.first().map_or("", String::as_str)),
        Err(error) => class("json-patch error", &error.to_string()),
    }
}

/// Without members that are null: what a merge patch can make.
fn without_nulls(tree: &Tree) -> Tree {
    match tree {
        Tree::Map(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Tree::Map(kept.map(|(key, value)| (key.to_owned().into(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}

/// The merge patch that makes `new` of `old` (RFC 7386 the other way round).
fn difference(old: &Tree, new: &Tree) -> Tree {
    let (Tree::Map(from), Tree::Map(to)) = (old, new) else { return new.clone() };
    let mut patch = Map::default();
    for (key, _) in from.iter().filter(|(key, _)| !to.contains(key)) {
        patch.insert(key.to_owned(), Tree::Null);
    }
    for (key, value) in to.iter() {
        match from.get(key) {
            Some(before) if before.semantically_equal(value) => {}
            Some(before) if matches!((before, value), (Tree::Map(_), Tree::Map(_))) => {
                drop(patch.insert(key.to_owned(), difference(before, value)))
            }
            _ => drop(patch.insert(key.to_owned(), value.clone())),
        }
    }
    Tree::Map(patch)
}

/// A patch twice is a patch once; the difference of two documents makes one of the other.
pub(super) fn merge(input: &[u8]) -> Class {
    let Some((object, patch)) = pair(input, "object", "patch") else { return class("merge", "no pair") };
    let once = merge_patch(object.clone(), patch.clone());
    let twice = merge_patch(once.clone(), patch.clone());
    assert!(once.semantically_equal(&twice), "a merge patch twice is another than once");
    let wanted = without_nulls(&patch);
    let old = without_nulls(&object);
    if let (Tree::Map(_), Tree::Map(_)) = (&old, &wanted) {
        let made = merge_patch(old.clone(), difference(&old, &wanted));
        assert!(made.semantically_equal(&wanted), "the difference makes {} of it", made.to_json_string());
    }
    class("merge", &format!("{} {}", object.type_name(), patch.type_name()))
}

pub(super) fn strategic_seeds() -> Vec<Vec<u8>> {
    let pod = tree!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "finalizers": ["a", "b"]},
        "spec": {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80}], "env": [{"name": "x", "value": "y"}]}, {"name": "b"}],
            "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"key": "k"}]}
    });
    let patches = [
        tree!({"spec": {"containers": [{"name": "a", "$patch": "delete"}, {"name": "c", "image": "j"}], "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}]}}),
        tree!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b"]}}),
        tree!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}], "$patch": "replace"}}),
        tree!({"spec": {"containers": [{"name": "a", "env": [{"$patch": "replace"}, {"name": "z", "value": "1"}]}], "tolerations": null}}),
    ];
    let mut seeds: Vec<Vec<u8>> = patches.iter().map(|patch| two("object", &pod, "patch", patch)).collect();
    seeds.extend(pairs());
    seeds
}

/// A patch of nothing changes nothing; the result of a patch can be decoded or is refused.
pub(super) fn strategic(input: &[u8]) -> Class {
    let Some((object, patch)) = pair(input, "object", "patch") else { return class("strategic", "no pair") };
    let Some(ty) = type_of(&object) else { return class("strategic", "no type") };
    let Ok(object) = canonicalise(builtin(), ty, &object, Options::default()) else { return class("strategic", "no") };
    let nothing =
        patch::apply(PatchKind::Strategic, builtin(), ty, object.tree.clone(), b"{}").expect("an empty patch is good");
    assert!(nothing.tree.semantically_equal(&object.tree), "an empty patch changes the object");
    match patch::apply(PatchKind::Strategic, builtin(), ty, object.tree, &patch.to_json()) {
        Ok(patched) => match canonicalise(builtin(), ty, &patched.tree, Options::default()) {
            Ok(decoded) => class("strategic", decoded.strict.first().map_or("", String::as_str)),
            Err(error) => class("strategic, then", &error.to_string()),
        },
        Err(error) => class("strategic error", &error.to_string()),
    }
}

/// One version, that of the input.
struct One(TypeId, String);

impl Versions for One {
    fn type_of(&self, api_version: &str) -> Option<TypeId> {
        (api_version == self.1).then_some(self.0)
    }

    fn convert(&self, tree: &Tree, from: &str, to: &str) -> Option<Tree> {
        (from == to).then(|| tree.clone())
    }
}

/// Applying the same again changes nothing but times; what was applied is there.
pub(super) fn apply(input: &[u8]) -> Class {
    let Some((object, applied)) = pair(input, "object", "patch") else { return class("apply", "no pair") };
    let Some(ty) = type_of(&object) else { return class("apply", "no type") };
    let Ok(live) = canonicalise(builtin(), ty, &object, Options::default()) else { return class("apply", "no") };
    let (api_version, kind) = (object.str_at("apiVersion"), object.str_at("kind"));
    let versions = One(ty, api_version.to_owned());
    let context = Context {
        schema: builtin(),
        versions: &versions,
        api_version,
        kind,
        subresource: "",
        ownable: Ownable::All,
        now: Timestamp::UNIX_EPOCH,
        schema_changes: false,
    };
    let empty = tree!({"apiVersion": api_version, "kind": kind});
    match managed::apply(&context, &empty, &live.tree, &applied, "fuzz", true) {
        Ok(first) => {
            // As the pipeline does before it stores: what is empty goes.
            let canonical =
                |tree: &Tree| canonicalise(builtin(), ty, tree, Options::default()).map(|decoded| decoded.tree);
            let Ok(stored) = canonical(&first.tree) else { return class("applied", "not of the kind") };
            let again = managed::apply(&context, &empty, &stored, &applied, "fuzz", true);
            let again = again.unwrap_or_else(|_| panic!("what was applied is not applied again"));
            let again = canonical(&again.tree).expect("what was stored is of the kind");
            let (one, two) = (stored.to_json_string(), again.to_json_string());
            // A key that is null is one of its own, upstream too (`keyedAssociativeListItemToPathElement`), and becomes another with
            // the object's types; validation keeps such objects out.
            if one.contains(r#"\":null"#) {
                return class("applied", "a key that is null");
            }
            assert!(again.semantically_equal(&stored), "applied again it is another:\n{one}\n{two}");
            class("applied", &first.tree.list_at("metadata.managedFields").len().to_string())
        }
        Err(error) => class("apply error", &corten_object::Status::from(error).message),
    }
}

pub(super) fn field_sets() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"f:metadata":{"f:labels":{".":{},"f:a":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:image":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{}}},"k:{\"x\":1.5}":{}},"f:finalizers":{"v:\"b\"":{},"v:1":{}},"f:list":{"i:0":{},"i:7":{}}}}"#,
        r#"{"f:data":{".":{},"f:k":{}}}"#,
    ];
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

/// A set is written so that it is read as the same, and the algebra of sets holds.
pub(super) fn fields_v1(input: &[u8]) -> Class {
    let text = String::from_utf8_lossy(input);
    match Set::parse(&text) {
        Ok(set) => {
            let written = set.to_raw();
            let again = Set::parse(written.as_str()).expect("a set that was written is read");
            assert_eq!(again.to_raw().as_str(), written.as_str(), "a set changes");
            let union = again.clone().union(again.clone());
            assert_eq!(union.to_raw().as_str(), written.as_str(), "a set and itself are another");
            assert!(again.difference(&again).is_empty(), "a set without itself is not empty");
            assert_eq!(
                again.intersection(&again).to_raw().as_str(),
                written.as_str(),
                "a set's part in itself is another"
            );
            let _ = again.paths();
            class("set", &again.is_empty().to_string())
        }
        Err(error) => {
            let _ = json::parse(input);
            class("set error", &error.message)
        }
    }
}
