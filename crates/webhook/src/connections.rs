//! Connections to others, kept and shared by all who have the same trust, and what went wrong with them in Go's words.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::ServerName;

use corten_client::Trust;

use crate::{Destination, RequestBody};

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How many clients (trust and server name) are kept; the least recently used goes first.
const CLIENTS_MAX: usize = 64;

pub(crate) type Https = Client<HttpsConnector<HttpConnector>, RequestBody>;

/// What tells clients apart.
#[derive(PartialEq, Eq, Clone)]
pub(crate) struct ClientKey {
    /// Whom to trust; `None` speaks without TLS.
    pub trust: Option<Trust>,
    /// For whom the certificate must be; empty: the host that is connected to.
    pub server_name: String,
    /// Whether connections are kept for the next request.
    pub keep: bool,
}

/// A client for each trust and server name, the least recently used first. Clones share connections.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<Vec<(ClientKey, Https)>>>);

impl Connections {
    /// Sends a request to where it is told, and returns the answer as it begins.
    ///
    /// # Errors
    /// Why nobody has answered, in the words of Go's client.
    pub async fn send(
        &self,
        destination: &Destination,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, String> {
        let scheme = if destination.trust.is_some() { "https" } else { "http" };
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let uri = format!("{scheme}://{}{path}", destination.authority);
        *request.uri_mut() = uri.parse().map_err(|e| format!("parse {uri:?}: {e}"))?;
        *request.version_mut() = hyper::Version::HTTP_11;
        let key = ClientKey {
            trust: destination.trust.clone(),
            server_name: destination.server_name.clone(),
            keep: destination.keep,
        };
        self.client(key)?.request(request).await.map_err(|e| reason(&e, &destination.authority))
    }

    pub(crate) fn client(&self, key: ClientKey) -> Result<Https, String> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = clients.iter().position(|(have, _)| *have == key) {
            let found = clients.remove(at);
            let client = found.1.clone();
            clients.push(found);
            return Ok(client);
        }
        let tls = key.trust.clone().unwrap_or_default().tls()?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_MAX));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        let mut https = if key.trust.is_some() { builder.https_only() } else { builder.https_or_http() };
        if !key.server_name.is_empty() {
            let name = ServerName::try_from(key.server_name.clone()).map_err(|e| e.to_string())?;
            https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        // HTTP/1.1 only, as upstream: requests spread over a Service's endpoints.
        let mut builder = Client::builder(TokioExecutor::new());
        if !key.keep {
            builder.pool_max_idle_per_host(0);
        }
        let client = builder.build(https.enable_http1().wrap_connector(http));
        if clients.len() >= CLIENTS_MAX {
            clients.remove(0);
        }
        clients.push((key, client.clone()));
        Ok(client)
    }
}

/// What Go's client says of the innermost error of an exchange with `authority`.
pub(crate) fn reason(error: &(dyn std::error::Error + 'static), authority: &str) -> String {
    let mut innermost = error;
    loop {
        // An I/O error's source is that of what it holds; what it holds is what TLS says of the certificate.
        let held = innermost.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let held = held.map(|held| held as &(dyn std::error::Error + 'static));
        match held.or_else(|| innermost.source()) {
            Some(next) => innermost = next,
            None => break,
        }
    }
    if let Some(tls) = innermost.downcast_ref() {
        return tls_reason(tls);
    }
    use std::io::ErrorKind;
    let dial = |why: &str| format!("dial tcp {authority}: {why}");
    match innermost.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => dial("connect: connection refused"),
        Some(ErrorKind::HostUnreachable) => dial("connect: no route to host"),
        Some(ErrorKind::NetworkUnreachable) => dial("connect: network is unreachable"),
        Some(ErrorKind::TimedOut) => dial("i/o timeout"),
        Some(ErrorKind::ConnectionReset) => "read: connection reset by peer".into(),
        Some(ErrorKind::UnexpectedEof) => "EOF".into(),
        _ if innermost.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) => "EOF".into(),
        _ => innermost.to_string(),
    }
}

fn tls_reason(error: &rustls::Error) -> String {
    use rustls::{CertificateError as C, Error as E};
    let why = match error {
        E::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "certificate signed by unknown authority".to_owned()
        }
        E::InvalidCertificate(
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
        ) => "certificate has expired or is not yet valid".to_owned(),
        E::InvalidCertificate(other) => other.to_string(),
        other => return format!("remote error: tls: {other}"),
    };
    format!("tls: failed to verify certificate: x509: {why}")
}
