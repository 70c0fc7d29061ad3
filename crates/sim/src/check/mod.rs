//! The invariants, checked at every revision.

mod cron;
mod jobs;
mod rollout;
mod sets;
mod settled;
mod upkeep;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use corten_base::{Istr, Timestamp};
use corten_cache::{Cache, Cursor, Event, Objects, Scope};
use corten_kinds::id;
use corten_object::{KindId, Object, ObjectKey};
use corten_views::Pod;
use tokio::sync::watch;

use crate::cluster::{Cluster, Process};
use crate::executor::Sim;
use crate::node::Nodes;
use cron::Crons;
use jobs::Jobs;
use rollout::Rollout;
use upkeep::Upkeep;

/// How far back a controller may have looked when it decided: it may be held up several times on its way.
const STALE: Duration = Duration::from_secs(90);
/// How many faults of a run are kept.
const FAULTS_MAX: usize = 20;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which rule it breaks.
    pub invariant: &'static str,
    /// Seconds of virtual time since the run began.
    pub second: i64,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} s: {}", self.invariant, self.second, self.text)
    }
}

/// The sizes that an object asked for lately: what controllers may still act on.
#[derive(Debug, Default)]
struct Sizes(VecDeque<(Timestamp, i64)>);

impl Sizes {
    fn note(&mut self, now: Timestamp, size: i64) {
        if self.0.back().is_none_or(|(_, last)| *last != size) {
            self.0.push_back((now, size));
        }
    }

    /// The smallest and the largest of the last time.
    fn range(&mut self, now: Timestamp) -> Option<(i64, i64)> {
        // The newest of those before the window was still true when it began.
        while self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at).unsigned_abs() > STALE) {
            self.0.pop_front();
        }
        let sizes = self.0.iter().map(|(_, size)| *size);
        Some((sizes.clone().min()?, sizes.max()?))
    }
}

/// Follows the cluster and notes what is wrong.
pub(crate) struct Checker {
    sim: Sim,
    began: Timestamp,
    processes: watch::Receiver<Process>,
    cache: Cache,
    cursor: Cursor,
    nodes: Nodes,
    /// The state at the revision that is being checked.
    objects: Objects,
    /// Until when pods may be missing through nobody's fault.
    disturbed_until: Timestamp,
    /// When all clocks were last put forward or back.
    clocks_set: Option<Timestamp>,
    sizes: HashMap<Istr, Sizes>,
    passed_over: Vec<sets::PassedOver>,
    rollout: Rollout,
    jobs: Jobs,
    crons: Crons,
    upkeep: Upkeep,
    /// The namespaces are going: bounds do not hold any more.
    pub ending: bool,
    pub revisions: usize,
    pub faults: Vec<Fault>,
}

impl Checker {
    pub fn new(cluster: &Cluster, nodes: Nodes) -> Checker {
        let mut processes = cluster.processes();
        let cache = processes.borrow_and_update().cache.clone();
        let mut objects = Objects::new(cache.registry());
        let cursor = load(&cache, &mut objects);
        Checker {
            sim: cluster.sim.clone(),
            began: cluster.sim.now(),
            processes,
            cache,
            cursor,
            nodes,
            objects,
            disturbed_until: Timestamp::MIN,
            clocks_set: None,
            sizes: HashMap::new(),
            passed_over: Vec::new(),
            rollout: Rollout::default(),
            jobs: Jobs::default(),
            crons: Crons::default(),
            upkeep: Upkeep::default(),
            ending: false,
            revisions: 0,
            faults: Vec::new(),
        }
    }

    /// For so many seconds pods may be missing through nobody's fault.
    pub fn disturb(&mut self, seconds: u64) {
        let until = self.sim.now().checked_add(Duration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        self.disturbed_until = self.disturbed_until.max(until);
    }

    /// All clocks were put forward or back, or nothing ran for a while.
    pub fn clocks_were_set(&mut self) {
        self.clocks_set = Some(self.sim.now());
    }

    /// Whether nothing but the controllers takes pods away.
    fn is_calm(&self) -> bool {
        !self.ending && self.sim.now() >= self.disturbed_until
    }

    /// Checks all changes since the last call; whether there were any but heartbeats and events.
    pub fn follow(&mut self) -> bool {
        let mut any = false;
        for text in self.nodes.take_faults() {
            self.fault("one container per name", text);
        }
        if self.processes.has_changed().unwrap_or(false) {
            self.cache = self.processes.borrow_and_update().cache.clone();
            self.reload();
            any = true;
        }
        loop {
            match self.cursor.take(256) {
                Ok(events) if events.is_empty() => return any,
                Ok(events) => {
                    any |= events.iter().any(|e| !matches!(e.kind, id::LEASE | id::EVENT));
                    events.iter().for_each(|event| self.check(event));
                }
                Err(_gone) => self.reload(),
            }
        }
    }

    /// Takes over the present state; what has happened meanwhile is seen, but not judged.
    fn reload(&mut self) {
        let mut fresh = Objects::new(self.cache.registry());
        self.cursor = load(&self.cache, &mut fresh);
        self.objects = fresh;
        let pods: Vec<Arc<Object>> = self.objects.list(id::POD).cloned().collect();
        pods.iter().for_each(|pod| self.job_pod(pod));
        let jobs: Vec<Arc<Object>> = self.objects.list(id::JOB).cloned().collect();
        for job in jobs {
            self.cron_time(&job);
            self.job_known(&job);
        }
        for kind in [id::REPLICA_SET, id::STATEFUL_SET] {
            let sets: Vec<Arc<Object>> = self.objects.list(kind).cloned().collect();
            for set in &sets {
                self.note_size(set);
                self.note_told(set);
            }
        }
    }

    /// The cluster does not come to rest.
    pub fn unsettled(&mut self) {
        self.fault("the cluster settles", String::from("it does not"));
    }

    /// Time does not pass any more, so much is being done.
    pub fn restless(&mut self) {
        self.fault("time passes", String::from("the tasks always find something more to do at the same time"));
    }

    fn fault(&mut self, invariant: &'static str, text: String) {
        if self.faults.len() < FAULTS_MAX {
            let second = self.sim.now().duration_since(self.began).as_secs();
            self.faults.push(Fault { invariant, second, text });
        }
    }

    fn check(&mut self, event: &Event) {
        self.revisions += 1;
        tell(event, self.sim.now().duration_since(self.began).as_millis());
        match (&event.object, &event.previous) {
            (Some(object), _) => drop(self.objects.put(object.clone())),
            (None, Some(previous)) => drop(self.objects.remove(&previous.key())),
            (None, None) => {}
        }
        self.objects.set_revision(event.revision);
        match event.kind {
            id::POD => self.pod(event),
            id::JOB => self.job(event),
            id::REPLICA_SET | id::STATEFUL_SET => {
                event.object.iter().for_each(|set| self.note_size(set));
                self.rolled_set(event);
            }
            id::LEASE => self.heartbeat(),
            _ => {}
        }
        if !self.ending && matches!(event.kind, id::POD | id::REPLICA_SET | id::DEPLOYMENT) {
            self.check_rollout();
        }
    }

    fn pod(&mut self, event: &Event) {
        let Some(pod) = &event.object else { return };
        self.job_pod(pod);
        if self.ending {
            return;
        }
        if event.previous.is_none() {
            self.pod_created(pod);
            self.job_pod_created(pod);
            self.quota(pod);
        }
        if pod.head.is_deleting() && event.previous.as_ref().is_some_and(|old| !old.head.is_deleting()) {
            let before = event.previous.as_ref().and_then(|old| old.view::<Pod>().ok());
            if let Some(before) = before {
                self.pod_condemned(pod, &before);
            }
        }
    }

    /// The object that manages another, if it is there.
    fn owner(&self, object: &Object) -> Option<Arc<Object>> {
        let owner = object.head.controller()?;
        self.objects.by_uid(&owner.uid).cloned()
    }

    /// What an object manages.
    fn controlled(&self, uid: &str, kind: KindId) -> Vec<Arc<Object>> {
        let own = |o: &&Arc<Object>| o.head.controller().is_some_and(|c| *c.uid == *uid);
        self.objects.owned(uid, kind).filter(own).cloned().collect()
    }

    fn pods_of(&self, uid: &str) -> Vec<Arc<Pod>> {
        self.controlled(uid, id::POD).iter().filter_map(|o| o.view::<Pod>().ok()).collect()
    }

    fn find(&self, kind: KindId, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.objects.get(&ObjectKey::new(kind, namespace, name)).cloned()
    }
}

/// Tells who looks for the cause of a fault what became of workloads and pods.
fn tell(event: &Event, millis: i128) {
    if matches!(event.kind, id::LEASE | id::EVENT) || !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let Some(object) = event.object.as_ref().or(event.previous.as_ref()) else { return };
    let gone = event.object.is_none();
    let tree = object.to_tree();
    let part = |path: &str| {
        String::from_utf8_lossy(&tree.path(path).map(|part| part.to_json()).unwrap_or_default()).into_owned()
    };
    let ready = object.view::<Pod>().is_ok_and(|p| p.is_ready());
    tracing::debug!(
        "{millis} ms, revision {}: {}{}{} replicas {} phase {} ready {ready} status {}",
        event.revision,
        object.key(),
        if gone { " is gone" } else { "" },
        if object.head.is_deleting() { " is going" } else { "" },
        part("spec.replicas"),
        part("status.phase"),
        if event.kind == id::POD { String::new() } else { part("status") },
    );
}

fn load(cache: &Cache, objects: &mut Objects) -> Cursor {
    loop {
        let world = cache.read();
        let mut fresh = Objects::new(cache.registry());
        for kind in cache.registry().iter() {
            world.list(kind.id).for_each(|object| drop(fresh.put(object.clone())));
        }
        fresh.set_revision(world.revision());
        let revision = world.revision();
        drop(world);
        *objects = fresh;
        if let Ok(cursor) = cache.cursor(Scope::Everything, revision) {
            return cursor;
        }
    }
}
