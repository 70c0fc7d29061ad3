//! Pod links, addresses and routes on one node.
//!
//! A pod has one veth pair: `eth0` with a /32 address inside, a /32 route on the host. Its gateway is the node's address
//! in the pod range, which both ends know without ARP (permanent neighbours). Nothing is bridged, so services work
//! between two pods of one node without `br_netfilter`.

mod ipam;
mod table;
mod wiring;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ipam::Range;
use wiring::Wiring;

use crate::netlink::Socket;
use crate::worker::Worker;
use crate::{Names, NetError, Protocol, nft, route};

/// Links that are deleted at the same time.
const REAPERS: usize = 3;

/// How pods of this node are wired.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Cluster name: all names in the kernel derive from it ([`crate::Names`]).
    pub cluster: String,
    /// This node's pod range, e.g. `10.244.0.0/24`. The first address is the node's own.
    pub pod_cidr: (Ipv4Addr, u8),
    /// All pods of the cluster, e.g. `10.244.0.0/16`: traffic to it is not masqueraded.
    pub cluster_cidr: (Ipv4Addr, u8),
    /// Virtual service addresses, e.g. `10.96.0.0/12`: routed to the node link so that the host itself reaches them.
    pub service_cidr: (Ipv4Addr, u8),
    /// Directory for one small file per allocation; made if absent.
    pub state_dir: PathBuf,
    /// Bytes per packet on pod links; `None` takes the default route's link's.
    pub mtu: Option<u32>,
    /// Run in this network namespace instead of the process's own one (tests).
    pub host_netns: Option<PathBuf>,
}

/// A port of the node that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct HostPort {
    /// Only on this address of the node; `None` is all of them.
    pub host_ip: Option<Ipv4Addr>,
    /// Port on the node.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// What to wire.
#[derive(Clone, Debug, Default)]
pub struct AttachRequest {
    /// The sandbox's unique id: letters, digits, `-`, `_`, `.`.
    pub sandbox_id: String,
    /// The sandbox's pinned network namespace (a bind-mounted file or `/proc/PID/ns/net`).
    pub netns: PathBuf,
    /// Ports of the node that lead to it.
    pub host_ports: Vec<HostPort>,
    /// Wanted address, else the next free one.
    pub ip: Option<Ipv4Addr>,
}

/// What a pod got.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PodAddress {
    /// The pod's address (a /32 on `eth0`).
    pub ip: Ipv4Addr,
    /// The node's address in the pod range: the pod's gateway.
    pub gateway: Ipv4Addr,
    /// Hardware address of `eth0`, as `0a:58:…`.
    pub mac: String,
    /// Name of the host's end of the link.
    pub host_link: String,
}

/// One allocation as recorded in the state directory.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Allocation {
    /// The sandbox.
    pub sandbox_id: String,
    /// Its address.
    pub address: PodAddress,
    /// Its host ports.
    pub host_ports: Vec<HostPort>,
}

/// Wires and unwires the pods of one node. Cheap to clone; clones share one state and one kernel thread.
#[derive(Clone, Debug)]
pub struct PodNetwork {
    worker: Worker<Wiring>,
    /// Threads that delete links, in turn.
    reapers: Arc<Vec<Worker<Socket>>>,
    next_reaper: Arc<AtomicUsize>,
    allocations: Arc<Mutex<BTreeMap<String, Allocation>>>,
    node_ip: Ipv4Addr,
    names: Names,
}

impl PodNetwork {
    /// Prepares the node (node link with the gateway address, forwarding, masquerade and host port table) and adopts
    /// the allocations recorded in the state directory. Idempotent: running pods keep their connections.
    ///
    /// # Errors
    /// If the kernel lacks something or the state directory cannot be used.
    pub async fn new(config: NetConfig) -> Result<Self, NetError> {
        let names = Names::new(&config.cluster)?;
        let node_ip = Range::new(config.pod_cidr)?.node();
        let allocations = Arc::new(Mutex::new(BTreeMap::new()));
        let (namespace, own_names, shared) = (config.host_netns.clone(), names.clone(), allocations.clone());
        let reap_namespace = namespace.clone();
        let worker = Worker::start("corten-net", namespace, move || Wiring::prepare(config, own_names, shared)).await?;
        let mut reapers = Vec::new();
        for _ in 0..REAPERS {
            reapers.push(Worker::start("corten-net-reap", reap_namespace.clone(), route::open).await?);
        }
        Ok(PodNetwork { worker, reapers: Arc::new(reapers), next_reaper: Arc::default(), allocations, node_ip, names })
    }

    /// Gives a sandbox its link, address, routes and host ports. Attaching an id again returns what it has and
    /// repairs what is missing.
    ///
    /// # Errors
    /// [`NetError::RangeFull`], [`NetError::HostPortTaken`], or the kernel's refusal; nothing is left behind then.
    pub async fn attach(&self, request: AttachRequest) -> Result<PodAddress, NetError> {
        self.worker.call(move |wiring| wiring.attach(&request)).await
    }

    /// Takes everything back. Harmless for an unknown id or a namespace that is already gone.
    ///
    /// # Errors
    /// If the kernel refuses; call again.
    pub async fn detach(&self, sandbox_id: &str) -> Result<(), NetError> {
        let id = sandbox_id.to_owned();
        let Some(allocation) = self.worker.call(move |wiring| wiring.begin_detach(&id)).await? else { return Ok(()) };
        // The kernel waits a long time inside a deletion; other pods need not.
        let link = allocation.address.host_link.clone();
        let reaper = self.next_reaper.fetch_add(1, Ordering::Relaxed) % self.reapers.len();
        self.reapers[reaper].call(move |route| route::delete_link(route, &link)).await?;
        self.worker.call(move |wiring| wiring.finish_detach(&allocation)).await
    }

    /// Puts back what others have removed: forwarding (`sysctl --system`), the table (`nft flush ruleset`), the node link,
    /// routes of pods. A phrase for each thing put back. Cheap; to be called now and then, because the kernel says so to
    /// nobody.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn repair(&self) -> Result<Vec<String>, NetError> {
        self.worker.call(Wiring::repair).await
    }

    /// All recorded allocations: after a restart, detach those whose sandbox is gone.
    pub fn allocations(&self) -> Vec<Allocation> {
        self.allocations.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).values().cloned().collect()
    }

    /// The node's stable address in the pod range (`.1`): gateway of pods; DNS and the API server may listen here.
    pub fn node_ip(&self) -> Ipv4Addr {
        self.node_ip
    }

    /// Names of what lives in the kernel.
    pub fn names(&self) -> &Names {
        &self.names
    }
}

/// Makes the kinds of links that pods need, in the calling thread's (throwaway) namespace.
pub(crate) fn try_links(names: &Names) -> Result<(), NetError> {
    let mut socket = route::open()?;
    let own = std::fs::File::open("/proc/thread-self/ns/net").map_err(|source| NetError::file("/proc", source))?;
    let mut batch = route::RouteBatch::default();
    batch.address_link(&names.node_link(), 1500);
    batch.pod_link(&route::PodLink {
        host_name: &names.pod_link(Ipv4Addr::UNSPECIFIED),
        host_mac: wiring::HOST_MAC,
        pod_name: wiring::POD_LINK,
        pod_mac: wiring::HOST_MAC,
        pod_netns: own.as_fd(),
        mtu: 1500,
    });
    batch.send(&mut socket, &[])
}

/// Makes the pods' table in the calling thread's (throwaway) namespace.
pub(crate) fn try_table(names: &Names, config: &NetConfig) -> Result<(), NetError> {
    table::replace(&mut nft::open()?, names, config, &[], false)
}
