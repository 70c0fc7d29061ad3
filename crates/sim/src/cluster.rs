//! The product's parts on the simulator's executor.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use corten_apiserver::{Server, ServerConfig};
use corten_auth::{Material, PkiNames, User};
use corten_base::entropy::SeededEntropy;
use corten_base::task::{OnError, OnStop, Tasks};
use corten_base::{BoxFuture, Clock, Revision};
use corten_cache::{Cache, CacheOptions};
use corten_client::{
    Api, ByteStream, Duplex, ExecRequest, ExecSession, LogRequest, NodeApi, PortForwardRequest, Write, WriteOptions,
    Written,
};
use corten_controllers::Config;
use corten_kinds::Registry;
use corten_manager::Manager;
use corten_object::{Reason, Status};
use corten_store::{Batch, CommitFault, FaultPlan, FaultyStore, MemoryStore, Seeded, Store, WatchFault};

use crate::executor::Sim;

/// A cluster.
pub(crate) struct Cluster {
    pub sim: Sim,
    pub cache: Cache,
    pub entropy: Arc<SeededEntropy>,
    server: Arc<Server>,
    manager: Mutex<Tasks>,
}

/// Faults by chance, once it is switched on: a server's first start is not what is tested here.
struct Switched {
    on: Arc<AtomicBool>,
    plan: Seeded,
}

impl FaultPlan for Switched {
    fn commit(&mut self, n: u64, batch: &Batch) -> Option<CommitFault> {
        self.on.load(Ordering::Relaxed).then(|| self.plan.commit(n, batch)).flatten()
    }

    fn watch(&mut self, revision: Revision) -> Option<WatchFault> {
        self.on.load(Ordering::Relaxed).then(|| self.plan.watch(revision)).flatten()
    }
}

/// No node answers here.
struct NoNode;

impl NodeApi for NoNode {
    fn logs(&self, _: LogRequest) -> BoxFuture<'_, Result<ByteStream, Status>> {
        Box::pin(async { Err(absent()) })
    }

    fn exec(&self, _: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>> {
        Box::pin(async { Err(absent()) })
    }

    fn port_forward(&self, _: PortForwardRequest) -> BoxFuture<'_, Result<std::pin::Pin<Box<dyn Duplex>>, Status>> {
        Box::pin(async { Err(absent()) })
    }
}

fn absent() -> Status {
    Status::new(Reason::ServiceUnavailable, "the simulator has no nodes to talk to")
}

/// Keys and certificates, made once: nothing here depends on them.
fn material() -> Arc<Material> {
    static MATERIAL: OnceLock<Arc<Material>> = OnceLock::new();
    let make = || {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let names = PkiNames { node_name: "n".into(), ..PkiNames::default() };
        let now = corten_base::SystemClock.now();
        Arc::new(Material::load_or_create(dir.path(), &names, now).expect("certificates can be made"))
    };
    MATERIAL.get_or_init(make).clone()
}

impl Cluster {
    /// Starts a cluster whose store fails by chance if `faults` is set (only after the start).
    pub fn start(seed: u64, faults: bool) -> Cluster {
        let sim = Sim::new(seed);
        let clock = sim.clock();
        let tasks = Tasks::new(Arc::new(sim.clone()), clock.clone());
        let entropy = Arc::new(SeededEntropy::new(seed));
        let on = Arc::new(AtomicBool::new(false));
        let plan = Switched { on: on.clone(), plan: Seeded::new(seed) };
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let store: Arc<dyn Store> = Arc::new(FaultyStore::new(memory.clone(), plan));
        let cache = Cache::new(Arc::new(Registry::builtin()), CacheOptions::default());
        let (feeding, source) = (cache.clone(), store.clone());
        let (loading, loaded) = (cache.clone(), source.clone());
        let watch = sim.block_on(async move { loading.load(&*loaded).await }).expect("an empty store can be read");
        let watch = Mutex::new(Some(watch));
        tasks.run("cache", OnError::Fatal, OnStop::Abort, move || {
            let (feeding, source) = (feeding.clone(), source.clone());
            let watch = watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            async move {
                match watch {
                    Some(watch) => Err(feeding.run(source, watch).await),
                    None => Ok(()),
                }
            }
        });
        let server = ServerConfig {
            store,
            cache: cache.clone(),
            material: material(),
            static_tokens: HashMap::new(),
            listen: Vec::new(),
            advertise: std::net::IpAddr::from([192, 0, 2, 1]),
            service_cidr: "10.43.0.0/16".parse().expect("a range"),
            clock,
            entropy: entropy.clone(),
            tasks: tasks.clone(),
            node_api: Arc::new(NoNode),
            flow: corten_apiserver::FlowLimits::default(),
            event_ttl: None,
            authentication: corten_apiserver::Authentication::default(),
            authorization: corten_apiserver::AuthorizationOptions::default(),
            audit: corten_apiserver::AuditOptions::default(),
            sealer: None,
        };
        let server = sim.block_on(Server::start(server)).expect("a server starts on an empty store");
        on.store(faults, Ordering::Relaxed);
        let cluster = Cluster { manager: Mutex::new(tasks), sim, cache, entropy, server: Arc::new(server) };
        cluster.restart_manager(true);
        cluster
    }

    /// The API as a user.
    pub fn api(&self, user: User) -> Arc<dyn Api> {
        self.server.api_as(user)
    }

    /// Kills controllers and scheduler where they are, and starts them anew.
    pub fn restart_manager(&self, first: bool) {
        let tasks = Tasks::new(Arc::new(self.sim.clone()), self.sim.clock());
        let mut running = self.manager.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !first {
            running.begin_stop();
            // A new process would read the store, and so see what the old one has just written.
            while self.sim.step() {}
        }
        let server = self.server.clone();
        let manager = Manager {
            cache: self.cache.clone(),
            api: Arc::new(move |name: &str| server.api_as(user(name))),
            clock: self.sim.clock(),
            entropy: self.entropy.clone(),
        };
        manager.start(&tasks, &config());
        *running = tasks;
    }
}

/// The controllers' settings: nodes are never silent, as their leases are not simulated.
pub(crate) fn config() -> Config {
    Config { root_ca: "CA".into(), node_grace_seconds: 1_000_000_000, ..Config::default() }
}

fn user(name: &str) -> User {
    match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => User::service_account(namespace, account),
        None => User::new(name, &[]),
    }
}

/// Writes until it works: what a patient user does. An object that is there already is as good as made.
pub(crate) async fn insist(api: &dyn Api, clock: &dyn Clock, write: Write) -> Option<Written> {
    for _ in 0..50 {
        match api.write(write.clone(), WriteOptions::default()).await {
            Ok(written) => return Some(written),
            Err(f) if f.status.is_not_found() || f.status.is_already_exists() => return None,
            Err(failure) => tracing::debug!(error = %failure, "tried again"),
        }
        clock.sleep(std::time::Duration::from_millis(100)).await;
    }
    None
}
