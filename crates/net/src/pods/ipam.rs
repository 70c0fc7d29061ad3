//! Addresses of one node's pods: which are taken, and one small file per allocation.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::Allocation;
use crate::NetError;

/// A node's range without its first two addresses (network, node) and its last one (broadcast).
#[derive(Debug)]
pub(super) struct Range {
    network: u32,
    prefix: u8,
    taken: BTreeMap<Ipv4Addr, String>,
    /// Where the search starts: behind the last one given out, so that an address rests before it comes back.
    next: u32,
}

impl Range {
    /// # Errors
    /// [`NetError::Invalid`] for a range without room for a pod or with more than 16 host bits.
    pub(super) fn new((network, prefix): (Ipv4Addr, u8)) -> Result<Self, NetError> {
        if !(16..=30).contains(&prefix) {
            return Err(NetError::Invalid(format!("pod range {network}/{prefix}: the prefix must be 16 to 30")));
        }
        let network = u32::from(network) & (u32::MAX << (32 - prefix));
        Ok(Range { network, prefix, taken: BTreeMap::new(), next: 2 })
    }

    /// The first address: the node's own.
    pub(super) fn node(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1)
    }

    fn size(&self) -> u32 {
        1 << (32 - self.prefix)
    }

    fn is_for_pods(&self, ip: Ipv4Addr) -> bool {
        u32::from(ip).checked_sub(self.network).is_some_and(|place| place >= 2 && place < self.size() - 1)
    }

    /// Takes a free address, or the wanted one.
    pub(super) fn take(&mut self, wanted: Option<Ipv4Addr>, holder: &str) -> Result<Ipv4Addr, NetError> {
        let ip = match wanted {
            Some(ip) if !self.is_for_pods(ip) => {
                return Err(NetError::Invalid(format!("address {ip} is not in the pod range {}", self.cidr())));
            }
            Some(ip) => match self.taken.get(&ip) {
                Some(other) => return Err(NetError::Invalid(format!("address {ip} is taken by sandbox {other}"))),
                None => ip,
            },
            None => {
                self.first_free().ok_or_else(|| NetError::RangeFull { cidr: self.cidr(), used: self.taken.len() })?
            }
        };
        self.taken.insert(ip, holder.to_owned());
        self.next = u32::from(ip) - self.network + 1;
        Ok(ip)
    }

    fn first_free(&self) -> Option<Ipv4Addr> {
        let places = 2..self.size() - 1;
        let ring = places.clone().skip_while(|place| *place < self.next).chain(places);
        ring.map(|place| Ipv4Addr::from(self.network + place)).find(|ip| !self.taken.contains_key(ip))
    }

    pub(super) fn release(&mut self, ip: Ipv4Addr) {
        self.taken.remove(&ip);
    }

    fn cidr(&self) -> String {
        format!("{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

/// The directory of allocation files: `ID.json` each, complete or absent.
#[derive(Debug)]
pub(super) struct Files(PathBuf);

impl Files {
    /// # Errors
    /// If the directory cannot be made.
    pub(super) fn open(state_dir: &Path) -> Result<Self, NetError> {
        let dir = state_dir.join("pods");
        fs::create_dir_all(&dir).map_err(|source| NetError::file(&dir, source))?;
        Ok(Files(dir))
    }

    /// All allocations. A file that a power loss has left unreadable is dropped: its pod is gone, too.
    pub(super) fn load(&self) -> Result<Vec<Allocation>, NetError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(|source| NetError::file(&self.0, source))? {
            let path = entry.map_err(|source| NetError::file(&self.0, source))?.path();
            let content = fs::read(&path).map_err(|source| NetError::file(&path, source))?;
            match serde_json::from_slice::<Allocation>(&content) {
                Ok(allocation) if path == self.path(&allocation.sandbox_id) => found.push(allocation),
                _ => {
                    tracing::warn!(path = %path.display(), "dropping an unreadable address file");
                    fs::remove_file(&path).map_err(|source| NetError::file(&path, source))?;
                }
            }
        }
        Ok(found)
    }

    pub(super) fn save(&self, allocation: &Allocation) -> Result<(), NetError> {
        let path = self.path(&allocation.sandbox_id);
        let unfinished = path.with_extension("new");
        let content = serde_json::to_vec(allocation).expect("an allocation is plain data");
        let write = || -> io::Result<()> {
            fs::File::create(&unfinished)?.write_all(&content)?;
            fs::rename(&unfinished, &path)
        };
        write().map_err(|source| NetError::file(&path, source))
    }

    pub(super) fn remove(&self, sandbox_id: &str) -> Result<(), NetError> {
        let path = self.path(sandbox_id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(NetError::file(path, error)),
            _ => Ok(()),
        }
    }

    fn path(&self, sandbox_id: &str) -> PathBuf {
        self.0.join(format!("{sandbox_id}.json"))
    }
}

/// Ids become file names.
pub(super) fn check_id(id: &str) -> Result<(), NetError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty() || id.len() > 200 || id.starts_with('.') || !id.chars().all(fits) {
        return Err(NetError::Invalid(format!("sandbox id {id:?}: letters, digits, '-', '_' and '.'")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_rest_before_they_come_back() {
        let mut range = Range::new((Ipv4Addr::new(10, 9, 8, 77), 29)).unwrap();
        assert_eq!(range.node(), Ipv4Addr::new(10, 9, 8, 73));
        let last = |ip: Ipv4Addr| ip.octets()[3];
        let first = range.take(None, "a").unwrap();
        assert_eq!(last(first), 74);
        range.release(first);
        assert_eq!(last(range.take(None, "b").unwrap()), 75);
        let rest: Vec<u8> = (0..4).map(|_| last(range.take(None, "c").unwrap())).collect();
        assert_eq!(rest, [76, 77, 78, 74]);
        let full = range.take(None, "d").unwrap_err().to_string();
        assert_eq!(full, "no free address in 10.9.8.72/29: 5 in use");
        let taken = range.take(Some(first), "d").unwrap_err().to_string();
        assert_eq!(taken, "address 10.9.8.74 is taken by sandbox c");
        assert!(range.take(Some(Ipv4Addr::new(10, 9, 8, 79)), "d").is_err());
        range.release(first);
        assert_eq!(range.take(None, "d").unwrap(), first);
    }

    #[test]
    fn ids_are_file_names() {
        assert!(check_id("0a1B-2_c.d").is_ok());
        for bad in ["", "../x", "a/b", ".hidden", "a b"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }
}
