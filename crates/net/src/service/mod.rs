//! The service proxy: virtual addresses and node ports to endpoints, in one nftables table.

mod plan;
mod proxy;
mod table;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use plan::Pick;
use proxy::Proxy;

use crate::nft::{self, Transaction};
use crate::worker::Worker;
use crate::{Names, NetConfig, NetError};

/// Transport protocols of service ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The IP protocol number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// As manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }
}

/// Which endpoints traffic may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// All endpoints.
    #[default]
    Cluster,
    /// Only endpoints on this node; traffic is dropped where there are none.
    Local,
}

/// One place that answers a service's port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Its address: a pod's, or a node's for pods on the host's network.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// Whether it is on this node.
    pub local: bool,
}

/// One port of a service with the endpoints that answer it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name; empty for the only port. Used in messages.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// The port on the service's addresses.
    pub port: u16,
    /// The port on all addresses of the node (but loopback), if any.
    pub node_port: Option<u16>,
    /// Endpoints that may get new connections, already chosen by the caller (ready ones; serving and terminating
    /// ones only when nothing else is left).
    pub targets: Vec<Endpoint>,
}

/// A service as the proxy needs it. Addresses of families that the proxy does not serve are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Unique: `namespace/name`.
    pub id: String,
    /// Virtual addresses inside the cluster; empty for headless services (which need not be handed in at all).
    pub cluster_ips: Vec<IpAddr>,
    /// External and load balancer addresses.
    pub external_ips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Seconds that a client stays with its endpoint (`sessionAffinity: ClientIP`).
    pub session_affinity_seconds: Option<u32>,
    /// For traffic to cluster addresses.
    pub internal_policy: TrafficPolicy,
    /// For traffic to node ports and external addresses.
    pub external_policy: TrafficPolicy,
}

/// What the proxy must know about its node.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Cluster name: names the nftables table.
    pub cluster: String,
    /// All pods of the cluster, e.g. `10.244.0.0/16`: traffic from elsewhere to cluster addresses is masqueraded.
    pub cluster_cidr: (Ipv4Addr, u8),
    /// Virtual addresses, e.g. `10.96.0.0/12`: what is not programmed in it is rejected or dropped.
    pub service_cidr: (Ipv4Addr, u8),
    /// The node's address in the pod range ([`crate::PodNetwork::node_ip`]): source of masqueraded traffic to pods.
    pub node_ip: Ipv4Addr,
    /// Run in this network namespace instead of the process's own one (tests).
    pub host_netns: Option<PathBuf>,
}

/// What an [`ServiceProxy::sync`] or [`ServiceProxy::update`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyReport {
    /// Elements written to the kernel.
    pub added: usize,
    /// Elements removed from the kernel.
    pub removed: usize,
    /// Whether the whole table was replaced.
    pub replaced: bool,
    /// Stale connection entries removed (UDP and SCTP).
    pub flows_deleted: usize,
    /// Ports that were left out because another service already has the same address and port: a sentence each.
    pub conflicts: Vec<String>,
}

/// Keeps the kernel's service table equal to the services handed in. Cheap to clone; clones share one table and one
/// kernel thread.
///
/// IPv4 only so far. ClusterIPs answer for the host itself too; node ports answer on all addresses of the node but
/// loopback, as upstream's nftables mode (`pkg/proxy/nftables`).
#[derive(Clone, Debug)]
pub struct ServiceProxy {
    worker: Worker<Proxy>,
}

impl ServiceProxy {
    /// Starts the proxy's thread. The kernel is left as it is until the first [`sync`](Self::sync), so a restart does
    /// not interrupt running traffic.
    ///
    /// # Errors
    /// If the namespace cannot be entered or netlink is refused.
    pub async fn new(config: ProxyConfig) -> Result<Self, NetError> {
        let namespace = config.host_netns.clone();
        let worker = Worker::start("corten-proxy", namespace, move || Proxy::new(config)).await?;
        Ok(ServiceProxy { worker })
    }

    /// Makes `services` the whole desired state. The first call replaces the table in one transaction; later ones
    /// write what differs.
    ///
    /// # Errors
    /// If the kernel refuses the transaction; its table is as before then, and the next call replaces it.
    pub async fn sync(&self, services: Vec<Service>) -> Result<ApplyReport, NetError> {
        self.worker.call(move |proxy| proxy.sync(services)).await
    }

    /// Changes single services: costs as much as what is handed in, not as much as there is.
    ///
    /// # Errors
    /// As [`sync`](Self::sync); [`NetError::Invalid`] before the first `sync`.
    pub async fn update(&self, changed: Vec<Service>, removed: Vec<String>) -> Result<ApplyReport, NetError> {
        self.worker.call(move |proxy| proxy.update(changed, removed)).await
    }

    /// Puts the table back if somebody has removed it (`nft flush ruleset`, a restart of a firewall): whether that was
    /// so. Cheap; to be called now and then, because the kernel says so to nobody.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn repair(&self) -> Result<bool, NetError> {
        self.worker.call(Proxy::repair).await
    }

    /// Removes the table. Connections that are open stay translated. A later `sync` builds the table anew.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn teardown(&self) -> Result<(), NetError> {
        self.worker.call(Proxy::teardown).await
    }
}

/// Makes the services' table with one chain of each kind in the calling thread's (throwaway) namespace.
pub(crate) fn try_table(names: &Names, config: &NetConfig) -> Result<(), NetError> {
    let config = ProxyConfig {
        cluster: config.cluster.clone(),
        cluster_cidr: config.cluster_cidr,
        service_cidr: config.service_cidr,
        node_ip: config.pod_cidr.0,
        host_netns: None,
    };
    let mut tx = Transaction::new(&names.service_table());
    table::put_static(&mut tx, &config);
    let pick = Pick { node_port: true, masquerade: true, total: 2, local: None, affinity_seconds: Some(1) };
    table::put_pick(&mut tx, &pick, &config);
    tx.commit(&mut nft::open()?)
}
