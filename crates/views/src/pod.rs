//! Pods: specification, status, and what several components ask of a pod.

use std::time::Duration;

use corten_base::Timestamp;

use crate::container::{
    Container, ContainerStatus, LocalProfile, ResourceRequirements, SeLinuxOptions, SecretReferences,
};
use crate::meta::{Condition, LabelSelector, ObjectMeta, Texts, condition};
use crate::quantity::ResourceList;
use crate::volume::Volume;

objects![Pod];
views! {
    /// `v1.Pod`
    Pod { metadata: ObjectMeta, spec: PodSpec, status: PodStatus }
    /// `v1.PodTemplateSpec`
    PodTemplateSpec { metadata: ObjectMeta, spec: PodSpec }
    /// `v1.PodSpec`
    PodSpec {
        volumes: Vec<Volume>,
        init_containers: Vec<Container>,
        #[serde(deserialize_with = "crate::meta::nullable")] containers: Vec<Container>,
        ephemeral_containers: Vec<Container>,
        restart_policy: String,
        termination_grace_period_seconds: Option<i64>,
        active_deadline_seconds: Option<i64>,
        dns_policy: String,
        node_selector: Texts,
        service_account_name: String,
        automount_service_account_token: Option<bool>,
        node_name: String,
        host_network: bool,
        #[serde(rename = "hostPID")] host_pid: bool,
        #[serde(rename = "hostIPC")] host_ipc: bool,
        share_process_namespace: Option<bool>,
        security_context: Option<PodSecurityContext>,
        image_pull_secrets: SecretReferences,
        hostname: String,
        subdomain: String,
        affinity: Option<Affinity>,
        scheduler_name: String,
        tolerations: Vec<Toleration>,
        host_aliases: Vec<HostAlias>,
        priority_class_name: String,
        priority: Option<i32>,
        dns_config: Option<PodDnsConfig>,
        readiness_gates: Vec<PodReadinessGate>,
        runtime_class_name: Option<String>,
        enable_service_links: Option<bool>,
        preemption_policy: Option<String>,
        overhead: ResourceList,
        topology_spread_constraints: Vec<TopologySpreadConstraint>,
        #[serde(rename = "setHostnameAsFQDN")] set_hostname_as_fqdn: Option<bool>,
        os: Option<PodOs>,
        host_users: Option<bool>,
        scheduling_gates: Vec<Named>,
        resource_claims: Vec<Named>,
        resources: Option<ResourceRequirements>,
        hostname_override: Option<String>,
        scheduling_group: Option<SchedulingGroup>,
    }
    /// Something of which only the name is read.
    Named { name: String }
    /// `v1.PodSchedulingGroup`
    SchedulingGroup { pod_group_name: String }
    /// `v1.PodOS`
    PodOs { name: String }
    /// `v1.PodReadinessGate`
    PodReadinessGate { condition_type: String }
    /// `v1.HostAlias`
    HostAlias { ip: String, hostnames: Vec<String> }
    /// `v1.PodDNSConfig`
    PodDnsConfig { nameservers: Vec<String>, searches: Vec<String>, options: Vec<PodDnsConfigOption> }
    /// `v1.PodDNSConfigOption`
    PodDnsConfigOption { name: String, value: Option<String> }
    /// `v1.PodSecurityContext`
    PodSecurityContext {
        se_linux_options: Option<SeLinuxOptions>,
        run_as_user: Option<i64>,
        run_as_group: Option<i64>,
        run_as_non_root: Option<bool>,
        supplemental_groups: Vec<i64>,
        supplemental_groups_policy: Option<String>,
        fs_group: Option<i64>,
        sysctls: Vec<Sysctl>,
        fs_group_change_policy: Option<String>,
        seccomp_profile: Option<LocalProfile>,
        app_armor_profile: Option<LocalProfile>,
    }
    /// `v1.Sysctl`
    Sysctl { name: String, value: String }
    /// `v1.Toleration`
    Toleration { key: String, operator: String, value: String, effect: String, toleration_seconds: Option<i64> }
    /// `v1.Affinity`
    Affinity { node_affinity: Option<NodeAffinity>, pod_affinity: Option<PodAffinity>, pod_anti_affinity: Option<PodAffinity> }
    /// `v1.NodeAffinity`
    NodeAffinity {
        required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
        preferred_during_scheduling_ignored_during_execution: Vec<PreferredSchedulingTerm>,
    }
    /// `v1.NodeSelector`
    NodeSelector { node_selector_terms: Vec<NodeSelectorTerm> }
    /// `v1.NodeSelectorTerm`
    NodeSelectorTerm { match_expressions: Vec<NodeSelectorRequirement>, match_fields: Vec<NodeSelectorRequirement> }
    /// `v1.NodeSelectorRequirement`
    NodeSelectorRequirement { key: String, operator: String, values: Vec<String> }
    /// `v1.PreferredSchedulingTerm`
    PreferredSchedulingTerm { weight: i32, preference: NodeSelectorTerm }
    /// `v1.PodAffinity`, `v1.PodAntiAffinity`
    PodAffinity {
        required_during_scheduling_ignored_during_execution: Vec<PodAffinityTerm>,
        preferred_during_scheduling_ignored_during_execution: Vec<WeightedPodAffinityTerm>,
    }
    /// `v1.PodAffinityTerm`
    PodAffinityTerm {
        label_selector: Option<LabelSelector>,
        namespaces: Vec<String>,
        topology_key: String,
        namespace_selector: Option<LabelSelector>,
        match_label_keys: Vec<String>,
        mismatch_label_keys: Vec<String>,
    }
    /// `v1.WeightedPodAffinityTerm`
    WeightedPodAffinityTerm { weight: i32, pod_affinity_term: PodAffinityTerm }
    /// `v1.TopologySpreadConstraint`
    TopologySpreadConstraint {
        max_skew: i32,
        topology_key: String,
        when_unsatisfiable: String,
        label_selector: Option<LabelSelector>,
        min_domains: Option<i32>,
        node_affinity_policy: Option<String>,
        node_taints_policy: Option<String>,
        match_label_keys: Vec<String>,
    }
    /// `v1.PodStatus`
    PodStatus {
        observed_generation: i64,
        phase: String,
        conditions: Vec<Condition>,
        message: String,
        reason: String,
        nominated_node_name: String,
        #[serde(rename = "hostIP")] host_ip: String,
        #[serde(rename = "hostIPs")] host_ips: Vec<Ip>,
        #[serde(rename = "podIP")] pod_ip: String,
        #[serde(rename = "podIPs")] pod_ips: Vec<Ip>,
        start_time: Option<Timestamp>,
        init_container_statuses: Vec<ContainerStatus>,
        container_statuses: Vec<ContainerStatus>,
        ephemeral_container_statuses: Vec<ContainerStatus>,
        qos_class: String,
        resize: String,
        allocated_resources: ResourceList,
        resources: Option<ResourceRequirements>,
    }
    /// `v1.PodIP`, `v1.HostIP`
    Ip { ip: String }
}

impl Pod {
    /// Whether the `Ready` condition is true (`podutil.IsPodReady`).
    pub fn is_ready(&self) -> bool {
        self.ready_condition().is_some_and(Condition::is_true)
    }

    /// The `Ready` condition.
    pub fn ready_condition(&self) -> Option<&Condition> {
        condition(&self.status.conditions, "Ready")
    }

    /// Whether the pod has been ready for `min_ready_seconds` (`podutil.IsPodAvailable`).
    pub fn is_available(&self, min_ready_seconds: i64, now: Timestamp) -> bool {
        self.available_in(min_ready_seconds, now) == Some(Duration::ZERO)
    }

    /// How long until the pod is available if it stays ready; `None` if it is not ready now.
    pub fn available_in(&self, min_ready_seconds: i64, now: Timestamp) -> Option<Duration> {
        let ready = self.ready_condition().filter(|c| c.is_true())?;
        if min_ready_seconds <= 0 {
            return Some(Duration::ZERO);
        }
        let since = ready.last_transition_time?;
        let left = jiff::SignedDuration::from_secs(min_ready_seconds) - now.duration_since(since);
        Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
    }

    /// Whether the phase is Succeeded or Failed.
    pub fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether deletion has begun.
    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Neither terminal nor terminating (`controller.IsPodActive`).
    pub fn is_active(&self) -> bool {
        !self.is_terminal() && !self.is_terminating()
    }

    /// Whether a node is assigned.
    pub fn is_scheduled(&self) -> bool {
        !self.spec.node_name.is_empty()
    }

    /// The status of a container of any sort.
    pub fn container_status(&self, name: &str) -> Option<&ContainerStatus> {
        let s = &self.status;
        [&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses]
            .into_iter()
            .flatten()
            .find(|c| c.name == name)
    }

    /// The condition of a type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        condition(&self.status.conditions, kind)
    }
}

impl Toleration {
    /// Whether it tolerates a taint (`v1.Toleration.ToleratesTaint`).
    pub fn tolerates(&self, taint: &crate::Taint) -> bool {
        if !self.effect.is_empty() && self.effect != taint.effect {
            return false;
        }
        if !self.key.is_empty() && self.key != taint.key {
            return false;
        }
        let numbers = || Some((taint.value.parse::<i64>().ok()?, self.value.parse::<i64>().ok()?));
        match self.operator.as_str() {
            "" | "Equal" => self.value == taint.value,
            "Exists" => true,
            "Lt" => numbers().is_some_and(|(taint, own)| taint < own),
            "Gt" => numbers().is_some_and(|(taint, own)| taint > own),
            _ => false,
        }
    }
}

/// Whether one of the tolerations tolerates the taint.
pub fn tolerates(tolerations: &[Toleration], taint: &crate::Taint) -> bool {
    tolerations.iter().any(|t| t.tolerates(taint))
}

impl NodeSelectorRequirement {
    /// Whether a value (absent: `None`) satisfies it.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let numbers = || {
            let own = self.values.first()?.parse::<i64>().ok()?;
            Some((value?.parse::<i64>().ok()?, own))
        };
        match self.operator.as_str() {
            "In" => value.is_some_and(|v| self.values.iter().any(|x| x == v)),
            "NotIn" => value.is_none_or(|v| self.values.iter().all(|x| x != v)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => numbers().is_some_and(|(actual, own)| actual > own),
            "Lt" => numbers().is_some_and(|(actual, own)| actual < own),
            _ => false,
        }
    }
}

impl NodeSelectorTerm {
    /// Whether a node with this name and these labels satisfies all of it; an empty term matches no node.
    pub fn matches<'l>(&self, name: &str, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        if self.match_expressions.is_empty() && self.match_fields.is_empty() {
            return false;
        }
        self.match_expressions.iter().all(|r| r.matches(label(&r.key)))
            && self.match_fields.iter().all(|r| r.key == "metadata.name" && r.matches(Some(name)))
    }
}

impl NodeSelector {
    /// Whether one of the terms matches the node.
    pub fn matches<'l>(&self, name: &str, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.node_selector_terms.iter().any(|t| t.matches(name, &label))
    }
}

impl PodSpec {
    /// Whether nodeSelector and the required node affinity allow the node
    /// (`component-helpers/scheduling/corev1/nodeaffinity.GetRequiredNodeAffinity`).
    pub fn allows_node<'l>(&self, name: &str, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        let required = self
            .affinity
            .as_ref()
            .and_then(|a| a.node_affinity.as_ref())
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        self.node_selector.iter().all(|(key, value)| label(key) == Some(value.as_str()))
            && required.is_none_or(|selector| selector.matches(name, &label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"p","creationTimestamp":null},"spec":{"containers":null},"status":{"phase":"Running","conditions":
            [{"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}"#,
        )
        .unwrap();
        let at = |s: &str| s.parse::<Timestamp>().unwrap();
        assert!(pod.is_ready() && pod.is_active() && pod.is_available(0, at("2026-01-01T00:00:00Z")));
        assert_eq!(pod.available_in(10, at("2026-01-01T00:00:04Z")), Some(Duration::from_secs(6)));
        assert!(pod.is_available(10, at("2026-01-01T00:00:10Z")));
    }

    #[test]
    fn node_selection() {
        let spec: PodSpec = serde_json::from_str(
            r#"{"nodeSelector":{"disk":"ssd"},"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n1"]}]}]}}}}"#,
        )
        .unwrap();
        let ssd = |key: &str| (key == "disk").then_some("ssd");
        assert!(spec.allows_node("n1", ssd));
        assert!(!spec.allows_node("n2", ssd));
        assert!(!spec.allows_node("n1", |_| None));
    }
}
