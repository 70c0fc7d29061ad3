//! Which pods the node has taken, and whether it takes another: a pod that was put here by name passed no scheduler.

use std::sync::{Mutex, PoisonError};

use corten_scheduler::{NodeInfo, PodInfo, Rejection, admit};
use corten_views::{Node, Pod};

/// The pods that the node has taken and that have not ended.
#[derive(Default)]
pub struct Ledger(Mutex<NodeInfo>);

impl Ledger {
    /// Takes a pod if it fits beside the others on the node as it is now.
    pub fn admit(&self, node: &Node, pod: &Pod) -> Result<(), Rejection> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *taken);
        *taken = NodeInfo::from(node);
        before.pods.into_iter().for_each(|p| taken.add_pod(p));
        let pod = PodInfo::from(pod);
        taken.remove_pod(&pod.uid);
        admit(&taken, &pod)?;
        taken.add_pod(pod.into());
        Ok(())
    }

    /// Takes a pod that runs here already.
    pub fn adopt(&self, pod: &Pod) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pod = PodInfo::from(pod);
        taken.remove_pod(&pod.uid);
        taken.add_pod(pod.into());
    }

    /// The pod with this uid uses nothing any more.
    pub fn release(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove_pod(uid);
    }
}
