//! Addresses and ports of Services: who has which, and the next free one.
//!
//! Words and rules: `pkg/registry/core/service/storage/alloc.go`, `pkg/registry/core/service/{ip,port}allocator`. The state is
//! derived: it is filled from the Services in the cache at the start, and every write of a Service passes through
//! [`ServiceAllocator::reserve`]. A reservation that is dropped before [`Reservation::keep`] gives back what it took.
//!
//! Addresses come from the ranges of all ready ServiceCIDRs, and none that an IPAddress says is somebody else's
//! (`ipallocator/cidrallocator.go`). The pipeline keeps an IPAddress for each address that a Service has.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use corten_auth::Source;
use corten_base::Entropy;
use corten_kinds::id;
use corten_object::{FieldError, ObjectKey};
use corten_tree::{FieldPath, Tree};

use crate::Cidr;

/// The first NodePort (`--service-node-port-range`).
const PORT_FIRST: u16 = 30000;
/// The last NodePort.
const PORT_LAST: u16 = 32767;
/// Offsets in the range that no Service gets unless it asks: the `kubernetes` Service and DNS.
const RESERVED: [u32; 2] = [1, 10];

/// Who has which address and port.
pub struct ServiceAllocator {
    range: Cidr,
    entropy: std::sync::Arc<dyn Entropy>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ips: HashMap<Ipv4Addr, ObjectKey>,
    ports: HashMap<(u16, Protocol), ObjectKey>,
}

/// Port numbers are taken per protocol; an automatic one is free in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn of(port: &Tree) -> Protocol {
        match port.str_at("protocol") {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => Protocol::Tcp,
        }
    }
}

/// What one Service holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Held {
    ips: Vec<Ipv4Addr>,
    ports: Vec<(u16, Protocol)>,
}

/// What a write has taken, until it is durable.
#[must_use = "a reservation that is dropped gives everything back"]
pub struct Reservation<'a> {
    allocator: Option<&'a ServiceAllocator>,
    key: ObjectKey,
    /// Given back if the write fails.
    taken: Held,
    /// Given back when the write has succeeded.
    left: Held,
}

impl Reservation<'_> {
    /// The write is durable: what the Service has left is free, what it has taken is its own. Returns both.
    pub fn keep(mut self) -> Moved {
        if let Some(allocator) = self.allocator.take() {
            allocator.give_back(&self.key, &self.left);
        }
        Moved { taken: std::mem::take(&mut self.taken.ips), left: std::mem::take(&mut self.left.ips) }
    }
}

/// The addresses that a durable write of a Service has moved.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Moved {
    /// New to the Service.
    pub taken: Vec<Ipv4Addr>,
    /// No longer the Service's.
    pub left: Vec<Ipv4Addr>,
}

/// The ServiceCIDR that the server makes of its own range.
pub const DEFAULT_RANGE: &str = "kubernetes";

/// The ranges to allocate from, the server's own first.
fn ready_ranges(own: Cidr, source: &dyn Source) -> Vec<Cidr> {
    let objects = source.objects(id::SERVICE_CIDR);
    let mut found = Vec::new();
    // Before the server has made its own object, its range is as good as ready.
    if !objects.iter().any(|object| object.head.name == *DEFAULT_RANGE) {
        found.push(own);
    }
    for object in objects.iter().filter(|object| !object.head.is_deleting()) {
        let tree = object.to_tree();
        let ready = |c: &Tree| c.str_at("type") == "Ready" && c.str_at("status") == "True";
        if tree.list_at("status.conditions").iter().any(ready) {
            let cidrs = tree.list_at("spec.cidrs").iter().filter_map(|cidr| cidr.as_str()?.parse::<Cidr>().ok());
            found.extend(cidrs);
        }
    }
    found.sort_by_key(|range| *range != own);
    found
}

/// Whether an IPAddress says that an address is somebody else's.
fn is_foreign(ip: Ipv4Addr, service: &ObjectKey, source: &dyn Source) -> bool {
    let found = source.object(&ObjectKey::new(id::IP_ADDRESS, "", &ip.to_string()));
    found.is_some_and(|address| parent_service(&address.to_tree()).is_none_or(|parent| parent != *service))
}

/// The Service that an IPAddress belongs to; `None` if it belongs to something else.
pub fn parent_service(address: &Tree) -> Option<ObjectKey> {
    let parent = address.path("spec.parentRef")?;
    let is_service = parent.str_at("group").is_empty() && parent.str_at("resource") == "services";
    is_service.then(|| ObjectKey::new(id::SERVICE, parent.str_at("namespace"), parent.str_at("name")))
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(allocator) = self.allocator.take() {
            allocator.give_back(&self.key, &self.taken);
        }
    }
}

impl ServiceAllocator {
    /// Of a range of addresses; nothing is taken.
    pub fn new(range: Cidr, entropy: std::sync::Arc<dyn Entropy>) -> ServiceAllocator {
        ServiceAllocator { range, entropy, state: Mutex::new(State::default()) }
    }

    /// The range.
    pub fn range(&self) -> Cidr {
        self.range
    }

    /// Notes what the existing Services have.
    pub fn load(&self, source: &dyn Source) {
        let services = source.objects(id::SERVICE);
        let mut state = self.state();
        for service in services {
            let held = held(&service.to_tree());
            state.take(&service.key(), &held);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a new state of a Service its addresses and ports, in the tree and in the books. Objects of other kinds pass.
    pub fn reserve(
        &self,
        key: &ObjectKey,
        service: &mut Tree,
        old: Option<&Tree>,
        source: &dyn Source,
    ) -> Result<Reservation<'_>, Vec<FieldError>> {
        if key.kind != id::SERVICE {
            return Ok(Reservation {
                allocator: None,
                key: key.clone(),
                taken: Held::default(),
                left: Held::default(),
            });
        }
        let before = old.map(held).unwrap_or_default();
        carry_over(service, old);
        let mut errors = families(service, old);
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut state = self.state();
        let mut taken = Held::default();
        self.assign_ips(&mut state, key, service, source, &mut taken, &mut errors);
        self.assign_ports(&mut state, key, service, &mut taken, &mut errors);
        let after = held(service);
        let left = Held {
            ips: before.ips.iter().filter(|ip| !after.ips.contains(ip)).copied().collect(),
            ports: before.ports.iter().filter(|p| !after.ports.contains(p)).copied().collect(),
        };
        drop(state);
        let reservation = Reservation { allocator: Some(self), key: key.clone(), taken, left };
        if errors.is_empty() { Ok(reservation) } else { Err(errors) }
    }

    fn assign_ips(
        &self,
        state: &mut State,
        key: &ObjectKey,
        service: &mut Tree,
        source: &dyn Source,
        taken: &mut Held,
        errors: &mut Vec<FieldError>,
    ) {
        let asked = service.list_at("spec.clusterIPs").first().and_then(Tree::as_str).unwrap_or_default().to_owned();
        if service.str_at("spec.type") == "ExternalName" || asked == "None" {
            return;
        }
        let path = FieldPath::of("spec.clusterIPs");
        let shown = service.path("spec.clusterIPs").cloned().unwrap_or_else(|| Tree::List(vec!["".into()]));
        let why = |detail: &str| FieldError::invalid(&path, &shown, format!("failed to allocate IP {asked}: {detail}"));
        let ranges = ready_ranges(self.range, source);
        let ip = if asked.is_empty() {
            match ranges.iter().find_map(|range| self.free_ip(*range, state, key, source)) {
                Some(ip) => ip,
                None => return errors.push(why("range is full")),
            }
        } else {
            // What is no address, or one of another family, was refused before.
            let Ok(ip) = asked.parse::<Ipv4Addr>() else { return };
            let range = self.range;
            let held = state.ips.get(&ip) == Some(key);
            if !held && !ranges.iter().any(|range| range.contains(ip)) {
                return errors.push(why(&format!(
                    "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}"
                )));
            }
            if state.ips.get(&ip).is_some_and(|owner| owner != key) || (!held && is_foreign(ip, key, source)) {
                return errors.push(why("provided IP is already allocated"));
            }
            ip
        };
        // What the books have under this name already stays there if the write fails.
        if state.ips.insert(ip, key.clone()).is_none() {
            taken.ips.push(ip);
        }
        service.set("spec.clusterIP", ip.to_string());
        service.set("spec.clusterIPs", Tree::List(vec![ip.to_string().into()]));
    }

    /// A free address of a range: tried at random first, then in order.
    fn free_ip(&self, range: Cidr, state: &State, key: &ObjectKey, source: &dyn Source) -> Option<Ipv4Addr> {
        let size = range.size();
        let free = |offset: u32| {
            // The last address is the broadcast's.
            let reserved = range == self.range && RESERVED.contains(&offset);
            let usable = offset != 0 && u64::from(offset) != size - 1 && !reserved;
            let free = |ip: &Ipv4Addr| !state.ips.contains_key(ip) && !is_foreign(*ip, key, source);
            range.nth(offset).filter(|ip| usable && free(ip))
        };
        let random = (0..16).find_map(|_| free((self.entropy.u64() % size) as u32));
        random.or_else(|| (0..size as u32).find_map(free))
    }

    fn assign_ports(
        &self,
        state: &mut State,
        key: &ObjectKey,
        service: &mut Tree,
        taken: &mut Held,
        errors: &mut Vec<FieldError>,
    ) {
        let kind = service.str_at("spec.type").to_owned();
        let automatic = service.path("spec.allocateLoadBalancerNodePorts").and_then(Tree::as_bool).unwrap_or(true);
        let wants = kind == "NodePort" || (kind == "LoadBalancer" && automatic);
        let allowed = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
        let mut chosen: Vec<(u16, Protocol)> = Vec::new();
        let ports = service.path_mut("spec.ports").and_then(Tree::as_list_mut);
        for (i, port) in ports.into_iter().flatten().enumerate() {
            let protocol = Protocol::of(port);
            let asked = port.i64_at("nodePort").unwrap_or(0);
            let path = FieldPath::of("spec.ports").index(i).child("nodePort");
            if !allowed || (asked == 0 && !wants) {
                continue;
            }
            let number = if asked == 0 {
                // One number may serve the same port of several protocols (DNS).
                let sibling = chosen.iter().find(|(n, p)| *p != protocol && state.port_free(*n, protocol, key));
                match sibling.map(|(n, _)| *n).filter(|_| port.i64_at("port") == Some(53)) {
                    Some(number) => number,
                    None => match self.free_port(state) {
                        Some(number) => number,
                        None => {
                            errors.push(FieldError::invalid(&path, &Tree::Int(0), "range is full"));
                            continue;
                        }
                    },
                }
            } else {
                match u16::try_from(asked).ok().filter(|n| (PORT_FIRST..=PORT_LAST).contains(n)) {
                    None => {
                        let why = format!(
                            "provided port is not in the valid range. The range of valid ports is {PORT_FIRST}-{PORT_LAST}"
                        );
                        errors.push(FieldError::invalid(&path, &Tree::Int(asked), why));
                        continue;
                    }
                    Some(number) if !state.port_free(number, protocol, key) || chosen.contains(&(number, protocol)) => {
                        errors.push(FieldError::invalid(
                            &path,
                            &Tree::Int(asked),
                            "provided port is already allocated",
                        ));
                        continue;
                    }
                    Some(number) => number,
                }
            };
            chosen.push((number, protocol));
            if state.ports.insert((number, protocol), key.clone()).is_none() {
                taken.ports.push((number, protocol));
            }
            port.insert("nodePort", i64::from(number));
        }
        self.assign_health_port(state, key, service, taken, errors);
    }

    /// The port at which a load balancer asks a node whether it has pods of the Service.
    fn assign_health_port(
        &self,
        state: &mut State,
        key: &ObjectKey,
        service: &mut Tree,
        taken: &mut Held,
        errors: &mut Vec<FieldError>,
    ) {
        if service.str_at("spec.type") != "LoadBalancer" || service.str_at("spec.externalTrafficPolicy") != "Local" {
            return;
        }
        let path = FieldPath::of("spec.healthCheckNodePort");
        let asked = service.i64_at("spec.healthCheckNodePort").unwrap_or_default();
        let number = match u16::try_from(asked) {
            Ok(0) => self.free_port(state),
            Ok(number) if state.port_free(number, Protocol::Tcp, key) => Some(number),
            _ => {
                return errors.push(FieldError::invalid(
                    &path,
                    &Tree::Int(asked),
                    "provided port is already allocated",
                ));
            }
        };
        let Some(number) = number else {
            return errors.push(FieldError::invalid(&path, &Tree::Int(0), "range is full"));
        };
        if state.ports.insert((number, Protocol::Tcp), key.clone()).is_none() {
            taken.ports.push((number, Protocol::Tcp));
        }
        service.set("spec.healthCheckNodePort", i64::from(number));
    }

    fn free_port(&self, state: &State) -> Option<u16> {
        let count = u64::from(PORT_LAST - PORT_FIRST) + 1;
        let free = |n: u16| {
            let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
            all.iter().all(|p| !state.ports.contains_key(&(n, *p))).then_some(n)
        };
        let random = (0..16).find_map(|_| free(PORT_FIRST + (self.entropy.u64() % count) as u16));
        random.or_else(|| (PORT_FIRST..=PORT_LAST).find_map(free))
    }

    fn give_back(&self, key: &ObjectKey, held: &Held) {
        let mut state = self.state();
        for ip in &held.ips {
            if state.ips.get(ip) == Some(key) {
                state.ips.remove(ip);
            }
        }
        for port in &held.ports {
            if state.ports.get(port) == Some(key) {
                state.ports.remove(port);
            }
        }
    }

    /// A Service is gone: everything it had is free. Returns its addresses.
    pub fn release(&self, key: &ObjectKey) -> Moved {
        if key.kind != id::SERVICE {
            return Moved::default();
        }
        let mut state = self.state();
        let left = state.ips.iter().filter(|(_, owner)| *owner == key).map(|(ip, _)| *ip).collect();
        state.ips.retain(|_, owner| owner != key);
        state.ports.retain(|_, owner| owner != key);
        Moved { taken: Vec::new(), left }
    }

    /// All addresses and the Services that have them.
    pub fn addresses(&self) -> Vec<(Ipv4Addr, ObjectKey)> {
        self.state().ips.iter().map(|(ip, owner)| (*ip, owner.clone())).collect()
    }

    /// The Service that has an address.
    pub fn owner(&self, ip: Ipv4Addr) -> Option<ObjectKey> {
        self.state().ips.get(&ip).cloned()
    }
}

impl State {
    fn port_free(&self, number: u16, protocol: Protocol, key: &ObjectKey) -> bool {
        self.ports.get(&(number, protocol)).is_none_or(|owner| owner == key)
    }

    fn take(&mut self, key: &ObjectKey, held: &Held) {
        self.ips.extend(held.ips.iter().map(|ip| (*ip, key.clone())));
        self.ports.extend(held.ports.iter().map(|p| (*p, key.clone())));
    }
}

/// What a Service says it has.
fn held(service: &Tree) -> Held {
    let ips = service.list_at("spec.clusterIPs").iter().filter_map(|ip| ip.as_str()?.parse().ok()).collect();
    let ports = service.list_at("spec.ports").iter().filter_map(|port| {
        let number = u16::try_from(port.i64_at("nodePort")?).ok().filter(|n| *n != 0)?;
        Some((number, Protocol::of(port)))
    });
    let health = service.i64_at("spec.healthCheckNodePort").and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0);
    Held { ips, ports: ports.chain(health.map(|number| (number, Protocol::Tcp))).collect() }
}

/// An update that says nothing of addresses and ports keeps them; one that changes the type loses what the type does not have
/// (`patchAllocatedValues` and `dropTypeDependentFields` in `pkg/registry/core/service`).
fn carry_over(service: &mut Tree, old: Option<&Tree>) {
    let Some(old) = old else { return };
    let (kind, old_kind) = (service.str_at("spec.type").to_owned(), old.str_at("spec.type").to_owned());
    let external = |kind: &str| kind == "ExternalName";
    if external(&kind) && !external(&old_kind) {
        if service.str_at("spec.clusterIP") == old.str_at("spec.clusterIP") {
            for key in ["spec.clusterIP", "spec.clusterIPs", "spec.ipFamilies", "spec.ipFamilyPolicy"] {
                service.remove(key);
            }
        }
    } else if !external(&kind) && !external(&old_kind) && service.str_at("spec.clusterIP").is_empty() {
        for key in ["spec.clusterIP", "spec.clusterIPs"] {
            if let Some(value) = old.path(key) {
                service.set(key, value.clone());
            }
        }
    }
    let has_ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    let old_ports = old.list_at("spec.ports").to_vec();
    let ports = service.path_mut("spec.ports").and_then(Tree::as_list_mut);
    for port in ports.into_iter().flatten() {
        let twin =
            old_ports.iter().find(|o| o.i64_at("port") == port.i64_at("port") && Protocol::of(o) == Protocol::of(port));
        let old_number = twin.and_then(|o| o.i64_at("nodePort")).unwrap_or(0);
        let number = port.i64_at("nodePort").unwrap_or(0);
        if has_ports(&kind) && number == 0 && old_number != 0 {
            port.insert("nodePort", old_number);
        } else if !has_ports(&kind) && has_ports(&old_kind) && number == old_number {
            port.remove("nodePort");
        }
    }
}

/// This cluster has IPv4 only.
/// The address family that the cluster has Services in.
const FAMILY: &str = "IPv4";

/// Fills in address families and policy, and finds what asks for more than the cluster has.
/// (`initIPFamilyFields` in `pkg/registry/core/service/storage/alloc.go`)
fn families(service: &mut Tree, old: Option<&Tree>) -> Vec<FieldError> {
    const POLICY: &str = "spec.ipFamilyPolicy";
    const FAMILIES: &str = "spec.ipFamilies";
    if service.str_at("spec.type") == "ExternalName" || keeps_preference(service, old) {
        return Vec::new();
    }
    let headless = service.str_at("spec.clusterIP") == "None" && service.map_at("spec.selector").is_empty();
    if service.str_at(POLICY).is_empty() {
        let before = old.map(|old| old.str_at(POLICY)).unwrap_or_default().to_owned();
        let policy = match before.as_str() {
            "" if headless => "RequireDualStack",
            "" => "SingleStack",
            before => before,
        };
        service.set(POLICY, policy);
    }
    let faults = corten_kinds::validate::address_faults(service);
    if !faults.is_empty() {
        return faults;
    }
    let policy = service.str_at(POLICY).to_owned();
    let single = policy == "SingleStack";
    let mut errors = Vec::new();
    let mut refuse = |path: FieldPath, value: &Tree, why: String| errors.push(FieldError::invalid(&path, value, why));
    if let Some(old) = old {
        for (list, what) in [("spec.clusterIPs", "cluster IP"), (FAMILIES, "IP family")] {
            let (now, was) = (service.list_at(list).to_vec(), old.list_at(list));
            if single && now == was && now.len() > 1 {
                service.set(list, Tree::List(now[..1].to_vec()));
            } else if !single && was.len() == 2 && now.len() == 1 && now[0] == was[0] {
                let why = format!("must be 'SingleStack' to release the secondary {what}");
                refuse(FieldPath::of(POLICY), &Tree::from(policy.as_str()), why);
            }
        }
    }
    for (list, what) in [("spec.clusterIPs", "cluster IPs"), (FAMILIES, "IP families")] {
        if single && service.list_at(list).len() == 2 {
            let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            refuse(FieldPath::of(POLICY), &Tree::from(policy.as_str()), why);
        }
    }
    let ips = service.list_at("spec.clusterIPs").to_vec();
    for (i, ip) in ips.iter().filter_map(Tree::as_str).enumerate().take_while(|(_, ip)| *ip != "None") {
        if i < service.list_at(FAMILIES).len() {
            continue;
        }
        if ip.contains(':') {
            let why = "IPv6 is not configured on this cluster".to_owned();
            refuse(FieldPath::of("spec.clusterIPs").index(i), &Tree::List(ips.clone()), why);
        } else {
            append(service, FAMILIES, FAMILY);
        }
    }
    if !errors.is_empty() {
        return errors;
    }
    if headless {
        let first = service.list_at(FAMILIES).first().and_then(Tree::as_str).unwrap_or_default().to_owned();
        if first.is_empty() {
            append(service, FAMILIES, FAMILY);
        }
        if service.list_at(FAMILIES).len() < 2 && !single {
            append(service, FAMILIES, if first == "IPv6" { "IPv4" } else { "IPv6" });
        }
        return Vec::new();
    }
    if policy == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid_str(&FieldPath::of(POLICY), &policy, why));
    }
    for (i, family) in service.list_at(FAMILIES).iter().enumerate().filter(|(_, f)| f.as_str() != Some(FAMILY)) {
        let path = FieldPath::of(FAMILIES).index(i);
        errors.push(FieldError::invalid(&path, family, "not configured on this cluster"));
    }
    if errors.is_empty() && service.list_at(FAMILIES).is_empty() {
        append(service, FAMILIES, FAMILY);
    }
    errors
}

fn append(service: &mut Tree, list: &str, text: &str) {
    let mut items = service.list_at(list).to_vec();
    items.push(text.into());
    service.set(list, Tree::List(items));
}

/// A Service that prefers two stacks and says nothing new of its addresses stays as it is.
/// (`isMatchingPreferDualStackClusterIPFields`)
fn keeps_preference(service: &Tree, old: Option<&Tree>) -> bool {
    let Some(old) = old else { return false };
    let prefers = |tree: &Tree| tree.str_at("spec.ipFamilyPolicy") == "PreferDualStack";
    let same = |list: &str| service.list_at(list) == old.list_at(list);
    prefers(service) && prefers(old) && same("spec.clusterIPs") && same("spec.ipFamilies")
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_base::entropy::SeededEntropy;
    use corten_tree::tree;

    /// A cluster with these objects.
    #[derive(Default)]
    struct Nothing(Vec<std::sync::Arc<corten_object::Object>>);

    impl Source for Nothing {
        fn object(&self, key: &ObjectKey) -> Option<std::sync::Arc<corten_object::Object>> {
            self.0.iter().find(|object| object.key() == *key).cloned()
        }

        fn objects(&self, kind: corten_object::KindId) -> Vec<std::sync::Arc<corten_object::Object>> {
            self.0.iter().filter(|object| object.key().kind == kind).cloned().collect()
        }
    }

    fn object(kind: corten_object::KindId, tree: Tree) -> std::sync::Arc<corten_object::Object> {
        let bytes = bytes::Bytes::from(tree.to_json());
        std::sync::Arc::new(corten_object::Object::parse::<&str>(kind, bytes, corten_base::Revision(1), &[]).unwrap())
    }

    #[test]
    fn addresses_come_from_all_ready_service_cidrs() {
        let range = |name: &str, cidr: &str, ready: &str| {
            object(
                id::SERVICE_CIDR,
                tree!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
                    "spec": {"cidrs": [cidr]}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}),
            )
        };
        let taken = object(
            id::IP_ADDRESS,
            tree!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": "10.99.0.5"},
                "spec": {"parentRef": {"resource": "gateways", "name": "g", "namespace": "default"}}}),
        );
        let source =
            Nothing(vec![range("kubernetes", "10.43.0.0/28", "False"), range("more", "10.99.0.0/29", "True"), taken]);
        let a = allocator();
        let mut seen = Vec::new();
        // Six addresses, of which somebody else has one.
        for i in 0..5 {
            let mut service = tree!({"spec": {"type": "ClusterIP"}});
            let moved = a.reserve(&key(&format!("s{i}")), &mut service, None, &source).unwrap().keep();
            seen.extend(moved.taken.iter().map(ToString::to_string));
        }
        seen.sort();
        assert_eq!(seen, ["10.99.0.1", "10.99.0.2", "10.99.0.3", "10.99.0.4", "10.99.0.6"]);
        let asks = |ip: &str| tree!({"spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]}});
        let of = |ip: &str| errors(a.reserve(&key("x"), &mut asks(ip), None, &source));
        assert!(of("10.99.0.5").contains("provided IP is already allocated"));
        assert!(of("10.43.0.5").contains("is not in the valid range"), "its range is not ready");
        assert_eq!(a.release(&key("s0")).left.len(), 1);
    }

    fn allocator() -> ServiceAllocator {
        ServiceAllocator::new("10.43.0.0/28".parse().unwrap(), std::sync::Arc::new(SeededEntropy::new(1)))
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(id::SERVICE, "default", name)
    }

    fn errors(result: Result<Reservation<'_>, Vec<FieldError>>) -> String {
        result.err().map(|e| e.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")).unwrap_or_default()
    }

    #[test]
    fn addresses_are_given_taken_and_given_back() {
        let a = allocator();
        let mut one = tree!({"spec": {"type": "ClusterIP"}});
        a.reserve(&key("one"), &mut one, None, &Nothing::default()).unwrap().keep();
        let ip = one.str_at("spec.clusterIP").to_owned();
        assert!(ip.starts_with("10.43.0."));
        assert_eq!(one.list_at("spec.clusterIPs"), [Tree::from(ip.as_str())]);
        let mut two = tree!({"spec": {"type": "ClusterIP", "clusterIP": (ip.as_str()), "clusterIPs": [(ip.as_str())]}});
        assert_eq!(
            errors(a.reserve(&key("two"), &mut two, None, &Nothing::default())),
            format!(
                "spec.clusterIPs: Invalid value: [{ip:?}]: failed to allocate IP {ip}: provided IP is already allocated"
            )
        );
        let mut again =
            tree!({"spec": {"type": "ClusterIP", "clusterIP": (ip.as_str()), "clusterIPs": [(ip.as_str())]}});
        drop(a.reserve(&key("one"), &mut again, None, &Nothing::default()).unwrap());
        assert!(
            errors(a.reserve(&key("two"), &mut two, None, &Nothing::default())).contains("already allocated"),
            "a failed twin frees nothing"
        );
        a.release(&key("one"));
        drop(a.reserve(&key("two"), &mut two, None, &Nothing::default()).unwrap());
        a.reserve(&key("three"), &mut two, None, &Nothing::default()).unwrap().keep();
        // 14 usable minus the two reserved and the one taken.
        for i in 0..11 {
            let mut s = tree!({"spec": {"type": "ClusterIP"}});
            a.reserve(&key(&format!("s{i}")), &mut s, None, &Nothing::default()).unwrap().keep();
        }
        let mut s = tree!({"spec": {"type": "ClusterIP"}});
        assert!(errors(a.reserve(&key("full"), &mut s, None, &Nothing::default())).contains("range is full"));
    }

    #[test]
    fn node_ports_follow_the_type() {
        let a = allocator();
        let mut s = tree!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        a.reserve(&key("s"), &mut s, None, &Nothing::default()).unwrap().keep();
        let number = s.list_at("spec.ports")[0].i64_at("nodePort").unwrap();
        assert!((30000..=32767).contains(&number));
        let mut t = tree!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": number}]}});
        assert!(
            errors(a.reserve(&key("t"), &mut t, None, &Nothing::default()))
                .contains("provided port is already allocated")
        );
        let old = s.clone();
        let mut again = tree!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        a.reserve(&key("s"), &mut again, Some(&old), &Nothing::default()).unwrap().keep();
        assert_eq!(again.list_at("spec.ports")[0].i64_at("nodePort"), Some(number));
        let mut plain = old.clone();
        plain.set("spec.type", "ClusterIP");
        a.reserve(&key("s"), &mut plain, Some(&old), &Nothing::default()).unwrap().keep();
        assert_eq!(plain.list_at("spec.ports")[0].i64_at("nodePort"), None);
        a.reserve(&key("t"), &mut t, None, &Nothing::default()).unwrap().keep();
        let mut bad = tree!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}});
        assert!(errors(a.reserve(&key("u"), &mut bad, None, &Nothing::default())).contains("not in the valid range"));
    }
}
