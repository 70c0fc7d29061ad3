//! Upstream's kube-apiserver and etcd, built from their Go modules and run on loopback with throw-away data.

use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use corten_auth::Material;
use corten_faults::ask::Asker;
use corten_testkit::{cache_dir, root};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixDatagram;

/// Our Go module that pins upstream's.
const MODULE: &str = "tools/oracle";
/// How long the API server may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The two programs; built if they are not there.
///
/// # Errors
/// If Go is missing or a build fails.
pub fn programs() -> Result<(PathBuf, PathBuf)> {
    Ok((build("etcd", "go.etcd.io/etcd/server/v3")?, build("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver")?))
}

/// Builds a program if it is not there.
fn build(name: &str, package: &str) -> Result<PathBuf> {
    let dir = cache_dir().join("oracle");
    std::fs::create_dir_all(&dir)?;
    let version = "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2 -X k8s.io/component-base/version.gitMajor=1 \
                   -X k8s.io/component-base/version.gitMinor=37";
    let program = dir.join(name);
    if !program.exists() {
        eprintln!("building {package} (the first time takes about ten minutes)");
        let mut go = Command::new("go");
        go.args(["build", "-ldflags", version, "-o"]).arg(&program).arg(package);
        let status = go.current_dir(root().join(MODULE)).status().context("`go` (1.26 or newer) is needed")?;
        ensure!(status.success(), "building {package} failed");
    }
    Ok(program)
}

/// How many requests controllers and scheduler may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// As they do by default: 20 a second each controller, 50 the scheduler.
    Default,
    /// As many as they like.
    Raised,
}

/// Whether etcd syncs what it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// As it does by default.
    Durable,
    /// Not at all: the data is thrown away.
    Unsafe,
}

/// A running API server of upstream's with its etcd. Both end when it is dropped.
pub struct Oracle {
    /// Where it listens.
    pub address: SocketAddr,
    children: Vec<Child>,
}

impl Drop for Oracle {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Oracle {
    /// Starts both below `dir`, with certificates that are already there (`dir/pki`), and waits until the API server is ready.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn start(dir: &Path, material: &Arc<Material>, disk: Disk) -> Result<Oracle> {
        let (etcd, apiserver) = programs()?;
        let [client, peer, api] = free_ports()?;
        let mut oracle = Oracle { address: ([127, 0, 0, 1], api).into(), children: Vec::new() };
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut command = Command::new(etcd);
        command.arg("--data-dir").arg(dir.join("etcd")).args(["--name=o", "--log-level=error"]);
        if disk == Disk::Unsafe {
            command.arg("--unsafe-no-fsync");
        }
        command.args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)]);
        command.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
        command.args(["--initial-cluster", &format!("o={}", url(peer))]);
        oracle.spawn(command, &dir.join("etcd.log"))?;
        let pki = |name: &str| dir.join("pki").join(name);
        let mut command = Command::new(apiserver);
        command.args(["--bind-address=127.0.0.1", "--authorization-mode=Node,RBAC", "--allow-privileged=true"]);
        command.args(["--etcd-servers", &url(client), "--secure-port", &api.to_string()]);
        command.args(["--service-cluster-ip-range", corten_faults::server::SERVICE_RANGE]);
        command.args(["--service-account-issuer", corten_auth::DEFAULT_ISSUER]);
        command.args(["--profiling=false", "--event-ttl=1h", "--advertise-address=192.0.2.1"]);
        for (flag, file) in [
            ("--client-ca-file", "ca.crt"),
            ("--tls-cert-file", "server.crt"),
            ("--tls-private-key-file", "server.key"),
            // Any pair will do; upstream reads public keys from certificates, not from PKCS #8.
            ("--service-account-key-file", "server.crt"),
            ("--service-account-signing-key-file", "server.key"),
        ] {
            command.arg(flag).arg(pki(file));
        }
        // It tells a service manager when it listens.
        let name = format!("oracle-{api}-{}", std::process::id());
        let notices = net::UnixDatagram::bind_addr(&net::SocketAddr::from_abstract_name(&name)?)?;
        notices.set_nonblocking(true)?;
        let notices = UnixDatagram::from_std(notices)?;
        command.env("NOTIFY_SOCKET", format!("@{name}"));
        oracle.spawn(command, &dir.join("kube-apiserver.log"))?;
        tokio::time::timeout(READY_WITHIN, oracle.wait(material, &notices))
            .await
            .unwrap_or_else(|_| bail!("kube-apiserver was not ready within {READY_WITHIN:?}"))
            .with_context(|| format!("the oracle's logs are in {}", dir.display()))?;
        Ok(oracle)
    }

    /// Starts kube-controller-manager and kube-scheduler, too, as the administrator; certificates and logs are below `dir`.
    ///
    /// # Errors
    /// If one of them cannot be built or started.
    pub fn start_controllers(&mut self, dir: &Path, limits: Limits) -> Result<()> {
        let kubeconfig = dir.join("kubeconfig");
        let pki = |name: &str| dir.join("pki").join(name);
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
             clusters: [{{name: c, cluster: {{server: \"https://{}\", certificate-authority: {:?}}}}}], \
             users: [{{name: u, user: {{client-certificate: {:?}, client-key: {:?}}}}}]}}",
            self.address,
            pki("ca.crt"),
            pki("admin.crt"),
            pki("admin.key"),
        );
        std::fs::write(&kubeconfig, text)?;
        for name in ["kube-controller-manager", "kube-scheduler"] {
            let mut command = Command::new(build(name, &format!("k8s.io/kubernetes/cmd/{name}"))?);
            command.arg("--kubeconfig").arg(&kubeconfig);
            command.args(["--leader-elect=false", "--secure-port=0", "--profiling=false"]);
            if name == "kube-controller-manager" {
                command.arg("--service-account-private-key-file").arg(pki("server.key"));
                command.arg("--root-ca-file").arg(pki("ca.crt"));
            }
            if limits == Limits::Raised {
                command.args(["--kube-api-qps=5000", "--kube-api-burst=10000"]);
            }
            self.spawn(command, &dir.join(format!("{name}.log")))?;
        }
        Ok(())
    }

    /// The processes' ids.
    pub fn processes(&self) -> Vec<i32> {
        self.children.iter().map(|c| Pid::from_child(c).as_raw_nonzero().get()).collect()
    }

    fn spawn(&mut self, mut command: Command, log: &Path) -> Result<()> {
        let log = std::fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children.push(command.spawn().with_context(|| format!("{command:?}"))?);
        Ok(())
    }

    /// Waits until the server listens, then asks until it is ready: it tells nobody when it is.
    async fn wait(&mut self, material: &Arc<Material>, notices: &UnixDatagram) -> Result<()> {
        let mut notice = [0; 64];
        tokio::select! {
            read = notices.recv(&mut notice) => read.map(drop)?,
            ended = exit(&self.children) => return Err(ended?),
        }
        let mut asker = Asker::connect(self.address, material).await?;
        while !asker.ready().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Waits until one of the processes ends.
#[expect(deprecated, reason = "the constructor that replaces it is unsafe for the sake of other types than OwnedFd")]
async fn exit(children: &[Child]) -> Result<anyhow::Error> {
    let mut ends = Vec::new();
    for child in children {
        let end = AsyncFd::new(pidfd_open(Pid::from_child(child), PidfdFlags::NONBLOCK)?)?;
        ends.push(Box::pin(async move { end.readable().await.map(drop) }));
    }
    let (end, which, _) = futures::future::select_all(ends).await;
    end?;
    Ok(anyhow!("{} ended", if which == 0 { "etcd" } else { "kube-apiserver" }))
}

fn free_ports() -> Result<[u16; 3]> {
    let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let ports: Vec<u16> = listeners.iter().map(|l| Ok(l.local_addr()?.port())).collect::<Result<_>>()?;
    Ok([ports[0], ports[1], ports[2]])
}
