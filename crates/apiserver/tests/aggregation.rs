//! API aggregation, with another API server in this process.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod backend;
mod common;

use std::net::IpAddr;

use backend::{Backend, Identity, machine_ip};
use base64::Engine as _;
use bytes::Bytes;
use common::caller::Caller;
use common::definitions::{DEFINITIONS, version};
use common::{Client, Fixture};
use corten_cache::Scope;
use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::{Tree, tree};
use http_body_util::Full;
use hyper::http::request::Parts;
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1alpha1.wardle.example.com";
const GROUP: &str = "/apis/wardle.example.com/v1alpha1";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn answered(code: u16, kind: &str, text: impl Into<String>) -> Response<Full<Bytes>> {
    Response::builder().status(code).header("content-type", kind).body(Full::from(text.into())).unwrap()
}

/// What an API server of `wardle.example.com/v1alpha1` answers; an object's answer is the headers of the request.
fn answer(parts: &Parts, body: &Bytes) -> Response<Full<Bytes>> {
    let accept = parts.headers.get("accept").map_or("", |v| v.to_str().unwrap());
    match parts.uri.path() {
        "/apis" if accept.contains("apidiscovery") => {
            let resource =
                tree!({"resource": "flunders", "scope": "Namespaced", "singularResource": "flunder", "verbs": ["get"]});
            let list = tree!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": [{
                "metadata": {"name": "wardle.example.com"},
                "versions": [{"version": "v1alpha1", "resources": [resource], "freshness": "Current"}]}]});
            answered(200, AGGREGATED, list.to_json_string())
        }
        GROUP => {
            let list =
                tree!({"kind": "APIResourceList", "groupVersion": "wardle.example.com/v1alpha1", "resources": []});
            answered(200, "application/json", list.to_json_string())
        }
        "/openapi/v3" => {
            let url = format!("/openapi/v3{GROUP}?hash=THEIRS");
            let index = tree!({"paths": {"apis/wardle.example.com/v1alpha1": {"serverRelativeURL": url}}});
            answered(200, "application/json", index.to_json_string())
        }
        "/openapi/v3/apis/wardle.example.com/v1alpha1" => answered(200, "application/json", "{\"openapi\":\"3.0.0\"}"),
        "/openapi/v2" => {
            let text = r##"{"swagger":"2.0","paths":{"/apis/wardle.example.com/v1alpha1/flunders":{"get":{"responses":{"200":
                {"schema":{"$ref":"#/definitions/Flunder"}}}}},"/version/":{}},"definitions":{"Flunder":{"type":"object"},"No":{}}}"##;
            answered(200, "application/json", text)
        }
        path if path.ends_with("/away") => {
            Response::builder().status(302).header("location", "https://example.com/").body(Full::default()).unwrap()
        }
        _ => {
            let mut headers = Tree::map();
            for (name, value) in &parts.headers {
                let mut all = headers.get(name.as_str()).and_then(Tree::as_list).unwrap_or_default().to_vec();
                all.push(value.to_str().unwrap().into());
                headers.insert(name.as_str().to_owned(), all);
            }
            let target = parts.uri.path_and_query().unwrap().as_str();
            let said = tree!({"method": (parts.method.as_str()), "target": target,
                "body": (String::from_utf8_lossy(body).into_owned()), "headers": headers});
            answered(200, "application/json", said.to_json_string())
        }
    }
}

/// Waits until an APIService is as wanted (`None`: gone).
async fn until(fixture: &Fixture, name: &str, wanted: impl Fn(Option<&Tree>) -> bool) -> Option<Tree> {
    let key = ObjectKey::new(id::API_SERVICE, "", name);
    let mut cursor = fixture.cache.cursor(Scope::Kind(id::API_SERVICE), fixture.cache.revision()).unwrap();
    loop {
        let now = fixture.cache.get(&key).map(|object| object.to_tree());
        if wanted(now.as_ref()) {
            return now;
        }
        let change = tokio::time::timeout(std::time::Duration::from_secs(20), cursor.next_batch(64));
        change.await.unwrap_or_else(|_| panic!("{name} stays {now:?}")).unwrap();
    }
}

async fn until_available(fixture: &Fixture, status: &str, reason: &str) -> Tree {
    let has = |service: &Tree| {
        let condition = &service.list_at("status.conditions")[0];
        condition.str_at("status") == status && condition.str_at("reason") == reason
    };
    until(fixture, NAME, |s| s.is_some_and(|s| !s.list_at("status.conditions").is_empty() && has(s))).await.unwrap()
}

fn message(service: &Tree) -> &str {
    service.list_at("status.conditions")[0].str_at("message")
}

fn api_service(ca_pem: &str) -> Tree {
    let bundle = base64::engine::general_purpose::STANDARD.encode(ca_pem);
    tree!({"metadata": {"name": NAME}, "spec": {"group": "wardle.example.com", "version": "v1alpha1",
        "groupPriorityMinimum": 2000, "versionPriority": 200, "caBundle": bundle,
        "service": {"namespace": "default", "name": "api"}}})
}

async fn service(admin: &mut Caller, ip: IpAddr, port: u16) {
    let service = tree!({"metadata": {"name": "api"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
    let (code, made) = admin.post("/api/v1/namespaces/default/services", &service).await;
    assert_eq!(code, 201, "{made}");
    slice(admin, ip, port).await;
}

async fn slice(admin: &mut Caller, ip: IpAddr, port: u16) {
    let slice = tree!({"metadata": {"name": "api-1", "labels": {"kubernetes.io/service-name": "api"}}, "addressType": "IPv4",
        "ports": [{"name": "https", "port": (i64::from(port))}], "endpoints": [{"addresses": [(ip.to_string())]}]});
    let (code, made) = admin.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await;
    assert_eq!(code, 201, "{made}");
}

/// An API server behind a Service, which takes the front proxy's certificate only; and its CA.
async fn start() -> (Fixture, Caller, Backend, String) {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let identity = Identity::of(&["api.default.svc"], Some(&fixture.material.proxy_ca_pem));
    let backend = Backend::start(&fixture, machine_ip(), Some(identity.tls), answer).await;
    service(&mut admin, backend.address.ip(), backend.address.port()).await;
    (fixture, admin, backend, identity.cert_pem)
}

#[tokio::test]
async fn aggregated_requests_reach_their_server_as_the_user() {
    let (fixture, mut admin, _, ca) = start().await;
    assert_eq!(admin.post(SERVICES, &api_service(&ca)).await.0, 201);
    assert_eq!(message(&until_available(&fixture, "True", "Passed").await), "all checks passed");
    let path = format!("{GROUP}/namespaces/x/flunders/a?x=1");
    let mut proxied = Caller::admin(&fixture).await.with("x-remote-user", "evil").with("x-remote-extra-a", "b");
    let (code, _, said) = proxied.send(Method::PUT, &path, "application/json", "{}").await;
    assert_eq!(code, 200, "{said}");
    assert_eq!((said.str_at("method"), said.str_at("target"), said.str_at("body")), ("PUT", path.as_str(), "{}"));
    let header = |name: &str| {
        let all = said.path("headers").unwrap().get(name).and_then(Tree::as_list).unwrap_or_default();
        all.iter().map(|v| v.as_str().unwrap().to_owned()).collect::<Vec<_>>().join("|")
    };
    assert_eq!(header("x-remote-user"), "system:admin");
    assert_eq!(header("x-remote-group"), "system:masters|system:authenticated");
    assert_eq!((header("x-remote-extra-a"), header("authorization")), (String::new(), String::new()));
    assert_eq!(header("x-forwarded-uri"), path.split('?').next().unwrap());
    // Who may not is told here, with this server's words.
    let mut alice = Caller::bearer(&fixture, "secret-token").await;
    let (code, status) = alice.get(&format!("{GROUP}/flunders")).await;
    assert_eq!(code, 403);
    assert!(status.str_at("message").contains("cannot list resource \"flunders\" in API group \"wardle.example.com\""));
    // The client is not sent elsewhere, and other versions are nobody's.
    let (code, text) = admin.get(&format!("{GROUP}/flunders/away")).await;
    let refused = "the backend attempted to redirect this request, which is not permitted";
    assert_eq!((code, text.as_str()), (502, Some(refused)));
    let (code, text) = admin.get("/apis/wardle.example.com/v2/flunders").await;
    assert_eq!((code, text.as_str()), (404, Some("404 page not found\n")));
}

#[tokio::test]
async fn aggregated_groups_are_in_discovery_and_openapi() {
    let (fixture, mut admin, backend, ca) = start().await;
    assert_eq!(admin.post(SERVICES, &api_service(&ca)).await.0, 201);
    until_available(&fixture, "True", "Passed").await;
    assert!(backend.asked().iter().all(|a| a.headers["x-remote-user"] == "system:kube-aggregator"));
    let (_, groups) = admin.get("/apis").await;
    let names: Vec<&str> = groups.list_at("groups").iter().map(|g| g.str_at("name")).collect();
    assert_eq!((names[0], names[1]), ("apiregistration.k8s.io", "apps"));
    // The built-in metrics have the least priority, as those of a metrics server.
    assert_eq!(names[names.len() - 2..], ["wardle.example.com", "metrics.k8s.io"]);
    let (_, group) = admin.get("/apis/wardle.example.com").await;
    assert_eq!(group.str_at("preferredVersion.groupVersion"), "wardle.example.com/v1alpha1");
    let (code, list) = admin.get(GROUP).await;
    assert_eq!((code, list.str_at("kind")), (200, "APIResourceList"));
    let mut lister = Caller::admin(&fixture).await.with("accept", AGGREGATED);
    let found = lister.get("/apis").await.1;
    let group = found.list_at("items").iter().find(|g| g.str_at("metadata.name") == "wardle.example.com").unwrap();
    let expected = r#"[{"version":"v1alpha1","resources":[{"resource":"flunders","scope":"Namespaced","singularResource":"flunder","verbs":["get"],"responseKind":{"group":"","version":"","kind":""}}],"freshness":"Current"}]"#;
    assert_eq!(group.get("versions").unwrap().to_json_string(), expected);
    let (_, index) = admin.get("/openapi/v3").await;
    let url = index.at(&["paths", "apis/wardle.example.com/v1alpha1", "serverRelativeURL"]).unwrap();
    assert_eq!(url.as_str(), Some(&*format!("/openapi/v3{GROUP}?hash=THEIRS")));
    assert_eq!(admin.get(url.as_str().unwrap()).await, (200, tree!({"openapi": "3.0.0"})));
    let (_, swagger) = admin.get("/openapi/v2").await;
    assert!(swagger.at(&["paths", "/apis/wardle.example.com/v1alpha1/flunders"]).is_some());
    assert!(swagger.at(&["definitions", "Flunder"]).is_some() && swagger.at(&["definitions", "No"]).is_none());
    // All of it goes with the APIService.
    assert_eq!(admin.delete(&format!("{SERVICES}/{NAME}")).await.0, 200);
    assert_eq!(admin.get(GROUP).await.1.as_str(), Some("404 page not found\n"));
    assert!(!lister.get("/apis").await.1.to_json_string().contains("wardle"));
    assert!(!admin.get("/openapi/v3").await.1.to_json_string().contains("wardle"));
    assert!(admin.get("/openapi/v2").await.1.at(&["definitions", "Flunder"]).is_none());
}

#[tokio::test]
async fn aggregated_servers_availability_follows_services_endpoints_and_answers() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let identity = Identity::of(&["api.default.svc"], Some(&fixture.material.proxy_ca_pem));
    assert_eq!(admin.post(SERVICES, &api_service(&identity.cert_pem)).await.0, 201);
    let found = until_available(&fixture, "False", "ServiceNotFound").await;
    assert_eq!(message(&found), "service/api in \"default\" is not present");
    let (code, text) = admin.get(&format!("{GROUP}/flunders")).await;
    assert_eq!((code, text.as_str()), (503, Some("service unavailable\n")));
    let mut lister = Caller::admin(&fixture).await.with("accept", AGGREGATED);
    let stale = r#"{"metadata":{"name":"wardle.example.com"},"versions":[{"version":"v1alpha1","freshness":"Stale"}]}"#;
    assert!(lister.get("/apis").await.1.to_json_string().contains(stale));
    let service = tree!({"metadata": {"name": "api"}, "spec": {"ports": [{"name": "https", "port": 444}]}});
    assert_eq!(admin.post("/api/v1/namespaces/default/services", &service).await.0, 201);
    let found = until_available(&fixture, "False", "ServicePortError").await;
    assert_eq!(message(&found), "service/api in \"default\" is not listening on port 443");
    let ports = tree!({"spec": {"ports": [{"name": "https", "port": 443}]}});
    assert_eq!(admin.merge("/api/v1/namespaces/default/services/api", &ports).await.0, 200);
    let found = until_available(&fixture, "False", "EndpointsNotFound").await;
    assert_eq!(message(&found), "cannot find endpointslices for service/api in \"default\"");
    let closed = tokio::net::TcpListener::bind((machine_ip(), 0)).await.unwrap().local_addr().unwrap();
    slice(&mut admin, closed.ip(), closed.port()).await;
    let found = until_available(&fixture, "False", "FailedDiscoveryCheck").await;
    let url = format!("https://{closed}{GROUP}");
    let why = format!(
        "failing or missing response from {url}: Get \"{url}\": dial tcp {closed}: connect: connection refused"
    );
    assert_eq!(message(&found), why);
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/api-1";
    let not_ready = tree!({"endpoints": [{"addresses": [(closed.ip().to_string())], "conditions": {"ready": false}}]});
    assert_eq!(admin.merge(slices, &not_ready).await.0, 200);
    let found = until_available(&fixture, "False", "MissingEndpoints").await;
    assert_eq!(
        message(&found),
        "endpointslices for service/api in \"default\" have no addresses with port name \"https\""
    );
    // The server comes.
    let backend = Backend::start(&fixture, machine_ip(), Some(identity.tls), answer).await;
    let (ip, port) = (backend.address.ip().to_string(), i64::from(backend.address.port()));
    let there = tree!({"ports": [{"name": "https", "port": port}], "endpoints": [{"addresses": [ip]}]});
    assert_eq!(admin.merge(slices, &there).await.0, 200);
    until_available(&fixture, "True", "Passed").await;
    assert_eq!(admin.get(&format!("{GROUP}/flunders")).await.0, 200);
    // A certificate of nobody's is not believed, unless that is asked for.
    let other = Identity::of(&["api.default.svc"], None).cert_pem;
    let other = base64::engine::general_purpose::STANDARD.encode(other);
    let path = format!("{SERVICES}/{NAME}");
    assert_eq!(admin.merge(&path, &tree!({"spec": {"caBundle": other}})).await.0, 200);
    let found = until_available(&fixture, "False", "FailedDiscoveryCheck").await;
    assert!(message(&found).ends_with("x509: certificate signed by unknown authority"), "{found}");
    let insecure = tree!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    assert_eq!(admin.merge(&path, &insecure).await.0, 200);
    until_available(&fixture, "True", "Passed").await;
}

#[tokio::test]
async fn aggregated_streams_are_passed_on_as_they_come() {
    let (fixture, mut admin, _, ca) = start().await;
    assert_eq!(admin.post(SERVICES, &api_service(&ca)).await.0, 201);
    until_available(&fixture, "True", "Passed").await;
    let mut client = Client::connect(&fixture, true).await;
    let headers = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let response = client.send(Method::GET, &format!("{GROUP}/flunders/a/exec"), &headers, b"").await;
    assert_eq!(response.status().as_u16(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
}

#[tokio::test]
async fn apiservices_of_own_groups_are_managed() {
    let fixture = Fixture::start().await;
    fixture.start_definitions();
    let mut admin = Caller::admin(&fixture).await;
    let (_, list) = admin.get(SERVICES).await;
    let find = |name: &str| list.list_at("items").iter().find(|s| s.str_at("metadata.name") == name).unwrap();
    let apps = find("v1.apps");
    let spec = r#"{"group":"apps","version":"v1","groupPriorityMinimum":17800,"versionPriority":15}"#;
    assert_eq!(apps.get("spec").unwrap().to_json_string(), spec);
    assert_eq!(
        apps.at(&["metadata", "labels", "kube-aggregator.kubernetes.io/automanaged"]).unwrap().as_str(),
        Some("onstart")
    );
    assert_eq!(message(apps), "Local APIServices are always available");
    assert_eq!(
        find("v1.").get("spec").unwrap().to_json_string(),
        r#"{"version":"v1","groupPriorityMinimum":18000,"versionPriority":1}"#
    );
    // Those of definitions come and go with them, and come back.
    let version = |name: &str, storage: bool| version(name, storage, tree!({"type": "object"}));
    let definition = tree!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"}, "versions": [(version("v1", true)), (version("v1beta1", false))]}});
    assert_eq!(admin.post(DEFINITIONS, &definition).await.0, 201);
    let made = until(&fixture, "v1beta1.example.com", |s| s.is_some()).await.unwrap();
    assert_eq!(
        (made.i64_at("spec.groupPriorityMinimum"), made.i64_at("spec.versionPriority")),
        (Some(1000), Some(100))
    );
    assert_eq!(
        made.at(&["metadata", "labels", "kube-aggregator.kubernetes.io/automanaged"]).unwrap().as_str(),
        Some("true")
    );
    let uid = made.str_at("metadata.uid").to_owned();
    assert_eq!(admin.delete(&format!("{SERVICES}/v1beta1.example.com")).await.0, 200);
    until(&fixture, "v1beta1.example.com", |s| s.is_some_and(|s| s.str_at("metadata.uid") != uid)).await;
    assert_eq!(admin.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.0, 200);
    until(&fixture, "v1.example.com", |s| s.is_none()).await;
    until(&fixture, "v1beta1.example.com", |s| s.is_none()).await;
}
