//! Streams to a pod's node: logs, and commands over WebSocket or SPDY ([`crate::spdy::command`]).
//!
//! Each message of a WebSocket begins with the byte of a channel ([`channels`]): 0 stdin, 1 stdout, 2 stderr, 3 how it ended, 4 terminal size;
//! 255 closes a channel.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use corten_admission::Operation;
use corten_base::OnStop;
use corten_client::{ExecExit, ExecRequest, ExecSession, LogRequest, PodTarget, TerminalSize, WriteOptions};
use corten_kinds::{Kind, id};
use corten_object::{ObjectKey, Status, time};
use corten_schema::{FieldType, Scalar};
use corten_tree::{Tree, json, tree};
use futures::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::channels::{self, Protocol};
use crate::core::{Core, attributes};
use crate::http::{Call, HttpBody, Query, Resource, full, respond, stream, websocket};
use crate::pipeline::Request as PipelineRequest;
use crate::spdy::command;
use crate::spdy::handshake::{self, Agreement};
use crate::{portforward, proxy};

/// Bytes read from a command at once.
pub(crate) const CHUNK: usize = 32 * 1024;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Answers a request for a connecting subresource.
pub(crate) async fn connect(
    core: &Arc<Core>,
    call: Call,
    kind: &Arc<Kind>,
    r: Arc<Resource>,
    request: Request<Incoming>,
) -> Result<Response<HttpBody>, Status> {
    let names = (r.namespace.as_str(), r.name.as_str(), r.subresource.as_str());
    let verb = match call.method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        // What proxies pass on has no verb of its own.
        Method::OPTIONS if r.subresource == "proxy" => "",
        _ => return Err(Status::method_not_allowed()),
    };
    core.authorize(&attributes(&call.user, verb, kind, names)).await?;
    let streams = matches!(r.subresource.as_str(), "exec" | "attach" | "portforward");
    if streams && verb == "get" {
        // A WebSocket begins with a GET, but runs a command all the same.
        core.authorize(&attributes(&call.user, "create", kind, names)).await?;
    }
    if r.subresource != "log" && call.query.has("dryRun") {
        return Err(Status::bad_request("dryRun is not supported"));
    }
    admit_connect(core, &call, kind, &r).await?;
    match r.subresource.as_str() {
        "log" => logs(core, &call, &r, request).await,
        "exec" => exec(core, &call, &r, request, false).await,
        "attach" => exec(core, &call, &r, request, true).await,
        "portforward" => portforward::serve(core, &call, &r, request).await,
        "proxy" => proxy::connect::serve(core, &call, kind, &r, request).await,
        _ => Err(Status::no_such_resource()),
    }
}

/// Asks admission; what it sees is the options in the query (`ConnectResource` in `endpoints/handlers/rest.go`). Logs are read,
/// not connected to.
async fn admit_connect(core: &Core, call: &Call, kind: &Arc<Kind>, r: &Resource) -> Result<(), Status> {
    let Some((group, version, options_kind)) = kind.subresource(&r.subresource).and_then(|s| s.body) else {
        return Ok(());
    };
    let ty = core.schema.gvk(group, version, options_kind).ok_or_else(Status::no_such_resource)?;
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut object = tree!({"kind": options_kind, "apiVersion": (api_version)});
    for field in core.schema.members(ty).filter(|f| call.query.has(&f.name)) {
        let all = || call.query.all(&field.name).collect::<Vec<&str>>();
        let value = match &field.ty {
            FieldType::List(item) if matches!(**item, FieldType::Scalar(Scalar::Int32)) => {
                Tree::List(all().iter().filter_map(|n| n.parse::<i32>().ok()).map(Tree::from).collect())
            }
            FieldType::List(_) => all().into(),
            FieldType::Scalar(Scalar::Bool) => call.query.flag(&field.name).into(),
            _ => call.query.get(&field.name).into(),
        };
        object.insert(field.name.clone(), value);
    }
    if r.subresource == "proxy" {
        // Whatever the query says, it is what follows in the request's path.
        object.remove("path");
        object.set_default("path", proxy::connect::below(call, r));
    }
    let write = WriteOptions::default();
    let request = PipelineRequest {
        user: &call.user,
        kind,
        version: &r.version,
        namespace: &r.namespace,
        name: &r.name,
        subresource: &r.subresource,
        options: &write,
    };
    core.fresh().await?;
    let admitting = core.admitting(&request, Operation::Connect).with_body(group, version, options_kind);
    admitting.mutate(Some(&mut object), None).await?;
    admitting.validate(Some(&object), None).await
}

/// The pod, and the container that is meant.
async fn target(core: &Core, r: &Resource, query: &Query) -> Result<(Tree, PodTarget), Status> {
    core.fresh().await?;
    let key = ObjectKey::new(id::POD, &r.namespace, &r.name);
    let pod = core.cache.get(&key).ok_or_else(|| Status::not_found("", "pods", &r.name))?.to_tree();
    let names = |list: &str| -> Vec<String> {
        pod.list_at(&format!("spec.{list}")).iter().map(|c| c.str_at("name").to_owned()).collect()
    };
    let containers = names("containers");
    let others = [names("initContainers"), names("ephemeralContainers")].concat();
    let asked = query.get("container");
    let container = match (asked, containers.as_slice()) {
        ("", [only]) => only.clone(),
        ("", _) => {
            let mut why = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                r.name,
                containers.join(" ")
            );
            let init = names("initContainers");
            if !init.is_empty() {
                why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            return Err(Status::bad_request(why));
        }
        (name, _) if containers.iter().chain(&others).any(|c| c == name) => name.to_owned(),
        (name, _) => {
            return Err(Status::bad_request(format!("container {name} is not valid for pod {}", r.name)));
        }
    };
    Ok((pod, PodTarget { namespace: r.namespace.clone(), pod: r.name.clone(), container }))
}

async fn logs(
    core: &Arc<Core>,
    call: &Call,
    r: &Resource,
    http: Request<Incoming>,
) -> Result<Response<HttpBody>, Status> {
    let query = &call.query;
    let (pod, target) = target(core, r, query).await?;
    if pod.str_at("spec.nodeName").is_empty() {
        return Ok(respond(200, "text/plain", full(Bytes::new())));
    }
    let unsigned = |key: &str| query.number(key).map(|n| n.and_then(|n| u64::try_from(n).ok()));
    let since = match (query.number("sinceSeconds")?, query.get("sinceTime")) {
        (Some(seconds), _) => Some(core.clock.now() - std::time::Duration::from_secs(seconds.unsigned_abs())),
        (None, text) => time::parse(text),
    };
    let request = LogRequest {
        target,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        since,
        timestamps: query.flag("timestamps"),
        tail_lines: unsigned("tailLines")?,
        limit_bytes: unsigned("limitBytes")?,
        stream: query.get("stream").into(),
    };
    let bytes = core.node_api.logs(request).await?;
    // A read error ends the log: there is no way to say more once the answer has begun.
    let bytes = bytes.take_while(|chunk| std::future::ready(chunk.is_ok())).filter_map(|c| std::future::ready(c.ok()));
    let lasting = call.lasting.clone();
    let bytes = bytes.take_until(core.tasks.stopping()).inspect(move |_| {
        let _held = &lasting;
    });
    if websocket::wanted(&call.headers) {
        let protocol = channels::choose(&call.headers, &channels::SINGLE)?;
        let (response, socket) = websocket::accept(&call.headers, http, protocol.name)?;
        core.tasks.spawn("log stream", OnStop::Abort, async move {
            if let Some(socket) = socket.await {
                websocket::send_all(socket, bytes.map(|b| protocol.piece(b)), protocol.is_text()).await;
            }
        });
        return Ok(response);
    }
    Ok(respond(200, "text/plain", stream(bytes)))
}

async fn exec(
    core: &Arc<Core>,
    call: &Call,
    r: &Resource,
    request: Request<Incoming>,
    attach: bool,
) -> Result<Response<HttpBody>, Status> {
    let query = &call.query;
    let (pod, target) = target(core, r, query).await?;
    if pod.str_at("spec.nodeName").is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", r.name)));
    }
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if !attach && command.is_empty() {
        return Err(Status::bad_request("you must specify at least one command for the container"));
    }
    let tty = query.flag("tty");
    let wanted = ExecRequest {
        target,
        command: (!attach).then_some(command),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr") && !tty,
        tty,
    };
    if !websocket::wanted(&call.headers) {
        return exec_over_spdy(core, call, wanted, request).await;
    }
    let protocol = channels::choose(&call.headers, &channels::COMMAND)?;
    let session = core.node_api.exec(wanted).await?;
    let (response, socket) = websocket::accept(&call.headers, request, protocol.name)?;
    let record = (corten_audit::trail::current(), call.lasting.clone());
    core.tasks.spawn("exec stream", OnStop::Abort, async move {
        let _record = record;
        if let Some(socket) = socket.await {
            serve_session(socket, session, protocol).await;
        }
    });
    Ok(response)
}

/// As clients do that are older than WebSockets, and those which a proxy keeps from them.
async fn exec_over_spdy(
    core: &Arc<Core>,
    call: &Call,
    wanted: ExecRequest,
    request: Request<Incoming>,
) -> Result<Response<HttpBody>, Status> {
    let protocol = match handshake::agree(&call.headers, &command::PROTOCOLS)? {
        Agreement::On(protocol) => protocol,
        Agreement::Refused(response) => return Ok(*response),
    };
    let expected = command::expected(&wanted, protocol);
    let session = core.node_api.exec(wanted).await?;
    let (response, upgrade) = handshake::accept(request, protocol);
    let (record, clock) = ((corten_audit::trail::current(), call.lasting.clone()), core.clock.clone());
    core.tasks.spawn("exec stream", OnStop::Abort, async move {
        let _record = record;
        if let Ok(upgraded) = upgrade.await {
            command::serve(TokioIo::new(upgraded), session, (protocol, expected), &*clock).await;
        }
    });
    Ok(response)
}

/// Carries a command's streams until it has ended or the client has left.
async fn serve_session(socket: websocket::Socket, session: ExecSession, protocol: Protocol) {
    let (mut sink, mut source) = socket.split();
    let (send, mut receive) = mpsc::channel::<Message>(16);
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;
    let output = async {
        let streams = futures::future::join3(
            pump(stdout, (protocol, STDOUT), &send),
            pump(stderr, (protocol, STDERR), &send),
            exit,
        );
        let (_, _, exit) = streams.await;
        let status = exit_status(exit);
        let failed = status.str_at("status") == "Failure";
        if protocol.status {
            let _ = send.send(protocol.message(ERROR, &status.to_json())).await;
        } else if failed {
            let _ = send.send(protocol.message(ERROR, status.str_at("message").as_bytes())).await;
        }
        // Clients take any other code for a broken connection.
        let _ = send.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await;
    };
    let write = async {
        while let Some(message) = receive.recv().await {
            let last = matches!(message, Message::Close(_));
            if sink.send(message).await.is_err() || last {
                return;
            }
        }
    };
    let input = async {
        let (mut stdin, resize) = (stdin, resize);
        while let Some(Ok(message)) = source.next().await {
            let data: Bytes = match message {
                Message::Binary(data) => data,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => return,
                _ => continue,
            };
            if let Some((channel, data)) = protocol.read(&data) {
                take_input(channel, &data, &mut stdin, resize.as_ref()).await;
            }
        }
    };
    tokio::select! {
        ((), ()) = futures::future::join(output, write) => {}
        () = input => {}
    }
}

async fn take_input(
    channel: u8,
    data: &[u8],
    stdin: &mut Option<Pin<Box<dyn AsyncWrite + Send>>>,
    resize: Option<&mpsc::Sender<TerminalSize>>,
) {
    match (channel, data) {
        (STDIN, bytes) => {
            if let Some(pipe) = stdin
                && (pipe.write_all(bytes).await.is_err() || pipe.flush().await.is_err())
            {
                *stdin = None;
            }
        }
        (RESIZE, bytes) => {
            if let Some(resize) = resize {
                let _ = resize.send(terminal_size(bytes)).await;
            }
        }
        (CLOSE, [STDIN, ..]) => *stdin = None,
        _ => {}
    }
}

/// A terminal's size as clients write it; 0 is what cannot be read.
pub(crate) fn terminal_size(text: &[u8]) -> TerminalSize {
    let size = json::parse(text).unwrap_or_default();
    let number = |key: &str| size.i64_at(key).and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
    TerminalSize { width: number("Width"), height: number("Height") }
}

/// Sends what a command writes.
async fn pump(
    reader: Option<Pin<Box<dyn AsyncRead + Send>>>,
    (protocol, channel): (Protocol, u8),
    send: &mpsc::Sender<Message>,
) {
    let Some(mut reader) = reader else { return };
    let mut buffer = vec![0; CHUNK];
    while let Ok(n @ 1..) = reader.read(&mut buffer).await {
        if send.send(protocol.message(channel, &buffer[..n])).await.is_err() {
            return;
        }
    }
}

/// How a command's end reads on the error channel.
pub(crate) fn exit_status(exit: ExecExit) -> Tree {
    match exit {
        ExecExit::Code(0) => tree!({"metadata": {}, "status": "Success"}),
        ExecExit::Code(code) => tree!({"metadata": {}, "status": "Failure",
            "message": (format!("command terminated with non-zero exit code: exit status {code}")),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": (code.to_string())}]}}),
        ExecExit::Error(status) => status.to_tree(),
    }
}
