//! Measures the pod network and the service proxy in a network namespace of its own. Needs root.
//!
//! `cargo run --release -p corten-net --example bench [SERVICES]`

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use corten_net::{
    AttachRequest, Endpoint, NetConfig, PodNetwork, ProxyConfig, Service, ServicePort, ServiceProxy, netns,
};

const PODS: usize = 50;
const CHANGES: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let services = std::env::args().nth(1).map_or(Ok(10_000), |count| count.parse())?;
    let dir = std::env::temp_dir().join(format!("corten-net-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let host = dir.join("host");
    netns::create_pinned(&host)?;
    let mut pins = vec![host.clone()];
    let outcome = measure(&dir, &mut pins, services).await;
    for pin in pins {
        netns::remove_pinned(&pin)?;
    }
    std::fs::remove_dir_all(&dir)?;
    outcome
}

async fn measure(
    dir: &std::path::Path,
    pins: &mut Vec<std::path::PathBuf>,
    services: u32,
) -> Result<(), Box<dyn Error>> {
    let cluster_cidr = (Ipv4Addr::new(10, 244, 0, 0), 16);
    let service_cidr = (Ipv4Addr::new(10, 96, 0, 0), 12);
    let host_netns = Some(pins[0].clone());
    let started = Instant::now();
    let network = PodNetwork::new(NetConfig {
        cluster: "bench".to_owned(),
        pod_cidr: (Ipv4Addr::new(10, 244, 0, 0), 24),
        cluster_cidr,
        service_cidr,
        state_dir: dir.join("state"),
        mtu: None,
        host_netns: host_netns.clone(),
    })
    .await?;
    println!("node prepared in {:?}", started.elapsed());

    let (mut attached, mut detached) = (Vec::new(), Vec::new());
    for number in 0..PODS {
        let netns = dir.join(format!("pod{number}"));
        netns::create_pinned(&netns)?;
        pins.push(netns.clone());
        let sandbox_id = format!("pod{number}");
        let started = Instant::now();
        network.attach(AttachRequest { sandbox_id, netns, ..AttachRequest::default() }).await?;
        attached.push(started.elapsed());
    }
    for number in 0..PODS {
        let started = Instant::now();
        network.detach(&format!("pod{number}")).await?;
        detached.push(started.elapsed());
    }
    report("attach", attached);
    report("detach", detached);

    let proxy = ServiceProxy::new(ProxyConfig {
        cluster: "bench".to_owned(),
        cluster_cidr,
        service_cidr,
        node_ip: network.node_ip(),
        host_netns,
    })
    .await?;
    let all: Vec<Service> = (0..services).map(|number| service(number, &[0, 1])).collect();
    let (started, cpu) = (Instant::now(), cpu_time());
    let first = proxy.sync(all.clone()).await?;
    let (wall, cpu) = (started.elapsed(), cpu_time() - cpu);
    println!("{services} services x 2 endpoints, {} elements, first load: {wall:?}, CPU {cpu:?}", first.added);
    let started = Instant::now();
    proxy.sync(all).await?;
    println!("sync without a change: {:?}", started.elapsed());
    let mut changes = Vec::new();
    let cpu = cpu_time();
    for round in 0..CHANGES {
        let endpoints: &[u32] = if round % 2 == 0 { &[0, 1, 2] } else { &[0, 1] };
        let started = Instant::now();
        proxy.update(vec![service(round as u32 / 2, endpoints)], vec![]).await?;
        changes.push(started.elapsed());
    }
    println!("one endpoint more or less: CPU {:?} each", (cpu_time() - cpu) / CHANGES as u32);
    report("one endpoint more or less", changes);
    let started = Instant::now();
    proxy.teardown().await?;
    println!("teardown: {:?}", started.elapsed());
    Ok(())
}

fn service(number: u32, endpoints: &[u32]) -> Service {
    let ip = |base: Ipv4Addr, offset: u32| IpAddr::V4(Ipv4Addr::from(u32::from(base) + offset));
    let target = |place: &u32| Endpoint {
        ip: ip(Ipv4Addr::new(10, 244, 1, 0), number * 3 + place),
        port: 8080,
        local: number < 100,
    };
    let targets = endpoints.iter().map(target).collect();
    Service {
        id: format!("bench/service-{number}"),
        cluster_ips: vec![ip(Ipv4Addr::new(10, 96, 1, 0), number)],
        ports: vec![ServicePort { port: 80, targets, ..ServicePort::default() }],
        ..Service::default()
    }
}

/// CPU time of this process, the kernel's part included: steadier than wall time on a busy machine.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    println!("{what}: p50 {:?}, p99 {:?} of {}", times[times.len() / 2], times[times.len() * 99 / 100], times.len());
}
