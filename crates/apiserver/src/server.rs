//! Starting and stopping, and the API without sockets.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use corten_admission::{Cidr, ServiceAllocator};
use corten_audit::{Backends, Environment};
use corten_auth::{Attributes, Authenticator, Material, PkiError, Sealer, User};
use corten_base::{Clock, Entropy, Tasks};
use corten_cache::Cache;
use corten_client::{Api, NodeApi};
use corten_federation::{AuthenticationOptions, AuthorizationOptions, Authorizers, Identities};
use corten_object::Status;
use corten_store::Store;
use corten_webhook::Caller;

use crate::core::{Core, Parts};
use crate::flow::{FlowLimits, settings};
use crate::http::{Anonymous, RequestHeader};
use crate::local::LocalApi;
use crate::{aggregation, bootstrap, http};

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
    /// Who may call, and how they prove who they are.
    pub authentication: Authentication,
    /// Who decides what is allowed.
    pub authorization: AuthorizationOptions,
    /// What is recorded of requests, and where.
    pub audit: corten_audit::Options,
    /// Seals Secrets at rest; the cache must open with the same. `None` keeps them as they are.
    pub sealer: Option<Arc<Sealer>>,
    /// How much is done at once, and for how long.
    pub flow: FlowLimits,
    /// How long Events are kept after their last write (`--event-ttl`); `None`: as long as their row says.
    pub event_ttl: Option<Duration>,
}

/// How callers prove who they are, besides client certificates and service account tokens.
#[derive(Debug, Clone)]
pub struct Authentication {
    /// Who may ask without proof.
    pub anonymous: Anonymous,
    /// The front proxy, if one is believed.
    pub request_header: Option<RequestHeader>,
    /// Whether Secrets of bootstrap tokens are (`--enable-bootstrap-token-auth`).
    pub bootstrap_tokens: bool,
    /// Others who know bearer tokens: OIDC issuers, a webhook.
    pub others: AuthenticationOptions,
    /// Where the keys of service account tokens are said to be (`--service-account-jwks-uri`); `None` is below the issuer.
    pub jwks_uri: Option<String>,
}

impl Default for Authentication {
    fn default() -> Authentication {
        Authentication {
            anonymous: Anonymous::default(),
            request_header: Some(RequestHeader::default()),
            bootstrap_tokens: true,
            others: AuthenticationOptions::default(),
            jwks_uri: None,
        }
    }
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
    /// Callers cannot be told by what the options name.
    #[error("authentication: {0}")]
    Authentication(String),
    /// Who decides what is allowed cannot be told.
    #[error("authorization: {0}")]
    Authorization(String),
    /// Requests cannot be recorded.
    #[error(transparent)]
    Audit(#[from] corten_audit::OptionsError),
    /// The objects that every cluster has could not be written.
    #[error("writing the bootstrap objects: {0}")]
    Bootstrap(#[from] Status),
}

/// A running API server. It stops with the task tree: open requests are finished first.
pub struct Server {
    core: Arc<Core>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Writes what is missing of the bootstrap objects, then listens.
    pub async fn start(config: ServerConfig) -> Result<Server, StartError> {
        let services = ServiceAllocator::new(config.service_cidr, config.entropy.clone());
        let signer = config.material.signer.clone();
        let authentication = config.authentication;
        let jwks_uri = authentication.jwks_uri.unwrap_or_else(|| format!("{}/openid/v1/jwks", signer.issuer()));
        let caller = Caller::new(config.cache.clone(), config.clock.clone(), config.entropy.clone());
        let environment =
            Environment { clock: config.clock.clone(), tasks: config.tasks.clone(), caller: caller.clone() };
        let audit = Backends::start(&config.audit, environment)?;
        let environment = corten_federation::Environment {
            clock: config.clock.clone(),
            tasks: config.tasks.clone(),
            caller: caller.clone(),
        };
        let identities = Identities::start(&authentication.others, signer.issuer(), &environment)
            .map_err(StartError::Authentication)?;
        let authorizers = Authorizers::start(&config.authorization, &environment).map_err(StartError::Authorization)?;
        let authenticator = Authenticator::new(signer, config.static_tokens, authentication.bootstrap_tokens);
        let core = Arc::new(Core::new(Parts {
            store: config.store,
            cache: config.cache,
            clock: config.clock,
            entropy: config.entropy,
            tasks: config.tasks,
            authenticator,
            identities,
            authorizers,
            node_api: config.node_api,
            services,
            sealer: config.sealer,
            material: config.material.clone(),
            anonymous: authentication.anonymous,
            request_header: authentication.request_header,
            jwks_uri,
            caller,
            audit,
            flow: config.flow,
        }));
        core.services.load(&*core);
        let listeners = http::listen(&config.listen).await?;
        let addresses: Vec<SocketAddr> = listeners.iter().map(|(_, address)| *address).collect();
        let port = addresses.first().map_or(6443, SocketAddr::port);
        core.reseal().await?;
        bootstrap::ensure(&core, config.advertise, port).await?;
        aggregation::start(&core);
        settings::start(&core);
        crate::expiry::start(&core, config.event_ttl);
        http::serve(&core, listeners, Arc::new(config.material.server_tls()?));
        Ok(Server { core, addresses })
    }

    /// The addresses listened on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Says from now on that the server is not ready (`/readyz`), and goes on with all else. What stops it is the end of its
    /// task tree.
    pub fn begin_shutdown(&self) {
        self.core.shutting_down.store(true, Ordering::Relaxed);
    }

    /// Whether something is allowed.
    pub fn may(&self, attributes: &Attributes<'_>) -> bool {
        self.core.decide_now(attributes).allowed
    }

    /// The API as a user of this process sees it: no sockets, no authentication, all else.
    pub fn api_as(&self, user: User) -> Arc<dyn Api> {
        Arc::new(LocalApi::new(self.core.clone(), user))
    }
}
