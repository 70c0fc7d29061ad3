//! The server over real UDP and TCP sockets on loopback, with a second one as its upstream resolver.

#![allow(clippy::unwrap_used, reason = "in tests")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use corten_base::{OnStop, Tasks};
use corten_dns::{
    Answer, DnsConfig, DnsServer, EndpointRecord, Lookup, PortRecord, RecordSource, ServiceRecords, Zone,
};
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const WAIT: Duration = Duration::from_secs(5);

/// The world outside of the cluster: one name with an address, one with many.
struct Outside;

impl RecordSource for Outside {
    fn lookup(&self, name: &str) -> Lookup {
        match name {
            "www.example.com" => Lookup::Found(vec![Answer::Address(IpAddr::from([192, 0, 2, 80]))]),
            "alias.example.com" => Lookup::Found(vec![Answer::Name("www.example.com".to_owned())]),
            "many.example.com" => {
                Lookup::Found((0..200).map(|last| Answer::Address(IpAddr::from([192, 0, 2, last]))).collect())
            }
            _ => Lookup::NoSuchName,
        }
    }

    fn domain(&self) -> &str {
        "example.com"
    }
}

struct World {
    tasks: Tasks,
    zone: Arc<Zone>,
    address: SocketAddr,
}

impl World {
    async fn new() -> World {
        let tasks = Tasks::tokio();
        let outside = start(&tasks, Vec::new(), Arc::new(Outside)).await;
        let zone = Arc::new(zone());
        // A resolver that does not answer comes first.
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let upstream = vec![silent.local_addr().unwrap(), outside];
        tasks.spawn("silent", OnStop::Abort, async move {
            let _held = silent;
            std::future::pending().await
        });
        let address = start(&tasks, upstream, zone.clone()).await;
        World { tasks, zone, address }
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        udp(self.address, &question(name, kind)).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.begin_stop();
    }
}

async fn start(tasks: &Tasks, upstream: Vec<SocketAddr>, source: Arc<dyn RecordSource>) -> SocketAddr {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let upstream_timeout = Duration::from_secs(1);
    let config = DnsConfig { listen, upstream, upstream_timeout, ..DnsConfig::default() };
    let server = DnsServer::bind(config, source).await.unwrap();
    let address = server.addresses()[0];
    tasks.spawn("dns", OnStop::Abort, server.run());
    address
}

fn zone() -> Zone {
    let zone = Zone::new("cluster.local");
    let port = |name: &str, port| PortRecord { name: name.to_owned(), protocol: "tcp", port };
    let service =
        |name: &str| ServiceRecords { namespace: "ns".to_owned(), name: name.to_owned(), ..ServiceRecords::default() };
    zone.set_service(ServiceRecords {
        cluster_ips: vec![IpAddr::from([10, 96, 0, 9])],
        ports: vec![port("http", 80)],
        ..service("web")
    });
    let endpoints = (0..100).map(|number| EndpointRecord {
        ip: IpAddr::from([10, 244, 0, number]),
        hostname: Some(format!("db-{number}")),
        ports: vec![port("pg", 5432)],
    });
    zone.set_service(ServiceRecords { endpoints: endpoints.collect(), ..service("db") });
    for (name, target) in
        [("out", "alias.example.com"), ("gone", "absent.example.com"), ("near", "web.ns.svc.cluster.local")]
    {
        zone.set_service(ServiceRecords { external_name: Some(target.to_owned()), ..service(name) });
    }
    zone.set_service(ServiceRecords { external_name: Some("loop.ns.svc.cluster.local".to_owned()), ..service("loop") });
    zone
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn raw_udp(server: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(packet).await.unwrap();
    let mut buffer = vec![0; 65535];
    let length = tokio::time::timeout(WAIT, socket.recv(&mut buffer)).await.expect("an answer in time").unwrap();
    buffer.truncate(length);
    buffer
}

async fn udp(server: SocketAddr, message: &Message) -> Message {
    let answer = Message::from_vec(&raw_udp(server, &message.to_vec().unwrap()).await).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    answer
}

async fn tcp(stream: &mut TcpStream, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

/// Code and answers, as text.
fn show(message: &Message) -> String {
    let mut lines: Vec<String> = message
        .answers
        .iter()
        .map(|record| format!("{} {} {} {}", record.name, record.ttl, record.data.record_type(), record.data))
        .collect();
    lines.sort();
    format!("{:?}: {}", message.metadata.response_code, lines.join(", "))
}

#[tokio::test]
async fn cluster_names() {
    let world = World::new().await;
    for (name, kind, expected) in [
        ("web.ns.svc.cluster.local.", RecordType::A, "NoError: web.ns.svc.cluster.local. 30 A 10.96.0.9"),
        ("WEB.ns.Svc.cluster.local.", RecordType::A, "NoError: WEB.ns.Svc.cluster.local. 30 A 10.96.0.9"),
        ("web.ns.svc.cluster.local.", RecordType::AAAA, "NoError: "),
        ("web.ns.svc.cluster.local.", RecordType::MX, "NoError: "),
        ("absent.ns.svc.cluster.local.", RecordType::A, "NXDomain: "),
        ("www.example.com.ns.svc.cluster.local.", RecordType::A, "NXDomain: "),
        ("db-7.db.ns.svc.cluster.local.", RecordType::A, "NoError: db-7.db.ns.svc.cluster.local. 30 A 10.244.0.7"),
        ("dns-version.cluster.local.", RecordType::TXT, "NoError: dns-version.cluster.local. 30 TXT 1.1.0"),
        ("10-1-2-3.ns.pod.cluster.local.", RecordType::A, "NoError: 10-1-2-3.ns.pod.cluster.local. 30 A 10.1.2.3"),
        (
            "_http._tcp.web.ns.svc.cluster.local.",
            RecordType::SRV,
            "NoError: _http._tcp.web.ns.svc.cluster.local. 30 SRV 0 100 80 web.ns.svc.cluster.local.",
        ),
        (
            "9.0.96.10.in-addr.arpa.",
            RecordType::PTR,
            "NoError: 9.0.96.10.in-addr.arpa. 30 PTR web.ns.svc.cluster.local.",
        ),
        (
            "near.ns.svc.cluster.local.",
            RecordType::A,
            "NoError: near.ns.svc.cluster.local. 30 CNAME web.ns.svc.cluster.local., \
             web.ns.svc.cluster.local. 30 A 10.96.0.9",
        ),
    ] {
        let answer = world.ask(name, kind).await;
        assert_eq!(show(&answer), expected);
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
        let negative = answer.answers.is_empty();
        assert_eq!(answer.authorities.len(), usize::from(negative), "{name}: a SOA record where there is no answer");
        assert!(!negative || answer.authorities[0].record_type() == RecordType::SOA);
    }
    assert_eq!(
        world.ask("loop.ns.svc.cluster.local.", RecordType::A).await.metadata.response_code,
        ResponseCode::ServFail
    );

    let srv = world.ask("_http._tcp.web.ns.svc.cluster.local.", RecordType::SRV).await;
    assert_eq!(srv.additionals.len(), 1, "the target's address comes along");
    world.zone.remove_service("ns", "web");
    assert_eq!(show(&world.ask("web.ns.svc.cluster.local.", RecordType::A).await), "NXDomain: ");
}

#[tokio::test]
async fn long_answers_ask_for_tcp() {
    let world = World::new().await;
    let mut message = question("db.ns.svc.cluster.local.", RecordType::A);
    let plain = udp(world.address, &message).await;
    assert!(plain.metadata.truncation && plain.answers.len() > 20 && plain.answers.len() < 30);
    assert!(raw_udp(world.address, &message.to_vec().unwrap()).await.len() <= 512);

    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_version(0);
    message.set_edns(edns);
    let larger = raw_udp(world.address, &message.to_vec().unwrap()).await;
    let answer = Message::from_vec(&larger).unwrap();
    assert!(answer.metadata.truncation && larger.len() <= 1232 && answer.answers.len() > 60);
    assert_eq!(answer.edns.unwrap().max_payload(), 1232);

    let mut stream = TcpStream::connect(world.address).await.unwrap();
    for _ in 0..2 {
        let whole = tcp(&mut stream, &message).await;
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 100);
    }
    let srv = tcp(&mut stream, &question("_pg._tcp.db.ns.svc.cluster.local.", RecordType::SRV)).await;
    assert_eq!((srv.answers.len(), srv.additionals.len()), (100, 100));
    // Clients that take the first address spread.
    let first = plain.answers[0].data.clone();
    assert_ne!(first, udp(world.address, &message).await.answers[0].data);
}

#[tokio::test]
async fn other_names_are_forwarded() {
    let world = World::new().await;
    assert_eq!(show(&world.ask("www.example.com.", RecordType::A).await), "NoError: www.example.com. 30 A 192.0.2.80");
    assert_eq!(show(&world.ask("absent.example.com.", RecordType::A).await), "NXDomain: ");
    assert_eq!(
        show(&world.ask("out.ns.svc.cluster.local.", RecordType::A).await),
        "NoError: alias.example.com. 30 CNAME www.example.com., out.ns.svc.cluster.local. 30 CNAME alias.example.com., \
         www.example.com. 30 A 192.0.2.80"
    );
    assert_eq!(
        show(&world.ask("gone.ns.svc.cluster.local.", RecordType::A).await),
        "NXDomain: gone.ns.svc.cluster.local. 30 CNAME absent.example.com."
    );
    assert_eq!(
        show(&world.ask("out.ns.svc.cluster.local.", RecordType::CNAME).await),
        "NoError: out.ns.svc.cluster.local. 30 CNAME alias.example.com."
    );
    let many = question("many.example.com.", RecordType::A);
    assert!(udp(world.address, &many).await.metadata.truncation);
    // The silent resolver refuses TCP, the next one answers.
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    assert_eq!(tcp(&mut stream, &many).await.answers.len(), 200);
}

#[tokio::test]
async fn without_resolvers_other_names_fail() {
    let tasks = Tasks::tokio();
    let address = start(&tasks, Vec::new(), Arc::new(zone())).await;
    let answer = udp(address, &question("www.example.com.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    tasks.begin_stop();
}

#[tokio::test]
async fn odd_messages() {
    let world = World::new().await;
    let code = |bytes: Vec<u8>| Message::from_vec(&bytes).unwrap().metadata.response_code;
    let mut chaos = question("web.ns.svc.cluster.local.", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(udp(world.address, &chaos).await.metadata.response_code, ResponseCode::Refused);
    let mut newer = question("web.ns.svc.cluster.local.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    // BADVERS and BADSIG share a number.
    assert_eq!(u16::from(udp(world.address, &newer).await.metadata.response_code), 16);
    let cut = &question("web.ns.svc.cluster.local.", RecordType::A).to_vec().unwrap()[..20];
    assert_eq!(code(raw_udp(world.address, cut).await), ResponseCode::FormErr);
    // Rubbish, and answers, are passed over; the server lives on.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"x", world.address).await.unwrap();
    let mut answer = question("web.ns.svc.cluster.local.", RecordType::A);
    answer = answer.clone().into_response();
    socket.send_to(&answer.to_vec().unwrap(), world.address).await.unwrap();
    assert_eq!(world.ask("web.ns.svc.cluster.local.", RecordType::A).await.answers.len(), 1);
}
