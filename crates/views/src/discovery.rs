//! Endpoints of services.

use crate::meta::{ObjectMeta, ObjectReference, Texts};

objects![EndpointSlice, Endpoints];
views! {
    /// `discovery.k8s.io/v1 EndpointSlice`
    EndpointSlice {
        metadata: ObjectMeta,
        address_type: String,
        #[serde(deserialize_with = "crate::meta::nullable")] endpoints: Vec<Endpoint>,
        #[serde(deserialize_with = "crate::meta::nullable")] ports: Vec<EndpointPort>,
    }
    /// `discovery.k8s.io/v1 Endpoint`
    Endpoint {
        #[serde(deserialize_with = "crate::meta::nullable")] addresses: Vec<String>,
        conditions: EndpointConditions,
        hostname: Option<String>,
        target_ref: Option<ObjectReference>,
        deprecated_topology: Texts,
        node_name: Option<String>,
        zone: Option<String>,
        hints: Option<EndpointHints>,
    }
    /// `discovery.k8s.io/v1 EndpointConditions`
    EndpointConditions { ready: Option<bool>, serving: Option<bool>, terminating: Option<bool> }
    /// `discovery.k8s.io/v1 EndpointHints`
    EndpointHints { for_zones: Vec<ForName>, for_nodes: Vec<ForName> }
    /// `discovery.k8s.io/v1 ForZone`, `ForNode`
    ForName { name: String }
    /// `discovery.k8s.io/v1 EndpointPort`
    EndpointPort { name: Option<String>, protocol: Option<String>, port: Option<i32>, app_protocol: Option<String> }
    /// `v1.Endpoints`
    Endpoints { metadata: ObjectMeta, subsets: Vec<EndpointSubset> }
    /// `v1.EndpointSubset`
    EndpointSubset {
        addresses: Vec<EndpointAddress>,
        not_ready_addresses: Vec<EndpointAddress>,
        ports: Vec<EndpointPort>,
    }
    /// `v1.EndpointAddress`
    EndpointAddress { ip: String, hostname: String, node_name: Option<String>, target_ref: Option<ObjectReference> }
}
