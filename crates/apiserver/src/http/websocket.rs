//! WebSockets: the handshake, and streams of messages.

use std::future::Future;

use bytes::Bytes;
use corten_object::Status;
use futures::{SinkExt as _, Stream, StreamExt as _};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::body::{Body, full};
use super::respond::respond;

/// A socket to a client.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a client asks for a WebSocket (`streaming/pkg/httpstream/wsstream`, `IsWebSocketRequest`).
pub(crate) fn wanted(headers: &HeaderMap) -> bool {
    let has = |name: header::HeaderName, value: &str| {
        let found = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        found.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(value))
    };
    has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade")
}

/// The answer that begins a WebSocket of a protocol (empty: none), and the socket, once the answer is sent.
pub(crate) fn accept(
    headers: &HeaderMap,
    request: Request<Incoming>,
    protocol: &'static str,
) -> Result<(Response<Body>, impl Future<Output = Option<Socket>> + Send + 'static), Status> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(|k| derive_accept_key(k.as_bytes()));
    let key = key.and_then(|key| HeaderValue::from_str(&key).ok());
    let key = key.ok_or_else(|| Status::bad_request("the WebSocket key is missing"))?;
    let mut response = respond(101, "text/plain", full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.remove(header::CONTENT_TYPE);
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    if !protocol.is_empty() {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    let upgrade = hyper::upgrade::on(request);
    let socket = async move {
        match upgrade.await {
            Ok(upgraded) => Some(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await),
            Err(error) => {
                tracing::debug!(%error, "a WebSocket did not come about");
                None
            }
        }
    };
    Ok((response, socket))
}

/// Sends each item as one message, until either side ends. What the client sends is of no account.
pub(crate) async fn send_all(socket: Socket, items: impl Stream<Item = Bytes> + Send, text: bool) {
    let (mut sink, mut source) = socket.split();
    let mut items = Box::pin(items);
    loop {
        tokio::select! {
            item = items.next() => {
                let Some(bytes) = item else { break };
                let message = match String::from_utf8(bytes.to_vec()) {
                    Ok(json) if text => Message::text(json),
                    _ => Message::binary(bytes),
                };
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            received = source.next() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    let _ = sink.close().await;
}
