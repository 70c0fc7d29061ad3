//! Watches over the node's memory, disks and processes, tells of pressure, and evicts pods (`pkg/kubelet/eviction`).
//!
//! The kernel has no event for "less than so much is left" that holds for disks and inodes, so this is the kubelet's interval.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corten_base::Timestamp;
use corten_podplan::eviction::{self, Eviction, PodUse, Pressure, Signal};
use corten_views::Pod;
use jiff::SignedDuration;

use crate::node_object;
use crate::pod::Message;
use crate::pods::PodTable;
use crate::shared::Shared;
use crate::usage;

/// Between two looks (`evictionMonitoringPeriod`).
const INTERVAL: Duration = Duration::from_secs(10);
/// How long the next eviction waits for an evicted pod to be gone (`podCleanupTimeout`).
const CLEANUP_MAX: SignedDuration = SignedDuration::from_secs(30);

/// The conditions that the node has.
#[derive(Default)]
pub struct Conditions(Mutex<BTreeSet<&'static str>>);

impl Conditions {
    /// A copy.
    pub fn get(&self) -> BTreeSet<&'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, new: BTreeSet<&'static str>) -> BTreeSet<&'static str> {
        std::mem::replace(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), new)
    }
}

/// A condition of the node: its kind, then reason and message while it holds and while it does not, and the reasons of the events that
/// tell of either (`pkg/kubelet/nodestatus/setters.go`).
pub type Condition = (&'static str, [&'static str; 2], [&'static str; 2], [&'static str; 2]);

/// Those that say what the node is short of.
pub const CONDITIONS: [Condition; 3] = [
    (
        "MemoryPressure",
        ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
        ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
        ["NodeHasInsufficientMemory", "NodeHasSufficientMemory"],
    ),
    (
        "DiskPressure",
        ["KubeletHasDiskPressure", "kubelet has disk pressure"],
        ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
        ["NodeHasDiskPressure", "NodeHasNoDiskPressure"],
    ),
    (
        "PIDPressure",
        ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
        ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
        ["NodeHasInsufficientPID", "NodeHasSufficientPID"],
    ),
];

/// Looks for ever.
pub async fn run(shared: Arc<Shared>, pods: PodTable) -> Result<(), String> {
    let mut pressure = Pressure::default();
    let mut leaving: Option<(String, Timestamp)> = None;
    loop {
        shared.clock.sleep(INTERVAL).await;
        let now = shared.clock.now();
        if let Some((uid, until)) = &leaving {
            if now < *until && shared.mailboxes.has(uid) && pods.runs(uid) {
                continue;
            }
            leaving = None;
        }
        let readings = shared.blocking(usage::readings).await?;
        let settings = &shared.config.eviction;
        let due = pressure.note(settings, &readings, now);
        tell(&shared, pressure.conditions()).await;
        let active = usage::active(&pods.all());
        if evict_over_limits(&shared, &active).await? {
            continue;
        }
        let Some(first) = due.first() else { continue };
        let message = format!("Attempting to reclaim {}", first.signal.resource());
        shared.events.node(true, "EvictionThresholdMet", message);
        let with_disk = !matches!(first.signal, Signal::Memory | Signal::Pid);
        if with_disk {
            // Images that nothing uses go before pods do (`reclaimNodeLevelResources`).
            if let Err(error) = shared.image_collector.collect(&shared, true).await {
                tracing::warn!(error, "images cannot be removed to reclaim space");
            }
            let readings = shared.blocking(usage::readings).await?;
            if pressure.note(settings, &readings, shared.clock.now()).is_empty() {
                continue;
            }
        }
        let used = measure(&shared, &active, with_disk).await?;
        let candidates: Vec<(&Pod, Option<&PodUse>)> = active.iter().map(|p| &**p).zip(used.iter().map(Some)).collect();
        match eviction::choose(settings, &due, &readings, &candidates) {
            Some(chosen) => {
                leaving = Some((chosen.uid.clone(), now + CLEANUP_MAX));
                shared.mailboxes.send(&chosen.uid.clone(), Message::Evict(chosen)).await;
            }
            None => tracing::error!("eviction thresholds are met, but no pod can be evicted"),
        }
    }
}

/// Says at once which conditions the node has now.
async fn tell(shared: &Arc<Shared>, conditions: BTreeSet<&'static str>) {
    let before = shared.conditions.replace(conditions.clone());
    if before == conditions {
        return;
    }
    if let Err(error) = node_object::write_status(shared).await {
        // The next regular write tells it.
        tracing::warn!(error, "the node's conditions cannot be written");
    }
}

async fn measure(shared: &Arc<Shared>, pods: &[Arc<Pod>], with_disk: bool) -> Result<Vec<PodUse>, String> {
    let usage = usage::observe(shared).await.map_err(|s| s.to_string())?;
    let pods = pods.to_vec();
    shared.blocking(move |s| pods.iter().map(|pod| usage::of_pod(s, &usage, pod, with_disk)).collect()).await
}

/// Evicts the pods that use more local storage than they may. True if there was one.
async fn evict_over_limits(shared: &Arc<Shared>, active: &[Arc<Pod>]) -> Result<bool, String> {
    let limited: Vec<Arc<Pod>> = active.iter().filter(|pod| eviction::limits_storage(pod)).cloned().collect();
    if limited.is_empty() {
        return Ok(false);
    }
    let used = measure(shared, &limited, true).await?;
    let over = limited.iter().zip(&used).filter_map(|(pod, used)| eviction::over_limit(pod, used));
    let over: Vec<Eviction> = over.filter(|e| shared.mailboxes.has(&e.uid)).collect();
    for eviction in &over {
        shared.mailboxes.send(&eviction.uid, Message::Evict(eviction.clone())).await;
    }
    Ok(!over.is_empty())
}
