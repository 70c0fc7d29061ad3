//! Upstream's kube-apiserver and etcd, built from their Go modules and run on loopback with throw-away data.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use corten_auth::Material;
use corten_faults::ask::Asker;
use corten_testkit::{cache_dir, root};

/// Our Go module that pins upstream's.
const MODULE: &str = "tools/oracle";
/// How long the API server may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The two programs; built if they are not there.
///
/// # Errors
/// If Go is missing or a build fails.
pub fn programs() -> Result<(PathBuf, PathBuf)> {
    let dir = cache_dir().join("oracle");
    std::fs::create_dir_all(&dir)?;
    let version = "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2 -X k8s.io/component-base/version.gitMajor=1 \
                   -X k8s.io/component-base/version.gitMinor=37";
    let build = |name: &str, package: &str| -> Result<PathBuf> {
        let program = dir.join(name);
        if !program.exists() {
            eprintln!("building {package} (the first time takes about ten minutes)");
            let mut go = Command::new("go");
            go.args(["build", "-ldflags", version, "-o"]).arg(&program).arg(package);
            let status = go.current_dir(root().join(MODULE)).status().context("`go` (1.26 or newer) is needed")?;
            ensure!(status.success(), "building {package} failed");
        }
        Ok(program)
    };
    Ok((build("etcd", "go.etcd.io/etcd/server/v3")?, build("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver")?))
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
    pub async fn start(dir: &Path, material: &Arc<Material>) -> Result<Oracle> {
        let (etcd, apiserver) = programs()?;
        let [client, peer, api] = free_ports()?;
        let mut oracle = Oracle { address: ([127, 0, 0, 1], api).into(), children: Vec::new() };
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut command = Command::new(etcd);
        command.arg("--data-dir").arg(dir.join("etcd")).args(["--name=o", "--unsafe-no-fsync", "--log-level=error"]);
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
        oracle.spawn(command, &dir.join("kube-apiserver.log"))?;
        oracle.wait(material, dir).await?;
        Ok(oracle)
    }

    fn spawn(&mut self, mut command: Command, log: &Path) -> Result<()> {
        let log = std::fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children.push(command.spawn().with_context(|| format!("{command:?}"))?);
        Ok(())
    }

    /// Asks until the server is ready: it tells nobody when it is.
    async fn wait(&mut self, material: &Arc<Material>, dir: &Path) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < READY_WITHIN {
            for child in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    bail!("a part of the oracle ended with {status}; its log is in {}", dir.display());
                }
            }
            if let Ok(mut asker) = Asker::connect(self.address, material).await
                && asker.ready().await
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("kube-apiserver was not ready within {READY_WITHIN:?}; its log is in {}", dir.display())
    }
}

fn free_ports() -> Result<[u16; 3]> {
    let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let ports: Vec<u16> = listeners.iter().map(|l| Ok(l.local_addr()?.port())).collect::<Result<_>>()?;
    Ok([ports[0], ports[1], ports[2]])
}
