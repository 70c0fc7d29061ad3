//! IP addresses and CIDRs (`k8s.io/apiserver/pkg/cel/library/ip.go`, `cidr.go`), read as Go's `net/netip` reads them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::library::conversion::to_string;
use crate::library::take;
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 30),
    rows: &[
        Row("ip", "string_to_ip", "(string) -> net.IP", ip),
        Row("family", "ip_family", "net.IP.() -> int", family),
        Row("ip.isCanonical", "ip_is_canonical", "(string) -> bool", is_canonical),
        Row("isUnspecified", "ip_is_unspecified", "net.IP.() -> bool", is_unspecified),
        Row("isLoopback", "ip_is_loopback", "net.IP.() -> bool", is_loopback),
        Row("isLinkLocalMulticast", "ip_is_link_local_multicast", "net.IP.() -> bool", is_link_local_multicast),
        Row("isLinkLocalUnicast", "ip_is_link_local_unicast", "net.IP.() -> bool", is_link_local_unicast),
        Row("isGlobalUnicast", "ip_is_global_unicast", "net.IP.() -> bool", is_global_unicast),
        Row("isIP", "is_ip", "(string) -> bool", is_ip),
        Row("string", "ip_to_string", "(net.IP) -> string", to_string),
        Row("cidr", "string_to_cidr", "(string) -> net.CIDR", cidr),
        Row("containsIP", "cidr_contains_ip_string", "net.CIDR.(string) -> bool", contains_ip),
        Row("containsIP", "cidr_contains_ip_ip", "net.CIDR.(net.IP) -> bool", contains_ip),
        Row("containsCIDR", "cidr_contains_cidr_string", "net.CIDR.(string) -> bool", contains_cidr),
        Row("containsCIDR", "cidr_contains_cidr", "net.CIDR.(net.CIDR) -> bool", contains_cidr),
        Row("ip", "cidr_ip", "net.CIDR.() -> net.IP", cidr_ip),
        Row("prefixLength", "cidr_prefix_length", "net.CIDR.() -> int", prefix_length),
        Row("masked", "cidr_masked", "net.CIDR.() -> net.CIDR", masked),
        Row("isCIDR", "is_cidr", "(string) -> bool", is_cidr),
        Row("string", "cidr_to_string", "(net.CIDR) -> string", to_string),
    ],
};

/// An address and how many of its bits name the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Cidr {
    fn mask(self) -> u128 {
        if self.bits == 0 { 0 } else { u128::MAX << (128 - u32::from(self.bits)) }
    }

    fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && (number(self.address) ^ number(address)) & self.mask() == 0
    }

    fn masked(self) -> Cidr {
        let number = number(self.address) & self.mask();
        let address = match self.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits((number >> 96) as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
        };
        Cidr { address, ..self }
    }

    /// What upstream's cost counts: bytes of the prefix.
    pub(crate) fn size(self) -> u64 {
        u64::from(self.bits.div_ceil(8))
    }
}

fn v4_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

fn parse_ip(text: &str) -> Result<IpAddr, EvalError> {
    if text.contains('%') && text.contains(':') {
        return Err(EvalError::new(format!("IP address {text:?} with zone value is not allowed")));
    }
    let address: IpAddr = text.parse().map_err(|_| {
        let why = format!("ParseAddr({text:?}): {}", fault(text));
        EvalError::new(format!("IP Address {text:?} parse error during conversion from string: {why}"))
    })?;
    if v4_mapped(address) {
        return Err(EvalError::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(address)
}

/// What `netip.ParseAddr` says of a text that is no address.
fn fault(text: &str) -> String {
    match text.chars().find(|c| matches!(c, '.' | ':' | '%')) {
        Some('.') => {}
        Some(':') => return "unexpected character, want colon".to_owned() + &at(text),
        Some(_) => return "missing IPv6 address".into(),
        None => return "unable to parse IP".into(),
    }
    let fields: Vec<&str> = text.split('.').collect();
    for (place, field) in fields.iter().enumerate() {
        let rest = || fields[place..].join(".");
        if let Some(bad) = field.find(|c: char| !c.is_ascii_digit()) {
            return format!("unexpected character (at {:?})", &rest()[bad..]);
        }
        if field.is_empty() {
            return format!("IPv4 field must have at least one digit (at {:?})", &text[text.len() - rest().len()..]);
        }
        if field.len() > 1 && field.starts_with('0') {
            return "IPv4 field has octet with leading zero".into();
        }
        if field.parse::<u8>().is_err() {
            return "IPv4 field has value >255".into();
        }
    }
    if fields.len() > 4 { "IPv4 address too long".into() } else { "IPv4 address too short".into() }
}

fn at(text: &str) -> String {
    match text.find(|c: char| !c.is_ascii_hexdigit() && c != ':' && c != '.') {
        Some(bad) => format!(" (at {:?})", &text[bad..]),
        None => String::new(),
    }
}

fn parse_cidr(text: &str) -> Result<Cidr, EvalError> {
    let bad = |why: &str| {
        let why = format!("netip.ParsePrefix({text:?}): {why}");
        EvalError::new(format!("network address parse error during conversion from string: {why}"))
    };
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| bad("no '/'"))?;
    let address: IpAddr = address.parse().map_err(|_| bad(&format!("ParseAddr({address:?}): unable to parse IP")))?;
    let plain = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let bits: u8 =
        if plain { bits.parse().ok() } else { None }.ok_or_else(|| bad(&format!("bad bits after slash: {bits:?}")))?;
    if bits > width(address) {
        return Err(bad("prefix length out of range"));
    }
    if v4_mapped(address) {
        return Err(EvalError::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(Cidr { address, bits })
}

fn ip<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text));
    parse_ip(text).map(Value::Ip)
}

fn is_ip<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text));
    Ok(Value::Bool(parse_ip(text).is_ok()))
}

fn is_canonical<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text));
    Ok(Value::Bool(parse_ip(text)?.to_string() == **text))
}

fn family<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Ip(ip));
    Ok(Value::Int(if ip.is_ipv4() { 4 } else { 6 }))
}

fn is_unspecified<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Ip(ip));
    Ok(Value::Bool(ip.is_unspecified()))
}

fn is_loopback<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Ip(ip));
    Ok(Value::Bool(ip.is_loopback()))
}

fn link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_link_local_multicast<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Ip(ip));
    Ok(Value::Bool(match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }))
}

fn is_link_local_unicast<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Ip(ip));
    Ok(Value::Bool(link_local(ip)))
}

fn is_global_unicast<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Ip(ip));
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    Ok(Value::Bool(!ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !link_local(ip) && !broadcast))
}

fn cidr<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text));
    let wrap = |error: EvalError| {
        EvalError::new(format!("network address parse error during conversion from string: {error}"))
    };
    parse_cidr(text).map(Value::Cidr).map_err(wrap)
}

fn is_cidr<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text));
    Ok(Value::Bool(parse_cidr(text).is_ok()))
}

fn contains_ip<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let contains = match args {
        // Upstream loses what is wrong with the text.
        [Value::Cidr(cidr), Value::Str(text)] => {
            cidr.contains(parse_ip(text).map_err(|_| EvalError::no_such_overload())?)
        }
        [Value::Cidr(cidr), Value::Ip(ip)] => cidr.contains(*ip),
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::Bool(contains))
}

fn contains_cidr<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let [Value::Cidr(outer), inner] = args else { return Err(EvalError::no_such_overload()) };
    let inner = match cidr_of(inner)? {
        Value::Cidr(inner) => inner,
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::Bool(outer.bits <= inner.bits && outer.contains(inner.address)))
}

fn cidr_of<'a>(value: &Value<'a>) -> Answer<'a> {
    match value {
        Value::Str(_) => cidr(std::slice::from_ref(value)),
        other => Ok(other.clone()),
    }
}

fn cidr_ip<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Cidr(cidr));
    Ok(Value::Ip(cidr.address))
}

fn prefix_length<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Cidr(cidr));
    Ok(Value::Int(cidr.bits.into()))
}

fn masked<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Cidr(cidr));
    Ok(Value::Cidr(cidr.masked()))
}
