//! The bounds of the deployment that is only rolled.

use std::sync::Arc;

use corten_kinds::id;
use corten_object::Object;
use corten_views::{Deployment, Pod, ReplicaSet};

use super::Checker;
use crate::users::{NAMESPACE, ROLLED};

/// What is remembered of the rollout.
#[derive(Default)]
pub(super) struct Rollout {
    /// Whether it has been complete since the last disturbance: from then on as many pods as promised are available.
    complete: bool,
}

impl Checker {
    pub(super) fn check_rollout(&mut self) {
        let Some(object) = self.find(id::DEPLOYMENT, NAMESPACE, ROLLED).filter(|o| !o.head.is_deleting()) else {
            return;
        };
        let Ok(deployment) = object.view::<Deployment>() else { return };
        let desired = deployment.spec.replicas.unwrap_or(1);
        let rolling = deployment.spec.strategy.rolling_update.clone().unwrap_or_default();
        let surge = rolling.max_surge.and_then(|s| s.scaled(desired, true)).unwrap_or(0);
        let unavailable = rolling.max_unavailable.and_then(|u| u.scaled(desired, false)).unwrap_or(0);
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        let sets: Vec<Arc<Object>> = self.objects.owned(&object.head.uid, id::REPLICA_SET).cloned().collect();
        let wanted: i64 =
            sets.iter().filter_map(|s| s.view::<ReplicaSet>().ok()).map(|s| s.spec.replicas.unwrap_or(1)).sum();
        if wanted > desired + surge {
            let text = format!("{wanted} replicas are wanted where {desired}+{surge} are allowed");
            self.fault("rollout surges as told", text);
        }
        let pods: Vec<Arc<Pod>> = sets.iter().flat_map(|s| self.pods_of(&s.head.uid)).collect();
        let now = self.sim.wall();
        // Which pods of a set go depends first on how they share nodes, and only then on how long they have been ready, in
        // powers of two: with several nodes availability cannot be promised, only readiness.
        let alone = self.nodes.machines().len() == 1;
        let seconds = if alone { (deployment.spec.min_ready_seconds - 1).max(0) } else { 0 };
        let available = pods.iter().filter(|p| p.is_active() && p.is_available(seconds, now)).count() as i64;
        if !self.is_calm() {
            self.rollout.complete = false;
        } else if available >= desired && deployment.status.available_replicas >= desired {
            self.rollout.complete = true;
        }
        if self.rollout.complete && available < desired - unavailable {
            let shown = |s: &Arc<Object>| {
                let active = self.pods_of(&s.head.uid).iter().filter(|p| p.is_active()).count();
                let view = s.view::<ReplicaSet>().ok()?;
                let (wanted, told) = (view.spec.replicas?, view.status.available_replicas);
                Some(format!("{}: {active} of {wanted} active, {told} counted as available", s.head.name))
            };
            let sets: Vec<String> = sets.iter().filter_map(shown).collect();
            let short = pods.iter().filter(|p| p.is_active() && !p.is_available(seconds, now));
            let short: Vec<String> =
                short.map(|p| format!("{} ({:?})", p.metadata.name, p.ready_condition())).collect();
            let text =
                format!("{available} available pods where {desired}-{unavailable} are needed ({sets:?}, {short:?})");
            self.fault("rollout keeps pods available", text);
            self.rollout.complete = false;
        }
    }
}
