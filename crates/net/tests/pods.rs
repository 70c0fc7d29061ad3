//! Pods' links, addresses and host ports on the real kernel, in namespaces of their own. Needs root.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use std::net::Ipv4Addr;

use common::*;
use corten_net::{AttachRequest, HostPort, NetError, PodNetwork, Protocol, netns, teardown_all};

#[tokio::test]
async fn pods_reach_each_other_the_host_and_the_outside() {
    let mut m = Machine::new();
    let network = m.network().await;
    assert_eq!(network.node_ip(), NODE_IP);
    let a = m.pod(&network, "a", vec![]).await;
    let b = m.pod(&network, "b", vec![]).await;
    assert_eq!((a.ip, b.ip), (Ipv4Addr::new(10, 244, 3, 2), Ipv4Addr::new(10, 244, 3, 3)));
    m.serve("a", (Ipv4Addr::UNSPECIFIED, 80), "a");
    m.serve("host", (Ipv4Addr::UNSPECIFIED, 90), "host");
    m.serve("outside", (OUTSIDE_IP, 80), "outside");

    assert_eq!(m.ask("b", (a.ip, 80)).unwrap(), format!("a {}", b.ip), "pod to pod");
    assert_eq!(m.ask("a", (a.ip, 80)).unwrap(), format!("a {}", a.ip), "pod to itself");
    assert_eq!(m.ask("a", (Ipv4Addr::LOCALHOST, 80)).unwrap(), "a 127.0.0.1", "loopback is up");
    assert_eq!(m.ask("host", (a.ip, 80)).unwrap(), format!("a {NODE_IP}"), "host to pod");
    assert_eq!(m.ask("b", (NODE_IP, 90)).unwrap(), format!("host {}", b.ip), "pod to the gateway address");
    assert_eq!(m.ask("b", (HOST_OUTSIDE_IP, 90)).unwrap(), format!("host {}", b.ip), "pod to the host's own address");
    assert_eq!(m.ask("b", (OUTSIDE_IP, 80)).unwrap(), format!("outside {HOST_OUTSIDE_IP}"), "pod to outside, masked");
}

#[tokio::test]
async fn host_ports_lead_to_their_pod() {
    let mut m = Machine::new();
    let network = m.network().await;
    let ports = vec![host_port(8080, 80, Protocol::Tcp), host_port(8053, 53, Protocol::Udp)];
    let a = m.pod(&network, "a", ports.clone()).await;
    let b = m.pod(&network, "b", vec![]).await;
    m.serve("a", (Ipv4Addr::UNSPECIFIED, 80), "a");
    m.serve_udp("a", (Ipv4Addr::UNSPECIFIED, 53), "a");

    assert_eq!(m.ask("outside", (HOST_OUTSIDE_IP, 8080)).unwrap(), format!("a {OUTSIDE_IP}"));
    assert_eq!(m.ask("host", (HOST_OUTSIDE_IP, 8080)).unwrap(), format!("a {HOST_OUTSIDE_IP}"));
    assert_eq!(m.ask("host", (Ipv4Addr::LOCALHOST, 8080)).unwrap(), format!("a {NODE_IP}"), "localhost");
    assert_eq!(m.ask("b", (NODE_IP, 8080)).unwrap(), format!("a {}", b.ip));
    assert_eq!(m.ask("a", (NODE_IP, 8080)).unwrap(), format!("a {NODE_IP}"), "to itself");
    let socket = m.udp("outside");
    assert_eq!(exchange_udp(&socket, (HOST_OUTSIDE_IP, 8053)).unwrap(), format!("a {OUTSIDE_IP}"));

    let netns = m.pin("c");
    let again = AttachRequest { sandbox_id: "c".to_owned(), netns, host_ports: ports, ip: None };
    let refused = network.attach(again.clone()).await.unwrap_err();
    assert_eq!(refused.to_string(), "host port 8080/TCP is taken by sandbox a");

    network.detach("a").await.unwrap();
    assert!(m.ask("outside", (HOST_OUTSIDE_IP, 8080)).is_err());
    let c = network.attach(again).await.unwrap();
    assert_ne!(c.ip, a.ip, "an address rests before it comes back");
    m.serve_udp("c", (Ipv4Addr::UNSPECIFIED, 53), "c");
    assert_eq!(exchange_udp(&socket, (HOST_OUTSIDE_IP, 8053)).unwrap(), format!("c {OUTSIDE_IP}"), "no stale flow");
}

/// As upstream's conformance test of host ports asks for.
#[tokio::test]
async fn one_host_port_on_different_addresses() {
    let mut m = Machine::new();
    let network = m.network().await;
    let on = |host_ip, protocol| HostPort { host_ip: Some(host_ip), ..host_port(54323, 8080, protocol) };
    m.pod(&network, "a", vec![on(Ipv4Addr::LOCALHOST, Protocol::Tcp)]).await;
    m.pod(&network, "b", vec![on(HOST_OUTSIDE_IP, Protocol::Tcp)]).await;
    m.pod(&network, "c", vec![on(HOST_OUTSIDE_IP, Protocol::Udp)]).await;
    m.serve("a", (Ipv4Addr::UNSPECIFIED, 8080), "a");
    m.serve("b", (Ipv4Addr::UNSPECIFIED, 8080), "b");
    m.serve_udp("c", (Ipv4Addr::UNSPECIFIED, 8080), "c");
    assert!(m.ask("host", (Ipv4Addr::LOCALHOST, 54323)).unwrap().starts_with("a "));
    assert!(m.ask("host", (HOST_OUTSIDE_IP, 54323)).unwrap().starts_with("b "));
    assert!(exchange_udp(&m.udp("host"), (HOST_OUTSIDE_IP, 54323)).unwrap().starts_with("c "));
    let netns = m.pin("d");
    let everywhere = vec![host_port(54323, 8080, Protocol::Tcp)];
    let request = AttachRequest { sandbox_id: "d".to_owned(), netns, host_ports: everywhere, ip: None };
    assert!(matches!(network.attach(request).await, Err(NetError::HostPortTaken { .. })));
}

#[tokio::test]
async fn pods_do_not_reach_the_hosts_loopback() {
    let mut m = Machine::new();
    let network = m.network().await;
    m.pod(&network, "a", vec![host_port(8080, 80, Protocol::Tcp)]).await;
    m.serve("host", (Ipv4Addr::LOCALHOST, 99), "secret");
    // A privileged pod that sends packets for 127.0.0.1 out of its link.
    m.run("a", "ip route delete local 127.0.0.1 dev lo table local");
    m.run("a", "ip route delete local 127.0.0.0/8 dev lo table local");
    m.run("a", "sysctl -q -w net.ipv4.conf.eth0.route_localnet=1");
    m.run("a", &format!("ip route add 127.0.0.1/32 via {NODE_IP} dev eth0"));
    assert!(m.ask("a", (Ipv4Addr::LOCALHOST, 99)).is_err());
}

#[tokio::test]
async fn two_clusters_side_by_side() {
    let mut m = Machine::new();
    let network = m.network().await;
    let mut config = m.net_config();
    config.cluster = "other".to_owned();
    config.pod_cidr = (Ipv4Addr::new(10, 245, 0, 0), 24);
    config.cluster_cidr = (Ipv4Addr::new(10, 245, 0, 0), 16);
    config.service_cidr = (Ipv4Addr::new(10, 112, 0, 0), 12);
    config.state_dir = m.path("other-state");
    let other = PodNetwork::new(config).await.unwrap();
    m.pod(&network, "a", vec![]).await;
    let b = m.pod(&other, "b", vec![]).await;
    m.serve("b", (Ipv4Addr::UNSPECIFIED, 80), "b");
    m.serve("outside", (OUTSIDE_IP, 80), "outside");
    assert_eq!(m.ask("host", (b.ip, 80)).unwrap(), format!("b {}", other.node_ip()));
    drop(network);
    let state = m.path("state");
    m.inside("host", || teardown_all("test", &state).map_err(std::io::Error::other)).unwrap();
    assert_eq!(m.ask("b", (OUTSIDE_IP, 80)).unwrap(), format!("outside {HOST_OUTSIDE_IP}"), "still forwarded");
    drop(other);
    let state = m.path("other-state");
    m.inside("host", || teardown_all("other", &state).map_err(std::io::Error::other)).unwrap();
    assert_eq!(m.run("host", "ip -o link show").lines().count(), 2, "lo and the uplink");
    let forward = m.inside("host", || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")).unwrap();
    assert_eq!(forward, "0\n", "the last one restores what the first one found");
}

#[tokio::test]
async fn allocations_survive_a_restart() {
    let mut m = Machine::new();
    let network = m.network().await;
    let a = m.pod(&network, "a", vec![host_port(8080, 80, Protocol::Tcp)]).await;
    let b = m.pod(&network, "b", vec![]).await;
    m.serve("a", (Ipv4Addr::UNSPECIFIED, 80), "a");
    let mut open = m.connect("outside", (HOST_OUTSIDE_IP, 8080)).unwrap();
    greeting(&mut open).unwrap();
    drop(network);

    let network = m.network().await;
    let mut known: Vec<_> = network.allocations().into_iter().map(|known| (known.sandbox_id, known.address)).collect();
    known.sort_by(|one, two| one.0.cmp(&two.0));
    assert_eq!(known, [("a".to_owned(), a.clone()), ("b".to_owned(), b.clone())]);
    assert!(m.ask("outside", (HOST_OUTSIDE_IP, 8080)).is_ok(), "host ports are back");
    use std::io::Write;
    writeln!(open, "still here").unwrap();
    assert_eq!(greeting(&mut open).unwrap(), "still here", "open connections live on");

    let again = AttachRequest { sandbox_id: "a".to_owned(), netns: m.path("a"), ..AttachRequest::default() };
    assert_eq!(network.attach(again.clone()).await.unwrap(), a, "attaching again is harmless");
    m.run("a", "ip link delete eth0");
    assert_eq!(network.attach(again).await.unwrap(), a, "and repairs");
    assert!(m.ask("b", (a.ip, 80)).is_ok());

    let c = m.pod(&network, "c", vec![]).await;
    assert!(![a.ip, b.ip].contains(&c.ip));
    // A namespace that is gone does not hinder.
    netns::remove_pinned(&m.path("b")).unwrap();
    for sandbox in ["a", "b", "c", "c", "unknown"] {
        network.detach(sandbox).await.unwrap();
    }
    assert!(network.allocations().is_empty());
    assert!(files_below(&m.path("state/pods")).is_empty());
}

#[tokio::test]
async fn a_failed_attach_leaves_nothing() {
    let m = Machine::new();
    let network = m.network().await;
    let file = m.path("no-namespace");
    std::fs::write(&file, "").unwrap();
    let request = AttachRequest { sandbox_id: "x".to_owned(), netns: file, ..AttachRequest::default() };
    assert!(matches!(network.attach(request).await, Err(NetError::Kernel { .. })));
    assert!(network.allocations().is_empty());
    assert!(files_below(&m.path("state/pods")).is_empty());
}

#[tokio::test]
async fn the_host_itself_is_never_wired() {
    let m = Machine::new();
    let network = m.network().await;
    let request = AttachRequest { sandbox_id: "x".to_owned(), netns: m.path("host"), ..AttachRequest::default() };
    let refused = network.attach(request).await.unwrap_err().to_string();
    assert_eq!(refused, "sandbox x: its network namespace is the host's own one");
    assert!(network.allocations().is_empty());
}

#[tokio::test]
async fn links_without_a_record_are_removed_and_links_forward() {
    let mut m = Machine::new();
    m.inside("host", || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
    m.inside("host", || std::fs::write("/proc/sys/net/ipv4/conf/default/forwarding", "0")).unwrap();
    let network = m.network().await;
    let a = m.pod(&network, "a", vec![]).await;
    let b = m.pod(&network, "b", vec![]).await;
    m.serve("a", (Ipv4Addr::UNSPECIFIED, 80), "a");
    assert!(m.ask("b", (a.ip, 80)).is_ok(), "although new links do not forward by default");
    drop(network);
    std::fs::remove_file(m.path("state/pods/a.json")).unwrap();
    std::fs::write(m.path("state/pods/b.json.new"), "").unwrap();
    let _network = m.network().await;
    let links = m.run("host", "ip -o link show");
    assert!(!links.contains(&a.host_link) && links.contains(&b.host_link), "{links}");
    assert_eq!(files_below(&m.path("state/pods")), [m.path("state/pods/b.json")]);
}

#[tokio::test]
async fn teardown_leaves_the_machine_as_before() {
    let mut m = Machine::new();
    let look = |m: &Machine| {
        let ruleset = m.run("host", "ip -o link show") + &m.run("host", "ip -4 route show table all");
        let forward = m.inside("host", || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")).unwrap();
        ruleset + &forward
    };
    let before = look(&m);
    for round in 0..2 {
        let network: PodNetwork = m.network().await;
        m.pod(&network, &format!("a{round}"), vec![host_port(8080, 80, Protocol::Tcp)]).await;
        assert_ne!(look(&m), before);
        // As after a crash: nobody detached.
        drop(network);
        let state = m.path("state");
        m.inside("host", || teardown_all("test", &state).map_err(std::io::Error::other)).unwrap();
        m.inside("host", || teardown_all("test", &state).map_err(std::io::Error::other)).unwrap();
        assert_eq!(look(&m), before);
        assert!(files_below(&state).is_empty());
    }
}
