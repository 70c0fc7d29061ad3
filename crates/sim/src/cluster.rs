//! The product's parts on the simulator's executor.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use corten_apiserver::{Server, ServerConfig};
use corten_auth::{Material, PkiNames, User};
use corten_base::entropy::SeededEntropy;
use corten_base::task::Tasks;
use corten_base::{BoxFuture, Clock, Revision};
use corten_cache::{Cache, CacheOptions};
use corten_client::{
    ByteStream, Duplex, ExecRequest, ExecSession, LogRequest, NodeApi, PortForwardRequest, Write, WriteOptions, Written,
};
use corten_controllers::Config;
use corten_kinds::Registry;
use corten_manager::Manager;
use corten_object::{Reason, Status};
use corten_store::{Batch, CommitFault, FaultPlan, FaultyStore, MemoryStore, Seeded, Store, WatchFault};
use tokio::sync::watch;

use crate::executor::{Hiccups, Sim};

/// What the scheduler is called among the parts.
const SCHEDULER: &str = "scheduler";
/// How tasks are held up.
const HICCUPS: Hiccups = Hiccups { permille: 2, millis_max: 3000 };

/// A cluster.
pub(crate) struct Cluster {
    pub sim: Sim,
    pub entropy: Arc<SeededEntropy>,
    store: Arc<dyn Store>,
    process: watch::Sender<Process>,
    /// Controllers and scheduler by name: each can be restarted alone.
    parts: Mutex<BTreeMap<&'static str, Tasks>>,
    /// Whether the store fails now.
    on: Arc<AtomicBool>,
    faults: bool,
}

/// What dies together: the cache and the API server.
#[derive(Clone)]
pub(crate) struct Process {
    pub cache: Cache,
    server: Arc<Server>,
    tasks: Tasks,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Process {
    /// Starts cache and API server on a store.
    fn start(sim: &Sim, store: &Arc<dyn Store>, entropy: &Arc<SeededEntropy>) -> Process {
        let clock = sim.clock();
        let tasks = Tasks::new(Arc::new(sim.clone()), clock.clone());
        let cache = Cache::new(Arc::new(Registry::builtin()), CacheOptions::default());
        let (loading, source, feeding) = (cache.clone(), store.clone(), tasks.clone());
        sim.block_on(async move { loading.start(source, &feeding).await }).expect("a store in memory can be read");
        let server = ServerConfig {
            store: store.clone(),
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
        let server = sim.block_on(Server::start(server)).expect("a server starts on a store that can be read");
        Process { cache, server: Arc::new(server), tasks }
    }
}

impl Cluster {
    /// Starts a cluster. With `faults` the store fails by chance and tasks are held up, both only after the start.
    pub fn start(seed: u64, faults: bool) -> Cluster {
        let sim = Sim::new(seed);
        let entropy = Arc::new(SeededEntropy::new(seed));
        let on = Arc::new(AtomicBool::new(false));
        let plan = Switched { on: on.clone(), plan: Seeded::new(seed) };
        let store: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), plan));
        let process = watch::channel(Process::start(&sim, &store, &entropy)).0;
        let cluster = Cluster { sim, entropy, store, process, parts: Mutex::new(BTreeMap::new()), on, faults };
        cluster.start_parts();
        cluster.switch(true);
        cluster
    }

    fn switch(&self, on: bool) {
        self.on.store(on && self.faults, Ordering::Relaxed);
        self.sim.set_hiccups((on && self.faults).then_some(HICCUPS));
    }

    /// Tells when another process runs.
    pub fn processes(&self) -> watch::Receiver<Process> {
        self.process.subscribe()
    }

    /// The API as a user, who asks whatever process runs.
    pub fn api(&self, user: User) -> Reconnecting {
        Reconnecting { process: self.process.subscribe(), user }
    }

    fn manager(&self) -> Manager {
        let process = self.process.borrow().clone();
        Manager {
            cache: process.cache.clone(),
            api: Arc::new(move |name: &str| process.server.api_as(user(name))),
            clock: self.sim.clock(),
            entropy: self.entropy.clone(),
        }
    }

    fn start_parts(&self) {
        let started = Some(self.sim.wall());
        for controller in corten_controllers::all(&Config { started, ..config() }) {
            let tasks = Tasks::new(Arc::new(self.sim.clone()), self.sim.clock());
            let name = controller.name();
            self.manager().start_controller(&tasks, controller);
            locked(&self.parts).insert(name, tasks);
        }
        let tasks = Tasks::new(Arc::new(self.sim.clone()), self.sim.clock());
        self.manager().start_scheduler(&tasks);
        locked(&self.parts).insert(SCHEDULER, tasks);
    }

    /// Kills one part where it is and starts it anew. It sees at once what its former self has just written: both read the
    /// same cache.
    pub fn restart_part(&self, number: usize) {
        let mut parts = locked(&self.parts);
        let names: Vec<&'static str> = parts.keys().copied().collect();
        let Some(name) = names.get(number % names.len().max(1)).copied() else { return };
        if let Some(old) = parts.remove(name) {
            old.begin_stop();
        }
        drop(parts);
        // What was on its way is written before the new one begins, as it would be while a process starts.
        while self.sim.step() {}
        let tasks = Tasks::new(Arc::new(self.sim.clone()), self.sim.clock());
        let started = Some(self.sim.wall());
        let controllers = corten_controllers::all(&Config { started, ..config() });
        match controllers.into_iter().find(|c| c.name() == name) {
            Some(controller) => self.manager().start_controller(&tasks, controller),
            None => self.manager().start_scheduler(&tasks),
        }
        locked(&self.parts).insert(name, tasks);
    }

    /// Kills the whole process where it is and starts another on the same store.
    pub fn restart_process(&self) {
        std::mem::take(&mut *locked(&self.parts)).values().for_each(Tasks::begin_stop);
        self.process.borrow().tasks.begin_stop();
        self.switch(false);
        let next = Process::start(&self.sim, &self.store, &self.entropy);
        self.process.send_replace(next);
        self.start_parts();
        self.switch(true);
    }
}

/// The API of whatever process runs; a request that is under way when that process dies fails, and nobody knows what became of it.
#[derive(Clone)]
pub(crate) struct Reconnecting {
    process: watch::Receiver<Process>,
    user: User,
}

impl Reconnecting {
    /// The cache of the process that runs now.
    pub fn cache(&self) -> Cache {
        self.process.borrow().cache.clone()
    }

    /// Writes.
    pub async fn write(&self, write: Write) -> Result<Written, Status> {
        let mut process = self.process.clone();
        let api = process.borrow_and_update().server.api_as(self.user.clone());
        tokio::select! {
            biased;
            answer = api.write(write, WriteOptions::default()) => answer.map_err(|failure| failure.status),
            _ = process.changed() => Err(Status::new(Reason::ServiceUnavailable, "the connection was lost")),
        }
    }

    /// Writes until it works: what a patient user does. An object that is there already is as good as made.
    pub async fn insist(&self, clock: &dyn Clock, write: Write) -> Option<Written> {
        for _ in 0..50 {
            match self.write(write.clone()).await {
                Ok(written) => return Some(written),
                Err(status) if status.is_not_found() || status.is_already_exists() => return None,
                Err(status) => tracing::debug!(error = %status, "tried again"),
            }
            clock.sleep(std::time::Duration::from_millis(100)).await;
        }
        None
    }
}

/// The controllers' settings.
pub(crate) fn config() -> Config {
    Config { root_ca: "CA".into(), ..Config::default() }
}

fn user(name: &str) -> User {
    match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => User::service_account(namespace, account),
        None => User::new(name, &[]),
    }
}
