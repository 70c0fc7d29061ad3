//! Nodes that pretend, the same for every API server: pods run as soon as they are placed, end at once if they are to end, and
//! go as soon as they are to go.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use corten_base::{Clock as _, OnStop, SystemClock, Tasks};
use corten_client::HttpClient;
use corten_client::kubeconfig::Connection;
use corten_tree::{Tree, tree};
use futures::StreamExt as _;
use hyper::Method;
use tokio::sync::Semaphore;

/// How many nodes there are, and how many pods each may hold.
const NODES: usize = 20;
const PODS_MAX: i64 = 250;
/// How many requests the nodes have under way.
const REQUESTS_MAX: usize = 32;
const HEARTBEAT: Duration = Duration::from_secs(10);

fn now() -> String {
    SystemClock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Registers the nodes, says `ready`, and plays them until the future is dropped. Prints how many pods have which label `app`
/// whenever that changes: `web 3`.
///
/// # Errors
/// If a node cannot be registered, or the pods cannot be listed or watched.
pub(crate) async fn play(connection: &Connection) -> Result<()> {
    let client = HttpClient::new(connection)?;
    for number in 0..NODES {
        register(&client, number).await?;
    }
    let tasks = Tasks::tokio();
    tasks.spawn("heartbeats", OnStop::Abort, beat(client.clone()));
    let mut nodes = Nodes {
        client,
        tasks,
        gate: Arc::new(Semaphore::new(REQUESTS_MAX)),
        done: HashSet::new(),
        pods: Pods::default(),
    };
    // What is followed has a connection of its own.
    let following = HttpClient::new(connection)?;
    say("ready")?;
    loop {
        nodes.follow(&following).await?;
        // Upstream's server ends the watches of those who do not keep up with it.
        eprintln!("the nodes' watch has ended, they list their pods again");
    }
}

struct Nodes {
    client: HttpClient,
    tasks: Tasks,
    gate: Arc<Semaphore>,
    /// What was done for which pod.
    done: HashSet<(String, Step)>,
    pods: Pods,
}

impl Nodes {
    /// Lists all pods and follows them until the watch ends.
    async fn follow(&mut self, client: &HttpClient) -> Result<()> {
        let list = client.json(Method::GET, "/api/v1/pods", "", None).await.map_err(|s| anyhow!("{s}"))?;
        let listed: HashSet<&str> = list.list_at("items").iter().map(|pod| pod.str_at("metadata.uid")).collect();
        self.pods.keep(&listed).iter().try_for_each(|line| say(line))?;
        for pod in list.list_at("items") {
            self.seen(pod, false)?;
        }
        let path = format!("/api/v1/pods?watch=true&resourceVersion={}", list.str_at("metadata.resourceVersion"));
        let mut events = client.lines(&path, "application/json").await.map_err(|s| anyhow!("{s}"))?;
        while let Some(Ok(event)) = events.next().await {
            match event.str_at("type") {
                "ERROR" => break,
                kind => event.path("object").map_or(Ok(()), |pod| self.seen(pod, kind == "DELETED"))?,
            }
        }
        Ok(())
    }

    /// Counts a pod, and does for it what a node does next.
    fn seen(&mut self, pod: &Tree, gone: bool) -> Result<()> {
        let uid = pod.str_at("metadata.uid");
        if let Some(line) = self.pods.change(uid, pod.str_at("metadata.labels.app"), gone) {
            say(&line)?;
        }
        let Some(step) = Step::of(pod).filter(|_| !gone) else { return Ok(()) };
        if !self.done.insert((uid.to_owned(), step)) {
            return Ok(());
        }
        let (client, gate, pod) = (self.client.clone(), self.gate.clone(), pod.clone());
        self.tasks.spawn("pod", OnStop::Abort, async move {
            let Ok(_permit) = gate.acquire().await else { return };
            if let Err(error) = step.take(&client, &pod).await {
                eprintln!("{step:?} of {}: {error}", pod.str_at("metadata.name"));
            }
        });
        Ok(())
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

async fn beat(client: HttpClient) {
    loop {
        SystemClock.sleep(HEARTBEAT).await;
        for number in 0..NODES {
            let at = SystemClock.now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            let body = tree!({"spec": {"renewTime": (at)}});
            if let Err(error) = patch(&client, &format!("{LEASES}/{}", name(number)), &body).await {
                eprintln!("heartbeat: {error}");
            }
        }
    }
}

/// The labels `app` of all pods that are there, by uid, and how many there are of each.
#[derive(Default)]
struct Pods {
    apps: HashMap<String, String>,
    counts: HashMap<String, usize>,
}

impl Pods {
    /// Takes a pod in or out; what is new then.
    fn change(&mut self, uid: &str, app: &str, gone: bool) -> Option<String> {
        let changed = match gone {
            true => self.apps.remove(uid).is_some(),
            false => self.apps.insert(uid.to_owned(), app.to_owned()).is_none(),
        };
        let count = self.counts.entry(app.to_owned()).or_default();
        *count = if gone { count.saturating_sub(usize::from(changed)) } else { *count + usize::from(changed) };
        changed.then(|| format!("{app} {count}"))
    }

    /// Takes out those that are not among these; what is new then.
    fn keep(&mut self, uids: &HashSet<&str>) -> Vec<String> {
        let gone = self.apps.iter().filter(|(uid, _)| !uids.contains(uid.as_str()));
        let gone: Vec<(String, String)> = gone.map(|(uid, app)| (uid.clone(), app.clone())).collect();
        gone.iter().filter_map(|(uid, app)| self.change(uid, app, true)).collect()
    }
}

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

fn name(number: usize) -> String {
    format!("hollow-{number}")
}

async fn patch(client: &HttpClient, path: &str, body: &Tree) -> Result<()> {
    let kind = "application/merge-patch+json";
    client.json(Method::PATCH, path, kind, Some(body)).await.map(drop).map_err(|s| anyhow!("PATCH {path}: {s}"))
}

async fn register(client: &HttpClient, number: usize) -> Result<()> {
    let name = name(number);
    let post = |path: &'static str, body: Tree| async move {
        match client.json(Method::POST, path, "application/json", Some(&body)).await {
            Err(status) if status.code != 409 => Err(anyhow!("POST {path}: {status}")),
            _ => Ok(()),
        }
    };
    let mut labels = Tree::map();
    labels.insert("kubernetes.io/hostname", name.as_str());
    let node = tree!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": (name.as_str()), "labels": (labels)}});
    post("/api/v1/nodes", node).await?;
    let amounts = || tree!({"cpu": "64", "memory": "256Gi", "pods": (PODS_MAX.to_string())});
    let condition = tree!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready",
        "lastHeartbeatTime": (now()), "lastTransitionTime": (now())});
    let body = tree!({"status": {"capacity": (amounts()), "allocatable": (amounts()), "conditions": [(condition)]}});
    patch(client, &format!("/api/v1/nodes/{name}/status"), &body).await?;
    let at = SystemClock.now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let spec = tree!({"holderIdentity": (name.as_str()), "leaseDurationSeconds": 40, "renewTime": (at)});
    let lease = tree!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": (name.as_str()), "namespace": "kube-node-lease"}, "spec": (spec)});
    post(LEASES, lease).await
}

/// What a node does next for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Run,
    End,
    Remove,
}

impl Step {
    fn of(pod: &Tree) -> Option<Step> {
        if pod.str_at("spec.nodeName").is_empty() {
            return None;
        }
        let ends = pod.str_at("spec.restartPolicy") == "Never";
        match pod.str_at("status.phase") {
            _ if pod.path("metadata.deletionTimestamp").is_some() => Some(Step::Remove),
            "Running" if ends => Some(Step::End),
            "Succeeded" | "Failed" | "Running" => None,
            _ => Some(Step::Run),
        }
    }

    async fn take(self, client: &HttpClient, pod: &Tree) -> Result<()> {
        let path =
            format!("/api/v1/namespaces/{}/pods/{}", pod.str_at("metadata.namespace"), pod.str_at("metadata.name"));
        if self == Step::Remove {
            let body = tree!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                "preconditions": {"uid": (pod.str_at("metadata.uid"))}});
            return match client.json(Method::DELETE, &path, "application/json", Some(&body)).await {
                Err(status) if status.code != 404 => Err(anyhow!("{status}")),
                _ => Ok(()),
            };
        }
        match patch(client, &format!("{path}/status"), &status(self, pod)).await {
            // It was deleted meanwhile: its next event says so.
            Err(error) if error.to_string().contains("not found") => Ok(()),
            outcome => outcome,
        }
    }
}

fn status(step: Step, pod: &Tree) -> Tree {
    let now = now();
    let running = step == Step::Run;
    let truth = if running { "True" } else { "False" };
    let condition =
        |kind: &str, status: &str| tree!({"type": kind, "status": status, "lastTransitionTime": (now.as_str())});
    let conditions = vec![
        condition("PodScheduled", "True"),
        condition("Initialized", "True"),
        condition("ContainersReady", truth),
        condition("Ready", truth),
    ];
    let state = match running {
        true => tree!({"running": {"startedAt": (now.as_str())}}),
        false => {
            tree!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": (now.as_str()), "finishedAt": (now.as_str())}})
        }
    };
    let containers: Vec<Tree> = (pod.list_at("spec.containers").iter())
        .map(|c| {
            tree!({"name": (c.str_at("name")), "image": (c.str_at("image")), "imageID": "", "ready": running,
                "restartCount": 0, "started": running, "state": (state.clone())})
        })
        .collect();
    let n = pod.str_at("metadata.uid").bytes().fold(0u32, |n, b| n.wrapping_mul(31).wrapping_add(b.into()));
    let ip = format!("10.{}.{}.{}", 64 + (n >> 16) % 64, (n >> 8) & 0xff, n & 0xff);
    tree!({"status": {"phase": (if running { "Running" } else { "Succeeded" }), "conditions": conditions,
        "containerStatuses": containers, "hostIP": "192.0.2.1", "podIP": (ip.as_str()), "podIPs": [{"ip": (ip.as_str())}],
        "startTime": (now.as_str())}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_count_once_however_often_they_change() {
        let mut pods = Pods::default();
        assert_eq!(pods.change("1", "web", false).as_deref(), Some("web 1"));
        assert_eq!(pods.change("1", "web", false), None);
        assert_eq!(pods.change("2", "web", false).as_deref(), Some("web 2"));
        assert_eq!(pods.change("3", "batch", false).as_deref(), Some("batch 1"));
        assert_eq!(pods.change("1", "web", true).as_deref(), Some("web 1"));
        assert_eq!(pods.change("1", "web", true), None);
        assert_eq!(pods.keep(&HashSet::from(["3"])), ["web 0"], "what no list has any more has gone");
    }
}
