//! Asking another API server as the aggregator.

use std::time::Duration;

use bytes::Bytes;
use corten_auth::{User, group};
use corten_client::Trust;
use corten_webhook::{Destination, body};
use futures::future::Either;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Request};

use super::{ApiService, Backend, Document};
use crate::core::Core;
use crate::proxy::as_user;
use corten_object::{Reason, Status};
use corten_schema::openapi::merge;
use corten_tree::{Tree, json, tree};

/// How long a server may take to answer the aggregator.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long an OpenAPI document may take.
const DOCUMENT_MAX: Duration = Duration::from_secs(10);
/// Largest document, in bytes.
const DOCUMENT_BYTES_MAX: usize = 32 << 20;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// An answer.
pub(super) struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// Where a backend is reached now.
pub(super) fn destination(core: &Core, backend: &Backend) -> Result<Destination, String> {
    let material = &core.material.proxy_client;
    let identity = (material.cert_pem.clone().into_bytes(), material.key_pem.clone().into_bytes());
    let ca_pem = if backend.insecure { Vec::new() } else { backend.ca_pem.clone() };
    Ok(Destination {
        authority: core.caller.resolve(&backend.namespace, &backend.name, backend.port)?,
        trust: Some(Trust { ca_pem, identity: Some(identity), insecure: backend.insecure, ..Trust::default() }),
        server_name: format!("{}.{}.svc", backend.name, backend.namespace),
        keep: true,
    })
}

/// Reads a path of a server.
pub(super) async fn get(
    core: &Core,
    to: &Destination,
    path: &str,
    headers: &[(header::HeaderName, &str)],
    limit: Duration,
) -> Result<Answer, String> {
    let aggregator =
        User { name: "system:kube-aggregator".into(), groups: vec![group::MASTERS.into()], ..User::default() };
    get_as(core, to, path, (headers, &aggregator), limit).await
}

/// Reads a path of a server as this user.
async fn get_as(
    core: &Core,
    to: &Destination,
    path: &str,
    (headers, user): (&[(header::HeaderName, &str)], &User),
    limit: Duration,
) -> Result<Answer, String> {
    let mut request = Request::get(path).body(body(Empty::new())).map_err(|e| e.to_string())?;
    let all = request.headers_mut();
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        all.insert(name.clone(), HeaderValue::from_str(value).map_err(|e| e.to_string())?);
    }
    all.insert(header::HOST, HeaderValue::from_str(&to.authority).map_err(|e| e.to_string())?);
    all.insert(header::USER_AGENT, HeaderValue::from_static("kube-aggregator"));
    as_user(all, user);
    let exchange = async {
        let answer = core.caller.send(to, request).await?;
        let (parts, content) = answer.into_parts();
        let content = Limited::new(content, DOCUMENT_BYTES_MAX).collect().await.map_err(|e| e.to_string())?;
        Ok(Answer { code: parts.status.as_u16(), headers: parts.headers, body: content.to_bytes() })
    };
    futures::pin_mut!(exchange);
    match futures::future::select(exchange, core.clock.sleep(limit)).await {
        Either::Left((answer, _)) => answer,
        Either::Right(_) => {
            Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())
        }
    }
}

/// Reads the document at a path of the server of a group version, as a user.
pub(crate) async fn read(core: &Core, service: &ApiService, path: &str, user: &User) -> Result<Tree, Status> {
    let unavailable = |why: String| Status::new(Reason::ServiceUnavailable, why);
    let backend = service.backend.as_ref().filter(|b| b.available);
    let backend = backend.ok_or_else(|| unavailable("the server is currently unable to handle the request".into()))?;
    let to = destination(core, backend).map_err(unavailable)?;
    let headers = [(header::ACCEPT, "application/json")];
    let answer = get_as(core, &to, path, (&headers, user), ANSWER_MAX).await.map_err(unavailable)?;
    let body = json::parse(&answer.body);
    match (answer.code, body) {
        (200, Ok(tree)) => Ok(tree),
        (200, Err(why)) => Err(Status::internal(why)),
        (_, Ok(tree)) if tree.str_at("kind") == "Status" => Err(Status::from_tree(&tree)),
        (404, _) => Err(Status::no_such_resource()),
        (code, _) => Err(unavailable(format!("the server answered {code}"))),
    }
}

/// What a server says of a group version; `before` is what it said last.
pub(super) async fn document(core: &Core, service: &ApiService, before: &Document) -> Document {
    let mut document = Document { current: false, ..before.clone() };
    let Some(backend) = &service.backend else { return document };
    let Ok(to) = destination(core, backend) else { return document };
    match discovery(core, &to, service, before).await {
        Ok((tree, etag)) => (document.discovery, document.etag, document.current) = (tree, etag, true),
        Err(why) => tracing::debug!(service = service.name, why, "the discovery of an aggregated API was not read"),
    }
    openapi(core, &to, service, &mut document).await;
    document
}

/// The group version's part of the aggregated form, or made from the older one
/// (`fetchFreshDiscoveryForService`).
async fn discovery(
    core: &Core,
    to: &Destination,
    service: &ApiService,
    before: &Document,
) -> Result<(Tree, String), String> {
    let headers = [(header::ACCEPT, AGGREGATED), (header::IF_NONE_MATCH, before.etag.as_str())];
    let answer = get(core, to, "/apis", &headers, ANSWER_MAX).await?;
    let kind = answer.header(header::CONTENT_TYPE);
    match answer.code {
        304 => return Ok((before.discovery.clone(), before.etag.clone())),
        503 => return Err("service returned non-success response code: 503".into()),
        200 if kind.contains("g=apidiscovery.k8s.io") && kind.contains("v=v2") => {
            let list = json::parse(&answer.body).map_err(|e| e.to_string())?;
            let group = list.list_at("items").iter().find(|g| g.str_at("metadata.name") == service.group);
            let versions = group.map(|g| g.list_at("versions")).unwrap_or_default();
            let found = versions.iter().find(|v| v.str_at("version") == service.version).cloned();
            return Ok((found.unwrap_or_default(), answer.header(header::ETAG).to_owned()));
        }
        _ => {}
    }
    let answer = get(core, to, &path_of(service), &[(header::ACCEPT, "application/json")], ANSWER_MAX).await?;
    if answer.code != 200 {
        return Err(format!("the older discovery answered {}", answer.code));
    }
    let list = json::parse(&answer.body).map_err(|e| e.to_string())?;
    Ok((aggregated(&service.version, list.list_at("resources")), String::new()))
}

/// Where a group version is.
pub(super) fn path_of(service: &ApiService) -> String {
    match service.group.as_str() {
        "" => format!("/api/{}", service.version),
        group => format!("/apis/{group}/{}", service.version),
    }
}

/// The older form's resources in the newer form (`ConvertGroupVersionIntoToDiscovery`).
fn aggregated(version: &str, resources: &[Tree]) -> Tree {
    let copy = |from: &Tree, to: &mut Tree, names: &[(&str, &'static str)]| {
        for (old, new) in names {
            if let Some(value) = from.get(old).filter(|v| !v.is_empty_value()) {
                to.insert(*new, value.clone());
            }
        }
    };
    let kind =
        |r: &Tree| tree!({"group": (r.str_at("group")), "version": (r.str_at("version")), "kind": (r.str_at("kind"))});
    let mut out: Vec<Tree> = Vec::new();
    for resource in resources {
        let name = resource.str_at("name");
        let scope = if resource.bool_at("namespaced") { "Namespaced" } else { "Cluster" };
        match name.split_once('/') {
            None => {
                let mut entry = tree!({"resource": name, "responseKind": (kind(resource)), "scope": scope});
                let names = [
                    ("singularName", "singularResource"),
                    ("verbs", "verbs"),
                    ("shortNames", "shortNames"),
                    ("categories", "categories"),
                ];
                copy(resource, &mut entry, &names);
                out.push(entry);
            }
            Some((parent, sub)) => {
                let mut entry = tree!({"subresource": sub, "responseKind": (kind(resource))});
                copy(resource, &mut entry, &[("verbs", "verbs")]);
                let at = out.iter().position(|r| r.str_at("resource") == parent).unwrap_or_else(|| {
                    out.push(tree!({"resource": parent, "scope": scope}));
                    out.len() - 1
                });
                let mut all = out[at].list_at("subresources").to_vec();
                all.push(entry);
                out[at].insert("subresources", all);
            }
        }
    }
    tree!({"version": version, "resources": (Tree::List(out))})
}

/// Reads what a server's OpenAPI documents say of the group version.
async fn openapi(core: &Core, to: &Destination, service: &ApiService, document: &mut Document) {
    let accept = (header::ACCEPT, "application/json");
    let path = path_of(service);
    if let Ok(answer) = get(core, to, "/openapi/v3", std::slice::from_ref(&accept), DOCUMENT_MAX).await {
        let index = json::parse(&answer.body).unwrap_or_default();
        let own = index.at(&["paths", path.trim_start_matches('/'), "serverRelativeURL"]).and_then(Tree::as_str);
        document.openapi_v3 = own.filter(|_| answer.code == 200).unwrap_or_default().to_owned();
    }
    let headers = [accept, (header::IF_NONE_MATCH, document.openapi_v2_etag.as_str())];
    let Ok(answer) = get(core, to, "/openapi/v2", &headers, DOCUMENT_MAX).await else { return };
    match (answer.code, json::parse(&answer.body)) {
        (200, Ok(whole)) => {
            document.openapi_v2 = Some(std::sync::Arc::new(merge::part(&whole, &path)));
            document.openapi_v2_etag = answer.header(header::ETAG).to_owned();
        }
        (304, _) => {}
        _ => (document.openapi_v2, document.openapi_v2_etag) = (None, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_of_older_aggregated_servers_is_converted() {
        let list = json::parse(
            br#"[{"name":"flunders/status","singularName":"","namespaced":true,"kind":"Flunder","verbs":["get"]},
            {"name":"flunders","singularName":"flunder","namespaced":true,"kind":"Flunder","verbs":["get","list"],"shortNames":["fl"]},
            {"name":"flunders/scale","singularName":"","namespaced":true,"group":"autoscaling","version":"v1","kind":"Scale","verbs":["get"]}]"#,
        )
        .unwrap();
        let found = aggregated("v1", &list.as_list().unwrap()[1..]);
        let expected = r#"{"version":"v1","resources":[{"resource":"flunders","responseKind":{"group":"","version":"","kind":"Flunder"},"scope":"Namespaced","singularResource":"flunder","verbs":["get","list"],"shortNames":["fl"],"subresources":[{"subresource":"scale","responseKind":{"group":"autoscaling","version":"v1","kind":"Scale"},"verbs":["get"]}]}]}"#;
        assert_eq!(found.to_json_string(), expected);
        let alone = aggregated("v1", &list.as_list().unwrap()[..1]);
        assert_eq!(alone.list_at("resources")[0].list_at("subresources").len(), 1);
    }
}
