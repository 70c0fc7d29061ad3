//! ResourceQuota: what a write may still use, and what it books (`apiserver/pkg/admission/plugin/resourcequota/controller.go`).
//!
//! Upstream writes the quota's new usage before the object, and corrects it later if the object was not written after all. Here
//! the two are one commit: [`book`] says what the quotas become, and the pipeline writes them with the object or not at all.
//! Who comes second finds a quota that has changed, and asks again.

use std::sync::Arc;

use corten_kinds::id;
use corten_kinds::quota::ResourceList;
use corten_object::{Object, Status};
use corten_tree::Tree;

use crate::{Operation, Request};

/// The new state of a quota, to be written in place of the one that was seen.
pub struct Booking {
    /// The quota as it was seen.
    pub quota: Arc<Object>,
    /// The quota as it becomes.
    pub tree: Tree,
}

/// What a create or an update of an object books on the quotas of its namespace (`CheckRequest`).
///
/// # Errors
/// 403 if a quota has not enough left, is not computed yet, or wants the object to say what it needs.
pub fn book(request: &Request<'_>, object: &Tree, old: Option<&Tree>) -> Result<Vec<Booking>, Status> {
    let kind = request.kind;
    if !request.writes() || request.namespace.is_empty() || !kind.is_counted() {
        return Ok(Vec::new());
    }
    let old = old.filter(|_| request.operation == Operation::Update);
    if !kind.write_counts(request.subresource, object, old) {
        return Ok(Vec::new());
    }
    let quotas = request.cluster.objects_in(id::RESOURCE_QUOTA, request.namespace);
    if quotas.is_empty() {
        return Ok(Vec::new());
    }
    let usage = kind.usage(object, request.now);
    let negative: Vec<&str> = usage.iter().filter(|(_, q)| q.sign() < 0).map(|(name, _)| name).collect();
    let mut concerned = Vec::new();
    for quota in quotas {
        let tree = quota.to_tree();
        let hard = ResourceList::of(tree.map_at("status.hard"));
        let covered: Vec<&str> = hard.names().filter(|name| kind.covered_by(name)).collect();
        if covered.is_empty() || !kind.in_scopes(&tree, object) {
            continue;
        }
        let name = &quota.head.name;
        kind.quota_constraints(&covered, object)
            .map_err(|why| request.forbidden(format!("failed quota: {name}: {why}")))?;
        let used = ResourceList::of(tree.map_at("status.used"));
        if covered.iter().any(|resource| used.get(resource).is_none()) {
            let why = format!("status unknown for quota: {name}, resources: {}", covered.join(","));
            return Err(request.forbidden(why));
        }
        // What the object has used so far is on this quota's books only if the quota covered it.
        let before = old.filter(|old| kind.in_scopes(&tree, old)).map(|old| kind.usage(old, request.now));
        let delta = before.map_or_else(|| usage.clone(), |before| usage.minus(&before)).without_zeros();
        concerned.push((quota, tree, hard, used, delta));
    }
    if !negative.is_empty() {
        let why = format!("quota usage is negative for resource(s): {}", negative.join(","));
        return Err(request.forbidden(why));
    }
    let mut bookings = Vec::new();
    for (quota, mut tree, hard, used, delta) in concerned {
        let requested = delta.only(|name| hard.get(name).is_some());
        if requested.is_empty() {
            continue;
        }
        let mut after = used.clone();
        after.add(&requested);
        let counted = after.only(|name| requested.get(name).is_some());
        let exceeded = counted.exceeding(&hard);
        if !exceeded.is_empty() && request.subresource != "status" {
            let only = |list: &ResourceList| list.only(|name| exceeded.contains(&name)).to_string();
            return Err(request.forbidden(format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                quota.head.name,
                only(&requested),
                only(&used),
                only(&hard)
            )));
        }
        tree.set("status.used", after.to_tree());
        bookings.push(Booking { quota, tree });
    }
    Ok(bookings)
}
