//! One HTTP/1.1 connection to a server under test, as the administrator or as nobody.

use std::sync::Arc;

use bytes::Bytes;
use corten_tree::{Tree, json};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::common::Fixture;

/// The connection.
pub struct Client(hyper::client::conn::http1::SendRequest<Full<Bytes>>);

#[allow(dead_code, reason = "each test file uses its part")]
impl Client {
    pub async fn connect(fixture: &Fixture, admin: bool) -> Client {
        let identity = admin.then_some(&fixture.material.admin);
        let tls = Arc::new(fixture.material.client_tls(identity).unwrap());
        let tcp = TcpStream::connect(fixture.server.addresses()[0]).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        fixture.tasks.spawn("test client", corten_base::OnStop::Abort, async move {
            let _ = connection.with_upgrades().await;
        });
        Client(sender)
    }

    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        self.0.ready().await.unwrap();
        self.0.send_request(request).await.unwrap()
    }

    async fn ask(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Tree) {
        let response = self.send(method, path, headers, body).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, json::parse(&bytes).unwrap_or_else(|_| Tree::from(String::from_utf8_lossy(&bytes).into_owned())))
    }

    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> (u16, Tree) {
        self.ask(Method::GET, path, headers, b"").await
    }

    pub async fn post(&mut self, path: &str, body: &str) -> (u16, Tree) {
        self.ask(Method::POST, path, &[], body.as_bytes()).await
    }

    pub async fn put(&mut self, path: &str, body: &str) -> (u16, Tree) {
        self.ask(Method::PUT, path, &[], body.as_bytes()).await
    }

    pub async fn patch(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Tree) {
        self.ask(Method::PATCH, path, headers, body).await
    }

    pub async fn delete(&mut self, path: &str) -> (u16, Tree) {
        self.ask(Method::DELETE, path, &[], b"").await
    }
}

/// The path of an object below that of its collection.
#[allow(dead_code, reason = "each test file uses its part")]
pub fn path_of(collection: &str, name: &str) -> String {
    format!("{collection}/{name}")
}
