//! `pods/portforward` (`cri-streaming/pkg/streaming/portforward`): over SPDY, over SPDY in a WebSocket as kubectl does, and over
//! plain WebSocket channels.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use corten_base::OnStop;
use corten_client::{Duplex, PortForwardRequest};
use corten_kinds::id;
use corten_object::{ObjectKey, Status};
use futures::{SinkExt as _, StreamExt as _};
use hyper::body::Incoming;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::core::Core;
use crate::http::{Call, HttpBody, Resource, websocket};
use crate::spdy::handshake::{self, Agreement};
use crate::spdy::{self, Accepted, Stream};

/// The protocol of streams with these headers.
const PROTOCOL: &str = "portforward.k8s.io";
/// The same within a WebSocket.
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";
/// The protocol of plain WebSocket channels: two for each port, the second of which tells errors.
const CHANNELS: &str = "v4.channel.k8s.io";

/// Streams that wait for their other half.
const HALVES_MAX: usize = 128;
/// Ports of a WebSocket with channels: each has two, and a channel's number is a byte.
const PORTS_MAX: usize = 127;
/// Bytes read from a pod at once.
const CHUNK: usize = 32 * 1024;

/// Answers a request to forward ports.
pub(crate) async fn serve(
    core: &Arc<Core>,
    call: &Call,
    r: &Resource,
    request: Request<Incoming>,
) -> Result<Response<HttpBody>, Status> {
    core.fresh().await?;
    let pod = core.cache.get(&ObjectKey::new(id::POD, &r.namespace, &r.name));
    let pod = pod.ok_or_else(|| Status::not_found("", "pods", &r.name))?;
    if pod.to_tree().str_at("spec.nodeName").is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", r.name)));
    }
    let target = Target {
        core: core.clone(),
        namespace: r.namespace.clone(),
        pod: r.name.clone(),
        uid: pod.head.uid.to_string(),
    };
    if websocket::wanted(&call.headers) {
        let offered = handshake::values(&call.headers, &header::SEC_WEBSOCKET_PROTOCOL);
        let protocol = [TUNNELLED, CHANNELS].into_iter().find(|known| offered.iter().any(|o| o == known));
        let protocol = protocol.ok_or_else(|| {
            Status::bad_request(format!("unable to upgrade: none of {offered:?} is one of {:?}", [TUNNELLED, CHANNELS]))
        })?;
        let ports = if protocol == CHANNELS { ports(call)? } else { Vec::new() };
        let (response, socket) = websocket::accept(&call.headers, request, protocol)?;
        let record = (corten_audit::trail::current(), call.lasting.clone());
        core.tasks.spawn("port-forward", OnStop::Abort, async move {
            let _record = record;
            let Some(socket) = socket.await else { return };
            if protocol == CHANNELS {
                return channels(socket, target, ports).await;
            }
            // The frames of SPDY are cut into messages as it comes.
            let (inner, outer) = tokio::io::duplex(CHUNK * 2);
            tokio::select! {
                () = spdy::serve(inner, pairs(target)) => {}
                () = tunnel(socket, outer) => {}
            }
        });
        return Ok(response);
    }
    let protocol = match handshake::agree(&call.headers, &[PROTOCOL])? {
        Agreement::On(protocol) => protocol,
        Agreement::Refused(response) => return Ok(*response),
    };
    let (response, upgrade) = handshake::accept(request, protocol);
    let record = (corten_audit::trail::current(), call.lasting.clone());
    core.tasks.spawn("port-forward", OnStop::Abort, async move {
        let _record = record;
        if let Ok(upgraded) = upgrade.await {
            spdy::serve(TokioIo::new(upgraded), pairs(target)).await;
        }
    });
    Ok(response)
}

/// The ports that a WebSocket with channels asks for.
fn ports(call: &Call) -> Result<Vec<u16>, Status> {
    let listed: Vec<&str> = call.query.all("ports").flat_map(|p| p.split(',')).collect();
    let number = |text: &&str| {
        let port = text.parse::<u16>().ok().filter(|port| *port != 0);
        port.ok_or_else(|| Status::bad_request(format!("query parameter \"ports\": {text:?} is not a port")))
    };
    match listed.len() {
        0 => Err(Status::bad_request("query parameter \"ports\" is required")),
        1..=PORTS_MAX => listed.iter().map(number).collect(),
        _ => Err(Status::bad_request(format!("at most {PORTS_MAX} ports can be forwarded"))),
    }
}

/// The pod to which ports are forwarded.
#[derive(Clone)]
struct Target {
    core: Arc<Core>,
    namespace: String,
    pod: String,
    uid: String,
}

impl Target {
    /// A connection to a port; what the client is told if there is none.
    async fn connect(&self, port: u16) -> Result<Pin<Box<dyn Duplex>>, String> {
        let request = PortForwardRequest { namespace: self.namespace.clone(), pod: self.pod.clone(), port };
        let (pod, uid) = (&self.pod, &self.uid);
        let told = |status: Status| format!("error forwarding port {port} to pod {pod}, uid {uid}: {}", status.message);
        self.core.node_api.port_forward(request).await.map_err(told)
    }
}

/// Accepts streams, two for each connection: what it carries, and what is wrong with it.
fn pairs(target: Target) -> impl FnMut(Stream) -> Accepted + Send {
    let mut halves: HashMap<String, Stream> = HashMap::new();
    move |stream| {
        let Some(port) = stream.header("port").parse::<u16>().ok().filter(|port| *port != 0) else {
            return Accepted::No;
        };
        let kind = stream.header("streamtype").to_owned();
        let request = match (stream.header("requestid"), kind.as_str()) {
            // Older clients open the error's stream, then that of the data.
            ("", "error") => stream.id.to_string(),
            ("", "data") => stream.id.wrapping_sub(2).to_string(),
            (request, "error" | "data") => request.to_owned(),
            _ => return Accepted::No,
        };
        let other = match halves.remove(&request) {
            Some(other) => other,
            None if halves.len() >= HALVES_MAX => return Accepted::No,
            None => {
                halves.insert(request, stream);
                return Accepted::Yes(None);
            }
        };
        let (data, error) = match (kind.as_str(), other.header("streamtype")) {
            ("data", "error") => (stream, other),
            ("error", "data") => (other, stream),
            _ => return Accepted::No,
        };
        let target = target.clone();
        Accepted::Yes(Some(Box::pin(async move { forward(&target, port, data, error).await })))
    }
}

/// Carries one connection.
async fn forward(target: &Target, port: u16, mut data: Stream, error: Stream) {
    let connection = match target.connect(port).await {
        Ok(connection) => connection,
        Err(why) => {
            let _ = error.send(why.into()).await;
            error.finish().await;
            data.reset().await;
            return;
        }
    };
    let (mut from_pod, mut to_pod) = tokio::io::split(connection);
    let mut incoming = data.take_incoming();
    let client = &data;
    let out = async {
        loop {
            match incoming.recv().await {
                Some(spdy::Incoming::Data(bytes)) => {
                    if to_pod.write_all(&bytes).await.is_err() || to_pod.flush().await.is_err() {
                        break;
                    }
                }
                Some(spdy::Incoming::Reset) => return,
                None => {
                    let _ = to_pod.shutdown().await;
                    break;
                }
            }
        }
        // The pod may still have something to say.
        std::future::pending().await
    };
    let back = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(n) = from_pod.read(&mut buffer).await {
            if n == 0 || client.send(Bytes::copy_from_slice(&buffer[..n])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = out => {}
        () = back => {}
    }
    data.finish().await;
    error.finish().await;
}

/// Carries bytes in a WebSocket's messages.
async fn tunnel(socket: websocket::Socket, inner: tokio::io::DuplexStream) {
    let (mut sink, mut source) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(inner);
    let back = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(n) = reader.read(&mut buffer).await {
            if n == 0 || sink.send(Message::binary(buffer[..n].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let out = async {
        while let Some(Ok(message)) = source.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => return,
                _ => continue,
            };
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = back => {}
        () = out => {}
    }
}

/// Carries ports in a WebSocket's channels: a message begins with its channel; the first on each names the port
/// (`portforward/websocket.go`).
async fn channels(socket: websocket::Socket, target: Target, ports: Vec<u16>) {
    let (mut sink, mut source) = socket.split();
    let (out, mut messages) = mpsc::channel::<Message>(16);
    let mut inputs = Vec::new();
    let mut work = Vec::new();
    for (i, port) in ports.into_iter().enumerate() {
        let (input, incoming) = mpsc::channel::<Bytes>(16);
        inputs.push(input);
        work.push(channel(&target, port, (i * 2) as u8, incoming, out.clone()));
    }
    drop(out);
    let write = async {
        while let Some(message) = messages.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    let read = async {
        while let Some(Ok(message)) = source.next().await {
            let Message::Binary(bytes) = message else { continue };
            // Only the first channel of a port is written to by the client.
            let port = bytes.first().filter(|channel| *channel % 2 == 0).map(|channel| usize::from(channel / 2));
            if let Some(input) = port.and_then(|port| inputs.get(port)) {
                let _ = input.send(bytes.slice(1..)).await;
            }
        }
    };
    let work = async {
        futures::future::join_all(work).await;
        std::future::pending().await
    };
    tokio::select! {
        () = write => {}
        () = read => {}
        () = work => {}
    }
}

async fn channel(
    target: &Target,
    port: u16,
    channel: u8,
    mut input: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Message>,
) {
    let message = |channel: u8, bytes: &[u8]| Message::binary([&[channel], bytes].concat());
    for first in [channel, channel + 1] {
        let _ = out.send(message(first, &port.to_le_bytes())).await;
    }
    let connection = match target.connect(port).await {
        Ok(connection) => connection,
        Err(why) => {
            let _ = out.send(message(channel + 1, why.as_bytes())).await;
            return;
        }
    };
    let (mut from_pod, mut to_pod) = tokio::io::split(connection);
    let forward = async {
        while let Some(bytes) = input.recv().await {
            if to_pod.write_all(&bytes).await.is_err() || to_pod.flush().await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(n) = from_pod.read(&mut buffer).await {
            if n == 0 || out.send(message(channel, &buffer[..n])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = forward => {}
        () = back => {}
    }
}
