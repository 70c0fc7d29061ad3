//! Running probes: exec, HTTP, TCP, gRPC (`pkg/probe`, `pkg/kubelet/prober`).

mod grpc;
mod http;

use std::time::Duration;

use corten_base::{OnStop, Timestamp};
use corten_podplan::{ProbeKind, ProbeWanted, env};
use corten_runtime::ExecSpec;
use corten_views::Container;
use corten_views::container::Probe;
use corten_views::meta::IntOrString;
use tokio::net::TcpStream;

use super::{Message, PodContext, Stopper, observe};

pub use http::{HttpTarget, NOT_TLS, http_get};

/// Bytes of an answer or output that are looked at.
const OUTPUT_MAX: usize = 10 * 1024;
/// How often a probe that cannot be asked is tried at a time (`maxProbeRetries`).
const TRIES: usize = 3;
/// How soon a container that is not ready yet is asked again; then after twice as long, and so on.
const SOONER: Duration = Duration::from_millis(100);

/// What a probe has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Success,
    /// A success with a doubt.
    Warning(String),
    Failure(String),
    /// It could not be asked, which says nothing of the container.
    Error(String),
}

impl Answer {
    /// Whether it is good.
    pub fn passes(&self) -> bool {
        matches!(self, Answer::Success | Answer::Warning(_))
    }

    /// The reason and message of the event that tells of it.
    pub fn event(&self, kind: ProbeKind) -> Option<(&'static str, String)> {
        let kind = kind.as_str();
        match self {
            Answer::Success => None,
            Answer::Warning(text) => Some(("ProbeWarning", format!("{kind} probe warning: {text}"))),
            Answer::Failure(text) => Some(("Unhealthy", format!("{kind} probe failed: {text}"))),
            Answer::Error(text) => {
                Some(("Unhealthy", format!("{kind} probe errored and resulted in unknown state: {text}")))
            }
        }
    }
}

/// One container's probe.
struct Prober {
    ctx: PodContext,
    wanted: ProbeWanted,
    container: Container,
    probe: Probe,
    ips: Vec<String>,
}

/// Runs a probe again and again until the returned guard is dropped.
pub fn start(ctx: &PodContext, wanted: ProbeWanted, container: Container, ips: Vec<String>) -> Stopper {
    let (stop, registration) = futures::future::AbortHandle::new_pair();
    let outer = ctx.clone();
    let task = futures::future::Abortable::new(
        async move {
            let Some(probe) = wanted.kind.of(&container).cloned() else { return };
            Prober { ctx: outer, wanted, container, probe, ips }.run().await;
        },
        registration,
    );
    ctx.shared.tasks.spawn("pod-probe", OnStop::Abort, async move {
        let _ = task.await;
    });
    Stopper(stop)
}

impl Prober {
    async fn run(&self) {
        let clock = &self.ctx.shared.clock;
        let period = Duration::from_secs(u64::from(self.probe.period_seconds.max(1).unsigned_abs()));
        // Until a container is ready it may be asked more often: ahead of the next time, after pauses that grow to the whole period.
        let mut ahead = (self.wanted.kind == ProbeKind::Readiness).then_some(SOONER);
        clock.sleep_until(self.wanted.from).await;
        loop {
            let began = clock.now();
            let answer = self.ask().await;
            ahead = ahead.filter(|_| !answer.passes());
            self.tell(answer).await;
            let mut rest = period.saturating_sub(since(began, clock.now()));
            while let Some(pause) = ahead.filter(|pause| *pause < rest) {
                ahead = Some(pause * 2);
                let began = clock.now();
                clock.sleep(pause).await;
                let answer = self.ask().await;
                rest = rest.saturating_sub(since(began, clock.now()));
                // That it is still not ready is told when it is asked in its time.
                if answer.passes() {
                    self.tell(answer).await;
                    (ahead, rest) = (None, period);
                }
            }
            clock.sleep(rest).await;
        }
    }

    async fn tell(&self, answer: Answer) {
        let ProbeWanted { id, container, kind, .. } = self.wanted.clone();
        self.ctx.tell(Message::Probe { id, container, kind, answer }).await;
    }

    async fn ask(&self) -> Answer {
        let mut tries = 1;
        loop {
            let answer = self.once().await;
            if tries == TRIES || !matches!(answer, Answer::Error(_)) {
                return answer;
            }
            tries += 1;
        }
    }

    async fn once(&self) -> Answer {
        let Prober { ctx, container, probe, ips, .. } = self;
        let timeout = Duration::from_secs(u64::from(probe.timeout_seconds.max(1).unsigned_abs()));
        if let Some(action) = &probe.exec {
            let command = expanded(&action.command, container);
            return match exec(ctx, &self.wanted.id, &command, timeout).await {
                Ok((0, _)) => Answer::Success,
                Ok((_, output)) | Err(ExecError::TimedOut(output)) => Answer::Failure(output),
                Err(ExecError::Failed(error)) => Answer::Error(error),
            };
        }
        if let Some(action) = &probe.http_get {
            return match HttpTarget::of(ctx, container, action, ips) {
                Ok(target) => http::probe(target, timeout).await,
                Err(error) => Answer::Error(error),
            };
        }
        if let Some(action) = &probe.tcp_socket {
            return match port(container, &action.port) {
                Ok(port) => tcp(&host(ctx, &action.host, ips), port, timeout).await,
                Err(error) => Answer::Error(error),
            };
        }
        if let Some(action) = &probe.grpc {
            let service = action.service.as_deref().unwrap_or_default();
            let port = u16::try_from(action.port).unwrap_or(0);
            return grpc::probe(&host(ctx, "", ips), port, service, timeout).await;
        }
        Answer::Error(format!("missing probe handler for {}:{}", ctx.pod.metadata.name, container.name))
    }
}

fn since(began: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(began)).unwrap_or_default()
}

/// A probe's command with the variables that the container's own list gives a value (`ExpandContainerCommandOnlyStatic`).
fn expanded(command: &[String], container: &Container) -> Vec<String> {
    let look = |name: &str| container.env.iter().rev().find(|var| var.name == name).map(|var| var.value.as_str());
    command.iter().map(|text| env::expand(text, look)).collect()
}

fn host(ctx: &PodContext, wanted: &str, ips: &[String]) -> String {
    match (wanted, ips.first()) {
        ("", Some(ip)) => ip.clone(),
        ("", None) => ctx.shared.config.node_ip.to_string(),
        (host, _) => host.to_owned(),
    }
}

/// A port by its number or by the name that the container gives it (`ResolveContainerPort`).
fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let by_name = |name: &str| container.ports.iter().find(|p| p.name == name).map(|p| i64::from(p.container_port));
    let number = match port {
        IntOrString::Int(n) => *n,
        IntOrString::Text(name) => by_name(name).ok_or_else(|| format!("port {name:?} not found"))?,
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// Why a command has no exit code.
#[derive(Debug, PartialEq, Eq)]
pub enum ExecError {
    TimedOut(String),
    Failed(String),
}

impl ExecError {
    /// What there is to say.
    pub fn into_text(self) -> String {
        match self {
            ExecError::TimedOut(text) | ExecError::Failed(text) => text,
        }
    }
}

/// Runs a command in a container: its exit code and output.
pub async fn exec(
    ctx: &PodContext,
    id: &str,
    command: &[String],
    timeout: Duration,
) -> Result<(i32, String), ExecError> {
    let failed = |error: &dyn std::fmt::Display| ExecError::Failed(error.to_string());
    let spec = ExecSpec { args: command.to_vec(), stdout: true, stderr: true, ..ExecSpec::default() };
    let owned = id.to_owned();
    let session = ctx.shared.blocking(move |s| s.runtime.exec(&owned, &spec)).await.map_err(ExecError::Failed)?;
    let mut session = session.map_err(|e| failed(&e))?;
    let output = {
        let (out, err) = (session.stdout.take(), session.stderr.take());
        async move { futures::future::join(read_all(out), read_all(err)).await }
    };
    let exited = observe::readable(session.exit.try_clone().map_err(|e| failed(&e))?);
    let ended = futures::future::join(output, exited);
    let limit = ctx.shared.clock.sleep(timeout);
    futures::pin_mut!(ended);
    match futures::future::select(ended, limit).await {
        futures::future::Either::Left((((mut out, err), _), _)) => {
            out.push_str(&err);
            let waited = tokio::task::spawn_blocking(move || session.wait()).await.map_err(|e| failed(&e))?;
            Ok((waited.map_err(|e| failed(&e))?.exit_code, out))
        }
        futures::future::Either::Right(_) => {
            if let Err(error) = session.kill(9) {
                tracing::debug!(%error, "killing a command that took too long");
            }
            let (command, seconds) = (command.join(" "), timeout.as_secs());
            Err(ExecError::TimedOut(format!("command timed out: {command:?} timed out after {seconds}s")))
        }
    }
}

async fn read_all(fd: Option<std::os::fd::OwnedFd>) -> String {
    use tokio::io::AsyncReadExt;
    let Some(fd) = fd else { return String::new() };
    let Ok(pipe) = tokio::net::unix::pipe::Receiver::from_owned_fd(fd) else { return String::new() };
    let mut out = Vec::new();
    // More is read and thrown away, so that the command does not block.
    let mut pipe = pipe;
    let mut buffer = [0; 4096];
    while let Ok(n) = pipe.read(&mut buffer).await {
        if n == 0 {
            break;
        }
        let room = OUTPUT_MAX.saturating_sub(out.len());
        out.extend_from_slice(&buffer[..n.min(room)]);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A host and a port in one text.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn tcp(host: &str, port: u16, timeout: Duration) -> Answer {
    let address = address(host, port);
    match tokio::time::timeout(timeout, dial(&address)).await {
        Ok(Ok(_)) => Answer::Success,
        Ok(Err(error)) => Answer::Failure(error),
        Err(_) => Answer::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}

async fn dial(address: &str) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| format!("dial tcp {address}: connect: {}", lower(&error)))
}

/// The kernel's words as Go prints them: without the number, in lower case.
fn lower(error: &std::io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Runs a connection beside a request, without a task of its own.
async fn drive<T>(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    answer: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    futures::pin_mut!(connection, answer);
    match futures::future::select(answer, connection).await {
        futures::future::Either::Left((answer, _)) => answer,
        futures::future::Either::Right((Ok(()), answer)) => answer.await,
        futures::future::Either::Right((Err(error), _)) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use corten_base::Tasks;
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{HeaderMap, Response};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpListener;

    use super::*;

    pub(super) const SECOND: Duration = Duration::from_secs(5);

    /// CVE-2022-31030: what a probe's or hook's command prints is not kept, however much it is, and the command is not held up.
    #[tokio::test]
    async fn output_of_commands_is_bounded() {
        const CHUNKS: usize = 1024;
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let wrote = std::thread::spawn(move || {
            let mut writer = std::fs::File::from(writer);
            let chunk = [b'x'; 1 << 16];
            (0..CHUNKS).map(|_| std::io::Write::write_all(&mut writer, &chunk)).filter(Result::is_ok).count()
        });
        let kept = read_all(Some(reader)).await;
        assert_eq!(kept.len(), OUTPUT_MAX);
        assert!(kept.capacity() <= 2 * OUTPUT_MAX, "{} bytes are held", kept.capacity());
        assert_eq!(wrote.join().unwrap(), CHUNKS, "all was taken");
    }

    pub(super) type Seen = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

    /// A server of one protocol that answers by path or body; what it was asked is kept.
    pub(super) async fn server(
        tasks: &Tasks,
        http2: bool,
        answer: fn(&str, &[u8]) -> Response<Full<Bytes>>,
    ) -> (u16, Seen) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Seen::default();
        let (kept, inner) = (seen.clone(), tasks.clone());
        tasks.spawn("server", OnStop::Abort, async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                let service = service_fn(move |request: hyper::Request<Incoming>| {
                    let kept = kept.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let made = answer(parts.uri.path(), &body);
                        kept.lock().unwrap().push((parts.uri.path().to_owned(), parts.headers, body));
                        Ok::<_, hyper::Error>(made)
                    }
                });
                inner.spawn("connection", OnStop::Abort, async move {
                    let io = TokioIo::new(stream);
                    let _ = match http2 {
                        true => {
                            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                            builder.serve_connection(io, service).await
                        }
                        false => hyper::server::conn::http1::Builder::new().serve_connection(io, service).await,
                    };
                });
            }
        });
        (port, seen)
    }

    #[tokio::test]
    async fn tcp_socket_probe_connects_or_says_why_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(tcp("127.0.0.1", port, SECOND).await, Answer::Success);
        drop(listener);
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(tcp("127.0.0.1", port, SECOND).await, Answer::Failure(refused));
    }

    #[test]
    fn ports_have_numbers_or_names() {
        let container: Container = serde_json::from_str(r#"{"ports":[{"name":"web","containerPort":8080}]}"#).unwrap();
        let of = |text: &str| port(&container, &serde_json::from_str(text).unwrap());
        assert_eq!((of("80"), of(r#""web""#)), (Ok(80), Ok(8080)));
        assert_eq!(of(r#""dns""#), Err("port \"dns\" not found".into()));
        assert_eq!(of("70000"), Err("invalid port number: 70000".into()));
    }

    #[test]
    fn commands_know_the_variables_that_have_a_value() {
        let container =
            r#"{"env":[{"name":"A","value":"1"},{"name":"B","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}]}"#;
        let container: Container = serde_json::from_str(container).unwrap();
        let command = ["$(A)", "$(B)", "$(C)", "$$(A)"].map(str::to_owned);
        assert_eq!(expanded(&command, &container), ["1", "", "$(C)", "$(A)"]);
    }

    #[test]
    fn events_tell_what_a_probe_has_found() {
        let told = |answer: Answer| answer.event(ProbeKind::Liveness).map(|(reason, text)| format!("{reason}: {text}"));
        assert_eq!(told(Answer::Success), None);
        assert_eq!(told(Answer::Warning("a".into())).as_deref(), Some("ProbeWarning: Liveness probe warning: a"));
        assert_eq!(told(Answer::Failure("b".into())).as_deref(), Some("Unhealthy: Liveness probe failed: b"));
        let errored = "Unhealthy: Liveness probe errored and resulted in unknown state: c";
        assert_eq!(told(Answer::Error("c".into())).as_deref(), Some(errored));
    }
}
