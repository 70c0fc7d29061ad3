//! One file per controller, each a pure `reconcile`; [`World`], [`Plan`] and [`Action`] beside them.
//!
//! A controller reads one consistent state of all kinds and says what to write; the driver (crate `manager`) does it. What a
//! controller may assume: a key is reconciled by one worker at a time, and not again before the state shows every write of
//! the key's last plan. So there are no expectations, no caches and no memory here: everything is derived again each time,
//! and a settled cluster gives empty plans.
//!
//! Texts that `kubectl` and people read (conditions, reasons, events, annotations) are upstream's, `pkg/controller/*`.

pub mod beyond;
mod go_text;
pub mod hash;
pub mod history;
mod names;
pub mod owners;
pub mod plan;
pub mod pods;
mod service_pods;
pub mod status;
pub mod watch;
pub mod world;

pub mod certificate_signing;
pub mod cron_job;
pub mod custom_resource_definition;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoint_slice;
pub mod endpoint_slice_mirroring;
pub mod endpoints;
pub mod ephemeral_volume;
pub mod garbage_collector;
pub mod horizontal_pod_autoscaler;
pub mod job;
pub mod namespace;
pub mod node_lifecycle;
pub mod pod_gc;
pub mod replica_set;
pub mod resource_quota;
pub mod role_aggregation;
pub mod roll_on_config;
pub mod root_ca;
pub mod service_account;
mod service_account_token;
mod service_cidr;
pub mod stateful_set;
pub mod storage_migration;
pub mod taint_eviction;
pub mod validating_policy_status;
pub mod volume_binder;
pub mod volume_expand;
pub mod volume_protection;

pub use plan::{ASKS_MAX, Action, Answer, EventKind, EventNote, Failed, Kept, Outcome, Plan, Verb, Write};
pub use watch::{Changed, Wake, Watch};
pub use world::{Typed, World};

/// What a controller reconciles: mostly an object, for some a part of the world that an object's name stands for.
pub type Key = corten_object::ObjectKey;

/// Settings of the controllers.
#[derive(Debug, Clone)]
pub struct Config {
    /// PEM of the cluster's CA, published as `kube-root-ca.crt` in each namespace; empty publishes nothing.
    pub root_ca: String,
    /// Directory on the nodes below which local volumes are made.
    pub local_path: String,
    /// How many ended pods may stay before the oldest are collected.
    pub terminated_pods_max: usize,
    /// How long a node's lease may be silent before the node counts as unknown.
    pub node_grace_seconds: u64,
    /// Decides about certificates and signs them; without it nobody does.
    pub authority: certificate_signing::SharedAuthority,
    /// When this process started: a node's silence before that does not count.
    pub started: Option<corten_base::Timestamp>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            root_ca: String::new(),
            local_path: String::from("/var/lib/corten/local-volumes"),
            terminated_pods_max: 12_500,
            node_grace_seconds: 40,
            authority: certificate_signing::SharedAuthority::default(),
            started: None,
        }
    }
}

/// Keeps one part of the world as its objects say.
pub trait Controller: Send + Sync {
    /// Its name: `deployment`; its user is `system:serviceaccount:kube-system:deployment-controller`.
    fn name(&self) -> &'static str;

    /// Which changes wake which keys.
    fn watches(&self) -> &[Watch];

    /// What to write so that the world comes closer to what the key's object says. Pure.
    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan;

    /// What events name as their source; mostly `NAME-controller`.
    fn component(&self) -> &'static str;

    /// The user's name, for those whose service account is not `NAME-controller`.
    fn user(&self) -> String {
        format!("system:serviceaccount:kube-system:{}-controller", self.name())
    }
}

/// All controllers.
pub fn all(config: &Config) -> Vec<Box<dyn Controller>> {
    let mut all: Vec<Box<dyn Controller>> = vec![
        Box::new(deployment::DeploymentController),
        Box::new(replica_set::ReplicaSetController::REPLICA_SET),
        Box::new(replica_set::ReplicaSetController::REPLICATION),
        Box::new(stateful_set::StatefulSetController),
        Box::new(daemon_set::DaemonSetController),
        Box::new(job::JobController),
        Box::new(job::TtlController),
        Box::new(cron_job::CronJobController),
        Box::new(horizontal_pod_autoscaler::Autoscaler),
        Box::new(garbage_collector::GarbageCollector),
        Box::new(resource_quota::ResourceQuotaController),
        Box::new(namespace::NamespaceController),
        Box::new(service_account::ServiceAccountController),
        Box::new(service_account_token::TokenSecrets),
        Box::new(root_ca::RootCaPublisher { ca: config.root_ca.clone() }),
        Box::new(endpoint_slice::EndpointSliceController),
        Box::new(endpoint_slice_mirroring::EndpointSliceMirroring),
        Box::new(endpoints::EndpointsController),
        Box::new(node_lifecycle::NodeLifecycle {
            grace: std::time::Duration::from_secs(config.node_grace_seconds),
            started: config.started,
        }),
        Box::new(taint_eviction::TaintEviction),
        Box::new(pod_gc::PodGc { terminated_max: config.terminated_pods_max }),
        Box::new(volume_binder::VolumeBinder { local_path: config.local_path.clone() }),
        Box::new(volume_expand::VolumeExpand),
        Box::new(ephemeral_volume::EphemeralVolumes),
        Box::new(volume_protection::ClaimProtection),
        Box::new(volume_protection::VolumeProtection),
        Box::new(volume_protection::AttributesClassProtection),
        Box::new(service_cidr::ServiceCidrs),
        Box::new(disruption::DisruptionController),
        Box::new(custom_resource_definition::CustomResourceDefinitionController),
        Box::new(validating_policy_status::ValidatingPolicyStatus),
        Box::new(role_aggregation::RoleAggregation),
        Box::new(storage_migration::StorageMigration),
        Box::new(roll_on_config::RollOnConfig),
        Box::new(certificate_signing::Cleaner),
        Box::new(certificate_signing::PodRequestCleaner),
    ];
    if let Some(authority) = &config.authority.0 {
        all.push(Box::new(certificate_signing::Approver(authority.clone())));
        all.push(Box::new(certificate_signing::Signer(authority.clone())));
    }
    all
}
