//! Which fields differ between two states of an object, and which fields a state sets.
//!
//! Rules: `structured-merge-diff/v6/typed/{compare,tofieldset}.go`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use corten_schema::Schema;
use corten_tree::{Key, Map, Tree};

use super::atom::{Atom, ListAtom, MapAtom, Ty, element, equal};
use super::set::{Element, Node, Set};

/// Why two states cannot be compared: the schema does not fit them.
pub(super) type Outcome<T> = Result<T, String>;

/// The fields that differ.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Comparison<'a> {
    pub removed: Set<'a>,
    pub modified: Set<'a>,
    pub added: Set<'a>,
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    Removed,
    Modified,
    Added,
}

/// What differs below a value while it is walked.
#[derive(Default)]
struct Found<'a> {
    removed: Vec<Node<'a>>,
    modified: Vec<Node<'a>>,
    added: Vec<Node<'a>>,
}

impl<'a> Found<'a> {
    /// Takes over what was found at and below a member.
    fn take(&mut self, element: Element<'a>, changes: &[Change], below: Found<'a>) {
        let sides = [
            (Change::Removed, &mut self.removed, below.removed),
            (Change::Modified, &mut self.modified, below.modified),
            (Change::Added, &mut self.added, below.added),
        ];
        for (change, into, nodes) in sides {
            let member = changes.contains(&change);
            if member || !nodes.is_empty() {
                into.push(Node { element: element.clone(), member, below: Set::from_nodes(nodes) });
            }
        }
    }

    fn merge(&mut self, other: Found<'a>) {
        self.removed.extend(other.removed);
        self.modified.extend(other.modified);
        self.added.extend(other.added);
    }
}

/// Compares two states of type `ty`.
pub(super) fn compare<'a>(schema: &Schema, ty: Ty<'_>, old: &'a Tree, new: &'a Tree) -> Outcome<Comparison<'a>> {
    let mut found = Found::default();
    Comparer { schema }.value(ty, Some(old), Some(new), &mut found)?;
    Ok(Comparison {
        removed: Set::from_nodes(found.removed),
        modified: Set::from_nodes(found.modified),
        added: Set::from_nodes(found.added),
    })
}

struct Comparer<'s> {
    schema: &'s Schema,
}

impl<'s> Comparer<'s> {
    /// Walks both sides; returns what happened to the value as a whole.
    fn value<'a>(
        &self,
        ty: Ty<'_>,
        old: Option<&'a Tree>,
        new: Option<&'a Tree>,
        found: &mut Found<'a>,
    ) -> Outcome<Option<Change>> {
        let (left, right) = (ty.atom(self.schema, old), ty.atom(self.schema, new));
        let (first, second) = match (&left, &right) {
            _ if new.is_none() => (left, None),
            _ if old.is_none() => (right, None),
            // A scalar became a map or a map a scalar, where the type allows both.
            (Atom::Leaf, Atom::Map(_)) | (Atom::Map(_), Atom::Leaf) => (left, Some(right)),
            _ => (right, None),
        };
        let mut change = None;
        for atom in [Some(first), second].into_iter().flatten() {
            change = change.or(self.atom(&atom, old, new, found)?);
        }
        Ok(change.or(match (old, new) {
            (None, _) => Some(Change::Added),
            (_, None) => Some(Change::Removed),
            _ => None,
        }))
    }

    fn atom<'a>(
        &self,
        atom: &Atom<'_>,
        old: Option<&'a Tree>,
        new: Option<&'a Tree>,
        found: &mut Found<'a>,
    ) -> Outcome<Option<Change>> {
        match atom {
            Atom::Map(map) => {
                let (a, b) = (old.and_then(Tree::as_map), new.and_then(Tree::as_map));
                if map.atomic || (a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty)) {
                    return Ok(leaf(old, new));
                }
                self.members(map, a, b, found)?;
                Ok(None)
            }
            Atom::List(list) => {
                let (a, b) = (old.and_then(Tree::as_list), new.and_then(Tree::as_list));
                if list.atomic() || (a.is_none_or(<[Tree]>::is_empty) && b.is_none_or(<[Tree]>::is_empty)) {
                    return Ok(leaf(old, new));
                }
                self.items(list, a.unwrap_or_default(), b.unwrap_or_default(), found)?;
                Ok(None)
            }
            Atom::Leaf => Ok(leaf(old, new)),
        }
    }

    fn members<'a>(
        &self,
        map: &MapAtom<'_>,
        old: Option<&'a Map>,
        new: Option<&'a Map>,
        found: &mut Found<'a>,
    ) -> Outcome<()> {
        let empty: &'a [_] = &[];
        let (old, new) = (old.map_or(empty, Map::as_slice), new.map_or(empty, Map::as_slice));
        let (in_old, in_new) = (Lookup::new(old), Lookup::new(new));
        for (i, (key, value)) in old.iter().enumerate() {
            self.member(map, key, Some(value), in_new.get(i, key), found)?;
        }
        for (i, (key, value)) in new.iter().enumerate() {
            if in_old.get(i, key).is_none() {
                self.member(map, key, None, Some(value), found)?;
            }
        }
        Ok(())
    }

    fn member<'a>(
        &self,
        map: &MapAtom<'_>,
        key: &'a str,
        old: Option<&'a Tree>,
        new: Option<&'a Tree>,
        found: &mut Found<'a>,
    ) -> Outcome<()> {
        // What the type does not know is dropped before it is stored.
        let (Some(ty), _) = map.member(self.schema, key) else { return Ok(()) };
        let mut below = Found::default();
        let change = self.value(ty, old, new, &mut below)?;
        found.take(Element::Field(Cow::Borrowed(key)), change.as_slice(), below);
        Ok(())
    }

    fn items<'a>(&self, list: &ListAtom<'_>, old: &'a [Tree], new: &'a [Tree], found: &mut Found<'a>) -> Outcome<()> {
        let mut sides: BTreeMap<Element<'a>, (Vec<&'a Tree>, Vec<&'a Tree>)> = BTreeMap::new();
        for (i, item) in old.iter().enumerate() {
            sides.entry(self.element(list, i, item)?).or_default().0.push(item);
        }
        for (i, item) in new.iter().enumerate() {
            sides.entry(self.element(list, i, item)?).or_default().1.push(item);
        }
        for (element, (old, new)) in sides {
            let mut below = Found::default();
            let mut changes = Vec::new();
            match (old.len(), new.len()) {
                (0 | 1, 0 | 1) => {
                    changes.extend(self.value(list.item, old.first().copied(), new.first().copied(), &mut below)?);
                }
                // Items that are there twice are compared as one value.
                (2.., 2..) => {
                    let same = old.len() == new.len() && old.iter().zip(&new).all(|(a, b)| equal(a, b));
                    changes.extend((!same).then_some(Change::Modified));
                }
                (2.., _) => {
                    if let Some(item) = new.first() {
                        changes.extend(self.value(list.item, None, Some(item), &mut below)?);
                    }
                    changes.push(Change::Removed);
                }
                (_, _) => {
                    if let Some(item) = old.first() {
                        changes.extend(self.value(list.item, Some(item), None, &mut below)?);
                    }
                    changes.push(Change::Added);
                }
            }
            let mut here = Found::default();
            here.take(element, &changes, below);
            found.merge(here);
        }
        Ok(())
    }

    fn element<'a>(&self, list: &ListAtom<'_>, at: usize, item: &'a Tree) -> Outcome<Element<'a>> {
        element(self.schema, list, item).map_err(|why| format!("element {at}: {why}"))
    }
}

/// From this many members on, a map is indexed before it is looked up in.
const INDEXED_FROM: usize = 32;

/// The members of a map by key; mostly they are where the other map has them.
struct Lookup<'a> {
    entries: &'a [(Key, Tree)],
    index: Option<BTreeMap<&'a str, &'a Tree>>,
}

impl<'a> Lookup<'a> {
    fn new(entries: &'a [(Key, Tree)]) -> Lookup<'a> {
        let large = entries.len() >= INDEXED_FROM;
        Lookup { entries, index: large.then(|| entries.iter().map(|(key, value)| (&**key, value)).collect()) }
    }

    fn get(&self, guess: usize, key: &str) -> Option<&'a Tree> {
        match (self.entries.get(guess), &self.index) {
            (Some((found, value)), _) if &**found == key => Some(value),
            (_, Some(index)) => index.get(key).copied(),
            (_, None) => self.entries.iter().find(|(found, _)| &**found == key).map(|(_, value)| value),
        }
    }
}

fn leaf(old: Option<&Tree>, new: Option<&Tree>) -> Option<Change> {
    match (old, new) {
        (None, _) => Some(Change::Added),
        (_, None) => Some(Change::Removed),
        (Some(old), Some(new)) => (!equal(old, new)).then_some(Change::Modified),
    }
}

/// The fields that a state sets.
pub(super) fn field_set<'a>(schema: &Schema, ty: Ty<'_>, value: &'a Tree) -> Set<'a> {
    walk(schema, ty, value).0
}

/// What is set below a value, and whether the value as a whole is.
fn walk<'a>(schema: &Schema, ty: Ty<'_>, value: &'a Tree) -> (Set<'a>, bool) {
    match ty.atom(schema, Some(value)) {
        Atom::Leaf => (Set::default(), true),
        Atom::Map(map) if map.atomic => (Set::default(), true),
        Atom::List(list) if list.atomic() => (Set::default(), true),
        Atom::Map(map) => {
            let mut nodes = Vec::new();
            for (key, value) in value.fields().as_slice() {
                let (ty, declared) = map.member(schema, key);
                let Some(ty) = ty else { continue };
                let (below, member) = walk(schema, ty, value);
                let empty = value.is_null() || value.as_map().is_some_and(Map::is_empty);
                let member = member || empty || !declared;
                if member || !below.is_empty() {
                    nodes.push(Node { element: Element::Field(Cow::Borrowed(&**key)), member, below });
                }
            }
            (Set::from_nodes(nodes), false)
        }
        Atom::List(list) => {
            let mut counts: BTreeMap<Element<'a>, (usize, &'a Tree)> = BTreeMap::new();
            for item in value.as_list().unwrap_or_default() {
                if let Ok(element) = element(schema, &list, item) {
                    counts.entry(element).or_insert((0, item)).0 += 1;
                }
            }
            let node = |(element, (count, item)): (Element<'a>, (usize, &'a Tree))| {
                // An item that is there twice is owned as one value.
                let below = if count > 1 { Set::default() } else { walk(schema, list.item, item).0 };
                Node { element, member: true, below }
            };
            (Set::from_nodes(counts.into_iter().map(node).collect()), false)
        }
    }
}

/// A set with the declared fields that are only led through as members (`Set.EnsureNamedFieldsAreMembers`).
pub(super) fn with_named_fields<'a>(schema: &Schema, ty: Option<Ty<'_>>, set: &Set<'a>) -> Set<'a> {
    let atom = ty.map(|ty| ty.atom(schema, None));
    let nodes = set.0.iter().map(|node| {
        let (inner, declared) = match (&node.element, &atom) {
            (Element::Field(name), Some(Atom::Map(map))) => map.member(schema, name),
            (Element::Key(_), Some(Atom::List(list))) => (Some(list.item), false),
            _ => (None, false),
        };
        let member = node.member || (declared && !node.below.is_empty());
        Node { element: node.element.clone(), member, below: with_named_fields(schema, inner, &node.below) }
    });
    Set(nodes.collect())
}

/// A set as it must be after types changed from many values to one: who owned a part owns the whole
/// (`structured-merge-diff/v6/typed/reconcile_schema.go`).
pub(super) fn reconcile<'a>(schema: &Schema, ty: Ty<'_>, set: Set<'a>) -> Set<'a> {
    let atom = ty.atom(schema, None);
    let nodes = set.0.into_iter().map(|node| {
        let inner = match (&node.element, &atom) {
            (Element::Field(name), Atom::Map(map)) => map.member(schema, name).0,
            (_, Atom::List(list)) => Some(list.item),
            _ => None,
        };
        let whole = matches!(ty_atomic(schema, inner), Some(true)) && !node.below.is_empty();
        match inner {
            _ if whole => Node { member: true, below: Set::default(), ..node },
            Some(ty) => Node { below: reconcile(schema, ty, node.below), ..node },
            None => node,
        }
    });
    Set(nodes.collect())
}

fn ty_atomic(schema: &Schema, ty: Option<Ty<'_>>) -> Option<bool> {
    Some(match ty? {
        Ty::Untyped => true,
        ty => match ty.atom(schema, None) {
            Atom::Map(map) => map.atomic,
            Atom::List(list) => list.atomic(),
            Atom::Leaf => false,
        },
    })
}
