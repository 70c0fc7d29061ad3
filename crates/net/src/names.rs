//! Names of everything that a cluster makes in the kernel.

use std::net::Ipv4Addr;

use crate::NetError;

/// The names derived from a cluster's name. Two clusters get different ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    cluster: String,
    tag: String,
}

impl Names {
    /// `cluster` is a DNS label: lower case letters, digits and `-`, at most 63 characters.
    ///
    /// # Errors
    /// [`NetError::Invalid`] for anything else.
    pub fn new(cluster: &str) -> Result<Self, NetError> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if cluster.is_empty() || cluster.len() > 63 || !cluster.chars().all(fits) {
            return Err(NetError::Invalid(format!(
                "cluster name {cluster:?}: lower case letters, digits and '-', at most 63 characters"
            )));
        }
        Ok(Names { cluster: cluster.to_owned(), tag: tag(cluster) })
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The services' nftables table (family `ip`).
    pub fn service_table(&self) -> String {
        format!("corten-{}", self.cluster)
    }

    /// The pods' nftables table (family `ip`). `_` cannot be in a cluster's name, so no other cluster has this name.
    pub fn pod_table(&self) -> String {
        format!("corten-{}_pods", self.cluster)
    }

    /// What the names of all links of the cluster start with.
    pub fn link_prefix(&self) -> String {
        format!("cn{}-", self.tag)
    }

    /// The link that holds the node's address in the pod range.
    pub fn node_link(&self) -> String {
        format!("cn{}-node", self.tag)
    }

    /// The host's end of a pod's link.
    pub fn pod_link(&self, ip: Ipv4Addr) -> String {
        format!("cn{}-{:04x}", self.tag, u32::from(ip) & 0xffff)
    }
}

/// Six characters of a 64-bit FNV-1a hash in base 32: a clash of two clusters on one machine is one in a billion.
fn tag(cluster: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut hash = cluster
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash ^= hash >> 32;
    (0..6).map(|place| char::from(ALPHABET[((hash >> (place * 5)) & 31) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let one = Names::new("default").unwrap();
        let two = Names::new("default2").unwrap();
        assert_ne!(one.link_prefix(), two.link_prefix());
        for name in [one.node_link(), one.pod_link(Ipv4Addr::new(10, 244, 255, 255))] {
            assert!(name.len() <= 15 && name.starts_with(&one.link_prefix()), "{name}");
        }
        assert_eq!(one.pod_link(Ipv4Addr::new(10, 244, 1, 2)), format!("{}0102", one.link_prefix()));
        assert!(Names::new("a_pods").is_err() && Names::new("").is_err() && Names::new("A").is_err());
    }
}
