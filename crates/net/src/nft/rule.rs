//! Expressions of a rule, in the order in which they are evaluated. The first that does not match ends the rule.

use std::net::Ipv4Addr;

use super::{Verdict, put_verdict};
use crate::netlink::Attrs;

/// A 32-bit register, 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reg(pub(crate) u32);

impl Reg {
    /// The kernel's number.
    fn number(self) -> u32 {
        libc::NFT_REG32_00 as u32 + self.0
    }

    /// The register `places` further.
    pub(crate) fn plus(self, places: u32) -> Reg {
        Reg(self.0 + places)
    }
}

/// Parts of a packet, all of 32 bits in a register (shorter ones padded with zeroes).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field {
    SourceAddress,
    DestinationAddress,
    /// Transport protocol number.
    Protocol,
    /// Destination port: at the same place in TCP, UDP and SCTP.
    DestinationPort,
}

/// What the routing table thinks of an address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AddressType {
    LocalDestination,
    LocalSource,
}

/// How a packet is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reject {
    TcpReset,
    PortUnreachable,
}

const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
/// `ct state new`, `ct status dnat`.
const STATE_NEW: u32 = 8;
const STATUS_DNAT: u32 = 1 << 5;
const RANDOM_FULLY: u32 = 1 << 4;
/// Scratch register for comparisons, out of the way of keys.
const SCRATCH: Reg = Reg(15);

/// Writes one rule's expressions.
pub(crate) struct Rule<'a, 'b>(&'a mut Attrs<'b>);

impl<'a, 'b> Rule<'a, 'b> {
    pub(super) fn new(expressions: &'a mut Attrs<'b>) -> Self {
        Rule(expressions)
    }

    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Attrs<'_>)) {
        self.0.nest(1, |element| {
            element.text(1, name);
            element.nest(2, data);
        });
    }

    /// Loads a part of the packet.
    pub(crate) fn load(&mut self, field: Field, into: Reg) {
        let (base, offset, length) = match field {
            Field::Protocol => return self.meta(META_L4PROTO, into),
            Field::SourceAddress => (1, 12, 4),
            Field::DestinationAddress => (1, 16, 4),
            Field::DestinationPort => (2, 2, 2),
        };
        self.expression("payload", |e| {
            e.be32(1, into.number());
            e.be32(2, base);
            e.be32(3, offset);
            e.be32(4, length);
        });
    }

    fn meta(&mut self, key: u32, into: Reg) {
        self.expression("meta", |e| {
            e.be32(1, into.number());
            e.be32(2, key);
        });
    }

    /// Loads a constant.
    pub(crate) fn immediate(&mut self, into: Reg, bytes: [u8; 4]) {
        self.expression("immediate", |e| {
            e.be32(1, into.number());
            e.nest(2, |value| value.put(1, &bytes));
        });
    }

    /// Loads a random number in `first .. first + count`, in the machine's byte order.
    pub(crate) fn random(&mut self, into: Reg, count: u32, first: u32) {
        self.expression("numgen", |e| {
            e.be32(1, into.number());
            e.be32(2, count);
            e.be32(3, 1);
            e.be32(4, first);
        });
    }

    fn compare(&mut self, register: Reg, equal: bool, bytes: &[u8]) {
        self.expression("cmp", |e| {
            e.be32(1, register.number());
            e.be32(2, u32::from(!equal));
            e.nest(3, |value| value.put(1, bytes));
        });
    }

    fn bits(&mut self, register: Reg, and: [u8; 4], xor: [u8; 4]) {
        self.expression("bitwise", |e| {
            e.be32(1, register.number());
            e.be32(2, register.number());
            e.be32(3, 4);
            e.nest(4, |value| value.put(1, &and));
            e.nest(5, |value| value.put(1, &xor));
        });
    }

    /// Matches an address inside (or outside) a range.
    pub(crate) fn in_range(&mut self, field: Field, (network, prefix): (Ipv4Addr, u8), inside: bool) {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        self.load(field, SCRATCH);
        self.bits(SCRATCH, mask.to_be_bytes(), [0; 4]);
        self.compare(SCRATCH, inside, &(u32::from(network) & mask).to_be_bytes());
    }

    /// Matches a transport protocol number.
    pub(crate) fn protocol(&mut self, number: u8) {
        self.load(Field::Protocol, SCRATCH);
        self.compare(SCRATCH, true, &[number]);
    }

    /// Matches packets from (or to) addresses of this host.
    pub(crate) fn address_type(&mut self, kind: AddressType) {
        let side = match kind {
            AddressType::LocalSource => 1,
            AddressType::LocalDestination => 2,
        };
        self.expression("fib", |e| {
            e.be32(1, SCRATCH.number());
            e.be32(2, 3);
            e.be32(3, side);
        });
        self.compare(SCRATCH, true, &u32::from(libc::RTN_LOCAL).to_ne_bytes());
    }

    /// Matches the first packets of connections.
    pub(crate) fn new_connections(&mut self) {
        self.connection_bits(CT_STATE, STATE_NEW);
    }

    /// Matches connections whose destination has been translated.
    pub(crate) fn translated(&mut self) {
        self.connection_bits(CT_STATUS, STATUS_DNAT);
    }

    fn connection_bits(&mut self, key: u32, bits: u32) {
        self.expression("ct", |e| {
            e.be32(1, SCRATCH.number());
            e.be32(2, key);
        });
        self.bits(SCRATCH, bits.to_ne_bytes(), [0; 4]);
        self.compare(SCRATCH, false, &[0; 4]);
    }

    /// Matches names of the link that the packet came in by, by their beginning (as iptables' `-i NAME+`).
    pub(crate) fn by_link_from(&mut self, beginning: &str) {
        self.meta(META_IIFNAME, Reg(0));
        self.compare(Reg(0), true, beginning.as_bytes());
    }

    /// Matches names of the link that the packet leaves by, by their beginning.
    pub(crate) fn by_link_to(&mut self, beginning: &str) {
        self.meta(META_OIFNAME, Reg(0));
        self.compare(Reg(0), true, beginning.as_bytes());
    }

    /// Matches names of the link that the packet leaves by that begin otherwise.
    pub(crate) fn by_link_not_to(&mut self, beginning: &str) {
        self.meta(META_OIFNAME, Reg(0));
        self.compare(Reg(0), false, beginning.as_bytes());
    }

    /// Matches packets that carry the mark's bit.
    pub(crate) fn marked(&mut self, bit: u32) {
        self.meta(META_MARK, SCRATCH);
        self.bits(SCRATCH, bit.to_ne_bytes(), [0; 4]);
        self.compare(SCRATCH, false, &[0; 4]);
    }

    /// Sets or clears the mark's bit and leaves the others.
    pub(crate) fn set_mark(&mut self, bit: u32, on: bool) {
        self.meta(META_MARK, SCRATCH);
        let xor = if on { bit } else { 0 };
        self.bits(SCRATCH, (!bit).to_ne_bytes(), xor.to_ne_bytes());
        self.expression("meta", |e| {
            e.be32(2, META_MARK);
            e.be32(3, SCRATCH.number());
        });
    }

    /// Matches keys in a set.
    pub(crate) fn in_set(&mut self, set: &str, key: Reg) {
        self.lookup(set, key, None);
    }

    /// Follows a verdict map: a key that is not in it does not match.
    pub(crate) fn verdict_from(&mut self, map: &str, key: Reg) {
        self.lookup(map, key, Some(libc::NFT_REG_VERDICT as u32));
    }

    /// Loads a map's value: a key that is not in it does not match.
    pub(crate) fn value_from(&mut self, map: &str, key: Reg, into: Reg) {
        self.lookup(map, key, Some(into.number()));
    }

    fn lookup(&mut self, set: &str, key: Reg, into: Option<u32>) {
        self.expression("lookup", |e| {
            e.text(1, set);
            e.be32(2, key.number());
            if let Some(into) = into {
                e.be32(3, into);
            }
        });
    }

    /// Puts key and value into a dynamic map, or only renews its time; does not match if the map is full.
    pub(crate) fn remember(&mut self, map: &str, key: Reg, value: Reg, seconds: u32, renew: bool) {
        self.expression("dynset", |e| {
            e.text(1, map);
            e.be32(3, u32::from(renew));
            e.be32(4, key.number());
            e.be32(5, value.number());
            e.put(6, &(u64::from(seconds) * 1000).to_be_bytes());
        });
    }

    /// Removes a key from a dynamic map; matches if it was there or not. The kernel wants a value, too.
    pub(crate) fn forget(&mut self, map: &str, key: Reg, value: Reg) {
        self.expression("dynset", |e| {
            e.text(1, map);
            e.be32(3, 2);
            e.be32(4, key.number());
            e.be32(5, value.number());
        });
    }

    /// Translates the destination to the address in a register and the port in the next one.
    pub(crate) fn translate_destination(&mut self, address: Reg) {
        self.expression("nat", |e| {
            e.be32(1, 1);
            e.be32(2, libc::AF_INET as u32);
            e.be32(3, address.number());
            e.be32(5, address.plus(1).number());
        });
    }

    /// Translates the source to a fixed address, with a random port.
    pub(crate) fn translate_source(&mut self, address: Ipv4Addr) {
        self.immediate(Reg(0), address.octets());
        self.expression("nat", |e| {
            e.be32(1, 0);
            e.be32(2, libc::AF_INET as u32);
            e.be32(3, Reg(0).number());
            e.be32(7, RANDOM_FULLY);
        });
    }

    /// Translates the source to the address of the link that the packet leaves by, with a random port.
    pub(crate) fn masquerade(&mut self) {
        self.expression("masq", |e| e.be32(1, RANDOM_FULLY));
    }

    pub(crate) fn reject(&mut self, how: Reject) {
        self.expression("reject", |e| match how {
            Reject::TcpReset => e.be32(1, 1),
            Reject::PortUnreachable => {
                e.be32(1, 0);
                e.put(2, &[3]);
            }
        });
    }

    pub(crate) fn counter(&mut self) {
        self.expression("counter", |_| {});
    }

    pub(crate) fn accept(&mut self) {
        self.verdict_code(libc::NF_ACCEPT as u32);
    }

    fn verdict_code(&mut self, code: u32) {
        self.expression("immediate", |e| {
            e.be32(1, libc::NFT_REG_VERDICT as u32);
            e.nest(2, |value| value.nest(2, |verdict| verdict.be32(1, code)));
        });
    }

    pub(crate) fn verdict(&mut self, verdict: Verdict<'_>) {
        self.expression("immediate", |e| {
            e.be32(1, libc::NFT_REG_VERDICT as u32);
            e.nest(2, |value| put_verdict(value, verdict));
        });
    }
}
