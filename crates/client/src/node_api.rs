//! What the API server asks of a node: logs, exec, attach, port-forward, and what its own server answers.
//!
//! In one process the node implements it directly; otherwise it is HTTPS to the node.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use corten_base::{BoxFuture, Timestamp};
use corten_kinds::usage::NodeUsage;
use corten_object::Status;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Bytes as they come.
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// A container of a pod.
#[derive(Debug, Clone, Default)]
pub struct PodTarget {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container; empty for the pod's only or default one.
    pub container: String,
}

/// A request for a container's log (`PodLogOptions`).
#[derive(Debug, Clone, Default)]
pub struct LogRequest {
    /// Whose log.
    pub target: PodTarget,
    /// Go on as lines come.
    pub follow: bool,
    /// Of the instance before this one.
    pub previous: bool,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only so many last lines.
    pub tail_lines: Option<u64>,
    /// Only so many bytes.
    pub limit_bytes: Option<u64>,
    /// `All`, `Stdout` or `Stderr`; empty is all.
    pub stream: String,
}

/// A request to run a command in a container, or to attach to its main process.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Where.
    pub target: PodTarget,
    /// The command; `None` attaches to the container's own process.
    pub command: Option<Vec<String>>,
    /// Whether stdin is wanted.
    pub stdin: bool,
    /// Whether stdout is wanted.
    pub stdout: bool,
    /// Whether stderr is wanted.
    pub stderr: bool,
    /// Whether it runs on a terminal.
    pub tty: bool,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub enum ExecExit {
    /// With this exit code.
    Code(i32),
    /// It could not run, or its end is unknown.
    Error(Box<Status>),
}

/// A running command's ends. Dropping `stdin` closes it.
pub struct ExecSession {
    /// Takes what the command reads.
    pub stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// What the command writes.
    pub stdout: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// What the command writes as errors; `None` on a terminal.
    pub stderr: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Takes new terminal sizes.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Completes when the command has ended.
    pub exit: BoxFuture<'static, ExecExit>,
}

/// A request for a connection to a port in a pod's network namespace.
#[derive(Debug, Clone, Default)]
pub struct PortForwardRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The port.
    pub port: u16,
}

/// A connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// A request to a node's own server (`nodes/NAME/proxy`), as the kubelet's HTTP server would get it.
#[derive(Debug, Clone, Default)]
pub struct NodeRequest {
    /// The node's name.
    pub node: String,
    /// The HTTP method.
    pub method: String,
    /// The decoded path, with its slash.
    pub path: String,
    /// The query, without `?`.
    pub query: String,
    /// The body.
    pub body: Bytes,
}

/// A node's answer.
pub struct NodeAnswer {
    /// The HTTP code.
    pub code: u16,
    /// The type of the body.
    pub content_type: String,
    /// The body.
    pub body: ByteStream,
}

impl NodeAnswer {
    /// An answer in one piece.
    pub fn whole(code: u16, content_type: &str, body: impl Into<Bytes>) -> NodeAnswer {
        let body: Bytes = body.into();
        let body: ByteStream = Box::pin(futures::stream::once(std::future::ready(Ok(body))));
        NodeAnswer { code, content_type: content_type.into(), body }
    }
}

/// What a node does on request.
pub trait NodeApi: Send + Sync + 'static {
    /// A container's log as plain bytes.
    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<ByteStream, Status>>;

    /// Runs a command or attaches.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>>;

    /// Connects to a port of a pod.
    fn port_forward(&self, request: PortForwardRequest) -> BoxFuture<'_, Result<Pin<Box<dyn Duplex>>, Status>>;

    /// What nodes and their containers use, as it was measured last.
    fn usage(&self) -> Vec<Arc<NodeUsage>> {
        Vec::new()
    }

    /// Answers a request to the node's own server.
    fn http(&self, request: NodeRequest) -> BoxFuture<'_, Result<NodeAnswer, Status>> {
        let why = format!("error trying to reach service: node {:?} has no server", request.node);
        Box::pin(async { Err(Status::new(corten_object::Reason::ServiceUnavailable, why)) })
    }
}
