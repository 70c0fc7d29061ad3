//! The kernel's side of pod networking: links, routes and addresses of pods, the service proxy, and checks of the host.
//!
//! This crate knows nothing of Kubernetes objects: plain data comes in, kernel state comes out.
//!
//! - [`PodNetwork`] wires pods: one veth link per pod, a /32 route on the host, no bridge between pods.
//! - [`ServiceProxy`] programs services into one nftables table and changes only elements afterwards.
//! - [`preflight`] looks for what on this host would break pods quietly.
//! - [`teardown_all`] removes everything a cluster has made in the kernel, also after a crash.
//!
//! # Names
//!
//! Everything that lives in the kernel carries the cluster's name or a tag derived from it ([`Names`]), so two clusters
//! can live on one machine:
//!
//! | what | name | example |
//! |---|---|---|
//! | services' nftables table | `corten-NAME` | `corten-default` |
//! | pods' nftables table (host ports, masquerade) | `corten-NAME_pods` | `corten-default_pods` |
//! | node link (holds the gateway address) | `cnTAG-node` | `cnab12cd-node` |
//! | a pod's link on the host | `cnTAG-HHHH` (low 16 bits of the address) | `cnab12cd-0002` |
//!
//! `TAG` is six characters made from a hash of the cluster's name; link names have at most 15 characters.
//!
//! # Threads
//!
//! All kernel work is done by one thread per [`PodNetwork`] and one per [`ServiceProxy`], which may live in another
//! network namespace ([`NetConfig::host_netns`]); async callers wait for its answers.

mod conntrack;
mod error;
mod host;
mod names;
mod netlink;
pub mod netns;
mod nft;
mod pods;
mod preflight;
mod route;
mod service;
mod teardown;
mod worker;

pub use error::NetError;
pub use names::Names;
pub use pods::{Allocation, AttachRequest, HostPort, NetConfig, PodAddress, PodNetwork};
pub use preflight::{Finding, Severity, preflight, upstream_resolv_conf};
pub use service::{ApplyReport, Endpoint, Protocol, ProxyConfig, Service, ServicePort, ServiceProxy, TrafficPolicy};
pub use teardown::teardown_all;
