//! Which pods go so that the node can take a critical one (`pkg/kubelet/preemption`).

use corten_views::Pod;

use crate::eviction::{Eviction, is_critical};
use crate::resources::QosClass;

/// `status.reason` of a pod that made room, and the reason of the event.
pub const REASON: &str = "Preempting";
/// What its status and the event say.
pub const MESSAGE: &str = "Preempted in order to admit critical pod";
const CONDITION: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";

/// What counts when pods stand in each other's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    critical: bool,
    priority: Option<i32>,
    class: QosClass,
    grace_seconds: i64,
}

impl Standing {
    /// A pod's.
    pub fn of(pod: &Pod) -> Standing {
        Standing {
            critical: is_critical(pod),
            priority: pod.spec.priority,
            class: QosClass::of(pod),
            grace_seconds: pod.spec.termination_grace_period_seconds.unwrap_or(30),
        }
    }

    /// Whether others make room for it.
    pub fn is_critical(&self) -> bool {
        self.critical
    }

    /// Whether another may be ended for it.
    fn precedes(&self, other: &Standing) -> bool {
        let higher = self.priority.zip(other.priority).is_some_and(|(mine, other)| mine > other);
        self.critical && !other.critical || higher
    }

    /// The order to end the pod with this uid.
    pub fn order(&self, uid: &str) -> Eviction {
        Eviction {
            uid: uid.to_owned(),
            reason: REASON,
            message: MESSAGE.to_owned(),
            grace_seconds: self.grace_seconds,
            disruption: Some(CONDITION.to_owned()),
        }
    }
}

/// A pod that runs.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its uid.
    pub uid: String,
    /// Its standing.
    pub standing: Standing,
    /// What it gives back of each resource that is missing, in the order of these.
    pub gives: Vec<i64>,
    /// Its requests of memory and CPU: of two that help as much the smaller goes.
    pub size: (i64, i64),
}

/// The pods to end for `pod`, which misses so much of some resources: no more important ones than must go, and few. `None` if all
/// together would not do.
pub fn choose(pod: &Standing, missing: &[i64], candidates: &[Candidate]) -> Option<Vec<Candidate>> {
    let may_go = candidates.iter().filter(|candidate| pod.precedes(&candidate.standing));
    let classes = [QosClass::BestEffort, QosClass::Burstable, QosClass::Guaranteed];
    let [best_effort, burstable, guaranteed] =
        classes.map(|class| may_go.clone().filter(|c| c.standing.class == class).collect::<Vec<_>>());
    // Of the more important only what all less important ones together do not give.
    let guaranteed = nearest(&guaranteed, left(missing, best_effort.iter().chain(&burstable)))?;
    let burstable = nearest(&burstable, left(missing, best_effort.iter().chain(&guaranteed)))?;
    let best_effort = nearest(&best_effort, left(missing, burstable.iter().chain(&guaranteed)))?;
    Some(best_effort.into_iter().chain(burstable).chain(guaranteed).cloned().collect())
}

/// What is still missing when these have gone; nothing is less than zero.
fn left<'c>(missing: &[i64], gone: impl Iterator<Item = &'c &'c Candidate>) -> Vec<i64> {
    let mut left = missing.to_vec();
    for candidate in gone {
        for (left, gives) in left.iter_mut().zip(&candidate.gives) {
            *left = (*left - gives).max(0);
        }
    }
    left
}

/// One after the other those that give most of what is missing, until nothing is.
fn nearest<'c>(from: &[&'c Candidate], mut missing: Vec<i64>) -> Option<Vec<&'c Candidate>> {
    let (mut from, mut chosen) = (from.to_vec(), Vec::new());
    while missing.iter().any(|amount| *amount > 0) {
        let distance = |candidate: &Candidate| -> f64 {
            let parts = missing.iter().zip(&candidate.gives).filter(|(missing, _)| **missing > 0);
            parts.map(|(missing, gives)| ((missing - gives).max(0) as f64 / *missing as f64).powi(2)).sum()
        };
        let order = |a: &Candidate, b: &Candidate| distance(a).total_cmp(&distance(b)).then(a.size.cmp(&b.size));
        let best = (0..from.len()).min_by(|a, b| order(from[*a], from[*b]))?;
        let best = from.swap_remove(best);
        missing = left(&missing, std::iter::once(&best));
        chosen.push(best);
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(critical: bool, priority: i32, class: QosClass) -> Standing {
        Standing { critical, priority: Some(priority), class, grace_seconds: 30 }
    }

    fn candidate(uid: &str, class: QosClass, gives: [i64; 2]) -> Candidate {
        Candidate {
            uid: uid.into(),
            standing: standing(false, 0, class),
            gives: gives.into(),
            size: (gives[1], gives[0]),
        }
    }

    fn chosen(missing: [i64; 2], candidates: &[Candidate]) -> Option<Vec<String>> {
        let critical = standing(true, 0, QosClass::Guaranteed);
        let chosen = choose(&critical, &missing, candidates)?;
        Some(chosen.into_iter().map(|candidate| candidate.uid).collect())
    }

    #[test]
    fn less_important_pods_go_first_and_no_more_than_must() {
        use QosClass::{Burstable, Guaranteed};
        let pods = [
            candidate("small", Burstable, [100, 10]),
            candidate("large", Burstable, [500, 10]),
            candidate("sure", Guaranteed, [400, 10]),
        ];
        assert_eq!(chosen([80, 0], &pods).unwrap(), ["small"], "the smaller of two that are enough");
        assert_eq!(chosen([300, 0], &pods).unwrap(), ["large"]);
        assert_eq!(chosen([600, 0], &pods).unwrap(), ["large", "small"]);
        assert_eq!(chosen([700, 0], &pods).unwrap(), ["large", "sure"]);
        assert_eq!(chosen([2000, 0], &pods), None);
        assert_eq!(chosen([0, 0], &pods).unwrap(), [""; 0]);
    }

    #[test]
    fn critical_pods_stay_unless_their_priority_is_lower() {
        let mut pods = [candidate("a", QosClass::BestEffort, [0, 0]), candidate("b", QosClass::Burstable, [500, 0])];
        pods[1].standing.critical = true;
        assert_eq!(chosen([100, 0], &pods), None);
        pods[1].standing.priority = Some(-1);
        assert_eq!(chosen([100, 0], &pods).unwrap(), ["b"]);
        assert!(!standing(false, 5, QosClass::Burstable).precedes(&standing(false, 5, QosClass::BestEffort)));
    }
}
