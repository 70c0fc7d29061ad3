//! What must hold when nothing happens any more.

use std::sync::Arc;

use corten_base::entropy::SeededEntropy;
use corten_controllers::{Changed, World};
use corten_kinds::id;
use corten_object::Object;
use corten_views::{
    CronJob, DaemonSet, Deployment, EndpointSlice, Job, Node, Pod, PodDisruptionBudget, ReplicaSet, ResourceQuota,
    StatefulSet,
};

use super::Checker;
use crate::cluster::config;
use crate::users::{CAPPED, GUARDED, GUARDED_MIN, HISTORY, NAMESPACE, ROLLED};

const INVARIANT: &str = "settled as asked for";

/// Collects what is not as it should be.
#[derive(Default)]
struct Expected(Vec<String>);

impl Expected {
    fn equal(&mut self, what: String, actual: i64, wanted: i64) {
        if actual != wanted {
            self.0.push(format!("{what} is {actual} instead of {wanted}"));
        }
    }

    fn at_most(&mut self, what: String, actual: i64, most: i64) {
        if actual > most {
            self.0.push(format!("{what} is {actual}, more than {most}"));
        }
    }
}

impl Checker {
    /// Judges the cluster at rest.
    pub fn settled(&mut self) {
        let mut expected = Expected::default();
        self.settled_deployments(&mut expected);
        self.settled_sets(&mut expected);
        self.settled_jobs(&mut expected);
        self.settled_upkeep(&mut expected);
        expected.0.into_iter().for_each(|text| self.fault(INVARIANT, text));
        self.nothing_orphaned();
        self.nothing_left();
    }

    fn settled_deployments(&self, expected: &mut Expected) {
        for o in self.objects.list_in(id::DEPLOYMENT, NAMESPACE) {
            let Ok(d) = o.view::<Deployment>() else { continue };
            let (name, wanted) = (&o.head.name, d.spec.replicas.unwrap_or(1));
            expected.equal(format!("deployment {name} replicas"), d.status.replicas, wanted);
            expected.equal(format!("deployment {name} updated"), d.status.updated_replicas, wanted);
            expected.equal(format!("deployment {name} available"), d.status.available_replicas, wanted);
            let available = d.status.conditions.iter().any(|c| c.r#type == "Available" && c.is_true());
            expected.equal(format!("deployment {name} Available"), i64::from(available), 1);
            let progress = d.status.conditions.iter().find(|c| c.r#type == "Progressing").map(|c| c.reason.as_str());
            let done = progress == Some("NewReplicaSetAvailable");
            expected.equal(format!("deployment {name} progress ({progress:?})"), i64::from(done), 1);
            let sets = self.controlled(&o.head.uid, id::REPLICA_SET);
            let idle = sets.iter().filter_map(|s| s.view::<ReplicaSet>().ok()).filter(|s| s.spec.replicas == Some(0));
            expected.at_most(
                format!("deployment {name} old sets"),
                idle.count() as i64,
                HISTORY + i64::from(wanted == 0),
            );
        }
        for o in self.objects.list_in(id::REPLICA_SET, NAMESPACE) {
            let Ok(set) = o.view::<ReplicaSet>() else { continue };
            let pods = self.pods_of(&o.head.uid);
            let count = |f: fn(&Pod) -> bool| pods.iter().filter(|p| f(p)).count() as i64;
            expected.equal(format!("set {} pods", o.head.name), count(Pod::is_active), set.spec.replicas.unwrap_or(1));
            expected.equal(format!("set {} counted", o.head.name), set.status.replicas, count(Pod::is_active));
            expected.equal(format!("set {} ready", o.head.name), set.status.ready_replicas, count(Pod::is_ready));
        }
    }

    fn settled_sets(&self, expected: &mut Expected) {
        for o in self.objects.list_in(id::STATEFUL_SET, NAMESPACE) {
            let Ok(s) = o.view::<StatefulSet>() else { continue };
            let (name, wanted) = (&o.head.name, s.spec.replicas.unwrap_or(1));
            expected.equal(format!("stateful set {name} ready"), s.status.ready_replicas, wanted);
            expected.equal(format!("stateful set {name} updated"), s.status.updated_replicas, wanted);
            expected.equal(format!("stateful set {name} pods"), self.pods_of(&o.head.uid).len() as i64, wanted);
            let revisions = self.controlled(&o.head.uid, id::CONTROLLER_REVISION).len() as i64;
            expected.at_most(format!("stateful set {name} revisions"), revisions, HISTORY + 1);
        }
        let nodes = self.objects.list(id::NODE).filter(|n| n.view::<Node>().is_ok()).count() as i64;
        for o in self.objects.list_in(id::DAEMON_SET, NAMESPACE) {
            let Ok(d) = o.view::<DaemonSet>() else { continue };
            expected.equal(format!("daemon set {} available", o.head.name), d.status.number_available, nodes);
            expected.equal(format!("daemon set {} updated", o.head.name), d.status.updated_number_scheduled, nodes);
            let revisions = self.controlled(&o.head.uid, id::CONTROLLER_REVISION).len() as i64;
            expected.at_most(format!("daemon set {} revisions", o.head.name), revisions, HISTORY + 1);
        }
    }

    fn settled_jobs(&self, expected: &mut Expected) {
        for o in self.objects.list_in(id::JOB, NAMESPACE) {
            let Ok(job) = o.view::<Job>() else { continue };
            let name = &o.head.name;
            expected.equal(format!("job {name} finished"), i64::from(job.finished().is_some()), 1);
            expected.equal(format!("job {name} expired"), i64::from(job.spec.ttl_seconds_after_finished.is_some()), 0);
            let seen = self.jobs.0.get(&o.head.uid).map_or(0, |seen| seen.successes());
            let wanted = job.spec.completions.filter(|_| job.finished().is_some_and(|c| c.r#type == "Complete"));
            expected.equal(format!("job {name} succeeded"), job.status.succeeded, wanted.unwrap_or(seen));
            expected.equal(format!("job {name} active"), job.status.active, 0);
        }
        for o in self.objects.list_in(id::CRON_JOB, NAMESPACE) {
            let Ok(cron) = o.view::<CronJob>() else { continue };
            expected.equal(format!("cron job {} active", o.head.name), cron.status.active.len() as i64, 0);
            let jobs = self.controlled(&o.head.uid, id::JOB);
            for (kind, limit) in [("Complete", HISTORY), ("Failed", 1)] {
                let of =
                    |o: &&Arc<Object>| o.view::<Job>().is_ok_and(|j| j.finished().is_some_and(|c| c.r#type == kind));
                let count = jobs.iter().filter(of).count() as i64;
                expected.at_most(format!("cron job {} {kind} jobs", o.head.name), count, limit);
            }
        }
    }

    fn settled_upkeep(&self, expected: &mut Expected) {
        let ready = |p: &Arc<Pod>| p.is_ready() && p.metadata.labels.get("app").is_some_and(|a| a == ROLLED);
        let pods = self.objects.list_in(id::POD, NAMESPACE).filter_map(|o| o.view::<Pod>().ok()).filter(ready).count();
        let slices = self.objects.list_in(id::ENDPOINT_SLICE, NAMESPACE).filter_map(|o| o.view::<EndpointSlice>().ok());
        let endpoints: usize = slices.map(|s| s.endpoints.len()).sum();
        if self.objects.find(id::SERVICE, NAMESPACE, ROLLED).is_some() {
            expected.equal("endpoints".into(), endpoints as i64, pods as i64);
        }
        let budget = self.find(id::POD_DISRUPTION_BUDGET, NAMESPACE, GUARDED);
        if let Some(budget) = budget.and_then(|o| o.view::<PodDisruptionBudget>().ok()) {
            let min = GUARDED_MIN as i64;
            expected.equal("budget's healthy pods".into(), budget.status.current_healthy, min + 1);
            expected.equal("budget's desired pods".into(), budget.status.desired_healthy, min);
            expected.equal("budget's allowed disruptions".into(), budget.status.disruptions_allowed, 1);
        }
        let quota = self.find(id::RESOURCE_QUOTA, CAPPED, "few").and_then(|o| o.view::<ResourceQuota>().ok());
        if let Some(quota) = quota {
            let terminal = |o: &&Arc<Object>| o.view::<Pod>().is_ok_and(|p| !p.is_terminal());
            let count = self.objects.list_in(id::POD, CAPPED).filter(terminal).count();
            let used = quota.status.used.get("pods").map(|n| n.to_string()).unwrap_or_default();
            expected.equal(format!("quota's use ({used})"), i64::from(used == count.to_string()), 1);
        }
    }

    /// No object has lost its owner, no pod its node, and no pod waits to be counted for nobody.
    fn nothing_orphaned(&mut self) {
        let mut faults = Vec::new();
        for kind in self.objects.registry().iter().map(|kind| kind.id) {
            for object in [NAMESPACE, CAPPED].iter().flat_map(|ns| self.objects.list_in(kind, ns)) {
                let lost = object.head.owners.iter().find(|r| self.objects.by_uid(&r.uid).is_none());
                if let Some(lost) = lost.filter(|_| kind != id::EVENT) {
                    faults.push(format!("{} has lost its owner {}", object.key(), lost.name));
                }
            }
        }
        for set in self.objects.list_in(id::REPLICA_SET, NAMESPACE).filter(|set| set.head.controller().is_none()) {
            faults.push(format!("{} was adopted by nobody", set.key()));
        }
        for object in self.objects.list_in(id::POD, NAMESPACE) {
            let Ok(pod) = object.view::<Pod>() else { continue };
            if pod.is_scheduled() && self.find(id::NODE, "", &pod.spec.node_name).is_none() {
                faults.push(format!("{} has lost its node", object.key()));
            }
            let tracked = object.head.finalizers.iter().any(|f| *f == *"batch.kubernetes.io/job-tracking");
            if tracked && pod.is_terminal() {
                faults.push(format!("{} still waits to be counted", object.key()));
            }
        }
        faults.into_iter().for_each(|text| self.fault("nothing is orphaned", text));
    }

    /// Every controller, asked about everything, has nothing to do.
    fn nothing_left(&mut self) {
        let entropy = SeededEntropy::new(0);
        let world = World { state: &self.objects, now: self.sim.wall(), entropy: &entropy, last: None, kept: None };
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
            // Where the quota stands in the way, something is always wanted.
            for key in keys.into_iter().filter(|key| *key.namespace != *CAPPED) {
                let plan = controller.reconcile(&world, &key);
                if !plan.stages.is_empty() {
                    let name = controller.name();
                    faults.push(format!("{name} would still do for {key}: {:?}", plan.stages));
                }
            }
        }
        faults.into_iter().for_each(|text| self.fault("a settled cluster gives empty plans", text));
    }

    /// What must hold after the namespaces were deleted.
    pub fn ended(&mut self) {
        for namespace in [NAMESPACE, CAPPED] {
            for kind in self.objects.registry().iter().map(|kind| kind.id).collect::<Vec<_>>() {
                let left: Vec<String> = self.objects.list_in(kind, namespace).map(|o| o.key().to_string()).collect();
                if !left.is_empty() {
                    self.fault("namespaces end", format!("there are still {left:?}"));
                }
            }
            if self.objects.find(id::NAMESPACE, "", namespace).is_some() {
                self.fault("namespaces end", format!("{namespace} is still there"));
            }
        }
    }
}
