//! resolv.conf: reading the host's, making a pod's. Behaviour as upstream `pkg/kubelet/network/dns/dns.go`.

use std::net::{IpAddr, SocketAddr};

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
        let mut conf = ResolvConf::default();
        for line in content.lines() {
            let mut fields = line.split_whitespace();
            match fields.next() {
                Some("nameserver") => conf.nameservers.extend(fields.next().map(str::to_owned)),
                Some("search") => {
                    let domains = fields.filter(|domain| *domain != ".");
                    conf.searches = domains.map(|domain| domain.trim_end_matches('.').to_owned()).collect();
                }
                Some("options") => fields.for_each(|option| set_option(&mut conf.options, option)),
                _ => {}
            }
        }
        conf
    }

    /// The nameservers as addresses to forward to. Those that are no addresses (`fe80::1%eth0`) are left out.
    pub fn upstream(&self) -> Vec<SocketAddr> {
        self.nameservers.iter().filter_map(|server| server.parse().ok()).map(|ip| SocketAddr::new(ip, 53)).collect()
    }

    /// The file that says this.
    fn render(&self) -> String {
        let mut content = String::new();
        if !self.searches.is_empty() {
            content += &format!("search {}\n", self.searches.join(" "));
        }
        for server in &self.nameservers {
            content += &format!("nameserver {server}\n");
        }
        if !self.options.is_empty() {
            content += &format!("options {}\n", self.options.join(" "));
        }
        content
    }
}

/// What a node knows for its pods' resolv.conf.
#[derive(Clone, Debug, Default)]
pub struct NodeDns {
    /// Addresses of the cluster's DNS; without any, ClusterFirst falls back to Default.
    pub cluster_dns: Vec<IpAddr>,
    /// Cluster domain, e.g. `cluster.local`; empty adds no search domains.
    pub cluster_domain: String,
    /// The node's own (upstream) resolv.conf.
    pub host: ResolvConf,
}

/// Makes a pod's resolv.conf.
pub fn pod_resolv_conf(
    node: &NodeDns,
    policy: DnsPolicy,
    host_network: bool,
    namespace: &str,
    config: Option<&PodDnsConfig>,
) -> PodResolvConf {
    let mut warnings = Vec::new();
    let mut conf = match policy {
        DnsPolicy::None => ResolvConf::default(),
        DnsPolicy::ClusterFirst if host_network => node.host.clone(),
        DnsPolicy::Default => node.host.clone(),
        DnsPolicy::ClusterFirst | DnsPolicy::ClusterFirstWithHostNet if node.cluster_dns.is_empty() => {
            warnings.push((
                "MissingClusterDNS",
                "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. \
                 Falling back to \"Default\" policy."
                    .to_owned(),
            ));
            node.host.clone()
        }
        DnsPolicy::ClusterFirst | DnsPolicy::ClusterFirstWithHostNet => ResolvConf {
            nameservers: node.cluster_dns.iter().map(IpAddr::to_string).collect(),
            searches: cluster_searches(node, namespace),
            options: vec!["ndots:5".to_owned()],
        },
    };
    if let Some(config) = config {
        add_new(&mut conf.nameservers, &config.nameservers);
        add_new(&mut conf.searches, &config.searches);
        for (name, value) in &config.options {
            match value.as_deref().filter(|value| !value.is_empty()) {
                Some(value) => set_option(&mut conf.options, &format!("{name}:{value}")),
                None => set_option(&mut conf.options, name),
            }
        }
    }
    limit(&mut conf, &mut warnings);
    PodResolvConf { content: conf.render(), warnings }
}

fn cluster_searches(node: &NodeDns, namespace: &str) -> Vec<String> {
    let domain = &node.cluster_domain;
    if domain.is_empty() {
        return node.host.searches.clone();
    }
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    add_new(&mut searches, &node.host.searches);
    searches
}

fn add_new(list: &mut Vec<String>, more: &[String]) {
    for entry in more {
        if !list.contains(entry) {
            list.push(entry.clone());
        }
    }
}

/// The last option of a name wins, at the place of the first.
fn set_option(options: &mut Vec<String>, option: &str) {
    let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    match options.iter_mut().find(|known| name(known) == name(option)) {
        Some(known) => *known = option.to_owned(),
        None => options.push(option.to_owned()),
    }
}

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LINE_MAX: usize = 2048;
const DOMAIN_MAX: usize = 253;

/// Cuts to what resolvers accept (`formDNSConfigFitsLimits`).
fn limit(conf: &mut ResolvConf, warnings: &mut Vec<(&'static str, String)>) {
    const REASON: &str = "DNSConfigForming";
    if conf.nameservers.len() > NAMESERVERS_MAX {
        conf.nameservers.truncate(NAMESERVERS_MAX);
        let applied = conf.nameservers.join(" ");
        let what = "Nameserver limits were exceeded, some nameservers have been omitted";
        warnings.push((REASON, format!("{what}, the applied nameserver line is: {applied}")));
    }
    let before = conf.searches.len();
    conf.searches.truncate(SEARCHES_MAX);
    conf.searches.retain(|domain| domain.len() <= DOMAIN_MAX);
    while conf.searches.join(" ").len() > SEARCH_LINE_MAX {
        conf.searches.pop();
    }
    if conf.searches.len() < before {
        let applied = conf.searches.join(" ");
        let what = "Search Line limits were exceeded, some search paths have been omitted";
        warnings.push((REASON, format!("{what}, the applied search line is: {applied}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeDns {
        let host = "# comment\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch old\nsearch corp.example. .\n\
                    options timeout:1 rotate\noptions timeout:3\ngarbage\n";
        NodeDns {
            cluster_dns: vec![IpAddr::from([10, 96, 0, 10])],
            cluster_domain: "cluster.local".to_owned(),
            host: ResolvConf::parse(host),
        }
    }

    fn made(policy: DnsPolicy, host_network: bool, config: Option<&PodDnsConfig>) -> String {
        let made = pod_resolv_conf(&node(), policy, host_network, "ns", config);
        assert_eq!(made.warnings, []);
        made.content
    }

    const HOST: &str = "search corp.example\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\noptions timeout:3 rotate\n";
    const CLUSTER: &str = "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example\n\
                           nameserver 10.96.0.10\noptions ndots:5\n";

    #[test]
    fn policies() {
        assert_eq!(node().host.upstream(), ["192.0.2.1:53".parse().unwrap()]);
        assert_eq!(made(DnsPolicy::ClusterFirst, false, None), CLUSTER);
        assert_eq!(made(DnsPolicy::ClusterFirstWithHostNet, true, None), CLUSTER);
        assert_eq!(made(DnsPolicy::ClusterFirst, true, None), HOST);
        assert_eq!(made(DnsPolicy::Default, false, None), HOST);
        assert_eq!(made(DnsPolicy::None, false, None), "");
        let mut node = node();
        node.cluster_dns.clear();
        let made = pod_resolv_conf(&node, DnsPolicy::ClusterFirst, false, "ns", None);
        assert_eq!((made.content.as_str(), made.warnings[0].0), (HOST, "MissingClusterDNS"));
    }

    #[test]
    fn the_pods_own_config_is_merged() {
        let config = PodDnsConfig {
            nameservers: vec!["10.96.0.10".to_owned(), "1.1.1.1".to_owned()],
            searches: vec!["cluster.local".to_owned(), "my.dns".to_owned()],
            options: vec![("ndots".to_owned(), Some("2".to_owned())), ("edns0".to_owned(), None)],
        };
        assert_eq!(
            made(DnsPolicy::ClusterFirst, false, Some(&config)),
            "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example my.dns\n\
             nameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:2 edns0\n"
        );
        assert_eq!(
            made(DnsPolicy::None, false, Some(&config)),
            "search cluster.local my.dns\nnameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:2 edns0\n"
        );
    }

    #[test]
    fn limits() {
        let config = PodDnsConfig {
            nameservers: ["a", "b", "c", "d"].map(str::to_owned).to_vec(),
            searches: (0..40).map(|number| format!("{number:0>100}")).chain(["x".repeat(254)]).collect(),
            options: Vec::new(),
        };
        let made = pod_resolv_conf(&node(), DnsPolicy::None, false, "ns", Some(&config));
        let lines: Vec<&str> = made.content.lines().collect();
        assert_eq!(lines[1..], ["nameserver a", "nameserver b", "nameserver c"]);
        assert!(lines[0].len() <= SEARCH_LINE_MAX + 7 && lines[0].split(' ').count() == 21);
        assert_eq!(made.warnings.len(), 2);
        assert!(made.warnings[0].1.ends_with("the applied nameserver line is: a b c"));
    }
}
