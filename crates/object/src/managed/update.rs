//! What a create, update or patch changes about the managed fields.

use std::borrow::Cow;
use std::collections::BTreeMap;

use corten_tree::Tree;

use super::atom::Ty;
use super::compare::{Comparison, compare, reconcile};
use super::entries::{Entries, Fields, Owner};
use super::set::Set;
use super::{Context, Ownable};
use crate::time;

/// The managed fields after `live` became `new` by a write of `manager` other than apply; `None` if nobody owns anything.
///
/// `live` is the object before; for a create the kind's empty object. Both are at the request's version. An error says why
/// the states cannot be compared: the managed fields stay those of `live` then (`FieldManager.UpdateNoErrors`).
pub fn update(context: &Context<'_>, live: &Tree, new: &Tree, manager: &str) -> Result<Option<Tree>, String> {
    let (entries, checked) = live_or_new(live, new, !context.subresource.is_empty());
    updated(context, live, new, entries, checked, manager).map(Entries::into_tree)
}

/// As [`update`], with the entries so far given.
pub(super) fn updated<'a>(
    context: &Context<'a>,
    live: &'a Tree,
    new: &'a Tree,
    mut entries: Entries<'a>,
    checked: bool,
    manager: &'a str,
) -> Result<Entries<'a>, String> {
    // What was never tracked, or was reset, is tracked again from the next apply on.
    if entries.is_empty() && !live.str_at("metadata.uid").is_empty() {
        return Ok(entries);
    }
    if context.schema_changes || !checked {
        reconcile_all(context, &mut entries)?;
    }
    let root = root(context)?;
    let comparison = filtered(context.ownable, compare(context.schema, root, live, new)?);
    let conversions = converted(context, live, new, &entries)?;
    let mut versions: BTreeMap<String, Comparison<'_>> = BTreeMap::new();
    for (version, (ty, live, new)) in &conversions {
        let compared = compare(context.schema, Ty::root(context.schema, *ty), live, new)?;
        versions.insert(version.clone(), filtered(context.ownable_at(version), compared));
    }
    entries.0.retain(|entry| {
        *entry.owner.api_version == *context.api_version || versions.contains_key(&*entry.owner.api_version)
    });
    for entry in &mut entries.0 {
        let own = versions.get(&*entry.owner.api_version).unwrap_or(&comparison);
        for changed in [&own.modified, &own.added, &own.removed] {
            if entry.fields.overlaps(changed) {
                entry.fields = Fields::Set(entry.fields.to_set().difference(changed));
            }
        }
    }
    entries.drop_empty();
    let mine = comparison.modified.union(comparison.added).without_system_fields();
    if !mine.is_empty() {
        let owner = owner(context, manager, false);
        let all = match entries.get(&owner) {
            Some(entry) => mine.union(entry.fields.to_set()),
            None => mine,
        };
        entries.put(owner.clone(), all);
        stamp(context, &mut entries, &owner);
    }
    entries.cap();
    Ok(entries)
}

/// The manager of this request.
pub(super) fn owner<'a>(context: &Context<'a>, manager: &'a str, applied: bool) -> Owner<'a> {
    Owner {
        manager: Cow::Borrowed(if manager.is_empty() { "unknown" } else { manager }),
        applied,
        api_version: Cow::Borrowed(context.api_version),
        subresource: Cow::Borrowed(context.subresource),
    }
}

pub(super) fn stamp(context: &Context<'_>, entries: &mut Entries<'_>, owner: &Owner<'_>) {
    if let Some(at) = entries.position(owner) {
        entries.0[at].time = Some(Cow::Owned(time::format(context.now)));
    }
}

pub(super) fn root<'c>(context: &Context<'c>) -> Result<Ty<'c>, String> {
    let ty = context.versions.type_of(context.api_version);
    let ty = ty.ok_or_else(|| format!("no corresponding type for {}, Kind={}", context.api_version, context.kind))?;
    Ok(Ty::root(context.schema, ty))
}

pub(super) fn filtered<'a>(ownable: Ownable<'_>, comparison: Comparison<'a>) -> Comparison<'a> {
    Comparison {
        removed: ownable.filter(comparison.removed),
        modified: ownable.filter(comparison.modified),
        added: ownable.filter(comparison.added),
    }
}

/// Both states at the other versions that entries were written at, with the type there.
type AtVersions = BTreeMap<String, (corten_schema::TypeId, Tree, Tree)>;

pub(super) fn converted(
    context: &Context<'_>,
    live: &Tree,
    new: &Tree,
    entries: &Entries<'_>,
) -> Result<AtVersions, String> {
    let mut found = AtVersions::new();
    for entry in &entries.0 {
        let version = &*entry.owner.api_version;
        if version == context.api_version || found.contains_key(version) {
            continue;
        }
        let Some(ty) = context.versions.type_of(version) else { continue };
        let convert = |tree| context.versions.convert(tree, context.api_version, version);
        if let (Some(live), Some(new)) = (convert(live), convert(new)) {
            found.insert(version.to_owned(), (ty, live, new));
        }
    }
    Ok(found)
}

/// Brings all field sets in line with the types as they are now; an error says of which entry that is impossible.
pub(super) fn reconcile_all(context: &Context<'_>, entries: &mut Entries<'_>) -> Result<(), String> {
    for entry in &mut entries.0 {
        if let Some(why) = context.versions.unknown(&entry.owner.api_version) {
            return Err(why);
        }
        if let Some(ty) = context.versions.type_of(&entry.owner.api_version) {
            let set = entry.fields.to_set();
            entry.fields = Fields::Set(reconcile(context.schema, Ty::root(context.schema, ty), set));
        }
    }
    Ok(())
}

/// The entries that a write starts from, and whether their sets are known to be well-formed: those of the new state where
/// it has some that can be read, else the live ones; none where it resets them (`decodeLiveOrNew`).
fn live_or_new<'a>(live: &'a Tree, new: &'a Tree, subresource: bool) -> (Entries<'a>, bool) {
    static NONE: Tree = Tree::Null;
    let of = |tree: &'a Tree| tree.at(&["metadata", "managedFields"]).unwrap_or(&NONE);
    let (mine, theirs) = (of(live), of(new));
    let from_live = || (Entries::read(mine, true).unwrap_or_default(), true);
    if subresource || mine == theirs {
        return from_live();
    }
    let reset = match theirs {
        Tree::List(items) => match items.as_slice() {
            [] => true,
            [one] => one.as_map().is_some_and(|map| map.is_empty()),
            _ => false,
        },
        _ => false,
    };
    if reset {
        return (Entries::default(), true);
    }
    match Entries::read(theirs, false) {
        Ok(entries) if !entries.is_empty() => (entries, false),
        _ => from_live(),
    }
}

/// Takes the times of the old managed fields over where nothing else about them differs; whether it did. The caller then sees
/// whether anything else changed (`handlers/fieldmanager/equality.go` `IgnoreManagedFieldsTimestampsTransformer`).
pub fn keep_times(old: &Tree, new: &mut Tree) -> bool {
    let path = ["metadata", "managedFields"];
    let (Some(Tree::List(before)), Some(Tree::List(after))) = (old.at(&path), new.at(&path)) else { return false };
    let same = |a: &Tree, b: &Tree| {
        let fields = ["manager", "operation", "apiVersion", "fieldsType", "fieldsV1", "subresource"];
        fields.iter().all(|key| a.get(key) == b.get(key))
    };
    let equal = before.len() == after.len() && !after.is_empty() && before.iter().zip(after).all(|(a, b)| same(a, b));
    if !equal || before == after || !same_content(old, new) {
        return false;
    }
    let before = Tree::List(before.clone());
    new.make_map_at("metadata").insert("managedFields", before);
    true
}

/// Whether nothing but metadata differs.
fn same_content(old: &Tree, new: &Tree) -> bool {
    let (old, new) = (old.fields(), new.fields());
    let content = |map: &'_ corten_tree::Map| map.keys().filter(|key| *key != "metadata").count();
    content(old) == content(new) && old.iter().all(|(key, value)| key == "metadata" || new.get(key) == Some(value))
}

/// The union of sets, by the version that they were written at.
pub(super) fn by_version<'a>(entries: &Entries<'a>) -> BTreeMap<String, Set<'a>> {
    let mut found: BTreeMap<String, Set<'a>> = BTreeMap::new();
    for entry in &entries.0 {
        let slot = found.entry(entry.owner.api_version.to_string()).or_default();
        *slot = std::mem::take(slot).union(entry.fields.to_set());
    }
    found
}
