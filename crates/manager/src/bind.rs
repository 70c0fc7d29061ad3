//! Executing a decision for one pod: volumes, binding, conditions, eviction.

use std::sync::Arc;
use std::time::Duration;

use corten_base::{Clock, Istr, Timestamp};
use corten_cache::{Cache, Scope};
use corten_client::{Api, DeleteOptions, PatchKind, Target, Write, WriteOptions};
use corten_controllers::{EventNote, status};
use corten_kinds::id;
use corten_object::conditions::{self, NewCondition};
use corten_object::{Object, ObjectKey, Status};
use corten_scheduler::{SELECTED_NODE, VolumeDecision};
use corten_tree::{Tree, tree};
use corten_views::PersistentVolumeClaim;
use futures::future::{Either, select};

use crate::Recorder;

/// How long a pod waits for its volumes (upstream's `bindTimeoutSeconds`).
const VOLUMES_WAIT: Duration = Duration::from_secs(600);

/// One pod's way to its node.
pub(crate) struct Binding {
    pub api: Arc<dyn Api>,
    pub cache: Cache,
    pub clock: Arc<dyn Clock>,
    pub recorder: Recorder,
    pub pod: Arc<Object>,
    pub node: Istr,
    pub volumes: Vec<VolumeDecision>,
}

impl Binding {
    /// Does it; false if the pod is not bound (or nobody knows).
    pub async fn run(self) -> bool {
        let (namespace, name) = (&self.pod.head.namespace, &self.pod.head.name);
        match self.try_run().await {
            Ok(()) => {
                let message = format!("Successfully assigned {namespace}/{name} to {}", self.node);
                self.recorder.record(EventNote::normal(&self.pod, "Scheduled", message));
                true
            }
            Err(reason) => {
                tracing::debug!(pod = %self.pod.key(), %reason, "not bound");
                if !reason.is_empty() {
                    self.recorder.record(EventNote::warning(&self.pod, "FailedScheduling", reason));
                }
                false
            }
        }
    }

    /// The error is what to tell; empty: nothing.
    async fn try_run(&self) -> Result<(), String> {
        if !self.volumes.is_empty() {
            self.decide_volumes().await?;
            let timeout = self.clock.sleep(VOLUMES_WAIT);
            if let Either::Right(_) = select(Box::pin(self.wait_for_claims()), timeout).await {
                return Err(String::from("binding volumes: context deadline exceeded"));
            }
        }
        let head = &self.pod.head;
        let body = tree!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {
                "name": (head.name.as_str()),
                "namespace": (head.namespace.as_str()),
                "uid": (head.uid.as_str())
            },
            "target": {"apiVersion": "v1", "kind": "Node", "name": (self.node.as_str())}
        });
        let write = Write::Create { target: Target { key: self.pod.key(), subresource: "binding" }, body };
        match self.api.write(write, WriteOptions::default()).await {
            Ok(written) => {
                self.cache.wait_for(written.revision).await;
                Ok(())
            }
            Err(failure) => {
                self.cache.wait_for(failure.revision).await;
                Err(told(&failure.status))
            }
        }
    }

    async fn decide_volumes(&self) -> Result<(), String> {
        for decision in &self.volumes {
            let (key, body) = match decision {
                VolumeDecision::Provision { claim } => {
                    let mut annotations = Tree::map();
                    annotations.insert(SELECTED_NODE, self.node.as_str());
                    let key = ObjectKey::new(id::PERSISTENT_VOLUME_CLAIM, &self.pod.head.namespace, claim);
                    (key, tree!({"metadata": {"annotations": (annotations)}}))
                }
                VolumeDecision::Bind { claim, volume } => self.reserve(claim, volume)?,
            };
            let write = Write::Patch { target: Target::object(key), patch: PatchKind::Merge, body };
            if let Err(failure) = self.api.write(write, WriteOptions::default()).await {
                return Err(told(&failure.status));
            }
        }
        Ok(())
    }

    /// The write that reserves a volume for a claim, if it is still free.
    fn reserve(&self, claim: &str, volume: &str) -> Result<(ObjectKey, Tree), String> {
        let world = self.cache.read();
        let namespace = &self.pod.head.namespace;
        let key = ObjectKey::new(id::PERSISTENT_VOLUME, "", volume);
        let (claim, volume) = world
            .find(id::PERSISTENT_VOLUME_CLAIM, namespace, claim)
            .zip(world.get(&key))
            .ok_or_else(|| format!("persistentvolume \"{volume}\" not found"))?;
        let mut annotations = Tree::map();
        annotations.insert("pv.kubernetes.io/bound-by-controller", "yes");
        let body = tree!({
            "metadata": {
                "annotations": (annotations),
                "resourceVersion": (volume.head.revision.to_string())
            },
            "spec": {"claimRef": {
                "kind": "PersistentVolumeClaim",
                "apiVersion": "v1",
                "namespace": (namespace.as_str()),
                "name": (claim.head.name.as_str()),
                "uid": (claim.head.uid.as_str()),
                "resourceVersion": (claim.head.revision.to_string())
            }}
        });
        Ok((key, body))
    }

    /// Whether all decided claims are bound, and at which revision that is so.
    fn claims_bound(&self) -> (bool, corten_base::Revision) {
        let world = self.cache.read();
        let bound = |decision: &VolumeDecision| {
            let (VolumeDecision::Bind { claim, .. } | VolumeDecision::Provision { claim }) = decision;
            world
                .find(id::PERSISTENT_VOLUME_CLAIM, &self.pod.head.namespace, claim)
                .and_then(|object| object.view::<PersistentVolumeClaim>().ok())
                .is_some_and(|claim| claim.status.phase == "Bound")
        };
        (self.volumes.iter().all(bound), world.revision())
    }

    /// Completes when all decided claims are bound.
    async fn wait_for_claims(&self) {
        loop {
            let (all, revision) = self.claims_bound();
            if all {
                return;
            }
            if let Ok(mut cursor) = self.cache.cursor(Scope::Kind(id::PERSISTENT_VOLUME_CLAIM), revision) {
                // An error means that changes were lost: look again.
                let _ = cursor.next_batch(64).await;
            }
        }
    }
}

/// What people are told of a failure: nothing if it is no news.
fn told(status: &Status) -> String {
    if status.is_not_found() || status.is_conflict() { String::new() } else { status.message.clone() }
}

/// The write of the condition that a pod is not scheduled; `None` if it says so already. `nominated` is the node on which
/// room is being made.
pub(crate) fn condition(
    pod: &Arc<Object>,
    reason: &str,
    message: &str,
    nominated: Option<&str>,
    now: Timestamp,
) -> Option<Write> {
    let before = status::of(&pod.to_tree());
    let mut after = before.clone();
    let condition = NewCondition { kind: "PodScheduled", status: "False", reason, message: message.to_owned() };
    let stale = conditions::find(&before, "PodScheduled").is_none_or(|c| {
        c.str_at("reason") != reason || c.str_at("message") != message || c.str_at("status") != "False"
    });
    if stale {
        conditions::replace(&mut after, &condition, now, "");
    }
    if let Some(node) = nominated {
        after.insert("nominatedNodeName", node);
    }
    let patch = status::diff(&before, &after)?;
    let revision = pod.head.revision.to_string();
    let body = tree!({"metadata": {"uid": (pod.head.uid.as_str()), "resourceVersion": (revision)}, "status": (patch)});
    Some(Write::Patch { target: Target::status(pod.key()), patch: PatchKind::Merge, body })
}

/// Makes room: the victim learns why (`DisruptionTarget`) and is deleted.
pub(crate) async fn evict(api: &dyn Api, victim: &Arc<Object>, now: Timestamp) {
    let before = status::of(&victim.to_tree());
    let mut after = before.clone();
    let condition = NewCondition {
        kind: "DisruptionTarget",
        status: "True",
        reason: "PreemptionByScheduler",
        message: String::from("default-scheduler: preempting to accommodate a higher priority pod"),
    };
    conditions::set(&mut after, &condition, now, "");
    if let Some(patch) = status::diff(&before, &after) {
        let body = tree!({"metadata": {"uid": (victim.head.uid.as_str())}, "status": (patch)});
        let write = Write::Patch { target: Target::status(victim.key()), patch: PatchKind::Merge, body };
        if let Err(failure) = api.write(write, WriteOptions::default()).await {
            tracing::debug!(error = %failure, "the victim's condition was not written");
        }
    }
    let options = DeleteOptions { uid: Some(victim.head.uid.to_string()), ..DeleteOptions::default() };
    if let Err(failure) = api.write(Write::Delete { key: victim.key(), options }, WriteOptions::default()).await {
        tracing::debug!(error = %failure, "the victim was not deleted");
    }
}
