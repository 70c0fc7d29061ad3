//! The bounds of the deployment that is only rolled.

use std::collections::HashMap;
use std::sync::Arc;

use corten_base::Istr;
use corten_cache::Event;
use corten_kinds::id;
use corten_object::Object;
use corten_views::{Deployment, Pod, ReplicaSet};

use super::{Checker, Sizes};
use crate::users::{NAMESPACE, ROLLED};

/// What is remembered of the rollout.
#[derive(Default)]
pub(super) struct Rollout {
    /// Whether it has been complete since the last disturbance: from then on as many pods as promised are available.
    complete: bool,
    /// By set: how many available pods its status told lately.
    told: HashMap<Istr, Sizes>,
}

/// Annotation of a set: the newest has the highest.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// A set of the rolled deployment.
struct Told {
    uid: Istr,
    revision: i64,
    size: i64,
    /// How many available pods it may be thought to have.
    available: i64,
}

fn size(set: &ReplicaSet) -> i64 {
    set.spec.replicas.unwrap_or(1)
}

/// How many pods a deployment may have more, and fewer, than it asks for.
fn bounds(deployment: &Deployment) -> (i64, i64) {
    let desired = deployment.spec.replicas.unwrap_or(1);
    let rolling = deployment.spec.strategy.rolling_update.clone().unwrap_or_default();
    let surge = rolling.max_surge.and_then(|s| s.scaled(desired, true)).unwrap_or(0);
    let unavailable = rolling.max_unavailable.and_then(|u| u.scaled(desired, false)).unwrap_or(0);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

impl Checker {
    /// Whether available pods can be counted on. Which pods of a set go depends on how they share nodes before it depends on how
    /// long they have been ready (`ActivePodsWithRanks`): with several nodes an available pod may go while one stays that is
    /// not yet available. A deployment cannot prevent that, and then takes away what is not available.
    fn keeps_available(&self, deployment: &Deployment) -> bool {
        deployment.spec.min_ready_seconds == 0 || self.nodes.machines().len() == 1
    }

    /// Remembers what a set of the rolled deployment tells; answers with that deployment, and the fewest available pods lately.
    pub(super) fn note_told(&mut self, object: &Object) -> Option<(Arc<Object>, i64)> {
        let owner = self.owner(object).filter(|o| o.kind == id::DEPLOYMENT && o.head.name == *ROLLED)?;
        let set = object.view::<ReplicaSet>().ok()?;
        let now = self.sim.now();
        let told = self.rollout.told.entry(object.head.uid.clone()).or_default();
        told.note(now, set.status.available_replicas);
        Some((owner, told.range(now)?.0))
    }

    /// A set of the rolled deployment has changed: what the deployment takes away does not count as available, or is not needed,
    /// by what the sets' statuses told when it decided, whenever that was.
    pub(super) fn rolled_set(&mut self, event: &Event) {
        let Some(object) = &event.object else { return };
        let Some((owner, least)) = self.note_told(object) else { return };
        let Ok(set) = object.view::<ReplicaSet>() else { return };
        let before = event.previous.as_ref().and_then(|o| o.view::<ReplicaSet>().ok()).map_or(0, |old| size(&old));
        let (after, name) = (size(&set), &object.head.name);
        let Ok(deployment) = owner.view::<Deployment>() else { return };
        if after >= before || !self.is_calm() {
            return;
        }
        let needed = deployment.spec.replicas.unwrap_or(1) - bounds(&deployment).1;
        let sets = self.told_sets(&owner);
        let others: i64 = sets.iter().filter(|s| s.uid != object.head.uid).map(|s| s.available).sum();
        if self.rollout.complete && after < least && after + others < needed {
            let text = format!(
                "{name} goes from {before} to {after}, of which at least {least} are available; the others have {others}, \
                 {needed} are needed"
            );
            self.fault("rollouts take what is not needed", text);
        }
        // What the new set has not got yet must still be there of the old ones, be it healthy or not (`maxScaledDown`).
        let Some(new) = sets.iter().max_by_key(|s| s.revision).filter(|new| new.uid != object.head.uid) else { return };
        let old: i64 = sets.iter().filter(|s| s.uid != new.uid).map(|s| s.size).sum();
        if old + new.available < needed {
            let text = format!(
                "{name} goes from {before} to {after}, which leaves {old} old replicas beside {} available new ones, {needed} \
                 are needed",
                new.available
            );
            self.fault("rollouts wait for new pods", text);
        }
    }

    /// The sets of a deployment, with the most available pods that each told of lately.
    fn told_sets(&mut self, deployment: &Object) -> Vec<Told> {
        let now = self.sim.now();
        let mut sets = Vec::new();
        for object in self.controlled(&deployment.head.uid, id::REPLICA_SET) {
            let Ok(set) = object.view::<ReplicaSet>() else { continue };
            let told = self.rollout.told.get_mut(&object.head.uid).and_then(|told| told.range(now));
            let revision = set.metadata.annotations.get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0);
            let available = told.map_or(0, |(_, most)| most).min(size(&set));
            sets.push(Told { uid: object.head.uid.clone(), revision, size: size(&set), available });
        }
        sets
    }

    pub(super) fn check_rollout(&mut self) {
        let Some(object) = self.find(id::DEPLOYMENT, NAMESPACE, ROLLED).filter(|o| !o.head.is_deleting()) else {
            return;
        };
        let Ok(deployment) = object.view::<Deployment>() else { return };
        let desired = deployment.spec.replicas.unwrap_or(1);
        let (surge, unavailable) = bounds(&deployment);
        let sets: Vec<Arc<Object>> = self.objects.owned(&object.head.uid, id::REPLICA_SET).cloned().collect();
        let wanted: i64 =
            sets.iter().filter_map(|s| s.view::<ReplicaSet>().ok()).map(|s| s.spec.replicas.unwrap_or(1)).sum();
        if wanted > desired + surge {
            let text = format!("{wanted} replicas are wanted where {desired}+{surge} are allowed");
            self.fault("rollout surges as told", text);
        }
        let pods: Vec<Arc<Pod>> = sets.iter().flat_map(|s| self.pods_of(&s.head.uid)).collect();
        let now = self.sim.wall();
        // The promise is made in whole seconds.
        let seconds = (deployment.spec.min_ready_seconds - 1).max(0);
        let available = pods.iter().filter(|p| p.is_active() && p.is_available(seconds, now)).count() as i64;
        if !self.is_calm() {
            self.rollout.complete = false;
        } else if available >= desired && deployment.status.available_replicas >= desired {
            self.rollout.complete = true;
        }
        if self.rollout.complete && self.keeps_available(&deployment) && available < desired - unavailable {
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
