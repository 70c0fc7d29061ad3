//! Puts the cases of a file to a server.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use corten_auth::Material;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::case::{Base, Line, Section, Verb};
use crate::outcome::{self, Answer};
use crate::recorded::Answers;

/// The namespace of all namespaced cases.
const NAMESPACE: &str = "faults";

/// How often an update is sent that conflicts: upstream's controllers write the status of what was just made.
const RACES: u32 = 5;

/// The administrator's connection to a server.
pub struct Asker {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    resources: HashMap<(String, String), (String, bool)>,
    address: std::net::SocketAddr,
    tls: Arc<tokio_rustls::rustls::ClientConfig>,
    tasks: corten_base::Tasks,
}

impl Asker {
    /// Connects, and makes the namespace that the cases live in.
    ///
    /// # Errors
    /// If the server cannot be reached or does not accept the namespace.
    pub async fn connect(address: std::net::SocketAddr, material: &Material) -> Result<Asker> {
        let tls = Arc::new(material.client_tls(Some(&material.admin))?);
        let tasks = corten_base::Tasks::tokio();
        let sender = open(address, tls.clone(), &tasks).await?;
        Ok(Asker { sender, resources: HashMap::new(), address, tls, tasks })
    }

    /// Goes on over a new connection.
    pub(crate) async fn reconnect(&mut self) -> Result<()> {
        self.sender = open(self.address, self.tls.clone(), &self.tasks).await?;
        Ok(())
    }

    /// An answer as it comes.
    pub(crate) async fn stream(&mut self, path: &str) -> Result<hyper::body::Incoming> {
        let request = Request::builder().uri(path).header("host", "localhost").body(Full::new(Bytes::new()))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        anyhow::ensure!(response.status() == 200, "GET {path}: {}", response.status());
        Ok(response.into_body())
    }

    /// Makes the namespace and service account of the cases.
    ///
    /// # Errors
    /// If the server refuses them.
    pub async fn prepare(&mut self) -> Result<()> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        // Corten has a default class; with one in both, claims get the same.
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "corten.dev/local-path",
            "metadata": {"name": "local-path", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
        let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
        for (path, body) in [
            ("/api/v1/namespaces", namespace),
            (accounts.as_str(), account),
            ("/apis/storage.k8s.io/v1/storageclasses", class),
        ] {
            let answer = self.json(Method::POST, path, &body).await?;
            if answer.code >= 400 && answer.code != 409 {
                bail!("POST {path}: {}", answer.body);
            }
        }
        Ok(())
    }

    /// Whether the server says that it is ready.
    pub async fn ready(&mut self) -> bool {
        self.send(Method::GET, "/readyz", "", Bytes::new()).await.is_ok_and(|a| a.code == 200)
    }

    /// Puts all requests of a base to the server.
    ///
    /// # Errors
    /// If the connection breaks, or the base itself is refused where it must exist.
    pub async fn ask(&mut self, base: &Base, wanted: &dyn Fn(&str) -> bool) -> Result<Answers> {
        let (collection, object) = self.paths(base).await?;
        let mut answers = Answers::new();
        let mut made = false;
        let any = base.sections.iter().any(|s| s.lines.iter().any(|l| wanted(&base.id(s, l))));
        for section in base.sections.iter().filter(|_| any) {
            if !matches!(section.verb, Verb::Create | Verb::List) && !made {
                let answer = self.json(Method::POST, &collection, &base.object).await?;
                if answer.code >= 400 {
                    let why = format!("base refused: {}", outcome::show(&answer, &base.object).replace('\n', " | "));
                    answers.extend(section.lines.iter().map(|line| (base.id(section, line), why.clone())));
                    continue;
                }
                made = true;
            }
            for line in &section.lines {
                let id = base.id(section, line);
                if section.verb == Verb::Given || wanted(&id) {
                    let answer =
                        self.one(base, section, line, &collection, &object).await.with_context(|| id.clone())?;
                    answers.push((id, answer));
                }
            }
        }
        Ok(answers)
    }

    async fn one(
        &mut self,
        base: &Base,
        section: &Section,
        line: &Line,
        collection: &str,
        object: &str,
    ) -> Result<String> {
        const DRY: &str = "dryRun=All&fieldValidation=Strict";
        let subresource =
            if section.subresource.is_empty() { String::new() } else { format!("/{}", section.subresource) };
        let (answer, sent) = match section.verb {
            Verb::Create => {
                let mut body = base.object.clone();
                line.edits.iter().for_each(|e| e.apply(&mut body));
                (self.json(Method::POST, &format!("{collection}?{DRY}"), &body).await?, body)
            }
            Verb::Given | Verb::Update => {
                let query = if section.verb == Verb::Given { "" } else { DRY };
                let path = format!("{object}{subresource}?{query}");
                let mut attempts = RACES;
                loop {
                    let live = self.send(Method::GET, object, "", Bytes::new()).await?;
                    if live.code != 200 {
                        return Ok(format!("the base is gone: {}", live.body));
                    }
                    let mut body = live.body;
                    line.edits.iter().for_each(|e| e.apply(&mut body));
                    let answer = self.json(Method::PUT, &path, &body).await?;
                    attempts -= 1;
                    if answer.code != 409 || attempts == 0 {
                        break (answer, body);
                    }
                }
            }
            Verb::List => {
                let answer = self.send(Method::GET, &format!("{collection}?{}", line.text), "", Bytes::new()).await?;
                let body = answer.body.clone();
                (answer, body)
            }
            Verb::Patch(kind) => {
                let live = self.send(Method::GET, object, "", Bytes::new()).await?;
                let patch = line.edits.first().and_then(|e| e.value.clone()).unwrap_or_default();
                let kind = match kind {
                    "json" => "application/json-patch+json",
                    "strategic" => "application/strategic-merge-patch+json",
                    _ => "application/merge-patch+json",
                };
                let path = format!("{object}{subresource}?{DRY}");
                (self.send(Method::PATCH, &path, kind, Bytes::from(patch.to_string())).await?, live.body)
            }
        };
        Ok(outcome::show(&answer, &sent))
    }

    /// The paths of the collection and of the object.
    /// The paths of a base: of its collection and of the object in it.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn paths(&mut self, base: &Base) -> Result<(String, String)> {
        if !base.path.is_empty() {
            return Ok((base.path.clone(), base.path.clone()));
        }
        let root = match base.api_version.contains('/') {
            true => format!("/apis/{}", base.api_version),
            false => format!("/api/{}", base.api_version),
        };
        let key = (base.api_version.clone(), base.kind.clone());
        if !self.resources.contains_key(&key) {
            let list = self.send(Method::GET, &root, "", Bytes::new()).await?;
            for resource in list.body["resources"].as_array().into_iter().flatten() {
                let (name, kind) = (resource["name"].as_str().unwrap_or_default(), &resource["kind"]);
                if !name.contains('/') {
                    let kind = kind.as_str().unwrap_or_default().to_owned();
                    let namespaced = resource["namespaced"].as_bool().unwrap_or_default();
                    self.resources.insert((base.api_version.clone(), kind), (name.to_owned(), namespaced));
                }
            }
        }
        let unserved = ("unserved".to_owned(), false);
        let (plural, namespaced) = self.resources.get(&key).unwrap_or(&unserved);
        let metadata = &base.object["metadata"];
        let namespace = metadata["namespace"].as_str().unwrap_or(NAMESPACE);
        let collection =
            if *namespaced { format!("{root}/namespaces/{namespace}/{plural}") } else { format!("{root}/{plural}") };
        let object = format!("{collection}/{}", metadata["name"].as_str().unwrap_or_default());
        Ok((collection, object))
    }

    pub(crate) async fn json(&mut self, method: Method, path: &str, body: &Value) -> Result<Answer> {
        self.send(method, path, "application/json", Bytes::from(body.to_string())).await
    }

    /// One request.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn send(&mut self, method: Method, path: &str, content_type: &str, body: Bytes) -> Result<Answer> {
        self.send_accepting(method, path, "application/json", content_type, body).await
    }

    /// One request for an answer of this form.
    pub(crate) async fn send_accepting(
        &mut self,
        method: Method,
        path: &str,
        accept: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let request = request.header("accept", accept).body(Full::new(body))?;
        if self.sender.ready().await.is_err() {
            // A server closes a connection that was idle while the other one was asked.
            self.reconnect().await?;
            self.sender.ready().await?;
        }
        let response = self.sender.send_request(request).await?;
        let code = response.status().as_u16();
        let texts = response.headers().get_all("warning").into_iter().filter_map(|v| v.to_str().ok());
        let warnings = texts.map(warning_text).collect();
        let bytes = response.into_body().collect().await?.to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer { code, warnings, body })
    }
}

/// A connection.
async fn open(
    address: std::net::SocketAddr,
    tls: Arc<tokio_rustls::rustls::ClientConfig>,
    tasks: &corten_base::Tasks,
) -> Result<hyper::client::conn::http1::SendRequest<Full<Bytes>>> {
    let tcp = TcpStream::connect(address).await?;
    let name = "localhost".try_into().context("a name")?;
    let stream = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tasks.spawn("asker", corten_base::OnStop::Abort, async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// The text of a Warning header: `299 - "text"`.
fn warning_text(header: &str) -> String {
    let text = header.strip_prefix("299 - \"").and_then(|t| t.strip_suffix('"')).unwrap_or(header);
    text.replace("\\\"", "\"").replace("\\\\", "\\")
}
