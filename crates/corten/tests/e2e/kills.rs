//! The server is killed at random moments, again and again, while it has all hands full.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use corten_base::{Clock as _, SystemClock};
use corten_client::{HttpClient, exec, kubeconfig};
use corten_object::Status;
use corten_testkit::cluster::Cluster;
use corten_testkit::leftovers::PodsKept;
use corten_testkit::registry::{Content, Registry, put_blob, put_manifest};
use corten_testkit::{debian, run, text};
use corten_tree::{Tree, tree};
use hyper::Method;

use crate::{namespace, shell_pod};

/// Kills of the server: the short form, unless this variable names another count.
const KILLS: usize = 8;
const KILLS_VARIABLE: &str = "CORTEN_TEST_KILLS";
/// Pods that run all the time.
const STEADY: usize = 4;
/// A kill comes so many milliseconds after the load began, at most.
const DELAY_MAX_MS: u64 = 500;
/// Images that are pulled in turn; each is removed before its turn comes again.
const IMAGES: usize = 4;
/// Bytes of each image that no other has.
const OWN_BYTES: usize = 24 << 20;
const PODS: &str = "/api/v1/namespaces/kills/pods";

/// What the kills have hit.
#[derive(Debug, Default)]
struct Hits {
    /// A pod was starting.
    starting: usize,
    /// A pod waited for its image.
    pulling: usize,
    /// A pod was going.
    ending: usize,
    /// A command was running.
    execs: usize,
}

/// The server is killed at random moments while pods start and end, images are pulled, commands run, logs are followed and probes ask: no
/// container is restarted for it, and when the pods have gone nothing of them is left.
pub(crate) fn killed_again_and_again(cluster: &mut Cluster) -> Result<()> {
    let kills = std::env::var(KILLS_VARIABLE).ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let before = kept(cluster)?;
    let images = Images::serve(&cluster.data().join("kills"))?;
    namespace(cluster, "kills")?;
    for n in 0..STEADY {
        let pod = shell_pod(&format!("steady-{n}"), "touch /tmp/up; while true; do sleep 1; done");
        let probe = "    readinessProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1}\n";
        cluster.kubectl_with(&["-n", "kills", "apply", "-f", "-"], &(pod + probe))?;
    }
    cluster.kubectl(&["-n", "kills", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let steady = runtime.block_on(instances(cluster))?;
    ensure!(steady.len() == STEADY, "{steady:?}");
    let mut chance = Chance::new();
    let mut hits = Hits::default();
    let mut down = Duration::ZERO;
    for kill in 0..kills {
        let about = |seed: u64| format!("after kill {kill}, seed {seed}");
        let busy = runtime.block_on(busy(cluster, &images, kill, chance.below(DELAY_MAX_MS), &mut hits));
        let busy = busy.with_context(|| about(chance.seed))?;
        cluster.kill_server()?;
        drop(busy);
        let began = Instant::now();
        // Its pod has been gone for a while; a store that nobody has open forgets it.
        let next = images.name(kill + 1);
        let _ = cluster.corten(&["image", "rm", &next]);
        cluster.start().with_context(|| about(chance.seed))?;
        down += began.elapsed();
        runtime.block_on(unharmed(cluster, &steady)).with_context(|| about(chance.seed))?;
    }
    eprintln!(
        "{kills} kills, seed {}: {hits:?}, {} ms from kill to Ready",
        chance.seed,
        down.as_millis() / kills as u128
    );
    if kills >= 50 {
        // Load that is over before the kills come proves nothing.
        let least = [hits.starting, hits.pulling, hits.ending, hits.execs].into_iter().min().unwrap_or(0);
        ensure!(least >= kills / 10, "the load was too light: {hits:?}");
    }
    let all = "app in (steady-0,steady-1,steady-2,steady-3)";
    cluster.kubectl(&["-n", "kills", "wait", "--for=condition=Ready", "pod", "-l", all, "--timeout=30s"])?;
    runtime.block_on(unharmed(cluster, &steady)).with_context(|| format!("at the end, seed {}", chance.seed))?;
    cluster.kubectl(&["delete", "namespace", "kills", "--timeout=120s"])?;
    // Deleted pods are gone from the API when their containers are; their last files go right after.
    let began = Instant::now();
    loop {
        let left = kept(cluster)?.since(&before);
        if left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(20) {
            bail!("{kills} kills, seed {}: left behind {left:?}", chance.seed);
        }
        pause(Duration::from_millis(100));
    }
}

/// Files, mounts, cgroups and processes of others tell nobody that they go.
#[allow(clippy::disallowed_methods, reason = "there is no event to wait for")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn kept(cluster: &Cluster) -> Result<PodsKept> {
    PodsKept::look(cluster.name(), cluster.data())
}

fn client(cluster: &Cluster) -> Result<HttpClient> {
    Ok(HttpClient::new(&kubeconfig::load(&[cluster.kubeconfig()], "")?)?)
}

/// What keeps the server busy until it is dropped.
type Busy = (
    HttpClient,
    Result<(exec::ExecInput, exec::ExecOutput), Status>,
    Result<hyper::Response<hyper::body::Incoming>, Status>,
);

/// Gives the server work, waits a moment and notes what it is at then.
async fn busy(cluster: &Cluster, images: &Images, kill: usize, delay_ms: u64, hits: &mut Hits) -> Result<Busy> {
    let client = client(cluster)?;
    let pod = |name: String, image: &str, policy: &str| {
        tree!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 1, "restartPolicy": "Always",
                "containers": [{"name": "main", "image": image, "imagePullPolicy": policy,
                    "command": ["sh", "-c", "echo began; sleep 100000"]}]
            }
        })
    };
    let churn = pod(format!("churn-{kill}"), "test.local/busybox:1", "IfNotPresent");
    let pull = pod(format!("pull-{kill}"), &images.name(kill), "Always");
    let delete = async |name: String| match kill.checked_sub(2) {
        None => Ok(()),
        Some(old) => match client.json(Method::DELETE, &format!("{PODS}/{name}-{old}"), "", None).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        },
    };
    let create = async |body: &Tree| client.json(Method::POST, PODS, "application/json", Some(body)).await.map(drop);
    let command = format!("{PODS}/steady-0/exec?command=sleep&command=3&stdout=true&container=main");
    let logs = format!("{PODS}/steady-1/log?follow=true");
    let (gone, gone_too, made, made_too, exec, logs) = futures::join!(
        delete("churn".into()),
        delete("pull".into()),
        create(&churn),
        create(&pull),
        exec::open(&client, &command),
        client.send(Method::GET, &logs, &[], Default::default()),
    );
    gone.and(gone_too).and(made).and(made_too)?;
    SystemClock.sleep(Duration::from_millis(delay_ms)).await;
    let list = client.json(Method::GET, PODS, "", None).await?;
    let is = |pod: &&Tree, name: String, phase: &str| {
        pod.str_at("metadata.name") == name && pod.str_at("status.phase") == phase
    };
    let pods = list.list_at("items");
    hits.starting += usize::from(pods.iter().any(|pod| is(&pod, format!("churn-{kill}"), "Pending")));
    hits.pulling += usize::from(pods.iter().any(|pod| is(&pod, format!("pull-{kill}"), "Pending")));
    hits.ending += usize::from(pods.iter().any(|pod| pod.path("metadata.deletionTimestamp").is_some()));
    hits.execs += usize::from(exec.is_ok());
    // A node that has only just begun may not know its pods yet: then nobody follows their logs this time.
    Ok((client, exec, logs))
}

type Instances = BTreeMap<String, (String, i64)>;

/// No pod has been restarted, and those that run all the time have the containers that they had.
async fn unharmed(cluster: &Cluster, steady: &Instances) -> Result<()> {
    let mut now = instances(cluster).await?;
    let restarted: Vec<_> = now.iter().filter(|(_, (_, restarts))| *restarts > 0).collect();
    ensure!(restarted.is_empty(), "restarted {restarted:?}");
    now.retain(|name, _| name.starts_with("steady-"));
    ensure!(now == *steady, "{steady:?} became {now:?}");
    Ok(())
}

/// The pods that nobody has deleted: container id and restart count of those that have a container.
async fn instances(cluster: &Cluster) -> Result<Instances> {
    let list = client(cluster)?.json(Method::GET, PODS, "", None).await?;
    let mut found = BTreeMap::new();
    for pod in list.list_at("items").iter().filter(|pod| pod.path("metadata.deletionTimestamp").is_none()) {
        let Some(status) = pod.list_at("status.containerStatuses").first() else { continue };
        let restarts = status.i64_at("restartCount").unwrap_or(0);
        let name = pod.str_at("metadata.name").to_owned();
        found.insert(name, (status.str_at("containerID").to_owned(), restarts));
    }
    Ok(found)
}

/// Images in a registry of others' making, that take a while to pull.
struct Images(Registry);

impl Images {
    fn serve(dir: &Path) -> Result<Images> {
        std::fs::create_dir_all(dir)?;
        let storage = dir.join("registry");
        let base = dir.join("base.tar");
        run(std::process::Command::new("tar").arg("-cf").arg(&base).arg("-C").arg(debian::busybox()?).arg("."))?;
        let base = blob(&storage, &base)?;
        let mut chance = Chance::new();
        for n in 0..IMAGES {
            let own = dir.join(format!("own-{n}"));
            let bytes: Vec<u8> =
                (0..OWN_BYTES / 4).flat_map(|_| (chance.below(1 << 31) as u32).to_le_bytes()).collect();
            std::fs::write(&own, bytes)?;
            let layer = dir.join(format!("own-{n}.tar"));
            let mut tar = std::process::Command::new("tar");
            run(tar.arg("-cf").arg(&layer).arg("-C").arg(dir).arg(own.file_name().context("it was joined")?))?;
            let own = blob(&storage, &layer)?;
            let ids: Vec<&str> = vec![&base.0, &own.0];
            let config = tree!({"architecture": (architecture()), "os": "linux", "config": {},
                "rootfs": {"type": "layers", "diff_ids": ids}});
            let config = document(&storage, dir, &config)?;
            let part = |(digest, size): &(String, u64), media: &str| {
                let size = i64::try_from(*size).unwrap_or(0);
                tree!({"mediaType": (format!("application/vnd.oci.image.{media}")), "digest": digest, "size": size})
            };
            let manifest = tree!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": (part(&config, "config.v1+json")),
                "layers": [(part(&base, "layer.v1.tar")), (part(&own, "layer.v1.tar"))]});
            let (digest, _) = document(&storage, dir, &manifest)?;
            let manifest = manifest.to_json();
            put_manifest(&storage, "kills", Some(&n.to_string()), &digest, Content::Bytes(&manifest))?;
        }
        Ok(Images(Registry::start(&storage, &[], &[])?))
    }

    /// The image of a turn.
    fn name(&self, turn: usize) -> String {
        format!("{}/kills:{}", self.0.address, turn % IMAGES)
    }
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// Puts a file into the registry: digest and size.
fn blob(storage: &Path, file: &PathBuf) -> Result<(String, u64)> {
    let sum = text(std::process::Command::new("sha256sum").arg(file))?;
    let digest = format!("sha256:{}", sum.split_whitespace().next().unwrap_or_default());
    put_blob(storage, "kills", &digest, Content::File(file))?;
    Ok((digest, std::fs::metadata(file)?.len()))
}

fn document(storage: &Path, dir: &Path, document: &Tree) -> Result<(String, u64)> {
    let file = dir.join("document");
    std::fs::write(&file, document.to_json())?;
    let put = blob(storage, &file)?;
    std::fs::remove_file(&file)?;
    Ok(put)
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
