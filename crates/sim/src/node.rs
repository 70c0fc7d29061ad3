//! Nodes that pretend: pods run, get ready, end and go after random times.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use corten_auth::User;
use corten_base::{Clock, Entropy, Istr};
use corten_cache::{Cache, Scope};
use corten_client::{Api, DeleteOptions, PatchKind, Target, Write};
use corten_kinds::id;
use corten_object::{Object, ObjectKey, time};
use corten_tree::{Tree, tree};
use corten_views::Pod;
use tokio::sync::watch;

use crate::cluster::{Cluster, insist};
use crate::executor::Sim;

/// Registers nodes and starts the agent of all of them.
pub(crate) fn start(cluster: &Cluster, count: usize) {
    let api = cluster.api(User::admin());
    let clock = cluster.sim.clock();
    let nodes: Vec<String> = (0..count).map(|i| format!("node-{i}")).collect();
    let (registering, registered) = (api.clone(), nodes.clone());
    let now = clock.now();
    let timer = clock.clone();
    cluster.sim.block_on(async move {
        for name in &registered {
            register(&*registering, &*timer, name, &time::format(now)).await;
        }
    });
    let agent =
        Agent { sim: cluster.sim.clone(), clock, cache: cluster.cache.clone(), api, entropy: cluster.entropy.clone() };
    cluster.sim.start(Box::pin(agent.run()));
}

async fn register(api: &dyn Api, clock: &dyn Clock, name: &str, now: &str) {
    let key = ObjectKey::new(id::NODE, "", name);
    let mut labels = Tree::map();
    labels.insert("kubernetes.io/hostname", name);
    let body = tree!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
    insist(api, clock, Write::Create { target: Target::object(key.clone()), body }).await;
    let amounts = || tree!({"cpu": "64", "memory": "256Gi", "pods": "500"});
    let condition = tree!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready",
        "lastHeartbeatTime": now, "lastTransitionTime": now});
    let body = tree!({"status": {"capacity": (amounts()), "allocatable": (amounts()), "conditions": [(condition)]}});
    insist(api, clock, Write::Patch { target: Target::status(key), patch: PatchKind::Merge, body }).await;
}

#[derive(Clone)]
struct Agent {
    sim: Sim,
    clock: Arc<dyn Clock>,
    cache: Cache,
    api: Arc<dyn Api>,
    entropy: Arc<dyn Entropy>,
}

impl Agent {
    async fn run(self) {
        // By uid: tells a pod's worker that the pod is to go.
        let mut workers: HashMap<Istr, watch::Sender<bool>> = HashMap::new();
        loop {
            let (pods, revision) = {
                let world = self.cache.read();
                (world.list(id::POD).cloned().collect::<Vec<_>>(), world.revision())
            };
            for pod in &pods {
                self.observe(pod, &mut workers);
            }
            let Ok(mut cursor) = self.cache.cursor(Scope::Kind(id::POD), revision) else { continue };
            while let Ok(events) = cursor.next_batch(64).await {
                for event in events {
                    match &event.object {
                        Some(pod) => self.observe(pod, &mut workers),
                        None => drop(event.previous.as_ref().and_then(|p| workers.remove(&p.head.uid))),
                    }
                }
            }
        }
    }

    fn observe(&self, object: &Arc<Object>, workers: &mut HashMap<Istr, watch::Sender<bool>>) {
        let Ok(pod) = object.view::<Pod>() else { return };
        if !pod.is_scheduled() {
            return;
        }
        let worker = workers.entry(object.head.uid.clone()).or_insert_with(|| {
            let (sender, receiver) = watch::channel(false);
            self.sim.start(Box::pin(self.clone().work(object.clone(), receiver)));
            sender
        });
        if pod.is_terminating() {
            worker.send_replace(true);
        }
    }

    fn chance(&self, percent: u64) -> bool {
        self.entropy.u64() % 100 < percent
    }

    /// Sleeps up to so many milliseconds; true if the pod is to go meanwhile.
    async fn pause(&self, millis_max: u64, stop: &mut watch::Receiver<bool>) -> bool {
        let pause = self.clock.sleep(Duration::from_millis(self.entropy.u64() % millis_max));
        tokio::select! {
            biased;
            ended = stop.wait_for(|stop| *stop) => ended.is_ok(),
            () = pause => false,
        }
    }

    /// One pod's life.
    async fn work(self, pod: Arc<Object>, mut stop: watch::Receiver<bool>) {
        let Ok(view) = pod.view::<Pod>() else { return };
        let ends = view.spec.restart_policy != "Always";
        let mut running = false;
        let mut stopping = view.is_terminating() || self.pause(3000, &mut stop).await;
        if !stopping {
            running = true;
            self.status(&pod, "Running", None).await;
            if ends {
                stopping = self.pause(20_000, &mut stop).await;
                if !stopping {
                    let ok = self.chance(80);
                    self.status(&pod, if ok { "Succeeded" } else { "Failed" }, Some(i64::from(!ok))).await;
                    running = false;
                }
            }
        }
        if !stopping && stop.wait_for(|stop| *stop).await.is_err() {
            return;
        }
        if self.chance(50) {
            self.clock.sleep(Duration::from_millis(self.entropy.u64() % 2000)).await;
        }
        if running || view.status.phase.is_empty() {
            self.status(&pod, "Failed", Some(143)).await;
        }
        let options =
            DeleteOptions { grace_seconds: Some(0), uid: Some(pod.head.uid.to_string()), ..DeleteOptions::default() };
        insist(&*self.api, &*self.clock, Write::Delete { key: pod.key(), options }).await;
    }

    async fn status(&self, pod: &Arc<Object>, phase: &str, exit: Option<i64>) {
        let Ok(view) = pod.view::<Pod>() else { return };
        let now = time::format(self.clock.now());
        let ready = phase == "Running";
        let truth = if ready { "True" } else { "False" };
        let condition = |kind: &str, status: &str| tree!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": (now.as_str())});
        let conditions = vec![
            condition("PodScheduled", "True"),
            condition("Initialized", "True"),
            condition("ContainersReady", truth),
            condition("Ready", truth),
        ];
        let state = match exit {
            None => tree!({"running": {"startedAt": (now.as_str())}}),
            Some(code) => {
                tree!({"terminated": {"exitCode": code, "startedAt": (now.as_str()), "finishedAt": (now.as_str())}})
            }
        };
        let statuses: Vec<Tree> = (view.spec.containers.iter())
            .map(|c| {
                let image = if c.image.is_empty() { "image" } else { &c.image };
                tree!({"name": (c.name.as_str()), "state": (state.clone()), "ready": ready, "restartCount": 0,
                    "image": image, "imageID": "", "started": ready})
            })
            .collect();
        let n = pod.head.uid.bytes().fold(0u32, |n, b| n.wrapping_mul(31).wrapping_add(b.into()));
        let ip = format!("10.42.{}.{}", (n >> 8) & 0xff, n & 0xff);
        let body = tree!({
            "metadata": {"uid": (pod.head.uid.as_str())},
            "status": {"phase": phase, "conditions": conditions, "containerStatuses": statuses, "hostIP": "192.0.2.1",
                "podIP": (ip.as_str()), "podIPs": [{"ip": (ip.as_str())}], "startTime": (now.as_str())}
        });
        let write = Write::Patch { target: Target::status(pod.key()), patch: PatchKind::Merge, body };
        insist(&*self.api, &*self.clock, write).await;
    }
}
