//! Writing what changed, and only that.

use std::sync::Arc;

use corten_object::Object;
use corten_tree::{Key, Map, Tree};

use crate::Action;

/// The merge patch that makes `new` of `old`; `None` if they mean the same.
pub fn diff(old: &Tree, new: &Tree) -> Option<Tree> {
    if old.semantically_equal(new) {
        return None;
    }
    let (Tree::Map(old), Tree::Map(new)) = (old, new) else { return Some(new.clone()) };
    let mut patch = Map::new();
    for (key, value) in new.as_slice() {
        match old.get(key) {
            None if !value.is_null() => drop(patch.insert(key.clone(), without_nulls(value))),
            Some(before) => {
                if let Some(change) = diff(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
            None => {}
        }
    }
    for (key, value) in old.as_slice() {
        if !new.contains(key) && !value.is_null() {
            patch.insert(Key::clone(key), Tree::Null);
        }
    }
    Some(Tree::Map(patch))
}

fn without_nulls(value: &Tree) -> Tree {
    match value {
        Tree::Map(map) => {
            let kept = map.as_slice().iter().filter(|(_, v)| !v.is_null());
            Tree::Map(kept.map(|(k, v)| (k.clone(), without_nulls(v))).collect())
        }
        other => other.clone(),
    }
}

/// The write that makes an object's status the new one; `None` if it is that already.
pub fn write(object: &Arc<Object>, old: &Tree, new: &Tree) -> Option<Action> {
    diff(old, new).map(|patch| Action::patch_status(object, patch))
}

/// The status in an object's tree; an empty map if there is none.
pub fn of(tree: &Tree) -> Tree {
    tree.path("status").cloned().unwrap_or_else(Tree::map)
}

/// Sets a number, or removes it when it is zero (as upstream's `omitempty` counters).
pub fn count(status: &mut Tree, field: &'static str, n: i64) {
    if n == 0 {
        status.remove(field);
    } else {
        status.insert(field, n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    #[test]
    fn diffs_are_minimal() {
        let old = tree!({"replicas": 1, "gone": 2, "conditions": [{"type": "A"}], "same": {"x": 1}});
        let new = tree!({"replicas": 3, "conditions": [{"type": "A"}], "same": {"x": 1}, "ready": 1});
        assert_eq!(diff(&old, &new), Some(tree!({"replicas": 3, "ready": 1, "gone": null})));
        assert_eq!(diff(&old, &old), None);
        assert_eq!(diff(&tree!({}), &tree!({"conditions": []})), None);
    }
}
