//! Starting and stopping, and the API without sockets.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use corten_admission::Cidr;
use corten_auth::{Material, PkiError, User};
use corten_base::{Clock, Entropy, Tasks};
use corten_cache::Cache;
use corten_client::{Api, NodeApi};
use corten_object::Status;
use corten_store::Store;

/// What the server is made of and how it is reached.
pub struct ServerConfig {
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// The watch cache over the same store: loaded, and fed by a task of the caller (`Cache::load`, `Cache::run`).
    pub cache: Cache,
    /// Certificates and the token key.
    pub material: Arc<Material>,
    /// Tokens from the command line, and who they are.
    pub static_tokens: HashMap<String, User>,
    /// Addresses to listen on; port 0 takes a free one (see [`Server::addresses`]).
    pub listen: Vec<SocketAddr>,
    /// Where pods reach the server: the one endpoint of the `kubernetes` Service.
    pub advertise: IpAddr,
    /// The range of Service addresses.
    pub service_cidr: Cidr,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Uids and name suffixes.
    pub entropy: Arc<dyn Entropy>,
    /// The task tree that connections and watches become part of.
    pub tasks: Tasks,
    /// The nodes: logs, exec, attach, port-forward.
    pub node_api: Arc<dyn NodeApi>,
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The certificates are of no use.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The objects that every cluster has could not be written.
    #[error("writing the bootstrap objects: {0}")]
    Bootstrap(#[from] Status),
}

/// A running API server. It stops with the task tree: open requests are finished first.
pub struct Server {
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Writes what is missing of the bootstrap objects, then listens.
    pub async fn start(config: ServerConfig) -> Result<Server, StartError> {
        let _ = config;
        Err(StartError::Bootstrap(Status::internal("not there yet")))
    }

    /// The addresses listened on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The API as a user of this process sees it: no sockets, no authentication, all else.
    pub fn api_as(&self, user: User) -> Arc<dyn Api> {
        let _ = user;
        unreachable!("no server has started")
    }
}
