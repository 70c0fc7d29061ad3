//! Workloads: apps/v1 and ReplicationController.

use corten_base::Timestamp;

use crate::meta::{Condition, IntOrString, LabelSelector, ObjectMeta, Texts};
use crate::pod::PodTemplateSpec;
use crate::storage::PersistentVolumeClaim;

objects![Deployment, ReplicaSet, ReplicationController, StatefulSet, DaemonSet, ControllerRevision];
views! {
    /// `apps/v1 Deployment`
    Deployment { metadata: ObjectMeta, spec: DeploymentSpec, status: DeploymentStatus }
    /// `apps/v1 DeploymentSpec`
    DeploymentSpec {
        replicas: Option<i64>,
        selector: Option<LabelSelector>,
        template: PodTemplateSpec,
        strategy: DeploymentStrategy,
        min_ready_seconds: i64,
        revision_history_limit: Option<i64>,
        paused: bool,
        progress_deadline_seconds: Option<i64>,
    }
    /// `apps/v1 DeploymentStrategy`
    DeploymentStrategy { r#type: String, rolling_update: Option<RollingUpdate> }
    /// `apps/v1 RollingUpdateDeployment`, `RollingUpdateDaemonSet`
    RollingUpdate { max_unavailable: Option<IntOrString>, max_surge: Option<IntOrString> }
    /// `apps/v1 DeploymentStatus`
    DeploymentStatus {
        observed_generation: i64,
        replicas: i64,
        updated_replicas: i64,
        ready_replicas: i64,
        available_replicas: i64,
        unavailable_replicas: i64,
        terminating_replicas: Option<i64>,
        conditions: Vec<Condition>,
        collision_count: Option<i64>,
    }
    /// `apps/v1 ReplicaSet`
    ReplicaSet { metadata: ObjectMeta, spec: ReplicaSetSpec, status: ReplicaSetStatus }
    /// `apps/v1 ReplicaSetSpec`
    ReplicaSetSpec {
        replicas: Option<i64>,
        min_ready_seconds: i64,
        selector: Option<LabelSelector>,
        template: PodTemplateSpec,
    }
    /// `apps/v1 ReplicaSetStatus`
    ReplicaSetStatus {
        replicas: i64,
        fully_labeled_replicas: i64,
        ready_replicas: i64,
        available_replicas: i64,
        terminating_replicas: Option<i64>,
        observed_generation: i64,
        conditions: Vec<Condition>,
    }
    /// `v1 ReplicationController`
    ReplicationController { metadata: ObjectMeta, spec: ReplicationControllerSpec, status: ReplicaSetStatus }
    /// `v1 ReplicationControllerSpec`
    ReplicationControllerSpec {
        replicas: Option<i64>,
        min_ready_seconds: i64,
        selector: Texts,
        template: Option<PodTemplateSpec>,
    }
    /// `apps/v1 StatefulSet`
    StatefulSet { metadata: ObjectMeta, spec: StatefulSetSpec, status: StatefulSetStatus }
    /// `apps/v1 StatefulSetSpec`
    StatefulSetSpec {
        replicas: Option<i64>,
        selector: Option<LabelSelector>,
        template: PodTemplateSpec,
        volume_claim_templates: Vec<PersistentVolumeClaim>,
        service_name: String,
        pod_management_policy: String,
        update_strategy: StatefulSetUpdateStrategy,
        revision_history_limit: Option<i64>,
        min_ready_seconds: i64,
        persistent_volume_claim_retention_policy: Option<ClaimRetentionPolicy>,
        ordinals: Option<StatefulSetOrdinals>,
    }
    /// `apps/v1 StatefulSetUpdateStrategy`
    StatefulSetUpdateStrategy { r#type: String, rolling_update: Option<RollingUpdateStatefulSet> }
    /// `apps/v1 RollingUpdateStatefulSetStrategy`
    RollingUpdateStatefulSet { partition: Option<i64>, max_unavailable: Option<IntOrString> }
    /// `apps/v1 StatefulSetPersistentVolumeClaimRetentionPolicy`
    ClaimRetentionPolicy { when_deleted: String, when_scaled: String }
    /// `apps/v1 StatefulSetOrdinals`
    StatefulSetOrdinals { start: i64 }
    /// `apps/v1 StatefulSetStatus`
    StatefulSetStatus {
        observed_generation: i64,
        replicas: i64,
        ready_replicas: i64,
        current_replicas: i64,
        updated_replicas: i64,
        available_replicas: i64,
        current_revision: String,
        update_revision: String,
        collision_count: Option<i64>,
        conditions: Vec<Condition>,
    }
    /// `apps/v1 DaemonSet`
    DaemonSet { metadata: ObjectMeta, spec: DaemonSetSpec, status: DaemonSetStatus }
    /// `apps/v1 DaemonSetSpec`
    DaemonSetSpec {
        selector: Option<LabelSelector>,
        template: PodTemplateSpec,
        update_strategy: DaemonSetUpdateStrategy,
        min_ready_seconds: i64,
        revision_history_limit: Option<i64>,
    }
    /// `apps/v1 DaemonSetUpdateStrategy`
    DaemonSetUpdateStrategy { r#type: String, rolling_update: Option<RollingUpdate> }
    /// `apps/v1 DaemonSetStatus`
    DaemonSetStatus {
        current_number_scheduled: i64,
        number_misscheduled: i64,
        desired_number_scheduled: i64,
        number_ready: i64,
        observed_generation: i64,
        updated_number_scheduled: i64,
        number_available: i64,
        number_unavailable: i64,
        collision_count: Option<i64>,
        conditions: Vec<Condition>,
    }
    /// `apps/v1 ControllerRevision`; its data is read from the tree.
    ControllerRevision { metadata: ObjectMeta, revision: i64 }
}

impl Deployment {
    /// When it was created.
    pub fn created(&self) -> Option<Timestamp> {
        self.metadata.creation_timestamp
    }
}
