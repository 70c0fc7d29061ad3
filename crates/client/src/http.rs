//! HTTPS to an API server: requests, JSON answers, event streams.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use corten_object::{Reason, Status};
use corten_tree::{Tree, json};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, BodyStream, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::ServerName;

use crate::kubeconfig::Connection;

/// Largest answer that is read into memory, in bytes.
const ANSWER_MAX: usize = 256 << 20;

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The token cannot stand in a header.
    #[error("token in the kubeconfig is malformed: {0}")]
    Token(String),
    /// A certificate or key in the kubeconfig is malformed.
    #[error("TLS of the kubeconfig: {0}")]
    Tls(String),
    /// The server's address is malformed.
    #[error("server address {0:?} is not https://host:port")]
    Address(String),
}

/// A client of one API server. Clones share connections.
#[derive(Clone)]
pub struct HttpClient {
    base: Uri,
    authorization: Option<HeaderValue>,
    tls: Arc<rustls::ClientConfig>,
    server_name: Option<ServerName<'static>>,
    inner: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl HttpClient {
    /// A client; nothing is connected yet.
    ///
    /// # Errors
    /// If the connection's certificates or address are malformed.
    pub fn new(connection: &Connection) -> Result<HttpClient, ConnectError> {
        let bad_address = || ConnectError::Address(connection.server.clone());
        let base: Uri = connection.server.parse().map_err(|_| bad_address())?;
        if base.scheme_str() != Some("https") || base.authority().is_none() {
            return Err(bad_address());
        }
        let tls = connection.trust().tls().map_err(ConnectError::Tls)?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(Duration::from_secs(10)));
        let https = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_only();
        let server_name = match connection.tls_server_name.as_str() {
            "" => ServerName::try_from(base.host().unwrap_or_default().trim_matches(['[', ']']).to_owned()).ok(),
            name => Some(ServerName::try_from(name.to_owned()).map_err(|e| ConnectError::Tls(e.to_string()))?),
        };
        let https = match server_name.clone() {
            Some(name) => https.with_server_name_resolver(FixedServerNameResolver::new(name)),
            None => https,
        };
        let https = https.enable_http1().enable_http2().wrap_connector(http);
        let authorization = match connection.token.as_str() {
            "" => None,
            token => {
                Some(HeaderValue::try_from(format!("Bearer {token}")).map_err(|e| ConnectError::Token(e.to_string()))?)
            }
        };
        let inner = Client::builder(TokioExecutor::new()).build(https);
        Ok(HttpClient { base, authorization, tls: Arc::new(tls), server_name, inner })
    }

    /// `https://host:port`
    pub fn base(&self) -> &Uri {
        &self.base
    }

    /// TLS as for HTTP/1.1 upgrades, and the name to expect.
    pub(crate) fn tls(&self) -> (Arc<rustls::ClientConfig>, Option<ServerName<'static>>) {
        let mut config = (*self.tls).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        (Arc::new(config), self.server_name.clone())
    }

    /// The Authorization header, if the connection has a token.
    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Sends a request and returns the answer as it comes. `path` begins with `/` and may hold a query.
    ///
    /// # Errors
    /// `ServiceUnavailable` if the server cannot be reached; the server's `Status` for codes from 400.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, Status> {
        let origin = self.base.to_string();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", origin.trim_end_matches('/')));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|e| Status::bad_request(e.to_string()))?;
        let answer = self.inner.request(request).await.map_err(|e| {
            let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            Status::new(Reason::ServiceUnavailable, format!("the server {} cannot be reached: {cause}", self.base))
        })?;
        if answer.status().as_u16() < 400 { Ok(answer) } else { Err(failure(answer).await) }
    }

    /// Sends JSON and reads a JSON answer.
    ///
    /// # Errors
    /// As [`HttpClient::send`].
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Tree>,
    ) -> Result<Tree, Status> {
        self.json_as(method, path, content_type, body, "application/json").await
    }

    /// As [`HttpClient::json`], asking for a form of JSON such as a Table.
    ///
    /// # Errors
    /// As [`HttpClient::send`].
    pub async fn json_as(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Tree>,
        accept: &str,
    ) -> Result<Tree, Status> {
        let bytes = body.map(|b| Bytes::from(b.to_json())).unwrap_or_default();
        let headers = [(ACCEPT.as_str(), accept), (CONTENT_TYPE.as_str(), content_type)];
        let headers = if body.is_some() { &headers[..] } else { &headers[..1] };
        let answer = self.send(method, path, headers, bytes).await?;
        let bytes = collect(answer).await?;
        json::parse(&bytes).map_err(|e| Status::internal(format!("the server's answer is not JSON: {e}")))
    }

    /// Follows a watch: one tree per line of the answer.
    ///
    /// # Errors
    /// As [`HttpClient::send`]; in the stream, a broken connection.
    pub async fn lines(&self, path: &str, accept: &str) -> Result<BoxStream<'static, Result<Tree, Status>>, Status> {
        let answer = self.send(Method::GET, path, &[(ACCEPT.as_str(), accept)], Bytes::new()).await?;
        let frames = byte_stream(answer);
        let split = futures::stream::try_unfold((frames, BytesMut::new()), |(mut frames, mut buffer)| async move {
            loop {
                if let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                    let line = buffer.split_to(end);
                    buffer.advance(1);
                    if line.iter().all(u8::is_ascii_whitespace) {
                        continue;
                    }
                    let tree = json::parse(&line).map_err(|e| Status::internal(format!("watch event: {e}")))?;
                    return Ok(Some((tree, (frames, buffer))));
                }
                match frames.next().await {
                    Some(Ok(bytes)) => buffer.extend_from_slice(&bytes),
                    Some(Err(e)) => {
                        return Err(Status::new(Reason::ServiceUnavailable, format!("watch broke off: {e}")));
                    }
                    None => return Ok(None),
                }
            }
        });
        Ok(split.boxed())
    }
}

/// The body as it comes.
pub fn byte_stream(answer: Response<Incoming>) -> BoxStream<'static, std::io::Result<Bytes>> {
    let data = BodyStream::new(answer.into_body())
        .filter_map(|frame| async move { frame.map(|f| f.into_data().ok()).transpose() });
    data.map_err(std::io::Error::other).boxed()
}

async fn collect(answer: Response<Incoming>) -> Result<Bytes, Status> {
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
    body.map(|b| b.to_bytes())
        .map_err(|e| Status::new(Reason::ServiceUnavailable, format!("the answer broke off: {e}")))
}

async fn failure(answer: Response<Incoming>) -> Status {
    let code = answer.status();
    let body = match collect(answer).await {
        Ok(body) => body,
        Err(status) => return status,
    };
    match json::parse(&body) {
        Ok(tree) if tree.str_at("kind") == "Status" => Status::from_tree(&tree),
        _ => {
            let mut status = Status::new(Reason::Unknown, String::from_utf8_lossy(&body).trim().to_owned());
            status.code = code.as_u16();
            status
        }
    }
}
