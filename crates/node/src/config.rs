//! What the agent must be told.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Below the run directory: the container runtime's state. Whoever takes a node down without an agent needs it.
pub const RUNTIME_DIR: &str = "runtime";
/// Below the run directory: the pod network's state.
pub const NETWORK_DIR: &str = "net";

/// How an agent runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name.
    pub node_name: String,
    /// The cluster's name: all names in the kernel derive from it.
    pub cluster: String,
    /// Lasting state: pods' volumes and logs.
    pub data_dir: PathBuf,
    /// State of this boot: sandboxes, containers, network allocations.
    pub run_dir: PathBuf,
    /// The executable that runs shims: its `main` calls `corten_runtime::dispatch` first.
    pub exe: PathBuf,
    /// The node's address.
    pub node_ip: Ipv4Addr,
    /// This node's pod range.
    pub pod_cidr: (Ipv4Addr, u8),
    /// All pods of the cluster.
    pub cluster_cidr: (Ipv4Addr, u8),
    /// Virtual addresses of services.
    pub service_cidr: (Ipv4Addr, u8),
    /// Address of the cluster's DNS, given to pods.
    pub cluster_dns: Vec<Ipv4Addr>,
    /// `cluster.local`
    pub cluster_domain: String,
    /// Whether this agent programs services and serves DNS (one per machine does).
    pub serve_services: bool,
    /// Addresses that DNS listens on besides the node's address in the pod range.
    pub dns_listen: Vec<std::net::SocketAddr>,
    /// Pods that the node takes at most.
    pub pods_max: u32,
    /// Further labels of the node.
    pub labels: Vec<(String, String)>,
    /// Run pods' network in this namespace instead of the host's (tests).
    pub host_netns: Option<PathBuf>,
    /// A directory of manifests of static pods, or one such file.
    pub pod_manifest_path: Option<PathBuf>,
    /// How long a manifest that has got wrong keeps its pod (the kubelet's `fileCheckFrequency`, 20 s).
    pub file_check: std::time::Duration,
    /// How long pods have to end when the machine goes down.
    pub shutdown: corten_podplan::shutdown::Periods,
    /// Soft and hard limit of open files that containers get; `None`: those of the server.
    pub open_files: Option<(u64, u64)>,
    /// When the node evicts pods.
    pub eviction: corten_podplan::eviction::Settings,
    /// Processes and threads that a pod may have (the kubelet's `podPidsLimit`); `None`: what the machine allows.
    pub pod_pids_max: Option<i64>,
    /// When images go that nothing uses.
    pub images: crate::ImagePolicy,
}

impl Config {
    /// The directory of the pods' directories.
    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.data_dir.join("pods")
    }

    /// A pod's directory.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir().join(uid)
    }

    /// Where a pod's logs are: `NAMESPACE_NAME_UID` as in upstream's `/var/log/pods`.
    pub(crate) fn log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join("logs").join(format!("{namespace}_{name}_{uid}"))
    }
}
