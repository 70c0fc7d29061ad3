//! What users do, by chance.

use std::sync::Arc;
use std::time::Duration;

use corten_auth::User;
use corten_base::{Clock, Entropy};
use corten_client::{Api, DeleteOptions, PatchKind, Propagation, Target, Write};
use corten_kinds::id;
use corten_object::{KindId, ObjectKey};
use corten_tree::{Tree, tree};

use crate::cluster::{Cluster, insist};

/// The namespace that users work in.
pub(crate) const NAMESPACE: &str = "work";
/// The deployment that is rolled but never scaled: its bounds are checked.
pub(crate) const ROLLED: &str = "rolled";

/// A user with a seed.
pub(crate) struct Users {
    api: Arc<dyn Api>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    version: u64,
    jobs: u64,
}

fn template(app: &str, version: u64, restart: &str) -> Tree {
    tree!({
        "metadata": {"labels": {"app": app}},
        "spec": {
            "restartPolicy": restart,
            "containers": [{"name": "c", "image": (format!("image:{version}"))}]
        }
    })
}

impl Users {
    pub fn new(cluster: &Cluster) -> Users {
        let (clock, entropy) = (cluster.sim.clock(), cluster.entropy.clone());
        Users { api: cluster.api(User::admin()), clock, entropy, version: 1, jobs: 0 }
    }

    fn pick(&self, n: u64) -> u64 {
        self.entropy.u64() % n
    }

    async fn create(&self, kind: KindId, name: &str, body: Tree) {
        let namespace = if kind == id::NAMESPACE { "" } else { NAMESPACE };
        let mut body = body;
        body.set("metadata.name", name);
        let target = Target::object(ObjectKey::new(kind, namespace, name));
        insist(&*self.api, &*self.clock, Write::Create { target, body }).await;
    }

    async fn patch(&self, kind: KindId, name: &str, body: Tree) {
        let target = Target::object(ObjectKey::new(kind, NAMESPACE, name));
        insist(&*self.api, &*self.clock, Write::Patch { target, patch: PatchKind::Merge, body }).await;
    }

    /// Sets everything up.
    pub async fn begin(&self) {
        self.create(id::NAMESPACE, NAMESPACE, tree!({"apiVersion": "v1", "kind": "Namespace", "metadata": {}})).await;
        // Admission lets pods in only when their service account is there.
        self.clock.sleep(Duration::from_secs(5)).await;
        let bounds = [
            tree!({"maxSurge": 1, "maxUnavailable": 0}),
            tree!({"maxSurge": "25%", "maxUnavailable": "25%"}),
            tree!({"maxSurge": 0, "maxUnavailable": 2}),
        ];
        let bounds = bounds[self.pick(3) as usize].clone();
        let selector = |app: &str| tree!({"matchLabels": {"app": app}});
        for (name, replicas) in [(ROLLED, 2 + self.pick(6)), ("scaled", self.pick(5))] {
            let body = tree!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}, "spec": {
                "replicas": (replicas as i64), "selector": (selector(name)), "template": (template(name, 1, "Always")),
                "strategy": {"type": "RollingUpdate", "rollingUpdate": (bounds.clone())}}});
            self.create(id::DEPLOYMENT, name, body).await;
        }
        let body = tree!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {}, "spec": {
            "replicas": (1 + self.pick(4) as i64), "serviceName": "db", "selector": (selector("db")),
            "template": (template("db", 1, "Always"))}});
        self.create(id::STATEFUL_SET, "db", body).await;
        let body = tree!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {}, "spec": {
            "selector": (selector("agent")), "template": (template("agent", 1, "Always"))}});
        self.create(id::DAEMON_SET, "agent", body).await;
        let body = tree!({"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {
            "selector": {"app": ROLLED}, "ports": [{"port": 80}]}});
        self.create(id::SERVICE, ROLLED, body).await;
    }

    /// One thing that a user does.
    pub async fn act(&mut self) {
        self.version += 1;
        let image = |app: &str, version| tree!({"spec": {"template": (template(app, version, "Always"))}});
        match self.pick(9) {
            0 | 1 => self.patch(id::DEPLOYMENT, ROLLED, image(ROLLED, self.version)).await,
            2 => self.patch(id::DEPLOYMENT, "scaled", tree!({"spec": {"replicas": (self.pick(8) as i64)}})).await,
            3 => self.patch(id::DEPLOYMENT, "scaled", image("scaled", self.pick(3))).await,
            4 => self.patch(id::STATEFUL_SET, "db", tree!({"spec": {"replicas": (self.pick(5) as i64)}})).await,
            5 => self.patch(id::STATEFUL_SET, "db", image("db", self.version)).await,
            6 => self.patch(id::DAEMON_SET, "agent", image("agent", self.version)).await,
            7 => self.job().await,
            _ => self.delete_scaled().await,
        }
    }

    async fn job(&mut self) {
        self.jobs += 1;
        let name = format!("job-{}", self.jobs);
        let mut spec = tree!({"completions": (1 + self.pick(5) as i64), "parallelism": (1 + self.pick(3) as i64),
            "backoffLimit": 50, "template": (template(&name, 1, "Never"))});
        spec.remove("template.metadata");
        if self.pick(2) == 0 {
            spec.insert("completionMode", "Indexed");
        }
        let body = tree!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, "spec": (spec)});
        self.create(id::JOB, &name, body).await;
    }

    /// Deletes the scaled deployment in one of the three ways, and makes it again later.
    async fn delete_scaled(&self) {
        let ways = [Propagation::Background, Propagation::Foreground, Propagation::Orphan];
        let propagation = Some(ways[self.pick(3) as usize]);
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        let key = ObjectKey::new(id::DEPLOYMENT, NAMESPACE, "scaled");
        insist(&*self.api, &*self.clock, Write::Delete { key, options }).await;
        self.clock.sleep(Duration::from_secs(self.pick(30))).await;
        let body = tree!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}, "spec": {
            "replicas": (self.pick(5) as i64), "selector": {"matchLabels": {"app": "scaled"}},
            "template": (template("scaled", self.pick(3), "Always"))}});
        self.create(id::DEPLOYMENT, "scaled", body).await;
    }

    /// Deletes the namespace with all that is in it.
    pub async fn end(&self) {
        let key = ObjectKey::new(id::NAMESPACE, "", NAMESPACE);
        insist(&*self.api, &*self.clock, Write::Delete { key, options: DeleteOptions::default() }).await;
    }
}
