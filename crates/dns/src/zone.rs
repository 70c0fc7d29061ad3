//! Records of a cluster's services, after the specification's version 1.1.0.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::RwLock;

/// What `dns-version.DOMAIN` answers.
const SCHEMA_VERSION: &str = "1.1.0";

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
///
/// A lookup parses the name, so the table holds one entry per service, not one per record.
#[derive(Debug)]
pub struct Zone {
    domain: String,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By namespace, then name.
    namespaces: HashMap<String, Namespace>,
    /// Who has an address, as a cluster address or as an endpoint: namespace and service.
    addresses: HashMap<IpAddr, Vec<(String, String)>>,
}

#[derive(Debug, Default)]
struct Namespace {
    /// Set by [`Zone::set_namespace`]; a namespace with services is there anyway.
    exists: bool,
    services: HashMap<String, ServiceRecords>,
}

impl Zone {
    /// An empty zone for a cluster domain such as `cluster.local`.
    pub fn new(domain: &str) -> Self {
        Zone { domain: domain.trim_end_matches('.').to_ascii_lowercase(), table: RwLock::default() }
    }

    /// Puts or replaces one service.
    pub fn set_service(&self, mut records: ServiceRecords) {
        for endpoint in &mut records.endpoints {
            if let Some(hostname) = &mut endpoint.hostname {
                hostname.make_ascii_lowercase();
            }
        }
        let mut table = self.table.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        table.remove(&records.namespace, &records.name);
        for ip in addresses(&records) {
            let key = (records.namespace.clone(), records.name.clone());
            table.addresses.entry(ip).or_default().push(key);
        }
        let namespace = table.namespaces.entry(records.namespace.clone()).or_default();
        namespace.services.insert(records.name.clone(), records);
    }

    /// Removes one service; harmless if unknown.
    pub fn remove_service(&self, namespace: &str, name: &str) {
        self.table.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(namespace, name);
    }

    /// Makes a namespace known (or forgotten), so that its pod names (`1-2-3-4.NS.pod.DOMAIN`) resolve.
    pub fn set_namespace(&self, namespace: &str, exists: bool) {
        let mut table = self.table.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        table.namespaces.entry(namespace.to_owned()).or_default().exists = exists;
        table.drop_if_empty(namespace);
    }
}

impl Table {
    fn remove(&mut self, namespace: &str, name: &str) {
        let Some(known) = self.namespaces.get_mut(namespace) else { return };
        let Some(old) = known.services.remove(name) else { return };
        for ip in addresses(&old) {
            if let Entry::Occupied(mut holders) = self.addresses.entry(ip) {
                holders.get_mut().retain(|(of, service)| (of.as_str(), service.as_str()) != (namespace, name));
                if holders.get().is_empty() {
                    holders.remove();
                }
            }
        }
        self.drop_if_empty(namespace);
    }

    fn drop_if_empty(&mut self, namespace: &str) {
        if self.namespaces.get(namespace).is_some_and(|known| !known.exists && known.services.is_empty()) {
            self.namespaces.remove(namespace);
        }
    }

    /// A name below `svc.DOMAIN`, labels from the right.
    fn service_name(&self, labels: &[&str], domain: &str) -> Lookup {
        let [namespace, rest @ ..] = labels else { return Lookup::Found(Vec::new()) };
        let Some(known) = self.namespaces.get(*namespace) else { return Lookup::NoSuchName };
        let [name, rest @ ..] = rest else { return Lookup::Found(Vec::new()) };
        let Some(service) = known.services.get(*name) else { return Lookup::NoSuchName };
        match rest {
            [] => Lookup::Found(service_answers(service)),
            [protocol, rest @ ..] if protocol.starts_with('_') => {
                let port = match rest {
                    [] => None,
                    [port] if port.starts_with('_') => Some(&port[1..]),
                    _ => return Lookup::NoSuchName,
                };
                port_answers(service, port, &protocol[1..], domain)
            }
            [hostname] => {
                let named = service.endpoints.iter().filter(|endpoint| host_label(endpoint) == *hostname);
                // Only headless services give names to endpoints without a hostname.
                let named = named.filter(|endpoint| endpoint.hostname.is_some() || is_headless(service));
                let answers: Vec<_> = named.map(|endpoint| Answer::Address(endpoint.ip)).collect();
                if answers.is_empty() { Lookup::NoSuchName } else { Lookup::Found(answers) }
            }
            _ => Lookup::NoSuchName,
        }
    }

    /// A name below `pod.DOMAIN`: the address is written in the name, with dashes.
    fn pod_name(&self, labels: &[&str]) -> Lookup {
        let [namespace, rest @ ..] = labels else { return Lookup::Found(Vec::new()) };
        if !self.namespaces.contains_key(*namespace) {
            return Lookup::NoSuchName;
        }
        match rest {
            [] => Lookup::Found(Vec::new()),
            [ip] => {
                let v4 = ip.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
                let parsed = v4.or_else(|_| ip.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6));
                parsed.map_or(Lookup::NoSuchName, |ip| Lookup::Found(vec![Answer::Address(ip)]))
            }
            _ => Lookup::NoSuchName,
        }
    }

    /// Names of an address; other addresses are not ours.
    fn reverse(&self, ip: IpAddr, domain: &str) -> Lookup {
        let mut names = Vec::new();
        for (namespace, name) in self.addresses.get(&ip).into_iter().flatten() {
            let Some(service) = self.namespaces.get(namespace).and_then(|known| known.services.get(name)) else {
                continue;
            };
            let full = format!("{name}.{namespace}.svc.{domain}");
            if service.cluster_ips.contains(&ip) {
                names.push(Answer::Name(full.clone()));
            }
            for endpoint in service.endpoints.iter().filter(|endpoint| endpoint.ip == ip) {
                if endpoint.hostname.is_some() || is_headless(service) {
                    names.push(Answer::Name(format!("{}.{full}", host_label(endpoint))));
                }
            }
        }
        if names.is_empty() { Lookup::NotMine } else { Lookup::Found(names) }
    }
}

fn addresses(records: &ServiceRecords) -> impl Iterator<Item = IpAddr> {
    let endpoints = records.endpoints.iter().map(|endpoint| endpoint.ip);
    let all: BTreeSet<IpAddr> = records.cluster_ips.iter().copied().chain(endpoints).collect();
    all.into_iter()
}

fn is_headless(service: &ServiceRecords) -> bool {
    service.cluster_ips.is_empty() && service.external_name.is_none()
}

fn service_answers(service: &ServiceRecords) -> Vec<Answer> {
    if let Some(target) = &service.external_name {
        return vec![Answer::Name(target.trim_end_matches('.').to_ascii_lowercase())];
    }
    if is_headless(service) {
        return service.endpoints.iter().map(|endpoint| Answer::Address(endpoint.ip)).collect();
    }
    service.cluster_ips.iter().copied().map(Answer::Address).collect()
}

/// `_PORT._PROTOCOL` of a service; without a port the name only has names below it.
fn port_answers(service: &ServiceRecords, port: Option<&str>, protocol: &str, domain: &str) -> Lookup {
    let full = format!("{}.{}.svc.{domain}", service.name, service.namespace);
    let fits = |record: &&PortRecord| record.protocol == protocol && port.is_none_or(|port| record.name == port);
    let named = |record: &&PortRecord| !record.name.is_empty() && fits(record);
    let mut answers = Vec::new();
    if is_headless(service) {
        for endpoint in &service.endpoints {
            let target = format!("{}.{full}", host_label(endpoint));
            let found = endpoint.ports.iter().filter(named);
            answers.extend(found.map(|record| Answer::Service { port: record.port, target: target.clone() }));
        }
    } else {
        let found = service.ports.iter().filter(named);
        answers.extend(found.map(|record| Answer::Service { port: record.port, target: full.clone() }));
    }
    match (answers.is_empty(), port) {
        (true, _) => Lookup::NoSuchName,
        (false, None) => Lookup::Found(Vec::new()),
        (false, Some(_)) => Lookup::Found(answers),
    }
}

/// An endpoint's own label: its hostname, or its address with dashes.
fn host_label(endpoint: &EndpointRecord) -> Cow<'_, str> {
    match &endpoint.hostname {
        Some(hostname) => Cow::Borrowed(hostname),
        None => Cow::Owned(endpoint.ip.to_string().replace(['.', ':'], "-")),
    }
}

impl RecordSource for Zone {
    fn lookup(&self, name: &str) -> Lookup {
        let table = self.table.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(ip) = reverse_address(name) {
            return table.reverse(ip, &self.domain);
        }
        let inside = match name.strip_suffix(&self.domain) {
            Some("") => "",
            Some(rest) if rest.ends_with('.') => &rest[..rest.len() - 1],
            _ => return Lookup::NotMine,
        };
        let labels: Vec<&str> = inside.rsplit('.').filter(|label| !label.is_empty()).collect();
        match labels.as_slice() {
            [] => Lookup::Found(Vec::new()),
            ["dns-version"] => Lookup::Found(vec![Answer::Text(SCHEMA_VERSION.to_owned())]),
            ["svc", rest @ ..] => table.service_name(rest, &self.domain),
            ["pod", rest @ ..] => table.pod_name(rest),
            _ => Lookup::NoSuchName,
        }
    }

    fn domain(&self) -> &str {
        &self.domain
    }
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let forward: Vec<&str> = octets.rsplit('.').collect();
        return forward.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let nibbles = name.strip_suffix(".ip6.arpa")?;
    let mut value = 0_u128;
    let mut count = 0;
    for nibble in nibbles.rsplit('.') {
        value = value << 4 | u128::from(u8::from_str_radix(nibble, 16).ok().filter(|_| nibble.len() == 1)?);
        count += 1;
    }
    (count == 32).then(|| IpAddr::V6(Ipv6Addr::from(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let zone = Zone::new("Cluster.Local.");
        let port = |name: &str, protocol, port| PortRecord { name: name.to_owned(), protocol, port };
        let endpoint = |last: u8, hostname: Option<&str>| EndpointRecord {
            ip: IpAddr::from([10, 244, 0, last]),
            hostname: hostname.map(str::to_owned),
            ports: vec![port("pg", "tcp", 5432)],
        };
        let service = |name: &str| ServiceRecords {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            ..ServiceRecords::default()
        };
        zone.set_service(ServiceRecords {
            cluster_ips: vec![IpAddr::from([10, 96, 0, 9]), "fd00::9".parse().unwrap()],
            ports: vec![port("http", "tcp", 80), port("", "udp", 53)],
            endpoints: vec![endpoint(7, None), endpoint(8, Some("named"))],
            ..service("web")
        });
        zone.set_service(ServiceRecords {
            endpoints: vec![endpoint(4, Some("DB-0")), endpoint(5, None)],
            ..service("db")
        });
        zone.set_service(service("empty"));
        zone.set_service(ServiceRecords { external_name: Some("Example.COM.".to_owned()), ..service("out") });
        zone.set_namespace("other", true);
        zone
    }

    fn check(zone: &Zone, name: &str, expected: &str) {
        let found = match zone.lookup(name) {
            Lookup::NotMine => "not mine".to_owned(),
            Lookup::NoSuchName => "no such name".to_owned(),
            Lookup::Found(answers) => {
                let answers: Vec<String> = answers
                    .iter()
                    .map(|answer| match answer {
                        Answer::Address(ip) => ip.to_string(),
                        Answer::Service { port, target } => format!("{port} {target}"),
                        Answer::Name(name) | Answer::Text(name) => name.clone(),
                    })
                    .collect();
                answers.join(", ")
            }
        };
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn names_of_the_specification() {
        let zone = zone();
        for (name, expected) in [
            ("dns-version.cluster.local", "1.1.0"),
            ("cluster.local", ""),
            ("xcluster.local", "not mine"),
            ("example.com", "not mine"),
            ("svc.cluster.local", ""),
            ("pod.cluster.local", ""),
            ("node.cluster.local", "no such name"),
            ("default.svc.cluster.local", ""),
            ("other.svc.cluster.local", ""),
            ("absent.svc.cluster.local", "no such name"),
            ("web.default.svc.cluster.local", "10.96.0.9, fd00::9"),
            ("web.other.svc.cluster.local", "no such name"),
            ("_http._tcp.web.default.svc.cluster.local", "80 web.default.svc.cluster.local"),
            ("_tcp.web.default.svc.cluster.local", ""),
            ("_udp.web.default.svc.cluster.local", "no such name"),
            ("_http._udp.web.default.svc.cluster.local", "no such name"),
            ("named.web.default.svc.cluster.local", "10.244.0.8"),
            ("10-244-0-7.web.default.svc.cluster.local", "no such name"),
            ("db.default.svc.cluster.local", "10.244.0.4, 10.244.0.5"),
            ("db-0.db.default.svc.cluster.local", "10.244.0.4"),
            ("10-244-0-5.db.default.svc.cluster.local", "10.244.0.5"),
            ("x.db-0.db.default.svc.cluster.local", "no such name"),
            (
                "_pg._tcp.db.default.svc.cluster.local",
                "5432 db-0.db.default.svc.cluster.local, 5432 10-244-0-5.db.default.svc.cluster.local",
            ),
            ("empty.default.svc.cluster.local", ""),
            ("out.default.svc.cluster.local", "example.com"),
            ("10-1-2-3.other.pod.cluster.local", "10.1.2.3"),
            ("fd00--7.other.pod.cluster.local", "fd00::7"),
            ("10-1-2.other.pod.cluster.local", "no such name"),
            ("10-1-2-3.absent.pod.cluster.local", "no such name"),
            ("9.0.96.10.in-addr.arpa", "web.default.svc.cluster.local"),
            ("4.0.244.10.in-addr.arpa", "db-0.db.default.svc.cluster.local"),
            ("7.0.244.10.in-addr.arpa", "not mine"),
            ("8.0.244.10.in-addr.arpa", "named.web.default.svc.cluster.local"),
            (
                "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
                "web.default.svc.cluster.local",
            ),
            ("1.0.0.127.in-addr.arpa", "not mine"),
        ] {
            check(&zone, name, expected);
        }
    }

    #[test]
    fn changes() {
        let zone = zone();
        let mut web = ServiceRecords { namespace: "default".to_owned(), name: "web".to_owned(), ..Default::default() };
        web.cluster_ips = vec![IpAddr::from([10, 96, 0, 10])];
        zone.set_service(web);
        check(&zone, "web.default.svc.cluster.local", "10.96.0.10");
        check(&zone, "9.0.96.10.in-addr.arpa", "not mine");
        for name in ["web", "db", "empty", "out", "unknown"] {
            zone.remove_service("default", name);
        }
        check(&zone, "web.default.svc.cluster.local", "no such name");
        check(&zone, "default.svc.cluster.local", "no such name");
        check(&zone, "10.0.96.10.in-addr.arpa", "not mine");
        zone.set_namespace("other", false);
        check(&zone, "10-1-2-3.other.pod.cluster.local", "no such name");
    }
}
