//! A caller over TLS who proves who they are in one way or another.

use corten_auth::SignedPair;
use corten_tree::{Tree, json};
use http_body_util::BodyExt;
use hyper::{HeaderMap, Method};

use super::{Client, Fixture};

/// One HTTP/1.1 connection with headers that every request has.
pub struct Caller {
    client: Client,
    headers: Vec<(String, String)>,
}

impl Caller {
    /// With a client certificate, or without.
    pub async fn connect(fixture: &Fixture, identity: Option<&SignedPair>) -> Caller {
        Caller { client: Client::with_identity(fixture, identity).await, headers: Vec::new() }
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
        let kind = [("content-type", kind)].into_iter().filter(|(_, kind)| !kind.is_empty());
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers: Vec<(&str, &str)> = own.chain(kind).collect();
        let response = self.client.send(method, path, &headers, body.as_bytes()).await;
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
