//! Read-only typed views of the kinds that components read.
//!
//! A view is decoded from an object's stored JSON (at most once per revision, see [`corten_object::Object::view`]) and can
//! not be written: writers patch or edit the tree, so that a field which no view knows is never lost. Field names and
//! meanings are upstream's (`k8s.io/api`), in snake case; every field is defaulted, so absent means the zero value, and
//! `Option` stands only where absent and zero differ.

/// Declares view structs: public, `Deserialize` only, camelCase, every field defaulted.
macro_rules! views {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident : $ty:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty),* }
    )*};
}

/// Marks structs as views of whole objects.
macro_rules! objects {
    ($($name:ident),* $(,)?) => { $(impl corten_object::View for $name {})* };
}

pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod container;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod meta;
pub mod node;
pub mod pod;
pub mod policy;
pub mod quantity;
pub mod rbac;
pub mod requests;
pub mod scheduling;
pub mod service;
pub mod storage;
pub mod volume;

pub use apps::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, ReplicationController, StatefulSet};
pub use autoscaling::HorizontalPodAutoscaler;
pub use batch::{CronJob, Job};
pub use container::{Container, ContainerState, ContainerStatus};
pub use coordination::Lease;
pub use core::{ConfigMap, LimitRange, Namespace, ResourceQuota, Secret, ServiceAccount};
pub use discovery::{EndpointSlice, Endpoints};
pub use meta::{Condition, IntOrString, LabelSelector, ObjectMeta, ObjectReference};
pub use node::{Node, Taint};
pub use pod::{Pod, PodSpec, PodStatus, PodTemplateSpec, Toleration};
pub use policy::PodDisruptionBudget;
pub use quantity::Quantity;
pub use rbac::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
pub use scheduling::PriorityClass;
pub use service::Service;
pub use storage::{CsiDriver, PersistentVolume, PersistentVolumeClaim, StorageClass};
