//! What the node and its containers use, measured at intervals: CPU usage is the difference of two readings.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corten_base::Timestamp;
use corten_kinds::usage::{ContainerUsage, NodeUsage, Used};
use corten_runtime::Stats;
use jiff::SignedDuration;

use crate::shared::Shared;
use crate::usage::{Usage, observe};

/// How long from one reading to the next (a metrics server's `--metric-resolution`). Usage has no events to wait for.
const PERIOD: Duration = Duration::from_secs(15);

/// The last measurement.
#[derive(Default)]
pub struct Measured(Mutex<Option<Arc<NodeUsage>>>);

impl Measured {
    /// What was measured last.
    pub fn last(&self) -> Option<Arc<NodeUsage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Measures for ever.
pub async fn run(shared: Arc<Shared>) -> Result<(), std::convert::Infallible> {
    let mut before: Option<Usage> = None;
    loop {
        match observe(&shared).await {
            Ok(now) => {
                let usage = usage(&shared.config.node_name, before.as_ref(), &now);
                *shared.measured.0.lock().unwrap_or_else(PoisonError::into_inner) = usage.map(Arc::new);
                before = Some(now);
            }
            Err(status) => tracing::debug!(error = %status, "what runs could not be measured"),
        }
        shared.clock.sleep(PERIOD).await;
    }
}

/// CPU time per time between two readings; `None` if no time has passed, or the counter began anew.
fn rate(before: (u64, u64), now: (u64, u64)) -> Option<(SignedDuration, u64)> {
    let (time, work) = (now.0.checked_sub(before.0)?, now.1.checked_sub(before.1)?);
    let nanocores = u128::from(work) * 1_000_000_000 / u128::from(time).max(1);
    let window = SignedDuration::from_nanos(i64::try_from(time).ok().filter(|t| *t > 0)?);
    Some((window, u64::try_from(nanocores).unwrap_or(u64::MAX)))
}

fn point(stats: &Stats) -> (u64, u64) {
    (stats.at, stats.cpu_usage)
}

/// What two readings say. A container that is new since the first has used everything since its start.
fn usage(node: &str, before: Option<&Usage>, now: &Usage) -> Option<NodeUsage> {
    let (window, nanocores) = rate(point(&before?.node), point(&now.node))?;
    let old: HashMap<_, _> =
        before?.containers.iter().map(|c| ((&c.uid, &c.container, c.started_at), &c.stats)).collect();
    let containers = now.containers.iter().filter_map(|c| {
        let first = old.get(&(&c.uid, &c.container, c.started_at)).map_or((c.started_at, 0), |stats| point(stats));
        let (window, cpu_nanocores) = rate(first, point(&c.stats))?;
        Some(ContainerUsage {
            namespace: c.namespace.clone(),
            pod: c.pod.clone(),
            container: c.container.clone(),
            window,
            used: Used { cpu_nanocores, memory_bytes: c.stats.memory_working_set },
        })
    });
    Some(NodeUsage {
        node: node.to_owned(),
        at: Timestamp::from_nanosecond(i128::from(now.node.at)).ok()?,
        window,
        used: Used { cpu_nanocores: nanocores, memory_bytes: now.node.memory_working_set },
        containers: containers.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Used as Reading;

    const SECOND: u64 = 1_000_000_000;

    fn stats(at: u64, cpu_usage: u64) -> Stats {
        Stats { at: at * SECOND, cpu_usage, memory_working_set: 4096, ..Stats::default() }
    }

    fn reading(container: &str, started_at: u64, stats: Stats) -> Reading {
        Reading {
            namespace: "n".into(),
            pod: "p".into(),
            uid: "u".into(),
            container: container.into(),
            started_at: started_at * SECOND,
            pid: 0,
            stats,
        }
    }

    #[test]
    fn metrics_cpu_usage_is_the_difference_of_two_readings() {
        let before = Usage {
            node: stats(100, 5 * SECOND),
            containers: vec![reading("old", 10, stats(100, SECOND)), reading("restarted", 10, stats(100, 9 * SECOND))],
            sandboxes: 1,
        };
        let now = Usage {
            node: stats(110, 10 * SECOND),
            containers: vec![
                reading("new", 108, stats(110, SECOND)),
                reading("old", 10, stats(110, 6 * SECOND)),
                reading("restarted", 106, stats(110, 2 * SECOND)),
            ],
            sandboxes: 1,
        };
        assert_eq!(usage("w", None, &now), None, "one reading says nothing about CPU");
        let found = usage("w", Some(&before), &now).unwrap();
        assert_eq!((found.window.as_secs(), found.used.cpu_nanocores), (10, SECOND / 2));
        let of = |name: &str| {
            let c = found.containers.iter().find(|c| c.container == name).unwrap();
            (c.window.as_secs(), c.used.cpu_nanocores)
        };
        assert_eq!(of("old"), (10, SECOND / 2));
        assert_eq!(of("new"), (2, SECOND / 2));
        assert_eq!(of("restarted"), (4, SECOND / 2));
    }
}
