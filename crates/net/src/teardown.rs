//! Removal of everything that a cluster has made.

use std::fs;
use std::io;
use std::path::Path;

use crate::host::HostState;
use crate::nft::{self, Transaction};
use crate::{Names, NetError, route};

/// Removes all links, routes and nftables tables of `cluster`, restores the settings recorded in `state_dir`
/// ([`crate::NetConfig::state_dir`]) and removes that record and the allocations. For `corten down`, also after a
/// crash; harmless if nothing is there. Works in the calling thread's network namespace. Blocks.
///
/// # Errors
/// The first refusal; everything else has been tried.
pub fn teardown_all(cluster: &str, state_dir: &Path) -> Result<(), NetError> {
    let names = Names::new(cluster)?;
    let mut netfilter = nft::open()?;
    let mut first = Ok(());
    let mut keep = |outcome: Result<(), NetError>| {
        if first.is_ok() {
            first = outcome;
        }
    };
    for table in [names.service_table(), names.pod_table()] {
        let mut tx = Transaction::new(&table);
        tx.delete_table();
        keep(tx.commit(&mut netfilter));
    }
    let mut socket = route::open()?;
    for link in route::links(&mut socket, &names.link_prefix())? {
        keep(route::delete_link(&mut socket, &link.name));
    }
    let others = nft::list_tables(&mut netfilter)?.iter().any(|listed| listed.table.starts_with("corten-"));
    keep(HostState::load(state_dir).and_then(|host| host.restore(&mut netfilter, &names, others)));
    let pods = state_dir.join("pods");
    match fs::remove_dir_all(&pods) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => keep(Err(NetError::file(pods, error))),
        _ => {}
    }
    first
}
