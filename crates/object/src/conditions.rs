//! Conditions in a status tree.

use crate::time;
use corten_base::Timestamp;
use corten_tree::{Tree, tree};

/// A condition to set.
#[derive(Debug, Clone)]
pub struct NewCondition<'c> {
    /// Its type.
    pub kind: &'c str,
    /// `True`, `False` or `Unknown`.
    pub status: &'c str,
    /// One word.
    pub reason: &'c str,
    /// A sentence.
    pub message: String,
}

/// The condition of a type in a status.
pub fn find<'s>(status: &'s Tree, kind: &str) -> Option<&'s Tree> {
    status.list_at("conditions").iter().find(|c| c.str_at("type") == kind)
}

/// Takes the condition of a type out.
pub fn remove(status: &mut Tree, kind: &str) {
    if let Some(Tree::List(items)) = status.path_mut("conditions") {
        items.retain(|c| c.str_at("type") != kind);
    }
}

/// Sets a condition unless one of the same status and reason is there; it moves to the end, as upstream's apps kinds do. The
/// time of transition stays while the status stays. `extra` is the name of a second time that is set to now
/// (`lastUpdateTime`, `lastProbeTime`), or empty.
pub fn set(status: &mut Tree, condition: &NewCondition<'_>, now: Timestamp, extra: &'static str) -> bool {
    let old = find(status, condition.kind);
    if old.is_some_and(|c| c.str_at("status") == condition.status && c.str_at("reason") == condition.reason) {
        return false;
    }
    replace(status, condition, now, extra);
    true
}

/// Sets a condition even if its status and reason stay; the time of transition stays while the status stays.
pub fn replace(status: &mut Tree, condition: &NewCondition<'_>, now: Timestamp, extra: &'static str) {
    let text = time::format(now);
    let transition = find(status, condition.kind)
        .filter(|c| c.str_at("status") == condition.status)
        .map(|c| c.str_at("lastTransitionTime").to_owned())
        .filter(|t| !t.is_empty())
        .unwrap_or_else(|| text.clone());
    let mut made = tree!({"type": (condition.kind), "status": (condition.status)});
    if !extra.is_empty() {
        made.insert(extra, text);
    }
    made.insert("lastTransitionTime", transition);
    made.insert("reason", condition.reason);
    made.insert("message", condition.message.as_str());
    push(status, made);
}

/// Sets a condition where it stands, or at the end if it is new; the time of transition stays while the status stays.
pub fn set_in_place(status: &mut Tree, condition: &NewCondition<'_>, now: Timestamp) {
    let place = status.list_at("conditions").iter().position(|c| c.str_at("type") == condition.kind);
    replace(status, condition, now, "");
    if let Some(place) = place
        && let Some(Tree::List(items)) = status.path_mut("conditions")
        && let Some(set) = items.pop()
    {
        items.insert(place, set);
    }
}

/// Puts a condition at the end, in place of one of the same type.
pub fn push(status: &mut Tree, condition: Tree) {
    remove(status, condition.str_at("type"));
    match status.path_mut("conditions") {
        Some(Tree::List(items)) => items.push(condition),
        _ => status.insert("conditions", vec![condition]),
    }
}
