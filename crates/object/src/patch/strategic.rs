//! Strategic merge patch: a merge patch that knows which lists are keyed, by the schema's patch strategies and merge keys.
//!
//! Directives: `$patch` (replace, delete, merge) in maps and list items, `$retainKeys`, `$setElementOrder/FIELD`,
//! `$deleteFromPrimitiveList/FIELD`. (`apimachinery/pkg/util/strategicpatch/patch.go` `mergeMap`)

use corten_schema::{FieldType, Schema, TypeId};
use corten_tree::{Key, Map, MapBuilder, Tree};

use super::PatchError;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const ELEMENT_ORDER: &str = "$setElementOrder";

/// Merges `patch` into an object of type `ty`.
pub fn strategic_patch(schema: &Schema, ty: TypeId, object: Tree, patch: Tree) -> Result<Tree, PatchError> {
    let (Tree::Map(object), Tree::Map(patch)) = (object, patch) else { return Ok(Tree::map()) };
    Merger { schema }.merge_map(object, patch, Meta::of(Some(&FieldType::Struct(ty)))).map(Tree::Map)
}

type Outcome<T> = Result<T, PatchError>;

/// What the schema says of a value: its type, and for a field the patch strategy.
#[derive(Clone, Copy, Default)]
struct Meta<'s> {
    ty: Option<&'s FieldType>,
    merge: bool,
    replace: bool,
    merge_key: &'s str,
}

impl<'s> Meta<'s> {
    fn of(ty: Option<&'s FieldType>) -> Meta<'s> {
        Meta { ty, ..Meta::default() }
    }

    /// The same for the items of a list.
    fn item(self) -> Meta<'s> {
        Meta::of(match self.ty {
            Some(FieldType::List(item)) => Some(item),
            _ => None,
        })
    }
}

fn bad_request(message: &str) -> PatchError {
    PatchError::BadRequest(message.to_owned())
}

fn wrong_element_order() -> PatchError {
    bad_request("invalid patch format of setElementOrder list")
}

fn no_merge_key(item: &Tree, key: &str) -> PatchError {
    PatchError::Internal(format!("map: {} does not contain declared merge key: {key}", go_value(item)))
}

fn wrong_argument(expected: &str, actual: &Tree) -> PatchError {
    PatchError::Internal(format!("expected a {expected}, but received a {}", go_type(actual)))
}

fn go_type(tree: &Tree) -> &'static str {
    match tree {
        Tree::Null => "%!s(<nil>)",
        Tree::Bool(_) => "bool",
        Tree::Int(_) => "int64",
        Tree::Float(_) => "float64",
        Tree::Str(_) => "string",
        Tree::List(_) => "[]interface {}",
        Tree::Map(_) | Tree::Raw(_) => "map[string]interface {}",
    }
}

/// A value as Go's `%v` prints it.
pub(crate) fn go_value(tree: &Tree) -> String {
    match tree {
        Tree::Null => "<nil>".into(),
        Tree::Str(text) => text.clone(),
        Tree::List(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Tree::Map(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{key}:{}", go_value(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        scalar => scalar.to_string(),
    }
}

fn directive(item: &Tree) -> Option<&Tree> {
    item.get(DIRECTIVE)
}

/// A value without its directives; `None` if it is one itself.
fn without_directives(tree: Tree) -> Option<Tree> {
    match tree {
        Tree::Map(map) if map.contains(DIRECTIVE) => None,
        Tree::Map(map) => {
            let entries = map.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Tree::Map(Map::from_entries(entries.collect())))
        }
        Tree::List(items) => Some(Tree::List(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

/// Takes null members out of maps, at any depth.
fn discard_nulls(tree: &mut Tree) {
    match tree {
        Tree::Map(map) => map.retain(|_, value| {
            discard_nulls(value);
            !value.is_null()
        }),
        Tree::List(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// Where `item` is in `list`: by its merge key, or if that is empty by itself.
fn position(list: &[Tree], item: &Tree, merge_key: &str) -> Option<usize> {
    if merge_key.is_empty() {
        return list.iter().position(|other| other == item);
    }
    let value = item.get(merge_key)?;
    list.iter().position(|other| other.get(merge_key) == Some(value))
}

/// What the elements of two lists are; mixed kinds and lists of lists are refused.
fn element_is_map(a: &[Tree], b: &[Tree]) -> Outcome<bool> {
    let mut kinds = a.iter().chain(b).map(|item| (go_type(item), item));
    let Some((first, item)) = kinds.next() else {
        return Err(PatchError::Internal("no elements in any of the given slices".into()));
    };
    if matches!(item, Tree::List(_)) {
        return Err(PatchError::Unprocessable("lists of lists are not supported".into()));
    }
    match kinds.find(|(kind, _)| *kind != first) {
        Some((other, _)) => Err(PatchError::Internal(format!("list element types are not identical: {first} {other}"))),
        None => Ok(matches!(item, Tree::Map(_))),
    }
}

struct Merger<'s> {
    schema: &'s Schema,
}

impl<'s> Merger<'s> {
    /// What the schema says of a member of a map.
    fn member(&self, meta: Meta<'s>, key: &str) -> Meta<'s> {
        match meta.ty {
            Some(FieldType::Struct(ty)) => self.schema.field(*ty, key).map_or(Meta::default(), |field| Meta {
                ty: Some(&field.ty),
                merge: field.patch.merge,
                replace: field.patch.replace,
                merge_key: field.merge_key,
            }),
            Some(FieldType::Map(item)) => Meta::of(Some(item)),
            _ => Meta::default(),
        }
    }

    fn merge_map(&self, object: Map, mut patch: Map, meta: Meta<'s>) -> Outcome<Map> {
        let mut object = MapBuilder::from(object);
        match patch.remove(DIRECTIVE) {
            None => {}
            Some(Tree::Str(what)) if what == "replace" => return Ok(patch),
            Some(Tree::Str(what)) if what == "delete" => return Ok(Map::new()),
            Some(other) => {
                patch.insert(DIRECTIVE, other.clone());
                let (what, whole) = (go_value(&other), go_value(&Tree::Map(patch)));
                return Err(PatchError::Internal(format!("unknown patch type: {what} in map: {whole}")));
            }
        }
        retain_keys(&mut object, &mut patch)?;
        self.merge_ordered_lists(&mut object, &mut patch, meta)?;
        for (key, value) in patch {
            match key.strip_prefix(DELETE_FROM_LIST) {
                Some(field) => {
                    let field = field
                        .strip_prefix('/')
                        .ok_or_else(|| bad_request("invalid patch format of primitive list"))?
                        .to_owned();
                    self.delete_from_list(&mut object, &field, value)?;
                }
                None => self.merge_member(&mut object, key, value, meta)?,
            }
        }
        Ok(object.finish())
    }

    fn merge_member(&self, object: &mut MapBuilder, key: Key, mut value: Tree, meta: Meta<'s>) -> Outcome<()> {
        if value.is_null() {
            object.remove(&key);
            return Ok(());
        }
        let meta = self.member(meta, &key);
        let Some(slot) = object.get_mut(&key) else {
            discard_nulls(&mut value);
            if let Some(value) = without_directives(value) {
                object.insert(key, value);
            }
            return Ok(());
        };
        let merged = match (std::mem::take(slot), value) {
            (Tree::Map(_), patch @ Tree::Map(_)) if meta.replace => Some(patch),
            (Tree::Map(old), Tree::Map(patch)) => Some(Tree::Map(self.merge_map(old, patch, meta)?)),
            (Tree::List(old), Tree::List(patch)) if meta.merge => Some(Tree::List(self.merge_list(old, patch, meta)?)),
            (Tree::List(_), patch @ Tree::List(_)) => Some(patch),
            (old, mut patch) => {
                if go_type(&old) != go_type(&patch) {
                    discard_nulls(&mut patch);
                }
                without_directives(patch)
            }
        };
        match merged {
            Some(merged) => *slot = merged,
            None => drop(object.remove(&key)),
        }
        Ok(())
    }

    fn delete_from_list(&self, object: &mut MapBuilder, field: &str, value: Tree) -> Outcome<()> {
        match (object.get_mut(field), value) {
            (_, Tree::Null) => drop(object.remove(field)),
            (Some(Tree::List(items)), Tree::List(gone)) if !items.is_empty() && !element_is_map(items, &gone)? => {
                items.retain(|item| !gone.contains(item));
            }
            _ => {}
        }
        Ok(())
    }

    /// Merges the lists that the patch gives an order for, and orders them.
    fn merge_ordered_lists(&self, object: &mut MapBuilder, patch: &mut Map, meta: Meta<'s>) -> Outcome<()> {
        let directives: Vec<String> =
            patch.keys().filter(|key| key.starts_with(ELEMENT_ORDER)).map(str::to_owned).collect();
        for key in directives {
            let order = match patch.remove(&key) {
                Some(Tree::List(order)) => order,
                Some(other) => return Err(wrong_argument("[]interface {}", &other)),
                None => continue,
            };
            let field = key.strip_prefix(ELEMENT_ORDER).and_then(|rest| rest.strip_prefix('/'));
            let field = field.ok_or_else(wrong_element_order)?;
            let meta = self.member(meta, field);
            let live = list_of(object.get(field))?;
            let given = list_of(patch.get(field))?;
            check_order(given.unwrap_or_default(), &order, meta.merge_key)?;
            if live.is_none() && given.is_none() {
                continue;
            }
            let mixed = element_is_map(live.unwrap_or_default(), given.unwrap_or_default());
            let mut live_order = live.unwrap_or_default().to_vec();
            let merged = match (live.is_some(), patch.remove(field)) {
                (true, None) => live_order.clone(),
                (false, Some(Tree::List(given))) => given.into_iter().filter_map(without_directives).collect(),
                (true, Some(Tree::List(given))) if meta.merge => {
                    let live = live_order.clone();
                    live_order = order_seen_after(live_order, &given, meta.merge_key);
                    self.merge_list(live, given, meta)?
                }
                (true, Some(Tree::List(given))) => given,
                _ => continue,
            };
            mixed?;
            object
                .insert(Key::from(field.to_owned()), Tree::List(arrange(merged, &order, &live_order, meta.merge_key)?));
        }
        Ok(())
    }

    /// Merges two lists of the `merge` strategy: maps by their key, scalars as sets.
    fn merge_list(&self, mut live: Vec<Tree>, patch: Vec<Tree>, meta: Meta<'s>) -> Outcome<Vec<Tree>> {
        if live.is_empty() && patch.is_empty() {
            return Ok(live);
        }
        if !element_is_map(&live, &patch)? {
            let live_order = live.clone();
            let mut merged: Vec<Tree> = Vec::with_capacity(live.len() + patch.len());
            for item in live.into_iter().chain(patch.iter().cloned()) {
                if !merged.contains(&item) {
                    merged.push(item);
                }
            }
            return arrange(merged, &patch, &live_order, "");
        }
        if meta.merge_key.is_empty() {
            return Err(PatchError::Internal("cannot merge lists without merge key for struct".into()));
        }
        let patch = special_items(&mut live, patch, meta.merge_key)?;
        let live_order = live.clone();
        let order = patch.clone();
        for item in patch {
            if item.get(meta.merge_key).is_none() {
                return Err(no_merge_key(&item, meta.merge_key));
            }
            match (position(&live, &item, meta.merge_key), item) {
                (Some(at), Tree::Map(item)) => {
                    if let Tree::Map(old) = std::mem::take(&mut live[at]) {
                        live[at] = Tree::Map(self.merge_map(old, item, meta.item())?);
                    }
                }
                (_, item) => live.push(item),
            }
        }
        arrange(live, &order, &live_order, meta.merge_key)
    }
}

fn list_of(tree: Option<&Tree>) -> Outcome<Option<&[Tree]>> {
    match tree {
        None => Ok(None),
        Some(Tree::List(items)) => Ok(Some(items)),
        Some(other) => Err(wrong_argument("[]interface {}", other)),
    }
}

/// Keeps only the members that `$retainKeys` names, which must name all that the patch sets.
fn retain_keys(object: &mut MapBuilder, patch: &mut Map) -> Outcome<()> {
    let Some(kept) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let wrong = || bad_request("invalid patch format of retainKeys");
    let kept = kept.as_list().ok_or_else(wrong)?;
    let names = |key: &str| kept.iter().any(|name| name.as_str() == Some(key));
    let directive = |key: &str| key.starts_with(DELETE_FROM_LIST) || key.starts_with(ELEMENT_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !directive(key) && !names(key)) {
        return Err(wrong());
    }
    object.retain_keys(names);
    Ok(())
}

/// Carries the `$patch` items of a keyed list out; returns the patch without them.
fn special_items(live: &mut Vec<Tree>, patch: Vec<Tree>, merge_key: &str) -> Outcome<Vec<Tree>> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        match directive(&item).map(|what| what.as_str().unwrap_or_default()) {
            None => plain.push(item),
            Some("delete") => {
                let value = item.get(merge_key).ok_or_else(|| no_merge_key(&item, merge_key))?;
                live.retain(|other| other.get(merge_key) != Some(value));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(PatchError::Internal("merging lists cannot yet be specified in the patch".into()));
            }
            Some(other) => {
                let item = go_value(&item);
                return Err(PatchError::Internal(format!("unknown patch type: {other} in map: {item}")));
            }
        }
    }
    if replace {
        *live = plain;
        return Ok(Vec::new());
    }
    Ok(plain)
}

/// The items of a patch must come in the order that `$setElementOrder` gives, and be all in it.
fn check_order(patch: &[Tree], order: &[Tree], merge_key: &str) -> Outcome<()> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let key_of = |item: &'_ Tree| -> Outcome<Tree> {
        match item {
            _ if merge_key.is_empty() => Ok(item.clone()),
            Tree::Map(map) => map.get(merge_key).cloned().ok_or_else(|| no_merge_key(item, merge_key)),
            other => Err(wrong_argument("map[string]interface {}", other)),
        }
    };
    let is_delete = |item: &Tree| directive(item).and_then(Tree::as_str) == Some("delete");
    let mut items = patch.iter().filter(|item| merge_key.is_empty() || !is_delete(item)).peekable();
    let mut places = order.iter().peekable();
    while let (Some(item), Some(place)) = (items.peek(), places.peek()) {
        if directive(item).is_some() {
            items.next();
            continue;
        }
        if key_of(item)? == key_of(place)? {
            items.next();
        }
        places.next();
    }
    if items.peek().is_none() {
        return Ok(());
    }
    let (patch, order) = (go_value(&Tree::List(patch.to_vec())), go_value(&Tree::List(order.to_vec())));
    let message = format!("The order in patch list:\n{patch}\n doesn't match {ELEMENT_ORDER} list:\n{order}\n");
    Err(PatchError::Internal(message))
}

/// The live order that upstream compares with after a merge. Its merge deletes and appends in place, in the array whose first
/// positions are still taken for the live list: what the patch adds takes the places at the end of what it deleted.
fn order_seen_after(live: Vec<Tree>, patch: &[Tree], merge_key: &str) -> Vec<Tree> {
    let length = live.len();
    let deleted = |item: &Tree| {
        let gone = |other: &&Tree| directive(other).and_then(Tree::as_str) == Some("delete");
        position(live.as_slice(), item, merge_key).is_some()
            && patch.iter().filter(gone).any(|other| other.get(merge_key) == item.get(merge_key))
    };
    let mut seen: Vec<Tree> = live.iter().filter(|item| !deleted(item)).cloned().collect();
    for item in patch.iter().filter(|item| directive(item).is_none()) {
        if seen.len() < length && position(&seen, item, merge_key).is_none() {
            seen.push(item.clone());
        }
    }
    seen
}

/// Orders a merged list: the items that `order` names in that order, the others in the live list's, interleaved so that
/// the live order is kept where the two do not disagree (`normalizeElementOrder`, `mergeSortedSlice`).
fn arrange(merged: Vec<Tree>, order: &[Tree], live: &[Tree], merge_key: &str) -> Outcome<Vec<Tree>> {
    let by_key = !merge_key.is_empty();
    if let Some(item) = merged.iter().chain(order).find(|item| by_key && item.get(merge_key).is_none()) {
        return Err(no_merge_key(item, merge_key));
    }
    let mut named = Vec::new();
    let mut others = Vec::new();
    for item in merged {
        let place = position(live, &item, merge_key);
        match position(order, &item, merge_key) {
            Some(at) => named.push((at, place, item)),
            None => others.push((place.unwrap_or(usize::MAX), place, item)),
        }
    }
    named.sort_by_key(|(at, ..)| *at);
    others.sort_by_key(|(at, ..)| *at);
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().map(|(_, place, item)| (place, item)).peekable();
    for (_, place, item) in others {
        // A named item goes first unless both were in the live list and this one was before it.
        while let Some((_, named_item)) =
            named.next_if(|(at, _)| !matches!((place, at), (Some(p), Some(at)) if p < *at))
        {
            arranged.push(named_item);
        }
        arranged.push(item);
    }
    arranged.extend(named.map(|(_, item)| item));
    Ok(arranged)
}
