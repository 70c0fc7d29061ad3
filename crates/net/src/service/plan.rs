//! From a service to the elements that stand for it in the kernel. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use super::{Endpoint, Protocol, Service, TrafficPolicy};

/// Endpoints on this node have their numbers from here, for traffic that may not leave it.
pub(super) const LOCAL_FIRST: u32 = 0x1_0000;
/// Endpoints of one port; more are left out.
pub(super) const ENDPOINTS_MAX: usize = LOCAL_FIRST as usize - 1;

/// A place that clients connect to. Node ports have the address 0.0.0.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Front {
    pub(super) ip: Ipv4Addr,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

impl Front {
    pub(super) fn is_node_port(&self) -> bool {
        self.ip.is_unspecified()
    }

    /// Address, protocol and port, 32 bits each.
    fn bytes(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.ip.octets());
        bytes[4] = self.protocol.number();
        bytes[8..10].copy_from_slice(&self.port.to_be_bytes());
        bytes
    }
}

/// An endpoint's address and port.
pub(super) type Target = (Ipv4Addr, u16);

/// Sets and maps of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Set {
    Services,
    NodePorts,
    Endpoints,
    Live,
    NoEndpoints,
    NoEndpointNodePorts,
    ClusterIps,
    Hairpin,
}

impl Set {
    /// Several services may want the same element.
    pub(super) fn is_shared(self) -> bool {
        matches!(self, Set::ClusterIps | Set::Hairpin)
    }
}

/// An element's left side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) set: Set,
    length: u8,
    bytes: [u8; 20],
}

impl Key {
    fn new(set: Set, parts: &[&[u8]]) -> Key {
        let mut key = Key { set, length: 0, bytes: [0; 20] };
        for part in parts {
            let start = usize::from(key.length);
            key.bytes[start..start + part.len()].copy_from_slice(part);
            key.length += part.len() as u8;
        }
        key
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// An element's right side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    None,
    Target([u8; 8]),
    Pick(Pick),
    Refuse,
    Drop,
}

/// How an endpoint is picked: each kind is one chain, shared by all services that are alike in this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Pick {
    pub(super) node_port: bool,
    pub(super) masquerade: bool,
    pub(super) total: u32,
    /// Traffic from outside may only reach so many endpoints, those on this node.
    pub(super) local: Option<u32>,
    pub(super) affinity_seconds: Option<u32>,
}

impl Pick {
    pub(super) fn chain(&self) -> String {
        let mut name = String::from(if self.node_port { "node-port" } else { "service" });
        if self.masquerade {
            name += "-masq";
        }
        name += &format!("-{}", self.total);
        if let Some(local) = self.local {
            name += &format!("-local{local}");
        }
        if let Some(seconds) = self.affinity_seconds {
            name += &format!("-sticky{seconds}");
        }
        name
    }

    /// The chains for traffic from inside the cluster and from the node itself, which may reach all endpoints.
    pub(super) fn unrestricted(&self) -> [Pick; 2] {
        [false, true].map(|masquerade| Pick { local: None, masquerade, ..*self })
    }
}

/// Where the endpoints of a front stand: number of the place, all and local ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) all: Vec<Target>,
    pub(super) local: Vec<Target>,
}

/// A service as elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) elements: HashMap<Key, Value>,
    pub(super) places: HashMap<Front, Places>,
}

/// All places that clients of a service connect to.
pub(super) fn fronts(service: &Service) -> Vec<Front> {
    let mut fronts = Vec::new();
    for port in &service.ports {
        let protocol = port.protocol;
        let addresses = v4(&service.cluster_ips).chain(v4(&service.external_ips));
        fronts.extend(addresses.map(|ip| Front { ip, protocol, port: port.port }));
        fronts.extend(port.node_port.map(|port| Front { ip: Ipv4Addr::UNSPECIFIED, protocol, port }));
    }
    fronts
}

/// The service's elements at those of its fronts that it owns. Endpoints that stay keep the place that they had in
/// `before`, so that a change of one endpoint changes few elements.
pub(super) fn plan(
    service: &Service,
    owns: impl Fn(&Front) -> bool,
    before: Option<&Plan>,
    cluster_cidr: (Ipv4Addr, u8),
) -> Plan {
    let mut plan = Plan::default();
    for ip in v4(&service.cluster_ips) {
        plan.elements.insert(Key::new(Set::ClusterIps, &[&ip.octets()]), Value::None);
    }
    for port in &service.ports {
        let all = targets(&port.targets, |_| true);
        let local = targets(&port.targets, |endpoint| endpoint.local);
        for (ip, _) in local.iter().filter(|(ip, _)| contains(cluster_cidr, *ip)) {
            plan.elements.insert(Key::new(Set::Hairpin, &[&ip.octets(), &ip.octets()]), Value::None);
        }
        let mut put = |ip: Ipv4Addr, number: u16, policy: TrafficPolicy, external: bool| {
            let front = Front { ip, protocol: port.protocol, port: number };
            if !owns(&front) || plan.places.contains_key(&front) {
                return;
            }
            let only_local = policy == TrafficPolicy::Local;
            let wanted = match (only_local, external) {
                (false, _) => Places { all: all.clone(), local: Vec::new() },
                (true, false) => Places { all: local.clone(), local: Vec::new() },
                (true, true) => Places { all: all.clone(), local: local.clone() },
            };
            let places = keep_places(before.and_then(|before| before.places.get(&front)), wanted);
            let pick = Pick {
                node_port: front.is_node_port(),
                masquerade: external,
                total: places.all.len() as u32,
                local: (only_local && external).then_some(places.local.len() as u32),
                affinity_seconds: service.session_affinity_seconds,
            };
            put_front(&mut plan.elements, &front, &places, pick, all.is_empty());
            plan.places.insert(front, places);
        };
        v4(&service.cluster_ips).for_each(|ip| put(ip, port.port, service.internal_policy, false));
        v4(&service.external_ips).for_each(|ip| put(ip, port.port, service.external_policy, true));
        if let Some(node_port) = port.node_port {
            put(Ipv4Addr::UNSPECIFIED, node_port, service.external_policy, true);
        }
    }
    plan
}

fn put_front(elements: &mut HashMap<Key, Value>, front: &Front, places: &Places, pick: Pick, nobody: bool) {
    let bytes = front.bytes();
    // Node ports are looked up without an address.
    let key = |services, node_ports| match front.is_node_port() {
        true => Key::new(node_ports, &[&bytes[4..]]),
        false => Key::new(services, &[&bytes]),
    };
    if places.all.is_empty() {
        let value = if nobody { Value::Refuse } else { Value::Drop };
        elements.insert(key(Set::NoEndpoints, Set::NoEndpointNodePorts), value);
        return;
    }
    elements.insert(key(Set::Services, Set::NodePorts), Value::Pick(pick));
    let lists = [(0, &places.all), (LOCAL_FIRST, &places.local)];
    for (number, target) in lists.into_iter().flat_map(|(first, list)| (first..).zip(list)) {
        let key = Key::new(Set::Endpoints, &[&bytes, &number.to_ne_bytes()]);
        elements.insert(key, Value::Target(target_bytes(*target)));
    }
    if pick.affinity_seconds.is_some() {
        for target in places.all.iter().chain(&places.local) {
            elements.insert(Key::new(Set::Live, &[&bytes, &target_bytes(*target)]), Value::None);
        }
    }
}

/// Those that stay keep their place, new ones fill the gaps, and the last ones move where gaps remain.
fn keep_places(before: Option<&Places>, wanted: Places) -> Places {
    let Some(before) = before else { return wanted };
    Places { all: keep(&before.all, wanted.all), local: keep(&before.local, wanted.local) }
}

fn keep(before: &[Target], wanted: Vec<Target>) -> Vec<Target> {
    let mut rest: Vec<Target> = wanted.iter().filter(|target| !before.contains(target)).copied().collect();
    rest.reverse();
    let mut places: Vec<Option<Target>> =
        before.iter().map(|target| wanted.contains(target).then_some(*target)).collect();
    places.iter_mut().filter(|place| place.is_none()).for_each(|place| *place = rest.pop());
    places.extend(rest.into_iter().rev().map(Some));
    while let Some(gap) = places.iter().position(Option::is_none) {
        let last = places.pop().flatten();
        if last.is_some() {
            places[gap] = last;
        }
    }
    places.into_iter().flatten().collect()
}

fn targets(endpoints: &[Endpoint], fits: impl Fn(&Endpoint) -> bool) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for endpoint in endpoints.iter().filter(|endpoint| fits(endpoint)) {
        if let IpAddr::V4(ip) = endpoint.ip {
            targets.push((ip, endpoint.port));
        }
    }
    targets.sort_unstable();
    targets.dedup();
    targets.truncate(ENDPOINTS_MAX);
    targets
}

fn target_bytes((ip, port): Target) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&ip.octets());
    bytes[4..6].copy_from_slice(&port.to_be_bytes());
    bytes
}

fn v4(addresses: &[IpAddr]) -> impl Iterator<Item = Ipv4Addr> {
    addresses.iter().filter_map(|ip| match ip {
        IpAddr::V4(ip) if !ip.is_unspecified() => Some(*ip),
        _ => None,
    })
}

fn contains((network, prefix): (Ipv4Addr, u8), ip: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    u32::from(network) & mask == u32::from(ip) & mask
}

#[cfg(test)]
mod tests {
    use super::super::ServicePort;
    use super::*;

    const CLUSTER: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 0, 0), 16);

    fn endpoint(last: u8, local: bool) -> Endpoint {
        Endpoint { ip: IpAddr::from([10, 244, 0, last]), port: 8080, local }
    }

    fn service(targets: Vec<Endpoint>) -> Service {
        let port = ServicePort { port: 80, node_port: Some(30080), targets, ..ServicePort::default() };
        Service {
            id: "default/web".to_owned(),
            cluster_ips: vec![IpAddr::from([10, 96, 0, 9]), "fd00::1".parse().unwrap()],
            ports: vec![port],
            ..Service::default()
        }
    }

    fn show(plan: &Plan) -> Vec<String> {
        let mut lines: Vec<String> = plan
            .elements
            .iter()
            .map(|(key, value)| {
                let value = match value {
                    Value::Pick(pick) => pick.chain(),
                    Value::Target(bytes) => format!("{}:{}", bytes[3], u16::from_be_bytes([bytes[4], bytes[5]])),
                    other => format!("{other:?}"),
                };
                format!("{:?} {:?} {value}", key.set, key.bytes())
            })
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn elements_of_a_service() {
        let plan = plan(&service(vec![endpoint(5, true), endpoint(4, false)]), |_| true, None, CLUSTER);
        assert_eq!(
            show(&plan),
            [
                "ClusterIps [10, 96, 0, 9] None",
                "Endpoints [0, 0, 0, 0, 6, 0, 0, 0, 117, 128, 0, 0, 0, 0, 0, 0] 4:8080",
                "Endpoints [0, 0, 0, 0, 6, 0, 0, 0, 117, 128, 0, 0, 1, 0, 0, 0] 5:8080",
                "Endpoints [10, 96, 0, 9, 6, 0, 0, 0, 0, 80, 0, 0, 0, 0, 0, 0] 4:8080",
                "Endpoints [10, 96, 0, 9, 6, 0, 0, 0, 0, 80, 0, 0, 1, 0, 0, 0] 5:8080",
                "Hairpin [10, 244, 0, 5, 10, 244, 0, 5] None",
                "NodePorts [6, 0, 0, 0, 117, 128, 0, 0] node-port-masq-2",
                "Services [10, 96, 0, 9, 6, 0, 0, 0, 0, 80, 0, 0] service-2",
            ]
        );
    }

    #[test]
    fn nobody_to_answer() {
        let mut empty = service(vec![]);
        let refused = plan(&empty, |_| true, None, CLUSTER);
        assert_eq!(
            show(&refused)[1..],
            [
                "NoEndpointNodePorts [6, 0, 0, 0, 117, 128, 0, 0] Refuse",
                "NoEndpoints [10, 96, 0, 9, 6, 0, 0, 0, 0, 80, 0, 0] Refuse"
            ]
        );
        empty.ports[0].targets = vec![endpoint(4, false)];
        empty.internal_policy = TrafficPolicy::Local;
        empty.external_policy = TrafficPolicy::Local;
        let elsewhere = show(&plan(&empty, |_| true, None, CLUSTER));
        assert!(elsewhere.contains(&"NoEndpoints [10, 96, 0, 9, 6, 0, 0, 0, 0, 80, 0, 0] Drop".to_owned()));
        assert!(elsewhere.contains(&"NodePorts [6, 0, 0, 0, 117, 128, 0, 0] node-port-masq-1-local0".to_owned()));
    }

    #[test]
    fn those_that_stay_keep_their_place() {
        let target = |last: u8| (Ipv4Addr::new(0, 0, 0, last), 1);
        let check = |before: &[u8], wanted: &[u8], expected: &[u8]| {
            let before: Vec<Target> = before.iter().copied().map(target).collect();
            let kept = keep(&before, wanted.iter().copied().map(target).collect());
            assert_eq!(kept.iter().map(|(ip, _)| ip.octets()[3]).collect::<Vec<_>>(), expected);
        };
        check(&[1, 2, 3], &[1, 2, 3, 4], &[1, 2, 3, 4]);
        check(&[1, 2, 3], &[1, 3, 4], &[1, 4, 3]);
        check(&[1, 2, 3, 4], &[2, 3, 4], &[4, 2, 3]);
        check(&[1, 2, 3, 4], &[4], &[4]);
        check(&[1, 2], &[], &[]);
        check(&[3, 2, 1], &[1, 2, 3], &[3, 2, 1]);
    }
}
