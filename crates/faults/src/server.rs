//! Corten's API server alone, on the memory store: no controllers but that of definitions, and no node behind it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use corten_apiserver::{Server, ServerConfig};
use corten_auth::{Material, PkiNames, User};
use corten_base::{BoxFuture, Clock as _, SystemClock, SystemEntropy, Tasks};
use corten_cache::{Cache, CacheOptions};
use corten_client::{ByteStream, Duplex, ExecRequest, ExecSession, LogRequest, NodeApi, PortForwardRequest};
use corten_controllers::custom_resource_definition::CustomResourceDefinitionController;
use corten_kinds::Registry;
use corten_manager::Manager;
use corten_object::{Reason, Status};
use corten_store::{MemoryStore, Store};

/// There is no node.
struct NoNode;

fn no_node<T: Send + 'static>() -> BoxFuture<'static, Result<T, Status>> {
    Box::pin(async { Err(Status::new(Reason::ServiceUnavailable, "no node")) })
}

impl NodeApi for NoNode {
    fn logs(&self, _: LogRequest) -> BoxFuture<'_, Result<ByteStream, Status>> {
        no_node()
    }

    fn exec(&self, _: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>> {
        no_node()
    }

    fn port_forward(&self, _: PortForwardRequest) -> BoxFuture<'_, Result<std::pin::Pin<Box<dyn Duplex>>, Status>> {
        no_node()
    }
}

/// The range of service addresses, here and in the oracle.
pub const SERVICE_RANGE: &str = "10.43.0.0/16";

/// Certificates for a server on loopback.
///
/// # Errors
/// If they cannot be made or written below `dir`.
pub fn material(dir: &Path) -> Result<Arc<Material>> {
    let names = PkiNames { ips: vec!["10.43.0.1".parse()?], ..PkiNames::default() };
    Ok(Arc::new(Material::load_or_create(dir, &names, SystemClock.now())?))
}

/// A running server. It ends with its runtime.
pub struct Alone {
    /// Where it listens.
    pub address: std::net::SocketAddr,
    _server: Server,
    _tasks: Tasks,
}

/// Starts the server on a free port of loopback.
///
/// # Errors
/// If it does not start.
pub async fn start(material: Arc<Material>) -> Result<Alone> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let cache = Cache::new(Arc::new(Registry::builtin()), CacheOptions::default());
    let tasks = Tasks::tokio();
    cache.start(store.clone(), &tasks).await?;
    let server = Server::start(ServerConfig {
        store,
        cache: cache.clone(),
        material,
        static_tokens: HashMap::new(),
        authentication: Default::default(),
        authorization: corten_apiserver::AuthorizationOptions::default(),
        audit: corten_apiserver::AuditOptions::default(),
        sealer: None,
        listen: vec![([127, 0, 0, 1], 0).into()],
        advertise: "192.0.2.1".parse()?,
        service_cidr: SERVICE_RANGE.parse()?,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        tasks: tasks.clone(),
        node_api: Arc::new(NoNode),
        flow: corten_apiserver::FlowLimits::default(),
        event_ttl: None,
    })
    .await?;
    let api = server.api_as(User::admin());
    let manager = Manager {
        cache,
        api: Arc::new(move |_: &str| api.clone()),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
    };
    // Upstream's API server names and serves what is defined by itself.
    manager.start_controller(&tasks, Box::new(CustomResourceDefinitionController));
    let address = *server.addresses().first().context("it listens")?;
    Ok(Alone { address, _server: server, _tasks: tasks })
}
