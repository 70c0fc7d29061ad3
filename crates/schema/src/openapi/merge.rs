//! Another server's OpenAPI v2 document as part of this one's (`kube-openapi/pkg/aggregator/aggregator.go`).

use std::collections::{BTreeMap, BTreeSet};

use corten_tree::{Map, Tree};

const REFERENCE: &str = "#/definitions/";
/// How often names are looked for: as deep as renamed definitions may lie in each other.
const ROUNDS_MAX: usize = 8;
const GVK: &str = "x-kubernetes-group-version-kind";

/// What a document says of the paths below a prefix: those paths, and the definitions that they need
/// (`FilterSpecByPathsWithoutSideEffects`).
#[must_use]
pub fn part(document: &Tree, prefix: &str) -> Tree {
    let mut paths = document.map_at("paths").clone();
    paths.retain(|path, _| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    let paths = Tree::Map(paths);
    let known = document.map_at("definitions");
    let (mut needed, mut open) = (BTreeSet::new(), Vec::new());
    references(&paths, &mut open);
    while let Some(name) = open.pop() {
        if let Some(definition) = known.get(&name)
            && needed.insert(name)
        {
            references(definition, &mut open);
        }
    }
    let mut definitions = known.clone();
    definitions.retain(|name, _| needed.contains(name));
    let mut out = Tree::map();
    out.insert("paths", paths);
    out.insert("definitions", Tree::Map(definitions));
    out
}

/// Puts a part into a document. Paths that are there already stay; a definition that means something else under the same name
/// gets another one (`MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters`).
pub fn merge(document: &mut Tree, part: &Tree) {
    let names = names(document.map_at("definitions"), part.map_at("definitions"));
    let theirs = part.map_at("definitions");
    let mut paths = part.map_at("paths").clone();
    let mut definitions: Vec<(String, Tree)> = Vec::new();
    for (name, definition) in theirs.iter() {
        let mut definition = definition.clone();
        rename(&mut definition, &names);
        definitions.push((names[name].clone(), definition));
    }
    for (_, item) in paths.iter_mut() {
        rename(item, &names);
    }
    let own = document.make_map_at("paths");
    for (path, item) in paths.iter() {
        own.insert_if_absent(path.to_owned(), item.clone());
    }
    own.sort_keys();
    let own = document.make_map_at("definitions");
    for (name, definition) in definitions {
        match own.get_mut(&name) {
            Some(known) => with_kinds(known, &definition),
            None => drop(own.insert(name, definition)),
        }
    }
    own.sort_keys();
}

/// Under which names the definitions of a part go: their own, unless that means something else here.
fn names(own: &Map, theirs: &Map) -> BTreeMap<String, String> {
    let mut names: BTreeMap<String, String> = theirs.keys().map(|name| (name.to_owned(), name.to_owned())).collect();
    // A definition's name depends on those that it refers to.
    for _ in 0..ROUNDS_MAX {
        let mut next = BTreeMap::new();
        for (name, definition) in theirs.iter() {
            let mut definition = without_kinds(definition);
            rename(&mut definition, &names);
            let mut wanted = name.to_owned();
            let mut count = 1;
            while own.get(&wanted).is_some_and(|known| without_kinds(known) != definition) {
                count += 1;
                wanted = format!("{name}_v{count}");
            }
            next.insert(name.to_owned(), wanted);
        }
        if next == names {
            break;
        }
        names = next;
    }
    names
}

fn without_kinds(definition: &Tree) -> Tree {
    let mut out = definition.clone();
    if let Some(map) = out.as_map_mut() {
        map.remove(GVK);
    }
    out
}

/// A type that several servers have stands for the kinds of all of them.
fn with_kinds(known: &mut Tree, other: &Tree) {
    let more = other.get(GVK).and_then(Tree::as_list).unwrap_or_default();
    let mut kinds = known.get(GVK).and_then(Tree::as_list).unwrap_or_default().to_vec();
    for kind in more {
        if !kinds.contains(kind) {
            kinds.push(kind.clone());
        }
    }
    if !kinds.is_empty() {
        known.insert(GVK, kinds);
    }
}

/// The definitions that a part of a document refers to.
fn references(node: &Tree, found: &mut Vec<String>) {
    match node {
        Tree::Map(map) => {
            for (key, value) in map.iter() {
                match value.as_str().filter(|_| key == "$ref").and_then(|r| r.strip_prefix(REFERENCE)) {
                    Some(name) => found.push(name.to_owned()),
                    None => references(value, found),
                }
            }
        }
        Tree::List(list) => list.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

fn rename(node: &mut Tree, names: &BTreeMap<String, String>) {
    match node {
        Tree::Map(map) => rename_in(map, names),
        Tree::List(list) => list.iter_mut().for_each(|item| rename(item, names)),
        _ => {}
    }
}

fn rename_in(map: &mut Map, names: &BTreeMap<String, String>) {
    for (key, value) in map.iter_mut() {
        let named = value.as_str().filter(|_| key == "$ref").and_then(|r| r.strip_prefix(REFERENCE));
        match named.and_then(|name| names.get(name)) {
            Some(new) => *value = format!("{REFERENCE}{new}").into(),
            None => rename(value, names),
        }
    }
}

#[cfg(test)]
mod tests {
    use corten_tree::json;

    use super::*;

    #[test]
    fn openapi_v2_of_another_server_is_merged() {
        let tree = |text: &str| json::parse(text.as_bytes()).unwrap();
        let mut own = tree(
            r##"{"swagger":"2.0","paths":{"/apis/a/v1/x":{"get":1}},"definitions":{
            "Same":{"type":"object","x-kubernetes-group-version-kind":[{"group":"a"}]},"Other":{"type":"string"}}}"##,
        );
        let theirs = tree(
            r##"{"paths":{"/apis/w/v1/y":{"get":{"schema":{"$ref":"#/definitions/Y"}}},"/apis/w/v1beta1/z":{},"/version":{}},
            "definitions":{"Y":{"properties":{"o":{"$ref":"#/definitions/Other"},"s":{"$ref":"#/definitions/Same"}}},
            "Same":{"type":"object","x-kubernetes-group-version-kind":[{"group":"w"}]},"Other":{"type":"integer"},"Unused":{}}}"##,
        );
        let part = part(&theirs, "/apis/w/v1");
        assert!(part.at(&["definitions", "Unused"]).is_none() && part.map_at("paths").len() == 1, "{part}");
        merge(&mut own, &part);
        let expected = tree(
            r##"{"swagger":"2.0","paths":{"/apis/a/v1/x":{"get":1},"/apis/w/v1/y":{"get":{"schema":{"$ref":"#/definitions/Y"}}}},
            "definitions":{"Other":{"type":"string"},"Other_v2":{"type":"integer"},
            "Same":{"type":"object","x-kubernetes-group-version-kind":[{"group":"a"},{"group":"w"}]},
            "Y":{"properties":{"o":{"$ref":"#/definitions/Other_v2"},"s":{"$ref":"#/definitions/Same"}}}}}"##,
        );
        assert_eq!(own.to_json_string(), expected.to_json_string());
        let before = own.to_json_string();
        merge(&mut own, &part);
        assert_eq!(own.to_json_string(), before, "once is enough");
    }
}
