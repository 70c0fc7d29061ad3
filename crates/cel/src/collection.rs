//! Lists and maps, made or borrowed, behind one view each.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_tree::{Map, Tree};

use crate::decl::Decl;
use crate::error::EvalError;
use crate::escape::{escape, unescape};
use crate::read;
use crate::types::Type;
use crate::value::{StructValue, Text, Value};

/// From this many entries on a made map has an index.
const INDEXED_FROM: usize = 12;

/// A key with numbers of equal value made equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Bool(bool),
    Number(i128),
    Text(Arc<str>),
}

impl Key {
    fn of(value: &Value<'_>) -> Option<Key> {
        Some(match value {
            Value::Bool(b) => Key::Bool(*b),
            Value::Int(n) => Key::Number((*n).into()),
            Value::Uint(n) => Key::Number((*n).into()),
            Value::Double(n) if n.fract() == 0.0 && n.abs() < 2f64.powi(64) => Key::Number(*n as i128),
            Value::Str(text) => Key::Text(match text {
                Text::Shared(text) => text.clone(),
                Text::Borrowed(text) => (*text).into(),
            }),
            _ => return None,
        })
    }
}

/// A map that an expression made, in the order of its making.
#[derive(Debug, Clone, Default)]
pub struct MapValue<'a> {
    entries: Vec<(Value<'a>, Value<'a>)>,
    index: BTreeMap<Key, usize>,
}

impl<'a> MapValue<'a> {
    fn position(&self, key: &Value<'_>) -> Option<usize> {
        if !self.index.is_empty() {
            return self.index.get(&Key::of(key)?).copied();
        }
        match key {
            Value::Str(text) => self.entries.iter().position(|(have, _)| have.as_str() == Some(text)),
            _ => {
                let key = Key::of(key)?;
                self.entries.iter().position(|(have, _)| Key::of(have).as_ref() == Some(&key))
            }
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &Value<'_>) -> Option<&Value<'a>> {
        self.position(key).map(|at| &self.entries[at].1)
    }

    /// Sets a key; whether it was there already.
    pub fn insert(&mut self, key: Value<'a>, value: Value<'a>) -> bool {
        if let Some(at) = self.position(&key) {
            self.entries[at].1 = value;
            return true;
        }
        if !self.index.is_empty()
            && let Some(key) = Key::of(&key)
        {
            self.index.insert(key, self.entries.len());
        }
        self.entries.push((key, value));
        if self.index.is_empty() && self.entries.len() >= INDEXED_FROM {
            let keys = self.entries.iter().enumerate().filter_map(|(at, (key, _))| Some((Key::of(key)?, at)));
            self.index = keys.collect();
        }
        false
    }

    /// Takes a key out.
    pub(crate) fn remove(&mut self, key: &Value<'_>) {
        if let Some(at) = self.position(key) {
            self.entries.remove(at);
            self.index.clear();
        }
    }

    /// The entries in order.
    pub fn entries(&self) -> &[(Value<'a>, Value<'a>)] {
        &self.entries
    }
}

/// A list's items.
#[derive(Clone, Copy)]
pub enum ListView<'v, 'a> {
    /// Made by an expression.
    Made(&'v [Value<'a>]),
    /// Of a document, with the declaration of the items.
    Tree(&'a [Tree], Option<&'a Decl>),
}

impl<'a> ListView<'_, 'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            ListView::Made(items) => items.len(),
            ListView::Tree(items, _) => items.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at a place that exists.
    pub fn get(&self, at: usize) -> Result<Value<'a>, EvalError> {
        match self {
            ListView::Made(items) => Ok(items[at].clone()),
            ListView::Tree(items, None) => Ok(read::dynamic(&items[at])),
            ListView::Tree(items, Some(decl)) => read::declared(&items[at], decl),
        }
    }

    /// All items.
    pub fn items(&self) -> Result<Vec<Value<'a>>, EvalError> {
        (0..self.len()).map(|at| self.get(at)).collect()
    }
}

/// A map's or message's entries.
#[derive(Clone, Copy)]
pub enum MapView<'v, 'a> {
    /// Made by an expression.
    Made(&'v MapValue<'a>),
    /// Of a document, with its declaration.
    Tree(&'a Map, Option<&'a Decl>),
    /// A message made by an expression.
    Struct(&'v StructValue<'a>),
}

impl<'a> MapView<'_, 'a> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        match self {
            MapView::Made(map) => map.entries.len(),
            MapView::Tree(map, _) => map.len(),
            MapView::Struct(of) => of.fields.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is a message: its keys are fields.
    pub(crate) fn is_message(&self) -> bool {
        matches!(self, MapView::Struct(_))
    }

    /// The keys.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            MapView::Made(map) => map.entries.iter().map(|(key, _)| key.clone()).collect(),
            MapView::Tree(map, None) => map.as_slice().iter().map(|(key, _)| Value::Str(Text::Borrowed(key))).collect(),
            MapView::Tree(map, Some(decl)) => map
                .as_slice()
                .iter()
                .filter_map(|(key, _)| match &decl.ty {
                    Type::Object(object) => {
                        let escaped = escape(key)?;
                        object.fields.contains_key(&escaped).then(|| Value::str(escaped))
                    }
                    Type::Map(..) => Some(Value::Str(Text::Borrowed(key))),
                    _ => None,
                })
                .collect(),
            MapView::Struct(of) => of.fields.iter().map(|(name, _)| Value::str(name.as_str())).collect(),
        }
    }

    /// The value of a key. An error for a key that this kind of map cannot have, and for a value that is not as declared.
    pub fn find(&self, key: &Value<'_>) -> Result<Option<Value<'a>>, EvalError> {
        match self {
            MapView::Made(map) => Ok(map.get(key).cloned()),
            MapView::Tree(map, decl) => {
                let Value::Str(name) = key else {
                    return if decl.is_some() { Err(EvalError::no_such_overload()) } else { Ok(None) };
                };
                tree_entry(map, *decl, name)
            }
            MapView::Struct(of) => {
                let Value::Str(name) = key else { return Err(EvalError::no_such_overload()) };
                Ok(of.fields.iter().find(|(have, _)| **have == **name).map(|(_, value)| value.clone()))
            }
        }
    }
}

/// A document's entry (`unstructuredMap.Find`): a `null` in a message counts as absent.
fn tree_entry<'a>(map: &'a Map, decl: Option<&'a Decl>, name: &str) -> Result<Option<Value<'a>>, EvalError> {
    let Some(decl) = decl else { return Ok(map.get(name).map(read::dynamic)) };
    match &decl.ty {
        Type::Object(object) => {
            let field = match object.fields.get(name) {
                Some(field) => Some(field),
                // As document keys that are plain names in the expression.
                None => unescape(name).and_then(|key| object.fields.values().find(|field| field.key == key)),
            };
            let Some(field) = field else { return Ok(None) };
            match map.get(&field.key) {
                None | Some(Tree::Null) => Ok(None),
                Some(value) => read::declared(value, &field.decl).map(Some),
            }
        }
        Type::Map(..) => match (map.get(name), decl.elem.as_deref()) {
            (Some(value), Some(elem)) => read::declared(value, elem).map(Some),
            (Some(value), None) => Ok(Some(read::dynamic(value))),
            (None, _) => Ok(None),
        },
        Type::Dyn => Ok(map.get(name).map(read::dynamic)),
        _ => Ok(None),
    }
}
