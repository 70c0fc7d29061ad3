//! Roles and their bindings.

use crate::meta::{LabelSelector, ObjectMeta};

objects![Role, ClusterRole, RoleBinding, ClusterRoleBinding];
views! {
    /// `rbac.authorization.k8s.io/v1 Role`
    Role { metadata: ObjectMeta, #[serde(deserialize_with = "crate::meta::nullable")] rules: Vec<PolicyRule> }
    /// `rbac.authorization.k8s.io/v1 ClusterRole`
    ClusterRole {
        metadata: ObjectMeta,
        #[serde(deserialize_with = "crate::meta::nullable")] rules: Vec<PolicyRule>,
        aggregation_rule: Option<AggregationRule>,
    }
    /// `rbac.authorization.k8s.io/v1 AggregationRule`
    AggregationRule { cluster_role_selectors: Vec<LabelSelector> }
    /// `rbac.authorization.k8s.io/v1 PolicyRule`
    PolicyRule {
        #[serde(deserialize_with = "crate::meta::nullable")] verbs: Vec<String>,
        api_groups: Vec<String>,
        resources: Vec<String>,
        resource_names: Vec<String>,
        #[serde(rename = "nonResourceURLs")] non_resource_urls: Vec<String>,
    }
    /// `rbac.authorization.k8s.io/v1 RoleBinding`
    RoleBinding {
        metadata: ObjectMeta,
        #[serde(deserialize_with = "crate::meta::nullable")] subjects: Vec<Subject>,
        role_ref: RoleRef,
    }
    /// `rbac.authorization.k8s.io/v1 ClusterRoleBinding`
    ClusterRoleBinding {
        metadata: ObjectMeta,
        #[serde(deserialize_with = "crate::meta::nullable")] subjects: Vec<Subject>,
        role_ref: RoleRef,
    }
    /// `rbac.authorization.k8s.io/v1 Subject`
    Subject { kind: String, api_group: String, name: String, namespace: String }
    /// `rbac.authorization.k8s.io/v1 RoleRef`
    RoleRef { api_group: String, kind: String, name: String }
}
