//! Registries: fetching images over HTTPS (the OCI distribution specification), with logins, tokens and mirrors.
//!
//! Nothing that a registry says is believed: manifests and configurations are read up to a bound, layers up to their declared size,
//! and every byte is hashed on its way to the disk.

mod challenge;
mod endpoint;
mod hosts;
mod keyring;
mod progress;
mod pull;
mod toml;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use corten_base::Clock;
use corten_webhook::Connections;

pub use hosts::Hosts;
pub use keyring::{Keyring, Login, SecretRef};
pub use progress::Progress;
pub use pull::Pulled;

use crate::{Digest, ImageError};

/// Why a registry gives no image. The texts are containerd's: users look for them.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No such repository, tag or blob.
    #[error("not found")]
    NotFound,
    /// Who asks may not have it.
    #[error("pull access denied, repository does not exist or may require authorization: {0}")]
    Denied(String),
    /// Nobody answers, or the connection broke.
    #[error("{0}")]
    Transport(String),
    /// An answer that is no success, and whether the same may succeed later.
    #[error("{0}")]
    Status(String, bool),
    /// An answer that breaks the rules.
    #[error("{0}")]
    Protocol(String),
    /// Content that is not what it is called.
    #[error("unexpected commit digest {actual}, expected {expected}: failed precondition")]
    Digest { expected: Digest, actual: Digest },
    /// A configuration file of this node.
    #[error("{0}")]
    Config(String),
    /// What came cannot be kept, or is no image for this machine.
    #[error("{0}")]
    Store(#[from] Box<ImageError>),
}

impl PullError {
    /// Whether another host, or the same later, may do better.
    fn may_pass(&self) -> bool {
        matches!(self, PullError::Transport(_) | PullError::Status(_, true))
    }
}

impl From<ImageError> for PullError {
    fn from(error: ImageError) -> PullError {
        PullError::Store(Box::new(error))
    }
}

/// The client for all registries. Clones share connections and what is being fetched.
#[derive(Clone)]
pub struct Registry {
    hosts: Hosts,
    connections: Connections,
    clock: Arc<dyn Clock>,
    flights: Arc<Flights>,
}

impl Registry {
    /// A client; nothing is connected yet.
    pub fn new(hosts: Hosts, clock: Arc<dyn Clock>) -> Registry {
        Registry { hosts, connections: Connections::default(), clock, flights: Arc::default() }
    }
}

/// A lock for each blob that is being fetched: several images, and several pulls of one, share layers.
#[derive(Default)]
struct Flights(Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>);

impl Flights {
    fn of(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(digest).and_then(Weak::upgrade) {
            return known;
        }
        // Those who have landed are forgotten here, so there are never more than blobs under way.
        all.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::default();
        all.insert(digest.clone(), Arc::downgrade(&flight));
        flight
    }
}
