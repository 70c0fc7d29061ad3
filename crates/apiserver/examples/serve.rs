//! An API server on the memory store, for trying things out: `cargo run -p corten-apiserver --example serve -- DIR [PORT]`.
//! Writes certificates and a kubeconfig into DIR. There are no controllers and no node behind it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use corten_apiserver::{Server, ServerConfig};
use corten_auth::{Material, PkiNames};
use corten_base::{BoxFuture, Clock, OnError, OnStop, SystemClock, SystemEntropy, Tasks};
use corten_cache::{Cache, CacheOptions};
use corten_client::{ByteStream, ExecExit, ExecRequest, ExecSession, LogRequest, NodeApi, PortForwardRequest};
use corten_kinds::Registry;
use corten_object::{Reason, Status};
use corten_store::{MemoryStore, Store};

/// A node that echoes: what is written to a command comes back, and it exits with 3.
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

    fn port_forward(
        &self,
        _request: PortForwardRequest,
    ) -> BoxFuture<'_, Result<std::pin::Pin<Box<dyn corten_client::Duplex>>, Status>> {
        Box::pin(async { Err(Status::new(Reason::ServiceUnavailable, "no node")) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("a directory is needed")?);
    let port: u16 = args.next().map_or(Ok(0), |p| p.parse())?;
    let began = Instant::now();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let names = PkiNames { dns: Vec::new(), ips: vec!["10.43.0.1".parse()?], node_name: "local".into() };
    let material = Arc::new(Material::load_or_create(&dir, &names, clock.now())?);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let cache = Cache::new(Arc::new(Registry::builtin()), CacheOptions::default());
    let tasks = Tasks::tokio();
    let watch = cache.load(&*store).await?;
    let (feeding, source) = (cache.clone(), store.clone());
    let watch = std::sync::Mutex::new(Some(watch));
    tasks.run("cache", OnError::Fatal, OnStop::Abort, move || {
        let (feeding, source) = (feeding.clone(), source.clone());
        let watch = watch.lock().expect("nobody panics here").take();
        async move {
            match watch {
                Some(watch) => Err(feeding.run(source, watch).await),
                None => Ok(()),
            }
        }
    });
    let server = Server::start(ServerConfig {
        store,
        cache,
        material: material.clone(),
        static_tokens: HashMap::new(),
        listen: vec![([127, 0, 0, 1], port).into()],
        advertise: "192.0.2.1".parse()?,
        service_cidr: "10.43.0.0/16".parse()?,
        clock,
        entropy: Arc::new(SystemEntropy),
        tasks: tasks.clone(),
        node_api: Arc::new(EchoNode),
        flow: corten_apiserver::FlowLimits::default(),
        event_ttl: None,
        authentication: corten_apiserver::Authentication::default(),
        authorization: corten_apiserver::AuthorizationOptions::default(),
        audit: corten_apiserver::AuditOptions::default(),
        sealer: None,
    })
    .await?;
    let address = server.addresses()[0];
    let path = |name: &str| dir.join(name).display().to_string();
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'https://{address}', certificate-authority: {}}}}}]\n\
         users: [{{name: u, user: {{client-certificate: {}, client-key: {}}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n",
        path("ca.crt"),
        path("admin.crt"),
        path("admin.key")
    );
    std::fs::write(dir.join("kubeconfig"), kubeconfig)?;
    println!("https://{address} after {:?}; KUBECONFIG={}", began.elapsed(), path("kubeconfig"));
    tokio::signal::ctrl_c().await?;
    tasks.stop(std::time::Duration::from_secs(5)).await;
    Ok(())
}
