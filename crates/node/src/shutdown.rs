//! The machine goes down: pods end in the order of their priorities, and the node says so (`pkg/kubelet/nodeshutdown`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use corten_podplan::shutdown::{Group, REFUSED_MESSAGE, REFUSED_REASON, grace_seconds};
use corten_scheduler::Rejection;
use corten_views::Pod;

use crate::pod::Message;
use crate::pods::PodTable;
use crate::shared::Shared;
use crate::{node_object, usage};

/// Whether the machine goes down.
#[derive(Debug, Default)]
pub struct Shutdown(AtomicBool);

impl Shutdown {
    /// Whether it does.
    pub fn is_going(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Why no pod is taken, if none is.
    pub fn refuses(&self) -> Option<Rejection> {
        self.is_going().then(|| Rejection { reason: REFUSED_REASON.into(), message: REFUSED_MESSAGE.into() })
    }
}

/// Ends the pods. Returns when they have ended or their time is over.
pub async fn run(shared: &Arc<Shared>, pods: &PodTable) {
    if shared.shutdown.0.swap(true, Ordering::SeqCst) {
        return;
    }
    tell(shared, "Shutdown manager detected shutdown event").await;
    let active = usage::active(&pods.all());
    let all: Vec<&Pod> = active.iter().map(|pod| &**pod).collect();
    for group in shared.config.shutdown.groups(&all) {
        end(shared, pods, &group).await;
    }
    tracing::info!("the pods have ended for the shutdown of the machine");
}

/// The shutdown was called off: the node takes pods again.
pub async fn cancel(shared: &Arc<Shared>) {
    if shared.shutdown.0.swap(false, Ordering::SeqCst) {
        tell(shared, "Shutdown manager detected shutdown cancellation").await;
    }
}

async fn tell(shared: &Arc<Shared>, message: &str) {
    tracing::info!("{message}");
    shared.events.node(false, "Shutdown", message);
    if let Err(error) = node_object::write_status(shared).await {
        tracing::warn!(error, "the node's status cannot be written");
    }
}

async fn end(shared: &Arc<Shared>, pods: &PodTable, group: &Group<'_>) {
    let mut changes = pods.changes();
    for pod in &group.pods {
        let order = Message::ShutDown { grace_seconds: grace_seconds(pod, group.period) };
        shared.mailboxes.send(&pod.metadata.uid, order).await;
    }
    let ended = async {
        // Ended is what the API has been told.
        while group.pods.iter().any(|pod| pods.runs(&pod.metadata.uid)) && changes.changed().await.is_ok() {}
    };
    let limit = Duration::from_secs(group.period.seconds.unsigned_abs());
    futures::pin_mut!(ended);
    if let futures::future::Either::Right(_) = futures::future::select(ended, shared.clock.sleep(limit)).await {
        let late = group.pods.iter().filter(|pod| pods.runs(&pod.metadata.uid)).count();
        let priority = group.period.priority;
        tracing::warn!(priority, "{late} pods have not ended in {limit:?}");
    }
}
