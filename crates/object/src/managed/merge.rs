//! The applied configuration checked, merged into an object, and items taken out of it again.
//!
//! Rules: `structured-merge-diff/v6/typed/{merge,remove,validate}.go`.

use std::collections::BTreeMap;

use corten_schema::{Scalar, Schema};
use corten_tree::{Map, MapBuilder, Tree};

use super::atom::{Atom, ListAtom, MapAtom, Ty, element};
use super::set::{Element, Set};
use crate::patch::go_value;

/// What an object becomes when a configuration is merged into it. Both fit the type.
pub(super) fn merge(schema: &Schema, ty: Ty<'_>, live: &Tree, applied: &Tree) -> Result<Tree, String> {
    Ok(value(schema, ty, Some(live), Some(applied))?.unwrap_or_default())
}

fn value(schema: &Schema, ty: Ty<'_>, live: Option<&Tree>, applied: Option<&Tree>) -> Result<Option<Tree>, String> {
    let atom = ty.atom(schema, applied.or(live));
    let keep = || Ok(applied.or(live).cloned());
    match atom {
        Atom::Leaf => keep(),
        Atom::Map(map) => {
            let (a, b) = (live.and_then(Tree::as_map), applied.and_then(Tree::as_map));
            if map.atomic || (a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty)) {
                return keep();
            }
            members(schema, &map, a, b)
        }
        Atom::List(list) => {
            let (a, b) = (live.and_then(Tree::as_list), applied.and_then(Tree::as_list));
            let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
            if list.atomic() || (a.is_empty() && b.is_empty()) {
                return keep();
            }
            items(schema, &list, a, b)
        }
    }
}

fn members(
    schema: &Schema,
    map: &MapAtom<'_>,
    live: Option<&Map>,
    applied: Option<&Map>,
) -> Result<Option<Tree>, String> {
    let mut out = MapBuilder::new();
    let mut merged = |key: &corten_tree::Key, a: Option<&Tree>, b: Option<&Tree>| -> Result<(), String> {
        let found = match map.member(schema, key).0 {
            Some(ty) => value(schema, ty, a, b)?,
            None => b.or(a).cloned(),
        };
        if let Some(found) = found {
            out.insert(key.clone(), found);
        }
        Ok(())
    };
    let (left, right) = (live.map_or(&[][..], Map::as_slice), applied.map_or(&[][..], Map::as_slice));
    let index: BTreeMap<&str, &Tree> = right.iter().map(|(key, value)| (&**key, value)).collect();
    for (key, value) in left {
        merged(key, Some(value), index.get(&**key).copied())?;
    }
    let known: BTreeMap<&str, ()> = left.iter().map(|(key, _)| (&**key, ())).collect();
    for (key, value) in right.iter().filter(|(key, _)| !known.contains_key(&**key)) {
        merged(key, None, Some(value))?;
    }
    let out = out.finish();
    Ok((!out.is_empty()).then_some(Tree::Map(out)))
}

/// The items of both lists: those of the applied in its order, the others where they were.
fn items(schema: &Schema, list: &ListAtom<'_>, live: &[Tree], applied: &[Tree]) -> Result<Option<Tree>, String> {
    let index = |items: &'_ [Tree]| -> Result<Vec<Element<'static>>, String> {
        let element = |(i, item)| {
            let found = element(schema, list, item).map_err(|why| format!("element {i}: {why}"));
            found.map(Element::into_owned)
        };
        items.iter().enumerate().map(element).collect()
    };
    let (left, right) = (index(live)?, index(applied)?);
    let mut in_left: BTreeMap<&Element<'_>, Option<usize>> = BTreeMap::new();
    for (i, element) in left.iter().enumerate() {
        // Of an item that is there twice, nothing is merged.
        in_left.entry(element).and_modify(|at| *at = None).or_insert(Some(i));
    }
    let in_right: BTreeMap<&Element<'_>, usize> = right.iter().enumerate().map(|(i, e)| (e, i)).collect();
    let mut shared = right.iter().filter(|element| in_left.contains_key(element));
    let mut next_shared = shared.next();
    let mut out: Vec<Tree> = Vec::with_capacity(left.len().max(right.len()));
    let mut done: BTreeMap<&Element<'_>, ()> = BTreeMap::new();
    let null = Tree::Null;
    let both = |element: &Element<'_>| -> Result<Option<Tree>, String> {
        let a = in_left.get(element).map(|at| at.map_or(&null, |at| &live[at]));
        value(schema, list.item, a, in_right.get(element).map(|at| &applied[*at]))
    };
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if let (Some(element), Some(other)) = (left.get(l), right.get(r)) {
            if element == other {
                done.insert(element, ());
                out.extend(both(element)?);
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            if in_right.contains_key(element) && next_shared.is_some_and(|next| next != element) {
                // Shared, but its turn comes later.
                l += 1;
                continue;
            }
        }
        if let Some(element) = left.get(l) {
            if !in_right.contains_key(element) {
                out.extend(value(schema, list.item, Some(&live[l]), None)?);
                l += 1;
                continue;
            }
            if done.contains_key(element) {
                l += 1;
            }
        }
        if let Some(element) = right.get(r) {
            done.insert(element, ());
            out.extend(both(element)?);
            r += 1;
            if next_shared == Some(element) {
                next_shared = shared.next();
            }
        }
    }
    Ok((!out.is_empty()).then_some(Tree::List(out)))
}

/// A value without the items and members of a set.
pub(super) fn remove(schema: &Schema, ty: Ty<'_>, value: &Tree, gone: &Set<'_>) -> Tree {
    match (ty.atom(schema, Some(value)), value) {
        (Atom::Leaf, Tree::Map(_) | Tree::List(_)) => Tree::Null,
        (Atom::Leaf, _) => value.clone(),
        (Atom::List(list), Tree::List(items)) if !list.atomic() => {
            let kept = items.iter().filter_map(|item| {
                let node = element(schema, &list, item).ok().and_then(|element| gone.node(&element));
                match node {
                    Some(node) if node.member => None,
                    Some(node) => Some(remove(schema, list.item, item, &node.below)),
                    None => Some(item.clone()),
                }
            });
            let kept: Vec<Tree> = kept.collect();
            if kept.is_empty() { Tree::Null } else { Tree::List(kept) }
        }
        (Atom::Map(map), Tree::Map(entries)) if !map.atomic => {
            let kept = entries.as_slice().iter().filter_map(|(key, value)| {
                let element = Element::Field(std::borrow::Cow::Borrowed(&**key));
                match (gone.node(&element), map.member(schema, key).0) {
                    (Some(node), _) if node.member => None,
                    (Some(node), Some(ty)) => Some((key.clone(), remove(schema, ty, value, &node.below))),
                    _ => Some((key.clone(), value.clone())),
                }
            });
            let kept: Vec<_> = kept.collect();
            if kept.is_empty() { Tree::Null } else { Tree::Map(Map::from_entries(kept)) }
        }
        _ => Tree::Null,
    }
}

/// A fault of a configuration: where, and what.
struct Fault {
    path: String,
    message: String,
}

/// Checks that a configuration fits its type; the text of all faults if it does not.
pub(super) fn validate(schema: &Schema, ty: Ty<'_>, tree: &Tree) -> Result<(), String> {
    let mut faults = Vec::new();
    check(schema, ty, tree, "", &mut faults);
    let text = |fault: &Fault| match fault.path.as_str() {
        "" => fault.message.clone(),
        path => format!("{path}: {}", fault.message),
    };
    match faults.as_slice() {
        [] => Ok(()),
        [one] => Err(text(one)),
        many => {
            let lines: Vec<String> = many.iter().map(|fault| format!("  {}", text(fault))).collect();
            Err(format!("errors:\n{}", lines.join("\n")))
        }
    }
}

fn check(schema: &Schema, ty: Ty<'_>, tree: &Tree, path: &str, faults: &mut Vec<Fault>) {
    let mut fault = |message: String| faults.push(Fault { path: path.to_owned(), message });
    match (ty.atom(schema, Some(tree)), ty) {
        (_, Ty::Untyped | Ty::Deduced) | (_, Ty::Scalar(Scalar::IntOrString)) => {}
        (Atom::Leaf, Ty::Scalar(Scalar::Strings)) if matches!(tree, Tree::List(_) | Tree::Null) => {}
        (Atom::Leaf, Ty::Scalar(scalar)) => {
            if let Some(message) = scalar_fault(scalar, tree) {
                fault(message);
            }
        }
        (Atom::Map(map), _) => match tree {
            Tree::Null => {}
            Tree::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                for (key, value) in entries {
                    let at = format!("{path}.{key}");
                    match map.member(schema, key).0 {
                        Some(ty) => check(schema, ty, value, &at, faults),
                        None => {
                            faults.push(Fault { path: at, message: "field not declared in schema".into() });
                            return;
                        }
                    }
                }
            }
            other => fault(format!("expected map, got &{{{}}}", go_value(other))),
        },
        (Atom::List(list), _) => match tree {
            Tree::Null => {}
            Tree::List(items) => check_items(schema, &list, items, path, faults),
            other => fault(format!("expected list, got &{{{}}}", go_value(other))),
        },
        (Atom::Leaf, _) => {}
    }
}

fn check_items(schema: &Schema, list: &ListAtom<'_>, items: &[Tree], path: &str, faults: &mut Vec<Fault>) {
    let mut seen: BTreeMap<Element<'_>, ()> = BTreeMap::new();
    for (i, item) in items.iter().enumerate() {
        let mut here = Element::Index(i as i64);
        if !list.atomic() {
            here = match element(schema, list, item) {
                Ok(element) => element,
                Err(why) => {
                    faults.push(Fault { path: path.to_owned(), message: format!("element {i}: {why}") });
                    return;
                }
            };
            if seen.insert(here.clone(), ()).is_some() {
                let message = format!("duplicate entries for key {here}");
                faults.push(Fault { path: path.to_owned(), message });
            }
        }
        check(schema, list.item, item, &format!("{path}{here}"), faults);
    }
}

/// What a scalar's type says against a value, in Go's words (`typed/validate.go` `validateScalar`).
fn scalar_fault(scalar: Scalar, tree: &Tree) -> Option<String> {
    let any = matches!(tree, Tree::Int(_) | Tree::Float(_) | Tree::Str(_) | Tree::Bool(_));
    match (scalar, tree) {
        (_, Tree::Null) => None,
        (Scalar::Int32 | Scalar::Int64 | Scalar::Float64, Tree::Int(_) | Tree::Float(_)) => None,
        (Scalar::Int32 | Scalar::Int64 | Scalar::Float64, other) => {
            let found = match other {
                Tree::Str(_) => "string",
                Tree::Bool(_) => "bool",
                Tree::List(_) => "[]interface {}",
                _ => "map[string]interface {}",
            };
            Some(format!("expected numeric (int or float), got {found}"))
        }
        (Scalar::Bool, Tree::Bool(_)) | (Scalar::Str | Scalar::Bytes | Scalar::Duration, Tree::Str(_)) => None,
        (Scalar::Bool, other) => Some(format!("expected boolean, got &{{{}}}", go_value(other))),
        (Scalar::Str | Scalar::Bytes | Scalar::Duration, other) => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(other)))
        }
        _ if any => None,
        (_, other) => Some(format!("expected any scalar, got &{{{}}}", go_value(other))),
    }
}

/// A value as Go's `%#v` prints it.
fn go_syntax(tree: &Tree) -> String {
    match tree {
        Tree::Null => "interface {}(nil)".into(),
        Tree::Str(text) => format!("{text:?}"),
        Tree::List(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Tree::Map(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries: Vec<String> = entries.iter().map(|(k, v)| format!("{k:?}:{}", go_syntax(v))).collect();
            format!("map[string]interface {{}}{{{}}}", entries.join(", "))
        }
        other => other.to_string(),
    }
}
