//! A machine in miniature: a "host" network namespace, an "outside" one linked to it, and pods; all gone at the end.

#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, io, thread};

use corten_net::{
    AttachRequest, Endpoint, HostPort, NetConfig, PodAddress, PodNetwork, Protocol, ProxyConfig, ServiceProxy, netns,
};

pub const HOST_OUTSIDE_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
pub const OUTSIDE_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
pub const POD_CIDR: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 3, 0), 24);
pub const CLUSTER_CIDR: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 0, 0), 16);
pub const SERVICE_CIDR: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 12);
pub const NODE_IP: Ipv4Addr = Ipv4Addr::new(10, 244, 3, 1);
/// Generous: a busy machine is no failure. What must not answer is waited for as long.
pub const WAIT: Duration = Duration::from_secs(5);

pub struct Machine {
    pub dir: tempfile::TempDir,
    pins: Vec<PathBuf>,
}

impl Machine {
    pub fn new() -> Machine {
        assert!(rustix::process::geteuid().is_root(), "this test needs root: it makes network namespaces");
        let dir = tempfile::Builder::new().prefix("corten-net-").tempdir().unwrap();
        let mut machine = Machine { dir, pins: Vec::new() };
        machine.pin("host");
        machine.pin("outside");
        machine.run("outside", "ip link set lo up");
        machine.run("host", "ip link set lo up");
        machine.run("host", "ip link add up0 type veth peer name out0");
        let outside = machine.path("outside");
        machine.run("host", &format!("ip link set out0 netns {}", outside.display()));
        machine.run("host", &format!("ip addr add {HOST_OUTSIDE_IP}/24 dev up0"));
        machine.run("host", "ip link set up0 up");
        machine.run("outside", &format!("ip addr add {OUTSIDE_IP}/24 dev out0"));
        machine.run("outside", "ip link set out0 up");
        machine.run("host", &format!("ip route add default via {OUTSIDE_IP}"));
        machine.inside("host", || fs::write("/proc/sys/net/ipv4/ip_forward", "0")).unwrap();
        // Services must work without this module's help.
        let _ = machine.inside("host", || fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0"));
        machine
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn pin(&mut self, name: &str) -> PathBuf {
        let path = self.path(name);
        netns::create_pinned(&path).unwrap();
        self.pins.push(path.clone());
        path
    }

    /// Runs a closure in a namespace.
    pub fn inside<T: Send>(&self, namespace: &str, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        netns::run_in(&self.path(namespace), work)
    }

    /// Runs a command line in a namespace: its output.
    pub fn run(&self, namespace: &str, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        let output = self.inside(namespace, || Command::new(words[0]).args(&words[1..]).output()).unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn net_config(&self) -> NetConfig {
        NetConfig {
            cluster: "test".to_owned(),
            pod_cidr: POD_CIDR,
            cluster_cidr: CLUSTER_CIDR,
            service_cidr: SERVICE_CIDR,
            state_dir: self.path("state"),
            mtu: None,
            host_netns: Some(self.path("host")),
        }
    }

    pub fn proxy_config(&self) -> ProxyConfig {
        ProxyConfig {
            cluster: "test".to_owned(),
            cluster_cidr: CLUSTER_CIDR,
            service_cidr: SERVICE_CIDR,
            node_ip: NODE_IP,
            host_netns: Some(self.path("host")),
        }
    }

    pub async fn network(&self) -> PodNetwork {
        PodNetwork::new(self.net_config()).await.unwrap()
    }

    pub async fn proxy(&self) -> ServiceProxy {
        ServiceProxy::new(self.proxy_config()).await.unwrap()
    }

    /// A new namespace with a pod's network.
    pub async fn pod(&mut self, network: &PodNetwork, name: &str, host_ports: Vec<HostPort>) -> PodAddress {
        let netns = self.pin(name);
        network.attach(AttachRequest { sandbox_id: name.to_owned(), netns, host_ports, ip: None }).await.unwrap()
    }

    /// Every connection gets a line `TAG PEER`, then its own lines back.
    pub fn serve(&self, namespace: &str, address: impl Into<SocketAddr>, tag: &str) {
        let (address, tag) = (address.into(), tag.to_owned());
        let listener = self.inside(namespace, || TcpListener::bind(address)).unwrap();
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let tag = tag.clone();
                thread::spawn(move || converse(connection, &tag));
            }
        });
    }

    /// Every datagram is answered with `TAG PEER`.
    pub fn serve_udp(&self, namespace: &str, address: impl Into<SocketAddr>, tag: &str) {
        let (address, tag) = (address.into(), tag.to_owned());
        let socket = self.inside(namespace, || UdpSocket::bind(address)).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 100];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{tag} {}", peer.ip()).as_bytes(), peer);
            }
        });
    }

    pub fn connect(&self, namespace: &str, address: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        let address = address.into();
        let stream = self.inside(namespace, || TcpStream::connect_timeout(&address, WAIT))?;
        stream.set_read_timeout(Some(WAIT))?;
        Ok(stream)
    }

    /// Connects and reads the greeting: `TAG PEER`.
    pub fn ask(&self, namespace: &str, address: impl Into<SocketAddr>) -> io::Result<String> {
        greeting(&mut self.connect(namespace, address)?)
    }

    pub fn udp(&self, namespace: &str) -> UdpSocket {
        let socket = self.inside(namespace, || UdpSocket::bind("0.0.0.0:0")).unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for pin in &self.pins {
            let _ = netns::remove_pinned(pin);
        }
    }
}

fn converse(mut connection: TcpStream, tag: &str) {
    let Ok(peer) = connection.peer_addr() else { return };
    let _ = writeln!(connection, "{tag} {}", peer.ip());
    let Ok(copy) = connection.try_clone() else { return };
    for line in BufReader::new(copy).lines().map_while(Result::ok) {
        let _ = writeln!(connection, "{line}");
    }
}

/// Reads one line, byte by byte, so that nothing of the next is lost.
pub fn greeting(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = String::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        match byte {
            [b'\n'] => return Ok(line),
            [byte] => line.push(char::from(byte)),
        }
    }
}

pub fn exchange_udp(socket: &UdpSocket, address: impl Into<SocketAddr>) -> io::Result<String> {
    socket.send_to(b"hello", address.into())?;
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

pub fn endpoint(ip: Ipv4Addr, port: u16) -> Endpoint {
    Endpoint { ip: IpAddr::V4(ip), port, local: true }
}

pub fn host_port(host_port: u16, container_port: u16, protocol: Protocol) -> HostPort {
    HostPort { host_ip: None, host_port, container_port, protocol }
}

pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
}
