//! Whether a pod may go to a node: upstream's default filters in upstream's order.

use std::sync::Arc;

use crate::affinity::AffinityState;
use crate::spread::SpreadState;
use crate::volumes::{Claims, VolumeDecision};
use crate::{NodeInfo, PodInfo, Snapshot, TaintEffect, volumes};

/// Why a node does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Upstream's reasons.
    pub reasons: Vec<String>,
    /// Whether evicting pods may help.
    pub resolvable: bool,
}

impl Failure {
    pub fn resolvable(reason: &str) -> Failure {
        Failure { reasons: vec![reason.into()], resolvable: true }
    }

    pub fn unresolvable(reason: &str) -> Failure {
        Failure { reasons: vec![reason.into()], resolvable: false }
    }
}

/// What the filters say of a node.
pub(crate) enum NodeOutcome {
    Fits(Vec<VolumeDecision>),
    Fails(Failure),
}

/// What is computed once per pod.
pub(crate) struct Cycle<'s> {
    pub pod: &'s PodInfo,
    snapshot: &'s Snapshot,
    claims: Claims,
    pub spread: SpreadState<'s>,
    pub affinity: AffinityState,
}

impl<'s> Cycle<'s> {
    /// `nodes` are the snapshot's, or a copy with pods taken away.
    pub fn prepare(snapshot: &'s Snapshot, nodes: &[Arc<NodeInfo>], pod: &'s PodInfo, claims: Claims) -> Cycle<'s> {
        let spread = SpreadState::prepare(nodes, pod);
        let affinity = AffinityState::prepare(snapshot, nodes, pod);
        Cycle { pod, snapshot, claims, spread, affinity }
    }

    /// Whether the node fits both with the pods nominated there and without: they may take their room or never come
    /// (`RunFilterPluginsWithNominatedPods`). `nodes` are those that the cycle was prepared with.
    pub fn filter_with_nominated(&self, nodes: &[Arc<NodeInfo>], node: &NodeInfo) -> NodeOutcome {
        if let Some(counted) = self.snapshot.with_nominated(node, self.pod) {
            let mut nodes = nodes.to_vec();
            let counted = Arc::new(counted);
            if let Some(at) = nodes.iter().position(|n| n.name == node.name) {
                nodes[at] = counted.clone();
            }
            let cycle = Cycle::prepare(self.snapshot, &nodes, self.pod, self.claims.clone());
            if let failed @ NodeOutcome::Fails(_) = cycle.filter(&counted) {
                return failed;
            }
        }
        self.filter(node)
    }

    /// All filters; the first that fails decides.
    fn filter(&self, node: &NodeInfo) -> NodeOutcome {
        let checks: [&dyn Fn() -> Result<(), Failure>; 6] = [
            &|| prefiltered(self.pod, node),
            &|| schedulable(self.pod, node),
            &|| tolerated(self.pod, node),
            &|| node_affinity(self.pod, node),
            &|| ports(self.pod, node),
            &|| resources(self.pod, node),
        ];
        for check in checks {
            if let Err(failure) = check() {
                return NodeOutcome::Fails(failure);
            }
        }
        let volumes = match volumes::filter(self.snapshot, self.pod, &self.claims, node) {
            Ok(volumes) => volumes,
            Err(failure) => return NodeOutcome::Fails(failure),
        };
        match self.spread.filter(node).and_then(|()| self.affinity.filter(self.pod, node)) {
            Ok(()) => NodeOutcome::Fits(volumes),
            Err(failure) => NodeOutcome::Fails(failure),
        }
    }
}

/// NodeAffinity's PreFilter: terms that name nodes rule all others out (`node_affinity.go` `PreFilter`).
fn prefiltered(pod: &PodInfo, node: &NodeInfo) -> Result<(), Failure> {
    use corten_object::selector::Operator;
    let Some(terms) = pod.required_nodes.as_ref().filter(|t| !t.is_empty()) else { return Ok(()) };
    let mut allowed = false;
    for term in terms {
        let names = term.fields.iter().filter(|r| r.key == "metadata.name").filter_map(|r| match &r.operator {
            Operator::In(values) => Some(values),
            _ => None,
        });
        let mut named = false;
        let mut fits = true;
        for values in names {
            named = true;
            fits &= values.contains(&node.name);
        }
        if !named {
            return Ok(());
        }
        allowed |= fits;
    }
    match allowed {
        true => Ok(()),
        false => Err(Failure::unresolvable("node(s) didn't satisfy plugin(s) [NodeAffinity]")),
    }
}

fn schedulable(pod: &PodInfo, node: &NodeInfo) -> Result<(), Failure> {
    let taint = crate::Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: "".into(),
        effect: TaintEffect::NoSchedule,
    };
    if node.unschedulable && !pod.tolerates(&taint) {
        return Err(Failure::unresolvable("node(s) were unschedulable"));
    }
    if !pod.node_name.is_empty() && pod.node_name != node.name {
        return Err(Failure::unresolvable("node(s) didn't match the requested node name"));
    }
    Ok(())
}

fn tolerated(pod: &PodInfo, node: &NodeInfo) -> Result<(), Failure> {
    let repels = |t: &&crate::Taint| t.effect != TaintEffect::PreferNoSchedule && !pod.tolerates(t);
    match node.taints.iter().find(repels) {
        Some(_) => Err(Failure::unresolvable("node(s) had untolerated taint(s)")),
        None => Ok(()),
    }
}

pub(crate) fn node_affinity(pod: &PodInfo, node: &NodeInfo) -> Result<(), Failure> {
    match pod.node_matches(node) {
        true => Ok(()),
        false => Err(Failure::unresolvable("node(s) didn't match Pod's node affinity/selector")),
    }
}

pub(crate) fn ports(pod: &PodInfo, node: &NodeInfo) -> Result<(), Failure> {
    let taken = |port: &crate::HostPort| node.pods.iter().any(|p| p.host_ports.iter().any(|used| used.conflicts(port)));
    match pod.host_ports.iter().any(taken) {
        true => Err(Failure::resolvable("node(s) didn't have free ports for the requested pod ports")),
        false => Ok(()),
    }
}

/// As `fitsRequest` in `noderesources/fit.go`.
fn resources(pod: &PodInfo, node: &NodeInfo) -> Result<(), Failure> {
    let mut failure = Failure { reasons: Vec::new(), resolvable: true };
    if node.pods.len() + 1 > node.pods_max {
        failure.reasons.push("Too many pods".into());
    }
    let mut check = |name: &str, wanted: i64, allocatable: i64, requested: i64| {
        if wanted > 0 && wanted > allocatable - requested {
            failure.reasons.push(format!("Insufficient {name}"));
            failure.resolvable &= wanted <= allocatable;
        }
    };
    let (want, have, used) = (&pod.requests, &node.allocatable, &node.requested);
    check("cpu", want.milli_cpu, have.milli_cpu, used.milli_cpu);
    check("memory", want.memory, have.memory, used.memory);
    check("ephemeral-storage", want.ephemeral_storage, have.ephemeral_storage, used.ephemeral_storage);
    for (name, amount) in &want.scalar {
        let of = |r: &crate::Resources| r.scalar.get(name).copied().unwrap_or(0);
        check(name, *amount, of(have), of(used));
    }
    if failure.reasons.is_empty() { Ok(()) } else { Err(failure) }
}
