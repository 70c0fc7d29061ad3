//! Which pods the node has taken, and whether it takes another: a pod that was put here by name passed no scheduler.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use corten_base::{Istr, Timestamp};
use corten_podplan::eviction::Eviction;
use corten_podplan::preempt::{self, Candidate, Standing};
use corten_podplan::resources::QosClass;
use corten_scheduler::{Lack, NodeInfo, PodInfo, Rejection, admit, admit_with_room, lacks};
use corten_views::{Node, Pod};
use tokio::sync::watch;

/// The pods that the node has taken and that have not ended, with what it has promised them.
pub struct Ledger {
    books: Mutex<Books>,
    /// Counts whenever room may have become free.
    freed: watch::Sender<u64>,
}

#[derive(Default)]
struct Books {
    taken: NodeInfo,
    /// Who they are, by uid.
    standings: BTreeMap<Istr, Standing>,
    /// Pods that wait for room to grow, with what they would need in all.
    waiting: BTreeMap<Istr, (Rank, Arc<PodInfo>)>,
}

/// Who gets room first; the smallest does (`allocation_manager.go` `sortPendingResizes`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Whether it asks for more than it has.
    grows: bool,
    /// The higher priority first.
    priority: std::cmp::Reverse<i32>,
    /// Guaranteed pods first.
    burstable: bool,
    since: Timestamp,
}

impl Rank {
    /// Of a pod that asks for `wanted` and has `promised`, and has done so since a time.
    pub fn of(promised: &Pod, wanted: &Pod, since: Timestamp) -> Rank {
        let (old, new) = (PodInfo::from(promised).requests, PodInfo::from(wanted).requests);
        Rank {
            grows: new.milli_cpu > old.milli_cpu || new.memory > old.memory,
            priority: std::cmp::Reverse(wanted.spec.priority.unwrap_or(0)),
            burstable: QosClass::of(wanted) != QosClass::Guaranteed,
            since,
        }
    }
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger { books: Mutex::default(), freed: watch::channel(0).0 }
    }
}

impl Ledger {
    /// Takes a pod if it fits beside the others on the node as it is now. For a critical one others are to end: it is not taken yet when
    /// there are any.
    pub fn admit(&self, node: &Node, pod: &Pod) -> Result<Vec<Eviction>, Rejection> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.see(node);
        let (info, standing) = (PodInfo::from(pod), Standing::of(pod));
        books.remove(&info.uid);
        let lacks = lacks(&books.taken, &info);
        if let Some(first) = lacks.first().filter(|_| !standing.is_critical()) {
            return Err(first.into());
        }
        admit_with_room(&books.taken, &info)?;
        match lacks.first() {
            None => {
                books.add(info, standing);
                Ok(Vec::new())
            }
            Some(first) => books.make_room(&standing, &lacks).ok_or_else(|| first.into()),
        }
    }

    /// Takes a pod that runs here already.
    pub fn adopt(&self, pod: &Pod) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let info = PodInfo::from(pod);
        books.remove(&info.uid);
        books.add(info, Standing::of(pod));
    }

    /// Gives a pod what it now asks for, if there is room for it beside the others and beside those that wait before it;
    /// otherwise it waits from now on.
    pub fn resize(&self, node: &Node, wanted: &Pod, rank: Rank) -> Result<(), Rejection> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.see(node);
        let pod = Arc::new(PodInfo::from(wanted));
        let mut others = books.taken.clone();
        others.remove_pod(&pod.uid);
        let mut before: Vec<_> = books.waiting.values().filter(|(r, p)| *r < rank && p.uid != pod.uid).collect();
        before.sort_by(|a, b| a.0.cmp(&b.0));
        for (_, waiting) in before {
            let mut without = others.clone();
            without.remove_pod(&waiting.uid);
            if admit(&without, waiting).is_ok() {
                without.add_pod(waiting.clone());
                others = without;
            }
        }
        if let Err(rejection) = admit(&others, &pod) {
            books.waiting.insert(pod.uid.clone(), (rank, pod));
            return Err(rejection);
        }
        books.waiting.remove(&pod.uid);
        books.taken.remove_pod(&pod.uid);
        books.taken.add_pod(pod);
        drop(books);
        self.freed.send_modify(|n| *n += 1);
        Ok(())
    }

    /// The pod no longer waits for room.
    pub fn cancel_resize(&self, uid: &str) {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&Istr::from(uid));
    }

    /// The pod with this uid uses nothing any more.
    pub fn release(&self, uid: &str) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.waiting.remove(&Istr::from(uid));
        if books.remove(&Istr::from(uid)) {
            drop(books);
            self.freed.send_modify(|n| *n += 1);
        }
    }

    /// Whether the pod with this uid still has what it was promised.
    pub fn has(&self, uid: &str) -> bool {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).standings.contains_key(&Istr::from(uid))
    }

    /// Changes when there may be room for a pod that had none.
    pub fn freed(&self) -> watch::Receiver<u64> {
        self.freed.subscribe()
    }
}

impl Books {
    fn add(&mut self, pod: PodInfo, standing: Standing) {
        self.standings.insert(pod.uid.clone(), standing);
        self.taken.add_pod(pod.into());
    }

    fn remove(&mut self, uid: &Istr) -> bool {
        self.standings.remove(uid);
        self.taken.remove_pod(uid).is_some()
    }

    /// Who is to end so that nothing is lacking; `None` if that cannot be.
    fn make_room(&self, pod: &Standing, lacks: &[Lack]) -> Option<Vec<Eviction>> {
        let missing: Vec<i64> = lacks.iter().map(Lack::missing).collect();
        let candidate = |other: &Arc<PodInfo>| {
            Some(Candidate {
                uid: other.uid.to_string(),
                standing: *self.standings.get(&other.uid)?,
                gives: lacks.iter().map(|lack| lack.held_by(other)).collect(),
                size: (other.requests.memory, other.requests.milli_cpu),
            })
        };
        let candidates: Vec<Candidate> = self.taken.pods.iter().filter_map(candidate).collect();
        let chosen = preempt::choose(pod, &missing, &candidates)?;
        Some(chosen.iter().map(|one| one.standing.order(&one.uid)).collect())
    }

    fn see(&mut self, node: &Node) {
        let before = std::mem::take(&mut self.taken);
        self.taken = NodeInfo::from(node);
        before.pods.into_iter().for_each(|p| self.taken.add_pod(p));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let json = r#"{"metadata":{"name":"n"},"status":{"allocatable":{"cpu":"1","memory":"1Gi","pods":"10"}}}"#;
        serde_json::from_str(json).unwrap()
    }

    fn pod(uid: &str, cpu: &str, priority: i32) -> Pod {
        let json = format!(
            r#"{{"metadata":{{"name":"{uid}","uid":"{uid}"}},"spec":{{"priority":{priority},"containers":[
            {{"name":"c","resources":{{"requests":{{"cpu":"{cpu}"}}}}}}]}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    fn resize(ledger: &Ledger, uid: &str, from: &str, to: &str, priority: i32, since: i64) -> String {
        let since = Timestamp::from_second(since).unwrap();
        let (old, new) = (pod(uid, from, priority), pod(uid, to, priority));
        let outcome = ledger.resize(&node(), &new, Rank::of(&old, &new, since));
        outcome.err().map(|r| r.message).unwrap_or_default()
    }

    #[test]
    fn resize_waits_for_room_and_higher_priority_gets_it_first() {
        let ledger = Ledger::default();
        for uid in ["a", "b", "c"] {
            ledger.admit(&node(), &pod(uid, "300m", 0)).unwrap();
        }
        let freed = ledger.freed();
        assert_eq!(
            resize(&ledger, "a", "300m", "500m", 0, 1),
            "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000"
        );
        assert_ne!(resize(&ledger, "b", "300m", "600m", 5, 2), "");
        assert!(!freed.has_changed().unwrap());
        ledger.release("c");
        assert!(freed.has_changed().unwrap());
        assert_ne!(resize(&ledger, "a", "300m", "500m", 0, 1), "", "b stands before it");
        assert_eq!(resize(&ledger, "b", "300m", "600m", 5, 2), "");
        assert_ne!(resize(&ledger, "a", "300m", "500m", 0, 1), "");
        assert_eq!(resize(&ledger, "b", "600m", "200m", 5, 3), "", "what shrinks needs no room");
        assert_eq!(resize(&ledger, "a", "300m", "500m", 0, 1), "");
    }

    #[test]
    fn critical_pod_has_others_make_room() {
        let ledger = Ledger::default();
        for uid in ["a", "b", "c"] {
            assert_eq!(ledger.admit(&node(), &pod(uid, "300m", 0)), Ok(vec![]));
        }
        let too_much = "Node didn't have enough resource: cpu, requested: 400, used: 900, capacity: 1000";
        assert_eq!(ledger.admit(&node(), &pod("d", "400m", 9)).unwrap_err().message, too_much);
        let critical = pod("d", "400m", 2_000_000_000);
        let orders = ledger.admit(&node(), &critical).unwrap();
        assert_eq!((orders.len(), orders[0].reason, orders[0].grace_seconds), (1, "Preempting", 30));
        assert!(!ledger.has("d") && ledger.has(&orders[0].uid));
        ledger.release(&orders[0].uid);
        assert_eq!(ledger.admit(&node(), &critical), Ok(vec![]));
        assert!(ledger.has("d"));
        let more = pod("e", "2", 2_000_000_000);
        assert_eq!(ledger.admit(&node(), &more).unwrap_err().reason, "OutOfcpu", "nobody has so much to give");
    }
}
