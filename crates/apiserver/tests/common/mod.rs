//! A server on the memory store, for tests.

#[allow(dead_code, reason = "each test file uses its part")]
pub mod caller;
#[allow(dead_code, reason = "each test file uses its part")]
pub mod definitions;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_apiserver::{Server, ServerConfig};
use corten_auth::{Material, PkiNames, User};
use corten_base::{BoxFuture, Clock, OnStop, SystemClock, SystemEntropy, Tasks, Timestamp};
use corten_cache::{Cache, CacheOptions};
use corten_client::{
    Api, ByteStream, Duplex, ExecExit, ExecRequest, ExecSession, LogRequest, NodeApi, PortForwardRequest,
};
use corten_kinds::Registry;
use corten_kinds::usage::{ContainerUsage, NodeUsage, Used};
use corten_object::{Reason, Status};
use corten_store::{MemoryStore, Store};
use corten_tree::{Tree, json};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Logs one line; a command gets back what is written to it, and exits with 3. Pods `a`, `b` and `gone` use something.
struct EchoNode;

impl NodeApi for EchoNode {
    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<ByteStream, Status>> {
        let line = format!("a line of {}\n", request.target.container);
        let stream: ByteStream = Box::pin(futures::stream::once(async move { Ok(line.into()) }));
        Box::pin(async move { Ok(stream) })
    }

    fn exec(&self, _request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>> {
        Box::pin(async {
            let (stdin, stdout) = tokio::io::duplex(4096);
            Ok(ExecSession {
                stdin: Some(Box::pin(stdin)),
                stdout: Some(Box::pin(stdout)),
                stderr: None,
                resize: None,
                exit: Box::pin(async { ExecExit::Code(3) }),
            })
        })
    }

    fn usage(&self) -> Vec<Arc<NodeUsage>> {
        let used = Used { cpu_nanocores: 250_000_000, memory_bytes: 64 << 20 };
        let window = jiff::SignedDuration::from_secs(15);
        let container = |pod: &str| ContainerUsage {
            namespace: "default".into(),
            pod: pod.into(),
            container: "c".into(),
            window,
            used,
        };
        let containers = vec![container("a"), container("b"), container("gone")];
        vec![Arc::new(NodeUsage { node: "n1".into(), at: SystemClock.now(), window, used, containers })]
    }

    fn port_forward(
        &self,
        _request: PortForwardRequest,
    ) -> BoxFuture<'_, Result<std::pin::Pin<Box<dyn Duplex>>, Status>> {
        Box::pin(async { Err(Status::new(Reason::ServiceUnavailable, "no node")) })
    }
}

/// One HTTP/1.1 connection, as the administrator or as nobody.
#[allow(dead_code, reason = "each test file uses its part")]
pub struct Client(hyper::client::conn::http1::SendRequest<Full<Bytes>>);

#[allow(dead_code, reason = "each test file uses its part")]
impl Client {
    pub async fn connect(fixture: &Fixture, admin: bool) -> Client {
        Client::with_identity(fixture, admin.then_some(&fixture.material.admin)).await
    }

    /// With a client certificate, or without.
    pub async fn with_identity(fixture: &Fixture, identity: Option<&corten_auth::SignedPair>) -> Client {
        let (sender, connection) = hyper::client::conn::http1::handshake(fixture.tls(identity).await).await.unwrap();
        fixture.tasks.spawn("test client", OnStop::Abort, async move {
            let _ = connection.with_upgrades().await;
        });
        Client(sender)
    }

    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        self.0.ready().await.unwrap();
        self.0.send_request(request).await.unwrap()
    }

    async fn ask(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Tree) {
        let response = self.send(method, path, headers, body).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, json::parse(&bytes).unwrap_or_else(|_| Tree::from(String::from_utf8_lossy(&bytes).into_owned())))
    }

    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> (u16, Tree) {
        self.ask(Method::GET, path, headers, b"").await
    }

    pub async fn post(&mut self, path: &str, body: &str) -> (u16, Tree) {
        self.ask(Method::POST, path, &[], body.as_bytes()).await
    }

    pub async fn put(&mut self, path: &str, body: &str) -> (u16, Tree) {
        self.ask(Method::PUT, path, &[], body.as_bytes()).await
    }

    pub async fn patch(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Tree) {
        self.ask(Method::PATCH, path, headers, body).await
    }

    pub async fn delete(&mut self, path: &str) -> (u16, Tree) {
        self.ask(Method::DELETE, path, &[], b"").await
    }
}

/// The task that feeds the cache; it ends with this.
struct Feed(Tasks);

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.begin_stop();
    }
}

/// The system's clock, which a test may put forward: who sleeps until then wakes.
#[derive(Debug, Clone, Default)]
pub struct ShiftedClock(tokio::sync::watch::Sender<Duration>);

impl ShiftedClock {
    #[allow(dead_code, reason = "each test file uses its part")]
    pub fn advance(&self, seconds: u64) {
        self.0.send_modify(|ahead| *ahead += Duration::from_secs(seconds));
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        SystemClock.now() + *self.0.borrow()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (clock, deadline, mut advanced) = (self.clone(), self.now() + duration, self.0.subscribe());
        Box::pin(async move {
            while clock.now() < deadline {
                let left = Duration::try_from(deadline.duration_since(clock.now())).unwrap_or_default();
                tokio::select! {
                    _ = advanced.changed() => {}
                    () = tokio::time::sleep(left) => {}
                }
            }
        })
    }
}

/// A running server; everything goes with it.
#[allow(dead_code, reason = "each test file uses its part")]
pub struct Fixture {
    pub server: Server,
    pub material: Arc<Material>,
    pub tasks: Tasks,
    pub cache: Cache,
    pub store: Arc<dyn Store>,
    pub clock: Arc<ShiftedClock>,
    _feed: Feed,
    sealer: Arc<corten_auth::Sealer>,
    pub dir: tempfile::TempDir,
}

#[allow(dead_code, reason = "each test file uses its part")]
impl Fixture {
    pub async fn start() -> Fixture {
        Fixture::with_cache(CacheOptions::default()).await
    }

    /// A server whose cache has these bounds.
    pub async fn with_cache(options: CacheOptions) -> Fixture {
        Fixture::with_config(options, |_, _| {}).await
    }

    /// A server with another configuration; the path is of a directory for files.
    pub async fn with_config(
        options: CacheOptions,
        configure: impl FnOnce(&mut ServerConfig, &std::path::Path),
    ) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let names = PkiNames { node_name: "n1".into(), ..PkiNames::default() };
        let material = Arc::new(Material::load_or_create(dir.path(), &names, SystemClock.now()).unwrap());
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let registry = Arc::new(Registry::builtin());
        let sealer = Arc::new(corten_auth::Sealer::load_or_create(&dir.path().join("encryption.key")).unwrap());
        let opener = sealer.clone();
        let unseal: corten_cache::Unseal = Arc::new(move |_, place, kept| opener.open(place, kept));
        let cache = Cache::new(registry, CacheOptions { unseal: Some(unseal), ..options });
        let tasks = Tasks::tokio();
        // It feeds whoever is still being answered when the server stops.
        let feed = Tasks::tokio();
        cache.start(store.clone(), &feed).await.unwrap();
        let clock = Arc::new(ShiftedClock::default());
        let parts = (store.clone(), cache.clone(), material.clone(), tasks.clone());
        let mut config = Fixture::config(parts, clock.clone(), sealer.clone());
        configure(&mut config, dir.path());
        let server = Server::start(config).await.unwrap();
        Fixture { server, material, tasks, cache, store, clock, _feed: Feed(feed), sealer, dir }
    }

    /// One more server over the same store and cache: what a restart finds.
    pub async fn start_again(&self) -> Server {
        let parts = (self.store.clone(), self.cache.clone(), self.material.clone(), self.tasks.clone());
        Server::start(Fixture::config(parts, self.clock.clone(), self.sealer.clone())).await.unwrap()
    }

    fn config(
        (store, cache, material, tasks): (Arc<dyn Store>, Cache, Arc<Material>, Tasks),
        clock: Arc<ShiftedClock>,
        sealer: Arc<corten_auth::Sealer>,
    ) -> ServerConfig {
        ServerConfig {
            store,
            cache,
            material,
            static_tokens: HashMap::from([("secret-token".to_owned(), User::new("alice", &[]))]),
            listen: vec![([127, 0, 0, 1], 0).into()],
            advertise: "192.0.2.1".parse().unwrap(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            clock,
            entropy: Arc::new(SystemEntropy),
            tasks,
            node_api: Arc::new(EchoNode),
            flow: corten_apiserver::FlowLimits::default(),
            event_ttl: None,
            authentication: corten_apiserver::Authentication::default(),
            authorization: corten_apiserver::AuthorizationOptions::default(),
            audit: corten_apiserver::AuditOptions::default(),
            sealer: Some(sealer),
        }
    }

    /// A TLS connection, with a client certificate or without.
    pub async fn tls(
        &self,
        identity: Option<&corten_auth::SignedPair>,
    ) -> TokioIo<tokio_rustls::client::TlsStream<TcpStream>> {
        let tls = Arc::new(self.material.client_tls(identity).unwrap());
        let tcp = TcpStream::connect(self.server.addresses()[0]).await.unwrap();
        let name = "localhost".try_into().unwrap();
        TokioIo::new(tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await.unwrap())
    }

    /// Waits until the cache is as wanted, looking again at each change.
    pub async fn until_cache(&self, wanted: impl Fn(&Fixture) -> bool) {
        let mut cursor = self.cache.cursor(corten_cache::Scope::Everything, self.cache.revision()).unwrap();
        while !wanted(self) {
            let change = tokio::time::timeout(Duration::from_secs(20), cursor.next_batch(100));
            change.await.expect("what is waited for never comes").unwrap();
        }
    }

    pub fn admin(&self) -> Arc<dyn Api> {
        self.server.api_as(User::admin())
    }
}
