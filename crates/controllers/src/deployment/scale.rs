//! Sizes of a deployment's replica sets.

use corten_tree::{Tree, tree};
use corten_views::{IntOrString, ReplicaSet};

use super::{Rollout, replicas};
use crate::{Action, EventNote, Typed, names};

/// How many of a set's available pods stay: a status that is older than the set's present size still counts those that go.
/// (Upstream's `GetAvailableReplicaCountForReplicaSets` counts them, and takes too many of the others away then.)
fn available(set: &Typed<ReplicaSet>) -> i64 {
    set.status.available_replicas.min(replicas(set))
}

impl Rollout<'_> {
    fn is_rolling(&self) -> bool {
        self.deployment.spec.strategy.r#type != "Recreate"
    }

    /// `(maxSurge, maxUnavailable)` in pods: surge rounds up, unavailable down, and one of them is at least 1
    /// (`ResolveFenceposts`).
    fn fenceposts(&self) -> (i64, i64) {
        let rolling = self.deployment.spec.strategy.rolling_update.as_ref();
        let scaled = |value: Option<&IntOrString>, up| value.and_then(|v| v.scaled(self.desired(), up)).unwrap_or(0);
        let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), true);
        let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), false);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    pub(super) fn max_surge(&self) -> i64 {
        if self.is_rolling() { self.fenceposts().0 } else { 0 }
    }

    pub(super) fn max_unavailable(&self) -> i64 {
        if self.is_rolling() && self.desired() > 0 { self.fenceposts().1.min(self.desired()) } else { 0 }
    }

    /// The size that the new set may have, which has `size` now (`NewRSNewReplicas`).
    pub(super) fn new_replicas(&self, size: i64) -> i64 {
        if !self.is_rolling() {
            return self.desired();
        }
        let rolling = self.deployment.spec.strategy.rolling_update.as_ref();
        let surge = rolling.and_then(|r| r.max_surge.as_ref()?.scaled(self.desired(), true)).unwrap_or(0);
        let total: i64 = self.all().map(replicas).sum();
        let room = self.desired() + surge - total;
        if room <= 0 { size } else { size + room.min(self.desired() - size) }
    }

    /// The write that gives a set this size; with `annotate` also if only its annotations are out of date (`scaleReplicaSet`).
    pub(super) fn scale_set(&self, set: &Typed<ReplicaSet>, size: i64, annotate: bool) -> Option<Action> {
        let before = replicas(set);
        let desired = self.desired().to_string();
        let most = (self.desired() + self.max_surge()).to_string();
        let stale = |key: &str, value: &String| set.metadata.annotations.get(key) != Some(value);
        let annotations_stale = stale(names::DESIRED_REPLICAS, &desired) || stale(names::MAX_REPLICAS, &most);
        if before == size && !(annotate && annotations_stale) {
            return None;
        }
        let mut annotations = Tree::map();
        annotations.insert(names::DESIRED_REPLICAS, desired);
        annotations.insert(names::MAX_REPLICAS, most);
        let mut patch = tree!({"metadata": {"annotations": (annotations)}});
        if before == size {
            return Some(Action::patch(&set.object, patch));
        }
        patch.set("spec.replicas", size);
        let direction = if before < size { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {before} to {size}", set.name());
        let note = EventNote::normal(&self.deployment.object, "ScalingReplicaSet", message);
        Some(Action::patch(&set.object, patch).on_success(note))
    }

    /// `reconcileNewReplicaSet`
    pub(super) fn scale_new(&self, new: &Typed<ReplicaSet>) -> Vec<Action> {
        let (size, desired) = (replicas(new), self.desired());
        let wanted = if size > desired { desired } else { self.new_replicas(size) };
        self.scale_set(new, wanted, false).into_iter().collect()
    }

    /// Unhealthy old replicas first, then as many as availability allows (`reconcileOldReplicaSets`).
    pub(super) fn scale_down_old(&self, new: &Typed<ReplicaSet>) -> Vec<Action> {
        let mut old: Vec<(&Typed<ReplicaSet>, i64)> = self.active_old().into_iter().map(|s| (s, replicas(s))).collect();
        let min_available = self.desired() - self.max_unavailable();
        let total: i64 = self.all().map(replicas).sum();
        let new_unavailable = replicas(new) - available(new);
        let mut room = total - min_available - new_unavailable;
        if room <= 0 {
            return Vec::new();
        }
        for (set, size) in &mut old {
            let unhealthy = (*size - available(set)).clamp(0, room);
            *size -= unhealthy;
            room -= unhealthy;
        }
        let available: i64 = self.all().map(available).sum();
        let mut spare = (available - min_available).max(0);
        for (_, size) in &mut old {
            let healthy = (*size).min(spare);
            *size -= healthy;
            spare -= healthy;
        }
        old.into_iter().filter_map(|(set, size)| self.scale_set(set, size, false)).collect()
    }

    /// Brings the sets to the deployment's size, each by its share (`scale`).
    pub(super) fn scale_proportionally(&self) -> Vec<Action> {
        let mut active: Vec<&Typed<ReplicaSet>> = self.newest_first();
        active.extend(&self.new);
        active.retain(|s| replicas(s) > 0);
        let newest = || self.new.as_ref().or_else(|| self.newest_first().into_iter().next());
        let only = match active.len() {
            0 => newest(),
            1 => active.first().copied(),
            _ => None,
        };
        if active.len() < 2 {
            return only.and_then(|set| self.scale_set(set, self.desired(), false)).into_iter().collect();
        }
        if self.new.as_ref().is_some_and(|new| self.is_saturated(new)) {
            return self.active_old().into_iter().filter_map(|set| self.scale_set(set, 0, false)).collect();
        }
        if self.is_rolling() { self.share_out(active) } else { Vec::new() }
    }

    fn is_saturated(&self, set: &Typed<ReplicaSet>) -> bool {
        let wanted = set.metadata.annotations.get(names::DESIRED_REPLICAS).and_then(|n| n.parse::<i64>().ok());
        let desired = self.desired();
        replicas(set) == desired && wanted == Some(desired) && set.status.available_replicas == desired
    }

    fn share_out(&self, mut active: Vec<&Typed<ReplicaSet>>) -> Vec<Action> {
        let allowed = if self.desired() > 0 { self.desired() + self.max_surge() } else { 0 };
        let to_add = allowed - active.iter().map(|s| replicas(s)).sum::<i64>();
        // The largest first; of the same size, the newer when growing and the older when shrinking.
        let age = |s: &Typed<ReplicaSet>| (s.head().created, s.name().to_owned());
        active.sort_by(|a, b| {
            let by_size = replicas(b).cmp(&replicas(a));
            by_size.then_with(|| if to_add > 0 { age(b).cmp(&age(a)) } else { age(a).cmp(&age(b)) })
        });
        let mut added = 0;
        let mut sizes: Vec<i64> = Vec::with_capacity(active.len());
        for set in &active {
            let part = if to_add == 0 { 0 } else { self.proportion(set, to_add, added) };
            added += part;
            sizes.push(replicas(set) + part);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        active.iter().zip(sizes).filter_map(|(set, size)| self.scale_set(set, size, true)).collect()
    }

    /// A set's share of the replicas to add (or, negative, to take), at most what is left (`GetReplicaSetProportion`).
    fn proportion(&self, set: &Typed<ReplicaSet>, to_add: i64, added: i64) -> i64 {
        let left = to_add - added;
        if left == 0 {
            return 0;
        }
        let size = replicas(set);
        let fraction = if self.desired() == 0 {
            -size
        } else {
            let before = set.metadata.annotations.get(names::MAX_REPLICAS).and_then(|n| n.parse::<i64>().ok());
            let before = before.filter(|n| *n != 0).unwrap_or(self.deployment.status.replicas);
            if before == 0 {
                return 0;
            }
            let most = self.desired() + self.max_surge();
            ((size * most) as f64 / before as f64).round() as i64 - size
        };
        if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
    }
}
