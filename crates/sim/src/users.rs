//! What users do.

use std::sync::Arc;
use std::time::Duration;

use corten_auth::User;
use corten_base::{Clock, Entropy};
use corten_client::{DeleteOptions, PatchKind, Propagation, Target, Write};
use corten_kinds::id;
use corten_object::{KindId, ObjectKey};
use corten_tree::{Tree, tree};

use crate::cluster::{Cluster, Reconnecting};
use crate::node::{BAD_IMAGE, ENDLESS, FAILING, Nodes};
use crate::script::{Deed, JobShape};

/// The namespace that users work in.
pub(crate) const NAMESPACE: &str = "work";
/// The namespace whose pods are few by quota.
pub(crate) const CAPPED: &str = "capped";
/// How many they may be.
pub(crate) const CAP: i64 = 4;
/// The deployment that is rolled but never scaled: its bounds are checked.
pub(crate) const ROLLED: &str = "rolled";
/// The deployment that is only disturbed, under a budget.
pub(crate) const GUARDED: &str = "guarded";
/// How many of its pods must be healthy.
pub(crate) const GUARDED_MIN: usize = 3;
/// The cron job whose every time counts.
pub(crate) const TICK: &str = "tick";
/// The cron job whose jobs do not overlap.
pub(crate) const FORBID: &str = "forbid";
/// The cron job whose jobs replace each other.
pub(crate) const REPLACE: &str = "replace";
/// How many old revisions stay.
pub(crate) const HISTORY: i64 = 2;

/// The users of a cluster.
pub(crate) struct Users {
    api: Reconnecting,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    nodes: Nodes,
    version: u64,
    jobs: u64,
}

fn template(app: &str, image: &str, restart: &str) -> Tree {
    tree!({
        "metadata": {"labels": {"app": app}},
        "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": image}]}
    })
}

fn image(version: u64) -> String {
    format!("image:{version}")
}

fn apps(kind: &str, spec: Tree) -> Tree {
    tree!({"apiVersion": "apps/v1", "kind": kind, "metadata": {}, "spec": (spec)})
}

fn workload(app: &str, replicas: u64) -> Tree {
    tree!({"replicas": (replicas as i64), "selector": {"matchLabels": {"app": app}}, "revisionHistoryLimit": HISTORY,
        "template": (template(app, &image(1), "Always"))})
}

impl Users {
    pub fn new(cluster: &Cluster, nodes: Nodes) -> Users {
        let (clock, entropy) = (cluster.sim.clock(), cluster.entropy.clone());
        Users { api: cluster.api(User::admin()), clock, entropy, nodes, version: 1, jobs: 0 }
    }

    fn pick(&self, n: u64) -> u64 {
        self.entropy.u64() % n
    }

    async fn create_in(&self, namespace: &str, kind: KindId, name: &str, mut body: Tree) {
        body.set("metadata.name", name);
        let target = Target::object(ObjectKey::new(kind, namespace, name));
        self.api.insist(&*self.clock, Write::Create { target, body }).await;
    }

    async fn create(&self, kind: KindId, name: &str, body: Tree) {
        self.create_in(NAMESPACE, kind, name, body).await;
    }

    async fn patch(&self, kind: KindId, name: &str, body: Tree) {
        let target = Target::object(ObjectKey::new(kind, NAMESPACE, name));
        self.api.insist(&*self.clock, Write::Patch { target, patch: PatchKind::Merge, body }).await;
    }

    /// Sets everything up.
    pub async fn begin(&self) {
        for name in [NAMESPACE, CAPPED] {
            self.create_in("", id::NAMESPACE, name, tree!({"apiVersion": "v1", "kind": "Namespace", "metadata": {}}))
                .await;
        }
        // Admission lets pods in only when their service account is there.
        self.clock.sleep(Duration::from_secs(5)).await;
        let bounds = [
            tree!({"maxSurge": 1, "maxUnavailable": 0}),
            tree!({"maxSurge": "25%", "maxUnavailable": "25%"}),
            tree!({"maxSurge": 0, "maxUnavailable": 2}),
        ];
        let rolling = tree!({"type": "RollingUpdate", "rollingUpdate": (bounds[self.pick(3) as usize].clone())});
        for (name, replicas) in [(ROLLED, 2 + self.pick(6)), ("scaled", self.pick(5)), (GUARDED, 4)] {
            let mut spec = workload(name, replicas);
            spec.insert("strategy", rolling.clone());
            if name == ROLLED && self.pick(2) == 0 {
                spec.insert("minReadySeconds", 9);
            }
            self.create(id::DEPLOYMENT, name, apps("Deployment", spec)).await;
        }
        let body = apps("Deployment", workload("crowd", 3));
        self.create_in(CAPPED, id::DEPLOYMENT, "crowd", body).await;
        let hard = tree!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {}, "spec": {"hard": {"pods": (CAP.to_string())}}});
        self.create_in(CAPPED, id::RESOURCE_QUOTA, "few", hard).await;
        for (name, policy) in [("db", "OrderedReady"), ("para", "Parallel")] {
            let mut spec = workload(name, 1 + self.pick(4));
            spec.insert("serviceName", name);
            spec.insert("podManagementPolicy", policy);
            self.create(id::STATEFUL_SET, name, apps("StatefulSet", spec)).await;
        }
        let mut spec = workload("agent", 1);
        spec.remove("replicas");
        self.create(id::DAEMON_SET, "agent", apps("DaemonSet", spec)).await;
        let body = tree!({"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {
            "selector": {"app": ROLLED}, "ports": [{"port": 80}]}});
        self.create(id::SERVICE, ROLLED, body).await;
        let body = tree!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {}, "spec": {
            "maxUnavailable": 1, "selector": {"matchLabels": {"app": GUARDED}}}});
        self.create(id::POD_DISRUPTION_BUDGET, GUARDED, body).await;
        self.crons().await;
    }

    async fn crons(&self) {
        for (name, schedule, policy) in
            [(TICK, "*/2 * * * *", "Allow"), (FORBID, "* * * * *", "Forbid"), (REPLACE, "*/3 * * * *", "Replace")]
        {
            let mut pod = template(name, &image(1), "Never");
            pod.remove("metadata.labels");
            let mut annotations = Tree::map();
            if name != TICK && self.pick(2) == 0 {
                annotations.insert(ENDLESS, "true");
            }
            pod.set("metadata.annotations", annotations);
            let job = tree!({"spec": {"template": (pod), "backoffLimit": 1, "activeDeadlineSeconds": 250}});
            let spec = tree!({"schedule": schedule, "concurrencyPolicy": policy, "startingDeadlineSeconds": 100,
                "jobTemplate": (job), "successfulJobsHistoryLimit": HISTORY, "failedJobsHistoryLimit": 1});
            let body = tree!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {}, "spec": (spec)});
            self.create(id::CRON_JOB, name, body).await;
        }
    }

    /// Does what the script says.
    pub async fn act(&mut self, deed: &Deed) {
        self.version += 1;
        let template_of = |app: &str, image: String| tree!({"spec": {"template": (template(app, &image, "Always"))}});
        let replicas = |n: u64| tree!({"spec": {"replicas": (n as i64)}});
        let version = self.version;
        match *deed {
            Deed::Roll => self.patch(id::DEPLOYMENT, ROLLED, template_of(ROLLED, image(version))).await,
            Deed::RollBad => {
                self.patch(id::DEPLOYMENT, ROLLED, template_of(ROLLED, format!("{BAD_IMAGE}:{version}"))).await;
            }
            Deed::Pause(paused) => self.patch(id::DEPLOYMENT, ROLLED, tree!({"spec": {"paused": paused}})).await,
            Deed::Scale(n) => self.patch(id::DEPLOYMENT, "scaled", replicas(n)).await,
            Deed::Image(n) => self.patch(id::DEPLOYMENT, "scaled", template_of("scaled", image(n))).await,
            Deed::Recreate { way, wait } => self.recreate(way, wait).await,
            Deed::Stretch(n) => self.patch(id::STATEFUL_SET, "db", replicas(n)).await,
            Deed::RollStateful => self.patch(id::STATEFUL_SET, "db", template_of("db", image(version))).await,
            Deed::StretchParallel(n) => self.patch(id::STATEFUL_SET, "para", replicas(n)).await,
            Deed::RollDaemons => self.patch(id::DAEMON_SET, "agent", template_of("agent", image(version))).await,
            Deed::Job(ref shape) => self.job(shape).await,
            Deed::DeleteJob(n) => self.delete_job(n).await,
            Deed::Suspend(n, suspend) => self.suspend(n, suspend).await,
            Deed::Evict(n) => self.evict(n).await,
            Deed::Crowd(n) => {
                let target = Target::object(ObjectKey::new(id::DEPLOYMENT, CAPPED, "crowd"));
                let write = Write::Patch { target, patch: PatchKind::Merge, body: replicas(n) };
                self.api.insist(&*self.clock, write).await;
            }
            Deed::Kill(n) => self.kill(n).await,
            Deed::Crash(n) => self.nodes.crash(n),
            Deed::Silence(n, seconds) => self.nodes.silence(n, seconds),
            Deed::Slow(n, seconds) => self.nodes.slow(n, seconds),
            Deed::Remove(n) => self.nodes.remove(n).await,
            Deed::Add => self.nodes.add().await,
            // These happen to what all of this runs on.
            Deed::RestartPart(_) | Deed::RestartProcess | Deed::SetClocks(_) | Deed::Sleep(_) => {}
        }
    }

    async fn job(&mut self, shape: &JobShape) {
        self.jobs += 1;
        let name = format!("job-{}", self.jobs);
        let mut pod = template(&name, &image(1), "Never");
        pod.remove("metadata.labels");
        let mut annotations = Tree::map();
        annotations.insert(FAILING, shape.failing.to_string());
        if shape.endless {
            annotations.insert(ENDLESS, "true");
        }
        pod.set("metadata.annotations", annotations);
        let mut spec = tree!({"completions": (shape.completions as i64), "parallelism": (shape.parallelism as i64),
            "backoffLimit": (shape.backoff_limit as i64), "template": (pod)});
        if shape.indexed {
            spec.insert("completionMode", "Indexed");
        }
        if shape.suspended {
            spec.insert("suspend", true);
        }
        for (field, seconds) in [("activeDeadlineSeconds", shape.deadline), ("ttlSecondsAfterFinished", shape.ttl)] {
            if let Some(seconds) = seconds {
                spec.insert(field, seconds as i64);
            }
        }
        let body = tree!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, "spec": (spec)});
        self.create(id::JOB, &name, body).await;
    }

    fn job_name(&self, number: u64) -> String {
        format!("job-{}", 1 + number % self.jobs.max(1))
    }

    async fn delete_job(&self, number: u64) {
        let key = ObjectKey::new(id::JOB, NAMESPACE, &self.job_name(number));
        let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        self.api.insist(&*self.clock, Write::Delete { key, options }).await;
    }

    async fn suspend(&self, number: u64, suspend: bool) {
        self.patch(id::JOB, &self.job_name(number), tree!({"spec": {"suspend": suspend}})).await;
    }

    /// Evicts guarded pods, one soon after the other and not more than once each.
    async fn evict(&self, count: u64) {
        let pods: Vec<ObjectKey> = {
            let cache = self.api.cache();
            let world = cache.read();
            let ours = |o: &&Arc<corten_object::Object>| o.head.labels.get("app") == Some(GUARDED);
            world.list_in(id::POD, NAMESPACE).filter(ours).take(count as usize).map(|o| o.key()).collect()
        };
        for key in pods {
            let body = tree!({"apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": (key.name.as_str()), "namespace": NAMESPACE}});
            let write = Write::Create { target: Target { key, subresource: "eviction" }, body };
            if let Err(refused) = self.api.write(write).await {
                tracing::debug!(error = %refused, "not evicted");
            }
            self.clock.sleep(Duration::from_millis(self.pick(600))).await;
        }
    }

    async fn kill(&self, number: u64) {
        let pods: Vec<ObjectKey> = self.api.cache().read().list_in(id::POD, NAMESPACE).map(|o| o.key()).collect();
        let Some(key) = pods.get((number % (pods.len().max(1) as u64)) as usize).cloned() else { return };
        self.api.insist(&*self.clock, Write::Delete { key, options: DeleteOptions::default() }).await;
    }

    /// Deletes the scaled deployment in one of the three ways, and makes it again later.
    async fn recreate(&self, way: usize, wait: u64) {
        let ways = [Propagation::Background, Propagation::Foreground, Propagation::Orphan];
        let options = DeleteOptions { propagation: Some(ways[way % ways.len()]), ..DeleteOptions::default() };
        let key = ObjectKey::new(id::DEPLOYMENT, NAMESPACE, "scaled");
        self.api.insist(&*self.clock, Write::Delete { key, options }).await;
        self.clock.sleep(Duration::from_secs(wait)).await;
        self.create(id::DEPLOYMENT, "scaled", apps("Deployment", workload("scaled", wait % 5))).await;
    }

    /// Takes back what would keep the cluster from coming to rest.
    pub async fn repair(&mut self) {
        self.act(&Deed::Roll).await;
        self.act(&Deed::Pause(false)).await;
        for number in 0..self.jobs {
            self.suspend(number, false).await;
        }
        for name in [TICK, FORBID, REPLACE] {
            self.patch(id::CRON_JOB, name, tree!({"spec": {"suspend": true}})).await;
        }
        // There may be no scaled deployment if its new self was refused for too long.
        self.create(id::DEPLOYMENT, "scaled", apps("Deployment", workload("scaled", 2))).await;
        self.act(&Deed::Crowd(2)).await;
    }

    /// Deletes the namespaces with all that is in them.
    pub async fn end(&self) {
        for name in [NAMESPACE, CAPPED] {
            let key = ObjectKey::new(id::NAMESPACE, "", name);
            self.api.insist(&*self.clock, Write::Delete { key, options: DeleteOptions::default() }).await;
        }
    }
}
