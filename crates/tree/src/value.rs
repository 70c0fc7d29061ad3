//! The values of a tree and their conversions.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A map's key: borrowed for the life of the program where the schema knows it, owned otherwise.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Cow<'static, str>);

impl Key {
    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Key {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for Key {
    fn from(text: &'static str) -> Key {
        Key(Cow::Borrowed(text))
    }
}

impl From<String> for Key {
    fn from(text: String) -> Key {
        Key(Cow::Owned(text))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A map in insertion order. Keys are unique: [`Map::insert`] replaces in place.
///
/// Look-up is linear: objects have few keys per level, and labels or data maps of some hundred keys are still faster
/// than hashing them all once. Builders of large maps use [`Map::push_unchecked`] after their own check.
#[derive(Clone, Default, PartialEq)]
pub struct Map(Vec<(Key, Tree)>);

impl Map {
    /// An empty map.
    pub const fn new() -> Map {
        Map(Vec::new())
    }

    /// A map of entries whose keys the caller knows to be unique.
    pub fn from_entries(entries: Vec<(Key, Tree)>) -> Map {
        Map(entries)
    }

    /// The entries in order.
    pub fn as_slice(&self) -> &[(Key, Tree)] {
        &self.0
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.0.iter().find(|(k, _)| &**k == key).map(|(_, v)| v)
    }

    /// The value of `key`, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        self.0.iter_mut().find(|(k, _)| &**k == key).map(|(_, v)| v)
    }

    /// Whether `key` is there, be it with `null`.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Sets `key`, in its old place if it had one. Returns the old value.
    pub fn insert(&mut self, key: impl Into<Key>, value: impl Into<Tree>) -> Option<Tree> {
        let (key, value) = (key.into(), value.into());
        match self.get_mut(&key) {
            Some(slot) => Some(std::mem::replace(slot, value)),
            None => {
                self.0.push((key, value));
                None
            }
        }
    }

    /// Sets `key` unless it is there already (with any value).
    pub fn insert_if_absent(&mut self, key: impl Into<Key>, value: impl Into<Tree>) {
        let key = key.into();
        if !self.contains(&key) {
            self.0.push((key, value.into()));
        }
    }

    /// Appends a key that the caller knows to be new.
    pub fn push_unchecked(&mut self, key: Key, value: Tree) {
        self.0.push((key, value));
    }

    /// Takes `key` out, keeping the order of the others.
    pub fn remove(&mut self, key: &str) -> Option<Tree> {
        let at = self.0.iter().position(|(k, _)| &**k == key)?;
        Some(self.0.remove(at).1)
    }

    /// The value of `key`, made as an empty map if it was absent, null or not a map.
    pub fn map_at(&mut self, key: impl Into<Key>) -> &mut Map {
        let key = key.into();
        let at = self.0.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
            self.0.push((key, Tree::Map(Map::new())));
            self.0.len() - 1
        });
        let slot = &mut self.0[at].1;
        if !matches!(slot, Tree::Map(_)) {
            *slot = Tree::Map(Map::new());
        }
        match slot {
            Tree::Map(map) => map,
            _ => unreachable!("the slot was just made a map"),
        }
    }

    /// Keeps the entries that `keep` wants.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Tree) -> bool) {
        self.0.retain_mut(|(k, v)| keep(k, v));
    }

    /// Orders the entries by key bytes, as Go's encoder does with maps.
    pub fn sort_keys(&mut self) {
        self.0.sort_by(|(a, _), (b, _)| a.cmp(b));
    }

    /// Orders the entries by `rank` of their key (stable).
    pub fn sort_by_rank<R: Ord>(&mut self, rank: impl Fn(&str) -> R) {
        self.0.sort_by_key(|(k, _)| rank(k));
    }

    /// The entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tree)> {
        self.0.iter().map(|(k, v)| (&**k, v))
    }

    /// The entries in order, values to change.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&str, &mut Tree)> {
        self.0.iter_mut().map(|(k, v)| (&**k, v))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|(k, _)| &**k)
    }

    /// The values in order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Tree> {
        self.0.iter().map(|(_, v)| v)
    }
}

impl IntoIterator for Map {
    type Item = (Key, Tree);
    type IntoIter = std::vec::IntoIter<(Key, Tree)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<(Key, Tree)> for Map {
    /// Later entries replace earlier ones of the same key.
    fn from_iter<I: IntoIterator<Item = (Key, Tree)>>(entries: I) -> Map {
        let mut map = Map::new();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A JSON value that is kept as its text: compact, and written as it stands. Nothing looks into it before it is read
/// ([`Tree::read_raw`]). Two are equal if their texts are.
#[derive(Clone, PartialEq, Eq)]
pub struct RawJson(Arc<str>);

impl RawJson {
    /// The text of one value, compact, which the caller has read or written before.
    pub fn new_unchecked(text: &str) -> RawJson {
        RawJson(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A JSON value.
#[derive(Clone, Default, PartialEq)]
pub enum Tree {
    /// `null`: in Kubernetes' wire format mostly the same as absent.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without fraction or exponent that fits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Str(String),
    /// An array.
    List(Vec<Tree>),
    /// An object.
    Map(Map),
    /// An object that is not taken apart: the field sets of managed fields, a third of a usual object.
    Raw(RawJson),
}

impl Tree {
    /// An empty map.
    pub fn map() -> Tree {
        Tree::Map(Map::new())
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Tree::Null)
    }

    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        if let Tree::Str(text) = self { Some(text) } else { None }
    }

    /// The integer, if this is one (or a float without fraction in range).
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Tree::Int(n) => Some(*n),
            Tree::Float(n) if n.fract() == 0.0 && n.abs() < 9.0e15 => Some(*n as i64),
            _ => None,
        }
    }

    /// The number, if this is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Tree::Int(n) => Some(*n as f64),
            Tree::Float(n) => Some(*n),
            _ => None,
        }
    }

    /// The boolean, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Tree::Bool(b) = self { Some(*b) } else { None }
    }

    /// The map, if this is one.
    pub fn as_map(&self) -> Option<&Map> {
        if let Tree::Map(map) = self { Some(map) } else { None }
    }

    /// The map to change, if this is one.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        if let Tree::Map(map) = self { Some(map) } else { None }
    }

    /// The array, if this is one.
    pub fn as_list(&self) -> Option<&[Tree]> {
        if let Tree::List(items) = self { Some(items) } else { None }
    }

    /// The array to change, if this is one.
    pub fn as_list_mut(&mut self) -> Option<&mut Vec<Tree>> {
        if let Tree::List(items) = self { Some(items) } else { None }
    }

    /// What Go's type errors call this value.
    pub fn type_name(&self) -> &'static str {
        match self {
            Tree::Null => "null",
            Tree::Bool(_) => "bool",
            Tree::Int(_) | Tree::Float(_) => "number",
            Tree::Str(_) => "string",
            Tree::List(_) => "array",
            Tree::Map(_) | Tree::Raw(_) => "object",
        }
    }
}

/// Prints the compact JSON text.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json_string())
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tree::Null => f.write_str("null"),
            Tree::Bool(b) => write!(f, "{b}"),
            Tree::Int(n) => write!(f, "{n}"),
            Tree::Float(n) => write!(f, "{n:?}"),
            Tree::Str(s) => write!(f, "{s:?}"),
            Tree::List(items) => f.debug_list().entries(items).finish(),
            Tree::Map(map) => map.fmt(f),
            Tree::Raw(raw) => f.write_str(raw.as_str()),
        }
    }
}

macro_rules! from {
    ($($t:ty => $make:expr),* $(,)?) => { $(
        impl From<$t> for Tree {
            fn from(value: $t) -> Tree {
                let make: fn($t) -> Tree = $make;
                make(value)
            }
        }
    )* };
}
from! {
    bool => Tree::Bool,
    i64 => Tree::Int,
    i32 => |n| Tree::Int(n.into()),
    u32 => |n| Tree::Int(n.into()),
    u16 => |n| Tree::Int(n.into()),
    f64 => Tree::Float,
    String => Tree::Str,
    &str => |s| Tree::Str(s.to_owned()),
    &String => |s| Tree::Str(s.clone()),
    std::sync::Arc<str> => |s| Tree::Str(s.to_string()),
    &std::sync::Arc<str> => |s| Tree::Str(s.to_string()),
    Map => Tree::Map,
}

impl<T: Into<Tree>> From<Vec<T>> for Tree {
    fn from(items: Vec<T>) -> Tree {
        Tree::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Tree>> From<Option<T>> for Tree {
    /// `None` is `null`.
    fn from(value: Option<T>) -> Tree {
        value.map_or(Tree::Null, Into::into)
    }
}
