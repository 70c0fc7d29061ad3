//! Small kinds of the core group.

use crate::container::SecretReferences;
use crate::meta::{Condition, ObjectMeta, ObjectReference, Texts};
use crate::quantity::ResourceList;

objects![Namespace, ConfigMap, Secret, ServiceAccount, LimitRange, ResourceQuota];
views! {
    /// `v1.Namespace`
    Namespace { metadata: ObjectMeta, spec: NamespaceSpec, status: NamespaceStatus }
    /// `v1.NamespaceSpec`
    NamespaceSpec { finalizers: Vec<String> }
    /// `v1.NamespaceStatus`
    NamespaceStatus { phase: String, conditions: Vec<Condition> }
    /// `v1.ConfigMap`; `binary_data` is base64.
    ConfigMap { metadata: ObjectMeta, data: Texts, binary_data: Texts, immutable: bool }
    /// `v1.Secret`; `data` is base64.
    Secret { metadata: ObjectMeta, data: Texts, r#type: String, immutable: bool }
    /// `v1.ServiceAccount`
    ServiceAccount {
        metadata: ObjectMeta,
        secrets: Vec<ObjectReference>,
        image_pull_secrets: SecretReferences,
        automount_service_account_token: Option<bool>,
    }
    /// `v1.LimitRange`
    LimitRange { metadata: ObjectMeta, spec: LimitRangeSpec }
    /// `v1.LimitRangeSpec`
    LimitRangeSpec { #[serde(deserialize_with = "crate::meta::nullable")] limits: Vec<LimitRangeItem> }
    /// `v1.LimitRangeItem`
    LimitRangeItem {
        r#type: String,
        max: ResourceList,
        min: ResourceList,
        default: ResourceList,
        default_request: ResourceList,
        max_limit_request_ratio: ResourceList,
    }
    /// `v1.ResourceQuota`
    ResourceQuota { metadata: ObjectMeta, spec: ResourceQuotaSpec, status: ResourceQuotaStatus }
    /// `v1.ResourceQuotaSpec`
    ResourceQuotaSpec { hard: ResourceList, scopes: Vec<String>, scope_selector: Option<ScopeSelector> }
    /// `v1.ScopeSelector`
    ScopeSelector { match_expressions: Vec<ScopedResourceSelectorRequirement> }
    /// `v1.ScopedResourceSelectorRequirement`
    ScopedResourceSelectorRequirement { scope_name: String, operator: String, values: Vec<String> }
    /// `v1.ResourceQuotaStatus`
    ResourceQuotaStatus { hard: ResourceList, used: ResourceList }
}
