//! Paths into a tree: read, set, remove.
//!
//! A dotted path names map keys only (`spec.template.metadata`); keys with dots in them go through [`Tree::at`].

use crate::{Key, Map, Tree};

impl Tree {
    /// The value of `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.as_map()?.get(key)
    }

    /// The value of `key` to change, if this is a map that has it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        self.as_map_mut()?.get_mut(key)
    }

    /// The value at a sequence of keys.
    pub fn at(&self, keys: &[&str]) -> Option<&Tree> {
        keys.iter().try_fold(self, |tree, key| tree.get(key))
    }

    /// The value at a dotted path; `null` counts as absent.
    pub fn path(&self, dotted: &str) -> Option<&Tree> {
        let found = dotted.split('.').try_fold(self, |tree, key| tree.get(key))?;
        (!found.is_null()).then_some(found)
    }

    /// The value at a dotted path, to change.
    pub fn path_mut(&mut self, dotted: &str) -> Option<&mut Tree> {
        dotted.split('.').try_fold(self, |tree, key| tree.get_mut(key))
    }

    /// The text at a dotted path; empty if there is none.
    pub fn str_at(&self, dotted: &str) -> &str {
        self.path(dotted).and_then(Tree::as_str).unwrap_or_default()
    }

    /// The integer at a dotted path.
    pub fn i64_at(&self, dotted: &str) -> Option<i64> {
        self.path(dotted).and_then(Tree::as_i64)
    }

    /// The boolean at a dotted path; false if there is none.
    pub fn bool_at(&self, dotted: &str) -> bool {
        self.path(dotted).and_then(Tree::as_bool).unwrap_or_default()
    }

    /// The array at a dotted path; empty if there is none.
    pub fn list_at(&self, dotted: &str) -> &[Tree] {
        self.path(dotted).and_then(Tree::as_list).unwrap_or_default()
    }

    /// The map at a dotted path; empty if there is none.
    pub fn map_at(&self, dotted: &str) -> &Map {
        self.path(dotted).unwrap_or(&Tree::Null).fields()
    }

    /// The entries of this map; none if it is something else.
    pub fn fields(&self) -> &Map {
        static EMPTY: Map = Map::new();
        self.as_map().unwrap_or(&EMPTY)
    }

    /// Makes this a map if it is not, and returns it.
    pub fn make_map(&mut self) -> &mut Map {
        if !matches!(self, Tree::Map(_)) {
            *self = Tree::map();
        }
        match self {
            Tree::Map(map) => map,
            _ => unreachable!("just made a map"),
        }
    }

    /// The map at a dotted path, made where it is missing.
    pub fn make_map_at(&mut self, dotted: &str) -> &mut Map {
        dotted.split('.').fold(self.make_map(), |map, key| map.map_at(key.to_owned()))
    }

    /// Orders the keys of all maps by their bytes, as Go's encoder does with maps.
    pub fn sort_keys(&mut self) {
        match self {
            Tree::Map(map) => {
                map.sort_keys();
                map.iter_mut().for_each(|(_, value)| value.sort_keys());
            }
            Tree::List(items) => items.iter_mut().for_each(Tree::sort_keys),
            _ => {}
        }
    }

    /// Sets the value at a dotted path, making the maps on the way.
    pub fn set(&mut self, dotted: &str, value: impl Into<Tree>) {
        match dotted.rsplit_once('.') {
            Some((parents, last)) => self.make_map_at(parents).insert(last.to_owned(), value),
            None => self.make_map().insert(dotted.to_owned(), value),
        };
    }

    /// Sets the value at a dotted path unless something (other than null) is there; returns whether it was set.
    pub fn set_default(&mut self, dotted: &str, value: impl Into<Tree>) -> bool {
        let absent = self.path(dotted).is_none();
        if absent {
            self.set(dotted, value);
        }
        absent
    }

    /// Takes the value at a dotted path out.
    pub fn remove(&mut self, dotted: &str) -> Option<Tree> {
        match dotted.rsplit_once('.') {
            Some((parents, last)) => self.path_mut(parents)?.as_map_mut()?.remove(last),
            None => self.as_map_mut()?.remove(dotted),
        }
    }

    /// Sets a key of this value, which becomes a map if it was not one.
    pub fn insert(&mut self, key: impl Into<Key>, value: impl Into<Tree>) {
        self.make_map().insert(key, value);
    }

    /// Whether two values mean the same to Kubernetes: null, absent, `{}` and `[]` are equal, map order is ignored.
    /// (Upstream's `equality.Semantic` on decoded objects.)
    pub fn semantically_equal(&self, other: &Tree) -> bool {
        match (self, other) {
            (Tree::Map(a), Tree::Map(b)) => {
                let missing = Tree::Null;
                a.iter().all(|(k, v)| v.semantically_equal(b.get(k).unwrap_or(&missing)))
                    && b.iter().all(|(k, v)| a.contains(k) || v.is_empty_value())
            }
            (Tree::List(a), Tree::List(b)) if a.len() == b.len() => {
                a.iter().zip(b).all(|(x, y)| x.semantically_equal(y))
            }
            (a, b) if a.is_empty_value() && b.is_empty_value() => true,
            (a, b) => match (a.as_f64(), b.as_f64()) {
                (Some(x), Some(y)) => x == y,
                _ => a == b,
            },
        }
    }

    /// Whether this is null, an empty array, or a map of such values only.
    pub fn is_empty_value(&self) -> bool {
        match self {
            Tree::Null => true,
            Tree::List(items) => items.is_empty(),
            Tree::Map(map) => map.values().all(Tree::is_empty_value),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tree;

    #[test]
    fn paths_read_set_and_remove() {
        let mut t = tree!({"spec": {"replicas": 3, "list": [1, 2]}});
        assert_eq!(t.i64_at("spec.replicas"), Some(3));
        t.set("status.ready", 2);
        assert!(!t.set_default("status.ready", 5));
        assert_eq!(t.to_string(), r#"{"spec":{"replicas":3,"list":[1,2]},"status":{"ready":2}}"#);
        assert_eq!(t.remove("spec.replicas"), Some(tree!(3)));
        assert_eq!(t.str_at("spec.nothing"), "");
    }

    #[test]
    fn semantic_equality_ignores_empty() {
        assert!(tree!({"a": {}, "b": null}).semantically_equal(&tree!({})));
        assert!(!tree!({"a": {"x": 0}}).semantically_equal(&tree!({})));
        assert!(tree!({"a": 1, "b": 2}).semantically_equal(&tree!({"b": 2, "a": 1})));
    }
}
