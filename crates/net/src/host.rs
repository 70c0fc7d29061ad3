//! What is changed on the host outside of our own links and tables, remembered so that it can be undone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::netlink::{Socket, attribute, attributes};
use crate::nft::{self, Transaction};
use crate::{Names, NetError};

pub(crate) const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
pub(crate) const NETWORK_MANAGER: &str = "/run/NetworkManager";
/// Docker asks users to put their rules for forwarded packets here; it drops what nobody accepts.
pub(crate) const DOCKER_TABLE: &str = "filter";
pub(crate) const DOCKER_CHAIN: &str = "DOCKER-USER";

/// An empty chain of this name in the pods' table tells other clusters that forwarding was off.
pub(crate) const FORWARDING_NOTE: &str = "ip-forward-was-off";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Changes {
    /// `ip_forward` as it was, if we changed it.
    #[serde(default)]
    ip_forward: Option<String>,
}

/// The record of changes: `host.json` in the state directory.
#[derive(Debug)]
pub(crate) struct HostState {
    path: PathBuf,
    changes: Changes,
}

impl HostState {
    pub(crate) fn load(state_dir: &Path) -> Result<Self, NetError> {
        let path = state_dir.join("host.json");
        let changes = match fs::read(&path) {
            Ok(content) => serde_json::from_slice(&content).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Changes::default(),
            Err(error) => return Err(NetError::file(path, error)),
        };
        Ok(HostState { path, changes })
    }

    fn save(&self) -> Result<(), NetError> {
        let content = serde_json::to_vec(&self.changes).expect("the record is plain data");
        let unfinished = self.path.with_extension("new");
        fs::write(&unfinished, content)
            .and_then(|()| fs::rename(&unfinished, &self.path))
            .map_err(|source| NetError::file(&self.path, source))
    }

    /// Lets the host route packets. The namespace is the calling thread's.
    ///
    /// Another cluster may have switched it on before us: whoever goes last switches it off, so we take its note over.
    pub(crate) fn enable_forwarding(&mut self, socket: &mut Socket) -> Result<(), NetError> {
        let before = fs::read_to_string(IP_FORWARD).map_err(|source| NetError::file(IP_FORWARD, source))?;
        if before.trim() == "1" {
            let noted = |chain: &nft::Listed| chain.table.starts_with("corten-") && chain.chain == FORWARDING_NOTE;
            if self.changes.ip_forward.is_none() && nft::list_chains(socket)?.iter().any(noted) {
                self.changes.ip_forward = Some("0".to_owned());
                self.save()?;
            }
            return Ok(());
        }
        self.changes.ip_forward.get_or_insert_with(|| before.trim().to_owned());
        self.save()?;
        fs::write(IP_FORWARD, "1").map_err(|source| NetError::file(IP_FORWARD, source))
    }

    /// Whether the host did not forward before the first cluster came.
    pub(crate) fn forwarding_was_off(&self) -> bool {
        self.changes.ip_forward.is_some()
    }

    /// Opens what Docker would drop, and keeps NetworkManager away from our links.
    pub(crate) fn open_firewalls(&self, socket: &mut Socket, names: &Names, machine: bool) -> Result<(), NetError> {
        if docker_chain_exists(socket)? && docker_rules(socket, names)?.is_empty() {
            let mut tx = Transaction::new(DOCKER_TABLE);
            let prefix = names.link_prefix();
            tx.insert_rule(DOCKER_CHAIN, |r| {
                r.by_link_from(&prefix);
                r.counter();
                r.accept();
            });
            tx.insert_rule(DOCKER_CHAIN, |r| {
                r.by_link_to(&prefix);
                r.counter();
                r.accept();
            });
            tx.commit(socket)?;
        }
        if machine && Path::new(NETWORK_MANAGER).is_dir() {
            let path = network_manager_file(names);
            let content = format!("[keyfile]\nunmanaged-devices=interface-name:{}*\n", names.link_prefix());
            let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, content));
            if let Err(error) = written {
                tracing::warn!(path = %path.display(), %error, "telling NetworkManager to leave our links alone");
            }
        }
        Ok(())
    }

    /// Undoes everything. `others`: another cluster is still there and needs forwarding.
    pub(crate) fn restore(mut self, socket: &mut Socket, names: &Names, others: bool) -> Result<(), NetError> {
        let rules = docker_rules(socket, names)?;
        if !rules.is_empty() {
            let mut tx = Transaction::new(DOCKER_TABLE);
            rules.into_iter().for_each(|handle| tx.delete_rule(DOCKER_CHAIN, handle));
            tx.commit(socket)?;
        }
        remove_file(&network_manager_file(names))?;
        if let Some(before) = self.changes.ip_forward.take().filter(|_| !others) {
            fs::write(IP_FORWARD, before).map_err(|source| NetError::file(IP_FORWARD, source))?;
        }
        remove_file(&self.path)
    }
}

/// Whether the host routes packets.
pub(crate) fn is_forwarding() -> Result<bool, NetError> {
    let now = fs::read_to_string(IP_FORWARD).map_err(|source| NetError::file(IP_FORWARD, source))?;
    Ok(now.trim() == "1")
}

/// New links forward as `net.ipv4.conf.default` says, which hardened hosts switch off on its own.
pub(crate) fn forward_from(link: &str) -> Result<(), NetError> {
    switch_on(link, "forwarding")
}

/// Lets packets of 127.0.0.1 pass a link, as `localhost:PORT` on a host port needs it.
pub(crate) fn route_loopback(link: &str) -> Result<(), NetError> {
    switch_on(link, "route_localnet")
}

fn switch_on(link: &str, setting: &str) -> Result<(), NetError> {
    let path = Path::new("/proc/sys/net/ipv4/conf").join(link).join(setting);
    let now = fs::read_to_string(&path).map_err(|source| NetError::file(&path, source))?;
    if now.trim() == "1" {
        return Ok(());
    }
    fs::write(&path, "1").map_err(|source| NetError::file(&path, source))
}

fn network_manager_file(names: &Names) -> PathBuf {
    Path::new(NETWORK_MANAGER).join(format!("conf.d/corten-{}.conf", names.cluster()))
}

fn remove_file(path: &Path) -> Result<(), NetError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(NetError::file(path, error)),
        _ => Ok(()),
    }
}

pub(crate) fn docker_chain_exists(socket: &mut Socket) -> Result<bool, NetError> {
    let chains = nft::list_chains(socket)?;
    let wanted = |chain: &nft::Listed| {
        i32::from(chain.family) == libc::AF_INET && chain.table == DOCKER_TABLE && chain.chain == DOCKER_CHAIN
    };
    Ok(chains.iter().any(wanted))
}

/// Handles of our rules in Docker's chain: those that compare a link's name with our prefix.
fn docker_rules(socket: &mut Socket, names: &Names) -> Result<Vec<u64>, NetError> {
    let prefix = names.link_prefix();
    nft::find_rules(socket, DOCKER_TABLE, DOCKER_CHAIN, |expressions| {
        let compared = |(_, expression)| {
            let data = attribute(expression, 2)?;
            attribute(attribute(data, 3)?, 1)
        };
        attributes(expressions).filter_map(compared).any(|value| value == prefix.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns;

    #[test]
    fn docker_is_told_to_let_pods_pass() {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::new("test").unwrap();
        netns::in_throwaway(|| {
            let mut socket = nft::open().unwrap();
            let state = HostState::load(dir.path()).unwrap();
            state.open_firewalls(&mut socket, &names, false).unwrap();
            assert!(!docker_chain_exists(&mut socket).unwrap(), "nothing is made where Docker is not");

            let mut tx = Transaction::new(DOCKER_TABLE);
            tx.replace_table();
            tx.chain(DOCKER_CHAIN);
            tx.rule(DOCKER_CHAIN, |r| r.counter());
            tx.commit(&mut socket).unwrap();
            for _ in 0..2 {
                state.open_firewalls(&mut socket, &names, false).unwrap();
                assert_eq!(docker_rules(&mut socket, &names).unwrap().len(), 2);
            }
            let all =
                |socket: &mut Socket| nft::find_rules(socket, DOCKER_TABLE, DOCKER_CHAIN, |_| true).unwrap().len();
            assert_eq!(all(&mut socket), 3);
            state.restore(&mut socket, &names, false).unwrap();
            assert_eq!(all(&mut socket), 1, "the other rule stays");
        })
        .unwrap();
    }
}
