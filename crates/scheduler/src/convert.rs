//! From views to what the scheduler knows.

use corten_base::Istr;
use corten_object::selector::{Operator, Requirement};
use corten_object::{LabelSelector, Labels};
use corten_views::pod::{NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, TopologySpreadConstraint};
use corten_views::quantity::ResourceList;
use corten_views::{
    Container, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodDisruptionBudget, PodSpec, StorageClass,
};

use crate::info::{DEFAULT_MEMORY, DEFAULT_MILLI_CPU};
use crate::{
    BudgetInfo, ClaimInfo, ClassInfo, HostPort, NodeInfo, NodeTerm, PodInfo, PodTerm, Resources, SpreadConstraint,
    Taint, TaintEffect, Toleration, VolumeInfo,
};

impl From<&Pod> for PodInfo {
    fn from(pod: &Pod) -> PodInfo {
        let (meta, spec) = (&pod.metadata, &pod.spec);
        let node_affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = node_affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred = node_affinity.map_or(&[][..], |a| &a.preferred_during_scheduling_ignored_during_execution);
        let terms = |affinity: Option<&corten_views::pod::PodAffinity>| -> Vec<PodTerm> {
            let required = affinity.map_or(&[][..], |a| &a.required_during_scheduling_ignored_during_execution);
            required.iter().map(|t| pod_term(t, pod)).collect()
        };
        let affinity = spec.affinity.as_ref().and_then(|a| a.pod_affinity.as_ref());
        let anti = spec.affinity.as_ref().and_then(|a| a.pod_anti_affinity.as_ref());
        let mut preferred_pods = Vec::new();
        for (sign, side) in [(1, affinity), (-1, anti)] {
            for t in side.map_or(&[][..], |a| &a.preferred_during_scheduling_ignored_during_execution) {
                preferred_pods.push((sign * i64::from(t.weight), pod_term(&t.pod_affinity_term, pod)));
            }
        }
        PodInfo {
            namespace: (&meta.namespace).into(),
            name: (&meta.name).into(),
            uid: (&meta.uid).into(),
            labels: labels(&meta.labels),
            node_name: (&spec.node_name).into(),
            nominated_node: (&pod.status.nominated_node_name).into(),
            priority: spec.priority.unwrap_or(0),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            started: pod.status.start_time.or(meta.creation_timestamp),
            deleting: meta.deletion_timestamp.is_some(),
            requests: requests(spec, container_requests),
            requests_for_score: {
                let sum = requests(spec, |list| {
                    let mut r = container_requests(list);
                    r.milli_cpu = if list.contains_key("cpu") { r.milli_cpu } else { DEFAULT_MILLI_CPU };
                    r.memory = if list.contains_key("memory") { r.memory } else { DEFAULT_MEMORY };
                    r
                });
                (sum.milli_cpu, sum.memory)
            },
            host_ports: host_ports(spec),
            node_selector: spec.node_selector.iter().map(|(k, v)| equals(k, v)).collect(),
            required_nodes: required.map(|r| r.node_selector_terms.iter().map(node_term).collect()),
            preferred_nodes: preferred.iter().map(|p| (p.weight.into(), node_term(&p.preference))).collect(),
            tolerations: spec.tolerations.iter().map(toleration).collect(),
            affinity: terms(affinity),
            anti_affinity: terms(anti),
            preferred_pods,
            spread: spec.topology_spread_constraints.iter().map(|c| spread(c, pod)).collect(),
            gates: spec.scheduling_gates.iter().map(|g| (&g.name).into()).collect(),
            claims: claims(pod),
            images: spec.init_containers.iter().chain(&spec.containers).map(|c| (&c.image).into()).collect(),
            refusal: refusal(spec),
        }
    }
}

fn refusal(spec: &PodSpec) -> Option<String> {
    if !spec.resource_claims.is_empty() {
        return Some("spec.resourceClaims: dynamic resource allocation is not implemented".into());
    }
    spec.scheduling_group.as_ref().map(|_| "spec.schedulingGroup: gang scheduling is not implemented".into())
}

fn claims(pod: &Pod) -> Vec<Istr> {
    let claim = |v: &corten_views::volume::Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(Istr::new(&claim.claim_name)),
        (None, Some(_)) => Some(Istr::from(format!("{}-{}", pod.metadata.name, v.name))),
        _ => None,
    };
    pod.spec.volumes.iter().filter_map(claim).collect()
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().filter(|c| c.is_sidecar());
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports).filter(|p| p.host_port > 0);
    let made = ports.map(|p| HostPort {
        ip: if p.host_ip.is_empty() { "0.0.0.0".into() } else { (&p.host_ip).into() },
        protocol: if p.protocol.is_empty() { "TCP".into() } else { (&p.protocol).into() },
        port: u16::try_from(p.host_port).unwrap_or(0),
    });
    made.collect()
}

/// What a pod needs: the larger of all that runs at the end and each init container with the sidecars before it
/// (`k8s.io/component-helpers/resource/helpers.go` `PodRequests`).
fn requests(spec: &PodSpec, of: impl Fn(&ResourceList) -> Resources) -> Resources {
    let with_limits = |c: &Container| {
        let mut list = c.resources.requests.clone();
        for (name, limit) in &c.resources.limits {
            list.entry(name.clone()).or_insert_with(|| limit.clone());
        }
        of(&list)
    };
    let mut total = Resources::default();
    spec.containers.iter().for_each(|c| total.add(&with_limits(c)));
    let (mut sidecars, mut init) = (Resources::default(), Resources::default());
    for container in &spec.init_containers {
        let mut at_once = with_limits(container);
        if container.is_sidecar() {
            total.add(&at_once);
            sidecars.add(&at_once);
            at_once = sidecars.clone();
        } else {
            at_once.add(&sidecars);
        }
        init.raise(&at_once);
    }
    total.raise(&init);
    if let Some(pod) = &spec.resources {
        // What the pod as a whole asks for stands in place of its containers' sum, by resource.
        let whole = container_requests(&pod.requests);
        let set = |name: &str| pod.requests.contains_key(name);
        total.milli_cpu = if set("cpu") { whole.milli_cpu } else { total.milli_cpu };
        total.memory = if set("memory") { whole.memory } else { total.memory };
        total.scalar.extend(whole.scalar);
    }
    total.add(&container_requests(&spec.overhead));
    total
}

fn container_requests(list: &ResourceList) -> Resources {
    let mut out = Resources::default();
    for (name, quantity) in list {
        match name.as_str() {
            "cpu" => out.milli_cpu = quantity.milli(),
            "memory" => out.memory = quantity.value(),
            "ephemeral-storage" => out.ephemeral_storage = quantity.value(),
            "pods" => {}
            other => drop(out.scalar.insert(other.into(), quantity.value())),
        }
    }
    out
}

fn toleration(t: &corten_views::Toleration) -> Toleration {
    Toleration {
        key: (&t.key).into(),
        exists: t.operator == "Exists",
        value: (&t.value).into(),
        effect: TaintEffect::parse(&t.effect),
    }
}

fn equals(key: &str, value: &str) -> Requirement {
    Requirement { key: key.into(), operator: Operator::In(vec![value.into()]) }
}

fn node_requirement(r: &NodeSelectorRequirement) -> Requirement {
    let values = || r.values.iter().map(Istr::from).collect();
    let number = || r.values.first().and_then(|v| v.parse().ok());
    let operator = match (r.operator.as_str(), number()) {
        ("In", _) => Operator::In(values()),
        ("NotIn", _) => Operator::NotIn(values()),
        ("Exists", _) => Operator::Exists,
        ("DoesNotExist", _) => Operator::DoesNotExist,
        ("Gt", Some(n)) => Operator::GreaterThan(n),
        ("Lt", Some(n)) => Operator::LessThan(n),
        // What cannot be read matches nothing.
        _ => Operator::In(Vec::new()),
    };
    Requirement { key: (&r.key).into(), operator }
}

fn node_term(term: &NodeSelectorTerm) -> NodeTerm {
    NodeTerm {
        expressions: term.match_expressions.iter().map(node_requirement).collect(),
        fields: term.match_fields.iter().map(node_requirement).collect(),
    }
}

fn with_keys(selector: LabelSelector, pod: &Pod, keys: &[String], same: bool) -> LabelSelector {
    if keys.is_empty() || selector.is_nothing() {
        return selector;
    }
    let mut requirements = selector.requirements().to_vec();
    for (key, value) in keys.iter().filter_map(|k| Some((k, pod.metadata.labels.get(k)?))) {
        let values = vec![Istr::from(value)];
        let operator = if same { Operator::In(values) } else { Operator::NotIn(values) };
        requirements.push(Requirement { key: key.into(), operator });
    }
    LabelSelector::from_requirements(requirements)
}

fn pod_term(term: &PodAffinityTerm, pod: &Pod) -> PodTerm {
    let selector = corten_views::meta::compile(term.label_selector.as_ref());
    let selector = with_keys(selector, pod, &term.match_label_keys, true);
    let own = term.namespaces.is_empty() && term.namespace_selector.is_none();
    let own = own.then(|| Istr::from(&pod.metadata.namespace));
    PodTerm {
        selector: with_keys(selector, pod, &term.mismatch_label_keys, false),
        namespaces: term.namespaces.iter().map(Istr::from).chain(own).collect(),
        namespace_selector: term.namespace_selector.as_ref().map(|s| s.compile()),
        topology_key: (&term.topology_key).into(),
    }
}

fn spread(c: &TopologySpreadConstraint, pod: &Pod) -> SpreadConstraint {
    let selector = corten_views::meta::compile(c.label_selector.as_ref());
    SpreadConstraint {
        max_skew: c.max_skew.into(),
        topology_key: (&c.topology_key).into(),
        required: c.when_unsatisfiable == "DoNotSchedule",
        selector: with_keys(selector, pod, &c.match_label_keys, true),
        domains_min: usize::try_from(c.min_domains.unwrap_or(1)).unwrap_or(1),
        honor_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_taints: c.node_taints_policy.as_deref() == Some("Honor"),
    }
}

fn labels(texts: &corten_views::meta::Texts) -> Labels {
    Labels::new(texts.iter().map(|(k, v)| (k.into(), v.into())).collect())
}

/// A node without its pods.
impl From<&Node> for NodeInfo {
    fn from(node: &Node) -> NodeInfo {
        let taint = |t: &corten_views::Taint| {
            Some(Taint { key: (&t.key).into(), value: (&t.value).into(), effect: TaintEffect::parse(&t.effect)? })
        };
        let images = node.status.images.iter().flat_map(|i| i.names.iter().map(|n| (n.into(), i.size_bytes)));
        NodeInfo {
            name: (&node.metadata.name).into(),
            labels: labels(&node.metadata.labels),
            unschedulable: node.spec.unschedulable,
            taints: node.spec.taints.iter().filter_map(taint).collect(),
            allocatable: container_requests(&node.status.allocatable),
            pods_max: node.status.allocatable.get("pods").map_or(0, |q| usize::try_from(q.value()).unwrap_or(0)),
            images: images.collect(),
            ..NodeInfo::default()
        }
    }
}

impl From<&PersistentVolumeClaim> for ClaimInfo {
    fn from(claim: &PersistentVolumeClaim) -> ClaimInfo {
        let annotations = &claim.metadata.annotations;
        let old_class = annotations.get("volume.beta.kubernetes.io/storage-class");
        let class = claim.spec.storage_class_name.as_ref().or(old_class);
        ClaimInfo {
            volume: (&claim.spec.volume_name).into(),
            bound: claim.status.phase == "Bound" || annotations.contains_key("pv.kubernetes.io/bind-completed"),
            lost: claim.status.phase == "Lost",
            deleting: claim.metadata.deletion_timestamp.is_some(),
            class: class.map(Istr::from).unwrap_or_default(),
            bytes: claim.spec.resources.requests.get("storage").map_or(0, |q| q.value()),
            access_modes: claim.spec.access_modes.iter().map(Istr::from).collect(),
            block: claim.spec.volume_mode.as_deref() == Some("Block"),
            selector: claim.spec.selector.as_ref().map(|s| s.compile()),
        }
    }
}

impl From<&PersistentVolume> for VolumeInfo {
    fn from(volume: &PersistentVolume) -> VolumeInfo {
        let spec = &volume.spec;
        let nodes = spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
        VolumeInfo {
            nodes: nodes.map(|r| r.node_selector_terms.iter().map(node_term).collect()),
            labels: labels(&volume.metadata.labels),
            class: (&spec.storage_class_name).into(),
            bytes: spec.capacity.get("storage").map_or(0, |q| q.value()),
            access_modes: spec.access_modes.iter().map(Istr::from).collect(),
            block: spec.volume_mode.as_deref() == Some("Block"),
            claim: spec.claim_ref.as_ref().map(|r| ((&r.namespace).into(), (&r.name).into())),
            available: volume.status.phase == "Available" && volume.metadata.deletion_timestamp.is_none(),
        }
    }
}

impl From<&StorageClass> for ClassInfo {
    fn from(class: &StorageClass) -> ClassInfo {
        let term = |t: &corten_views::storage::TopologySelectorTerm| NodeTerm {
            expressions: t
                .match_label_expressions
                .iter()
                .map(|e| Requirement {
                    key: (&e.key).into(),
                    operator: Operator::In(e.values.iter().map(Istr::from).collect()),
                })
                .collect(),
            fields: Vec::new(),
        };
        ClassInfo {
            waits: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            provisioner: (&class.provisioner).into(),
            topologies: class.allowed_topologies.iter().map(term).collect(),
        }
    }
}

impl From<&PodDisruptionBudget> for BudgetInfo {
    fn from(budget: &PodDisruptionBudget) -> BudgetInfo {
        BudgetInfo {
            namespace: (&budget.metadata.namespace).into(),
            selector: corten_views::meta::compile(budget.spec.selector.as_ref()),
            allowed: budget.status.disruptions_allowed,
            disrupted: budget.status.disrupted_pods.keys().map(Istr::from).collect(),
        }
    }
}
