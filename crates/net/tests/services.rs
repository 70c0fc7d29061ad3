//! The service proxy on the real kernel, in namespaces of its own, with bridge filtering off. Needs root.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use common::*;
use corten_net::{
    AttachRequest, Endpoint, PodNetwork, Protocol, Service, ServicePort, ServiceProxy, TrafficPolicy, teardown_all,
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 50);

/// A host with three pods, `a` and `b` serving TCP 80 and UDP 53, `c` a client.
struct Cluster {
    m: Machine,
    network: PodNetwork,
    proxy: ServiceProxy,
    a: Ipv4Addr,
    b: Ipv4Addr,
    c: Ipv4Addr,
}

impl Cluster {
    async fn new() -> Cluster {
        let mut m = Machine::new();
        let network = m.network().await;
        let proxy = m.proxy().await;
        let mut ips = Vec::new();
        for name in ["a", "b", "c"] {
            ips.push(m.pod(&network, name, vec![]).await.ip);
        }
        for name in ["a", "b"] {
            m.serve(name, (Ipv4Addr::UNSPECIFIED, 80), name);
            m.serve_udp(name, (Ipv4Addr::UNSPECIFIED, 53), name);
        }
        Cluster { m, network, proxy, a: ips[0], b: ips[1], c: ips[2] }
    }
}

fn web(targets: Vec<Endpoint>) -> Service {
    let port = ServicePort { port: 8000, node_port: Some(30080), targets, ..ServicePort::default() };
    Service { id: "default/web".to_owned(), cluster_ips: vec![VIP.into()], ports: vec![port], ..Service::default() }
}

fn dns(targets: Vec<Endpoint>) -> Service {
    let port = ServicePort { protocol: Protocol::Udp, port: 53, node_port: Some(30053), targets, ..Default::default() };
    Service { id: "default/dns".to_owned(), cluster_ips: vec![VIP.into()], ports: vec![port], ..Service::default() }
}

/// Who answers, over many connections.
fn answers(m: &Machine, from: &str, address: (Ipv4Addr, u16)) -> BTreeSet<String> {
    (0..30).map(|_| m.ask(from, address).unwrap()).collect()
}

fn set<const N: usize>(lines: [String; N]) -> BTreeSet<String> {
    BTreeSet::from(lines)
}

#[tokio::test]
async fn cluster_ips_and_node_ports() {
    let Cluster { m, proxy, a, b, c, .. } = Cluster::new().await;
    let report = proxy.sync(vec![web(vec![endpoint(a, 80), endpoint(b, 80)])]).await.unwrap();
    assert!(report.replaced && report.conflicts.is_empty());

    assert_eq!(answers(&m, "c", (VIP, 8000)), set([format!("a {c}"), format!("b {c}")]), "a pod sees the pod");
    assert_eq!(answers(&m, "host", (VIP, 8000)), set([format!("a {NODE_IP}"), format!("b {NODE_IP}")]), "the host too");
    assert_eq!(answers(&m, "a", (VIP, 8000)), set([format!("a {NODE_IP}"), format!("b {a}")]), "a pod to itself");
    let masked = set([format!("a {NODE_IP}"), format!("b {NODE_IP}")]);
    assert_eq!(answers(&m, "outside", (HOST_OUTSIDE_IP, 30080)), masked, "node port from outside");
    assert_eq!(answers(&m, "host", (HOST_OUTSIDE_IP, 30080)), masked, "node port from the host");
    assert_eq!(answers(&m, "c", (NODE_IP, 30080)), masked, "node port from a pod");
    assert_eq!(answers(&m, "a", (HOST_OUTSIDE_IP, 30080)), masked, "node port of a pod to itself");
    assert!(m.ask("host", (Ipv4Addr::LOCALHOST, 30080)).is_err(), "not on loopback, as upstream");

    // Other ports of a service's address are refused, unknown addresses are dropped.
    assert_eq!(m.ask("c", (VIP, 8001)).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(m.ask("host", (VIP, 8001)).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let unknown = (Ipv4Addr::new(10, 96, 9, 9), 80);
    let timeout = |error: &io::Error| matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
    assert!(timeout(&m.ask("c", unknown).unwrap_err()));
}

#[tokio::test]
async fn from_outside_to_a_cluster_ip() {
    let Cluster { m, proxy, a, .. } = Cluster::new().await;
    m.run("outside", &format!("ip route add 10.96.0.0/12 via {HOST_OUTSIDE_IP}"));
    let mut service = web(vec![endpoint(a, 80)]);
    service.external_ips = vec![IpAddr::from([203, 0, 113, 7])];
    m.run("outside", &format!("ip route add 203.0.113.7/32 via {HOST_OUTSIDE_IP}"));
    proxy.sync(vec![service]).await.unwrap();
    assert_eq!(m.ask("outside", (VIP, 8000)).unwrap(), format!("a {NODE_IP}"), "masked, to come back by this node");
    for from in ["outside", "host", "c"] {
        assert_eq!(m.ask(from, (Ipv4Addr::new(203, 0, 113, 7), 8000)).unwrap(), format!("a {NODE_IP}"), "{from}");
    }
}

#[tokio::test]
async fn endpoints_on_the_host() {
    let Cluster { m, proxy, c, .. } = Cluster::new().await;
    m.serve("host", (Ipv4Addr::UNSPECIFIED, 6443), "host");
    proxy.sync(vec![web(vec![endpoint(HOST_OUTSIDE_IP, 6443)])]).await.unwrap();
    assert_eq!(m.ask("c", (VIP, 8000)).unwrap(), format!("host {c}"));
    assert!(m.ask("host", (VIP, 8000)).unwrap().starts_with("host "));
    assert!(m.ask("outside", (HOST_OUTSIDE_IP, 30080)).unwrap().starts_with("host "));
}

#[tokio::test]
async fn services_without_endpoints_refuse() {
    let Cluster { m, proxy, a, .. } = Cluster::new().await;
    proxy.sync(vec![web(vec![]), dns(vec![])]).await.unwrap();
    let refused = |from: &str, address: (Ipv4Addr, u16)| {
        assert_eq!(m.ask(from, address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{from} {address:?}");
    };
    refused("c", (VIP, 8000));
    refused("host", (VIP, 8000));
    refused("outside", (HOST_OUTSIDE_IP, 30080));
    let socket = m.udp("c");
    socket.connect((VIP, 53)).unwrap();
    socket.send(b"hello").unwrap();
    assert_eq!(socket.recv(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);

    proxy.update(vec![web(vec![endpoint(a, 80)])], vec![]).await.unwrap();
    assert!(m.ask("c", (VIP, 8000)).is_ok() && m.ask("outside", (HOST_OUTSIDE_IP, 30080)).is_ok());
    proxy.update(vec![], vec!["default/web".to_owned()]).await.unwrap();
    assert_eq!(
        m.ask("c", (VIP, 8000)).unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused,
        "another service's address"
    );
}

#[tokio::test]
async fn udp_flows_leave_endpoints_that_are_gone() {
    let Cluster { m, proxy, a, b, c, .. } = Cluster::new().await;
    proxy.sync(vec![dns(vec![endpoint(a, 53)])]).await.unwrap();
    let (inside, outside) = (m.udp("c"), m.udp("outside"));
    assert_eq!(exchange_udp(&inside, (VIP, 53)).unwrap(), format!("a {c}"));
    assert_eq!(exchange_udp(&outside, (HOST_OUTSIDE_IP, 30053)).unwrap(), format!("a {NODE_IP}"));
    let report = proxy.update(vec![dns(vec![endpoint(b, 53)])], vec![]).await.unwrap();
    assert_eq!(report.flows_deleted, 2);
    assert_eq!(exchange_udp(&inside, (VIP, 53)).unwrap(), format!("b {c}"), "the same socket moves over");
    assert_eq!(exchange_udp(&outside, (HOST_OUTSIDE_IP, 30053)).unwrap(), format!("b {NODE_IP}"));
}

#[tokio::test]
async fn removed_endpoints_keep_their_connections_and_get_no_new_ones() {
    let Cluster { m, proxy, a, b, c, network } = Cluster::new().await;
    proxy.sync(vec![web(vec![endpoint(a, 80)])]).await.unwrap();
    let mut old = m.connect("c", (VIP, 8000)).unwrap();
    assert_eq!(greeting(&mut old).unwrap(), format!("a {c}"));
    let report = proxy.update(vec![web(vec![endpoint(b, 80)])], vec![]).await.unwrap();
    assert!(!report.replaced);
    assert_eq!(answers(&m, "c", (VIP, 8000)), set([format!("b {c}")]));
    writeln!(old, "still here").unwrap();
    assert_eq!(greeting(&mut old).unwrap(), "still here");

    // A new proxy replaces the table; connections and new requests do not notice.
    drop(proxy);
    let proxy = m.proxy().await;
    assert!(m.ask("c", (VIP, 8000)).is_ok(), "the old table works until the first sync");
    assert!(proxy.update(vec![], vec![]).await.is_err());
    assert!(proxy.sync(vec![web(vec![endpoint(b, 80)])]).await.unwrap().replaced);
    writeln!(old, "and here").unwrap();
    assert_eq!(greeting(&mut old).unwrap(), "and here");
    assert_eq!(proxy.sync(vec![web(vec![endpoint(b, 80)])]).await.unwrap(), Default::default(), "nothing to do");

    drop(network);
    let state = m.path("state");
    m.inside("host", || teardown_all("test", &state).map_err(io::Error::other)).unwrap();
    assert_eq!(m.run("host", "ip -o link show").lines().count(), 2, "lo and the uplink");
}

#[test]
fn a_rolling_update_drops_no_request() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let Cluster { m, proxy, a, b, .. } = runtime.block_on(Cluster::new());
    let both = vec![endpoint(a, 80), endpoint(b, 80)];
    runtime.block_on(proxy.sync(vec![web(both.clone())])).unwrap();
    let enough = std::env::var("CORTEN_REQUESTS").map_or(600, |count| count.parse().unwrap());
    let (stop, requests) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let clients = ["c", "host", "outside"].map(|from| {
            let (m, stop, requests) = (&m, &stop, &requests);
            let address = if from == "outside" { (HOST_OUTSIDE_IP, 30080) } else { (VIP, 8000) };
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    m.ask(from, address).unwrap_or_else(|error| panic!("from {from}: {error}"));
                    requests.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let mut round = 0;
        while requests.load(Ordering::Relaxed) < enough && !clients.iter().any(|client| client.is_finished()) {
            let targets = match round % 4 {
                0 => vec![endpoint(a, 80)],
                2 => vec![endpoint(b, 80)],
                _ => both.clone(),
            };
            let report = runtime.block_on(proxy.update(vec![web(targets)], vec![]));
            if !report.is_ok_and(|report| !report.replaced) {
                break;
            }
            round += 1;
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap();
        }
        assert!(requests.load(Ordering::Relaxed) >= enough && round > 20, "{round} changes");
    });
}

#[tokio::test]
async fn clients_stay_with_their_endpoint() {
    let Cluster { m, proxy, a, b, c, .. } = Cluster::new().await;
    let both = vec![endpoint(a, 80), endpoint(b, 80)];
    let sticky = |targets| Service { session_affinity_seconds: Some(600), ..web(targets) };
    proxy.sync(vec![sticky(both.clone())]).await.unwrap();
    for (from, address) in [("c", (VIP, 8000)), ("outside", (HOST_OUTSIDE_IP, 30080)), ("host", (VIP, 8000))] {
        assert_eq!(answers(&m, from, address).len(), 1, "{from} sees one endpoint only");
    }
    let mine = m.ask("c", (VIP, 8000)).unwrap();
    let (other, other_tag) = if mine.starts_with('a') { (b, "b") } else { (a, "a") };
    proxy.update(vec![sticky(vec![endpoint(other, 80)])], vec![]).await.unwrap();
    assert_eq!(answers(&m, "c", (VIP, 8000)), set([format!("{other_tag} {c}")]), "its endpoint is gone");
    proxy.update(vec![sticky(both)], vec![]).await.unwrap();
    assert_eq!(answers(&m, "c", (VIP, 8000)), set([format!("{other_tag} {c}")]), "and it stays with the new one");
}

#[tokio::test]
async fn what_others_remove_is_put_back() {
    let Cluster { m, network, proxy, a, c, .. } = Cluster::new().await;
    assert!(!proxy.repair().await.unwrap(), "nothing to put back before the first sync");
    proxy.sync(vec![web(vec![endpoint(a, 80)])]).await.unwrap();
    let nothing: [&str; 0] = [];
    assert_eq!(network.repair().await.unwrap(), nothing);
    assert!(!proxy.repair().await.unwrap());

    let state = m.path("elsewhere");
    // Takes tables and links away, as `nft flush ruleset` and a network daemon would.
    m.inside("host", || teardown_all("test", &state).map_err(io::Error::other)).unwrap();
    m.inside("host", || std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")).unwrap();
    assert!(m.ask("c", (VIP, 8000)).is_err());
    let repaired = network.repair().await.unwrap();
    let link = format!("link {}", network.names().node_link());
    assert_eq!(repaired, ["forwarding of packets", "nftables table corten-test_pods", &link]);
    assert!(proxy.repair().await.unwrap());
    for name in ["a", "b", "c"] {
        let again = AttachRequest { sandbox_id: name.to_owned(), netns: m.path(name), ..AttachRequest::default() };
        network.attach(again).await.unwrap();
    }
    assert_eq!(m.ask("c", (VIP, 8000)).unwrap(), format!("a {c}"));

    m.run("host", &format!("ip route delete {a}"));
    assert_eq!(network.repair().await.unwrap(), [format!("route to {a}")]);
    assert_eq!(m.ask("c", (VIP, 8000)).unwrap(), format!("a {c}"));
}

#[tokio::test]
async fn local_policies() {
    let Cluster { m, proxy, a, b, c, .. } = Cluster::new().await;
    let remote = Endpoint { local: false, ..endpoint(b, 80) };
    let mut service = web(vec![endpoint(a, 80), remote.clone()]);
    service.external_policy = TrafficPolicy::Local;
    proxy.sync(vec![service.clone()]).await.unwrap();
    let outside = answers(&m, "outside", (HOST_OUTSIDE_IP, 30080));
    assert_eq!(outside, set([format!("a {OUTSIDE_IP}")]), "the client's address is kept");
    let pod = answers(&m, "c", (HOST_OUTSIDE_IP, 30080));
    assert_eq!(pod, set([format!("a {c}"), format!("b {c}")]), "pods reach all endpoints");
    let host = answers(&m, "host", (HOST_OUTSIDE_IP, 30080));
    assert_eq!(host, set([format!("a {NODE_IP}"), format!("b {NODE_IP}")]), "and so does the node");

    service.internal_policy = TrafficPolicy::Local;
    proxy.sync(vec![service.clone()]).await.unwrap();
    assert_eq!(answers(&m, "c", (VIP, 8000)), set([format!("a {c}")]));
    service.ports[0].targets = vec![remote];
    proxy.sync(vec![service]).await.unwrap();
    let dropped = |from: &str, address: (Ipv4Addr, u16)| {
        let kind = m.ask(from, address).unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{from}: {kind:?}");
    };
    dropped("c", (VIP, 8000));
    dropped("outside", (HOST_OUTSIDE_IP, 30080));
}

#[tokio::test]
async fn one_front_has_one_service() {
    let Cluster { m, proxy, a, b, c, .. } = Cluster::new().await;
    let one = Service { id: "default/one".to_owned(), ..web(vec![endpoint(a, 80)]) };
    let two = Service { id: "default/two".to_owned(), ..web(vec![endpoint(b, 80)]) };
    let report = proxy.sync(vec![one, two]).await.unwrap();
    assert_eq!(
        report.conflicts,
        [
            "service default/two: 10.96.0.50:8000/TCP belongs to service default/one",
            "service default/two: node port 30080/TCP belongs to service default/one",
        ]
    );
    assert_eq!(answers(&m, "c", (VIP, 8000)), set([format!("a {c}")]));
    proxy.update(vec![], vec!["default/one".to_owned()]).await.unwrap();
    assert_eq!(answers(&m, "c", (VIP, 8000)), set([format!("b {c}")]), "the other one takes over");
    proxy.teardown().await.unwrap();
    assert!(m.ask("c", (VIP, 8000)).is_err());
    proxy.sync(vec![web(vec![endpoint(a, 80)])]).await.unwrap();
    assert_eq!(answers(&m, "c", (VIP, 8000)), set([format!("a {c}")]));
}
