//! The node agent: registers the node, runs its pods, answers for their logs and commands, programs services and DNS.
//!
//! It talks to the cluster through the `Api` trait only. What to do for a pod is decided in `podplan`; this crate carries it
//! out: one worker task per pod, each of which observes, plans, writes the status and starts jobs. Containers run under shims
//! of their own and outlive the agent: a new agent finds them by the labels that the old one gave to the runtime.
//!
//! Nothing polls. A worker wakes for its pod's changes, for exits (pidfds), for results of its jobs and probes, and at the time
//! that its plan names.

mod admission;
mod agent;
mod certificates;
mod config;
mod events;
mod eviction;
mod exec;
mod facts;
mod forward;
mod image_gc;
mod image_store;
mod images;
mod labels;
mod local_volumes;
mod logs;
mod measured;
mod metrics;
mod node_api;
mod node_object;
mod pod;
mod pods;
mod server;
mod services;
mod shared;
mod shutdown;
mod sources;
mod static_pods;
mod summary;
mod usage;
mod users;
mod volumes;
mod watcher;
mod write;

pub use agent::{Agent, AgentError, Apis};
pub use config::{Config, NETWORK_DIR, RUNTIME_DIR};
pub use corten_podplan::eviction::Settings as EvictionSettings;
pub use corten_podplan::shutdown::{Period as ShutdownPeriod, Periods as ShutdownPeriods};
pub use image_gc::ImagePolicy;
pub use image_store::StoreImages;
pub use images::{
    DirectoryImages, ImageConfig, ImageFailure, ImageSource, PreparedImage, PullRequest, PullSecret, Pulled,
    StoredImage,
};

/// What the node says its version is.
pub const KUBELET_VERSION: &str = "v1.37.2+corten.0";
