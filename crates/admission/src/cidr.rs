//! A range of IPv4 addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Why a text is not a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 range like 10.43.0.0/16")]
pub struct CidrError(String);

/// A range of IPv4 addresses, as `10.43.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    bits: u8,
}

impl Cidr {
    /// The address at `offset` from the base; `None` beyond the end.
    pub fn nth(&self, offset: u32) -> Option<Ipv4Addr> {
        (u64::from(offset) < self.size()).then(|| Ipv4Addr::from(self.base + offset))
    }

    /// How many addresses there are.
    pub fn size(&self) -> u64 {
        1 << (32 - self.bits)
    }

    /// Whether an address is in the range.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        let ip = u32::from(ip);
        ip >= self.base && u64::from(ip - self.base) < self.size()
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let bad = || CidrError(text.to_owned());
        let (ip, bits) = text.split_once('/').ok_or_else(bad)?;
        let ip: Ipv4Addr = ip.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().map_err(|_| bad())?;
        // Below /8 an allocator's bookkeeping has no bound; above /30 there is no room for the fixed addresses.
        if !(8..=30).contains(&bits) {
            return Err(bad());
        }
        let base = u32::from(ip) & (u32::MAX << (32 - bits));
        Ok(Cidr { base, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range: Cidr = "10.43.7.9/16".parse().unwrap();
        assert_eq!(range.to_string(), "10.43.0.0/16");
        assert_eq!(range.nth(1).unwrap().to_string(), "10.43.0.1");
        assert_eq!(range.nth(65_536), None);
        assert!(range.contains("10.43.255.255".parse().unwrap()) && !range.contains("10.44.0.0".parse().unwrap()));
        assert!("10.0.0.0/33".parse::<Cidr>().is_err() && "fd00::/64".parse::<Cidr>().is_err());
    }
}
