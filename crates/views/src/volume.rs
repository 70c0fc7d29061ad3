//! Volumes of a pod.

use crate::container::{ObjectFieldSelector, ResourceFieldSelector};
use crate::meta::{LabelSelector, LocalReference, ObjectMeta, Texts};
use crate::quantity::Quantity;
use crate::storage::PersistentVolumeClaimSpec;

views! {
    /// `v1.Volume` with its source.
    Volume {
        name: String,
        host_path: Option<HostPathVolumeSource>,
        empty_dir: Option<EmptyDirVolumeSource>,
        secret: Option<SecretVolumeSource>,
        config_map: Option<ConfigMapVolumeSource>,
        #[serde(rename = "downwardAPI")] downward_api: Option<DownwardApiVolumeSource>,
        projected: Option<ProjectedVolumeSource>,
        persistent_volume_claim: Option<ClaimVolumeSource>,
        ephemeral: Option<EphemeralVolumeSource>,
        nfs: Option<NfsVolumeSource>,
        csi: Option<CsiVolumeSource>,
        image: Option<ImageVolumeSource>,
        iscsi: Option<UnsupportedSource>,
        fc: Option<UnsupportedSource>,
    }
    /// A source whose fields nothing reads.
    UnsupportedSource {}
    /// `v1.HostPathVolumeSource`
    HostPathVolumeSource { path: String, r#type: Option<String> }
    /// `v1.EmptyDirVolumeSource`
    EmptyDirVolumeSource { medium: String, size_limit: Option<Quantity> }
    /// `v1.SecretVolumeSource`
    SecretVolumeSource { secret_name: String, items: Vec<KeyToPath>, default_mode: Option<i32>, optional: bool }
    /// `v1.ConfigMapVolumeSource`
    ConfigMapVolumeSource { name: String, items: Vec<KeyToPath>, default_mode: Option<i32>, optional: bool }
    /// `v1.KeyToPath`
    KeyToPath { key: String, path: String, mode: Option<i32> }
    /// `v1.DownwardAPIVolumeSource`
    DownwardApiVolumeSource { items: Vec<DownwardApiVolumeFile>, default_mode: Option<i32> }
    /// `v1.DownwardAPIVolumeFile`
    DownwardApiVolumeFile {
        path: String,
        field_ref: Option<ObjectFieldSelector>,
        resource_field_ref: Option<ResourceFieldSelector>,
        mode: Option<i32>,
    }
    /// `v1.ProjectedVolumeSource`
    ProjectedVolumeSource { #[serde(deserialize_with = "crate::meta::nullable")] sources: Vec<VolumeProjection>, default_mode: Option<i32> }
    /// `v1.VolumeProjection`
    VolumeProjection {
        secret: Option<NamedProjection>,
        config_map: Option<NamedProjection>,
        #[serde(rename = "downwardAPI")] downward_api: Option<DownwardApiVolumeSource>,
        service_account_token: Option<ServiceAccountTokenProjection>,
        cluster_trust_bundle: Option<ClusterTrustBundleProjection>,
        pod_certificate: Option<PodCertificateProjection>,
    }
    /// `v1.SecretProjection`, `v1.ConfigMapProjection`
    NamedProjection { name: String, items: Vec<KeyToPath>, optional: bool }
    /// `v1.ServiceAccountTokenProjection`
    ServiceAccountTokenProjection { audience: String, expiration_seconds: Option<i64>, path: String }
    /// `v1.ClusterTrustBundleProjection`
    ClusterTrustBundleProjection {
        name: Option<String>,
        signer_name: Option<String>,
        label_selector: Option<LabelSelector>,
        optional: bool,
        path: String,
    }
    /// `v1.PodCertificateProjection`
    PodCertificateProjection {
        signer_name: String,
        key_type: String,
        max_expiration_seconds: Option<i32>,
        credential_bundle_path: String,
        key_path: String,
        certificate_chain_path: String,
        user_annotations: Texts,
    }
    /// `v1.PersistentVolumeClaimVolumeSource`
    ClaimVolumeSource { claim_name: String, read_only: bool }
    /// `v1.EphemeralVolumeSource`
    EphemeralVolumeSource { volume_claim_template: Option<ClaimTemplate> }
    /// `v1.PersistentVolumeClaimTemplate`
    ClaimTemplate { metadata: ObjectMeta, spec: PersistentVolumeClaimSpec }
    /// `v1.NFSVolumeSource`
    NfsVolumeSource { server: String, path: String, read_only: bool }
    /// `v1.CSIVolumeSource` and `v1.CSIPersistentVolumeSource`
    CsiVolumeSource {
        driver: String,
        volume_handle: String,
        read_only: Option<bool>,
        fs_type: Option<String>,
        volume_attributes: Texts,
        node_publish_secret_ref: Option<LocalReference>,
    }
    /// `v1.ImageVolumeSource`
    ImageVolumeSource { reference: String, pull_policy: String }
    /// `v1.LocalVolumeSource`
    LocalVolumeSource { path: String, fs_type: Option<String> }
}
