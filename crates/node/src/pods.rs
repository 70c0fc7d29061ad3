//! The node's pods: one worker each, found by uid.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use corten_base::OnStop;
use corten_client::ListOptions;
use corten_kinds::id;
use corten_object::selector::FieldTerm;
use corten_object::{FieldSelector, Object};
use corten_runtime::{Container, Sandbox};
use tokio::sync::{mpsc, watch};

use crate::labels;
use crate::pod::{Inventory, PodContext, Update, Worker, teardown};
use crate::shared::Shared;
use crate::watcher::{Change, Watcher};

/// The pods that this node runs, by uid, for those who answer questions about them.
#[derive(Clone, Default)]
pub struct PodTable(Arc<Mutex<HashMap<String, Arc<Object>>>>);

impl PodTable {
    /// The newest pod of a name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = pods.values().filter(|p| p.head.namespace == namespace && p.head.name == name);
        fits.max_by_key(|p| p.head.created).cloned()
    }

    /// All pods, by namespace and name.
    pub fn all(&self) -> Vec<Arc<Object>> {
        let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Arc<Object>> = pods.values().cloned().collect();
        all.sort_by(|a, b| (&a.head.namespace, &a.head.name).cmp(&(&b.head.namespace, &b.head.name)));
        all
    }

    /// Whether a pod is here and has not ended.
    pub fn runs(&self, uid: &str) -> bool {
        let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(uid).and_then(|o| o.view::<corten_views::Pod>().ok()).is_some_and(|pod| !pod.is_terminal())
    }

    fn set(&self, object: &Arc<Object>) {
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pods.insert(object.head.uid.to_string(), object.clone());
    }

    fn remove(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Follows the node's pods and keeps their workers. Runs until it is dropped.
pub async fn run(shared: Arc<Shared>, table: PodTable, first: watch::Sender<bool>) -> Result<(), String> {
    let mut inventory = observe(&shared).await?;
    let kept = inventory.values().flat_map(|left| left.containers.iter().map(|c| c.id.clone()));
    let kept = kept.chain(inventory.keys().cloned());
    shared.images.release_all_but(kept.collect()).await;
    let options = ListOptions {
        fields: FieldSelector {
            terms: vec![FieldTerm {
                path: "spec.nodeName".into(),
                equal: true,
                value: shared.config.node_name.clone(),
            }],
        },
        ..ListOptions::default()
    };
    let mut watcher = Watcher::new(shared.api.clone(), shared.clock.clone(), id::POD, options);
    let (ended, mut endings) = mpsc::channel::<String>(crate::pod::INBOX_MAX);
    let mut workers: HashMap<String, watch::Sender<Update>> = HashMap::new();
    loop {
        let change = tokio::select! {
            change = watcher.next() => change,
            Some(uid) = endings.recv() => {
                workers.remove(&uid);
                table.remove(&uid);
                continue;
            }
        };
        let mut deliver = |object: Arc<Object>, gone: bool| {
            let uid = object.head.uid.to_string();
            match workers.get(&uid) {
                Some(worker) => drop(worker.send_replace(Update { object: object.clone(), gone })),
                None if gone => return,
                None => {
                    let (sender, receiver) = watch::channel(Update { object: object.clone(), gone });
                    workers.insert(uid.clone(), sender);
                    let worker = Worker::new(shared.clone(), receiver);
                    let (left, ended, done) = (inventory.remove(&uid).unwrap_or_default(), ended.clone(), uid.clone());
                    shared.tasks.spawn("pod", OnStop::Abort, async move {
                        worker.run(left).await;
                        let _ = ended.send(done).await;
                    });
                }
            }
            // DNS answers for addresses of pods in the namespaces that it knows.
            shared.zone.set_namespace(&object.head.namespace, true);
            table.set(&object);
        };
        match change {
            Change::Set(object) => deliver(object, false),
            Change::Gone(object) => deliver(object, true),
            Change::Reset(objects) => {
                let present: Vec<String> = objects.iter().map(|o| o.head.uid.to_string()).collect();
                objects.into_iter().for_each(|o| deliver(o, false));
                for (uid, worker) in &workers {
                    if !present.contains(uid) {
                        worker.send_modify(|update| update.gone = true);
                    }
                }
                clear_orphans(&shared, &mut inventory);
                first.send_replace(true);
            }
        }
    }
}

/// What runs on this node, by pod uid.
async fn observe(shared: &Arc<Shared>) -> Result<HashMap<String, Inventory>, String> {
    let found = shared.blocking(|s| -> corten_runtime::Result<(Vec<Container>, Vec<Sandbox>)> {
        Ok((s.runtime.list_containers()?, s.runtime.list_sandboxes()?))
    });
    let (containers, sandboxes) = found.await?.map_err(|e| e.to_string())?;
    let mut out: HashMap<String, Inventory> = HashMap::new();
    for container in containers {
        let uid = labels::get(&container.labels, labels::POD_UID).to_owned();
        out.entry(uid).or_default().containers.push(container);
    }
    for sandbox in sandboxes {
        let uid = labels::get(&sandbox.labels, labels::POD_UID).to_owned();
        out.entry(uid).or_default().sandboxes.push(sandbox);
    }
    Ok(out)
}

/// Takes away what belongs to no pod of the API any more, and network allocations without a sandbox.
fn clear_orphans(shared: &Arc<Shared>, inventory: &mut HashMap<String, Inventory>) {
    let orphans: Vec<Inventory> = inventory.drain().map(|(_, left)| left).collect();
    let shared = shared.clone();
    shared.tasks.clone().spawn("pod-orphans", OnStop::Abort, async move {
        for orphan in orphans {
            let Some(all) =
                orphan.sandboxes.first().map(|s| &s.labels).or(orphan.containers.first().map(|c| &c.labels))
            else {
                continue;
            };
            let mut pod = corten_views::Pod::default();
            pod.metadata.uid = labels::get(all, labels::POD_UID).to_owned();
            pod.metadata.name = labels::get(all, labels::POD_NAME).to_owned();
            pod.metadata.namespace = labels::get(all, labels::POD_NAMESPACE).to_owned();
            tracing::info!(pod = pod.metadata.name, "taking away what a deleted pod has left");
            let ctx = PodContext { shared: shared.clone(), pod: Arc::new(pod), outbox: mpsc::channel(1).0 };
            match teardown::run(&ctx).await {
                Ok(()) => teardown::purge(&ctx).await,
                Err(error) => tracing::warn!(error, "a deleted pod's things cannot be taken away"),
            }
        }
        // The allocations first: a sandbox is there before it has one.
        let allocations = shared.network.allocations();
        let known = shared.blocking(|s| s.runtime.list_sandboxes()).await;
        let Ok(Ok(known)) = known else { return };
        for allocation in allocations {
            if !known.iter().any(|s| s.id == allocation.sandbox_id)
                && let Err(error) = shared.network.detach(&allocation.sandbox_id).await
            {
                tracing::warn!(%error, "a network allocation without a sandbox cannot be given back");
            }
        }
    });
}
