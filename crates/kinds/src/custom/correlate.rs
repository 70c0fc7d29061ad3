//! Which old value a new one was before: members by name, items of keyed lists by their keys.
//!
//! (`apiserver/pkg/cel/common/equality.go` `CorrelatedObject`)

use std::cell::OnceCell;
use std::collections::HashMap;

use corten_schema::ListType;
use corten_schema::structural::Props;
use corten_tree::Tree;

/// A new value and the old one in its place.
pub(crate) struct Correlated<'a> {
    pub old: &'a Tree,
    pub new: &'a Tree,
    props: Option<&'a Props>,
    unchanged: OnceCell<bool>,
    by_key: OnceCell<HashMap<String, usize>>,
}

impl<'a> Correlated<'a> {
    pub fn new(old: &'a Tree, new: &'a Tree, props: Option<&'a Props>) -> Correlated<'a> {
        Correlated { old, new, props, unchanged: OnceCell::new(), by_key: OnceCell::new() }
    }

    /// The member of this name, if the schema knows it and both have it.
    pub fn member(&self, name: &str) -> Option<Correlated<'a>> {
        let props = self.props?.member(name)?;
        Some(Correlated::new(self.old.get(name)?, self.new.get(name)?, Some(props)))
    }

    /// The item at a place of the new list, if the list has keys and the old one has an item with the same.
    pub fn item(&self, at: usize) -> Option<Correlated<'a>> {
        let props = self.props?;
        if props.list_type != ListType::Map {
            return None;
        }
        let (old, new) = (self.old.as_list()?, self.new.as_list()?);
        let by_key = self.by_key.get_or_init(|| {
            let mut index = HashMap::with_capacity(old.len());
            for (i, item) in old.iter().enumerate() {
                index.entry(key_text(props, item)).or_insert(i);
            }
            index
        });
        let item = new.get(at)?;
        let found = *by_key.get(&key_text(props, item))?;
        Some(Correlated::new(&old[found], item, props.items.as_deref()))
    }

    /// Whether nothing has changed, as far as the schema can tell.
    pub fn unchanged(&self) -> bool {
        *self.unchanged.get_or_init(|| match (self.old, self.new) {
            (Tree::List(old), Tree::List(new)) => {
                let keyed = self.props.is_some_and(|props| props.list_type == ListType::Map);
                old.len() == new.len()
                    && match keyed {
                        true => (0..new.len()).all(|at| self.item(at).is_some_and(|item| item.unchanged())),
                        false => deep_equal(self.old, self.new),
                    }
            }
            (Tree::Map(old), Tree::Map(new)) => {
                old.len() == new.len()
                    && new.keys().all(|key| self.member(key).is_some_and(|member| member.unchanged()))
            }
            (old, new) => deep_equal(old, new),
        })
    }
}

fn key_text(props: &Props, item: &Tree) -> String {
    let mut text = String::new();
    for key in &props.list_keys {
        text.push_str(&item.get(key).map(canonical_text).unwrap_or_default());
        text.push('\0');
    }
    text
}

/// JSON with ordered keys: equal texts are equal values.
pub(crate) fn canonical_text(value: &Tree) -> String {
    fn ordered(value: &Tree) -> Tree {
        match value {
            Tree::Map(map) => {
                let mut map: corten_tree::Map =
                    map.iter().map(|(key, value)| (corten_tree::Key::from(key.to_owned()), ordered(value))).collect();
                map.sort_keys();
                Tree::Map(map)
            }
            Tree::List(items) => Tree::List(items.iter().map(ordered).collect()),
            other => other.clone(),
        }
    }
    match value {
        Tree::Map(_) | Tree::List(_) => ordered(value).to_json_string(),
        scalar => scalar.to_json_string(),
    }
}

/// Whether two values are equal, whatever the order of their keys.
pub(crate) fn deep_equal(a: &Tree, b: &Tree) -> bool {
    match (a, b) {
        (Tree::Map(a), Tree::Map(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| deep_equal(value, other)))
        }
        (Tree::List(a), Tree::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| deep_equal(a, b)),
        _ => a == b,
    }
}
