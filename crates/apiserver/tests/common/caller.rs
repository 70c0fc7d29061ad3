//! A caller over TLS who proves who they are in one way or another.

use std::sync::Arc;

use bytes::Bytes;
use corten_auth::SignedPair;
use corten_tree::{Tree, json};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Fixture;

/// One HTTP/1.1 connection with headers that every request has.
pub struct Caller {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    headers: Vec<(String, String)>,
}

impl Caller {
    /// With a client certificate, or without.
    pub async fn connect(fixture: &Fixture, identity: Option<&SignedPair>) -> Caller {
        let tls = Arc::new(fixture.material.client_tls(identity).unwrap());
        let tcp = TcpStream::connect(fixture.server.addresses()[0]).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        fixture.tasks.spawn("test caller", corten_base::OnStop::Abort, async move {
            let _ = connection.await;
        });
        Caller { sender, headers: Vec::new() }
    }

    /// The administrator.
    pub async fn admin(fixture: &Fixture) -> Caller {
        Caller::connect(fixture, Some(&fixture.material.admin)).await
    }

    /// Someone with a bearer token.
    pub async fn bearer(fixture: &Fixture, token: &str) -> Caller {
        Caller::connect(fixture, None).await.with("authorization", &format!("Bearer {token}"))
    }

    /// With one more header on every request.
    pub fn with(mut self, name: &str, value: &str) -> Caller {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub async fn send(&mut self, method: Method, path: &str, kind: &str, body: &str) -> (u16, HeaderMap, Tree) {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let tree = json::parse(&bytes).unwrap_or_else(|_| Tree::from(String::from_utf8_lossy(&bytes).into_owned()));
        (parts.status.as_u16(), parts.headers, tree)
    }

    pub async fn get(&mut self, path: &str) -> (u16, Tree) {
        let (code, _, tree) = self.send(Method::GET, path, "", "").await;
        (code, tree)
    }

    pub async fn post(&mut self, path: &str, body: &Tree) -> (u16, Tree) {
        let (code, _, tree) = self.send(Method::POST, path, "application/json", &body.to_string()).await;
        (code, tree)
    }

    pub async fn put(&mut self, path: &str, body: &Tree) -> (u16, Tree) {
        let (code, _, tree) = self.send(Method::PUT, path, "application/json", &body.to_string()).await;
        (code, tree)
    }

    pub async fn merge(&mut self, path: &str, body: &Tree) -> (u16, Tree) {
        let (code, _, tree) = self.send(Method::PATCH, path, "application/merge-patch+json", &body.to_string()).await;
        (code, tree)
    }

    pub async fn delete(&mut self, path: &str) -> (u16, Tree) {
        let (code, _, tree) = self.send(Method::DELETE, path, "", "").await;
        (code, tree)
    }
}
