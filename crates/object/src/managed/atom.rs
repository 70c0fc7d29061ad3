//! How server-side apply sees a type of the schema: what is one value, what has members, and how items are told apart.
//!
//! Upstream derives the same from OpenAPI: `kube-openapi/pkg/schemaconv/{openapi,smd}.go`, `structured-merge-diff/v6/typed/helpers.go`.

use std::borrow::Cow;

use corten_schema::{Field, FieldType, ListType, Scalar, Schema, TypeId};
use corten_tree::{Tree, json};

use super::set::{Element, KeyField};

/// A type.
#[derive(Clone, Copy)]
pub(super) enum Ty<'s> {
    Struct {
        ty: TypeId,
        atomic: bool,
    },
    Map {
        item: &'s FieldType,
        atomic: bool,
    },
    List {
        item: &'s FieldType,
        keys: Items<'s>,
    },
    Scalar(Scalar),
    /// Anything, as one value.
    Untyped,
    /// Anything; maps have members, lists are one value.
    Deduced,
}

/// How the items of a list are told apart.
#[derive(Clone, Copy)]
pub(super) enum Items<'s> {
    /// They are not: the list is one value.
    Atomic,
    /// By themselves.
    Set,
    /// By these fields.
    Keys(&'s Field),
    /// By the one field that strategic merge patch merges by.
    MergeKey(&'s str),
}

/// What a value of a type is.
#[derive(Clone, Copy)]
pub(super) enum Atom<'s> {
    Leaf,
    Map(MapAtom<'s>),
    List(ListAtom<'s>),
}

#[derive(Clone, Copy)]
pub(super) struct MapAtom<'s> {
    /// The struct's type, if the map is one.
    ty: Option<TypeId>,
    /// The type of members that no struct declares.
    item: Option<Ty<'s>>,
    pub atomic: bool,
}

#[derive(Clone, Copy)]
pub(super) struct ListAtom<'s> {
    pub item: Ty<'s>,
    pub keys: Items<'s>,
}

impl ListAtom<'_> {
    pub fn atomic(&self) -> bool {
        matches!(self.keys, Items::Atomic)
    }
}

impl<'s> Ty<'s> {
    /// The type of a whole object.
    pub fn root(schema: &'s Schema, ty: TypeId) -> Ty<'s> {
        Ty::Struct { ty, atomic: schema.def(ty).atomic }
    }

    /// The type of an item or of a map's value.
    pub fn of(schema: &'s Schema, ty: &'s FieldType) -> Ty<'s> {
        match ty {
            FieldType::Struct(ty) => Ty::root(schema, *ty),
            FieldType::Map(item) => Ty::Map { item, atomic: false },
            FieldType::List(item) => Ty::List { item, keys: Items::Atomic },
            FieldType::Scalar(Scalar::Raw) => Ty::Untyped,
            FieldType::Scalar(
                Scalar::Json
                | Scalar::Any
                | Scalar::FieldsV1
                | Scalar::SchemaOrBool
                | Scalar::SchemaOrArray
                | Scalar::SchemaOrStrings,
            ) => Ty::Deduced,
            FieldType::Scalar(scalar) => Ty::Scalar(*scalar),
        }
    }

    fn of_field(schema: &'s Schema, field: &'s Field) -> Ty<'s> {
        match Ty::of(schema, &field.ty) {
            Ty::Struct { ty, atomic } => Ty::Struct { ty, atomic: (atomic && !field.granular) || field.atomic },
            Ty::Map { item, .. } => Ty::Map { item, atomic: field.atomic },
            Ty::List { item, .. } => Ty::List {
                item,
                keys: match field.list_type {
                    ListType::Set => Items::Set,
                    ListType::Map => Items::Keys(field),
                    ListType::None if field.patch.merge && field.merge_key.is_empty() => Items::Set,
                    ListType::None if field.patch.merge => Items::MergeKey(field.merge_key),
                    ListType::None | ListType::Atomic => Items::Atomic,
                },
            },
            other => other,
        }
    }

    /// What a value is: where the type allows several forms, that of the value.
    pub fn atom(self, schema: &'s Schema, value: Option<&Tree>) -> Atom<'s> {
        let plain = |value: Option<&Tree>| {
            matches!(value, Some(Tree::Str(_) | Tree::Int(_) | Tree::Float(_) | Tree::Bool(_) | Tree::List(_)))
        };
        match self {
            Ty::Struct { ty, atomic } => {
                let def = schema.def(ty);
                let free = def.open || schema.members(ty).next().is_none();
                Atom::Map(MapAtom { ty: Some(ty), item: free.then_some(Ty::Deduced), atomic })
            }
            Ty::Map { item, atomic } => Atom::Map(MapAtom { ty: None, item: Some(Ty::of(schema, item)), atomic }),
            Ty::List { item, keys } => Atom::List(ListAtom { item: Ty::of(schema, item), keys }),
            Ty::Scalar(_) | Ty::Untyped => Atom::Leaf,
            Ty::Deduced if plain(value) => Atom::Leaf,
            Ty::Deduced => Atom::Map(MapAtom { ty: None, item: Some(Ty::Deduced), atomic: false }),
        }
    }
}

impl<'s> MapAtom<'s> {
    /// The type of a member, and whether it is a declared field. `None`: the map cannot have it.
    pub fn member(&self, schema: &'s Schema, name: &str) -> (Option<Ty<'s>>, bool) {
        match self.ty.and_then(|ty| schema.field(ty, name)) {
            Some(field) => (Some(Ty::of_field(schema, field)), true),
            None => (self.item, false),
        }
    }
}

/// How an item of a list is told apart; why it cannot be.
pub(super) fn element<'a>(schema: &Schema, list: &ListAtom<'_>, item: &'a Tree) -> Result<Element<'a>, String> {
    let names: Vec<&str> = match list.keys {
        Items::Atomic => return Err("invalid indexing of non-associative list".into()),
        Items::Set => {
            return match item {
                Tree::Map(_) | Tree::Raw(_) => {
                    Err("associative list without keys has an element that's a map type".into())
                }
                Tree::List(_) => Err("not supported: associative list with lists as elements".into()),
                Tree::Null => Err("associative list without keys has an element that's an explicit null".into()),
                scalar => Ok(Element::Value(Cow::Borrowed(scalar))),
            };
        }
        Items::Keys(field) => field.list_keys().collect(),
        Items::MergeKey(key) => vec![key],
    };
    let map = match item {
        Tree::Map(map) => map,
        Tree::Null => return Err("associative list with keys may not have a null element".into()),
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let mut fields: Vec<KeyField<'a>> = Vec::with_capacity(names.len());
    for name in &names {
        // The names in the tree live as long as it does; those of the schema need not.
        let found = map.as_slice().iter().find(|(key, _)| &**key == *name);
        match found {
            Some((key, value)) => fields.push((Cow::Borrowed(&**key), Cow::Borrowed(value))),
            None => {
                if let Some(value) = key_default(schema, list.item, name) {
                    fields.push((Cow::Owned((*name).to_owned()), Cow::Owned(value)));
                }
            }
        }
    }
    if fields.is_empty() {
        let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values \
             for any key fields)",
            names.join(" ")
        ));
    }
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Element::Key(fields.into()))
}

/// What a key field that is not there counts as: its default, which for plain Go values that are always printed is zero.
fn key_default(schema: &Schema, item: Ty<'_>, name: &str) -> Option<Tree> {
    let Ty::Struct { ty, .. } = item else { return None };
    let field = schema.field(ty, name)?;
    if !field.default.is_empty() {
        return json::parse(field.default.as_bytes()).ok();
    }
    if field.omit_empty || field.pointer || schema.def(ty).custom {
        return None;
    }
    Some(match field.ty {
        FieldType::Scalar(Scalar::Str) => Tree::Str(String::new()),
        FieldType::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Float64) => Tree::Int(0),
        FieldType::Scalar(Scalar::Bool) => Tree::Bool(false),
        _ => return None,
    })
}

/// Equality of values: numbers by value, the order of members does not count.
pub(super) fn equal(a: &Tree, b: &Tree) -> bool {
    match (a, b) {
        (Tree::Map(a), Tree::Map(b)) => {
            a.len() == b.len()
                && a.as_slice().iter().zip(b.as_slice()).all(|((key, value), (other_key, other))| {
                    let other = if key == other_key { Some(other) } else { b.get(key) };
                    other.is_some_and(|other| equal(value, other))
                })
        }
        (Tree::List(a), Tree::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Tree::Int(a), Tree::Float(b)) | (Tree::Float(b), Tree::Int(a)) => (*a as f64) == *b,
        (a, b) => a == b,
    }
}
