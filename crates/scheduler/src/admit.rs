//! What a node checks before it takes a pod that was given to it, by whatever scheduler or by name
//! (`pkg/scheduler/eventhandlers.go` `AdmissionCheck`, `pkg/kubelet/lifecycle/predicate.go`).

use crate::filter;
use crate::{NodeInfo, PodInfo, Resources, TaintEffect};

/// Why a node does not take a pod: the pod fails with this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// `status.reason`, as `NodePorts` or `OutOfcpu`.
    pub reason: String,
    /// What follows `Pod was rejected: ` in `status.message`.
    pub message: String,
}

impl Rejection {
    fn predicate(name: &str, failure: &filter::Failure) -> Rejection {
        let what = failure.reasons.first().map_or("", String::as_str);
        Rejection { reason: name.into(), message: format!("Predicate {name} failed: {what}") }
    }
}

/// A resource of which the node has not enough left for a pod, in the resource's own unit (milli-CPUs, bytes, pieces).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// The resource: `cpu`, `memory`, `pods`, …
    pub resource: String,
    /// What the pod asks for.
    pub requested: i64,
    /// What the node has promised to others.
    pub used: i64,
    /// What it has in all.
    pub capacity: i64,
}

impl Lack {
    /// What others must give up.
    pub fn missing(&self) -> i64 {
        self.requested - (self.capacity - self.used)
    }

    /// What a pod gives back when it goes.
    pub fn held_by(&self, pod: &PodInfo) -> i64 {
        let requests = &pod.requests;
        match self.resource.as_str() {
            "pods" => 1,
            "cpu" => requests.milli_cpu,
            "memory" => requests.memory,
            "ephemeral-storage" => requests.ephemeral_storage,
            other => requests.scalar.get(other).copied().unwrap_or(0),
        }
    }
}

impl From<&Lack> for Rejection {
    fn from(lack: &Lack) -> Rejection {
        let Lack { resource, requested, used, capacity } = lack;
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Rejection { reason: format!("OutOf{resource}"), message }
    }
}

/// Whether a node takes a pod beside those that it has; the first reason against it.
///
/// # Errors
/// Why not.
pub fn admit(node: &NodeInfo, pod: &PodInfo) -> Result<(), Rejection> {
    match lacks(node, pod).first() {
        Some(lack) => Err(lack.into()),
        None => admit_with_room(node, pod),
    }
}

/// The same if there were room enough.
///
/// # Errors
/// Why not.
pub fn admit_with_room(node: &NodeInfo, pod: &PodInfo) -> Result<(), Rejection> {
    filter::node_affinity(pod, node).map_err(|f| Rejection::predicate("NodeAffinity", &f))?;
    if !pod.node_name.is_empty() && pod.node_name != node.name {
        let failure = filter::Failure::unresolvable("node(s) didn't match the requested node name");
        return Err(Rejection::predicate("NodeName", &failure));
    }
    filter::ports(pod, node).map_err(|f| Rejection::predicate("NodePorts", &f))?;
    if node.taints.iter().any(|t| t.effect == TaintEffect::NoExecute && !pod.tolerates(t)) {
        let failure = filter::Failure::unresolvable("node(s) had taints that the pod didn't tolerate");
        return Err(Rejection::predicate("TaintToleration", &failure));
    }
    Ok(())
}

/// What the node has not enough of for a pod.
pub fn lacks(node: &NodeInfo, pod: &PodInfo) -> Vec<Lack> {
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let (want, have, used) = (&pod.requests, &node.allocatable, &node.requested);
    let fixed = [
        ("pods", 1, number(node.pods.len()), number(node.pods_max)),
        ("cpu", want.milli_cpu, used.milli_cpu, have.milli_cpu),
        ("memory", want.memory, used.memory, have.memory),
        ("ephemeral-storage", want.ephemeral_storage, used.ephemeral_storage, have.ephemeral_storage),
    ];
    // A resource that the node has never heard of is the cluster's, not the node's (`removeMissingExtendedResources`).
    let of = |r: &Resources, name: &str| r.scalar.get(name).copied();
    let other = want.scalar.iter().filter_map(|(name, amount)| {
        of(have, name).map(|capacity| (name.as_str(), *amount, of(used, name).unwrap_or(0), capacity))
    });
    let all = fixed.into_iter().chain(other);
    all.filter(|(_, wanted, used, capacity)| *wanted > 0 && *wanted > capacity - used)
        .map(|(name, requested, used, capacity)| Lack { resource: name.to_owned(), requested, used, capacity })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{HostPort, Taint};

    fn node() -> NodeInfo {
        let allocatable = Resources { milli_cpu: 1000, memory: 1 << 30, ..Resources::default() };
        NodeInfo { name: "n".into(), allocatable, pods_max: 2, ..NodeInfo::default() }
    }

    fn pod(uid: &str, milli_cpu: i64, port: u16) -> PodInfo {
        let mut pod = PodInfo::from(&corten_views::Pod::default());
        pod.uid = uid.into();
        pod.node_name = "n".into();
        pod.requests.milli_cpu = milli_cpu;
        pod.host_ports = vec![HostPort { ip: "".into(), protocol: "TCP".into(), port }];
        pod
    }

    fn reason(node: &NodeInfo, pod: &PodInfo) -> String {
        admit(node, pod).err().map(|r| format!("{}: {}", r.reason, r.message)).unwrap_or_default()
    }

    #[test]
    fn a_node_rejects_what_does_not_fit_beside_its_pods() {
        let mut node = node();
        assert_eq!(reason(&node, &pod("a", 600, 80)), "");
        node.add_pod(Arc::new(pod("a", 600, 80)));
        assert_eq!(
            reason(&node, &pod("b", 600, 81)),
            "OutOfcpu: Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000"
        );
        assert_eq!(
            reason(&node, &pod("b", 100, 80)),
            "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
        );
        node.add_pod(Arc::new(pod("b", 100, 81)));
        assert_eq!(
            reason(&node, &pod("c", 0, 82)),
            "OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2"
        );
        node.remove_pod("a");
        assert_eq!(reason(&node, &pod("c", 600, 80)), "");
    }

    #[test]
    fn a_node_rejects_pods_that_it_repels() {
        let mut node = node();
        node.taints = vec![Taint { key: "gone".into(), value: "".into(), effect: TaintEffect::NoSchedule }];
        assert_eq!(reason(&node, &pod("a", 0, 80)), "", "who names the node is not kept off by NoSchedule");
        node.taints[0].effect = TaintEffect::NoExecute;
        assert!(reason(&node, &pod("a", 0, 80)).starts_with("TaintToleration: "));
        let mut elsewhere = pod("a", 0, 80);
        elsewhere.node_selector = vec![corten_object::selector::Requirement {
            key: "disk".into(),
            operator: corten_object::selector::Operator::Exists,
        }];
        assert!(reason(&node, &elsewhere).starts_with("NodeAffinity: Predicate NodeAffinity failed: "));
    }
}
