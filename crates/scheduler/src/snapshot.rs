//! The cluster as the scheduler sees it.

use std::collections::HashMap;
use std::sync::Arc;

use corten_base::Istr;
use corten_object::{LabelSelector, Labels};

use crate::{NodeInfo, PodInfo, ZoneTerms};

/// A persistent volume claim.
#[derive(Debug, Clone, Default)]
pub struct ClaimInfo {
    /// `spec.volumeName`
    pub volume: Istr,
    /// Whether binding is finished (`status.phase` is `Bound`, or the `bind-completed` annotation is there).
    pub bound: bool,
    /// Whether the volume is lost (`status.phase` is `Lost`).
    pub lost: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `spec.storageClassName`
    pub class: Istr,
    /// Bytes requested.
    pub bytes: i64,
    /// `spec.accessModes`
    pub access_modes: Vec<Istr>,
    /// `spec.volumeMode` is `Block`.
    pub block: bool,
    /// `spec.selector`
    pub selector: Option<LabelSelector>,
}

/// A persistent volume.
#[derive(Debug, Clone, Default)]
pub struct VolumeInfo {
    /// `spec.nodeAffinity.required`; `None`: every node.
    pub nodes: Option<ZoneTerms>,
    /// Labels.
    pub labels: Labels,
    /// `spec.storageClassName`
    pub class: Istr,
    /// `spec.capacity.storage`
    pub bytes: i64,
    /// `spec.accessModes`
    pub access_modes: Vec<Istr>,
    /// `spec.volumeMode` is `Block`.
    pub block: bool,
    /// Namespace and name of the claim in `spec.claimRef`.
    pub claim: Option<(Istr, Istr)>,
    /// Whether it may be bound (`status.phase` is `Available`).
    pub available: bool,
}

/// A storage class.
#[derive(Debug, Clone, Default)]
pub struct ClassInfo {
    /// `volumeBindingMode` is `WaitForFirstConsumer`.
    pub waits: bool,
    /// `provisioner`
    pub provisioner: Istr,
    /// `allowedTopologies` as node terms; empty: everywhere.
    pub topologies: ZoneTerms,
}

/// A pod disruption budget.
#[derive(Debug, Clone)]
pub struct BudgetInfo {
    /// Namespace.
    pub namespace: Istr,
    /// Which pods.
    pub selector: LabelSelector,
    /// `status.disruptionsAllowed`
    pub allowed: i64,
    /// `status.disruptedPods`
    pub disrupted: Vec<Istr>,
}

/// The cluster as the scheduler sees it. Names are `(namespace, name)` for namespaced things.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    nodes: Vec<Arc<NodeInfo>>,
    places: HashMap<Istr, usize>,
    /// Claims.
    pub claims: HashMap<(Istr, Istr), ClaimInfo>,
    /// Volumes.
    pub volumes: HashMap<Istr, VolumeInfo>,
    /// Classes.
    pub classes: HashMap<Istr, ClassInfo>,
    /// Labels of namespaces.
    pub namespaces: HashMap<Istr, Labels>,
    /// Disruption budgets.
    pub budgets: Vec<BudgetInfo>,
    /// Pods for which room is being made, each with its node (`status.nominatedNodeName`).
    nominated: Vec<(Istr, Arc<PodInfo>)>,
}

impl Snapshot {
    /// The nodes.
    pub fn nodes(&self) -> &[Arc<NodeInfo>] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.places.get(name).map(|at| &*self.nodes[*at])
    }

    /// Keeps the room of a node for a pod that waits there for its victims to go. A pod has one nomination at most.
    pub fn nominate(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.denominate(&pod.uid);
        self.nominated.push((node.into(), pod));
    }

    /// Ends the nomination of the pod with this uid, if it has one.
    pub fn denominate(&mut self, uid: &str) {
        self.nominated.retain(|(_, pod)| pod.uid != *uid);
    }

    /// The node with the pods counted that are nominated there and may not be overtaken by `pod`; `None` if there are none
    /// (`schedule_one.go` `addNominatedPods`).
    pub(crate) fn with_nominated(&self, node: &NodeInfo, pod: &PodInfo) -> Option<NodeInfo> {
        let kept = |(at, other): &&(Istr, Arc<PodInfo>)| {
            *at == node.name && other.priority >= pod.priority && other.uid != pod.uid
        };
        let mut counted: Option<NodeInfo> = None;
        for (_, other) in self.nominated.iter().filter(kept) {
            counted.get_or_insert_with(|| node.clone()).add_pod(other.clone());
        }
        counted
    }

    /// Puts a node; one of the same name is replaced and its pods stay.
    pub fn set_node(&mut self, mut node: NodeInfo) {
        match self.places.get(&node.name) {
            Some(&at) => {
                for pod in &self.nodes[at].pods {
                    node.add_pod(pod.clone());
                }
                self.nodes[at] = Arc::new(node);
            }
            None => {
                self.places.insert(node.name.clone(), self.nodes.len());
                self.nodes.push(Arc::new(node));
            }
        }
    }

    /// Takes a node away, with its pods.
    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.places.remove(name) else { return };
        self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.places.insert(moved.name.clone(), at);
        }
    }

    /// Counts a pod on the node that it names (bound, or about to be); a pod of the same uid is replaced. False if there is
    /// no such node.
    pub fn add_pod(&mut self, node: &str, pod: Arc<PodInfo>) -> bool {
        let Some(&at) = self.places.get(node) else { return false };
        let node = Arc::make_mut(&mut self.nodes[at]);
        node.remove_pod(&pod.uid);
        node.add_pod(pod);
        true
    }

    /// No longer counts the pod with this uid on a node (it ended, or its binding failed).
    pub fn remove_pod(&mut self, node: &str, uid: &str) {
        if let Some(&at) = self.places.get(node) {
            Arc::make_mut(&mut self.nodes[at]).remove_pod(uid);
        }
    }
}
