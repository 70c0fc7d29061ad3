//! The part of `cargo xtask bench node` about a node that is full: hundreds of pods at once, each answering its probes, and their end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use corten_base::{Clock as _, SystemClock};
use corten_client::{HttpClient, http};
use corten_load::cpu_ticks;
use corten_testkit::leftovers::PodsKept;
use corten_tree::{Tree, tree};
use futures::StreamExt as _;
use hyper::Method;

use super::node::{Row, at_once, quantiles, shims};
use super::{Bench, PODS, delete_pods, pod, pod_body, pss_kib};

/// Seconds between two probes of a container; each has two.
const PERIOD_SECONDS: u64 = 10;
/// How long all pods must stay ready.
const WATCHED: Duration = Duration::from_secs(60);
/// What the node keeps of a pod goes right after the pod has gone from the API; it has so long for that.
const LEFT_MAX: Duration = Duration::from_secs(60);

/// Fills a new node with so many pods, watches them, and deletes them.
pub(super) async fn measure(bench: &mut Bench, count: usize) -> Result<Vec<Row>> {
    bench.start(&["--max-pods", &count.to_string()])?;
    let client = bench.client()?;
    let before = PodsKept::look(bench.name, &bench.data)?;
    // The images' layers are there after the first pods.
    pod(&client, "first").await?;
    delete_pods(&client).await?;
    nothing_left(bench, &before).await?;
    let server = i32::try_from(bench.child.as_ref().context("the server runs")?.id())?;
    let (used, began) = (cpu_ticks(&[server]), Instant::now());
    let (all, each) = at_once(bench, &client, count, body, is_ready).await?;
    let starting = cpu_part(&[server], used, began);
    let shims = shims(bench.name)?;
    ensure!(shims.len() >= count, "{count} pods run, but only {} shims were found", shims.len());
    let answered = Probes::read(&client).await?;
    let (used, used_by_shims, began) = (cpu_ticks(&[server]), cpu_ticks(&shims), Instant::now());
    stay_ready(&client, count).await?;
    let (steady, of_shims) = (cpu_part(&[server], used, began), cpu_part(&shims, used_by_shims, began));
    let probes = Probes::read(&client).await?.since(&answered);
    let expected = 2 * count as u64 * WATCHED.as_secs() / PERIOD_SECONDS;
    ensure!(probes.good >= expected * 9 / 10, "{} probes were answered, {expected} were due", probes.good);
    let memory = [vec![server], shims.clone()].map(|pids| pss_kib(&pids) as f64 / 1024.0);
    let began = Instant::now();
    client.json(Method::DELETE, PODS, "", None).await.context("deleting all pods with one request")?;
    let accepted = began.elapsed();
    delete_pods(&client).await?;
    let gone = began.elapsed();
    nothing_left(bench, &before).await?;
    let nothing = began.elapsed();
    let row = |figure: &str, ours: String| Row {
        figure: format!("{count} pods: {figure}"),
        ours,
        theirs: String::new(),
        target: String::new(),
    };
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    Ok(vec![
        row("created at once, all Running and Ready", seconds(all)),
        row("of these, create to Ready", quantiles(&each)),
        row("CPU of the server until then", format!("{:.0} % of a core", starting * 100.0)),
        row(
            &format!(
                "HTTP probes answered in the next {} s, every {PERIOD_SECONDS} s two of each pod",
                WATCHED.as_secs()
            ),
            format!("{}, {} failed, 0 restarts", probes.good, probes.bad),
        ),
        row(
            "CPU meanwhile: the server, all shims",
            format!("{:.1} %, {:.1} % of a core", steady * 100.0, of_shims * 100.0),
        ),
        row("memory (PSS): the server, all shims", format!("{:.1} MiB, {:.1} MiB", memory[0], memory[1])),
        row(
            "deleted with one request (each serves 3 s more): accepted, gone from the API",
            format!("{}, {}", seconds(accepted), seconds(gone)),
        ),
        row("no mount, link, cgroup, process or file left", format!("after {}", seconds(nothing))),
    ])
}

/// A web server that must answer both of its probes.
fn body(name: &str) -> Tree {
    let mut body = pod_body(name);
    let period = PERIOD_SECONDS as i64;
    let container = tree!({
        "name": "main", "image": "corten.dev/web:v1",
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": period},
        "livenessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": period}
    });
    body.set("spec.containers", Tree::List(vec![container]));
    // They end when they are asked to: the API has them until they have.
    body.set("spec.terminationGracePeriodSeconds", 30);
    body
}

fn is_ready(pod: &Tree) -> bool {
    pod.list_at("status.conditions").iter().any(|c| c.str_at("type") == "Ready" && c.str_at("status") == "True")
}

/// The part of a core that processes have used since then.
fn cpu_part(pids: &[i32], ticks_before: u64, began: Instant) -> f64 {
    cpu_ticks(pids).saturating_sub(ticks_before) as f64 / 100.0 / began.elapsed().as_secs_f64()
}

/// Waits until nothing is left of the pods.
async fn nothing_left(bench: &Bench, before: &PodsKept) -> Result<()> {
    let began = Instant::now();
    loop {
        let left = PodsKept::look(bench.name, &bench.data)?.since(before);
        if left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > LEFT_MAX {
            bail!("{} things are left, among them {:?}", left.len(), left.iter().take(5).collect::<Vec<_>>());
        }
        // Files, mounts and cgroups tell nobody that they go.
        SystemClock.sleep(Duration::from_millis(50)).await;
    }
}

/// How many probes have been answered, well or not.
#[derive(Debug, PartialEq, Eq)]
struct Probes {
    good: u64,
    bad: u64,
}

impl Probes {
    /// As the node counts them.
    async fn read(client: &HttpClient) -> Result<Probes> {
        let nodes = client.json(Method::GET, "/api/v1/nodes", "", None).await?;
        let node = nodes.list_at("items").first().context("there is a node")?.str_at("metadata.name").to_owned();
        let path = format!("/api/v1/nodes/{node}/proxy/metrics/probes");
        let mut body = http::byte_stream(client.send(Method::GET, &path, &[], bytes::Bytes::new()).await?);
        let mut text = Vec::new();
        while let Some(chunk) = body.next().await {
            text.extend_from_slice(&chunk?);
        }
        Ok(Probes::of(&String::from_utf8_lossy(&text)))
    }

    fn of(metrics: &str) -> Probes {
        let sum = |result: &str| {
            let counted = metrics.lines().filter(|line| !line.starts_with('#') && line.contains(result));
            counted.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
        };
        Probes { good: sum("result=\"successful\""), bad: sum("result=\"failed\"") }
    }

    fn since(&self, before: &Probes) -> Probes {
        Probes { good: self.good.saturating_sub(before.good), bad: self.bad.saturating_sub(before.bad) }
    }
}

/// Watches the pods for a while: all must be ready all the time, none may be restarted.
async fn stay_ready(client: &HttpClient, count: usize) -> Result<()> {
    let list = client.json(Method::GET, PODS, "", None).await?;
    let revision = list.str_at("metadata.resourceVersion").to_owned();
    let fault = |pod: &Tree| {
        let restarts = pod.list_at("status.containerStatuses").iter().any(|s| s.i64_at("restartCount") != Some(0));
        (restarts || !is_ready(pod)).then(|| pod.str_at("metadata.name").to_owned())
    };
    if let Some(name) = list.list_at("items").iter().find_map(fault) {
        bail!("{name} was ready and is not, or was restarted: {}", story(client, &name).await?);
    }
    ensure!(list.list_at("items").len() == count, "of {count} pods there are {}", list.list_at("items").len());
    let mut events = client.lines(&format!("{PODS}?watch=true&resourceVersion={revision}"), "application/json").await?;
    let watching = async {
        while let Some(event) = events.next().await {
            if let Some(name) = event?.get("object").and_then(fault) {
                bail!("{name} did not answer its probes, or was restarted: {}", story(client, &name).await?);
            }
        }
        bail!("the watch of the pods ended")
    };
    match tokio::time::timeout(WATCHED, watching).await {
        Ok(outcome) => outcome,
        Err(_) => Ok(()),
    }
}

/// A pod's events.
async fn story(client: &HttpClient, pod: &str) -> Result<String> {
    let path = format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3D{pod}");
    let list = client.json(Method::GET, &path, "", None).await?;
    let told = list.list_at("items").iter().map(|event| {
        let at = |key| event.str_at(key).to_owned();
        format!("{} {} {}x{}", at("lastTimestamp"), at("reason"), at("message"), event.i64_at("count").unwrap_or(1))
    });
    Ok(told.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_counted_by_result() {
        let before = Probes::of("# TYPE prober_probe_total counter\n");
        assert_eq!(before, Probes { good: 0, bad: 0 });
        let text = "prober_probe_total{pod=\"a\",result=\"successful\"} 12\n\
                    prober_probe_total{pod=\"a\",result=\"failed\"} 1\nprober_probe_total{pod=\"b\",result=\"successful\"} 3\n";
        assert_eq!(Probes::of(text).since(&Probes { good: 5, bad: 1 }), Probes { good: 10, bad: 0 });
    }
}
