//! `…/proxy` of pods, services and nodes, with a server on this machine in the pod's place.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod backend;
mod common;

use std::net::IpAddr;

use backend::{Backend, Identity, machine_ip};
use bytes::Bytes;
use common::caller::Caller;
use common::{Client, Fixture};
use corten_tree::tree;
use http_body_util::Full;
use hyper::http::request::Parts;
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// Says what it was asked; `/page` is a page, `/away` a redirect.
fn answer(parts: &Parts, body: &Bytes) -> Response<Full<Bytes>> {
    let target = parts.uri.path_and_query().unwrap().as_str();
    match parts.uri.path() {
        "/page" => Response::builder()
            .header("content-type", "text/html; charset=utf-8")
            .body(Full::from("<a href=\"/next?a=b\">x</a><a href='http://example.com/'>y</a>"))
            .unwrap(),
        "/away" => Response::builder().status(302).header("location", "/there/").body(Full::default()).unwrap(),
        _ => {
            let text = format!("{} {target} {}", parts.method, String::from_utf8_lossy(body));
            let response =
                Response::builder().status(418).header("x-own", "1").header("access-control-allow-origin", "*");
            response.body(Full::from(text)).unwrap()
        }
    }
}

/// A pod that has an address, as its node would say.
async fn pod(admin: &mut Caller, name: &str, ip: IpAddr, port: u16) {
    let container = tree!({"name": "c", "image": "i", "ports": [{"containerPort": (i64::from(port))}]});
    let pod = tree!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [container]}});
    let (code, made) = admin.post(PODS, &pod).await;
    assert_eq!(code, 201, "{made}");
    let ip = ip.to_string();
    let status = tree!({"status": {"podIP": (ip.as_str()), "podIPs": [{"ip": (ip.as_str())}]}});
    let (code, shown) = admin.merge(&format!("{PODS}/{name}/status"), &status).await;
    assert_eq!(code, 200, "{shown}");
}

async fn start() -> (Fixture, Caller, IpAddr, Backend) {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let account = tree!({"metadata": {"name": "default"}});
    admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let ip = machine_ip();
    let backend = Backend::start(&fixture, ip, None, answer).await;
    pod(&mut admin, "web", ip, backend.address.port()).await;
    (fixture, admin, ip, backend)
}

#[tokio::test]
async fn pods_proxy_passes_every_method_path_query_and_body() {
    let (_fixture, mut admin, _, backend) = start().await;
    let port = backend.address.port();
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        let path = format!("{PODS}/web:{port}/proxy/a//b/%20c/?x=1&y=a%2Fb");
        let (code, headers, text) = admin.send(method.clone(), &path, "text/plain", "hello").await;
        assert_eq!((code, text.as_str().unwrap()), (418, &*format!("{method} /a/b/%20c/?x=1&y=a%2Fb hello")));
        assert_eq!(headers["x-own"], "1");
        assert!(!headers.contains_key("access-control-allow-origin"), "it is not for this address");
    }
    let asked = backend.asked();
    let last = &asked.last().unwrap().headers;
    assert_eq!(last["x-forwarded-uri"], format!("{PODS}/web:{port}/proxy/a/b/%20c/"));
    assert_eq!((last["x-forwarded-for"].as_bytes(), last["host"].as_bytes()), (&b"127.0.0.1"[..], &b"localhost"[..]));
    // Without a port it is the container's; HEAD has no body.
    let (code, _, text) = admin.send(Method::GET, &format!("{PODS}/web/proxy/x"), "", "").await;
    assert_eq!((code, text.as_str().unwrap()), (418, "GET /x "));
    let (code, _, text) = admin.send(Method::HEAD, &format!("{PODS}/web/proxy/x"), "", "").await;
    assert_eq!((code, text.as_str().unwrap()), (418, ""));
    // A path without a slash is led to the one with it; other methods are not.
    let (code, headers, _) = admin.send(Method::GET, &format!("{PODS}/web/proxy?a=b"), "", "").await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (301, &*format!("{PODS}/web/proxy/?a=b")));
    let (code, _, text) = admin.send(Method::POST, &format!("{PODS}/web/proxy"), "text/plain", "x").await;
    assert_eq!((code, text.as_str().unwrap()), (418, "POST / x"));
}

#[tokio::test]
async fn pods_proxy_rewrites_pages_and_locations() {
    let (_fixture, mut admin, ..) = start().await;
    let (code, _, page) = admin.send(Method::GET, &format!("{PODS}/web/proxy/page"), "", "").await;
    let expected = format!("<a href=\"{PODS}/web/proxy/next?a=b\">x</a><a href=\"http://example.com/\">y</a>");
    assert_eq!((code, page.as_str().unwrap()), (200, &*expected));
    let (code, headers, _) = admin.send(Method::GET, &format!("{PODS}/web/proxy/away"), "", "").await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (302, &*format!("{PODS}/web/proxy/there/")));
}

#[tokio::test]
async fn pods_proxy_tells_what_is_wrong_as_upstream() {
    let (_fixture, mut admin, ip, backend) = start().await;
    let (code, status) = admin.get(&format!("{PODS}/none/proxy/")).await;
    assert_eq!((code, status.str_at("message")), (404, "pods \"none\" not found"));
    let (code, status) = admin.get(&format!("{PODS}/ftp:web:80/proxy/")).await;
    assert_eq!((code, status.str_at("message")), (400, "invalid pod request \"ftp:web:80\""));
    let closed = tokio::net::TcpListener::bind((ip, 0)).await.unwrap().local_addr().unwrap();
    let (code, status) = admin.get(&format!("{PODS}/web:{}/proxy/", closed.port())).await;
    let why = format!("error trying to reach service: dial tcp {closed}: connect: connection refused");
    assert_eq!((code, status.str_at("message")), (503, &*why));
    assert_eq!(status.str_at("reason"), "ServiceUnavailable");
    pod(&mut admin, "own", [127, 0, 0, 1].into(), backend.address.port()).await;
    let (code, status) = admin.get(&format!("{PODS}/own/proxy/")).await;
    assert_eq!((code, status.str_at("message")), (400, "address not allowed"));
    let (code, status) = admin.get(&format!("{PODS}/web/proxy/?dryRun=All")).await;
    assert_eq!((code, status.str_at("message")), (400, "dryRun is not supported"));
    let (code, status) = admin.get("/api/v1/nodes/none/proxy/healthz").await;
    assert_eq!((code, status.str_at("message")), (404, "nodes \"none\" not found"));
}

#[tokio::test]
async fn services_proxy_leads_to_a_ready_pod() {
    let (_fixture, mut admin, ip, backend) = start().await;
    let service = tree!({"metadata": {"name": "s"}, "spec": {"selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80}, {"name": "other", "port": 81}]}});
    assert_eq!(admin.post(SERVICES, &service).await.0, 201);
    let (code, status) = admin.get(&format!("{SERVICES}/s:http/proxy/")).await;
    assert_eq!((code, status.str_at("message")), (503, "no endpoints available for service \"s\""));
    let slice = tree!({"metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
        "ports": [{"name": "http", "port": (i64::from(backend.address.port()))}],
        "endpoints": [{"addresses": [(ip.to_string())], "targetRef": {"kind": "Pod", "namespace": "default", "name": "web"}}]});
    let (code, made) = admin.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await;
    assert_eq!(code, 201, "{made}");
    for name in ["s:http", "s:80", "http:s:80"] {
        let (code, text) = admin.get(&format!("{SERVICES}/{name}/proxy/x")).await;
        assert_eq!((code, text.as_str()), (418, Some("GET /x ")), "{name}");
    }
    for (name, why) in [
        ("s", "no endpoints available for service \"s\""),
        ("s:other", "no endpoints available for service \"s\""),
        ("s:99", "no service port 99 found for service \"s\""),
    ] {
        let (code, status) = admin.get(&format!("{SERVICES}/{name}/proxy/x")).await;
        assert_eq!((code, status.str_at("message")), (503, why), "{name}");
    }
    // An endpoint that is no pod of the namespace is none for proxies.
    let target = tree!({"endpoints": [{"addresses": [(ip.to_string())]}]});
    admin.merge("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/s-1", &target).await;
    let (code, _) = admin.get(&format!("{SERVICES}/s:http/proxy/x")).await;
    assert_eq!(code, 503);
}

#[tokio::test]
async fn services_proxy_speaks_tls_to_any_certificate() {
    let (fixture, mut admin, ip, _) = start().await;
    let secure = Backend::start(&fixture, ip, Some(Identity::of(&["elsewhere"], None).tls), answer).await;
    let (code, text) = admin.get(&format!("{PODS}/https:web:{}/proxy/x", secure.address.port())).await;
    assert_eq!((code, text.as_str()), (418, Some("GET /x ")));
}

#[tokio::test]
async fn pods_proxy_passes_upgrades() {
    let (fixture, _, _, backend) = start().await;
    let mut client = Client::connect(&fixture, true).await;
    let headers = [("connection", "Upgrade"), ("upgrade", "echo")];
    let response = client.send(Method::GET, &format!("{PODS}/web/proxy/socket"), &headers, b"").await;
    assert_eq!((response.status().as_u16(), response.headers()["upgrade"].as_bytes()), (101, &b"echo"[..]));
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
    assert_eq!(backend.asked()[0].uri.path(), "/socket");
}
