//! Services.

use crate::meta::{Condition, IntOrString, ObjectMeta, Texts};

objects![Service];
views! {
    /// `v1.Service`
    Service { metadata: ObjectMeta, spec: ServiceSpec, status: ServiceStatus }
    /// `v1.ServiceSpec`
    ServiceSpec {
        ports: Vec<ServicePort>,
        selector: Texts,
        #[serde(rename = "clusterIP")] cluster_ip: String,
        #[serde(rename = "clusterIPs")] cluster_ips: Vec<String>,
        r#type: String,
        #[serde(rename = "externalIPs")] external_ips: Vec<String>,
        session_affinity: String,
        #[serde(rename = "loadBalancerIP")] load_balancer_ip: String,
        load_balancer_source_ranges: Vec<String>,
        external_name: String,
        external_traffic_policy: String,
        health_check_node_port: i32,
        publish_not_ready_addresses: bool,
        session_affinity_config: Option<SessionAffinityConfig>,
        ip_families: Vec<String>,
        ip_family_policy: Option<String>,
        allocate_load_balancer_node_ports: Option<bool>,
        load_balancer_class: Option<String>,
        internal_traffic_policy: Option<String>,
        traffic_distribution: Option<String>,
    }
    /// `v1.ServicePort`
    ServicePort {
        name: String,
        protocol: String,
        app_protocol: Option<String>,
        port: i32,
        target_port: IntOrString,
        node_port: i32,
    }
    /// `v1.SessionAffinityConfig`
    SessionAffinityConfig { #[serde(rename = "clientIP")] client_ip: Option<ClientIpConfig> }
    /// `v1.ClientIPConfig`
    ClientIpConfig { timeout_seconds: Option<i32> }
    /// `v1.ServiceStatus`
    ServiceStatus { load_balancer: LoadBalancerStatus, conditions: Vec<Condition> }
    /// `v1.LoadBalancerStatus`
    LoadBalancerStatus { ingress: Vec<LoadBalancerIngress> }
    /// `v1.LoadBalancerIngress`
    LoadBalancerIngress { ip: String, hostname: String, ip_mode: Option<String> }
}

impl Service {
    /// Whether it has no cluster IP by wish.
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == "None"
    }
}
