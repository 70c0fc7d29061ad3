//! One HTTP request: who asks, what for, and the answer.

use std::sync::Arc;

use bytes::Bytes;
use corten_auth::{Attributes, User};
use corten_object::selector::FieldTerm;
use corten_object::{FieldSelector, Reason, Status};
use corten_tree::{Tree, tree};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use super::authenticate::authenticate;
use super::body::{Body, full};
use super::encode::tree_bytes;
use super::negotiate::{self, Format};
use super::query::Query;
use super::route::{Resource, Route, parse};
use super::{Peer, resource};
use crate::core::Core;
use crate::{bootstrap, discovery};

/// Bytes that a body may have (`--max-request-body-bytes`).
const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Answers above this are compressed for clients that accept it (`responsewriters/writers.go`).
const GZIP_ABOVE: usize = 128 * 1024;

/// An answered request, and how it is counted.
pub(crate) struct Answered {
    pub response: Response<Body>,
    pub verb: &'static str,
    pub what: Option<Resource>,
}

impl Answered {
    /// Group, version, resource and subresource.
    pub fn labels(&self) -> (&str, &str, &str, &str) {
        match &self.what {
            Some(r) => (&r.group, &r.version, &r.resource, &r.subresource),
            None => ("", "", "", ""),
        }
    }
}

/// A request whose caller is known.
pub(crate) struct Call {
    pub user: Arc<User>,
    pub method: Method,
    pub headers: HeaderMap,
    pub query: Query,
    pub path: String,
    pub local: bool,
}

/// Answers one request.
pub(crate) async fn handle(core: &Arc<Core>, peer: &Peer, request: Request<Incoming>) -> Answered {
    let route = parse(request.uri().path());
    let headers = request.headers().clone();
    let verb = match (&route, request.method()) {
        (Route::Resource(r), method) => verb_of(method, r, &Query::parse(request.uri().query())),
        (_, method) => lower(method),
    };
    let what = match &route {
        Route::Resource(r) => Some(r.clone()),
        _ => None,
    };
    let response = match answer(core, peer, request, route, verb).await {
        Ok(response) => response,
        Err(status) => failure(core, &headers, &status),
    };
    let counted = match verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        other => other,
    };
    Answered { response, verb: counted, what }
}

async fn answer(
    core: &Arc<Core>,
    peer: &Peer,
    request: Request<Incoming>,
    route: Route,
    verb: &'static str,
) -> Result<Response<Body>, Status> {
    let path = request.uri().path();
    let caller = {
        let nobody = User::default();
        let fields: Vec<FieldTerm>;
        let mut about = Attributes::path(&nobody, verb, path);
        if let Route::Resource(r) = &route {
            let selector = Query::parse(request.uri().query()).get("fieldSelector").to_owned();
            fields = FieldSelector::parse(&selector).map(|s| s.terms).unwrap_or_default();
            let name = fields.iter().find(|t| t.path == "metadata.name" && t.equal).map(|t| t.value.as_str());
            about = Attributes {
                group: &r.group,
                resource: &r.resource,
                subresource: &r.subresource,
                namespace: &r.namespace,
                name: Some(r.name.as_str()).filter(|n| !n.is_empty()).or(name).unwrap_or_default(),
                fields: &fields,
                ..Attributes::resource(&nobody, verb)
            };
        }
        authenticate(core, peer, request.headers(), &about, path).await.map_err(|(status, _)| status)?
    };
    let incoming = Call {
        user: caller.user,
        method: request.method().clone(),
        headers: request.headers().clone(),
        query: Query::parse(request.uri().query()),
        path: request.uri().path().to_owned(),
        local: peer.local,
    };
    if let Route::Resource(r) = route {
        return resource::serve(core, incoming, r, verb, request).await;
    }
    let attributes = Attributes::path(&incoming.user, verb, &incoming.path);
    core.authorize(&attributes)?;
    if incoming.method != Method::GET && incoming.method != Method::HEAD {
        return Err(Status::method_not_allowed());
    }
    other(core, &incoming, &route).await
}

/// The verb of a request about a resource.
fn verb_of(method: &Method, r: &Resource, query: &Query) -> &'static str {
    let named = !r.name.is_empty();
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD if query.flag("watch") => "watch",
        Method::GET | Method::HEAD => "list",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "",
    }
}

fn lower(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

/// Paths that are not resources.
async fn other(core: &Arc<Core>, incoming: &Call, route: &Route) -> Result<Response<Body>, Status> {
    let aggregated = discovery::wants_aggregated(&negotiate::accepted(&incoming.headers));
    match route {
        Route::CoreVersions if aggregated => {
            Ok(discovery_v2(incoming, &core.discovery.aggregated(&core.registry.now(), true)))
        }
        Route::Groups if aggregated => {
            Ok(discovery_v2(incoming, &core.discovery.aggregated(&core.registry.now(), false)))
        }
        Route::CoreVersions => Ok(json(core, incoming, 200, &discovery::core_versions())),
        Route::Groups => Ok(json(core, incoming, 200, &discovery::groups(&core.registry.now()))),
        Route::Group(group) => {
            let found = discovery::group(&core.registry.now(), group).ok_or_else(Status::no_such_resource)?;
            Ok(json(core, incoming, 200, &found))
        }
        Route::Resources { group, version } => {
            let found =
                discovery::resources(&core.registry.now(), group, version).ok_or_else(Status::no_such_resource)?;
            Ok(json(core, incoming, 200, &found))
        }
        Route::OpenApi(rest) => {
            let found = core.openapi.get(&core.registry.now(), rest).ok_or_else(Status::no_such_resource)?;
            Ok(finish(incoming, respond(200, "application/json", full(found))))
        }
        Route::Other(path) => plain(core, incoming, path).await,
        Route::Resource(_) => Err(Status::no_such_resource()),
    }
}

async fn plain(core: &Arc<Core>, incoming: &Call, path: &str) -> Result<Response<Body>, Status> {
    let text = |text: String| Ok(respond(200, "text/plain; charset=utf-8", full(text)));
    let trimmed = path.trim_end_matches('/');
    match trimmed {
        "/version" => Ok(json(core, incoming, 200, &bootstrap::version())),
        "/healthz" | "/livez" | "/readyz" => {
            if !incoming.query.has("verbose") {
                return text("ok".into());
            }
            let check = &trimmed[1..];
            text(format!("[+]ping ok\n[+]store ok\n[+]watch-cache ok\n{check} check passed\n"))
        }
        "/healthz/ping" | "/livez/ping" | "/readyz/ping" => text("ok".into()),
        "/metrics" => Ok(respond(200, "text/plain; version=0.0.4; charset=utf-8", full(core.metrics.text()))),
        "/.well-known/openid-configuration" => {
            let issuer = core.authenticator.signer().issuer();
            let tree = tree!({"issuer": issuer, "jwks_uri": (core.jwks_uri.as_str()),
                "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"]});
            Ok(for_an_hour(respond(200, "application/json", full(tree.to_json()))))
        }
        "/openid/v1/jwks" => {
            let keys = core.authenticator.signer().key_set().to_json();
            Ok(for_an_hour(respond(200, "application/jwk-set+json", full(keys))))
        }
        "" => {
            let paths =
                ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"];
            let tree = tree!({"paths": (Tree::List(paths.iter().map(|p| Tree::from(*p)).collect()))});
            Ok(respond(200, "application/json", full(tree.to_json())))
        }
        _ => Err(Status::no_such_resource()),
    }
}

/// What anybody may keep for an hour (`pkg/routes/openidmetadata.go`).
fn for_an_hour(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

fn discovery_v2(incoming: &Call, body: &Bytes) -> Response<Body> {
    const TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    finish(incoming, respond(200, TYPE, full(body.clone())))
}

/// A tree as answer, in JSON or what else the client wants.
pub(crate) fn json(core: &Core, incoming: &Call, code: u16, tree: &Tree) -> Response<Body> {
    let format = negotiate::form(&incoming.headers).map_or(Format::Json, |f| f.format);
    finish(incoming, respond(code, format.content_type(), full(tree_bytes(core, format, tree))))
}

/// A failure as a Status object.
pub(crate) fn failure(core: &Core, headers: &HeaderMap, status: &Status) -> Response<Body> {
    let format = negotiate::form(headers).map_or(Format::Json, |f| f.format);
    let body = tree_bytes(core, format, &status.to_tree());
    let mut response = respond(status.code, format.content_type(), full(body));
    if let Some(seconds) = status.retry_after_seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A response of a code, a type and a body.
pub(crate) fn respond(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Compresses a large answer for a client that is not on this machine and accepts it.
pub(crate) fn finish(incoming: &Call, response: Response<Body>) -> Response<Body> {
    let accepts = incoming.headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    let gzip = accepts.flat_map(|v| v.split(',')).any(|e| e.split(';').next().map(str::trim) == Some("gzip"));
    if incoming.local || !gzip {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes: Bytes = match body {
        Body::Full(Some(bytes)) => bytes,
        Body::List(list) => list.collect().into(),
        other => return Response::from_parts(parts, other),
    };
    if bytes.len() <= GZIP_ABOVE {
        return Response::from_parts(parts, full(bytes));
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    let written = std::io::Write::write_all(&mut encoder, &bytes).and_then(|()| encoder.finish());
    match written {
        Ok(compressed) => {
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            Response::from_parts(parts, full(compressed))
        }
        Err(_) => Response::from_parts(parts, full(bytes)),
    }
}

/// Reads a request's body, up to the bound.
pub(crate) async fn read_body(request: Request<Incoming>) -> Result<Bytes, Status> {
    match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(Status::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {BODY_BYTES_MAX}"),
        )),
        Err(error) => Err(Status::bad_request(format!("reading the body: {error}"))),
    }
}
