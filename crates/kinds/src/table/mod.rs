//! The list of rows. A row's constant and its id have one name: `table::id::POD` is the id of `pod::POD`.

use crate::KindSpec;

/// Declares the table and the ids in one place.
macro_rules! kinds {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// All built-in kinds; a kind's place is its id.
        pub static KINDS: &[&KindSpec] = &[$(&$module::$name),*];

        /// Ids of the built-in kinds.
        pub mod id {
            use corten_object::KindId;

            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            enum Place { $($name),* }
            $(
                #[doc = concat!("Id of `", stringify!($name), "`.")]
                pub const $name: KindId = KindId(Place::$name as u32);
            )*
        }
    };
}

pub mod admission_registration;
pub mod api_service;
pub mod certificates;
pub mod config_map;
pub mod controller_revision;
pub mod core;
pub mod cron_job;
pub mod csi;
pub mod custom_resource_definition;
pub mod daemon_set;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod flow_control;
pub mod flow_mandatory;
pub mod horizontal_pod_autoscaler;
mod horizontal_pod_autoscaler_v1;
pub mod ingress;
pub mod job;
pub mod lease;
pub mod metrics;
pub mod namespace;
pub mod network_policy;
pub mod networking;
pub mod node;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
pub mod pod_disruption_budget;
pub mod priority_class;
pub mod rbac;
pub mod replica_set;
pub mod replication_controller;
pub mod resource;
pub mod reviews;
pub mod runtime_class;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod stateful_set;
pub mod storage;
pub mod storage_class;
pub mod storage_migration;

kinds! {
    pod::POD,
    replication_controller::REPLICATION_CONTROLLER,
    service::SERVICE,
    node::NODE,
    event::EVENT,
    event::EVENTS_EVENT,
    namespace::NAMESPACE,
    secret::SECRET,
    config_map::CONFIG_MAP,
    service_account::SERVICE_ACCOUNT,
    persistent_volume::PERSISTENT_VOLUME,
    persistent_volume_claim::PERSISTENT_VOLUME_CLAIM,
    endpoints::ENDPOINTS,
    core::BINDING,
    core::COMPONENT_STATUS,
    core::LIMIT_RANGE,
    core::POD_TEMPLATE,
    core::RESOURCE_QUOTA,
    deployment::DEPLOYMENT,
    replica_set::REPLICA_SET,
    stateful_set::STATEFUL_SET,
    daemon_set::DAEMON_SET,
    controller_revision::CONTROLLER_REVISION,
    job::JOB,
    cron_job::CRON_JOB,
    horizontal_pod_autoscaler::HORIZONTAL_POD_AUTOSCALER,
    ingress::INGRESS,
    network_policy::NETWORK_POLICY,
    networking::INGRESS_CLASS,
    networking::IP_ADDRESS,
    networking::SERVICE_CIDR,
    pod_disruption_budget::POD_DISRUPTION_BUDGET,
    rbac::CLUSTER_ROLE,
    rbac::CLUSTER_ROLE_BINDING,
    rbac::ROLE,
    rbac::ROLE_BINDING,
    storage_class::STORAGE_CLASS,
    csi::CSI_DRIVER,
    csi::CSI_NODE,
    csi::CSI_STORAGE_CAPACITY,
    storage::VOLUME_ATTACHMENT,
    storage::VOLUME_ATTRIBUTES_CLASS,
    priority_class::PRIORITY_CLASS,
    lease::LEASE,
    endpoint_slice::ENDPOINT_SLICE,
    runtime_class::RUNTIME_CLASS,
    admission_registration::MUTATING_ADMISSION_POLICY,
    admission_registration::MUTATING_ADMISSION_POLICY_BINDING,
    admission_registration::MUTATING_WEBHOOK_CONFIGURATION,
    admission_registration::VALIDATING_ADMISSION_POLICY,
    admission_registration::VALIDATING_ADMISSION_POLICY_BINDING,
    admission_registration::VALIDATING_WEBHOOK_CONFIGURATION,
    custom_resource_definition::CUSTOM_RESOURCE_DEFINITION,
    api_service::API_SERVICE,
    certificates::CERTIFICATE_SIGNING_REQUEST,
    certificates::CLUSTER_TRUST_BUNDLE,
    certificates::POD_CERTIFICATE_REQUEST,
    flow_control::FLOW_SCHEMA,
    flow_control::PRIORITY_LEVEL_CONFIGURATION,
    resource::DEVICE_CLASS,
    resource::DEVICE_TAINT_RULE,
    resource::RESOURCE_CLAIM,
    resource::RESOURCE_CLAIM_TEMPLATE,
    resource::RESOURCE_SLICE,
    storage_migration::STORAGE_VERSION_MIGRATION,
    reviews::TOKEN_REVIEW,
    reviews::SELF_SUBJECT_REVIEW,
    reviews::LOCAL_SUBJECT_ACCESS_REVIEW,
    reviews::SELF_SUBJECT_ACCESS_REVIEW,
    reviews::SELF_SUBJECT_RULES_REVIEW,
    reviews::SUBJECT_ACCESS_REVIEW,
    metrics::NODE_METRICS,
    metrics::POD_METRICS,
}
