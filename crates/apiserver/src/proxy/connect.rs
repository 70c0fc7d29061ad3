//! The `proxy` subresources of pods, services and nodes: where they lead (`pkg/registry/core/{pod,service,node}`,
//! `ResourceLocation`).

use std::net::IpAddr;
use std::sync::Arc;

use corten_client::NodeRequest;
use corten_client::Trust;
use corten_kinds::{Kind, id};
use corten_object::{ObjectKey, Reason, Status};
use corten_tree::Tree;
use corten_webhook::{Destination, Wanted, endpoint};
use futures::StreamExt as _;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::{Failed, Onward, escape, join, pass};
use crate::core::Core;
use crate::http::{Call, HttpBody, Resource, full, read_body, stream};

/// `[scheme:]name[:port]`
struct Id<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

/// Takes apart what a path names (`SplitSchemeNamePort`).
fn split(id: &str) -> Option<Id<'_>> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    (!name.is_empty() && matches!(scheme, "" | "http" | "https")).then_some(Id { scheme, name, port })
}

/// Where a proxy leads.
enum Place {
    /// To an address.
    Address { scheme: String, authority: String },
    /// To the node's own server.
    Node(String),
}

/// Passes a request on.
pub(crate) async fn serve(
    core: &Arc<Core>,
    call: &Call,
    kind: &Kind,
    r: &Resource,
    request: Request<Incoming>,
) -> Result<Response<HttpBody>, Status> {
    core.fresh().await?;
    let place = match kind.id {
        id::POD => pod(core, r)?,
        id::SERVICE => service(core, r)?,
        id::NODE => node(core, r)?,
        _ => return Err(Status::no_such_resource()),
    };
    let below = below(call, r);
    if below.is_empty() && matches!(call.method, Method::GET | Method::HEAD) {
        return Ok(with_slash(request.uri().query(), &call.path));
    }
    let (scheme, authority) = match place {
        Place::Node(name) => return ask_node(core, call, name, below, request).await,
        Place::Address { scheme, authority } => (scheme, authority),
    };
    let query = request.uri().query().map(str::to_owned);
    let decoded = crate::http::unescape(&call.path, false);
    let own = format!("/{}/{}", r.name, r.subresource);
    let prefix = decoded.find(&own).map_or(&*decoded, |at| &decoded[..at + own.len()]);
    let onward = Onward {
        destination: Destination {
            authority,
            trust: (scheme == "https").then(|| Trust { insecure: true, ..Trust::default() }),
            server_name: String::new(),
            keep: false,
        },
        path: escape(&below),
        query: query.as_deref(),
        host: None,
        prefix: prefix.to_owned(),
        user: None,
        redirects: true,
    };
    pass(core, call, request, onward).await.map_err(|failed| match failed {
        Failed::Unreachable(why) => Status::new(Reason::ServiceUnavailable, why),
        Failed::Answer(why) => Status::internal(why),
    })
}

/// The path below the proxy: it begins with a slash, and ends with one where that of the request does; empty if the request
/// ends with the subresource itself.
pub(crate) fn below(call: &Call, r: &Resource) -> String {
    match (r.rest.as_str(), call.path.ends_with('/')) {
        ("", false) => String::new(),
        (rest, true) => join("", &format!("/{rest}/")),
        (rest, false) => join("", &format!("/{rest}")),
    }
}

/// Sends the client to the same path with a slash: links without one at their beginning go on from there
/// (`proxyRedirectsforRootPath`).
fn with_slash(query: Option<&str>, path: &str) -> Response<HttpBody> {
    let query = query.filter(|q| !q.is_empty()).map(|q| format!("?{q}")).unwrap_or_default();
    let mut response = Response::new(full(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&format!("{path}/{query}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn unavailable(why: String) -> Status {
    Status::new(Reason::ServiceUnavailable, why)
}

/// Whether an address can be another machine's or a pod's (`IsGlobalUnicast` of Go's `net.IP`).
fn is_global_unicast(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local)
}

fn allowed(ip: &str) -> Result<IpAddr, Status> {
    let ip: Option<IpAddr> = ip.parse().ok();
    ip.filter(|ip| is_global_unicast(*ip)).ok_or_else(|| Status::bad_request("address not allowed"))
}

/// An address with a port, if it is one; a port by name is for the resolver to refuse.
fn authority(ip: IpAddr, port: &str) -> String {
    let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    if port.is_empty() { host } else { format!("{host}:{port}") }
}

fn address(scheme: &str, ip: IpAddr, port: &str) -> Place {
    let scheme = if scheme.is_empty() { "http" } else { scheme };
    Place::Address { scheme: scheme.to_owned(), authority: authority(ip, port) }
}

fn first_ip(pod: &Tree) -> &str {
    pod.list_at("status.podIPs").first().map_or("", |ip| ip.str_at("ip"))
}

/// Without a port it is the first one that a container names.
fn pod(core: &Core, r: &Resource) -> Result<Place, Status> {
    let wanted = split(&r.name).ok_or_else(|| Status::bad_request(format!("invalid pod request {:?}", r.name)))?;
    let found = core.cache.get(&ObjectKey::new(id::POD, &r.namespace, wanted.name));
    let pod = found.ok_or_else(|| Status::not_found("", "pods", wanted.name))?.to_tree();
    let mut ports = pod.list_at("spec.containers").iter().filter_map(|c| c.list_at("ports").first());
    let port = match wanted.port {
        "" => ports.next().and_then(|p| p.i64_at("containerPort")).map(|p| p.to_string()).unwrap_or_default(),
        port => port.to_owned(),
    };
    Ok(address(wanted.scheme, allowed(first_ip(&pod))?, &port))
}

/// A port by number or name; only endpoints that are pods of the namespace.
fn service(core: &Core, r: &Resource) -> Result<Place, Status> {
    let wanted = split(&r.name).ok_or_else(|| Status::bad_request(format!("invalid service request {:?}", r.name)))?;
    let world = core.cache.read();
    let mut port_name = wanted.port.to_owned();
    if let Ok(number) = wanted.port.parse::<i64>() {
        let service = world.find(id::SERVICE, &r.namespace, wanted.name);
        let service = service.ok_or_else(|| Status::not_found("", "services", wanted.name))?.to_tree();
        let port = service.list_at("spec.ports").iter().find(|p| p.i64_at("port") == Some(number));
        let missing = || unavailable(format!("no service port {number} found for service {:?}", wanted.name));
        port_name = port.ok_or_else(missing)?.str_at("name").to_owned();
    }
    let is_pod = |endpoint: &Tree| {
        let target = endpoint.path("targetRef").cloned().unwrap_or_default();
        let ip = endpoint.list_at("addresses").first().and_then(Tree::as_str).unwrap_or_default();
        let pod = world.find(id::POD, target.str_at("namespace"), target.str_at("name"));
        let has = |pod: &Tree| pod.list_at("status.podIPs").iter().any(|own| own.str_at("ip") == ip);
        target.str_at("namespace") == r.namespace
            && ip.parse().is_ok_and(is_global_unicast)
            && pod.is_some_and(|pod| has(&pod.to_tree()))
    };
    let chance = core.entropy.u64();
    let asked = Wanted { namespace: &r.namespace, name: wanted.name, port_name: &port_name, chance };
    let found = endpoint(&world, &asked, is_pod);
    let found = found.ok_or_else(|| unavailable(format!("no endpoints available for service {:?}", wanted.name)))?;
    Ok(address(wanted.scheme, found.ip(), &found.port().to_string()))
}

/// The node's own server, unless another port is named.
fn node(core: &Core, r: &Resource) -> Result<Place, Status> {
    let wanted = split(&r.name).ok_or_else(|| Status::bad_request(format!("invalid node request {:?}", r.name)))?;
    let found = core.cache.get(&ObjectKey::new(id::NODE, "", wanted.name));
    let node = found.ok_or_else(|| Status::not_found("", "nodes", wanted.name))?.to_tree();
    let own = node.i64_at("status.daemonEndpoints.kubeletEndpoint.Port").unwrap_or_default().to_string();
    if wanted.port.is_empty() || wanted.port == own {
        return Ok(Place::Node(wanted.name.to_owned()));
    }
    let addresses = node.list_at("status.addresses");
    let ip = ["InternalIP", "ExternalIP"]
        .into_iter()
        .find_map(|kind| addresses.iter().find(|a| a.str_at("type") == kind).map(|a| a.str_at("address")));
    Ok(address(wanted.scheme, allowed(ip.unwrap_or_default())?, wanted.port))
}

/// Asks the node's agent; what it answers is passed on as it comes.
async fn ask_node(
    core: &Arc<Core>,
    call: &Call,
    node: String,
    path: String,
    request: Request<Incoming>,
) -> Result<Response<HttpBody>, Status> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (method, path) = (call.method.to_string(), if path.is_empty() { "/".to_owned() } else { path });
    let body = read_body(request).await?;
    let answer = core.node_api.http(NodeRequest { node, method, path, query, body }).await?;
    // A read error ends the answer: there is no way to say more once it has begun.
    let bytes =
        answer.body.take_while(|chunk| std::future::ready(chunk.is_ok())).filter_map(|c| std::future::ready(c.ok()));
    let mut response = Response::new(stream(bytes.take_until(core.tasks.stopping())));
    *response.status_mut() = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::BAD_GATEWAY);
    if let Ok(kind) = HeaderValue::from_str(&answer.content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_names_have_a_scheme_and_a_port() {
        let parts = |text| split(text).map(|id| (id.scheme, id.name, id.port));
        assert_eq!(parts("p"), Some(("", "p", "")));
        assert_eq!(parts("p:80"), Some(("", "p", "80")));
        assert_eq!(parts("https:p:"), Some(("https", "p", "")));
        for wrong in ["", ":80", "ftp:p:80", "a:b:c:d"] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
        assert!(allowed("10.42.0.3").is_ok() && allowed("127.0.0.1").is_err() && allowed("169.254.1.1").is_err());
        assert!(allowed("").is_err() && allowed("fe80::1").is_err() && allowed("fd00::1").is_ok());
    }
}
