//! Drives the scheduler: pending pods one after the other, bindings beside each other.
//!
//! The decision itself is `corten_scheduler::schedule`, pure over a [`Snapshot`], which is kept up to date from the cache's events
//! and counts a pod on its node from the moment of the decision. A pod that fits nowhere waits for a change that could
//! help it (upstream's queueing hints, coarser), at most five minutes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use corten_base::backoff::Backoff;
use corten_base::{Clock, Entropy, Istr, Timestamp};
use corten_cache::{Cache, Cursor, Event, Scope};
use corten_client::Api;
use corten_controllers::EventNote;
use corten_kinds::id;
use corten_object::{KindId, Object, ObjectKey, View};
use corten_scheduler::{Decision, NodeInfo, PodInfo, Preemption, Snapshot, schedule};
use corten_views::{Node, PersistentVolume, PersistentVolumeClaim, Pod, PodDisruptionBudget, StorageClass};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::bind::{self, Binding};
use crate::{Manager, Recorder};

const EVENTS_MAX: usize = 256;
/// How many decisions are made before new events are looked at.
const DECISIONS_MAX: usize = 32;
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod that fits nowhere is tried again after this time even if nothing has changed (`flushUnschedulablePodsLeftover`).
const RETRY: Duration = Duration::from_secs(300);
/// The profile that this scheduler serves.
const SCHEDULER_NAME: &str = "default-scheduler";

/// What decisions depend on. Nodes first: pods are counted on them.
const FOLLOWED: [KindId; 7] = [
    id::NODE,
    id::NAMESPACE,
    id::STORAGE_CLASS,
    id::PERSISTENT_VOLUME,
    id::PERSISTENT_VOLUME_CLAIM,
    id::POD_DISRUPTION_BUDGET,
    id::POD,
];

/// Where a pod without a node stands.
enum Place {
    /// To be tried now.
    Active,
    /// To be tried at a time.
    Backoff(Timestamp),
    /// Fits nowhere; tried again when something changes, or at this time.
    Unschedulable(Timestamp),
    /// Has gates, or is being bound.
    Parked,
}

struct Pending {
    object: Arc<Object>,
    info: Arc<PodInfo>,
    place: Place,
    /// When it came, to be fair.
    arrival: u64,
}

pub(crate) struct Scheduler {
    cache: Cache,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    api: Arc<dyn Api>,
    recorder: Recorder,
    snapshot: Snapshot,
    /// Pods on nodes, by uid, as the snapshot counts them.
    placed: HashMap<Istr, Istr>,
    pending: HashMap<ObjectKey, Pending>,
    /// Keys of active pods: highest priority first, then by arrival.
    active: BTreeMap<(Reverse<i32>, u64), ObjectKey>,
    backoff: Backoff<ObjectKey>,
    arrivals: u64,
}

type Tasks = FuturesUnordered<BoxFuture<'static, Done>>;

/// The end of a binding or of another write.
enum Done {
    Bound { key: ObjectKey, uid: Istr, node: Istr, bound: bool },
    Written,
}

impl Scheduler {
    pub fn new(manager: &Manager, api: Arc<dyn Api>, recorder: Recorder) -> Scheduler {
        Scheduler {
            cache: manager.cache.clone(),
            clock: manager.clock.clone(),
            entropy: manager.entropy.clone(),
            api,
            recorder,
            snapshot: Snapshot::default(),
            placed: HashMap::new(),
            pending: HashMap::new(),
            active: BTreeMap::new(),
            backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX),
            arrivals: 0,
        }
    }

    /// Runs for ever.
    pub async fn run(mut self) -> Result<(), std::convert::Infallible> {
        let mut tasks: Tasks = FuturesUnordered::new();
        let mut cursor = self.list();
        loop {
            for _ in 0..DECISIONS_MAX {
                let Some((_, key)) = self.active.pop_first() else { break };
                self.decide(&key, &mut tasks);
            }
            let timer = match self.next_timer() {
                _ if !self.active.is_empty() => futures::future::ready(()).boxed(),
                Some(at) => self.clock.sleep_until(at),
                None => futures::future::pending().boxed(),
            };
            tokio::select! {
                biased;
                Some(done) = tasks.next(), if !tasks.is_empty() => self.done(done),
                events = cursor.next_batch(EVENTS_MAX) => match events {
                    Ok(events) => events.iter().for_each(|event| self.observe(event)),
                    Err(_gone) => cursor = self.list(),
                },
                () = timer => self.fire(),
            }
        }
    }

    /// Reads everything anew.
    fn list(&mut self) -> Cursor {
        loop {
            self.snapshot = Snapshot::default();
            self.placed.clear();
            let world = self.cache.read();
            let objects: Vec<Arc<Object>> = FOLLOWED.iter().flat_map(|kind| world.list(*kind)).cloned().collect();
            let revision = world.revision();
            drop(world);
            objects.iter().for_each(|object| self.put(object));
            let present: HashSet<ObjectKey> = objects.iter().map(|object| object.key()).collect();
            let gone: Vec<_> = self.pending.keys().filter(|key| !present.contains(*key)).cloned().collect();
            gone.iter().for_each(|key| self.forget(key));
            self.activate(|_| true);
            if let Ok(cursor) = self.cache.cursor(Scope::kinds(FOLLOWED.to_vec()), revision) {
                return cursor;
            }
        }
    }

    fn observe(&mut self, event: &Event) {
        let helps = match (&event.object, &event.previous) {
            (Some(object), previous) => {
                self.put(object);
                helps(object, previous.as_deref())
            }
            (None, Some(previous)) => {
                self.remove(previous);
                matches!(event.kind, id::POD | id::PERSISTENT_VOLUME_CLAIM)
            }
            (None, None) => false,
        };
        if helps {
            self.activate(|_| true);
        }
    }

    fn put(&mut self, object: &Arc<Object>) {
        let head = &object.head;
        let name = || (head.namespace.clone(), head.name.clone());
        match object.kind {
            id::POD => self.put_pod(object),
            id::NODE => {
                let Some(node) = view::<Node>(object) else { return };
                let fresh = self.snapshot.node(&head.name).is_none();
                self.snapshot.set_node(NodeInfo::from(&*node));
                if fresh {
                    self.count_pods_of(&head.name);
                }
            }
            id::NAMESPACE => drop(self.snapshot.namespaces.insert(head.name.clone(), head.labels.clone())),
            id::PERSISTENT_VOLUME_CLAIM => {
                let Some(claim) = view::<PersistentVolumeClaim>(object) else { return };
                self.snapshot.claims.insert(name(), (&*claim).into());
            }
            id::PERSISTENT_VOLUME => {
                let Some(volume) = view::<PersistentVolume>(object) else { return };
                self.snapshot.volumes.insert(head.name.clone(), (&*volume).into());
            }
            id::STORAGE_CLASS => {
                let Some(class) = view::<StorageClass>(object) else { return };
                self.snapshot.classes.insert(head.name.clone(), (&*class).into());
            }
            id::POD_DISRUPTION_BUDGET => self.put_budgets(),
            _ => {}
        }
    }

    fn remove(&mut self, object: &Arc<Object>) {
        let head = &object.head;
        match object.kind {
            id::POD => {
                self.unplace(&head.uid);
                self.forget(&object.key());
                self.backoff.reset(&object.key());
            }
            id::NODE => self.snapshot.remove_node(&head.name),
            id::NAMESPACE => drop(self.snapshot.namespaces.remove(&head.name)),
            id::PERSISTENT_VOLUME_CLAIM => {
                self.snapshot.claims.remove(&(head.namespace.clone(), head.name.clone()));
            }
            id::PERSISTENT_VOLUME => drop(self.snapshot.volumes.remove(&head.name)),
            id::STORAGE_CLASS => drop(self.snapshot.classes.remove(&head.name)),
            id::POD_DISRUPTION_BUDGET => self.put_budgets(),
            _ => {}
        }
    }

    /// Budgets are few and change seldom.
    fn put_budgets(&mut self) {
        let world = self.cache.read();
        let budgets = world.list(id::POD_DISRUPTION_BUDGET).filter_map(view::<PodDisruptionBudget>);
        self.snapshot.budgets = budgets.map(|b| (&*b).into()).collect();
    }

    /// Pods whose node came after them.
    fn count_pods_of(&mut self, node: &str) {
        let world = self.cache.read();
        let pods: Vec<_> = world.by_index(id::POD, "spec.nodeName", node).cloned().collect();
        drop(world);
        pods.iter().for_each(|pod| self.put_pod(pod));
    }

    fn put_pod(&mut self, object: &Arc<Object>) {
        let Some(pod) = view::<Pod>(object) else { return };
        let (key, uid) = (object.key(), object.head.uid.clone());
        if pod.is_terminal() {
            self.unplace(&uid);
            self.forget(&key);
            return;
        }
        if pod.is_scheduled() {
            self.forget(&key);
            self.backoff.reset(&key);
            self.place(&pod.spec.node_name, Arc::new(PodInfo::from(&*pod)));
            return;
        }
        let ours = matches!(pod.spec.scheduler_name.as_str(), "" | SCHEDULER_NAME);
        if !ours || pod.is_terminating() {
            self.forget(&key);
            return;
        }
        let info = Arc::new(PodInfo::from(&*pod));
        if !info.nominated_node.is_empty() && !self.placed.contains_key(&uid) {
            self.snapshot.nominate(&info.nominated_node, info.clone());
        }
        match self.pending.get_mut(&key).filter(|p| p.info.uid == uid) {
            Some(pending) => {
                let same_spec = pending.object.head.generation == object.head.generation
                    && pending.object.head.labels == object.head.labels;
                pending.object = object.clone();
                pending.info = info;
                let unplaced = !self.placed.contains_key(&uid);
                if !same_spec && unplaced && !matches!(pending.place, Place::Active) {
                    self.activate_one(&key);
                }
            }
            None => {
                self.forget(&key);
                self.arrivals += 1;
                let pending = Pending { object: object.clone(), info, place: Place::Parked, arrival: self.arrivals };
                self.pending.insert(key.clone(), pending);
                self.activate_one(&key);
            }
        }
    }

    fn place(&mut self, node: &str, info: Arc<PodInfo>) {
        let uid = info.uid.clone();
        self.snapshot.denominate(&uid);
        if self.placed.get(&uid).is_some_and(|old| *old != *node) {
            self.unplace(&uid);
        }
        if self.snapshot.add_pod(node, info) {
            self.placed.insert(uid, node.into());
        }
    }

    fn unplace(&mut self, uid: &Istr) {
        if let Some(node) = self.placed.remove(uid) {
            self.snapshot.remove_pod(&node, uid);
        }
    }

    fn forget(&mut self, key: &ObjectKey) {
        if let Some(pending) = self.pending.remove(key) {
            self.active.remove(&rank(&pending));
            self.snapshot.denominate(&pending.info.uid);
        }
    }

    fn activate_one(&mut self, key: &ObjectKey) {
        if let Some(pending) = self.pending.get_mut(key) {
            pending.place = Place::Active;
            self.active.insert(rank(pending), key.clone());
        }
    }

    /// Something has changed that could help unschedulable pods: they are tried again once their back-off is over.
    fn activate(&mut self, which: impl Fn(&Pending) -> bool) {
        let now = self.clock.now();
        let waiting = |p: &Pending| matches!(p.place, Place::Unschedulable(_)) && which(p);
        let keys: Vec<_> = self.pending.iter().filter(|(_, p)| waiting(p)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let wait = corten_base::backoff::delay(BACKOFF_MIN, BACKOFF_MAX, self.backoff.failures(&key));
            if let (Some(pending), Ok(at)) = (self.pending.get_mut(&key), now.checked_add(wait)) {
                pending.place = Place::Backoff(at);
            }
        }
    }

    fn next_timer(&self) -> Option<Timestamp> {
        let due = |p: &Pending| match p.place {
            Place::Backoff(at) | Place::Unschedulable(at) => Some(at),
            Place::Active | Place::Parked => None,
        };
        self.pending.values().filter_map(due).min()
    }

    fn fire(&mut self) {
        let now = self.clock.now();
        let due = |p: &Pending| matches!(p.place, Place::Backoff(at) | Place::Unschedulable(at) if at <= now);
        let keys: Vec<_> = self.pending.iter().filter(|(_, p)| due(p)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.activate_one(key));
    }

    /// Decides for one pod and begins to execute that.
    fn decide(&mut self, key: &ObjectKey, tasks: &mut Tasks) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        pending.place = Place::Parked;
        let (object, info) = (pending.object.clone(), pending.info.clone());
        let world = self.cache.read();
        let exists = world.get(key).is_some_and(|o| o.head.uid == object.head.uid && !o.head.is_deleting());
        drop(world);
        if !exists {
            return;
        }
        match schedule(&self.snapshot, &info, self.entropy.u64()) {
            Decision::Bind { node, volumes } => {
                self.place(&node, info.clone());
                let binding = Binding {
                    api: self.api.clone(),
                    cache: self.cache.clone(),
                    clock: self.clock.clone(),
                    recorder: self.recorder.clone(),
                    pod: object,
                    node: node.clone(),
                    volumes,
                };
                let (key, uid) = (key.clone(), info.uid.clone());
                tasks.push(async move { Done::Bound { bound: binding.run().await, key, uid, node } }.boxed());
            }
            Decision::Unschedulable { message, preemption } => {
                self.unschedulable(key, &object, &message, preemption, tasks);
            }
            Decision::Gated { message } => {
                let write = bind::condition(&object, corten_scheduler::REASON_GATED, &message, None, self.clock.now());
                self.write(write, tasks);
            }
        }
    }

    fn unschedulable(
        &mut self,
        key: &ObjectKey,
        object: &Arc<Object>,
        message: &str,
        preemption: Option<Preemption>,
        tasks: &mut Tasks,
    ) {
        let now = self.clock.now();
        self.backoff.fail(key.clone(), now);
        if let (Some(pending), Ok(at)) = (self.pending.get_mut(key), now.checked_add(RETRY)) {
            pending.place = Place::Unschedulable(at);
        }
        self.recorder.record(EventNote::warning(object, "FailedScheduling", message));
        let node = preemption.as_ref().map(|p| p.node.as_str());
        let reason = corten_scheduler::REASON_UNSCHEDULABLE;
        self.write(bind::condition(object, reason, message, node, now), tasks);
        let Some(preemption) = preemption else { return };
        // At once: whoever takes the victims' places must not take their room.
        if let Some(pending) = self.pending.get(key) {
            self.snapshot.nominate(&preemption.node, pending.info.clone());
        }
        for (namespace, name, uid) in &preemption.victims {
            let victim = self.cache.get(&ObjectKey::new(id::POD, namespace, name));
            let Some(victim) = victim.filter(|v| v.head.uid == *uid && !v.head.is_deleting()) else { continue };
            let by = format!("Preempted by pod {} on node {}", object.head.uid, preemption.node);
            self.recorder.record(EventNote::normal(&victim, "Preempted", by));
            let (api, clock) = (self.api.clone(), self.clock.clone());
            tasks.push(async move { bind::evict(&*api, &victim, clock.now()).await }.map(|()| Done::Written).boxed());
        }
    }

    fn write(&self, write: Option<corten_client::Write>, tasks: &mut Tasks) {
        let Some(write) = write else { return };
        let api = self.api.clone();
        let run = async move {
            if let Err(failure) = api.write(write, corten_client::WriteOptions::default()).await {
                tracing::debug!(error = %failure, "the pod's condition was not written");
            }
            Done::Written
        };
        tasks.push(run.boxed());
    }

    fn done(&mut self, done: Done) {
        let Done::Bound { key, uid, node, bound: false } = done else { return };
        // The pod may have been bound all the same (an unknown outcome): then its event has placed or will place it.
        let assigned = self.cache.get(&key).is_some_and(|o| view::<Pod>(&o).is_some_and(|p| p.is_scheduled()));
        if assigned {
            return;
        }
        if self.placed.get(&uid).is_some_and(|n| *n == node) {
            self.unplace(&uid);
        }
        let now = self.clock.now();
        let wait = self.backoff.fail(key.clone(), now);
        if let (Some(pending), Ok(at)) = (self.pending.get_mut(&key), now.checked_add(wait)) {
            pending.place = Place::Backoff(at);
        }
        self.activate(|_| true);
    }
}

fn rank(pending: &Pending) -> (Reverse<i32>, u64) {
    (Reverse(pending.info.priority), pending.arrival)
}

fn view<V: View>(object: &Arc<Object>) -> Option<Arc<V>> {
    object.view::<V>().ok()
}

/// Whether a change could make an unschedulable pod fit.
fn helps(object: &Object, previous: Option<&Object>) -> bool {
    match object.kind {
        id::NODE => match (object.view::<Node>(), previous.map(Object::view::<Node>)) {
            (Ok(new), Some(Ok(old))) => {
                object.head.labels != previous.map(|p| p.head.labels.clone()).unwrap_or_default()
                    || new.spec != old.spec
                    || new.status.allocatable != old.status.allocatable
            }
            _ => true,
        },
        id::POD => match (object.view::<Pod>(), previous.map(Object::view::<Pod>)) {
            // A pod that ends makes room; one that was placed or has other labels may satisfy an affinity.
            (Ok(new), Some(Ok(old))) => {
                new.is_terminal() != old.is_terminal()
                    || new.is_scheduled() != old.is_scheduled()
                    || new.metadata.labels != old.metadata.labels
                    || new.spec.containers != old.spec.containers
            }
            (Ok(new), None) => new.is_scheduled(),
            _ => false,
        },
        id::PERSISTENT_VOLUME | id::PERSISTENT_VOLUME_CLAIM | id::STORAGE_CLASS => true,
        id::NAMESPACE => previous.is_none_or(|p| p.head.labels != object.head.labels),
        _ => false,
    }
}
