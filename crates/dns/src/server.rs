//! The server: UDP and TCP in, answers from the source, other names forwarded.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::op::{Message, Query, ResponseCode};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::RecordSource;
use crate::forward::{Forwarder, read_framed, write_framed};
use crate::respond::{Outcome, Responder, Transport, encode, refusal};

/// TCP connections at once; more are closed.
/// How long no connection is accepted when the process is out of descriptors and none of them is this server's.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
const CONNECTIONS_MAX: usize = 256;
/// How long a TCP client may be silent.
const IDLE: Duration = Duration::from_secs(10);

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
    sockets: Vec<(UdpSocket, TcpListener)>,
    shared: Shared,
}

/// What all sockets share.
struct Shared {
    source: Arc<dyn RecordSource>,
    ttl_seconds: u32,
    turn: AtomicUsize,
    forwarder: Forwarder,
    forwards: Semaphore,
    connections: Semaphore,
}

impl std::fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsServer").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl DnsServer {
    /// Binds all addresses. Upstream resolvers that are this server itself are left out.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub async fn bind(config: DnsConfig, source: Arc<dyn RecordSource>) -> Result<Self, DnsError> {
        let mut sockets = Vec::new();
        let mut addresses = Vec::new();
        for address in config.listen {
            let (udp, tcp) = bind_both(address).await.map_err(|source| DnsError::Bind { address, source })?;
            addresses.push(tcp.local_addr().map_err(|source| DnsError::Bind { address, source })?);
            sockets.push((udp, tcp));
        }
        let upstream = config.upstream.into_iter().filter(|server| !addresses.contains(server)).collect();
        let shared = Shared {
            source,
            ttl_seconds: config.ttl_seconds,
            turn: AtomicUsize::new(0),
            forwarder: Forwarder::new(upstream, config.upstream_timeout),
            forwards: Semaphore::new(config.forward_max),
            connections: Semaphore::new(CONNECTIONS_MAX),
        };
        Ok(DnsServer { addresses, sockets, shared })
    }

    /// The bound addresses, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until dropped: run it as one task of the task tree.
    pub async fn run(self) {
        let shared = &self.shared;
        let serve = |(udp, tcp)| async move {
            futures::join!(serve_udp(shared, &udp), serve_tcp(shared, &tcp));
        };
        futures::future::join_all(self.sockets.into_iter().map(serve)).await;
    }
}

/// With port 0 both get the same port.
async fn bind_both(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = 0;
    loop {
        let tcp = TcpListener::bind(address).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((udp, tcp)),
            // Another process has the UDP port of the number that TCP got.
            Err(error) if address.port() == 0 && error.kind() == io::ErrorKind::AddrInUse && tries < 20 => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

async fn serve_udp(shared: &Shared, socket: &UdpSocket) {
    let mut buffer = vec![0; 4096];
    let mut later = FuturesUnordered::new();
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                // An ICMP error of an earlier answer; the socket is well.
                let Ok((length, peer)) = received else { continue };
                let packet = &buffer[..length];
                match shared.respond(packet, Transport::Udp) {
                    Outcome::Reply(reply) => send(socket, &reply, peer).await,
                    Outcome::Ignore => {}
                    outcome => {
                        let packet = packet.to_vec();
                        later.push(async move { (shared.finish(&packet, outcome, Transport::Udp).await, peer) });
                    }
                }
            }
            Some((reply, peer)) = later.next(), if !later.is_empty() => {
                if let Some(reply) = reply {
                    send(socket, &reply, peer).await;
                }
            }
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(reply, peer).await {
        tracing::debug!(%peer, %error, "sending an answer");
    }
}

async fn serve_tcp(shared: &Shared, listener: &TcpListener) {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // Beyond the limit the connection is closed at once.
                Ok((stream, _)) => if let Ok(permit) = shared.connections.try_acquire() {
                    connections.push(async move {
                        let _permit = permit;
                        converse(shared, stream).await
                    });
                },
                Err(error) => {
                    tracing::warn!(%error, "accepting a DNS connection");
                    // Out of descriptors: a connection's end makes room. Without one of ours it is others' that must end,
                    // and of those nothing is heard here.
                    if connections.next().await.is_none() {
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                }
            },
            Some(_) = connections.next(), if !connections.is_empty() => {}
        }
    }
}

/// Questions and answers in turn, until the client is done or idle.
async fn converse(shared: &Shared, mut stream: TcpStream) {
    while let Ok(Ok(packet)) = timeout(IDLE, read_framed(&mut stream)).await {
        let reply = match shared.respond(&packet, Transport::Tcp) {
            Outcome::Reply(reply) => Some(reply),
            Outcome::Ignore => None,
            outcome => shared.finish(&packet, outcome, Transport::Tcp).await,
        };
        let Some(reply) = reply else { return };
        if !matches!(timeout(IDLE, write_framed(&mut stream, &reply)).await, Ok(Ok(()))) {
            return;
        }
    }
}

impl Shared {
    fn respond(&self, packet: &[u8], transport: Transport) -> Outcome {
        let responder = Responder { source: &*self.source, ttl_seconds: self.ttl_seconds, turn: &self.turn };
        responder.respond(packet, transport)
    }

    /// Brings an answer from upstream, or a refusal.
    async fn finish(&self, packet: &[u8], outcome: Outcome, transport: Transport) -> Option<Vec<u8>> {
        let Ok(_permit) = self.forwards.try_acquire() else {
            return refusal(packet, ResponseCode::ServFail, transport);
        };
        let answer = match outcome {
            Outcome::Reply(reply) => return Some(reply),
            Outcome::Ignore => return None,
            Outcome::Forward => self.forwarder.ask(packet, transport).await,
            Outcome::Chase { query, partial } => self.chase(packet, query, *partial, transport).await,
        };
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::debug!(%error, "no upstream resolver answered");
                refusal(packet, ResponseCode::ServFail, transport)
            }
        }
    }

    /// Follows an alias that leads out of the cluster.
    async fn chase(&self, packet: &[u8], query: Query, mut partial: Message, by: Transport) -> io::Result<Vec<u8>> {
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(query);
        let question = question.to_vec().map_err(io::Error::other)?;
        let mut answer = self.forwarder.ask(&question, Transport::Udp).await?;
        // The truncation bit: ask again where there is room.
        if answer.get(2).is_some_and(|flags| flags & 0x02 != 0) {
            answer = self.forwarder.ask(&question, Transport::Tcp).await?;
        }
        let answer = Message::from_vec(&answer).map_err(io::Error::other)?;
        partial.metadata.response_code = answer.metadata.response_code;
        partial.add_answers(answer.answers);
        let request = Message::from_vec(packet).map_err(io::Error::other)?;
        Ok(encode(&partial, &request, by))
    }
}
