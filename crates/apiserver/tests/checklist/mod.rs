//! Rows of `docs/checklist.md` that no test of a part of its own covers.

mod reads;
mod scheduling;
mod subresources;
mod writes;

use corten_tree::Tree;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The names of a list's objects, in its order.
fn names(list: &Tree) -> Vec<&str> {
    list.list_at("items").iter().map(|item| item.str_at("metadata.name")).collect()
}
