//! Links, addresses, routes and neighbours through route netlink.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::NetError;
use crate::netlink::{Attrs, Batch, CREATE, EXCL, Family, REPLACE, Refusal, Socket, attribute};

const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
/// Route protocol number that marks our routes (`ip route` shows it); none that iproute2 names.
pub(crate) const ROUTE_PROTOCOL: u8 = 67;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// A link as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
}

/// Both ends of a pod's link.
pub(crate) struct PodLink<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) host_mac: Mac,
    pub(crate) pod_name: &'a str,
    pub(crate) pod_mac: Mac,
    pub(crate) pod_netns: BorrowedFd<'a>,
    pub(crate) mtu: u32,
}

/// A route to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) destination: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) link: u32,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) source: Option<Ipv4Addr>,
}

/// Requests that go to the kernel together.
#[derive(Default)]
pub(crate) struct RouteBatch {
    batch: Batch,
    what: Vec<String>,
}

impl RouteBatch {
    fn add(&mut self, what: String, kind: u16, flags: u16, body: impl FnOnce(&mut Attrs<'_>)) {
        self.what.push(what);
        self.batch.message(kind, flags, body);
    }

    /// Makes a veth pair with one end inside the pod's namespace. An end cannot be up before its peer exists.
    pub(crate) fn pod_link(&mut self, link: &PodLink<'_>) {
        self.add(format!("create link {}", link.host_name), libc::RTM_NEWLINK, CREATE | EXCL, |m| {
            link_header(m, 0, false);
            m.text(libc::IFLA_IFNAME, link.host_name);
            m.u32(libc::IFLA_MTU, link.mtu);
            m.put(libc::IFLA_ADDRESS, &link.host_mac);
            m.nest(libc::IFLA_LINKINFO, |info| {
                info.text(libc::IFLA_INFO_KIND, "veth");
                info.nest(libc::IFLA_INFO_DATA, |data| {
                    data.nest(VETH_INFO_PEER, |peer| {
                        link_header(peer, 0, false);
                        peer.text(libc::IFLA_IFNAME, link.pod_name);
                        peer.u32(libc::IFLA_MTU, link.mtu);
                        peer.put(libc::IFLA_ADDRESS, &link.pod_mac);
                        peer.u32(libc::IFLA_NET_NS_FD, link.pod_netns.as_raw_fd() as u32);
                    });
                });
            });
        });
    }

    /// Makes a link that only carries addresses: a bridge without ports (dummy links are missing on some kernels).
    pub(crate) fn address_link(&mut self, name: &str, mtu: u32) {
        self.add(format!("create link {name}"), libc::RTM_NEWLINK, CREATE | EXCL, |m| {
            link_header(m, 0, true);
            m.text(libc::IFLA_IFNAME, name);
            m.u32(libc::IFLA_MTU, mtu);
            m.nest(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, "bridge"));
        });
    }

    /// Brings a link up.
    pub(crate) fn up(&mut self, index: u32) {
        self.add(format!("bring link {index} up"), libc::RTM_NEWLINK, 0, |m| link_header(m, index, true));
    }

    /// No automatic link-local IPv6 address: the host's ends need none.
    pub(crate) fn no_automatic_ipv6(&mut self, index: u32) {
        self.add(format!("set address mode of link {index}"), libc::RTM_NEWLINK, 0, |m| {
            m.raw(&[0, 0, 0, 0]);
            m.raw(&index.to_ne_bytes());
            m.raw(&[0; 8]);
            m.nest(libc::IFLA_AF_SPEC, |families| {
                families.nest(libc::AF_INET6 as u16, |v6| v6.put(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]));
            });
        });
    }

    pub(crate) fn address(&mut self, index: u32, ip: Ipv4Addr, prefix: u8) {
        self.add(format!("add address {ip}/{prefix}"), libc::RTM_NEWADDR, CREATE | REPLACE, |m| {
            m.raw(&[libc::AF_INET as u8, prefix, 0, libc::RT_SCOPE_UNIVERSE]);
            m.raw(&index.to_ne_bytes());
            m.put(libc::IFA_LOCAL, &ip.octets());
            m.put(libc::IFA_ADDRESS, &ip.octets());
        });
    }

    pub(crate) fn route(&mut self, route: Route) {
        let what = format!("add route {}/{}", route.destination, route.prefix);
        self.add(what, libc::RTM_NEWROUTE, CREATE | REPLACE, |m| {
            let scope = if route.gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
            route_header(m, route.prefix, scope);
            m.put(libc::RTA_DST, &route.destination.octets());
            m.u32(libc::RTA_OIF, route.link);
            if let Some(gateway) = route.gateway {
                m.put(libc::RTA_GATEWAY, &gateway.octets());
            }
            if let Some(source) = route.source {
                m.put(libc::RTA_PREFSRC, &source.octets());
            }
        });
    }

    /// A permanent neighbour, so that nobody has to ask by ARP.
    pub(crate) fn neighbour(&mut self, index: u32, ip: Ipv4Addr, mac: Mac) {
        self.add(format!("add neighbour {ip}"), libc::RTM_NEWNEIGH, CREATE | REPLACE, |m| {
            m.raw(&[libc::AF_INET as u8, 0, 0, 0]);
            m.raw(&index.to_ne_bytes());
            m.raw(&libc::NUD_PERMANENT.to_ne_bytes());
            m.raw(&[0, libc::RTN_UNICAST]);
            m.put(libc::NDA_DST, &ip.octets());
            m.put(libc::NDA_LLADDR, &mac);
        });
    }

    /// Sends all; refusals with errno `harmless` are passed over.
    pub(crate) fn send(self, socket: &mut Socket, harmless: &[i32]) -> Result<(), NetError> {
        let RouteBatch { batch, what } = self;
        let first = what.first().cloned().unwrap_or_default();
        let refusals = socket.requests(batch).map_err(|source| NetError::kernel(first, source))?;
        let bad = |refusal: &Refusal| !refusal.error.raw_os_error().is_some_and(|errno| harmless.contains(&errno));
        match refusals.into_iter().find(bad) {
            Some(refusal) => {
                Err(NetError::kernel(format!("{}{}", what[refusal.place], refusal.remark()), refusal.error))
            }
            None => Ok(()),
        }
    }
}

/// `struct ifinfomsg`.
fn link_header(m: &mut Attrs<'_>, index: u32, up: bool) {
    let up = if up { libc::IFF_UP as u32 } else { 0 };
    m.raw(&[0; 4]);
    m.raw(&index.to_ne_bytes());
    m.raw(&up.to_ne_bytes());
    m.raw(&up.to_ne_bytes());
}

/// `struct rtmsg` of a unicast route in the main table.
fn route_header(m: &mut Attrs<'_>, prefix: u8, scope: u8) {
    m.raw(&[libc::AF_INET as u8, prefix, 0, 0, libc::RT_TABLE_MAIN, ROUTE_PROTOCOL, scope, libc::RTN_UNICAST]);
    m.raw(&[0; 4]);
}

/// Opens a route socket in the calling thread's namespace.
pub(crate) fn open() -> Result<Socket, NetError> {
    Socket::open(Family::Route).map_err(|source| NetError::kernel("open a route netlink socket", source))
}

/// The link of that name.
pub(crate) fn find_link(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetError> {
    let found = socket.get(libc::RTM_GETLINK, |m| {
        m.raw(&[0; 16]);
        m.text(libc::IFLA_IFNAME, name);
    });
    let found = found.map_err(|source| NetError::kernel(format!("look for link {name}"), source))?;
    Ok(found.as_deref().and_then(read_link))
}

/// All links whose name starts with `prefix`.
pub(crate) fn links(socket: &mut Socket, prefix: &str) -> Result<Vec<Link>, NetError> {
    let mut found = Vec::new();
    let each = |payload: &[u8]| found.extend(read_link(payload).filter(|link| link.name.starts_with(prefix)));
    socket
        .dump(libc::RTM_GETLINK, |m| m.raw(&[0; 16]), each)
        .map_err(|source| NetError::kernel("list links", source))?;
    Ok(found)
}

fn read_link(payload: &[u8]) -> Option<Link> {
    let attributes = payload.get(16..)?;
    let name = attribute(attributes, libc::IFLA_IFNAME)?;
    Some(Link {
        index: u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?),
        name: String::from_utf8_lossy(name).trim_end_matches('\0').to_owned(),
        mtu: u32::from_ne_bytes(attribute(attributes, libc::IFLA_MTU)?.try_into().ok()?),
    })
}

/// Removes a link by name with its routes and addresses; the other end of a pair goes with it. Harmless if absent.
pub(crate) fn delete_link(socket: &mut Socket, name: &str) -> Result<(), NetError> {
    let gone = socket.request(libc::RTM_DELLINK, 0, |m| {
        m.raw(&[0; 16]);
        m.text(libc::IFLA_IFNAME, name);
    });
    match gone {
        Err(error) if error.raw_os_error() != Some(libc::ENODEV) => {
            Err(NetError::kernel(format!("delete link {name}"), error))
        }
        _ => Ok(()),
    }
}

/// The link of the IPv4 default route, if there is one.
pub(crate) fn default_route_link(socket: &mut Socket) -> io::Result<Option<Link>> {
    let mut index = None;
    socket.dump(
        libc::RTM_GETROUTE,
        |m| {
            m.raw(&[libc::AF_INET as u8]);
            m.raw(&[0; 11]);
        },
        |payload| {
            let Some(attributes) = payload.get(12..) else { return };
            if payload[1] == 0 && payload[4] == libc::RT_TABLE_MAIN {
                let link = attribute(attributes, libc::RTA_OIF).and_then(|oif| oif.try_into().ok());
                index = index.or(link.map(u32::from_ne_bytes));
            }
        },
    )?;
    let Some(index) = index else { return Ok(None) };
    let found = socket.get(libc::RTM_GETLINK, |m| {
        m.raw(&[0; 4]);
        m.raw(&index.to_ne_bytes());
        m.raw(&[0; 8]);
    })?;
    Ok(found.as_deref().and_then(read_link))
}

/// A route of the main table as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) destination: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) link: String,
}

/// All IPv4 routes of the main table.
pub(crate) fn routes(socket: &mut Socket) -> Result<Vec<Listed>, NetError> {
    let links = links(socket, "")?;
    let mut found = Vec::new();
    let header = |m: &mut Attrs<'_>| {
        m.raw(&[libc::AF_INET as u8]);
        m.raw(&[0; 11]);
    };
    let each = |payload: &[u8]| {
        let Some(attributes) = payload.get(12..).filter(|_| payload[4] == libc::RT_TABLE_MAIN) else { return };
        let octets = |kind| attribute(attributes, kind).and_then(|value| <[u8; 4]>::try_from(value).ok());
        let index = octets(libc::RTA_OIF).map(u32::from_ne_bytes);
        found.push(Listed {
            destination: octets(libc::RTA_DST).map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from),
            prefix: payload[1],
            link: links.iter().find(|link| Some(link.index) == index).map_or("-", |link| &link.name).to_owned(),
        });
    };
    socket.dump(libc::RTM_GETROUTE, header, each).map_err(|source| NetError::kernel("list routes", source))?;
    Ok(found)
}
