//! ResourceQuota: how much of it is used (`pkg/controller/resourcequota/resource_quota_controller.go`).
//!
//! Admission books what is made; this computes everything anew whenever something that is counted comes, goes or changes what
//! it uses, of whatever kind.

use std::sync::Arc;
use std::time::Duration;

use corten_kinds::id;
use corten_kinds::quota::{Counting, ResourceList};
use corten_object::Object;
use corten_tree::{Tree, tree};

use crate::{Changed, Controller, Key, Plan, Wake, Watch, World, status};

/// The controller.
pub struct ResourceQuotaController;

const WATCHES: &[Watch] = &[Watch::itself(id::RESOURCE_QUOTA), Watch { kind: None, wake: Wake::By(wake) }];

/// A change of something that is counted wakes the quotas of its namespace that count it.
fn wake(change: &Changed<'_>, out: &mut Vec<Key>) {
    let object = change.object();
    if object.head.namespace.is_empty() {
        return;
    }
    let mut quotas = change.state.list_in(id::RESOURCE_QUOTA, &object.head.namespace).peekable();
    if quotas.peek().is_none() || !change.state.registry().has(object.kind) {
        return;
    }
    let kind = change.state.registry().get(object.kind);
    // Of most kinds only the number counts.
    let counts_content = matches!(kind.counting, Counting::Evaluated(_));
    if !kind.is_counted() || (change.old.is_some() && change.new.is_some() && !counts_content) {
        return;
    }
    let covers = |quota: &&Arc<Object>| quota.to_tree().map_at("spec.hard").keys().any(|name| kind.covered_by(name));
    out.extend(quotas.filter(covers).map(|quota| quota.key()));
}

impl Controller for ResourceQuotaController {
    fn name(&self) -> &'static str {
        "resourcequota"
    }

    fn component(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(quota) = world.state.get(key) else { return Plan::empty() };
        let tree = quota.to_tree();
        let hard = ResourceList::of(tree.map_at("spec.hard"));
        let (mut used, again) = usage(world, &tree, &hard);
        // What nobody counts keeps what it had.
        let known = ResourceList::of(tree.map_at("status.used"));
        for (name, amount) in known.iter().filter(|(name, _)| hard.get(name).is_some()) {
            if used.get(name).is_none() {
                used.set(name, amount.clone());
            }
        }
        let before = status::of(&tree);
        let current = ResourceList::of(before.map_at("hard")) == hard && known == used && before.path("used").is_some();
        let mut plan = Plan::empty();
        if !current {
            let after = tree!({"hard": (hard.to_tree()), "used": (used.to_tree())});
            plan.stage(status::write(quota, &before, &after));
        }
        plan.requeue = again;
        plan
    }
}

/// What the objects of the namespace use of what a quota limits (`CalculateUsage`), and when the mere passing of time may
/// change that: a pod whose time to end is over is not counted.
fn usage(world: &World<'_>, quota: &Tree, hard: &ResourceList) -> (ResourceList, Option<Duration>) {
    let namespace = quota.str_at("metadata.namespace");
    let mut used = ResourceList::default();
    let mut again: Option<Duration> = None;
    for kind in world.state.registry().iter().filter(|kind| kind.is_counted()) {
        let covered = hard.only(|name| kind.covered_by(name));
        if covered.is_empty() {
            continue;
        }
        used.add(&ResourceList::zeros(covered.names()));
        for object in world.state.list_in(kind.id, namespace) {
            let tree = object.to_tree();
            if kind.in_scopes(quota, &tree) {
                used.add(&kind.usage(&tree, world.now).only(|name| covered.get(name).is_some()));
            }
            let ends =
                overdue(object).filter(|end| *end > world.now && matches!(kind.counting, Counting::Evaluated(_)));
            let wait = ends.and_then(|end| Duration::try_from(end.duration_since(world.now)).ok());
            // Counting is by full seconds.
            again = again.into_iter().chain(wait.map(|w| w + Duration::from_secs(1))).min();
        }
    }
    (used, again)
}

/// When an object that is being deleted should be gone.
fn overdue(object: &Object) -> Option<corten_base::Timestamp> {
    let grace = object.head.deletion_grace_seconds.and_then(|s| u64::try_from(s).ok())?;
    object.head.deleted?.checked_add(Duration::from_secs(grace)).ok()
}
