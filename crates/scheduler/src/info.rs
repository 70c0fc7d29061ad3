//! What the scheduler knows of a pod and of a node, precomputed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use corten_base::{Istr, Timestamp};
use corten_object::selector::Requirement;
use corten_object::{LabelSelector, Labels};

/// CPU that a pod without a request counts as when nodes are compared, in thousandths of a core.
pub(crate) const DEFAULT_MILLI_CPU: i64 = 100;
/// Memory that a pod without a request counts as when nodes are compared, in bytes.
pub(crate) const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts of resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Everything else: huge pages in bytes, extended resources in units.
    pub scalar: BTreeMap<Istr, i64>,
}

impl Resources {
    /// Adds `other`'s amounts.
    pub fn add(&mut self, other: &Resources) {
        self.apply(other, 1);
    }

    /// Takes `other`'s amounts off.
    pub fn subtract(&mut self, other: &Resources) {
        self.apply(other, -1);
    }

    fn apply(&mut self, other: &Resources, sign: i64) {
        self.milli_cpu += sign * other.milli_cpu;
        self.memory += sign * other.memory;
        self.ephemeral_storage += sign * other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_default() += sign * amount;
        }
    }

    /// Raises each amount to `other`'s where that is more.
    pub fn raise(&mut self, other: &Resources) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            let mine = self.scalar.entry(name.clone()).or_default();
            *mine = (*mine).max(*amount);
        }
    }
}

/// What a taint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaintEffect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away if they can.
    PreferNoSchedule,
    /// New pods stay away and running ones go.
    NoExecute,
}

impl TaintEffect {
    /// From the API's word.
    pub fn parse(text: &str) -> Option<TaintEffect> {
        match text {
            "NoSchedule" => Some(TaintEffect::NoSchedule),
            "PreferNoSchedule" => Some(TaintEffect::PreferNoSchedule),
            "NoExecute" => Some(TaintEffect::NoExecute),
            _ => None,
        }
    }
}

/// A node's taint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: Istr,
    /// Its value.
    pub value: Istr,
    /// What it does.
    pub effect: TaintEffect,
}

/// A pod's toleration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toleration {
    /// The key; empty with `exists` tolerates every key.
    pub key: Istr,
    /// Whether any value is tolerated.
    pub exists: bool,
    /// The value, unless `exists`.
    pub value: Istr,
    /// Only this effect, or all.
    pub effect: Option<TaintEffect>,
}

impl Toleration {
    /// Whether it covers a taint (`k8s.io/api/core/v1/toleration.go` `ToleratesTaint`).
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|e| e == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && (self.exists || self.value == taint.value)
    }
}

/// A port of the node that a pod wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Address; `0.0.0.0` is all.
    pub ip: Istr,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Istr,
    /// Number.
    pub port: u16,
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |ip: &Istr| *ip == "0.0.0.0" || ip.is_empty() || *ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// One term of a node selector: all its expressions and fields must hold. A term without any matches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeTerm {
    /// On labels.
    pub expressions: Vec<Requirement>,
    /// On fields; only `metadata.name` exists.
    pub fields: Vec<Requirement>,
}

impl NodeTerm {
    /// Whether a node of this name and with these labels fits.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        (!self.expressions.is_empty() || !self.fields.is_empty())
            && self.expressions.iter().all(|r| r.matches(|key| labels.get(key)))
            && self.fields.iter().all(|r| r.matches(|key| (key == "metadata.name").then_some(name)))
    }
}

/// Topologies of which one must fit (a volume's node affinity, a class's allowed topologies).
pub type ZoneTerms = Vec<NodeTerm>;

/// A term of a pod's affinity or anti-affinity to other pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodTerm {
    /// Which pods.
    pub selector: LabelSelector,
    /// In which namespaces, by name.
    pub namespaces: Vec<Istr>,
    /// And in which, by the namespace's labels.
    pub namespace_selector: Option<LabelSelector>,
    /// The label whose equal values make nodes one place.
    pub topology_key: Istr,
}

/// One constraint of `topologySpreadConstraints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpreadConstraint {
    /// How uneven it may become.
    pub max_skew: i64,
    /// The label whose values are the domains.
    pub topology_key: Istr,
    /// `DoNotSchedule`, else it only counts for the score.
    pub required: bool,
    /// Which pods count, `matchLabelKeys` merged in.
    pub selector: LabelSelector,
    /// With fewer domains than this, the least is 0.
    pub domains_min: usize,
    /// Nodes that the pod's node affinity excludes do not count.
    pub honor_affinity: bool,
    /// Nodes with taints that the pod does not tolerate do not count.
    pub honor_taints: bool,
}

/// What the scheduler knows of a pod.
#[derive(Debug, Clone)]
pub struct PodInfo {
    /// Namespace.
    pub namespace: Istr,
    /// Name.
    pub name: Istr,
    /// Uid.
    pub uid: Istr,
    /// Labels.
    pub labels: Labels,
    /// `spec.nodeName`
    pub node_name: Istr,
    /// `status.nominatedNodeName`
    pub nominated_node: Istr,
    /// `spec.priority`
    pub priority: i32,
    /// Whether it may evict others (`preemptionPolicy` is not `Never`).
    pub preempts: bool,
    /// `status.startTime`, else when it was created.
    pub started: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// What it needs, with init containers, sidecars and overhead.
    pub requests: Resources,
    /// CPU and memory for comparing nodes, where a container without a request counts something.
    pub requests_for_score: (i64, i64),
    /// Ports of the node.
    pub host_ports: Vec<HostPort>,
    /// `spec.nodeSelector` as requirements.
    pub node_selector: Vec<Requirement>,
    /// Required node affinity: one of these. `None`: no such rule.
    pub required_nodes: Option<Vec<NodeTerm>>,
    /// Preferred node affinity with weights.
    pub preferred_nodes: Vec<(i64, NodeTerm)>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// Required affinity to pods.
    pub affinity: Vec<PodTerm>,
    /// Required anti-affinity to pods.
    pub anti_affinity: Vec<PodTerm>,
    /// Preferred affinity to pods; anti-affinity has negative weights.
    pub preferred_pods: Vec<(i64, PodTerm)>,
    /// Spread over topologies.
    pub spread: Vec<SpreadConstraint>,
    /// `spec.schedulingGates`
    pub gates: Vec<Istr>,
    /// Names of persistent volume claims, those of ephemeral volumes included.
    pub claims: Vec<Istr>,
    /// Images.
    pub images: Vec<Istr>,
    /// Why this scheduler cannot decide for the pod: the path of a field that it does not implement, and the reason.
    pub refusal: Option<String>,
}

impl PodInfo {
    /// Whether the required node affinity and the node selector allow a node.
    pub fn node_matches(&self, node: &NodeInfo) -> bool {
        self.node_selector.iter().all(|r| r.matches(|key| node.labels.get(key)))
            && self
                .required_nodes
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|t| t.matches(&node.name, &node.labels)))
    }

    /// Whether a taint is tolerated.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|t| t.tolerates(taint))
    }
}

/// What the scheduler knows of a node, with its pods.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    /// Name.
    pub name: Istr,
    /// Labels.
    pub labels: Labels,
    /// `spec.unschedulable`
    pub unschedulable: bool,
    /// Taints.
    pub taints: Vec<Taint>,
    /// `status.allocatable`
    pub allocatable: Resources,
    /// `status.allocatable.pods`
    pub pods_max: usize,
    /// Bytes per image name.
    pub images: HashMap<Istr, i64>,
    /// Its pods that have not ended.
    pub pods: Vec<Arc<PodInfo>>,
    /// Sum of its pods' requests.
    pub requested: Resources,
    /// Sum of its pods' CPU and memory for comparing nodes.
    pub requested_for_score: (i64, i64),
}

impl NodeInfo {
    /// Counts a pod.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.requested_for_score.0 += pod.requests_for_score.0;
        self.requested_for_score.1 += pod.requests_for_score.1;
        self.pods.push(pod);
    }

    /// No longer counts the pod with this uid.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|p| p.uid == uid)?;
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.requested_for_score.0 -= pod.requests_for_score.0;
        self.requested_for_score.1 -= pod.requests_for_score.1;
        Some(pod)
    }
}
