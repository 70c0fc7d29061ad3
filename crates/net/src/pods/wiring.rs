//! The kernel work of [`super::PodNetwork`], on its own thread.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard};

use super::ipam::{self, Files, Range};
use super::{Allocation, AttachRequest, HostPort, NetConfig, PodAddress, table};
use crate::host::HostState;
use crate::netlink::Socket;
use crate::route::{self, Mac, PodLink, Route, RouteBatch};
use crate::{Names, NetError, Protocol, conntrack, host, netns, nft};

/// The host's end of every pod link: the links are point to point, so one address serves all.
pub(super) const HOST_MAC: Mac = [0xee; 6];
pub(super) const POD_LINK: &str = "eth0";
const DEFAULT_MTU: u32 = 1500;

type Allocations = BTreeMap<String, Allocation>;

/// State of the kernel thread.
pub(super) struct Wiring {
    names: Names,
    config: NetConfig,
    mtu: u32,
    node_ip: Ipv4Addr,
    range: Range,
    files: Files,
    allocations: Arc<Mutex<Allocations>>,
    route: Socket,
    netfilter: Socket,
}

impl Wiring {
    /// Runs once on the kernel thread.
    pub(super) fn prepare(
        config: NetConfig,
        names: Names,
        allocations: Arc<Mutex<Allocations>>,
    ) -> Result<Self, NetError> {
        let files = Files::open(&config.state_dir)?;
        let mut route = route::open()?;
        let mut netfilter = nft::open()?;
        let mut range = Range::new(config.pod_cidr)?;
        let known = files.load()?;
        for allocation in &known {
            range.take(Some(allocation.address.ip), &allocation.sandbox_id)?;
        }
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            None => route::default_route_link(&mut route)
                .map_err(|source| NetError::kernel("read the default route", source))?
                .map_or(DEFAULT_MTU, |link| link.mtu),
        };
        let mut host = HostState::load(&config.state_dir)?;
        host.enable_forwarding(&mut netfilter)?;
        let node_ip = range.node();
        prepare_node_link(&mut route, &names, &config, node_ip, mtu)?;
        table::replace(&mut netfilter, &names, &config, &known, host.forwarding_was_off())?;
        delete_orphans(&mut route, &names, &known)?;
        host.open_firewalls(&mut netfilter, &names, config.host_netns.is_none())?;
        *lock(&allocations) = known.into_iter().map(|known| (known.sandbox_id.clone(), known)).collect();
        Ok(Wiring { names, config, mtu, node_ip, range, files, allocations, route, netfilter })
    }

    pub(super) fn repair(&mut self) -> Result<Vec<String>, NetError> {
        let mut repaired = Vec::new();
        let mut host = HostState::load(&self.config.state_dir)?;
        if !host::is_forwarding()? {
            host.enable_forwarding(&mut self.netfilter)?;
            repaired.push("forwarding of packets".to_owned());
        }
        let known: Vec<Allocation> = lock(&self.allocations).values().cloned().collect();
        if !nft::table_exists(&mut self.netfilter, &self.names.pod_table())? {
            let was_off = host.forwarding_was_off();
            table::replace(&mut self.netfilter, &self.names, &self.config, &known, was_off)?;
            host.open_firewalls(&mut self.netfilter, &self.names, self.config.host_netns.is_none())?;
            repaired.push(format!("nftables table {}", self.names.pod_table()));
        }
        let routes = route::routes(&mut self.route)?;
        let has = |destination: Ipv4Addr, prefix: u8, link: &str| {
            routes
                .iter()
                .any(|route| (route.destination, route.prefix, route.link.as_str()) == (destination, prefix, link))
        };
        let link = self.names.node_link();
        let ranges = [self.config.pod_cidr, self.config.service_cidr].map(network);
        if ranges.iter().any(|(destination, prefix)| !has(*destination, *prefix, &link)) {
            prepare_node_link(&mut self.route, &self.names, &self.config, self.node_ip, self.mtu)?;
            repaired.push(format!("link {link}"));
        }
        for Allocation { address, .. } in &known {
            let there = has(address.ip, 32, &address.host_link);
            // Without the link the pod is gone or must be attached again.
            if !there && route::find_link(&mut self.route, &address.host_link)?.is_some() {
                self.wire_host_end(address)?;
                repaired.push(format!("route to {}", address.ip));
            }
        }
        Ok(repaired)
    }

    pub(super) fn attach(&mut self, request: &AttachRequest) -> Result<PodAddress, NetError> {
        ipam::check_id(&request.sandbox_id)?;
        let namespace = File::open(&request.netns).map_err(|source| NetError::file(&request.netns, source))?;
        let own = netns::is_own(&namespace).map_err(|source| NetError::file(&request.netns, source))?;
        if own {
            let id = &request.sandbox_id;
            return Err(NetError::Invalid(format!("sandbox {id}: its network namespace is the host's own one")));
        }
        let known = lock(&self.allocations).get(&request.sandbox_id).cloned();
        if let Some(known) = known {
            self.wire(&known, &namespace)?;
            return Ok(known.address);
        }
        self.check_host_ports(&request.host_ports)?;
        let ip = self.range.take(request.ip, &request.sandbox_id)?;
        let allocation = Allocation {
            sandbox_id: request.sandbox_id.clone(),
            address: PodAddress {
                ip,
                gateway: self.node_ip,
                mac: pod_mac(ip).map(|byte| format!("{byte:02x}")).join(":"),
                host_link: self.names.pod_link(ip),
            },
            host_ports: request.host_ports.clone(),
        };
        // The file comes first: after a crash at any point the sandbox is known and can be detached.
        let wired = self
            .files
            .save(&allocation)
            .and_then(|()| self.wire(&allocation, &namespace))
            .and_then(|()| table::open_ports(&mut self.netfilter, &self.names, &allocation));
        lock(&self.allocations).insert(request.sandbox_id.clone(), allocation.clone());
        if let Err(error) = wired {
            if let Err(second) = self.detach(&request.sandbox_id) {
                tracing::warn!(sandbox = request.sandbox_id, error = %second, "undoing a failed attach");
            }
            return Err(error);
        }
        Ok(allocation.address)
    }

    fn check_host_ports(&self, wanted: &[HostPort]) -> Result<(), NetError> {
        let allocations = lock(&self.allocations);
        let held = allocations.values().flat_map(|held| held.host_ports.iter().map(move |port| (port, held)));
        for (port, holder) in held {
            let clash = |wanted: &&HostPort| {
                (wanted.host_port, wanted.protocol) == (port.host_port, port.protocol)
                    && (wanted.host_ip == port.host_ip || wanted.host_ip.is_none() || port.host_ip.is_none())
            };
            if let Some(wanted) = wanted.iter().find(clash) {
                return Err(NetError::HostPortTaken {
                    port: wanted.host_port,
                    protocol: wanted.protocol.as_str(),
                    holder: holder.sandbox_id.clone(),
                });
            }
        }
        Ok(())
    }

    /// Makes the link with all that belongs to it; what is there already is left alone.
    fn wire(&mut self, allocation: &Allocation, namespace: &File) -> Result<(), NetError> {
        let address = &allocation.address;
        let mut pod = netns::visit(namespace, || Socket::open(crate::netlink::Family::Route))
            .map_err(|source| NetError::kernel("enter the sandbox's network namespace", source))?;
        let host_end = route::find_link(&mut self.route, &address.host_link)?;
        let pod_end = route::find_link(&mut pod, POD_LINK)?;
        if host_end.is_none() || pod_end.is_none() {
            // Half a pair, or the pair of a namespace that is gone.
            if host_end.is_some() {
                route::delete_link(&mut self.route, &address.host_link)?;
            }
            let mut batch = RouteBatch::default();
            batch.pod_link(&PodLink {
                host_name: &address.host_link,
                host_mac: HOST_MAC,
                pod_name: POD_LINK,
                pod_mac: pod_mac(address.ip),
                pod_netns: namespace.as_fd(),
                mtu: self.mtu,
            });
            batch.send(&mut self.route, &[])?;
        }
        self.wire_pod_end(&mut pod, address)?;
        self.wire_host_end(address)?;
        if allocation.host_ports.is_empty() { Ok(()) } else { host::route_loopback(&address.host_link) }
    }

    fn wire_pod_end(&self, pod: &mut Socket, address: &PodAddress) -> Result<(), NetError> {
        let lo = require_link(pod, "lo")?;
        let eth0 = require_link(pod, POD_LINK)?;
        let mut batch = RouteBatch::default();
        batch.up(lo);
        batch.up(eth0);
        batch.address(eth0, address.ip, 32);
        batch.neighbour(eth0, address.gateway, HOST_MAC);
        let to_gateway =
            Route { destination: address.gateway, prefix: 32, link: eth0, gateway: None, source: Some(address.ip) };
        batch.route(to_gateway);
        batch.route(Route {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            gateway: Some(address.gateway),
            ..to_gateway
        });
        batch.send(pod, &[])
    }

    fn wire_host_end(&mut self, address: &PodAddress) -> Result<(), NetError> {
        let link = require_link(&mut self.route, &address.host_link)?;
        let mut batch = RouteBatch::default();
        batch.no_automatic_ipv6(link);
        batch.up(link);
        batch.neighbour(link, address.ip, pod_mac(address.ip));
        let source = Some(self.node_ip);
        batch.route(Route { destination: address.ip, prefix: 32, link, gateway: None, source });
        // Without IPv6 in the kernel the address mode is unknown.
        batch.send(&mut self.route, &[libc::EAFNOSUPPORT, libc::EOPNOTSUPP])?;
        host::forward_from(&address.host_link)
    }

    /// Undoes a failed attach in one go.
    fn detach(&mut self, sandbox_id: &str) -> Result<(), NetError> {
        let Some(allocation) = self.begin_detach(sandbox_id)? else { return Ok(()) };
        route::delete_link(&mut self.route, &allocation.address.host_link)?;
        self.finish_detach(&allocation)
    }

    /// What comes before the deletion of the link; `None` for an unknown sandbox.
    pub(super) fn begin_detach(&mut self, sandbox_id: &str) -> Result<Option<Allocation>, NetError> {
        let known = lock(&self.allocations).get(sandbox_id).cloned();
        if let Some(allocation) = &known {
            table::close_ports(&mut self.netfilter, &self.names, allocation)?;
        }
        Ok(known)
    }

    /// What comes after it. Harmless when two have begun at the same time.
    pub(super) fn finish_detach(&mut self, allocation: &Allocation) -> Result<(), NetError> {
        if lock(&self.allocations).get(&allocation.sandbox_id) != Some(allocation) {
            return Ok(());
        }
        if allocation.host_ports.iter().any(|port| port.protocol == Protocol::Udp) {
            let ip = allocation.address.ip;
            conntrack::delete_udp(&mut self.netfilter, |flow| flow.reply_source == ip)?;
        }
        self.files.remove(&allocation.sandbox_id)?;
        lock(&self.allocations).remove(&allocation.sandbox_id);
        self.range.release(allocation.address.ip);
        Ok(())
    }
}

/// The link with the node's address: the gateway of pods, and the host's way to service addresses and absent pods.
fn prepare_node_link(
    route: &mut Socket,
    names: &Names,
    config: &NetConfig,
    node_ip: Ipv4Addr,
    mtu: u32,
) -> Result<(), NetError> {
    let name = names.node_link();
    if route::find_link(route, &name)?.is_none() {
        let mut batch = RouteBatch::default();
        batch.address_link(&name, mtu);
        batch.send(route, &[])?;
    }
    let link = require_link(route, &name)?;
    let mut batch = RouteBatch::default();
    batch.no_automatic_ipv6(link);
    batch.up(link);
    batch.address(link, node_ip, 32);
    for (destination, prefix) in [config.pod_cidr, config.service_cidr].map(network) {
        batch.route(Route { destination, prefix, link, gateway: None, source: Some(node_ip) });
    }
    batch.send(route, &[libc::EAFNOSUPPORT, libc::EOPNOTSUPP])?;
    host::forward_from(&name)
}

/// A range's first address.
fn network((ip, prefix): (Ipv4Addr, u8)) -> (Ipv4Addr, u8) {
    (Ipv4Addr::from(u32::from(ip) & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)), prefix)
}

/// Links that no record knows: their record was lost.
fn delete_orphans(route: &mut Socket, names: &Names, known: &[Allocation]) -> Result<(), NetError> {
    for link in route::links(route, &names.link_prefix())? {
        let is_known = known.iter().any(|allocation| allocation.address.host_link == link.name);
        if !is_known && link.name != names.node_link() {
            tracing::warn!(link = link.name, "removing a pod's link that no record knows");
            route::delete_link(route, &link.name)?;
        }
    }
    Ok(())
}

fn require_link(socket: &mut Socket, name: &str) -> Result<u32, NetError> {
    let found = route::find_link(socket, name)?;
    let absent = || NetError::kernel(format!("look for link {name}"), std::io::Error::from_raw_os_error(libc::ENODEV));
    found.map(|link| link.index).ok_or_else(absent)
}

/// Derived from the address, so that a pod's neighbours never hold a stale one.
fn pod_mac(ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = ip.octets();
    [0x0a, 0x58, a, b, c, d]
}

fn lock(allocations: &Mutex<Allocations>) -> MutexGuard<'_, Allocations> {
    allocations.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
