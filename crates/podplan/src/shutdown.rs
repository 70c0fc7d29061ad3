//! Which pods end when at a shutdown of the machine (`pkg/kubelet/nodeshutdown/nodeshutdown_manager.go`).

use corten_views::Pod;

/// `status.reason` of pods that end so.
pub const REASON: &str = "Terminated";
/// `status.message` of pods that end so.
pub const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// Why the node takes no pod any more.
pub const REFUSED_REASON: &str = "NodeShutdown";
/// The same in words.
pub const REFUSED_MESSAGE: &str = "Pod was rejected as the node is shutting down.";

/// Pods of no priority class.
const DEFAULT_PRIORITY: i32 = 0;
/// From this priority on pods are critical (`scheduling.SystemCriticalPriority`).
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// How long pods of a priority, and of those up to the next one, may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period {
    /// From this priority on.
    pub priority: i32,
    /// So many seconds.
    pub seconds: i64,
}

/// All periods, the lowest priority first: that is the order in which pods end. None: pods do not end with the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Periods(Vec<Period>);

/// Pods that end together.
#[derive(Debug)]
pub struct Group<'p> {
    /// How long they have.
    pub period: Period,
    /// They; never empty.
    pub pods: Vec<&'p Pod>,
}

impl Periods {
    /// All pods have so many seconds, of which the last so many are for critical ones alone (`migrateConfig`). Nothing if there is
    /// no time at all, or less than critical pods are to have.
    pub fn of_totals(seconds: i64, critical_seconds: i64) -> Periods {
        if seconds <= 0 || critical_seconds < 0 || seconds < critical_seconds {
            return Periods::default();
        }
        Periods(vec![
            Period { priority: DEFAULT_PRIORITY, seconds: seconds - critical_seconds },
            Period { priority: CRITICAL_PRIORITY, seconds: critical_seconds },
        ])
    }

    /// One period for each priority.
    ///
    /// # Errors
    /// If a priority is there twice, or has less than no time.
    pub fn of_priorities(mut periods: Vec<Period>) -> Result<Periods, String> {
        periods.sort();
        if let Some(period) = periods.iter().find(|period| period.seconds < 0) {
            return Err(format!("priority {}: {} seconds is less than no time", period.priority, period.seconds));
        }
        match periods.windows(2).find(|two| two[0].priority == two[1].priority) {
            Some(two) => Err(format!("priority {} is there twice", two[0].priority)),
            None => Ok(Periods(periods)),
        }
    }

    /// Whether pods end with the machine at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Seconds that it may take in all.
    pub fn total_seconds(&self) -> i64 {
        self.0.iter().map(|period| period.seconds).sum()
    }

    /// The pods in the order in which they end: each group when the one before has ended or its time is over. A pod belongs to the
    /// highest period that is not above it, else to the lowest.
    pub fn groups<'p>(&self, pods: &[&'p Pod]) -> Vec<Group<'p>> {
        let mut groups: Vec<Group<'p>> =
            self.0.iter().map(|period| Group { period: *period, pods: Vec::new() }).collect();
        for pod in pods {
            let priority = pod.spec.priority.unwrap_or(DEFAULT_PRIORITY);
            let above = groups.partition_point(|group| group.period.priority <= priority);
            if let Some(group) = groups.get_mut(above.saturating_sub(1)) {
                group.pods.push(pod);
            }
        }
        groups.retain(|group| !group.pods.is_empty());
        groups
    }
}

/// The grace of a pod in a period: its own, if that is shorter.
pub fn grace_seconds(pod: &Pod, period: Period) -> i64 {
    pod.spec.termination_grace_period_seconds.map_or(period.seconds, |own| own.min(period.seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, priority: Option<i32>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = name.into();
        pod.spec.priority = priority;
        pod
    }

    fn shown(periods: &Periods, pods: &[Pod]) -> Vec<String> {
        let pods: Vec<&Pod> = pods.iter().collect();
        let names =
            |group: &Group<'_>| group.pods.iter().map(|pod| pod.metadata.name.as_str()).collect::<Vec<_>>().join(" ");
        periods.groups(&pods).iter().map(|group| format!("{}s: {}", group.period.seconds, names(group))).collect()
    }

    #[test]
    fn shutdown_ends_ordinary_pods_first_and_critical_ones_last() {
        let periods = Periods::of_totals(30, 10);
        assert_eq!(periods.total_seconds(), 30);
        let pods = [
            pod("critical", Some(2_000_000_000)),
            pod("node-critical", Some(2_000_001_000)),
            pod("plain", None),
            pod("high", Some(1_999_999_999)),
            pod("low", Some(-5)),
        ];
        assert_eq!(shown(&periods, &pods), ["20s: plain high low", "10s: critical node-critical"]);
        assert_eq!(shown(&periods, &pods[..1]), ["10s: critical"], "nobody waits for a group without pods");
        assert!(Periods::of_totals(0, 0).is_empty());
        assert!(Periods::of_totals(10, 20).is_empty());
    }

    #[test]
    fn shutdown_grace_period_by_pod_priority() {
        // The example of upstream's documentation.
        let of = |priority, seconds| Period { priority, seconds };
        let periods = Periods::of_priorities(vec![of(100_000, 10), of(10_000, 180), of(1000, 120), of(0, 60)]).unwrap();
        let pods = [999, 1000, 9999, 10_000, 100_000, 500_000, 0, -1].map(|p| pod(&p.to_string(), Some(p)));
        assert_eq!(shown(&periods, &pods), ["60s: 999 0 -1", "120s: 1000 9999", "180s: 10000", "10s: 100000 500000"]);
        assert_eq!(Periods::of_priorities(vec![of(5, 1), of(5, 2)]).unwrap_err(), "priority 5 is there twice");
        assert!(Periods::of_priorities(vec![of(5, -1)]).is_err());
    }

    #[test]
    fn shutdown_gives_no_pod_more_than_its_own_grace() {
        let period = Period { priority: 0, seconds: 20 };
        let mut pod = pod("p", None);
        assert_eq!(grace_seconds(&pod, period), 20);
        pod.spec.termination_grace_period_seconds = Some(5);
        assert_eq!(grace_seconds(&pod, period), 5);
        pod.spec.termination_grace_period_seconds = Some(60);
        assert_eq!(grace_seconds(&pod, period), 20);
    }
}
