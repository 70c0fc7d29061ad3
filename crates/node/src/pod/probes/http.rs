//! HTTP probes and hooks (`pkg/probe/http`).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use corten_views::Container;
use corten_views::container::HttpGetAction;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

use super::{Answer, OUTPUT_MAX, address, dial, drive, host, port};
use crate::pod::PodContext;

/// Requests that redirects may lead to.
const REQUESTS_MAX: usize = 10;

/// Probes do not check certificates, as upstream's do not.
static ANYONE: LazyLock<Arc<rustls::ClientConfig>> =
    LazyLock::new(|| Arc::new(corten_client::Trust::anyone().tls().expect("nothing is read that could be malformed")));

/// What Go's client says when a server knows no TLS: it answers the first message in plain text.
pub const NOT_TLS: &str = "http: server gave HTTP response to HTTPS client";

/// Where an HTTP probe or hook goes.
#[derive(Clone)]
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
        format!("{scheme}://{}{}", address(&self.host, self.port), self.path)
    }

    /// Where a redirect leads, if that is the same host.
    fn redirected(&self, location: &str) -> Option<HttpTarget> {
        let to = Url::parse(&self.url()).ok()?.join(location).ok()?;
        let host = to.host_str()?.trim_matches(['[', ']']);
        let tls = match to.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        if host != self.host {
            return None;
        }
        let path = to.query().map_or_else(|| to.path().to_owned(), |query| format!("{}?{query}", to.path()));
        let mut next = HttpTarget { port: to.port_or_known_default()?, path, tls, ..self.clone() };
        if Url::parse(location).is_ok() {
            // It names its host itself.
            next.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("host"));
        }
        Some(next)
    }
}

/// An HTTP answer.
pub struct HttpAnswer {
    pub status: u16,
    location: Option<String>,
    /// No more than is looked at.
    body: Bytes,
}

/// Asks, and follows redirects on the same host; any other counts as a success, with a warning (`RedirectChecker`).
pub(super) async fn probe(mut target: HttpTarget, timeout: Duration) -> Answer {
    let ask = async {
        for _ in 0..REQUESTS_MAX {
            let answer = match exchange(&target).await {
                Ok(answer) => answer,
                Err(error) => return Err((target.url(), error)),
            };
            let redirects = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            let location = answer.location.clone().filter(|_| redirects);
            match location.as_deref().and_then(|location| target.redirected(location)) {
                Some(next) => target = next,
                None => return Ok(answer),
            }
        }
        Err((target.path.clone(), format!("stopped after {REQUESTS_MAX} redirects")))
    };
    match tokio::time::timeout(timeout, ask).await {
        Ok(Ok(HttpAnswer { status: 200..300, .. })) => Answer::Success,
        Ok(Ok(HttpAnswer { status: 300..400, body, .. })) => {
            Answer::Warning(format!("Probe terminated redirects, Response body: {}", String::from_utf8_lossy(&body)))
        }
        Ok(Ok(HttpAnswer { status, .. })) => Answer::Failure(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Err((url, error))) => Answer::Failure(format!("Get {url:?}: {error}")),
        Err(_) => Answer::Failure(too_slow(&target)),
    }
}

/// Asks once, without following redirects.
pub async fn http_get(target: &HttpTarget, timeout: Duration) -> Result<HttpAnswer, String> {
    let answer = tokio::time::timeout(timeout, exchange(target)).await.map_err(|_| too_slow(target))?;
    answer.map_err(|error| format!("Get {:?}: {error}", target.url()))
}

fn too_slow(target: &HttpTarget) -> String {
    format!("Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)", target.url())
}

/// Why a TLS connection did not come about, in Go's words where they matter to somebody.
fn handshake_error(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => NOT_TLS.into(),
        _ => error.to_string(),
    }
}

async fn exchange(target: &HttpTarget) -> Result<HttpAnswer, String> {
    let stream = dial(&address(&target.host, target.port)).await?;
    if !target.tls {
        return exchange_on(target, stream).await;
    }
    let name = rustls::pki_types::ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(ANYONE.clone());
    let stream = connector.connect(name, stream).await.map_err(|e| handshake_error(&e))?;
    exchange_on(target, stream).await
}

async fn exchange_on(
    target: &HttpTarget,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<HttpAnswer, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let has = |name: &str| target.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let mut request = Request::get(&target.path);
    if !has("host") {
        request = request.header("Host", address(&target.host, target.port));
    }
    if !has("user-agent") {
        request = request.header("User-Agent", format!("{}/1.37", target.agent));
    }
    if !has("accept") {
        request = request.header("Accept", "*/*");
    }
    request = request.header("Connection", "close");
    for (name, value) in &target.headers {
        // An empty one says that there is to be none.
        if !(name.eq_ignore_ascii_case("accept") && value.is_empty()) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let location = response.headers().get("location").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let body = read(response.into_body()).await?;
        Ok(HttpAnswer { status, location, body })
    };
    drive(connection, answer).await
}

/// The first bytes of a body; what is longer is not waited for.
async fn read(mut body: hyper::body::Incoming) -> Result<Bytes, String> {
    let mut out = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|e| e.to_string())?.into_data() else { continue };
        out.extend_from_slice(&data[..data.len().min(OUTPUT_MAX - out.len())]);
        if out.len() == OUTPUT_MAX {
            break;
        }
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use corten_base::Tasks;
    use http_body_util::Full;
    use hyper::Response;
    use tokio::net::TcpListener;

    use super::super::tests::{SECOND, server};
    use super::*;

    fn target(port: u16, path: &str) -> HttpTarget {
        HttpTarget {
            host: "127.0.0.1".into(),
            port,
            path: path.into(),
            tls: false,
            agent: "kube-probe",
            headers: vec![("X-Custom".into(), "yes".into()), ("Host".into(), "example.com".into())],
        }
    }

    #[tokio::test]
    async fn http_get_probe_sends_its_headers_and_reads_code_and_redirect() {
        let tasks = Tasks::tokio();
        let (port, seen) = server(&tasks, false, |path, _| {
            let to = |code: u16, location: &str| {
                Response::builder().status(code).header("location", location).body(Full::from("moved")).unwrap()
            };
            match path {
                "/ok" => Response::new(Full::default()),
                "/away" => to(302, "/ok"),
                "/near" => to(307, "sub/../ok"),
                "/round" => to(301, "/round"),
                "/elsewhere" => to(302, "http://example.com/"),
                "/same" => Response::builder().status(304).body(Full::default()).unwrap(),
                _ => Response::builder().status(503).body(Full::default()).unwrap(),
            }
        })
        .await;
        let ask = async |path: &str| probe(target(port, path), SECOND).await;
        for path in ["/ok", "/away", "/near"] {
            assert_eq!(ask(path).await, Answer::Success, "{path}");
        }
        assert_eq!(ask("/down").await, Answer::Failure("HTTP probe failed with statuscode: 503".into()));
        let ended = |body: &str| Answer::Warning(format!("Probe terminated redirects, Response body: {body}"));
        assert_eq!((ask("/elsewhere").await, ask("/same").await), (ended("moved"), ended("")));
        assert_eq!(ask("/round").await, Answer::Failure("Get \"/round\": stopped after 10 redirects".into()));
        let (_, headers, _) = seen.lock().unwrap()[0].clone();
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(
            (header("x-custom"), header("host"), header("user-agent"), header("accept")),
            ("yes".into(), "example.com".into(), "kube-probe/1.37".into(), "*/*".into())
        );
        let bare = HttpTarget { headers: vec![("accept".into(), String::new())], ..target(port, "/ok") };
        assert_eq!(probe(bare, SECOND).await, Answer::Success);
        let (_, headers, _) = seen.lock().unwrap().last().unwrap().clone();
        assert!(!headers.contains_key("accept") && headers["host"] == *format!("127.0.0.1:{port}"));
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_said_to_be_slow() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let slow = format!(
            "Get \"http://127.0.0.1:{port}/\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        );
        assert_eq!(probe(target(port, "/"), Duration::from_millis(50)).await, Answer::Failure(slow));
        drop(listener);
        let refused =
            format!("Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(probe(target(port, "/"), SECOND).await, Answer::Failure(refused));
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
}
