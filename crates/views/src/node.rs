//! Nodes.

use corten_base::Timestamp;

use crate::meta::{Condition, ObjectMeta};
use crate::quantity::ResourceList;

objects![Node];
views! {
    /// `v1.Node`
    Node { metadata: ObjectMeta, spec: NodeSpec, status: NodeStatus }
    /// `v1.NodeSpec`
    NodeSpec {
        #[serde(rename = "podCIDR")] pod_cidr: String,
        #[serde(rename = "podCIDRs")] pod_cidrs: Vec<String>,
        #[serde(rename = "providerID")] provider_id: String,
        unschedulable: bool,
        taints: Vec<Taint>,
    }
    /// `v1.Taint`
    Taint { key: String, value: String, effect: String, time_added: Option<Timestamp> }
    /// `v1.NodeStatus`
    NodeStatus {
        capacity: ResourceList,
        allocatable: ResourceList,
        conditions: Vec<Condition>,
        addresses: Vec<NodeAddress>,
        node_info: NodeSystemInfo,
        images: Vec<ContainerImage>,
        volumes_in_use: Vec<String>,
    }
    /// `v1.NodeAddress`
    NodeAddress { r#type: String, address: String }
    /// `v1.NodeSystemInfo`
    NodeSystemInfo {
        kernel_version: String,
        os_image: String,
        container_runtime_version: String,
        kubelet_version: String,
        operating_system: String,
        architecture: String,
    }
    /// `v1.ContainerImage`
    ContainerImage { names: Vec<String>, size_bytes: i64 }
}

impl Node {
    /// The address of a type (`InternalIP`, `Hostname`); empty if there is none.
    pub fn address(&self, kind: &str) -> &str {
        self.status.addresses.iter().find(|a| a.r#type == kind).map_or("", |a| &a.address)
    }

    /// Whether the `Ready` condition is true.
    pub fn is_ready(&self) -> bool {
        crate::meta::is_true(&self.status.conditions, "Ready")
    }
}
