//! Budgets, quotas, and what is said of nodes that are not heard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use corten_base::Timestamp;
use corten_kinds::id;
use corten_object::Object;
use corten_views::{Node, Pod};

use super::Checker;
use crate::node::Machine;
use crate::users::{CAP, CAPPED, GUARDED, GUARDED_MIN, NAMESPACE};

/// How long after a node was cut off, or came back, that must be known.
const NODE_KNOWN: Duration = Duration::from_secs(120);
/// How long after a node was cut off its pods must be on their way out.
const NODE_LEFT: Duration = Duration::from_secs(300 + 120);

/// What is remembered of budgets.
#[derive(Default)]
pub(super) struct Upkeep {
    /// Whether all guarded pods have been healthy since the last disturbance.
    whole: bool,
    /// When so many nodes were last cut off that no pods are taken from them.
    halted: Option<Timestamp>,
}

fn healthy(pods: &[Arc<Pod>]) -> usize {
    pods.iter().filter(|p| p.is_ready() && p.is_active()).count()
}

impl Checker {
    fn guarded(&self) -> Vec<Arc<Pod>> {
        let ours = |o: &&Arc<Object>| o.head.labels.get("app") == Some(GUARDED);
        self.objects.list_in(id::POD, NAMESPACE).filter(ours).filter_map(|o| o.view::<Pod>().ok()).collect()
    }

    /// Nobody scales or rolls the guarded pods: one that goes was evicted.
    pub(super) fn guarded_condemned(&mut self, pod: &Arc<Object>, before: &Pod) {
        let left = healthy(&self.guarded());
        if self.upkeep.whole && before.is_ready() && left < GUARDED_MIN {
            let text = format!("{} was evicted, which leaves {left} of {GUARDED_MIN}", pod.head.name);
            self.fault("budgets are kept", text);
        }
    }

    /// A pod in the namespace with the quota was made.
    pub(super) fn quota(&mut self, pod: &Arc<Object>) {
        if pod.head.namespace != *CAPPED {
            return;
        }
        let now = self.sim.wall();
        let overdue = |o: &Object| {
            let grace = Duration::from_secs(o.head.deletion_grace_seconds.unwrap_or(0).unsigned_abs());
            o.head.deleted.is_some_and(|at| at.checked_add(grace).is_ok_and(|end| end <= now))
        };
        let counts = |o: &&Arc<Object>| o.view::<Pod>().is_ok_and(|p| !p.is_terminal()) && !overdue(o);
        let count = self.objects.list_in(id::POD, CAPPED).filter(counts).count() as i64;
        if count > CAP {
            let text = format!("{} is one of {count} pods where {CAP} are allowed", pod.head.name);
            self.fault("quotas are kept", text);
        }
    }

    /// Some node has said that it is there: time has passed.
    pub(super) fn heartbeat(&mut self) {
        if self.ending {
            return;
        }
        self.upkeep.whole = self.is_calm() && (self.upkeep.whole || healthy(&self.guarded()) > GUARDED_MIN);
        self.cron_missed();
        self.suspended_jobs_rest();
        self.idle_replicas_go();
        let now = self.sim.now();
        let machines = self.nodes.machines();
        self.note_halt(&machines);
        // When nothing at all was heard, that was no node's fault: the time of each begins anew with the first that is heard
        // again (`handleDisruption` when it leaves full disruption).
        let first_heard = machines.values().filter(|m| m.heard).map(|m| m.since).min();
        for (name, machine) in machines {
            let since = |at: Timestamp| now.duration_since(at).unsigned_abs();
            let age = since(machine.since);
            let node = self.find(id::NODE, "", &name).and_then(|o| o.view::<Node>().ok());
            let Some(node) = node.filter(|_| age > NODE_KNOWN) else { continue };
            let ready = node.status.conditions.iter().find(|c| c.r#type == "Ready").map(|c| c.status.clone());
            let unreachable = node.spec.taints.iter().any(|t| t.key == "node.kubernetes.io/unreachable");
            let told = ready.as_deref() == Some("Unknown") && unreachable;
            if machine.heard && (unreachable || ready.as_deref() != Some("True")) && self.is_calm() {
                self.fault("nodes that are heard are ready", format!("{name} is {ready:?}, tainted: {unreachable}"));
            }
            if !machine.heard && !told && self.jumped_long_ago() {
                self.fault("nodes that are silent are known", format!("{name} is {ready:?}, tainted: {unreachable}"));
            }
            let halted = self.upkeep.halted.is_some_and(|at| since(at) <= NODE_LEFT);
            if !machine.heard {
                let leaving = age.min(first_heard.map_or(age, since));
                self.pods_on_silent(&name, if halted { Duration::ZERO } else { leaving });
            }
        }
    }

    /// Remembers that the greater part of more than two nodes is cut off, or is thought to be: then pods stay
    /// (`ComputeZoneState`, `handleDisruption`).
    fn note_halt(&mut self, machines: &BTreeMap<String, Machine>) {
        let now = self.sim.now();
        let silent = |m: &&Machine| !m.heard || now.duration_since(m.since).unsigned_abs() <= NODE_KNOWN;
        let count = machines.values().filter(silent).count();
        if count > 2 && count * 100 >= machines.len() * 55 {
            self.upkeep.halted = Some(now);
        }
    }

    /// Clocks that were put back make a silence seem shorter.
    fn jumped_long_ago(&self) -> bool {
        self.clocks_set.is_none_or(|at| self.sim.now().duration_since(at).unsigned_abs() > Duration::from_secs(900))
    }

    /// `leaving` is how long ago its pods have begun to leave.
    fn pods_on_silent(&mut self, machine: &str, leaving: Duration) {
        let pods: Vec<Arc<Pod>> = (self.objects.by_index(id::POD, "spec.nodeName", machine))
            .filter_map(|o| o.view::<Pod>().ok())
            .filter(|p| p.is_active())
            .collect();
        let judged = self.jumped_long_ago();
        for pod in pods.iter().filter(|_| judged) {
            let name = &pod.metadata.name;
            if pod.is_ready() {
                self.fault("pods on silent nodes are not ready", format!("{name} on {machine} is ready"));
            }
            let daemon = pod.metadata.labels.get("app").is_some_and(|app| app == "agent");
            if leaving > NODE_LEFT && !daemon {
                self.fault("pods leave silent nodes", format!("{name} is still on {machine}"));
            }
        }
    }
}
