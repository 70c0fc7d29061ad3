//! The server dies; its containers do not.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use corten_testkit::cluster::Cluster;

use crate::{contains, jsonpath, namespace, shell_pod};

pub(crate) fn containers_survive_the_server(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "crash")?;
    let pod = shell_pod("steady", "echo began; trap 'exit 0' TERM; while true; do sleep 1; done");
    cluster.kubectl_with(&["-n", "crash", "apply", "-f", "-"], &pod)?;
    cluster.kubectl(&["-n", "crash", "wait", "--for=condition=Ready", "pod/steady", "--timeout=30s"])?;
    let identity = |cluster: &Cluster| -> Result<String> {
        let status = ".status.containerStatuses[0]";
        let id = jsonpath(cluster, "crash", "pod/steady", &format!("{status}.containerID"))?;
        Ok(id + "/" + &jsonpath(cluster, "crash", "pod/steady", &format!("{status}.restartCount"))?)
    };
    let before = identity(cluster)?;
    cluster.kill_server()?;
    cluster.start()?;
    cluster.kubectl(&["-n", "crash", "wait", "--for=condition=Ready", "pod/steady", "--timeout=30s"])?;
    if identity(cluster)? != before {
        bail!("the container was replaced: {before} became {}", identity(cluster)?);
    }
    contains(&cluster.kubectl(&["-n", "crash", "logs", "steady"])?, "began")?;
    contains(&cluster.kubectl(&["-n", "crash", "exec", "steady", "--", "echo", "alive"])?, "alive")?;
    cluster.kubectl(&["delete", "namespace", "crash", "--timeout=60s"]).map(drop)
}

/// Kills of the server in [`killed_again_and_again`]: the short form, unless this variable names another count.
const KILLS: usize = 8;
const KILLS_VARIABLE: &str = "CORTEN_TEST_KILLS";
/// Pods that run all the time.
const STEADY: usize = 4;

/// The server is killed at random moments while pods start and end, commands run, logs are followed and probes fail: no
/// container is restarted for it, and when the pods have gone nothing of them is left.
pub(crate) fn killed_again_and_again(cluster: &mut Cluster) -> Result<()> {
    let kills = std::env::var(KILLS_VARIABLE).ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let before = Kept::look(cluster)?;
    namespace(cluster, "kills")?;
    for n in 0..STEADY {
        let pod = shell_pod(&format!("steady-{n}"), "touch /tmp/up; while true; do sleep 1; done");
        let probe = "    readinessProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1}\n";
        cluster.kubectl_with(&["-n", "kills", "apply", "-f", "-"], &(pod + probe))?;
    }
    cluster.kubectl(&["-n", "kills", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"])?;
    let steady = instances(cluster, "steady-")?;
    let mut chance = Chance::new();
    for kill in 0..kills {
        let churn = format!("churn-{}", kill % 3);
        // One that starts, and one with this name that may still be going.
        let manifest = shell_pod(&churn, "echo began; sleep 1000");
        cluster.kubectl(&["-n", "kills", "delete", "pod", &churn, "--wait=false", "--ignore-not-found"])?;
        let mut busy = Vec::new();
        busy.push(background(cluster, &["-n", "kills", "exec", "steady-0", "--", "sh", "-c", "sleep 0.2; echo ran"])?);
        busy.push(background(cluster, &["-n", "kills", "logs", "-f", "steady-1"])?);
        let file = cluster.data().join("churn.yaml");
        std::fs::write(&file, manifest)?;
        busy.push(background(cluster, &["-n", "kills", "apply", "-f", &file.to_string_lossy()])?);
        pause(Duration::from_millis(chance.below(300)));
        cluster.kill_server()?;
        for mut child in busy {
            child.kill().ok();
            child.wait()?;
        }
        cluster.start().with_context(|| format!("after kill {kill}, seed {}", chance.seed))?;
        let now = instances(cluster, "steady-")?;
        if now != steady {
            bail!("after kill {kill}, seed {}: {steady:?} became {now:?}", chance.seed);
        }
        let restarted: Vec<_> =
            instances(cluster, "churn-")?.into_iter().filter(|(_, (_, restarts))| restarts != "0").collect();
        if !restarted.is_empty() {
            bail!("after kill {kill}, seed {}: restarted {restarted:?}", chance.seed);
        }
    }
    cluster.kubectl(&[
        "-n",
        "kills",
        "wait",
        "--for=condition=Ready",
        "pod",
        "-l",
        "app in (steady-0,steady-1,steady-2,steady-3)",
        "--timeout=30s",
    ])?;
    cluster.kubectl(&["delete", "namespace", "kills", "--timeout=120s"])?;
    // Deleted pods are gone from the API when their containers are; their last files go right after.
    let began = Instant::now();
    loop {
        let left = Kept::look(cluster)?.since(&before);
        if left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(20) {
            bail!("{kills} kills, seed {}: left behind {left:?}", chance.seed);
        }
        pause(Duration::from_millis(100));
    }
}

/// Kills come at any time, and files, mounts and cgroups tell nobody that they go.
#[allow(clippy::disallowed_methods, reason = "there is no event to wait for")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn background(cluster: &Cluster, args: &[&str]) -> Result<Child> {
    Ok(cluster.kubectl_command(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

/// The containers of pods by the beginning of their names: id and restart count.
fn instances(cluster: &Cluster, prefix: &str) -> Result<BTreeMap<String, (String, String)>> {
    let columns = "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} \
                   {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    let text = cluster.kubectl(&["-n", "kills", "get", "pods", "-o", columns])?;
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|l| l.starts_with(prefix)) {
        let mut parts = line.split_whitespace();
        if let (Some(name), Some(id), Some(restarts)) = (parts.next(), parts.next(), parts.next()) {
            found.insert(name.to_owned(), (id.to_owned(), restarts.to_owned()));
        }
    }
    Ok(found)
}

/// What a node keeps of its pods in kernel and file system, one line each.
struct Kept(std::collections::BTreeSet<String>);

impl Kept {
    fn look(cluster: &Cluster) -> Result<Kept> {
        let mut seen = std::collections::BTreeSet::new();
        let run = Path::new("/run/corten").join(cluster.name());
        for part in ["runtime/containers", "runtime/sandboxes"] {
            for entry in std::fs::read_dir(run.join(part)).into_iter().flatten() {
                seen.insert(format!("state {}", entry?.path().display()));
            }
        }
        let ours = [run.to_string_lossy().into_owned(), cluster.data().to_string_lossy().into_owned()];
        for line in std::fs::read_to_string("/proc/self/mountinfo")?.lines() {
            let target = line.split(' ').nth(4).unwrap_or_default();
            if ours.iter().any(|o| target.starts_with(o)) {
                seen.insert(format!("mount {target}"));
            }
        }
        pod_cgroups(Path::new("/sys/fs/cgroup"), &format!("corten-{}", cluster.name()), false, &mut seen);
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.starts_with("corten-shim ") {
                seen.insert(format!("process {} {command}", entry.file_name().to_string_lossy()));
            }
        }
        for entry in std::fs::read_dir("/sys/class/net")?.flatten() {
            seen.insert(format!("link {}", entry.file_name().to_string_lossy()));
        }
        Ok(Kept(seen))
    }

    fn since(&self, before: &Kept) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

/// Cgroups of pods below the cluster's.
fn pod_cgroups(dir: &Path, root: &str, below: bool, seen: &mut std::collections::BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        if below && name.starts_with("pod") {
            seen.insert(format!("cgroup {}", entry.path().display()));
        }
        pod_cgroups(&entry.path(), root, below || name == root, seen);
    }
}

/// Numbers by chance from a seed that is told when a test fails.
struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    fn new() -> Chance {
        let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |t| t.subsec_nanos().into());
        Chance { seed, state: seed }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % end
    }
}
