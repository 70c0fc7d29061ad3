//! Merge patch, RFC 7386, as `gopkg.in/evanphx/json-patch.v4` applies it.

use corten_tree::{Map, MapBuilder, Tree};

/// Merges `patch` into `object`: maps are merged, null removes, everything else replaces.
pub fn merge_patch(object: Tree, patch: Tree) -> Tree {
    match (object, patch) {
        (Tree::Map(object), Tree::Map(patch)) => Tree::Map(merge_maps(object, patch)),
        (_, mut patch) => {
            prune_nulls(&mut patch);
            patch
        }
    }
}

fn merge_maps(object: Map, patch: Map) -> Map {
    let mut object = MapBuilder::from(object);
    for (key, mut value) in patch {
        if value.is_null() {
            object.remove(&key);
            continue;
        }
        match object.get_mut(&key) {
            Some(slot @ Tree::Map(_)) => {
                *slot = match (std::mem::take(slot), value) {
                    (Tree::Map(old), Tree::Map(new)) => Tree::Map(merge_maps(old, new)),
                    (_, other) => other,
                };
            }
            Some(slot) => {
                prune_nulls(&mut value);
                *slot = value;
            }
            None => {
                prune_nulls(&mut value);
                object.insert(key, value);
            }
        }
    }
    object.finish()
}

/// Takes null members out, also of maps in lists; null items of lists stay.
fn prune_nulls(tree: &mut Tree) {
    match tree {
        Tree::Map(map) => map.retain(|_, value| {
            prune_nulls(value);
            !value.is_null()
        }),
        Tree::List(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}
