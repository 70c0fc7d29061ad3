//! [`Api`] over HTTPS.

use std::sync::Arc;

use bytes::Bytes;
use corten_base::BoxFuture;
use corten_kinds::{Kind, Registry};
use corten_object::{KindId, Object, ObjectKey, Revision, Status};
use corten_tree::{Tree, tree};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hyper::Method;

use crate::api::{
    Api, ApiList, DeleteOptions, Failure, ListOptions, PatchKind, Propagation, Target, WatchEvent, WatchEventKind,
    Write, WriteOptions, Written,
};
use crate::http::HttpClient;

const JSON: &str = "application/json";

/// The API of a server that is reached by HTTPS, as the user of its client's credentials.
pub struct HttpApi {
    client: HttpClient,
    registry: Arc<Registry>,
}

/// The path of a kind's objects, in one namespace or in all (empty).
pub fn collection_path(kind: &Kind, namespace: &str) -> String {
    let version = &kind.versions[0];
    let root =
        if kind.group.is_empty() { format!("/api/{version}") } else { format!("/apis/{}/{version}", kind.group) };
    match namespace {
        "" => format!("{root}/{}", kind.plural),
        _ if !kind.namespaced() => format!("{root}/{}", kind.plural),
        namespace => format!("{root}/namespaces/{namespace}/{}", kind.plural),
    }
}

/// Escapes a text for a query value.
pub fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

impl HttpApi {
    /// An API over a client.
    pub fn new(client: HttpClient, registry: Arc<Registry>) -> HttpApi {
        HttpApi { client, registry }
    }

    /// The client below.
    pub fn client(&self) -> &HttpClient {
        &self.client
    }

    fn path(&self, key: &ObjectKey) -> String {
        format!("{}/{}", collection_path(self.registry.get(key.kind), &key.namespace), key.name)
    }

    fn target_path(&self, target: &Target) -> String {
        match target.subresource {
            "" => self.path(&target.key),
            subresource => format!("{}/{subresource}", self.path(&target.key)),
        }
    }

    fn list_query(options: &ListOptions) -> String {
        let mut query = String::new();
        if let Some(labels) = &options.labels {
            query.push_str(&format!("&labelSelector={}", query_escape(&labels.to_string())));
        }
        let terms: Vec<String> = options
            .fields
            .terms
            .iter()
            .map(|t| format!("{}{}{}", t.path, if t.equal { "=" } else { "!=" }, t.value))
            .collect();
        if !terms.is_empty() {
            query.push_str(&format!("&fieldSelector={}", query_escape(&terms.join(","))));
        }
        query
    }

    async fn send_write(&self, write: Write, options: WriteOptions) -> Result<Tree, Status> {
        let mut query = vec![];
        if options.dry_run {
            query.push("dryRun=All".to_owned());
        }
        for (name, value) in [("fieldManager", &options.field_manager), ("fieldValidation", &options.field_validation)]
        {
            if !value.is_empty() {
                query.push(format!("{name}={}", query_escape(value)));
            }
        }
        if options.force {
            query.push("force=true".into());
        }
        let suffix = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        match write {
            Write::Create { target, body } => {
                let path = match target.subresource {
                    "" => collection_path(self.registry.get(target.key.kind), &target.key.namespace),
                    _ => self.target_path(&target),
                };
                self.client.json(Method::POST, &format!("{path}{suffix}"), JSON, Some(&body)).await
            }
            Write::Update { target, body } => {
                self.client
                    .json(Method::PUT, &format!("{}{suffix}", self.target_path(&target)), JSON, Some(&body))
                    .await
            }
            Write::Patch { target, patch, body } => {
                let content = match patch {
                    PatchKind::Json => "application/json-patch+json",
                    PatchKind::Merge => "application/merge-patch+json",
                    PatchKind::Strategic => "application/strategic-merge-patch+json",
                    PatchKind::Apply => "application/apply-patch+yaml",
                };
                self.client
                    .json(Method::PATCH, &format!("{}{suffix}", self.target_path(&target)), content, Some(&body))
                    .await
            }
            Write::Delete { key, options } => {
                self.client.json(Method::DELETE, &self.path(&key), JSON, Some(&delete_body(&options))).await
            }
        }
    }
}

fn delete_body(options: &DeleteOptions) -> Tree {
    let mut body = tree!({"kind": "DeleteOptions", "apiVersion": "v1"});
    if let Some(seconds) = options.grace_seconds {
        body.insert("gracePeriodSeconds", seconds);
    }
    if let Some(propagation) = options.propagation {
        let policy = match propagation {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        };
        body.insert("propagationPolicy", policy);
    }
    if let Some(uid) = &options.uid {
        body.set("preconditions.uid", uid.as_str());
    }
    if let Some(revision) = options.revision {
        body.set("preconditions.resourceVersion", revision.to_string());
    }
    if options.dry_run {
        body.insert("dryRun", vec!["All"]);
    }
    body
}

/// An object from its wire form: the resourceVersion moves from the body into the head.
fn object(registry: &Registry, kind: KindId, mut tree: Tree) -> Result<Arc<Object>, Status> {
    let kind = registry.get(kind);
    let revision = revision_of(&tree);
    if let Some(metadata) = tree.get_mut("metadata").and_then(Tree::as_map_mut) {
        metadata.remove("resourceVersion");
    }
    let parsed = Object::parse(kind.id, Bytes::from(tree.to_json()), revision, &kind.fact_paths);
    parsed.map(Arc::new).map_err(|e| Status::internal(format!("the server's answer: {e}")))
}

fn revision_of(tree: &Tree) -> Revision {
    Revision(tree.str_at("metadata.resourceVersion").parse().unwrap_or_default())
}

fn watch_event(registry: &Registry, kind: KindId, mut line: Tree) -> Result<WatchEvent, Status> {
    let body = line.remove("object").unwrap_or_default();
    let revision = revision_of(&body);
    let event = match line.str_at("type") {
        "ADDED" => WatchEventKind::Added,
        "MODIFIED" => WatchEventKind::Modified,
        "DELETED" => WatchEventKind::Deleted,
        "BOOKMARK" => return Ok(WatchEvent { kind: WatchEventKind::Bookmark, object: None, revision }),
        "ERROR" => return Err(Status::from_tree(&body)),
        other => return Err(Status::internal(format!("watch event of unknown type {other:?}"))),
    };
    Ok(WatchEvent { kind: event, object: Some(object(registry, kind, body)?), revision })
}

impl Api for HttpApi {
    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(async move {
            let tree = self.client.json(Method::GET, &self.path(key), JSON, None).await?;
            object(&self.registry, key.kind, tree)
        })
    }

    fn list(&self, kind: KindId, options: ListOptions) -> BoxFuture<'_, Result<ApiList, Status>> {
        Box::pin(async move {
            let path = collection_path(self.registry.get(kind), &options.namespace);
            let path = format!("{path}?resourceVersion={}", HttpApi::list_query(&options));
            let mut tree = self.client.json(Method::GET, &path, JSON, None).await?;
            let revision = revision_of(&tree);
            let row = self.registry.get(kind);
            let (api_version, name) = (row.api_version(), row.kind.clone());
            let items = match tree.remove("items") {
                Some(Tree::List(items)) => items,
                _ => Vec::new(),
            };
            let item = |mut item: Tree| {
                item.make_map().insert_if_absent("apiVersion", api_version.as_str());
                item.make_map().insert_if_absent("kind", &name);
                object(&self.registry, kind, item)
            };
            Ok(ApiList { items: items.into_iter().map(item).collect::<Result<_, _>>()?, revision })
        })
    }

    fn watch(
        &self,
        kind: KindId,
        options: ListOptions,
        after: Revision,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchEvent, Status>>, Status>> {
        Box::pin(async move {
            let path = collection_path(self.registry.get(kind), &options.namespace);
            let query = HttpApi::list_query(&options);
            let path = format!("{path}?watch=true&allowWatchBookmarks=true&resourceVersion={after}{query}");
            let lines = self.client.lines(&path, JSON).await?;
            let registry = self.registry.clone();
            Ok(lines.map(move |line| watch_event(&registry, kind, line?)).boxed())
        })
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Tree, Status>> {
        Box::pin(self.client.json(Method::GET, path, JSON, None))
    }

    fn write(&self, write: Write, options: WriteOptions) -> BoxFuture<'_, Result<Written, Failure>> {
        Box::pin(async move {
            let kind = match &write {
                Write::Create { target, .. } | Write::Update { target, .. } | Write::Patch { target, .. } => {
                    target.key.kind
                }
                Write::Delete { key, .. } => key.kind,
            };
            let row = self.registry.get(kind).clone();
            // The store's revision is not known from here: 0 asks the caller to wait for nothing.
            let failed = |status: Status| Failure { status, revision: Revision(0) };
            let answer = self.send_write(write, options).await.map_err(failed)?;
            let revision = revision_of(&answer);
            if answer.str_at("kind") == &*row.kind && !answer.str_at("metadata.name").is_empty() {
                let object = object(&self.registry, kind, answer).map_err(failed)?;
                return Ok(Written { object: Some(object), answer: None, revision });
            }
            Ok(Written { object: None, answer: Some(answer), revision })
        })
    }
}
