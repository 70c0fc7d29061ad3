//! Volumes, claims and their classes.

use crate::container::ResourceRequirements;
use crate::meta::{Condition, LabelSelector, ObjectMeta, ObjectReference, Texts};
use crate::pod::{NodeSelector, NodeSelectorRequirement};
use crate::quantity::ResourceList;
use crate::volume::{CsiVolumeSource, HostPathVolumeSource, LocalVolumeSource, NfsVolumeSource};

objects![PersistentVolume, PersistentVolumeClaim, StorageClass, CsiDriver];
views! {
    /// `v1.PersistentVolumeClaim`
    PersistentVolumeClaim {
        metadata: ObjectMeta,
        spec: PersistentVolumeClaimSpec,
        status: PersistentVolumeClaimStatus,
    }
    /// `v1.PersistentVolumeClaimSpec`
    PersistentVolumeClaimSpec {
        access_modes: Vec<String>,
        selector: Option<LabelSelector>,
        resources: ResourceRequirements,
        volume_name: String,
        storage_class_name: Option<String>,
        volume_mode: Option<String>,
        data_source: Option<ObjectReference>,
        data_source_ref: Option<ObjectReference>,
        volume_attributes_class_name: Option<String>,
    }
    /// `v1.PersistentVolumeClaimStatus`
    PersistentVolumeClaimStatus {
        phase: String,
        access_modes: Vec<String>,
        capacity: ResourceList,
        conditions: Vec<Condition>,
    }
    /// `v1.PersistentVolume`
    PersistentVolume { metadata: ObjectMeta, spec: PersistentVolumeSpec, status: PersistentVolumeStatus }
    /// `v1.PersistentVolumeSpec`
    PersistentVolumeSpec {
        capacity: ResourceList,
        host_path: Option<HostPathVolumeSource>,
        local: Option<LocalVolumeSource>,
        nfs: Option<NfsVolumeSource>,
        csi: Option<CsiVolumeSource>,
        access_modes: Vec<String>,
        claim_ref: Option<ObjectReference>,
        persistent_volume_reclaim_policy: String,
        storage_class_name: String,
        mount_options: Vec<String>,
        volume_mode: Option<String>,
        node_affinity: Option<VolumeNodeAffinity>,
    }
    /// `v1.VolumeNodeAffinity`
    VolumeNodeAffinity { required: Option<NodeSelector> }
    /// `v1.PersistentVolumeStatus`
    PersistentVolumeStatus { phase: String, message: String, reason: String }
    /// `storage.k8s.io/v1 StorageClass`
    StorageClass {
        metadata: ObjectMeta,
        provisioner: String,
        parameters: Texts,
        reclaim_policy: Option<String>,
        mount_options: Vec<String>,
        allow_volume_expansion: bool,
        volume_binding_mode: Option<String>,
        allowed_topologies: Vec<TopologySelectorTerm>,
    }
    /// `v1.TopologySelectorTerm`
    TopologySelectorTerm { match_label_expressions: Vec<NodeSelectorRequirement> }
    /// `storage.k8s.io/v1 CSIDriver`
    CsiDriver { metadata: ObjectMeta, spec: CsiDriverSpec }
    /// `storage.k8s.io/v1 CSIDriverSpec`
    CsiDriverSpec { attach_required: Option<bool>, pod_info_on_mount: Option<bool>, fs_group_policy: Option<String> }
}
