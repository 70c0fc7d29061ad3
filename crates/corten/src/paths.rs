//! Where a cluster keeps what, and what was decided for it at its first start.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use corten_tree::{Tree, json, tree};

use crate::args::{AddressArgs, NameArgs};

const DATA_ROOT: &str = "/var/lib/corten";
const RUN_ROOT: &str = "/run/corten";

/// A cluster of this machine.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// What outlives a restart of the machine: objects, images, volumes.
    pub data: PathBuf,
    /// What does not: the runtime's state, sockets, pins.
    pub run: PathBuf,
}

impl Cluster {
    /// From the command line.
    ///
    /// # Errors
    /// If the name is not a DNS label of at most 32 characters.
    pub fn new(args: &NameArgs) -> Result<Cluster> {
        let name = &args.name;
        let label = !name.is_empty() && name.len() <= 32 && !name.starts_with('-') && !name.ends_with('-');
        if !label || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            bail!("--name {name:?}: a cluster's name is at most 32 lower-case letters, digits and dashes");
        }
        let data = match &args.data_dir {
            Some(dir) => std::path::absolute(dir).with_context(|| format!("--data-dir {}", dir.display()))?,
            None => Path::new(DATA_ROOT).join(name),
        };
        Ok(Cluster { name: name.clone(), data, run: Path::new(RUN_ROOT).join(name) })
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    /// The keys with which Secrets are sealed at rest.
    pub fn encryption_keys(&self) -> PathBuf {
        self.data.join("encryption.key")
    }

    /// The server's log when `up` started it.
    pub fn log(&self) -> PathBuf {
        self.data.join("server.log")
    }

    /// The file with the running server's process id.
    pub fn pid_file(&self) -> PathBuf {
        self.run.join("server.pid")
    }

    /// Name of the kubeconfig's context: `corten` for the default cluster.
    pub fn context(&self) -> String {
        if self.name == "default" { "corten".into() } else { format!("corten-{}", self.name) }
    }
}

/// Addresses of a cluster, decided at its first start and kept in its data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Port of the API server.
    pub port: u16,
    /// Addresses of pods.
    pub cluster_cidr: String,
    /// Addresses of Services.
    pub service_cidr: String,
}

impl Addresses {
    fn nth(i: u16) -> Addresses {
        Addresses {
            port: 6443 + i,
            cluster_cidr: format!("10.{}.0.0/16", 42 + 2 * i),
            service_cidr: format!("10.{}.0.0/16", 43 + 2 * i),
        }
    }

    fn file(cluster: &Cluster) -> PathBuf {
        cluster.data.join("cluster.json")
    }

    fn load(file: &Path) -> Option<Addresses> {
        let tree = json::parse(&fs::read(file).ok()?).ok()?;
        Some(Addresses {
            port: u16::try_from(tree.i64_at("httpsListenPort")?).ok()?,
            cluster_cidr: tree.str_at("clusterCIDR").into(),
            service_cidr: tree.str_at("serviceCIDR").into(),
        })
    }

    /// The cluster's addresses: what the command line says, else what was decided before, else the first that no other
    /// cluster of this machine has. Written down for the next start.
    ///
    /// # Errors
    /// If the data directory cannot be written, or ranges that are in use would change.
    pub fn decide(cluster: &Cluster, args: &AddressArgs) -> Result<Addresses> {
        let before = Addresses::load(&Addresses::file(cluster));
        let mut found = match &before {
            Some(before) => before.clone(),
            None => Addresses::first_free(cluster, args.https_listen_port.is_none()),
        };
        found.port = args.https_listen_port.unwrap_or(found.port);
        for (given, slot, flag) in [
            (&args.cluster_cidr, &mut found.cluster_cidr, "--cluster-cidr"),
            (&args.service_cidr, &mut found.service_cidr, "--service-cidr"),
        ] {
            let Some(given) = given else { continue };
            if before.is_some() && given != slot {
                bail!("{flag} {given}: this cluster was made with {slot}; `corten down --purge` first to change it");
            }
            slot.clone_from(given);
        }
        if before.as_ref() != Some(&found) {
            let text = tree!({
                "httpsListenPort": (found.port),
                "clusterCIDR": (found.cluster_cidr.as_str()),
                "serviceCIDR": (found.service_cidr.as_str())
            });
            fs::create_dir_all(&cluster.data).with_context(|| cluster.data.display().to_string())?;
            let file = Addresses::file(cluster);
            fs::write(&file, text.to_json()).with_context(|| file.display().to_string())?;
        }
        Ok(found)
    }

    fn first_free(cluster: &Cluster, check_port: bool) -> Addresses {
        let others: Vec<Addresses> = fs::read_dir(DATA_ROOT)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path() != cluster.data)
            .filter_map(|entry| Addresses::load(&entry.path().join("cluster.json")))
            .collect();
        let clashes = |a: &Addresses| {
            let other = |o: &Addresses| {
                o.port == a.port || o.cluster_cidr == a.cluster_cidr || o.service_cidr == a.service_cidr
            };
            others.iter().any(other) || (check_port && TcpListener::bind(("127.0.0.1", a.port)).is_err())
        };
        (0..100).map(Addresses::nth).find(|a| !clashes(a)).unwrap_or(Addresses::nth(0))
    }
}

/// Reads a file of the cluster that is a tree, if it is there.
pub fn read_tree(file: &Path) -> Option<Tree> {
    json::parse(&fs::read(file).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_and_addresses_are_kept() {
        let args = |name: &str| NameArgs {
            name: name.into(),
            data_dir: Some(std::env::temp_dir().join(format!("corten-paths-{}", std::process::id()))),
        };
        assert!(Cluster::new(&args("Bad Name")).is_err());
        let cluster = Cluster::new(&args("a")).unwrap();
        let given = AddressArgs { https_listen_port: Some(7443), ..AddressArgs::default() };
        let first = Addresses::decide(&cluster, &given).unwrap();
        assert_eq!(first.port, 7443);
        assert_eq!(Addresses::decide(&cluster, &AddressArgs::default()).unwrap(), first);
        let other = AddressArgs { service_cidr: Some("10.99.0.0/16".into()), ..AddressArgs::default() };
        assert!(Addresses::decide(&cluster, &other).unwrap_err().to_string().contains("--purge"));
        fs::remove_dir_all(cluster.data).unwrap();
    }
}
