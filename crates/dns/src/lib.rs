//! Cluster DNS (specification 1.1.0) from a record source, and resolv.conf contents for pods.
//!
//! [`Zone`] holds the records of services as plain data and changes one service at a time; [`DnsServer`] answers from
//! any [`RecordSource`] and forwards other names to upstream resolvers.

mod forward;
mod resolv;
mod respond;
mod server;
mod zone;

pub use resolv::{DnsPolicy, NodeDns, PodDnsConfig, PodResolvConf, ResolvConf, pod_resolv_conf};
pub use server::{DnsConfig, DnsError, DnsServer};
pub use zone::{Answer, EndpointRecord, Lookup, PortRecord, RecordSource, ServiceRecords, Zone};
