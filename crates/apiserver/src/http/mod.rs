//! HTTP in, HTTP out: connections, paths, headers, encodings. Nothing in here decides; it calls the pipeline.

mod audited;
mod authenticate;
mod body;
mod encode;
mod flow;
mod handle;
mod health;
mod impersonate;
mod messages;
mod negotiate;
mod options;
mod query;
mod resource;
mod respond;
mod route;
mod watch;
pub(crate) mod websocket;
mod zpages;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_auth::{User, user_of_certificate};
use corten_base::{Clock, OnStop};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch as channel;
use tokio_rustls::TlsAcceptor;

pub use authenticate::{Anonymous, RequestHeader};
pub(crate) use body::{Body as HttpBody, Passed, full, stream};
pub(crate) use handle::{Call, read_body};
pub(crate) use messages::Messages;
pub(crate) use negotiate::Clause;
pub(crate) use options::delete as delete_parameters;
pub(crate) use query::{Query, unescape};
pub(crate) use respond::{respond, text};
pub(crate) use route::{Resource, resource_of};
pub(crate) use route::{Route, parse};
pub use zpages::started_with;

use crate::StartError;
use crate::core::Core;

/// How many streams one HTTP/2 connection may have at once (informers use one per kind).
const STREAMS_MAX: u32 = 250;
/// How long a connection may say nothing between requests (`IdleTimeout` in `apiserver/pkg/server/secure_serving.go`).
const IDLE_MAX: Duration = Duration::from_secs(90);
/// How long a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// The longest time that no connection is accepted when the process is out of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// A connection's peer.
pub(crate) struct Peer {
    /// Who the client certificate names, if there was one of the clients' CA.
    pub user: Option<Arc<User>>,
    /// The common name of the client certificate, if it is one of the front proxy's CA.
    pub proxy: Option<String>,
    /// Its address: answers to those on this machine are not compressed.
    pub ip: IpAddr,
}

/// Opens the sockets.
pub(crate) async fn listen(addresses: &[SocketAddr]) -> Result<Vec<(TcpListener, SocketAddr)>, StartError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let failed = |source| StartError::Listen { address: *address, source };
        let listener = open(*address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        listeners.push((listener, bound));
    }
    Ok(listeners)
}

/// Listens on an address, also on one that the machine will have only later: the pods' gateway comes with the node.
fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    if address.is_ipv4() {
        rustix::net::sockopt::set_ip_freebind(&socket, true)?;
    }
    socket.bind(address)?;
    socket.listen(1024)
}

/// The connections of a listener; a clone of [`OpenConnections::guard`] is held by each.
struct OpenConnections {
    ended: Arc<Ended>,
    seen: channel::Receiver<u64>,
}

/// Says so when it is dropped.
struct OneOpen(Arc<Ended>);

struct Ended(channel::Sender<u64>);

impl Drop for OneOpen {
    fn drop(&mut self) {
        self.0.0.send_modify(|n| *n += 1);
    }
}

impl OpenConnections {
    fn new() -> OpenConnections {
        let (sender, seen) = channel::channel(0);
        OpenConnections { ended: Arc::new(Ended(sender)), seen }
    }

    /// What a connection holds for as long as it lasts.
    fn guard(&mut self) -> OneOpen {
        self.seen.borrow_and_update();
        OneOpen(self.ended.clone())
    }

    /// Waits for the end of a connection since the last one began. Others in this process have descriptors too, of whose end
    /// nothing is heard here: hence the bound.
    async fn one_ended(&mut self, clock: &dyn Clock) {
        let ended = self.seen.changed();
        futures::pin_mut!(ended);
        futures::future::select(ended, clock.sleep(ACCEPT_AGAIN)).await;
    }
}

/// Answers on the sockets until the task tree stops.
pub(crate) fn serve(core: &Arc<Core>, listeners: Vec<(TcpListener, SocketAddr)>, tls: Arc<rustls::ServerConfig>) {
    for (listener, _) in listeners {
        let (core, tls) = (core.clone(), TlsAcceptor::from(tls.clone()));
        let tasks = core.tasks.clone();
        let mut open = OpenConnections::new();
        tasks.spawn("api listener", OnStop::Abort, async move {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let (connection, open) = (connection(core.clone(), tls.clone(), stream, peer), open.guard());
                        core.tasks.spawn("api connection", OnStop::Drain, async move {
                            let _open = open;
                            connection.await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection failed");
                        // Out of file descriptors, as a rule: a connection's end makes room.
                        open.one_ended(&*core.clock).await;
                    }
                }
            }
        });
    }
}

async fn connection(core: Arc<Core>, tls: TlsAcceptor, stream: TcpStream, peer: SocketAddr) {
    // Small answers must not wait for the peer's acknowledgement.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let chain = stream.get_ref().1.peer_certificates();
    let certificate = chain.and_then(|c| c.first());
    // The handshake took certificates of the clients' CA and of the front proxy's: which is this one of?
    let is_client = chain.is_some_and(|chain| core.material.is_client(chain, core.clock.now()));
    let is_proxy = !is_client && chain.is_some_and(|chain| core.material.is_proxy(chain, core.clock.now()));
    let named = certificate.and_then(|der| user_of_certificate(der).ok());
    let proxy = named.as_ref().filter(|_| is_proxy).map(|user| user.name.clone());
    let user = named.filter(|_| is_client).map(Arc::new);
    let peer = Arc::new(Peer { user, proxy, ip: peer.ip() });
    let stopping = core.tasks.stopping();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (core, peer) = (core.clone(), peer.clone());
        async move {
            let began = Instant::now();
            let mut answered = handle::handle(&core, &peer, request).await;
            let code = answered.response.status().as_u16();
            let size = hyper::body::Body::size_hint(answered.response.body()).exact();
            if let body::Body::List(list) = answered.response.body_mut() {
                let (core, verb, what) = (core.clone(), answered.verb, answered.what.clone());
                list.told = Some(Box::new(move |size| {
                    core.metrics.sized(verb, handle::labels(what.as_deref(), false), code, size);
                }));
            }
            core.metrics.count(answered.verb, answered.labels(), code, (began.elapsed(), size));
            Ok::<_, std::convert::Infallible>(answered.response)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_MAX);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
            return;
        }
        () = stopping => connection.as_mut().graceful_shutdown(),
    }
    // Requests that are being answered are finished; watches end with the tree's stop.
    let _ = connection.await;
}
