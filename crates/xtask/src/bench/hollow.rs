//! Nodes that pretend, the same for every API server: pods run as soon as they are placed, end at once if they are to end, and
//! go as soon as they are to go.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use corten_base::{Clock as _, OnStop, SystemClock, Tasks};
use corten_client::HttpClient;
use corten_client::kubeconfig::Connection;
use corten_tree::{Tree, tree};
use futures::StreamExt as _;
use hyper::Method;
use tokio::sync::{Semaphore, watch};

/// How many nodes there are, and how many pods each may hold.
const NODES: usize = 20;
const PODS_MAX: i64 = 250;
/// How many requests the nodes have under way.
const REQUESTS_MAX: usize = 32;
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The nodes of one cluster; they end with it.
pub(super) struct Hollow {
    tasks: Tasks,
    /// The labels `app` of all pods that are there, by uid.
    pods: watch::Receiver<HashMap<String, String>>,
}

impl Drop for Hollow {
    fn drop(&mut self) {
        self.tasks.begin_stop();
    }
}

fn now() -> String {
    SystemClock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Hollow {
    /// Registers the nodes and begins to play them.
    ///
    /// # Errors
    /// If a node cannot be registered or pods cannot be watched.
    pub async fn start(connection: &Connection) -> Result<Hollow> {
        let tasks = Tasks::tokio();
        let client = HttpClient::new(connection)?;
        for number in 0..NODES {
            register(&client, number).await?;
        }
        let beating = client.clone();
        tasks.spawn("heartbeats", OnStop::Abort, async move {
            loop {
                SystemClock.sleep(HEARTBEAT).await;
                for number in 0..NODES {
                    let at = SystemClock.now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
                    let body = tree!({"spec": {"renewTime": (at)}});
                    if let Err(error) = patch(&beating, &format!("{LEASES}/{}", name(number)), &body).await {
                        eprintln!("heartbeat: {error}");
                    }
                }
            }
        });
        let (counted, pods) = watch::channel(HashMap::new());
        let mut events = client
            .lines("/api/v1/pods?watch=true&resourceVersion=0&allowWatchBookmarks=true", "application/json")
            .await
            .map_err(|s| anyhow!("{s}"))?;
        let (gate, done) = (Arc::new(Semaphore::new(REQUESTS_MAX)), Arc::new(Mutex::new(HashSet::new())));
        let workers = tasks.clone();
        tasks.spawn("nodes", OnStop::Abort, async move {
            while let Some(event) = events.next().await {
                let Ok(event) = event else { break };
                let Some(pod) = event.path("object").filter(|o| o.str_at("kind") == "Pod") else { continue };
                let uid = pod.str_at("metadata.uid").to_owned();
                let gone = event.str_at("type") == "DELETED";
                counted.send_if_modified(|pods| match gone {
                    true => pods.remove(&uid).is_some(),
                    false => pods.insert(uid.clone(), pod.str_at("metadata.labels.app").to_owned()).is_none(),
                });
                let Some(step) = Step::of(pod).filter(|_| !gone) else { continue };
                if !done.lock().unwrap_or_else(PoisonError::into_inner).insert((uid, step)) {
                    continue;
                }
                let (client, gate, pod) = (client.clone(), gate.clone(), pod.clone());
                workers.spawn("pod", OnStop::Abort, async move {
                    let Ok(_permit) = gate.acquire().await else { return };
                    if let Err(error) = step.take(&client, &pod).await {
                        eprintln!("{step:?} of {}: {error}", pod.str_at("metadata.name"));
                    }
                });
            }
            eprintln!("the nodes' watch has ended");
        });
        Ok(Hollow { tasks, pods })
    }

    /// Waits until so many pods have this label `app`.
    ///
    /// # Errors
    /// If the nodes have ended.
    pub async fn pods(&self, app: &str, count: usize) -> Result<()> {
        let mut pods = self.pods.clone();
        pods.wait_for(|pods| pods.values().filter(|a| *a == app).count() == count).await?;
        Ok(())
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
