//! Exec and attach as a client: WebSocket with the `v5.channel.k8s.io` subprotocol.
//!
//! Each binary message begins with a channel byte: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 terminal size,
//! 255 closes a channel (`k8s.io/apimachinery/pkg/util/remotecommand`).

use corten_object::{Reason, Status};
use corten_tree::json;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use hyper::header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::http::HttpClient;
use crate::node_api::TerminalSize;

const PROTOCOL: &str = "v5.channel.k8s.io";
type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// The sending half of a running command's connection.
pub struct ExecInput(SplitSink<Socket, Message>);

/// The receiving half.
pub struct ExecOutput(SplitStream<Socket>);

/// What a command's connection delivers.
#[derive(Debug)]
pub enum ExecEvent {
    /// Bytes of stdout.
    Stdout(bytes::Bytes),
    /// Bytes of stderr.
    Stderr(bytes::Bytes),
    /// It has ended with this exit code.
    Exit(i32),
    /// It could not run, or failed in another way.
    Failed(Status),
}

/// Opens a command's connection. `path` is that of the `exec` or `attach` subresource with its query.
///
/// # Errors
/// The server's Status, or `ServiceUnavailable`.
pub async fn open(client: &HttpClient, path: &str) -> Result<(ExecInput, ExecOutput), Status> {
    let unreachable = |e: String| Status::new(Reason::ServiceUnavailable, format!("{}: {e}", client.base()));
    let host = client.base().host().unwrap_or_default().trim_matches(['[', ']']);
    let port = client.base().port_u16().unwrap_or(443);
    let tcp = TcpStream::connect((host, port)).await.map_err(|e| unreachable(e.to_string()))?;
    tcp.set_nodelay(true).map_err(|e| unreachable(e.to_string()))?;
    let (config, name) = client.tls();
    let name = name.ok_or_else(|| unreachable("the host is not a valid name".into()))?;
    let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(|e| unreachable(e.to_string()))?;
    let uri = format!("wss://{}{path}", client.base().authority().map_or("", |a| a.as_str()));
    let mut request = uri.into_client_request().map_err(|e| Status::bad_request(e.to_string()))?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    if let Some(authorization) = client.authorization() {
        request.headers_mut().insert(AUTHORIZATION, authorization.clone());
    }
    match tokio_tungstenite::client_async(request, tls).await {
        Ok((socket, _)) => {
            let (sink, stream) = socket.split();
            Ok((ExecInput(sink), ExecOutput(stream)))
        }
        Err(Error::Http(answer)) => {
            Err(refusal(answer.status().as_u16(), answer.body().as_deref().unwrap_or_default()))
        }
        Err(e) => Err(unreachable(e.to_string())),
    }
}

fn refusal(code: u16, body: &[u8]) -> Status {
    match json::parse(body) {
        Ok(tree) if tree.str_at("kind") == "Status" => Status::from_tree(&tree),
        _ => {
            let mut status = Status::new(Reason::Unknown, format!("the server refused the stream with code {code}"));
            status.code = code;
            status
        }
    }
}

impl ExecInput {
    async fn channel(&mut self, channel: u8, bytes: &[u8]) -> Result<(), Status> {
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(channel);
        message.extend_from_slice(bytes);
        let sent = self.0.send(Message::binary(message)).await;
        sent.map_err(|e| Status::new(Reason::ServiceUnavailable, format!("the stream broke off: {e}")))
    }

    /// Sends bytes to the command's stdin.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn stdin(&mut self, bytes: &[u8]) -> Result<(), Status> {
        self.channel(0, bytes).await
    }

    /// Closes the command's stdin.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn close_stdin(&mut self) -> Result<(), Status> {
        self.channel(255, &[0]).await
    }

    /// Tells the terminal's size.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), Status> {
        let body = format!("{{\"Width\":{},\"Height\":{}}}", size.width, size.height);
        self.channel(4, body.as_bytes()).await
    }
}

impl ExecOutput {
    /// The next event; the last one is `Exit` or `Failed`.
    pub async fn next(&mut self) -> ExecEvent {
        loop {
            let message = match self.0.next().await {
                Some(Ok(Message::Binary(bytes))) if !bytes.is_empty() => bytes,
                Some(Ok(Message::Close(_))) | None => {
                    return ExecEvent::Failed(Status::internal("the stream ended without a status"));
                }
                Some(Ok(_)) => continue,
                Some(Err(e)) => {
                    return ExecEvent::Failed(Status::new(
                        Reason::ServiceUnavailable,
                        format!("the stream broke off: {e}"),
                    ));
                }
            };
            match message[0] {
                1 => return ExecEvent::Stdout(message.slice(1..)),
                2 => return ExecEvent::Stderr(message.slice(1..)),
                3 => return exit(&message[1..]),
                _ => {}
            }
        }
    }
}

/// Reads the final Status: success is exit code 0, `NonZeroExitCode` carries the code as a cause.
fn exit(body: &[u8]) -> ExecEvent {
    let Ok(tree) = json::parse(body) else {
        return ExecEvent::Failed(Status::internal("the command's status is not JSON"));
    };
    if tree.str_at("status") == "Success" {
        return ExecEvent::Exit(0);
    }
    let status = Status::from_tree(&tree);
    let code = status.causes.iter().find(|c| c.reason == "ExitCode").and_then(|c| c.message.parse().ok());
    code.map_or(ExecEvent::Failed(status), ExecEvent::Exit)
}
