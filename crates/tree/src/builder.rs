//! A map under construction that stays fast with many keys.

use std::collections::BTreeMap;

use crate::{Key, Map, Tree};

/// From this many keys on there is an index beside the entries.
const INDEXED_FROM: usize = 32;

/// A map to look up and change in any order: linear while it has few keys, indexed when it has many, so that hostile input
/// (a body of 100,000 keys) costs no more per key than other input. [`MapBuilder::finish`] gives the [`Map`].
#[derive(Debug, Default)]
pub struct MapBuilder {
    /// `None`: taken out.
    entries: Vec<(Key, Option<Tree>)>,
    index: Option<BTreeMap<String, usize>>,
}

impl From<Map> for MapBuilder {
    fn from(map: Map) -> MapBuilder {
        let entries = map.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let mut builder = MapBuilder { entries, index: None };
        builder.index_if_large();
        builder
    }
}

impl MapBuilder {
    /// An empty one.
    pub fn new() -> MapBuilder {
        MapBuilder::default()
    }

    fn index_if_large(&mut self) {
        if self.index.is_none() && self.entries.len() >= INDEXED_FROM {
            let present = self.entries.iter().enumerate().filter(|(_, (_, value))| value.is_some());
            self.index = Some(present.map(|(at, (key, _))| (key.to_string(), at)).collect());
        }
    }

    fn position(&self, key: &str) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(key).copied(),
            None => self.entries.iter().position(|(k, value)| value.is_some() && &**k == key),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.position(key).and_then(|at| self.entries[at].1.as_ref())
    }

    /// The value of `key`, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        self.position(key).and_then(|at| self.entries[at].1.as_mut())
    }

    /// Sets `key`, in its old place if it had one. Returns the old value.
    pub fn insert(&mut self, key: impl Into<Key>, value: impl Into<Tree>) -> Option<Tree> {
        let key = key.into();
        if let Some(at) = self.position(&key) {
            return self.entries[at].1.replace(value.into());
        }
        if let Some(index) = &mut self.index {
            index.insert(key.to_string(), self.entries.len());
        }
        self.entries.push((key, Some(value.into())));
        self.index_if_large();
        None
    }

    /// Takes `key` out, keeping the order of the others.
    pub fn remove(&mut self, key: &str) -> Option<Tree> {
        let at = self.position(key)?;
        if let Some(index) = &mut self.index {
            index.remove(key);
        }
        self.entries[at].1.take()
    }

    /// Keeps the entries whose key `keep` wants.
    pub fn retain_keys(&mut self, keep: impl Fn(&str) -> bool) {
        for (key, value) in &mut self.entries {
            if !keep(key) {
                *value = None;
                if let Some(index) = &mut self.index {
                    index.remove(&**key);
                }
            }
        }
    }

    /// The map.
    pub fn finish(self) -> Map {
        Map::from_entries(self.entries.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_keys_behave_alike() {
        for count in [3, 500] {
            let mut builder = MapBuilder::new();
            for i in 0..count {
                assert!(builder.insert(format!("k{i}"), i).is_none());
            }
            assert_eq!(builder.insert("k1".to_owned(), 7), Some(Tree::Int(1)));
            assert_eq!(builder.remove("k0"), Some(Tree::Int(0)));
            assert!(builder.get("k0").is_none());
            assert_eq!(builder.remove("k0"), None);
            builder.insert("k0".to_owned(), 9);
            builder.retain_keys(|key| key != "k2");
            let map = builder.finish();
            assert_eq!(map.len(), count as usize - 1);
            assert_eq!(map.keys().next(), Some("k1"));
            assert_eq!((map.get("k1"), map.get("k0"), map.get("k2")), (Some(&Tree::Int(7)), Some(&Tree::Int(9)), None));
        }
    }
}
