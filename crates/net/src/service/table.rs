//! The services' nftables table: static chains, sets, and one chain per way of picking an endpoint.
//!
//! A packet's way: `services` looks its destination up in one verdict map; the element leads to a chain that picks a
//! number below the count of endpoints, looks (destination, number) up in one map of all endpoints and translates.
//! A change of endpoints is thus a change of elements only.

use super::ProxyConfig;
use super::plan::{Key, LOCAL_FIRST, Pick, Set, Value};
use crate::nft::{
    AddressType, ChainType, Data, Field, Hook, Maps, Part, Reg, Reject, Rule, SetSpec, Transaction, Verdict,
};
use std::net::Ipv4Addr;

/// The mark's bit of packets to masquerade; upstream's default, too.
const MASQUERADE_BIT: u32 = 1 << 14;
/// Clients remembered for session affinity; beyond that new clients are spread at random.
const AFFINITY_MAX: u32 = 1 << 18;
const AFFINITY: &str = "affinity";
const REFUSE: &str = "refuse";
const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::LOCALHOST, 8);

const FRONT: [Part; 3] = [Part::Address, Part::Protocol, Part::Port];
const TARGET: &[Part] = &[Part::Address, Part::Port];
/// Before the filters of others, so that a service without endpoints is refused and not silently dropped.
const FILTER_PRIORITY: i32 = -10;
const DNAT_PRIORITY: i32 = -100;
const SNAT_PRIORITY: i32 = 100;

impl Set {
    pub(super) const ALL: [Set; 8] = [
        Set::Services,
        Set::NodePorts,
        Set::Endpoints,
        Set::Live,
        Set::NoEndpoints,
        Set::NoEndpointNodePorts,
        Set::ClusterIps,
        Set::Hairpin,
    ];

    fn spec(self) -> SetSpec {
        let (name, key, maps): (_, &'static [Part], _) = match self {
            Set::Services => ("services", &FRONT, Maps::Verdict),
            Set::NodePorts => ("node-ports", &[Part::Protocol, Part::Port], Maps::Verdict),
            Set::Endpoints => {
                ("endpoints", &[Part::Address, Part::Protocol, Part::Port, Part::Number], Maps::Value(TARGET))
            }
            Set::Live => {
                ("live", &[Part::Address, Part::Protocol, Part::Port, Part::Address, Part::Port], Maps::Nothing)
            }
            Set::NoEndpoints => ("no-endpoints", &FRONT, Maps::Verdict),
            Set::NoEndpointNodePorts => ("no-endpoint-node-ports", &[Part::Protocol, Part::Port], Maps::Verdict),
            Set::ClusterIps => ("cluster-ips", &[Part::Address], Maps::Nothing),
            Set::Hairpin => ("hairpin", &[Part::Address, Part::Address], Maps::Nothing),
        };
        SetSpec { name, key, maps, dynamic: None }
    }

    fn name(self) -> &'static str {
        self.spec().name
    }
}

/// An empty table with all that does not depend on services.
pub(super) fn put_static(tx: &mut Transaction, config: &ProxyConfig) {
    tx.replace_table();
    Set::ALL.iter().for_each(|set| tx.set(&set.spec()));
    tx.set(&SetSpec {
        name: AFFINITY,
        key: &[Part::Address, Part::Address, Part::Protocol, Part::Port],
        maps: Maps::Value(TARGET),
        dynamic: Some(AFFINITY_MAX),
    });
    put_services(tx, config);
    put_refusals(tx, config);
    put_masquerade(tx, config);
}

/// Translation of destinations, for packets from outside and from pods (prerouting) and of the host (output).
fn put_services(tx: &mut Transaction, config: &ProxyConfig) {
    tx.chain("services");
    tx.rule("services", |r| {
        r.in_range(Field::SourceAddress, config.cluster_cidr, false);
        r.load(Field::DestinationAddress, Reg(0));
        r.in_set(Set::ClusterIps.name(), Reg(0));
        r.set_mark(MASQUERADE_BIT, true);
    });
    // A packet that is looked up while a change takes effect may see neither the old element nor the new one (kernels
    // before 6.17) or an old way of picking with new endpoints. It comes back here then, and the second look sees the
    // new state.
    for _ in 0..2 {
        tx.rule("services", |r| {
            load_front(r, Reg(0), false);
            r.verdict_from(Set::Services.name(), Reg(0));
        });
    }
    for _ in 0..2 {
        tx.rule("services", |r| {
            node_port(r);
            r.verdict_from(Set::NodePorts.name(), Reg(1));
        });
    }
    for (chain, hook) in [("nat-prerouting", Hook::Prerouting), ("nat-output", Hook::Output)] {
        tx.base_chain(chain, ChainType::Nat, hook, DNAT_PRIORITY);
        tx.rule(chain, |r| r.verdict(Verdict::Jump("services")));
    }
}

/// Refusal of what nobody answers; after the translation, so that only the untranslated is seen.
fn put_refusals(tx: &mut Transaction, config: &ProxyConfig) {
    tx.chain(REFUSE);
    tx.rule(REFUSE, |r| {
        r.protocol(super::Protocol::Tcp.number());
        r.reject(Reject::TcpReset);
    });
    tx.rule(REFUSE, |r| r.reject(Reject::PortUnreachable));
    tx.chain("check-endpoints");
    tx.rule("check-endpoints", |r| {
        load_front(r, Reg(0), false);
        r.verdict_from(Set::NoEndpoints.name(), Reg(0));
    });
    tx.chain("check-node-ports");
    tx.rule("check-node-ports", |r| {
        node_port(r);
        r.verdict_from(Set::NoEndpointNodePorts.name(), Reg(1));
    });
    tx.chain("check-cluster-ips");
    // Who has an endpoint and was not translated came in the middle of a change: trying again will help.
    tx.rule("check-cluster-ips", |r| {
        load_front(r, Reg(0), false);
        r.immediate(Reg(3), [0; 4]);
        r.value_from(Set::Endpoints.name(), Reg(0), Reg(4));
        r.verdict(Verdict::Drop);
    });
    // Other ports of known addresses are refused, unknown addresses dropped: they may be a moment from being known.
    tx.rule("check-cluster-ips", |r| {
        r.load(Field::DestinationAddress, Reg(0));
        r.in_set(Set::ClusterIps.name(), Reg(0));
        r.verdict(Verdict::Goto(REFUSE));
    });
    tx.rule("check-cluster-ips", |r| {
        r.in_range(Field::DestinationAddress, config.service_cidr, true);
        r.verdict(Verdict::Drop);
    });
    let hooks = [
        ("filter-input", Hook::Input, "check-node-ports"),
        ("filter-forward", Hook::Forward, "check-cluster-ips"),
        ("filter-output", Hook::Output, "check-cluster-ips"),
    ];
    for (chain, hook, second) in hooks {
        tx.base_chain(chain, ChainType::Filter, hook, FILTER_PRIORITY);
        for check in ["check-endpoints", second] {
            tx.rule(chain, |r| {
                r.new_connections();
                r.verdict(Verdict::Jump(check));
            });
        }
    }
}

fn put_masquerade(tx: &mut Transaction, config: &ProxyConfig) {
    tx.chain("masquerade");
    tx.rule("masquerade", |r| r.set_mark(MASQUERADE_BIT, false));
    // Links of pods have no address of their own to take.
    tx.rule("masquerade", |r| {
        r.in_range(Field::DestinationAddress, config.cluster_cidr, true);
        r.translate_source(config.node_ip);
    });
    tx.rule("masquerade", |r| r.masquerade());
    tx.base_chain("nat-postrouting", ChainType::Nat, Hook::Postrouting, SNAT_PRIORITY);
    tx.rule("nat-postrouting", |r| {
        r.marked(MASQUERADE_BIT);
        r.verdict(Verdict::Goto("masquerade"));
    });
    // A pod that reaches itself through a service would answer itself past the translation.
    tx.rule("nat-postrouting", |r| {
        r.translated();
        r.load(Field::SourceAddress, Reg(0));
        r.load(Field::DestinationAddress, Reg(1));
        r.in_set(Set::Hairpin.name(), Reg(0));
        r.translate_source(config.node_ip);
    });
}

/// Destination address (0.0.0.0 for node ports), protocol and port into three registers.
fn load_front(r: &mut Rule<'_, '_>, at: Reg, node_port: bool) {
    if node_port {
        r.immediate(at, [0; 4]);
    } else {
        r.load(Field::DestinationAddress, at);
    }
    r.load(Field::Protocol, at.plus(1));
    r.load(Field::DestinationPort, at.plus(2));
}

/// Matches packets to addresses of this host but loopback; protocol and port are in registers 1 and 2 then.
fn node_port(r: &mut Rule<'_, '_>) {
    r.address_type(AddressType::LocalDestination);
    r.in_range(Field::DestinationAddress, LOOPBACK, false);
    r.load(Field::Protocol, Reg(1));
    r.load(Field::DestinationPort, Reg(2));
}

/// The chain that picks an endpoint in one way. Chains that it leads to must be there.
pub(super) fn put_pick(tx: &mut Transaction, pick: &Pick, config: &ProxyConfig) {
    let chain = pick.chain();
    tx.chain(&chain);
    match pick.local {
        None => {
            if pick.masquerade {
                tx.rule(&chain, |r| r.set_mark(MASQUERADE_BIT, true));
            }
            put_choice(tx, &chain, pick, pick.total, 0);
        }
        Some(local) => {
            let [from_cluster, from_node] = pick.unrestricted();
            tx.rule(&chain, |r| {
                r.in_range(Field::SourceAddress, config.cluster_cidr, true);
                r.verdict(Verdict::Goto(&from_cluster.chain()));
            });
            tx.rule(&chain, |r| {
                r.address_type(AddressType::LocalSource);
                r.verdict(Verdict::Goto(&from_node.chain()));
            });
            if local == 0 {
                tx.rule(&chain, |r| r.verdict(Verdict::Drop));
            } else {
                put_choice(tx, &chain, pick, local, LOCAL_FIRST);
            }
        }
    }
}

fn put_choice(tx: &mut Transaction, chain: &str, pick: &Pick, count: u32, first: u32) {
    if let Some(seconds) = pick.affinity_seconds {
        put_sticky(tx, chain, pick, count, first, seconds);
    }
    if count > 1 {
        tx.rule(chain, |r| {
            load_front(r, Reg(0), pick.node_port);
            r.random(Reg(3), count, first);
            r.value_from(Set::Endpoints.name(), Reg(0), Reg(4));
            r.translate_destination(Reg(4));
        });
    }
    // The only one; or a change took effect between two lookups of this packet, and the picked one is gone.
    tx.rule(chain, |r| {
        load_front(r, Reg(0), pick.node_port);
        r.immediate(Reg(3), first.to_ne_bytes());
        r.value_from(Set::Endpoints.name(), Reg(0), Reg(4));
        r.translate_destination(Reg(4));
    });
}

/// Registers: 0 client, 1 to 3 front, 4 and 5 endpoint; so 0 to 3 is the key of a client's memory, and 1 to 5 says
/// whether the endpoint is still one of this front. 8 to 11 is the key of an endpoint's number.
fn put_sticky(tx: &mut Transaction, chain: &str, pick: &Pick, count: u32, first: u32, seconds: u32) {
    tx.rule(chain, |r| {
        r.load(Field::SourceAddress, Reg(0));
        load_front(r, Reg(1), pick.node_port);
        r.value_from(AFFINITY, Reg(0), Reg(4));
        r.in_set(Set::Live.name(), Reg(1));
        r.remember(AFFINITY, Reg(0), Reg(4), seconds, true);
        r.translate_destination(Reg(4));
    });
    tx.rule(chain, |r| {
        r.load(Field::SourceAddress, Reg(0));
        load_front(r, Reg(1), pick.node_port);
        load_front(r, Reg(8), pick.node_port);
        r.random(Reg(11), count, first);
        r.value_from(Set::Endpoints.name(), Reg(8), Reg(4));
        r.forget(AFFINITY, Reg(0), Reg(4));
        r.remember(AFFINITY, Reg(0), Reg(4), seconds, false);
        r.translate_destination(Reg(4));
    });
}

/// Adds elements; the chains that they lead to must be there.
pub(super) fn add(tx: &mut Transaction, elements: &[(Key, Value)]) {
    for set in Set::ALL {
        let of_set: Vec<_> = elements.iter().filter(|(key, _)| key.set == set).collect();
        let chains: Vec<Option<String>> = of_set
            .iter()
            .map(|(_, value)| match value {
                Value::Pick(pick) => Some(pick.chain()),
                _ => None,
            })
            .collect();
        let data = of_set.iter().zip(&chains).map(|((key, value), chain)| {
            let data = match (value, chain) {
                (Value::Pick(_), chain) => Data::Verdict(Verdict::Jump(chain.as_deref().unwrap_or(REFUSE))),
                (Value::None, _) => Data::None,
                (Value::Target(bytes), _) => Data::Value(bytes),
                (Value::Refuse, _) => Data::Verdict(Verdict::Goto(REFUSE)),
                (Value::Drop, _) => Data::Verdict(Verdict::Drop),
            };
            (key.bytes(), data)
        });
        tx.add_elements(set.name(), data);
    }
}

pub(super) fn delete(tx: &mut Transaction, keys: &[Key]) {
    for set in Set::ALL {
        tx.delete_elements(set.name(), keys.iter().filter(|key| key.set == set).map(Key::bytes));
    }
}
