//! One pod, one decision.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_base::Istr;

use crate::filter::{Cycle, Failure, NodeOutcome};
use crate::volumes::VolumeDecision;
use crate::{NodeInfo, PodInfo, Snapshot, preempt, score, volumes};

/// Reason of the `PodScheduled` condition when no node fits.
pub const REASON_UNSCHEDULABLE: &str = "Unschedulable";
/// Reason of the `PodScheduled` condition while gates are there.
pub const REASON_GATED: &str = "SchedulingGated";

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It goes to this node. The volume decisions come first: write them and wait until the claims are bound.
    Bind {
        /// The node's name.
        node: Istr,
        /// What becomes of claims that are not bound yet.
        volumes: Vec<VolumeDecision>,
    },
    /// No node fits now. The event `FailedScheduling` and the condition `PodScheduled` (reason [`REASON_UNSCHEDULABLE`]) have
    /// this message.
    Unschedulable {
        /// Upstream's sentence.
        message: String,
        /// Pods to evict so that it will fit; `status.nominatedNodeName` becomes the node.
        preemption: Option<Preemption>,
    },
    /// It has scheduling gates: condition `PodScheduled` with reason [`REASON_GATED`] and this message; no event.
    Gated {
        /// Upstream's sentence.
        message: String,
    },
}

/// Who must go so that a pod fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// On this node.
    pub node: Istr,
    /// Namespace, name and uid of each victim, the most important first.
    pub victims: Vec<(Istr, Istr, Istr)>,
}

/// Decides where a pod goes. `entropy` breaks ties between equally good nodes.
pub fn schedule(snapshot: &Snapshot, pod: &PodInfo, entropy: u64) -> Decision {
    if !pod.gates.is_empty() {
        return Decision::Gated { message: String::from("Scheduling is blocked due to non-empty scheduling gates") };
    }
    if let Some(refusal) = &pod.refusal {
        return Decision::Unschedulable { message: refusal.clone(), preemption: None };
    }
    let nodes = snapshot.nodes();
    if nodes.is_empty() {
        return Decision::Unschedulable { message: "no nodes available to schedule pods".into(), preemption: None };
    }
    let cycle = match volumes::prefilter(snapshot, pod) {
        Ok(claims) => Cycle::prepare(snapshot, nodes, pod, claims),
        Err(message) => {
            let why = Diagnosis { nodes: nodes.len(), prefilter: message, ..Diagnosis::default() };
            return unschedulable(snapshot, pod, why);
        }
    };
    let mut why = Diagnosis { nodes: nodes.len(), ..Diagnosis::default() };
    let mut fitting: Vec<(&Arc<NodeInfo>, Vec<VolumeDecision>)> = Vec::new();
    for node in nodes {
        match cycle.filter_with_nominated(nodes, node) {
            NodeOutcome::Fits(volumes) => fitting.push((node, volumes)),
            NodeOutcome::Fails(failure) => why.failures.push((node.name.clone(), failure)),
        }
    }
    let chosen = match fitting.len() {
        0 => return unschedulable(snapshot, pod, why),
        1 => 0,
        _ => {
            // A nominated node that fits is taken without asking the others (schedule_one.go `findNodesThatFitPod`).
            let nominated = fitting.iter().position(|(n, _)| n.name == pod.nominated_node);
            nominated.unwrap_or_else(|| {
                let candidates: Vec<&NodeInfo> = fitting.iter().map(|(n, _)| &***n).collect();
                score::best(snapshot, &cycle, &candidates, entropy)
            })
        }
    };
    let (node, volumes) = fitting.swap_remove(chosen);
    Decision::Bind { node: node.name.clone(), volumes }
}

fn unschedulable(snapshot: &Snapshot, pod: &PodInfo, mut why: Diagnosis) -> Decision {
    let (preemption, message) = preempt::preempt(snapshot, pod, &why.failures);
    why.postfilter = format!("preemption: {message}");
    Decision::Unschedulable { message: why.to_string(), preemption }
}

/// Why a pod does not fit.
#[derive(Debug, Default)]
pub(crate) struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// What spoke against all nodes at once.
    pub prefilter: String,
    /// What spoke against each node.
    pub failures: Vec<(Istr, Failure)>,
    /// Reason for nodes that `failures` does not name.
    pub absent: &'static str,
    /// What came of preemption.
    pub postfilter: String,
}

/// As `FitError.Error` in `pkg/scheduler/framework/types.go`.
impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if !self.prefilter.is_empty() {
            write!(f, " {}.", self.prefilter)?;
        } else {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for reason in self.failures.iter().flat_map(|(_, failure)| &failure.reasons) {
                *counts.entry(reason).or_default() += 1;
            }
            if !self.absent.is_empty() && self.nodes > self.failures.len() {
                *counts.entry(self.absent).or_default() += self.nodes - self.failures.len();
            }
            let mut texts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            texts.sort();
            if !texts.is_empty() {
                write!(f, " {}.", texts.join(", "))?;
            }
        }
        if !self.postfilter.is_empty() {
            write!(f, " {}", self.postfilter)?;
        }
        Ok(())
    }
}
