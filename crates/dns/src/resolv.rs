//! resolv.conf: reading the host's, making a pod's. Behaviour as upstream `pkg/kubelet/network/dns/dns.go`.

use std::net::IpAddr;

/// A resolv.conf's content as data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// `nameserver` lines.
    pub nameservers: Vec<String>,
    /// The last `search` line.
    pub searches: Vec<String>,
    /// `options`, last of a name wins.
    pub options: Vec<String>,
}

/// A pod's `dnsPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DnsPolicy {
    #[default]
    ClusterFirst,
    ClusterFirstWithHostNet,
    Default,
    None,
}

/// A pod's `dnsConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodDnsConfig {
    /// Added after the policy's.
    pub nameservers: Vec<String>,
    /// Added after the policy's.
    pub searches: Vec<String>,
    /// Name and value; override the policy's of the same name.
    pub options: Vec<(String, Option<String>)>,
}

/// A pod's resolv.conf and what had to be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodResolvConf {
    /// File content.
    pub content: String,
    /// Messages for `DNSConfigForming` and `MissingClusterDNS` events (reason, message).
    pub warnings: Vec<(&'static str, String)>,
}

impl ResolvConf {
    /// Reads a file's content; unknown lines are ignored.
    pub fn parse(content: &str) -> Self {
        let _ = content;
        ResolvConf::default()
    }
}

/// Makes a pod's resolv.conf. `host` is the node's (upstream) file, `cluster_dns` the addresses of the cluster's DNS.
pub fn pod_resolv_conf(
    policy: DnsPolicy,
    host_network: bool,
    namespace: &str,
    config: Option<&PodDnsConfig>,
    cluster_dns: &[IpAddr],
    cluster_domain: &str,
    host: &ResolvConf,
) -> PodResolvConf {
    let _ = (policy, host_network, namespace, config, cluster_dns, cluster_domain, host);
    PodResolvConf::default()
}
