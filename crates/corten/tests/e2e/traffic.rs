//! A rolling update and its rollback under load drop no request.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use corten_testkit::cluster::Cluster;

use crate::{jsonpath, namespace};

const CLIENTS: usize = 8;

pub(crate) fn rolling_update_drops_nothing(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "traffic")?;
    let n = |args: &[&str]| cluster.kubectl(&[&["-n", "traffic"], args].concat());
    let manifest = corten_testkit::root().join("examples/workloads/3-deployment.yaml");
    n(&["apply", "-f", &manifest.to_string_lossy()])?;
    let status = || n(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    status()?;
    let address: IpAddr = jsonpath(cluster, "traffic", "service/web", ".spec.clusterIP")?.parse()?;
    let load = Load::start(SocketAddr::new(address, 80));
    n(&["set", "image", "deployment/web", "web=corten.dev/web:v2"])?;
    status()?;
    n(&["rollout", "undo", "deployment/web"])?;
    status()?;
    let (answered, failures) = load.stop();
    if answered < 100 || !failures.is_empty() {
        bail!("{answered} requests answered, {} failed: {:?}", failures.len(), failures.first());
    }
    eprintln!("  {answered} requests answered during the update and the rollback, none failed");
    cluster.kubectl(&["delete", "namespace", "traffic", "--timeout=60s"]).map(drop)
}

/// Clients that ask one after the other, each request on a new connection.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Load {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = || {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match request(address) {
                        Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.push(error.to_string()),
                    }
                }
                failures
            })
        };
        let clients = (0..CLIENTS).map(|_| client()).collect();
        Load { stop, answered, clients }
    }

    fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures =
            self.clients.into_iter().flat_map(|c| c.join().unwrap_or_else(|_| vec!["a client panicked".into()]));
        let failures = failures.collect();
        (self.answered.load(Ordering::Relaxed), failures)
    }
}

fn request(address: SocketAddr) -> std::io::Result<()> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(std::io::Error::other(format!("answered {answer:?}"))) }
}
