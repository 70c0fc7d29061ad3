//! ServiceCIDR and IPAddress: each address of a Service has its object, and addresses come from every ready range.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::{Client, Fixture};
use corten_tree::{Tree, json, tree};
use http_body_util::BodyExt as _;
use hyper::Method;

const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const SERVICES: &str = "/api/v1/namespaces/default/services";

async fn send(client: &mut Client, method: Method, path: &str, body: &Tree) -> (u16, Tree) {
    let headers: &[(&str, &str)] = match method {
        Method::PATCH => &[("content-type", "application/merge-patch+json")],
        _ => &[("content-type", "application/json")],
    };
    let response = client.send(method, path, headers, body.to_json_string().as_bytes()).await;
    let code = response.status().as_u16();
    (code, json::parse(&response.into_body().collect().await.unwrap().to_bytes()).unwrap())
}

fn service(name: &str) -> Tree {
    tree!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})
}

#[tokio::test]
async fn service_cidr_and_ip_address_follow_services() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let (_, range) = client.get(&format!("{RANGES}/kubernetes"), &[]).await;
    let condition = &range.list_at("status.conditions")[0];
    assert_eq!((condition.str_at("type"), condition.str_at("status")), ("Ready", "True"));
    let (code, _) = client.get(&format!("{ADDRESSES}/10.43.0.1"), &[]).await;
    assert_eq!(code, 200, "the kubernetes Service has its address");

    let (_, made) = client.post(SERVICES, &service("a").to_json_string()).await;
    let ip = made.str_at("spec.clusterIP").to_owned();
    let at = format!("{ADDRESSES}/{ip}");
    let (_, address) = client.get(&at, &[]).await;
    assert_eq!(address.str_at("spec.parentRef.resource"), "services");
    assert_eq!(address.str_at("spec.parentRef.name"), "a");
    let label = |key: &str| address.at(&["metadata", "labels", key]).and_then(Tree::as_str).map(str::to_owned);
    assert_eq!(label("ipaddress.kubernetes.io/managed-by").as_deref(), Some("ipallocator.k8s.io"));
    assert_eq!(label("ipaddress.kubernetes.io/ip-family").as_deref(), Some("IPv4"));

    let (code, _) = send(&mut client, Method::DELETE, &at, &Tree::map()).await;
    assert_eq!(code, 200);
    let (code, again) = client.get(&at, &[]).await;
    assert_eq!(code, 200, "an address that a Service has comes back");
    assert_ne!(again.str_at("metadata.uid"), address.str_at("metadata.uid"));

    send(&mut client, Method::DELETE, &format!("{SERVICES}/a"), &Tree::map()).await;
    let (code, _) = client.get(&at, &[]).await;
    assert_eq!(code, 404, "it goes with its Service");
}

#[tokio::test]
async fn cluster_ips_come_from_every_ready_service_cidr() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    let more = tree!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"},
        "spec": {"cidrs": ["203.0.113.0/24"]}});
    client.post(RANGES, &more.to_json_string()).await;
    let mut asking = service("b");
    asking.set("spec.clusterIP", "203.0.113.7");
    let (code, refused) = client.post(SERVICES, &asking.to_json_string()).await;
    assert_eq!(code, 422, "the range is not ready yet: {refused}");
    let ready = tree!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    send(&mut client, Method::PATCH, &format!("{RANGES}/more/status"), &ready).await;
    let (code, made) = client.post(SERVICES, &asking.to_json_string()).await;
    assert_eq!((code, made.str_at("spec.clusterIP")), (201, "203.0.113.7"));

    let foreign = tree!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": "203.0.113.8"},
        "spec": {"parentRef": {"group": "example.com", "resource": "gateways", "name": "g"}}});
    let (code, _) = client.post(ADDRESSES, &foreign.to_json_string()).await;
    assert_eq!(code, 201);
    let mut asking = service("c");
    asking.set("spec.clusterIP", "203.0.113.8");
    let (code, refused) = client.post(SERVICES, &asking.to_json_string()).await;
    assert_eq!(code, 422);
    assert!(refused.str_at("message").contains("provided IP is already allocated"), "{refused}");
    let (_, dry) = client.post(&format!("{SERVICES}?dryRun=All"), &service("d").to_json_string()).await;
    let (code, _) = client.get(&format!("{ADDRESSES}/{}", dry.str_at("spec.clusterIP")), &[]).await;
    assert_eq!(code, 404, "a dry run takes no address");
}

/// A server that ended between making its range and making it ready starts again: the Service waits for the range.
#[tokio::test]
async fn a_start_cut_off_before_the_range_is_ready_is_made_good_by_the_next() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    send(&mut client, Method::PATCH, &format!("{RANGES}/kubernetes/status"), &tree!({"status": null})).await;
    let (_, range) = client.get(&format!("{RANGES}/kubernetes"), &[]).await;
    assert!(range.list_at("status.conditions").is_empty(), "{range}");
    let (code, _) = send(&mut client, Method::DELETE, &format!("{SERVICES}/kubernetes"), &Tree::map()).await;
    assert_eq!(code, 200);

    let _second = fixture.start_again().await;
    let (_, range) = client.get(&format!("{RANGES}/kubernetes"), &[]).await;
    assert_eq!(range.list_at("status.conditions")[0].str_at("status"), "True");
    let (code, service) = client.get(&format!("{SERVICES}/kubernetes"), &[]).await;
    assert_eq!((code, service.str_at("spec.clusterIP")), (200, "10.43.0.1"));
}
