//! Admission: who may change a request, and who may refuse it.
//!
//! [`Admission::mutate`] and [`Admission::validate`] ask the built-in plugins, the policies and the webhooks in upstream's
//! order ([`chain`]). A built-in plugin is a function in the one ordered list; it sees a request through [`Request`] and the
//! cluster through [`Cluster`], and keeps nothing. What has to be kept (addresses and ports of Services) is in
//! [`ServiceAllocator`], which the pipeline calls itself.

pub mod asking;
mod certificates;
pub mod chain;
mod cidr;
mod declared_features;
mod hooks;
mod limits;
mod measured;
mod namespace;
mod node;
mod node_restriction;
mod plugins;
mod pod;
mod pod_resize;
mod pod_security;
pub mod policy;
pub mod quota;
mod request;
mod runtime_class;
mod service_account;
mod services;
mod storage;

pub use chain::Admission;
pub use cidr::{Cidr, CidrError};
pub use hooks::review::user_info;
pub use request::{Cluster, Notes, Operation, Request};
pub use services::{DEFAULT_RANGE, Moved, Reservation, ServiceAllocator, parent_service};
