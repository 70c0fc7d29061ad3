//! Nodes that pretend: pods are pulled, run, get ready, crash, end and go after random times; nodes are slow, cut off, or go.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use corten_auth::User;
use corten_base::{Clock, Entropy, Istr, Timestamp};
use corten_cache::Scope;
use corten_client::{DeleteOptions, PatchKind, Target, Write};
use corten_kinds::id;
use corten_object::{Object, ObjectKey, time};
use corten_tree::{Tree, tree};
use corten_views::{Node, Pod};
use tokio::sync::watch;

use crate::cluster::{Cluster, Process, Reconnecting};
use crate::executor::Sim;

/// How often a node says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Where nodes say so.
const LEASES: &str = "kube-node-lease";
/// An image with this in its name cannot be pulled.
pub(crate) const BAD_IMAGE: &str = "bad";
/// Annotations of a pod that tell what becomes of it: how many of a hundred fail, and whether it would run for hours.
pub(crate) const FAILING: &str = "sim/failing";
pub(crate) const ENDLESS: &str = "sim/endless";

/// A machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Whether it reaches the API.
    pub heard: bool,
    /// Since when that is so.
    pub since: Timestamp,
    slow: bool,
}

#[derive(Default)]
struct State {
    machines: BTreeMap<String, Machine>,
    made: u64,
    /// By pod's key: uid and machine of each container that runs.
    running: BTreeMap<ObjectKey, Vec<(Istr, String)>>,
    /// By uid: how a pod's worker is told something.
    workers: HashMap<Istr, watch::Sender<Orders>>,
    faults: Vec<String>,
}

/// What a pod's worker is told. Numbers that grow are calls.
#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    /// The pod is to go.
    stop: bool,
    /// The machine is gone.
    dead: bool,
    /// The API does not show what the node knows.
    repost: u64,
    /// The container ends.
    crash: u64,
}

/// All nodes of a cluster; clones share them.
#[derive(Clone)]
pub(crate) struct Nodes {
    sim: Sim,
    clock: Arc<dyn Clock>,
    api: Reconnecting,
    entropy: Arc<dyn Entropy>,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<()>>,
}

impl Nodes {
    /// Registers machines and starts the agent of all of them.
    pub fn start(cluster: &Cluster, count: u64) -> Nodes {
        let nodes = Nodes {
            sim: cluster.sim.clone(),
            clock: cluster.sim.clock(),
            api: cluster.api(User::admin()),
            entropy: cluster.entropy.clone(),
            state: Arc::default(),
            changed: Arc::new(watch::channel(()).0),
        };
        let adding = nodes.clone();
        cluster.sim.block_on(async move {
            for _ in 0..count {
                adding.add().await;
            }
        });
        cluster.sim.start(Box::pin(nodes.clone().follow(cluster.processes())));
        nodes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }

    /// The machines that are there.
    pub fn machines(&self) -> BTreeMap<String, Machine> {
        self.lock().machines.clone()
    }

    /// What was wrong on the machines since the last call.
    pub fn take_faults(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().faults)
    }

    /// The machine that a number chooses.
    fn chosen(&self, number: u64) -> Option<String> {
        let state = self.lock();
        state.machines.keys().nth((number % (state.machines.len().max(1) as u64)) as usize).cloned()
    }

    /// A new machine.
    pub async fn add(&self) {
        let name = {
            let mut state = self.lock();
            state.made += 1;
            let name = format!("node-{}", state.made);
            let machine = Machine { heard: true, since: self.sim.now(), slow: false };
            state.machines.insert(name.clone(), machine);
            name
        };
        self.register(&name).await;
        self.sim.start(Box::pin(self.clone().heartbeats(name)));
    }

    /// A machine goes for good with all that runs on it, and its node object; not the last one.
    pub async fn remove(&self, number: u64) {
        let Some(name) = self.chosen(number).filter(|_| self.lock().machines.len() > 1) else { return };
        self.update(|state| {
            state.machines.remove(&name);
            let mut gone = Vec::new();
            for running in state.running.values_mut() {
                gone.extend(running.extract_if(.., |(_, machine)| *machine == name).map(|(uid, _)| uid));
            }
            for uid in gone {
                if let Some(worker) = state.workers.get(&uid) {
                    worker.send_modify(|orders| orders.dead = true);
                }
            }
        });
        let key = ObjectKey::new(id::NODE, "", &name);
        self.api.insist(&*self.clock, Write::Delete { key, options: DeleteOptions::default() }).await;
    }

    /// A machine does not reach the API for a time.
    pub fn silence(&self, number: u64, seconds: u64) {
        self.for_a_time(number, seconds, |machine, now, begins| {
            (machine.heard, machine.since) = (!begins, now);
        });
    }

    /// A machine is slow for a time.
    pub fn slow(&self, number: u64, seconds: u64) {
        self.for_a_time(number, seconds, |machine, _, begins| machine.slow = begins);
    }

    fn for_a_time(&self, number: u64, seconds: u64, change: fn(&mut Machine, Timestamp, bool)) {
        let Some(name) = self.chosen(number) else { return };
        let nodes = self.clone();
        self.sim.start(Box::pin(async move {
            for begins in [true, false] {
                let now = nodes.sim.now();
                nodes.update(|state| {
                    if let Some(machine) = state.machines.get_mut(&name) {
                        change(machine, now, begins);
                    }
                });
                nodes.clock.sleep(Duration::from_secs(seconds)).await;
            }
        }));
    }

    /// A running container ends and comes back.
    pub fn crash(&self, number: u64) {
        let state = self.lock();
        let running: Vec<&Istr> = state.running.values().flatten().map(|(uid, _)| uid).collect();
        let Some(uid) = running.get((number % (running.len().max(1) as u64)) as usize) else { return };
        if let Some(worker) = state.workers.get(*uid) {
            worker.send_modify(|orders| orders.crash += 1);
        }
    }

    async fn register(&self, name: &str) {
        let now = time::format(self.clock.now());
        let key = ObjectKey::new(id::NODE, "", name);
        let mut labels = Tree::map();
        labels.insert("kubernetes.io/hostname", name);
        let body = tree!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
        self.api.insist(&*self.clock, Write::Create { target: Target::object(key.clone()), body }).await;
        let amounts = || tree!({"cpu": "64", "memory": "256Gi", "pods": "500"});
        let mut body = ready_status(&now);
        body.set("status.capacity", amounts());
        body.set("status.allocatable", amounts());
        let write = Write::Patch { target: Target::status(key), patch: PatchKind::Merge, body };
        self.api.insist(&*self.clock, write).await;
        let target = Target::object(ObjectKey::new(id::LEASE, LEASES, name));
        let body = tree!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": (micro(self.clock.now()))}});
        self.api.insist(&*self.clock, Write::Create { target, body }).await;
    }

    /// Says regularly that a machine is there, and sets right what others said about it meanwhile.
    async fn heartbeats(self, name: String) {
        loop {
            self.clock.sleep(HEARTBEAT).await;
            let Some(machine) = self.lock().machines.get(&name).cloned() else { return };
            if !machine.heard {
                continue;
            }
            let target = Target::object(ObjectKey::new(id::LEASE, LEASES, &name));
            let body = tree!({"spec": {"renewTime": (micro(self.clock.now()))}});
            // The next one comes soon.
            let _ = self.api.write(Write::Patch { target, patch: PatchKind::Merge, body }).await;
            let key = ObjectKey::new(id::NODE, "", &name);
            let node = self.api.cache().get(&key).and_then(|o| o.view::<Node>().ok());
            let ready = |n: &Node| n.status.conditions.iter().any(|c| c.r#type == "Ready" && c.is_true());
            if node.is_some_and(|n| !ready(&n)) {
                let body = ready_status(&time::format(self.clock.now()));
                let _ =
                    self.api.write(Write::Patch { target: Target::status(key), patch: PatchKind::Merge, body }).await;
            }
        }
    }

    /// Gives each pod on a machine a worker, and tells it what becomes of the pod.
    async fn follow(self, mut processes: watch::Receiver<Process>) {
        loop {
            let cache = processes.borrow_and_update().cache.clone();
            let (pods, revision) = {
                let world = cache.read();
                (world.list(id::POD).cloned().collect::<Vec<_>>(), world.revision())
            };
            let there: std::collections::HashSet<&str> = pods.iter().map(|pod| pod.head.uid.as_str()).collect();
            self.lock().workers.retain(|uid, _| there.contains(uid.as_str()));
            for pod in &pods {
                self.observe(pod);
            }
            let Ok(mut cursor) = cache.cursor(Scope::Kind(id::POD), revision) else { continue };
            loop {
                tokio::select! {
                    biased;
                    _ = processes.changed() => break,
                    events = cursor.next_batch(64) => match events {
                        Ok(events) => for event in events {
                            match (&event.object, &event.previous) {
                                (Some(pod), _) => self.observe(pod),
                                (None, Some(pod)) => drop(self.lock().workers.remove(&pod.head.uid)),
                                (None, None) => {}
                            }
                        },
                        Err(_gone) => break,
                    },
                }
            }
        }
    }

    fn observe(&self, object: &Arc<Object>) {
        let Ok(pod) = object.view::<Pod>() else { return };
        let mut state = self.lock();
        if !pod.is_scheduled() || !state.machines.contains_key(&pod.spec.node_name) {
            return;
        }
        let uid = &object.head.uid;
        if !state.workers.contains_key(uid) {
            let (sender, receiver) = watch::channel(Orders::default());
            self.sim.start(Box::pin(self.clone().work(object.clone(), receiver)));
            state.workers.insert(uid.clone(), sender);
        }
        let runs = state.running.get(&object.key()).is_some_and(|r| r.iter().any(|(running, _)| running == uid));
        let Some(worker) = state.workers.get(uid) else { return };
        if pod.is_terminating() {
            worker.send_modify(|orders| orders.stop = true);
        } else if runs && pod.status.phase == "Running" && !pod.is_ready() {
            worker.send_modify(|orders| orders.repost += 1);
        }
    }

    /// A pod's container begins on a machine; false if that is gone.
    fn begin(&self, pod: &Object, machine: &str) -> bool {
        let mut state = self.lock();
        if !state.machines.contains_key(machine) {
            return false;
        }
        let running = state.running.entry(pod.key()).or_default();
        running.push((pod.head.uid.clone(), machine.to_owned()));
        if running.len() > 1 {
            let text = format!("{} runs on {running:?} at once", pod.key());
            state.faults.push(text);
        }
        true
    }

    fn chance(&self, percent: u64) -> bool {
        self.entropy.u64() % 100 < percent
    }

    /// Waits until a machine reaches the API; false if it is gone.
    async fn heard(&self, machine: &str) -> bool {
        let mut changed = self.changed.subscribe();
        loop {
            match self.lock().machines.get(machine) {
                None => return false,
                Some(machine) if machine.heard => return true,
                Some(_) => {}
            }
            if changed.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Sleeps up to so many milliseconds, longer on a slow machine; false if the pod is to go meanwhile.
    async fn pause(&self, machine: &str, millis_max: u64, orders: &mut watch::Receiver<Orders>) -> bool {
        let slow = self.lock().machines.get(machine).is_some_and(|m| m.slow);
        let millis = self.entropy.u64() % millis_max * if slow { 10 } else { 1 };
        let pause = self.clock.sleep(Duration::from_millis(millis));
        tokio::select! {
            biased;
            _ = orders.wait_for(|o| o.stop || o.dead) => false,
            () = pause => true,
        }
    }

    /// One pod's life.
    async fn work(self, pod: Arc<Object>, mut orders: watch::Receiver<Orders>) {
        let Ok(view) = pod.view::<Pod>() else { return };
        let machine = view.spec.node_name.clone();
        let mut life = Life { nodes: &self, pod: &pod, view: &view, machine: &machine, running: false, sandbox: true };
        let mut ended = view.is_terminal();
        if !ended && !view.is_terminating() && life.start(&mut orders).await {
            ended = life.run(&mut orders).await;
        }
        // The stop is heard of only when the machine reaches the API.
        let dead = orders.wait_for(|o| o.stop || o.dead).await.is_ok_and(|o| o.dead);
        if dead || !self.heard(&machine).await {
            return;
        }
        if self.chance(50) {
            self.clock.sleep(Duration::from_millis(self.entropy.u64() % 2000)).await;
        }
        life.stop();
        if !ended {
            life.status("Failed", Some(143)).await;
        }
        let options =
            DeleteOptions { grace_seconds: Some(0), uid: Some(pod.head.uid.to_string()), ..DeleteOptions::default() };
        self.api.insist(&*self.clock, Write::Delete { key: pod.key(), options }).await;
    }
}

/// A pod on its machine.
struct Life<'l> {
    nodes: &'l Nodes,
    pod: &'l Arc<Object>,
    view: &'l Pod,
    machine: &'l str,
    running: bool,
    /// Whether its network namespace is there, or will be.
    sandbox: bool,
}

impl Life<'_> {
    /// Pulls the image and starts the container; false if the pod is to go.
    async fn start(&mut self, orders: &mut watch::Receiver<Orders>) -> bool {
        let nodes = self.nodes;
        if !nodes.pause(self.machine, 3000, orders).await {
            return false;
        }
        let bad = self.view.spec.containers.iter().any(|c| c.image.contains(BAD_IMAGE));
        if bad || nodes.chance(5) {
            self.status("Pending", None).await;
            if bad {
                // An error means that the pod is gone.
                let _ = orders.wait_for(|o| o.stop || o.dead).await;
                return false;
            }
            if !nodes.pause(self.machine, 20_000, orders).await {
                return false;
            }
        }
        if !nodes.begin(self.pod, self.machine) {
            return false;
        }
        self.running = true;
        self.status("Running", None).await;
        true
    }

    /// The container ends, if it runs.
    fn stop(&mut self) {
        if std::mem::take(&mut self.running) {
            let mut state = self.nodes.lock();
            let key = self.pod.key();
            if let Some(running) = state.running.get_mut(&key) {
                running.retain(|(uid, _)| *uid != self.pod.head.uid);
                if running.is_empty() {
                    state.running.remove(&key);
                }
            }
        }
    }

    /// Runs until the pod is to go or has ended; true if it has.
    async fn run(&mut self, orders: &mut watch::Receiver<Orders>) -> bool {
        let nodes = self.nodes;
        let annotation = |name| self.view.metadata.annotations.get(name);
        let ends = self.view.spec.restart_policy != "Always" && annotation(ENDLESS).is_none();
        let failing = annotation(FAILING).and_then(|n| n.parse().ok()).unwrap_or(20);
        let span = if ends { nodes.entropy.u64() % 20_000 } else { u64::MAX / 4_000_000 };
        let mut end = nodes.clock.sleep(Duration::from_millis(span));
        let mut seen = *orders.borrow();
        loop {
            tokio::select! {
                biased;
                told = orders.changed() => {
                    let now = *orders.borrow_and_update();
                    if told.is_err() || now.stop || now.dead {
                        return false;
                    }
                    if now.crash != seen.crash {
                        self.status("Crashed", Some(1)).await;
                        nodes.clock.sleep(Duration::from_millis(nodes.entropy.u64() % 10_000)).await;
                    }
                    seen = now;
                    self.status("Running", None).await;
                }
                () = &mut end => break,
            }
        }
        let ok = !nodes.chance(failing);
        self.stop();
        let (phase, exit) = (if ok { "Succeeded" } else { "Failed" }, Some(i64::from(!ok)));
        self.status(phase, exit).await;
        // What becomes of the sandbox is told when it is gone, just when others begin to act on the pod's end.
        self.sandbox = false;
        self.status(phase, exit).await;
        true
    }

    /// Tells the API how the pod is, once the machine reaches it.
    async fn status(&self, phase: &str, exit: Option<i64>) {
        if !self.nodes.heard(self.machine).await {
            return;
        }
        let now = time::format(self.nodes.clock.now());
        let ready = phase == "Running";
        let truth = if ready { "True" } else { "False" };
        let condition = |kind: &str, status: &str| tree!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": (now.as_str())});
        let conditions = vec![
            condition("PodScheduled", "True"),
            condition("Initialized", "True"),
            condition("ContainersReady", truth),
            condition("Ready", truth),
            condition("PodReadyToStartContainers", if self.sandbox { "True" } else { "False" }),
        ];
        let state = match (phase, exit) {
            ("Pending", _) => tree!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}),
            ("Crashed", _) => tree!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}),
            (_, None) => tree!({"running": {"startedAt": (now.as_str())}}),
            (_, Some(code)) => {
                tree!({"terminated": {"exitCode": code, "startedAt": (now.as_str()), "finishedAt": (now.as_str())}})
            }
        };
        let statuses: Vec<Tree> = (self.view.spec.containers.iter())
            .map(|c| {
                tree!({"name": (c.name.as_str()), "state": (state.clone()), "ready": ready, "restartCount": 0,
                    "image": (c.image.as_str()), "imageID": "", "started": ready})
            })
            .collect();
        let n = self.pod.head.uid.bytes().fold(0u32, |n, b| n.wrapping_mul(31).wrapping_add(b.into()));
        let ip = format!("10.42.{}.{}", (n >> 8) & 0xff, n & 0xff);
        let phase = if phase == "Crashed" { "Running" } else { phase };
        let body = tree!({
            "metadata": {"uid": (self.pod.head.uid.as_str())},
            "status": {"phase": phase, "conditions": conditions, "containerStatuses": statuses, "hostIP": "192.0.2.1",
                "podIP": (ip.as_str()), "podIPs": [{"ip": (ip.as_str())}], "startTime": (now.as_str())}
        });
        let write = Write::Patch { target: Target::status(self.pod.key()), patch: PatchKind::Merge, body };
        self.nodes.api.insist(&*self.nodes.clock, write).await;
    }
}

fn ready_status(now: &str) -> Tree {
    let condition = tree!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready",
        "lastHeartbeatTime": now, "lastTransitionTime": now});
    tree!({"status": {"conditions": [(condition)]}})
}

/// A time as leases have it.
fn micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
