//! Records of a cluster's services.

use std::net::IpAddr;

/// A port as SRV records name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortRecord {
    /// Name; unnamed ports have no SRV record.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// Number.
    pub port: u16,
}

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRecord {
    /// Address.
    pub ip: IpAddr,
    /// `hostname` of the pod where its subdomain names this service (StatefulSet pods), else `None`.
    pub hostname: Option<String>,
    /// Ports of the endpoint (SRV of headless services).
    pub ports: Vec<PortRecord>,
}

/// All that DNS must know of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRecords {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Virtual addresses; empty for headless services.
    pub cluster_ips: Vec<IpAddr>,
    /// Target of an ExternalName service.
    pub external_name: Option<String>,
    /// The service's ports (SRV of services with a cluster address).
    pub ports: Vec<PortRecord>,
    /// Endpoints to publish: the ready ones, or all with publishNotReadyAddresses. For headless services these are the
    /// answers; for others they only give names to endpoints with a hostname.
    pub endpoints: Vec<EndpointRecord>,
}

/// One answer record's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A or AAAA.
    Address(IpAddr),
    /// SRV: port and target name (absolute, lower case, without the last dot).
    Service { port: u16, target: String },
    /// PTR or CNAME target (absolute, without the last dot).
    Name(String),
    /// TXT.
    Text(String),
}

/// What a source knows of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The source is not responsible for the name: it is forwarded.
    NotMine,
    /// The name does not exist.
    NoSuchName,
    /// The name exists: its records of all types (none of the asked type is NODATA). `Name` under a CNAME owner is
    /// followed by the server.
    Found(Vec<Answer>),
}

/// Where the server's answers come from. Called for every query: must not block.
pub trait RecordSource: Send + Sync + 'static {
    /// `name` is absolute, lower case, without the last dot.
    fn lookup(&self, name: &str) -> Lookup;
    /// The cluster domain, e.g. `cluster.local`: owner of the SOA record in negative answers.
    fn domain(&self) -> &str;
}

/// The table of all services, safe to read and change from any thread.
#[derive(Debug)]
pub struct Zone {
    domain: String,
}

impl Zone {
    /// An empty zone for a cluster domain such as `cluster.local`.
    pub fn new(domain: &str) -> Self {
        Zone { domain: domain.trim_end_matches('.').to_ascii_lowercase() }
    }

    /// Puts or replaces one service.
    pub fn set_service(&self, records: ServiceRecords) {
        let _ = records;
    }

    /// Removes one service; harmless if unknown.
    pub fn remove_service(&self, namespace: &str, name: &str) {
        let _ = (namespace, name);
    }

    /// Makes a namespace known, so that its pod names (`1-2-3-4.NS.pod.DOMAIN`) resolve.
    pub fn set_namespace(&self, namespace: &str, exists: bool) {
        let _ = (namespace, exists);
    }
}

impl RecordSource for Zone {
    fn lookup(&self, name: &str) -> Lookup {
        let _ = name;
        Lookup::NotMine
    }

    fn domain(&self) -> &str {
        &self.domain
    }
}
