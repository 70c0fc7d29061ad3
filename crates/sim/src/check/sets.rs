//! Replica sets, stateful sets and daemon sets: how many pods, in which order, where.

use std::sync::Arc;
use std::time::Duration;

use corten_base::{Istr, Timestamp};
use corten_kinds::id;
use corten_object::Object;
use corten_views::{DaemonSet, Pod, ReplicaSet, StatefulSet};

use super::Checker;
use crate::users::GUARDED;

/// Who has been ready for so long is worth more than who has not been for as long.
const KNOWN: Duration = Duration::from_secs(15);
/// By when all deletions of one plan have begun.
const DONE: Duration = Duration::from_secs(30);

/// A pod that is not ready and stays when one that is has to go.
pub(super) struct PassedOver {
    at: Timestamp,
    uid: Istr,
    /// Who goes.
    gone: Istr,
}

/// The node that a daemon is made for.
fn node_of(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.affinity.clone().unwrap_or_default().node_affinity.unwrap_or_default();
    let required = affinity.required_during_scheduling_ignored_during_execution.unwrap_or_default();
    required.node_selector_terms.first().and_then(|t| t.match_fields.first()?.values.first().cloned())
}

fn ordinal(name: &str) -> Option<i64> {
    name.rsplit_once('-')?.1.parse().ok()
}

impl Checker {
    /// Remembers the sizes that are asked for.
    pub(super) fn note_size(&mut self, object: &Object) {
        let size = match object.kind {
            id::REPLICA_SET => object.view::<ReplicaSet>().ok().and_then(|s| s.spec.replicas),
            _ => object.view::<StatefulSet>().ok().and_then(|s| s.spec.replicas),
        };
        self.sizes.entry(object.head.uid.clone()).or_default().note(self.sim.now(), size.unwrap_or(1));
    }

    fn size_range(&mut self, owner: &Object) -> Option<(i64, i64)> {
        let now = self.sim.now();
        self.sizes.get_mut(&owner.head.uid)?.range(now)
    }

    pub(super) fn pod_created(&mut self, pod: &Arc<Object>) {
        let Some(owner) = self.owner(pod) else { return };
        let pods = self.pods_of(&owner.head.uid);
        match owner.kind {
            id::REPLICA_SET => self.replica_created(&owner, &pods),
            id::STATEFUL_SET => self.identity_created(pod, &owner, &pods),
            id::DAEMON_SET => {
                let Ok(new) = pod.view::<Pod>() else { return };
                if pods.iter().filter(|p| p.is_active() && node_of(p) == node_of(&new)).count() > 1 {
                    let text = format!("{} is a second daemon on its node", pod.head.name);
                    self.fault("one daemon per node", text);
                }
            }
            _ => {}
        }
    }

    fn replica_created(&mut self, owner: &Object, pods: &[Arc<Pod>]) {
        let active = pods.iter().filter(|p| p.is_active()).count() as i64;
        if let Some((_, most)) = self.size_range(owner).filter(|(_, most)| active > *most) {
            let text = format!("{} has {active} active pods where at most {most} were asked for", owner.head.name);
            self.fault("no replica too many", text);
        }
    }

    fn identity_created(&mut self, pod: &Arc<Object>, owner: &Object, pods: &[Arc<Pod>]) {
        let Some(ordinal) = ordinal(&pod.head.name) else { return };
        if let Some((_, most)) = self.size_range(owner).filter(|(_, most)| ordinal >= *most) {
            let text = format!("{} was made where {most} replicas were asked for", pod.head.name);
            self.fault("no identity beyond the range", text);
        }
        if !self.is_calm() || !is_ordered(owner) {
            return;
        }
        for lower in 0..ordinal {
            let name = format!("{}-{lower}", owner.head.name);
            if !pods.iter().any(|p| p.metadata.name == name && p.is_ready() && !p.is_terminating()) {
                let text = format!("{} was made although {name} is not ready", pod.head.name);
                self.fault("identities begin in order", text);
            }
        }
    }

    /// A pod's deletion has begun.
    pub(super) fn pod_condemned(&mut self, pod: &Arc<Object>, before: &Pod) {
        let Some(owner) = self.owner(pod).filter(|o| !o.head.is_deleting()) else { return };
        if !self.is_calm() {
            return;
        }
        let pods = self.pods_of(&owner.head.uid);
        match owner.kind {
            id::REPLICA_SET if pod.head.labels.get("app") == Some(GUARDED) => self.guarded_condemned(pod, before),
            id::REPLICA_SET => self.replica_condemned(pod, before, &owner, &pods),
            id::STATEFUL_SET if is_ordered(&owner) => self.identity_condemned(pod, &owner, &pods),
            id::DAEMON_SET => self.daemon_condemned(pod, before, &owner, &pods),
            id::JOB => self.job_pod_condemned(pod, before, &owner, &pods),
            _ => {}
        }
    }

    fn replica_condemned(&mut self, pod: &Arc<Object>, before: &Pod, owner: &Object, pods: &[Arc<Pod>]) {
        let active: Vec<&Arc<Pod>> = pods.iter().filter(|p| p.is_active()).collect();
        if let Some((least, _)) = self.size_range(owner).filter(|(least, _)| (active.len() as i64) < *least) {
            let text = format!("{} has {} active pods where {least} were asked for", owner.head.name, active.len());
            self.fault("no replica too few", text);
        }
        let wall = self.sim.wall();
        let long = |at: Option<Timestamp>| at.is_some_and(|at| wall.duration_since(at).unsigned_abs() > KNOWN);
        let since =
            |p: &Pod| p.ready_condition().and_then(|c| c.last_transition_time).or(p.metadata.creation_timestamp);
        let idle = active.iter().find(|p| !p.is_ready() && long(since(p)));
        if let Some(idle) = idle.filter(|_| before.is_ready() && long(since(before))) {
            let (uid, gone) = (Istr::from(idle.metadata.uid.as_str()), pod.head.name.clone());
            self.passed_over.push(PassedOver { at: self.sim.now(), uid, gone });
        }
    }

    /// Time has passed: who was not ready when others had to go is gone by now, too.
    pub(super) fn idle_replicas_go(&mut self) {
        let now = self.sim.now();
        let due = self.passed_over.extract_if(.., |p| now.duration_since(p.at).unsigned_abs() > DONE);
        for PassedOver { uid, gone, .. } in due.collect::<Vec<_>>() {
            let stays = self.objects.by_uid(&uid).and_then(|o| o.view::<Pod>().ok()).filter(|p| p.is_active());
            if let Some(stays) = stays.filter(|_| self.is_calm()) {
                let text = format!("{gone} was ready and went before {}, which was not", stays.metadata.name);
                self.fault("idle replicas go first", text);
            }
        }
    }

    /// One after the other, from the highest.
    fn identity_condemned(&mut self, pod: &Arc<Object>, owner: &Object, pods: &[Arc<Pod>]) {
        let Some(ours) = ordinal(&pod.head.name) else { return };
        if pods.iter().filter(|p| p.is_terminating() && !p.is_terminal()).count() > 1 {
            let text = format!("{} goes while another one goes", pod.head.name);
            self.fault("identities go one by one", text);
        }
        let Some((least, _)) = self.size_range(owner) else { return };
        // Who is of the present revision does not go because of a roll.
        let update = owner.view::<StatefulSet>().map(|s| s.status.update_revision.clone()).unwrap_or_default();
        let present = pod.head.labels.get("controller-revision-hash") == Some(update.as_str());
        let higher = |p: &&Arc<Pod>| p.is_active() && ordinal(&p.metadata.name) > Some(ours);
        if let Some(higher) = pods.iter().find(higher).filter(|_| present && ours >= least) {
            let text = format!("{} goes before {}", pod.head.name, higher.metadata.name);
            self.fault("identities go from the highest", text);
        }
        for higher in ours + 1..least {
            let name = format!("{}-{higher}", owner.head.name);
            if !pods.iter().any(|p| p.metadata.name == name && p.is_ready() && !p.is_terminating()) {
                let text = format!("{} goes although {name} is not ready", pod.head.name);
                self.fault("identities go from the highest", text);
            }
        }
    }

    fn daemon_condemned(&mut self, pod: &Arc<Object>, before: &Pod, owner: &Object, pods: &[Arc<Pod>]) {
        let rolling = owner
            .view::<DaemonSet>()
            .ok()
            .and_then(|d| d.spec.update_strategy.rolling_update.clone())
            .unwrap_or_default();
        let machines = self.nodes.machines();
        let most = rolling.max_unavailable.and_then(|u| u.scaled(machines.len() as i64, true)).unwrap_or(1).max(1);
        let served = |machine: &str| {
            pods.iter().any(|p| p.is_active() && p.is_ready() && node_of(p).is_some_and(|node| node == machine))
        };
        let unserved = machines.keys().filter(|machine| !served(machine)).count() as i64;
        if before.is_ready() && unserved > most {
            let text = format!("{} goes, and {unserved} nodes are without a daemon", pod.head.name);
            self.fault("daemons roll within their bounds", text);
        }
    }
}

fn is_ordered(set: &Object) -> bool {
    set.view::<StatefulSet>().is_ok_and(|s| s.spec.pod_management_policy != "Parallel")
}
