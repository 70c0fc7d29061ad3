//! The pods' nftables table: host ports in, masquerade out.

use std::net::Ipv4Addr;

use super::ipam::Range;
use super::{Allocation, HostPort, NetConfig};
use crate::host::FORWARDING_NOTE;
use crate::netlink::Socket;
use crate::nft::{AddressType, ChainType, Data, Field, Hook, Maps, Part, Reg, Rule, SetSpec, Transaction, Verdict};
use crate::{Names, NetError};

const HOST_PORTS: SetSpec = SetSpec {
    name: "host-ports",
    key: &[Part::Address, Part::Protocol, Part::Port],
    maps: Maps::Value(&[Part::Address, Part::Port]),
    dynamic: None,
};
/// Pods that may reach themselves through their host port.
const HAIRPIN: SetSpec =
    SetSpec { name: "hairpin", key: &[Part::Address, Part::Address], maps: Maps::Nothing, dynamic: None };

const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::LOCALHOST, 8);

/// Replaces the whole table in one step.
pub(super) fn replace(
    socket: &mut Socket,
    names: &Names,
    config: &NetConfig,
    allocations: &[Allocation],
    forwarding_was_off: bool,
) -> Result<(), NetError> {
    let node_ip = Range::new(config.pod_cidr)?.node();
    let mut tx = Transaction::new(&names.pod_table());
    tx.replace_table();
    if forwarding_was_off {
        tx.chain(FORWARDING_NOTE);
    }
    tx.set(&HOST_PORTS);
    tx.set(&HAIRPIN);
    tx.chain("to-host-ports");
    tx.rule("to-host-ports", |r| host_port_rule(r, false));
    tx.rule("to-host-ports", |r| host_port_rule(r, true));
    tx.base_chain("prerouting", ChainType::Nat, Hook::Prerouting, -100);
    tx.base_chain("output", ChainType::Nat, Hook::Output, -100);
    for chain in ["prerouting", "output"] {
        tx.rule(chain, |r| {
            r.address_type(AddressType::LocalDestination);
            r.verdict(Verdict::Jump("to-host-ports"));
        });
    }
    tx.base_chain("postrouting", ChainType::Nat, Hook::Postrouting, 100);
    tx.rule("postrouting", |r| {
        r.in_range(Field::SourceAddress, LOOPBACK, true);
        r.in_range(Field::DestinationAddress, config.pod_cidr, true);
        r.translate_source(node_ip);
    });
    tx.rule("postrouting", |r| {
        r.translated();
        r.load(Field::SourceAddress, Reg(0));
        r.load(Field::DestinationAddress, Reg(1));
        r.in_set(HAIRPIN.name, Reg(0));
        r.translate_source(node_ip);
    });
    tx.rule("postrouting", |r| {
        r.in_range(Field::SourceAddress, config.pod_cidr, true);
        r.in_range(Field::DestinationAddress, config.cluster_cidr, false);
        r.by_link_not_to(&names.link_prefix());
        r.masquerade();
    });
    // Links of pods with host ports may carry packets of 127.0.0.1, for `localhost:PORT`; a pod must not send any. After
    // connection tracking and before answers are translated back.
    tx.base_chain("guard", ChainType::Filter, Hook::Prerouting, -150);
    tx.rule("guard", |r| {
        r.by_link_from(&names.link_prefix());
        r.in_range(Field::DestinationAddress, LOOPBACK, true);
        r.verdict(Verdict::Drop);
    });
    for allocation in allocations {
        add_elements(&mut tx, allocation);
    }
    tx.commit(socket)
}

/// Follows a port of the node; `any_address`: ports that are open on all addresses, whose key says 0.0.0.0.
fn host_port_rule(r: &mut Rule<'_, '_>, any_address: bool) {
    if any_address {
        r.immediate(Reg(0), [0; 4]);
    } else {
        r.load(Field::DestinationAddress, Reg(0));
    }
    r.load(Field::Protocol, Reg(1));
    r.load(Field::DestinationPort, Reg(2));
    r.value_from(HOST_PORTS.name, Reg(0), Reg(4));
    r.translate_destination(Reg(4));
}

/// Opens an allocation's host ports.
pub(super) fn open_ports(socket: &mut Socket, names: &Names, allocation: &Allocation) -> Result<(), NetError> {
    if allocation.host_ports.is_empty() {
        return Ok(());
    }
    let mut tx = Transaction::new(&names.pod_table());
    add_elements(&mut tx, allocation);
    tx.commit(socket)
}

/// Closes them; harmless if they are closed.
pub(super) fn close_ports(socket: &mut Socket, names: &Names, allocation: &Allocation) -> Result<(), NetError> {
    if allocation.host_ports.is_empty() {
        return Ok(());
    }
    // Adding first makes the deletion work whatever was there.
    let mut tx = Transaction::new(&names.pod_table());
    add_elements(&mut tx, allocation);
    let keys: Vec<_> = allocation.host_ports.iter().map(key).collect();
    tx.delete_elements(HOST_PORTS.name, keys.iter().map(|key| &key[..]));
    tx.delete_elements(HAIRPIN.name, [&hairpin(allocation)[..]]);
    tx.commit(socket)
}

fn add_elements(tx: &mut Transaction, allocation: &Allocation) {
    let elements: Vec<_> =
        allocation.host_ports.iter().map(|port| (key(port), value(allocation.address.ip, port))).collect();
    tx.add_elements(HOST_PORTS.name, elements.iter().map(|(key, value)| (&key[..], Data::Value(value))));
    if !elements.is_empty() {
        tx.add_elements(HAIRPIN.name, [(&hairpin(allocation)[..], Data::None)]);
    }
}

fn key(port: &HostPort) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    key[4] = port.protocol.number();
    key[8..10].copy_from_slice(&port.host_port.to_be_bytes());
    key
}

fn value(ip: Ipv4Addr, port: &HostPort) -> [u8; 8] {
    let mut value = [0; 8];
    value[..4].copy_from_slice(&ip.octets());
    value[4..6].copy_from_slice(&port.container_port.to_be_bytes());
    value
}

fn hairpin(allocation: &Allocation) -> [u8; 8] {
    let ip = u64::from(u32::from(allocation.address.ip));
    (ip << 32 | ip).to_be_bytes()
}
