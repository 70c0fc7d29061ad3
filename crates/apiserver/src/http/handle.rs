//! One HTTP request: who asks, what for, and the answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_audit::Trail;
use corten_auth::{Attributes, User};
use corten_base::metrics::Held;
use corten_object::selector::FieldTerm;
use corten_object::{FieldSelector, Reason, Status};
use corten_schema::scalars::duration;
use corten_tree::{Tree, tree};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response};

use super::audited;
use super::authenticate::authenticate;
use super::body::{Body, full};
use super::query::Query;
use super::respond::{failure, object, page_not_found, raw_json, respond, tagged, text};
use super::route::{Resource, Route, parse};
use super::{Peer, flow, health, negotiate, resource, zpages};
use crate::aggregation::{self, ApiService};
use crate::core::Core;
use crate::flow::{Mark, Place};
use crate::metrics::Labels;
use crate::openapi::hash;
use crate::{bootstrap, discovery, families};

/// Bytes that a body may have (`--max-request-body-bytes`).
const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Subresources whose requests are made to last (`apiserver/pkg/server/config.go`, `LongRunningFunc`).
const LONG_RUNNING: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

/// An answered request, and how it is counted.
pub(crate) struct Answered {
    pub response: Response<Body>,
    pub verb: &'static str,
    pub what: Option<Arc<Resource>>,
    pub dry_run: bool,
}

impl Answered {
    /// What the request is counted under.
    pub fn labels(&self) -> Labels<'_> {
        labels(self.what.as_deref(), self.dry_run)
    }
}

/// What a request is counted under.
pub(super) fn labels(what: Option<&Resource>, dry_run: bool) -> Labels<'_> {
    let dry_run = if dry_run { "All" } else { "" };
    let Some(r) = what else { return Labels { dry_run, ..Labels::default() } };
    let (group, version, resource) = (r.group.as_str(), r.version.as_str(), r.resource.as_str());
    Labels { group, version, resource, subresource: &r.subresource, scope: scope(r), dry_run }
}

/// A request whose caller is known.
pub(crate) struct Call {
    pub user: Arc<User>,
    pub method: Method,
    pub headers: Arc<HeaderMap>,
    pub query: Query,
    pub path: String,
    /// From where the request comes.
    pub ip: IpAddr,
    /// Its seats.
    pub place: Option<Place>,
    /// That it is counted among those that last, held for as long as it does.
    pub lasting: Option<Arc<Held>>,
}

/// Answers one request, and has it recorded.
pub(crate) async fn handle(core: &Arc<Core>, peer: &Peer, request: Request<Incoming>) -> Answered {
    let asked = Asked::new(&request);
    let id = audited::id(core, request.headers());
    let mut answered = match &core.audit {
        None => handle_asked(core, peer, request, asked).await,
        Some(backends) => {
            let trail = Trail::new(backends, audited::asked(core, peer, &request, id.clone(), asked.long));
            let answering = Box::pin(handle_asked(core, peer, request, asked));
            trail.scope(answering, |answered| answered.response.status().as_u16()).await
        }
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        answered.response.headers_mut().insert(HeaderName::from_static("audit-id"), id);
    }
    answered
}

/// What is asked, by path, method and query.
struct Asked {
    route: Route,
    query: Query,
    verb: &'static str,
    /// Whether the answer is made to last.
    long: bool,
}

impl Asked {
    fn new(request: &Request<Incoming>) -> Asked {
        let route = parse(request.uri().path());
        let query = Query::parse(request.uri().query());
        let (verb, long) = match (&route, request.method()) {
            (Route::Resource(r), method) => {
                let verb = verb_of(method, r, &query);
                (verb, verb == "watch" || LONG_RUNNING.contains(&r.subresource.as_str()))
            }
            (_, method) => (lower(method), false),
        };
        Asked { route, query, verb, long }
    }
}

async fn handle_asked(core: &Arc<Core>, peer: &Peer, mut request: Request<Incoming>, asked: Asked) -> Answered {
    let Asked { route, query, verb, long } = asked;
    let headers = Arc::new(std::mem::take(request.headers_mut()));
    let what = match &route {
        Route::Resource(r) => Some(r.clone()),
        _ => None,
    };
    let mutating = !matches!(verb, "get" | "list" | "watch" | "head");
    let _one = (!long).then(|| core.metrics.enter(mutating));
    let counted = counted_verb(verb, what.as_deref(), &headers);
    let lasting = what.as_ref().filter(|_| long).map(|r| {
        let labels = ["apiserver", &r.group, &r.resource, scope(r), &r.subresource, counted, &r.version];
        Arc::new(families::LONG_RUNNING.hold(&labels))
    });
    let asking = |limit| Asking { route, headers: headers.clone(), query: query.clone(), verb, limit, lasting };
    let (answered, mark) = match deadline(&query, long, core.flow.limits.request_timeout) {
        Err(status) => (Err(status), None),
        Ok(None) => answer(core, peer, request, asking(None)).await,
        Ok(Some(limit)) => {
            let answering = answer(core, peer, request, asking(Some(limit)));
            futures::pin_mut!(answering);
            match futures::future::select(answering, core.clock.sleep(limit)).await {
                futures::future::Either::Left((answered, _)) => answered,
                futures::future::Either::Right(_) => {
                    (Err(Status::timeout("request did not complete within the allotted timeout", 0)), None)
                }
            }
        }
    };
    let mut response = answered.unwrap_or_else(|status| failure(core, &headers, &query, &status));
    if let Some(mark) = mark {
        mark.set(response.headers_mut());
    }
    Answered { response, verb: counted, what, dry_run: query.get("dryRun") == "All" }
}

/// How a verb is counted (`apiserver/pkg/endpoints/metrics`, `cleanVerb`).
fn counted_verb(verb: &'static str, what: Option<&Resource>, headers: &HeaderMap) -> &'static str {
    if what.is_some_and(|r| LONG_RUNNING.contains(&r.subresource.as_str())) {
        return "CONNECT";
    }
    let applies =
        || headers.get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/apply-patch"));
    match verb {
        "get" | "head" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" if applies() => "APPLY",
        "patch" => "PATCH",
        "delete" | "deletecollection" => "DELETE",
        _ => "other",
    }
}

/// What a request reaches over, as it is counted.
pub(super) fn scope(r: &Resource) -> &'static str {
    match (r.name.as_str(), r.namespace.as_str()) {
        ("", "") => "cluster",
        ("", _) => "namespace",
        _ => "resource",
    }
}

/// How long a request may take: what it says itself, up to the server's own bound; `None` for what is made to last
/// (`apiserver/pkg/endpoints/filters/request_deadline.go`).
fn deadline(query: &Query, long_running: bool, most: Duration) -> Result<Option<Duration>, Status> {
    if long_running {
        return Ok(None);
    }
    let asked = match query.get("timeout") {
        "" => 0,
        text => duration::parse(text)
            .map_err(|why| Status::bad_request(format!("invalid timeout specified in the request URL - {why}")))?,
    };
    let asked = Duration::from_nanos(u64::try_from(asked).unwrap_or(0));
    Ok(Some(if asked.is_zero() { most } else { asked.min(most) }))
}

/// What is asked, on its way to who answers.
struct Asking {
    route: Route,
    headers: Arc<HeaderMap>,
    query: Query,
    verb: &'static str,
    /// How long the answer may take.
    limit: Option<Duration>,
    lasting: Option<Arc<Held>>,
}

/// The answer, and what it says of the request's schema and level.
async fn answer(
    core: &Arc<Core>,
    peer: &Peer,
    request: Request<Incoming>,
    asking: Asking,
) -> (Result<Response<Body>, Status>, Option<Mark>) {
    let user = match caller(core, peer, request.uri().path(), &asking).await {
        Ok(user) => user,
        Err(status) => return (Err(status), None),
    };
    let Asking { route, headers, query, verb, limit, lasting } = asking;
    let asked = flow::Asked { user: &user, verb, route: &route, uri: request.uri(), query: &query, limit };
    let place = match flow::enter(core, asked).await {
        Ok(place) => place,
        Err(refusal) => return (Ok(refusal), None),
    };
    let mark = place.as_ref().map(Place::mark);
    let call = Call {
        user,
        method: request.method().clone(),
        headers,
        query,
        path: request.uri().path().to_owned(),
        ip: peer.ip,
        place,
        lasting,
    };
    (call_of(core, call, route, verb, request).await, mark)
}

/// Who asks, and as whom.
async fn caller(core: &Core, peer: &Peer, path: &str, asking: &Asking) -> Result<Arc<User>, Status> {
    let Asking { route, headers, query, verb, .. } = asking;
    let nobody = User::default();
    let fields: Vec<FieldTerm>;
    let mut version = "";
    let mut about = Attributes::path(&nobody, verb, path);
    if let Route::Resource(r) = route {
        version = &r.version;
        fields = FieldSelector::parse(query.get("fieldSelector")).map(|s| s.terms).unwrap_or_default();
        let name = fields.iter().find(|t| t.path == "metadata.name" && t.equal).map(|t| t.value.as_str());
        about = Attributes {
            group: &r.group,
            version: &r.version,
            resource: &r.resource,
            subresource: &r.subresource,
            namespace: &r.namespace,
            name: Some(r.name.as_str()).filter(|n| !n.is_empty()).or(name).unwrap_or_default(),
            fields: &fields,
            ..Attributes::resource(&nobody, verb)
        };
    }
    authenticate(core, peer, headers, &about, version).await
}

async fn call_of(
    core: &Arc<Core>,
    incoming: Call,
    route: Route,
    verb: &'static str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    if let Some(service) = elsewhere(core, &route) {
        core.authorize(&attributes_of(&incoming, &route, verb)).await?;
        return Ok(Box::pin(aggregation::pass(core, &incoming, &service, request)).await);
    }
    if let Route::Resource(r) = route {
        return resource::serve(core, incoming, r, verb, request).await;
    }
    core.authorize(&attributes_of(&incoming, &route, verb)).await?;
    if let Route::OpenApi(path) = &route
        && let Some(service) = documented_elsewhere(core, path)
    {
        return Ok(Box::pin(aggregation::pass(core, &incoming, &service, request)).await);
    }
    Box::pin(other(core, &incoming, &route)).await
}

/// What a request does, for who decides whether it may.
fn attributes_of<'a>(call: &'a Call, route: &'a Route, verb: &'a str) -> Attributes<'a> {
    match route {
        Route::Resource(r) => r.attributes(&call.user, verb),
        _ => Attributes::path(&call.user, verb, &call.path),
    }
}

/// The APIService of what a path names, if another server serves it.
fn elsewhere(core: &Core, route: &Route) -> Option<Arc<ApiService>> {
    match route {
        Route::Resource(r) => core.served_elsewhere(&r.group, &r.version),
        Route::Resources { group, version } => core.served_elsewhere(group, version),
        _ => None,
    }
}

/// The APIService of an OpenAPI v3 document that its server has said to have.
fn documented_elsewhere(core: &Core, path: &str) -> Option<Arc<ApiService>> {
    let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return None,
    };
    let service = core.served_elsewhere(group, version)?;
    let known = core.aggregation.documents().get(&service.name).is_some_and(|said| !said.openapi_v3.is_empty());
    known.then_some(service)
}

/// The verb of a request about a resource.
fn verb_of(method: &Method, r: &Resource, query: &Query) -> &'static str {
    let named = !r.name.is_empty();
    match *method {
        _ if r.watch => "watch",
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
async fn other(core: &Arc<Core>, call: &Call, route: &Route) -> Result<Response<Body>, Status> {
    // Upstream's router has these documents for GET only; health and the like answer any method. It knows the groups that are
    // built in, at any version.
    let unknown = || Ok(page_not_found());
    let in_router = |group: &str| core.knows_group(group);
    match route {
        Route::Group(group) | Route::Resources { group, .. } if !in_router(group) && call.method != Method::GET => {
            return unknown();
        }
        Route::Resources { group, version } if in_router(group) && !core.serves(group, version) => {
            return Err(Status::no_such_resource());
        }
        Route::Other(_) => {}
        _ if call.method != Method::GET => return Err(Status::method_not_allowed()),
        _ => {}
    }
    let aggregated = discovery::wants_aggregated(&negotiate::accepted(&call.headers));
    let found = |found: Option<Tree>| match found {
        Some(tree) => object(core, call, 200, &tree),
        None => unknown(),
    };
    match route {
        Route::CoreVersions if aggregated => Ok(discovery_v2(call, core.discovery.aggregated(core.served(), true))),
        Route::Groups if aggregated => Ok(discovery_v2(call, core.discovery.aggregated(core.served(), false))),
        Route::CoreVersions => object(core, call, 200, &discovery::core_versions()),
        Route::Groups => object(core, call, 200, &discovery::groups(&core.served())),
        Route::Group(group) => found(discovery::group(&core.served(), group)),
        Route::Resources { group, version } => found(discovery::resources(&core.registry.now(), group, version)),
        Route::OpenApi(rest) => Ok(openapi_v3(core, call, rest)),
        Route::Other(path) => plain(core, call, path).await,
        Route::Resource(_) => Err(Status::no_such_resource()),
    }
}

async fn plain(core: &Arc<Core>, call: &Call, path: &str) -> Result<Response<Body>, Status> {
    if let Some(response) = health::answer(core, call, path).await {
        return Ok(response);
    }
    if let Some(dump) = crate::flow::dump(&core.flow, path, !call.query.get("includeRequestDetails").is_empty()) {
        return Ok(text(200, dump));
    }
    match path.trim_end_matches('/') {
        "/openapi/v2" => openapi_v2(core, call),
        "/version" => Ok(raw_json(200, &bootstrap::version())),
        "/statusz" => {
            let times = (core.started, core.clock.now());
            zpages::statusz(core, &call.headers, times, bootstrap::VERSION.trim_start_matches('v'), &listed(core))
        }
        "/flagz" => zpages::flagz(core, &call.headers),
        "/metrics/slis" => Ok(respond(200, "text/plain; version=0.0.4; charset=utf-8", full(families::slis()))),
        "/metrics" => Ok(respond(200, "text/plain; version=0.0.4; charset=utf-8", full(metrics(core)))),
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
        "" => Ok(raw_json(200, &index(core))),
        _ => Ok(page_not_found()),
    }
}

/// What has been counted, and what there is.
fn metrics(core: &Core) -> String {
    let registry = core.registry.now();
    let counts: Vec<usize> = {
        let world = core.cache.read();
        registry.iter().map(|kind| world.count(kind.id)).collect()
    };
    let stored = registry.iter().zip(counts).filter(|(kind, _)| kind.verbs.stored() && kind.stored_as.is_none());
    let mut text = core.metrics.text(stored.map(|(kind, count)| (&*kind.group, &*kind.plural, count)));
    text.push_str(&families::text());
    text.push_str(&core.flow.text());
    text.push_str(&core.admission.metrics_text());
    text.push_str(&corten_federation::metrics_text());
    text.push_str(&corten_base::workqueue::text());
    text.push_str(&crate::process::text());
    if let Some(audit) = &core.audit {
        text.push_str(&audit.metrics_text());
    }
    text
}

/// What anybody may keep for an hour (`pkg/routes/openidmetadata.go`).
fn for_an_hour(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// `/`: the paths that are served (`apiserver/pkg/server/routes/index.go`).
fn index(core: &Core) -> Tree {
    tree!({"paths": (Tree::List(listed(core).into_iter().map(Tree::from).collect()))})
}

/// The paths that the index lists, in order.
fn listed(core: &Core) -> Vec<String> {
    let mut paths: Vec<String> = ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/apis/"]
        .into_iter()
        .chain([
            "/flagz",
            "/metrics",
            "/metrics/slis",
            "/openapi/v2",
            "/openapi/v3",
            "/openapi/v3/",
            "/openid/v1/jwks",
            "/statusz",
            "/version",
        ])
        .map(str::to_owned)
        .collect();
    paths.extend(health::paths());
    for group in core.served().groups().iter().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|version| format!("/apis/{}/{version}", group.name)));
    }
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// `/openapi/v3` and the documents below it: kept by clients for a year under their hash
/// (`kube-openapi/pkg/handler3/handler.go`).
fn openapi_v3(core: &Core, call: &Call, path: &str) -> Response<Body> {
    let Some(document) = core.openapi.get(&core.served(), path) else { return page_not_found() };
    let etag = hash(&document);
    let asked = call.query.get("hash");
    if path.is_empty() || asked.is_empty() {
        return tagged(call, "application/json", document, &etag);
    }
    if asked != etag {
        let mut response = respond(301, "application/json", full(Bytes::new()));
        if let Ok(location) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={etag}")) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        return response;
    }
    let mut response = tagged(call, "application/json", document, &etag);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    let year = core.clock.now() + jiff::SignedDuration::from_hours(365 * 24);
    let expires = year.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(expires) = HeaderValue::from_str(&expires) {
        headers.insert(header::EXPIRES, expires);
    }
    response
}

/// `/openapi/v2` in the form that the client asks for (`kube-openapi/pkg/handler/handler.go`).
fn openapi_v2(core: &Core, call: &Call) -> Result<Response<Body>, Status> {
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    const PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let document = core.swagger.get(core.served(), &core.openapi);
    for clause in negotiate::accepted(&call.headers) {
        return Ok(match clause.media.as_str() {
            "application/json" | "application/*" | "*/*" => {
                tagged(call, "application/json", document.json, &document.etag)
            }
            PROTOBUF | PROTOBUF_OLD => tagged(call, PROTOBUF, document.protobuf, &document.etag),
            _ => continue,
        });
    }
    Ok(respond(406, "text/plain; charset=utf-8", full(Bytes::new())))
}

fn discovery_v2(call: &Call, body: Bytes) -> Response<Body> {
    const TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let etag = hash(&body);
    let mut response = tagged(call, TYPE, body, &etag);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    response
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_timeout_is_the_clients_up_to_the_servers() {
        for (query, long, expected) in [
            ("", false, Ok(Some(60))),
            ("timeout=10s", false, Ok(Some(10))),
            ("timeout=0s", false, Ok(Some(60))),
            ("timeout=1h", false, Ok(Some(60))),
            ("timeout=1s", true, Ok(None)),
            ("timeout=x", false, Err("invalid timeout specified in the request URL - time: invalid duration \"x\"")),
        ] {
            let found =
                deadline(&Query::parse(Some(query)), long, Duration::from_secs(60)).map(|d| d.map(|d| d.as_secs()));
            assert_eq!(found.map_err(|s| s.message), expected.map_err(str::to_owned), "{query}");
        }
    }
}
