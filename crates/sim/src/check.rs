//! The invariants, checked at every revision.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use corten_base::entropy::SeededEntropy;
use corten_base::{Istr, Timestamp};
use corten_cache::{Cache, Cursor, Event, Objects, Scope};
use corten_controllers::{Changed, World};
use corten_kinds::id;
use corten_object::{Object, ObjectKey};
use corten_views::{DaemonSet, Deployment, EndpointSlice, Job, Node, Pod, ReplicaSet, StatefulSet};

use crate::cluster::config;
use crate::users::{NAMESPACE, ROLLED};

/// Follows the cluster and notes what is wrong.
pub(crate) struct Checker {
    cache: Cache,
    cursor: Cursor,
    /// The state at the revision that is being checked.
    objects: Objects,
    /// Whether the rolled deployment has been complete once: from then on its bounds hold.
    rolled_complete: bool,
    /// By job's uid: pods that succeeded while they were tracked.
    succeeded: HashMap<Istr, HashSet<Istr>>,
    /// The namespace is going: bounds do not hold any more.
    pub ending: bool,
    pub revisions: usize,
    pub faults: Vec<String>,
}

const TRACKING: &str = "batch.kubernetes.io/job-tracking";

impl Checker {
    pub fn new(cache: &Cache) -> Checker {
        let mut objects = Objects::new(cache.registry());
        let cursor = load(cache, &mut objects);
        Checker {
            cache: cache.clone(),
            cursor,
            objects,
            rolled_complete: false,
            succeeded: HashMap::new(),
            ending: false,
            revisions: 0,
            faults: Vec::new(),
        }
    }

    /// Checks all changes since the last call; whether there were any.
    pub fn follow(&mut self) -> bool {
        let mut any = false;
        loop {
            match self.cursor.take(256) {
                Ok(events) if events.is_empty() => return any,
                Ok(events) => {
                    any = true;
                    events.iter().for_each(|event| self.check(event));
                }
                Err(_gone) => self.cursor = load(&self.cache, &mut self.objects),
            }
        }
    }

    fn fault(&mut self, event: &Event, text: String) {
        self.faults.push(format!("revision {}: {text}", event.revision));
    }

    fn check(&mut self, event: &Event) {
        self.revisions += 1;
        match (&event.object, &event.previous) {
            (Some(object), _) => drop(self.objects.put(object.clone())),
            (None, Some(previous)) => drop(self.objects.remove(&previous.key())),
            (None, None) => {}
        }
        self.objects.set_revision(event.revision);
        if event.kind == id::POD
            && let Some(pod) = &event.object
        {
            if event.previous.is_none() {
                self.created(event, pod);
            }
            self.job_pod(pod);
        }
        if !self.ending && matches!(event.kind, id::POD | id::REPLICA_SET | id::DEPLOYMENT) {
            self.rollout(event);
        }
    }

    fn pods_of(&self, uid: &str) -> Vec<Arc<Pod>> {
        let own = |o: &&Arc<Object>| o.head.controller().is_some_and(|c| *c.uid == *uid);
        self.objects.owned(uid, id::POD).filter(own).filter_map(|o| o.view::<Pod>().ok()).collect()
    }

    fn created(&mut self, event: &Event, pod: &Arc<Object>) {
        let Some(owner) = pod.head.controller() else { return };
        let pods = self.pods_of(&owner.uid);
        match &*owner.kind {
            "StatefulSet" => {
                let Some(ordinal) = pod.head.name.rsplit_once('-').and_then(|(_, n)| n.parse::<usize>().ok()) else {
                    return;
                };
                for lower in 0..ordinal {
                    let name = format!("{}-{lower}", owner.name);
                    let fine = pods.iter().any(|p| p.metadata.name == name && p.is_ready() && !p.is_terminating());
                    if !fine {
                        self.fault(event, format!("{} was made although {name} is not ready", pod.head.name));
                    }
                }
            }
            "DaemonSet" => {
                let node = |p: &Pod| {
                    let affinity = p.spec.affinity.clone().unwrap_or_default().node_affinity.unwrap_or_default();
                    let required = affinity.required_during_scheduling_ignored_during_execution.unwrap_or_default();
                    required.node_selector_terms.first().and_then(|t| t.match_fields.first()?.values.first().cloned())
                };
                let Ok(new) = pod.view::<Pod>() else { return };
                if pods.iter().filter(|p| p.is_active() && node(p) == node(&new)).count() > 1 {
                    self.fault(event, format!("{} is a second daemon on its node", pod.head.name));
                }
            }
            _ => {}
        }
    }

    fn job_pod(&mut self, pod: &Arc<Object>) {
        let tracked = pod.head.finalizers.iter().any(|f| *f == *TRACKING);
        let Some(owner) = pod.head.controller().filter(|o| *o.kind == *"Job" && tracked) else { return };
        if pod.view::<Pod>().is_ok_and(|p| p.status.phase == "Succeeded") {
            self.succeeded.entry(owner.uid.clone()).or_default().insert(pod.head.uid.clone());
        }
    }

    /// The bounds of the deployment that is only rolled.
    fn rollout(&mut self, event: &Event) {
        let key = ObjectKey::new(id::DEPLOYMENT, NAMESPACE, ROLLED);
        let Some(object) = self.objects.get(&key).filter(|o| !o.head.is_deleting()) else { return };
        let Ok(deployment) = object.view::<Deployment>() else { return };
        let desired = deployment.spec.replicas.unwrap_or(1);
        self.rolled_complete |= deployment.status.available_replicas == desired;
        if !self.rolled_complete {
            return;
        }
        let rolling = deployment.spec.strategy.rolling_update.clone().unwrap_or_default();
        let surge = rolling.max_surge.and_then(|s| s.scaled(desired, true)).unwrap_or(0);
        let unavailable = rolling.max_unavailable.and_then(|u| u.scaled(desired, false)).unwrap_or(0);
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        let sets: Vec<Arc<Object>> = self.objects.owned(&object.head.uid, id::REPLICA_SET).cloned().collect();
        let wanted: i64 =
            sets.iter().filter_map(|s| s.view::<ReplicaSet>().ok()).map(|s| s.spec.replicas.unwrap_or(1)).sum();
        let pods: Vec<Arc<Pod>> = sets.iter().flat_map(|s| self.pods_of(&s.head.uid)).collect();
        let ready = pods.iter().filter(|p| p.is_ready() && p.is_active()).count() as i64;
        if wanted > desired + surge {
            self.fault(event, format!("{wanted} replicas are wanted where {desired}+{surge} are allowed"));
        }
        if ready < desired - unavailable {
            self.fault(event, format!("{ready} ready pods where {desired}-{unavailable} are needed"));
        }
    }

    /// What must hold when nothing happens any more.
    pub fn settled(&mut self, now: Timestamp) {
        let mut faults = Vec::new();
        let mut expect = |what: &str, actual: i64, wanted: i64| {
            if actual != wanted {
                faults.push(format!("settled: {what} is {actual} instead of {wanted}"));
            }
        };
        let objects = &self.objects;
        for o in objects.list_in(id::DEPLOYMENT, NAMESPACE) {
            let Ok(d) = o.view::<Deployment>() else { continue };
            let wanted = d.spec.replicas.unwrap_or(1);
            expect(&format!("deployment {} replicas", o.head.name), d.status.replicas, wanted);
            expect(&format!("deployment {} updated", o.head.name), d.status.updated_replicas, wanted);
            expect(&format!("deployment {} available", o.head.name), d.status.available_replicas, wanted);
        }
        for o in objects.list_in(id::STATEFUL_SET, NAMESPACE) {
            let Ok(s) = o.view::<StatefulSet>() else { continue };
            let wanted = s.spec.replicas.unwrap_or(1);
            expect(&format!("stateful set {} ready", o.head.name), s.status.ready_replicas, wanted);
            expect(&format!("stateful set {} updated", o.head.name), s.status.updated_replicas, wanted);
        }
        let nodes = objects.list(id::NODE).filter(|n| n.view::<Node>().is_ok()).count() as i64;
        for o in objects.list_in(id::DAEMON_SET, NAMESPACE) {
            let Ok(d) = o.view::<DaemonSet>() else { continue };
            expect(&format!("daemon set {} available", o.head.name), d.status.number_available, nodes);
            expect(&format!("daemon set {} updated", o.head.name), d.status.updated_number_scheduled, nodes);
        }
        for o in objects.list_in(id::JOB, NAMESPACE) {
            let Ok(job) = o.view::<Job>() else { continue };
            expect(&format!("job {} finished", o.head.name), i64::from(job.finished().is_some()), 1);
            let seen = self.succeeded.get(&o.head.uid).map_or(0, HashSet::len) as i64;
            let indexed = job.is_indexed();
            let wanted = if indexed { job.spec.completions.unwrap_or(0) } else { seen };
            expect(&format!("job {} succeeded", o.head.name), job.status.succeeded, wanted);
        }
        let ready = |p: &Arc<Pod>| p.is_ready() && p.metadata.labels.get("app").is_some_and(|a| a == ROLLED);
        let pods = objects.list_in(id::POD, NAMESPACE).filter_map(|o| o.view::<Pod>().ok()).filter(ready).count();
        let slices = objects.list_in(id::ENDPOINT_SLICE, NAMESPACE).filter_map(|o| o.view::<EndpointSlice>().ok());
        let endpoints: usize = slices.map(|s| s.endpoints.len()).sum();
        if objects.find(id::SERVICE, NAMESPACE, ROLLED).is_some() {
            expect("endpoints", endpoints as i64, pods as i64);
        }
        self.faults.extend(faults);
        self.nothing_left(now);
    }

    /// Every controller, asked about everything, has nothing to do.
    fn nothing_left(&mut self, now: Timestamp) {
        let entropy = SeededEntropy::new(0);
        let world = World { state: &self.objects, now, entropy: &entropy, last: None, kept: None };
        let mut faults = Vec::new();
        for controller in corten_controllers::all(&config()) {
            let mut keys = Vec::new();
            for kind in self.objects.registry().iter().map(|kind| kind.id) {
                for object in self.objects.list(kind) {
                    let change = Changed { state: &self.objects, old: None, new: Some(object) };
                    controller.watches().iter().for_each(|watch| watch.keys(&change, &mut keys));
                }
            }
            keys.sort();
            keys.dedup();
            for key in keys {
                let plan = controller.reconcile(&world, &key);
                if !plan.stages.is_empty() {
                    faults.push(format!(
                        "settled, but {} would still do for {key}: {:?}",
                        controller.name(),
                        plan.stages
                    ));
                }
            }
        }
        self.faults.extend(faults);
    }

    /// What must hold after the namespace was deleted.
    pub fn ended(&mut self) {
        for kind in self.objects.registry().iter().map(|kind| kind.id).collect::<Vec<_>>() {
            let left: Vec<String> = self.objects.list_in(kind, NAMESPACE).map(|o| o.key().to_string()).collect();
            if !left.is_empty() {
                self.faults.push(format!("after the namespace's end there are still {left:?}"));
            }
        }
        if self.objects.find(id::NAMESPACE, "", NAMESPACE).is_some() {
            self.faults.push("the namespace is still there".into());
        }
    }
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
