//! Running probes: exec, HTTP, TCP, gRPC (`pkg/probe`, `pkg/kubelet/prober/prober.go`).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use corten_base::OnStop;
use corten_podplan::{ProbeKind, ProbeWanted};
use corten_runtime::ExecSpec;
use corten_views::Container;
use corten_views::container::{HttpGetAction, Probe};
use corten_views::meta::IntOrString;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{Message, PodContext, Stopper, observe};

/// Bytes of an answer or output that are looked at.
const OUTPUT_MAX: usize = 10 * 1024;

/// Probes do not check certificates, as upstream's do not.
static ANYONE: LazyLock<Arc<rustls::ClientConfig>> =
    LazyLock::new(|| Arc::new(corten_client::Trust::anyone().tls().expect("nothing is read that could be malformed")));

/// Runs a probe again and again until the returned guard is dropped.
pub fn start(ctx: &PodContext, wanted: ProbeWanted, container: Container, ips: Vec<String>) -> Stopper {
    let (stop, registration) = futures::future::AbortHandle::new_pair();
    let outer = ctx.clone();
    let task = futures::future::Abortable::new(
        async move {
            let Some(probe) = wanted.kind.of(&container).cloned() else { return };
            outer.shared.clock.sleep_until(wanted.from).await;
            loop {
                let (ok, output) = once(&outer, &wanted.id, &container, &probe, &ips).await;
                let (kind, id) = (wanted.kind, wanted.id.clone());
                let container = wanted.container.clone();
                outer.tell(Message::Probe { id, container, kind, ok, output }).await;
                let period = u64::from(probe.period_seconds.max(1).unsigned_abs());
                outer.shared.clock.sleep(Duration::from_secs(period)).await;
            }
        },
        registration,
    );
    ctx.shared.tasks.spawn("pod-probe", OnStop::Abort, async move {
        let _ = task.await;
    });
    Stopper(stop)
}

/// The event's message when a probe has failed.
pub fn failed_message(kind: ProbeKind, output: &str) -> String {
    format!("{} probe failed: {output}", kind.as_str())
}

async fn once(ctx: &PodContext, id: &str, container: &Container, probe: &Probe, ips: &[String]) -> (bool, String) {
    let timeout = Duration::from_secs(u64::from(probe.timeout_seconds.max(1).unsigned_abs()));
    let outcome = if let Some(action) = &probe.exec {
        exec(ctx, id, &action.command, timeout).await.map(|(code, output)| (code == 0, output))
    } else if let Some(action) = &probe.http_get {
        http(ctx, container, action, ips, timeout).await
    } else if let Some(action) = &probe.tcp_socket {
        let target = port(container, &action.port).map(|port| (host(ctx, &action.host, ips), port));
        match target {
            Ok((host, port)) => connect(&host, port, timeout).await.map(|_| (true, String::new())),
            Err(error) => Err(error),
        }
    } else if let Some(action) = &probe.grpc {
        let service = action.service.clone().unwrap_or_default();
        let port = u16::try_from(action.port).unwrap_or(0);
        grpc(&host(ctx, "", ips), port, &service, timeout).await
    } else {
        Err("missing probe handler".into())
    };
    match outcome {
        Ok(answer) => answer,
        Err(error) => (false, error),
    }
}

fn host(ctx: &PodContext, wanted: &str, ips: &[String]) -> String {
    match (wanted, ips.first()) {
        ("", Some(ip)) => ip.clone(),
        ("", None) => ctx.shared.config.node_ip.to_string(),
        (host, _) => host.to_owned(),
    }
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let by_name = |name: &str| container.ports.iter().find(|p| p.name == name).map(|p| i64::from(p.container_port));
    let number = match port {
        IntOrString::Int(n) => Some(*n),
        IntOrString::Text(name) => by_name(name).or_else(|| name.parse().ok()),
    };
    number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {port}"))
}

/// Runs a command in a container: its exit code and output.
pub async fn exec(ctx: &PodContext, id: &str, command: &[String], timeout: Duration) -> Result<(i32, String), String> {
    let spec = ExecSpec { args: command.to_vec(), stdout: true, stderr: true, ..ExecSpec::default() };
    let owned = id.to_owned();
    let session = ctx.shared.blocking(move |s| s.runtime.exec(&owned, &spec)).await?;
    let mut session = match session {
        Ok(session) => session,
        // A command that is not there is an answer, not a failure to ask.
        Err(error) if error.is_start_error() => return Ok((126, error.to_string())),
        Err(error) => return Err(error.to_string()),
    };
    let output = {
        let (out, err) = (session.stdout.take(), session.stderr.take());
        async move { futures::future::join(read_all(out), read_all(err)).await }
    };
    let exited = {
        let exit = session.exit.try_clone().map_err(|e| e.to_string())?;
        observe::readable(exit)
    };
    let ended = futures::future::join(output, exited);
    let limit = ctx.shared.clock.sleep(timeout);
    futures::pin_mut!(ended);
    match futures::future::select(ended, limit).await {
        futures::future::Either::Left((((mut out, err), _), _)) => {
            out.push_str(&err);
            let waited = tokio::task::spawn_blocking(move || session.wait()).await;
            let status = waited.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            Ok((status.exit_code, out))
        }
        futures::future::Either::Right(_) => {
            if let Err(error) = session.kill(9) {
                tracing::debug!(%error, "killing a command that took too long");
            }
            Err(format!("command timed out: {:?} timed out after {}s", command.join(" "), timeout.as_secs()))
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

async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let address = format!("{}:{port}", if host.contains(':') { format!("[{host}]") } else { host.to_owned() });
    match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {}", lower(&error))),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

/// The kernel's words as Go prints them: without the number, in lower case.
fn lower(error: &std::io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Where an HTTP probe or hook goes.
pub struct HttpTarget {
    pub host: String,
    pub port: u16,
    pub path: String,
    pub tls: bool,
    /// Who asks, as upstream's kubelet names its parts: `kube-probe` or `kube-lifecycle`.
    pub agent: &'static str,
    pub headers: Vec<(String, String)>,
}

impl HttpTarget {
    pub fn of(
        ctx: &PodContext,
        container: &Container,
        get: &HttpGetAction,
        ips: &[String],
    ) -> Result<HttpTarget, String> {
        let path = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
        Ok(HttpTarget {
            host: host(ctx, &get.host, ips),
            port: port(container, &get.port)?,
            path,
            tls: get.scheme == "HTTPS",
            agent: "kube-probe",
            headers: get.http_headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect(),
        })
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

/// An HTTP answer.
pub struct HttpAnswer {
    pub status: u16,
    pub location: Option<String>,
}

async fn http(
    ctx: &PodContext,
    container: &Container,
    get: &HttpGetAction,
    ips: &[String],
    timeout: Duration,
) -> Result<(bool, String), String> {
    let mut target = HttpTarget::of(ctx, container, get, ips)?;
    for _ in 0..10 {
        let answer = http_get(&target, timeout).await?;
        // Redirects on the same host are followed, others count as success (`pkg/probe/http/http.go` `RedirectChecker`).
        match (answer.status, answer.location) {
            (300..400, Some(location)) if location.starts_with('/') => target.path = location,
            (200..400, _) => return Ok((true, String::new())),
            (status, _) => return Ok((false, format!("HTTP probe failed with statuscode: {status}"))),
        }
    }
    Ok((false, format!("Get {:?}: stopped after 10 redirects", target.url())))
}

/// Asks once, without following redirects.
pub async fn http_get(target: &HttpTarget, timeout: Duration) -> Result<HttpAnswer, String> {
    let url = target.url();
    let fail = |error: String| format!("Get {url:?}: {error}");
    let slow = || fail("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into());
    let ask = async {
        let stream = connect(&target.host, target.port, timeout).await.map_err(fail)?;
        if target.tls {
            let name = rustls::pki_types::ServerName::try_from(target.host.clone()).map_err(|e| fail(e.to_string()))?;
            let connector = tokio_rustls::TlsConnector::from(ANYONE.clone());
            let stream = connector.connect(name, stream).await.map_err(|e| fail(handshake_error(&e)))?;
            exchange(target, stream).await.map_err(fail)
        } else {
            exchange(target, stream).await.map_err(fail)
        }
    };
    tokio::time::timeout(timeout, ask).await.map_err(|_| slow())?
}

/// What Go's client says when a server knows no TLS: it answers the first message in plain text.
pub const NOT_TLS: &str = "http: server gave HTTP response to HTTPS client";

/// Why a TLS connection did not come about, in Go's words where they matter to somebody.
fn handshake_error(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => NOT_TLS.into(),
        _ => error.to_string(),
    }
}

async fn exchange(
    target: &HttpTarget,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<HttpAnswer, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let has = |name: &str| target.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let mut request = Request::get(&target.path);
    if !has("host") {
        request = request.header("Host", format!("{}:{}", target.host, target.port));
    }
    if !has("user-agent") {
        request = request.header("User-Agent", format!("{}/1.37", target.agent));
    }
    if !has("accept") {
        request = request.header("Accept", "*/*");
    }
    request = request.header("Connection", "close");
    for (name, value) in &target.headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let location = response.headers().get("location").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let _ = Limited::new(response.into_body(), OUTPUT_MAX).collect().await;
        Ok(HttpAnswer { status, location })
    };
    drive(connection, answer).await
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

/// `grpc.health.v1.Health/Check` over plain HTTP/2.
async fn grpc(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(bool, String), String> {
    let slow = || String::from("timeout: health rpc did not complete within the probe's timeout");
    let ask = async {
        let stream = connect(host, port, timeout)
            .await
            .map_err(|e| format!("timeout: failed to connect service \"{host}:{port}\": {e}"))?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|e| e.to_string())?;
        let mut body = Vec::new();
        if !service.is_empty() {
            body.push(0x0a);
            let length = u8::try_from(service.len()).ok().filter(|n| *n < 128);
            body.push(length.ok_or("the name of the service is too long")?);
            body.extend_from_slice(service.as_bytes());
        }
        let mut framed = vec![0];
        framed.extend_from_slice(&(body.len() as u32).to_be_bytes());
        framed.extend_from_slice(&body);
        let request = Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "kube-probe/1.37")
            .body(Full::new(Bytes::from(framed)))
            .map_err(|e| e.to_string())?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let early = response.headers().get("grpc-status").cloned();
            let collected =
                Limited::new(response.into_body(), OUTPUT_MAX).collect().await.map_err(|e| e.to_string())?;
            let status = early.or_else(|| collected.trailers().and_then(|t| t.get("grpc-status").cloned()));
            Ok((status, collected.to_bytes()))
        };
        let (status, bytes) = drive(connection, answer).await?;
        let code = status.and_then(|s| s.to_str().ok().map(str::to_owned)).unwrap_or_default();
        if !matches!(code.as_str(), "" | "0") {
            return Ok((false, format!("error: health rpc probe failed: rpc error: code = {code}")));
        }
        // status = 1 (SERVING) is field 1, varint.
        match bytes.get(5..7) {
            Some([0x08, 1]) => Ok((true, String::from("service healthy"))),
            Some([0x08, n]) => Ok((false, format!("service unhealthy (responded with \"{}\")", serving(*n)))),
            _ => Ok((false, String::from("service unhealthy (responded with \"UNKNOWN\")"))),
        }
    };
    tokio::time::timeout(timeout, ask).await.map_err(|_| slow())?
}

fn serving(status: u8) -> &'static str {
    match status {
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use corten_base::{OnStop, Tasks};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{HeaderMap, Response};
    use tokio::net::TcpListener;

    use super::*;

    const SECOND: Duration = Duration::from_secs(5);

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

    type Seen = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

    /// A server of one protocol that answers by path or body; what it was asked is kept.
    async fn server(tasks: &Tasks, http2: bool, answer: fn(&str, &[u8]) -> Response<Full<Bytes>>) -> (u16, Seen) {
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
    async fn grpc_probe_asks_for_its_service_and_reads_the_answer() {
        let tasks = Tasks::tokio();
        let (port, seen) = server(&tasks, true, |_, body| {
            let answer: (&str, &'static [u8]) = match body {
                [0, 0, 0, 0, 0] => ("0", &[0, 0, 0, 0, 2, 8, 1]),
                b"\0\0\0\0\x06\x0a\x04down" => ("0", &[0, 0, 0, 0, 2, 8, 2]),
                _ => ("5", b""),
            };
            Response::builder().header("grpc-status", answer.0).body(Full::from(answer.1)).unwrap()
        })
        .await;
        let healthy = (true, "service healthy".to_owned());
        assert_eq!(grpc("127.0.0.1", port, "", SECOND).await, Ok(healthy));
        let down = (false, "service unhealthy (responded with \"NOT_SERVING\")".to_owned());
        assert_eq!(grpc("127.0.0.1", port, "down", SECOND).await, Ok(down));
        let unknown = (false, "error: health rpc probe failed: rpc error: code = 5".to_owned());
        assert_eq!(grpc("127.0.0.1", port, "none", SECOND).await, Ok(unknown));
        let (path, headers, _) = seen.lock().unwrap()[0].clone();
        assert_eq!(
            (path.as_str(), headers["content-type"].as_bytes()),
            ("/grpc.health.v1.Health/Check", &b"application/grpc"[..])
        );
    }

    #[tokio::test]
    async fn http_get_probe_sends_its_headers_and_reads_code_and_redirect() {
        let tasks = Tasks::tokio();
        let (port, seen) = server(&tasks, false, |path, _| match path {
            "/away" => Response::builder().status(302).header("location", "/ok").body(Full::default()).unwrap(),
            "/ok" => Response::new(Full::default()),
            _ => Response::builder().status(503).body(Full::default()).unwrap(),
        })
        .await;
        let target = |path: &str| HttpTarget {
            host: "127.0.0.1".into(),
            port,
            path: path.into(),
            tls: false,
            agent: "kube-probe",
            headers: vec![("X-Custom".into(), "yes".into()), ("Host".into(), "example.com".into())],
        };
        let ask = async |path: &str| http_get(&target(path), SECOND).await.map(|a| (a.status, a.location));
        assert_eq!(ask("/ok").await, Ok((200, None)));
        assert_eq!(ask("/away").await, Ok((302, Some("/ok".into()))));
        assert_eq!(ask("/down").await, Ok((503, None)));
        let (_, headers, _) = seen.lock().unwrap()[0].clone();
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(
            (header("x-custom"), header("host"), header("user-agent")),
            ("yes".into(), "example.com".into(), "kube-probe/1.37".into())
        );
    }

    /// Nobody looks at who signed the certificate or whom it names (`pkg/probe/http` `New`).
    #[tokio::test]
    async fn https_probe_takes_any_certificate() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let made = rcgen::generate_simple_self_signed(vec!["elsewhere.test".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (host, path) = ("127.0.0.1".to_owned(), "/".to_owned());
        let target = HttpTarget { host, port, path, tls: true, agent: "kube-probe", headers: Vec::new() };
        let serve = async {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
            String::from_utf8_lossy(&request[..n]).into_owned()
        };
        let (answer, request) = tokio::join!(http_get(&target, SECOND), serve);
        assert_eq!(answer.map(|a| a.status), Ok(204));
        assert!(request.starts_with("GET / HTTP/1.1\r\n"), "HTTPS: {request}");
    }

    #[tokio::test]
    async fn tcp_socket_probe_connects_or_says_why_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(connect("127.0.0.1", port, SECOND).await.is_ok());
        drop(listener);
        let error = connect("127.0.0.1", port, SECOND).await.unwrap_err();
        assert_eq!(error, format!("dial tcp 127.0.0.1:{port}: connect: connection refused"));
    }
}
