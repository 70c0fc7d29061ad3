//! The node's pods: one worker each, found by uid.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use corten_base::OnStop;
use corten_kinds::id;
use corten_object::Object;
use corten_runtime::{Container, Sandbox};
use tokio::sync::{mpsc, watch};

use crate::labels;
use crate::pod::{Inventory, Origin, PodContext, Update, Worker, teardown};
use crate::shared::Shared;
use crate::static_pods::{self, Done, Slots, Step, manifest};
use crate::watcher::{Change, Watcher, only};

/// The pods that this node runs, by uid, for those who answer questions about them.
#[derive(Clone)]
pub struct PodTable {
    pods: Arc<Mutex<HashMap<String, Arc<Object>>>>,
    /// Counts changes.
    changes: watch::Sender<u64>,
    /// Whether the API's pods have been listed once.
    listed: watch::Sender<bool>,
}

impl Default for PodTable {
    fn default() -> PodTable {
        PodTable { pods: Arc::default(), changes: watch::channel(0).0, listed: watch::channel(false).0 }
    }
}

impl PodTable {
    /// The newest pod of a name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = pods.values().filter(|p| p.head.namespace == namespace && p.head.name == name);
        fits.max_by_key(|p| p.head.created).cloned()
    }

    /// All pods, by namespace and name.
    pub fn all(&self) -> Vec<Arc<Object>> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Arc<Object>> = pods.values().cloned().collect();
        all.sort_by(|a, b| (&a.head.namespace, &a.head.name).cmp(&(&b.head.namespace, &b.head.name)));
        all
    }

    /// Whether a pod is here and has not ended.
    pub fn runs(&self, uid: &str) -> bool {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(uid).and_then(|o| o.view::<corten_views::Pod>().ok()).is_some_and(|pod| !pod.is_terminal())
    }

    fn set(&self, object: &Arc<Object>) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.insert(object.head.uid.to_string(), object.clone());
        drop(pods);
        self.changes.send_modify(|n| *n += 1);
    }

    fn remove(&self, uid: &str) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.changes.send_modify(|n| *n += 1);
    }

    /// Ends when the API's pods have been listed once: until then, a pod that is not here may still be one of this node's.
    pub async fn listed(&self) {
        // The sender is in this table: it does not go meanwhile.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// Changes with each pod.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Where the pods come from, besides the API.
pub struct Feeds {
    /// Those of manifests.
    pub manifests: watch::Receiver<Option<Vec<Arc<Object>>>>,
    /// Pods of the API begin when this is true.
    pub open: watch::Receiver<bool>,
}

/// Follows the node's pods and keeps their workers. Runs until it is dropped.
pub async fn run(shared: Arc<Shared>, table: PodTable, mut feeds: Feeds) -> Result<(), String> {
    let inventory = observe(&shared).await?;
    let kept = inventory.values().flat_map(|left| left.containers.iter().map(|c| c.id.clone()));
    let kept = kept.chain(inventory.keys().cloned());
    shared.images.release_all_but(kept.collect()).await;
    let options = only("spec.nodeName", &shared.config.node_name);
    let mut watcher = Watcher::new(shared.api.clone(), shared.clock.clone(), id::POD, options);
    let (ended, mut endings) = mpsc::channel::<String>(crate::pod::INBOX_MAX);
    let (done, mut dones) = mpsc::channel::<Done>(crate::pod::INBOX_MAX);
    // What a former agent left of static pods is theirs: they are known before anything is taken away.
    let _ = feeds.manifests.wait_for(Option::is_some).await;
    feeds.manifests.mark_changed();
    let mut keeper = Keeper { shared, table, inventory, workers: HashMap::new(), slots: Slots::default(), ended, done };
    let mut open = false;
    loop {
        tokio::select! {
            Ok(()) = feeds.manifests.changed() => {
                let wanted = feeds.manifests.borrow_and_update().clone();
                keeper.want(&wanted.unwrap_or_default());
            }
            Ok(_) = feeds.open.wait_for(|open| *open), if !open => open = true,
            change = watcher.next(), if open => keeper.note(change),
            Some(uid) = endings.recv() => keeper.end(&uid),
            Some((pod, outcome)) = dones.recv() => keeper.slots.done(&pod, outcome),
        }
        keeper.step();
    }
}

/// The workers and what they are told.
struct Keeper {
    shared: Arc<Shared>,
    table: PodTable,
    /// What a former agent left and nobody has taken over.
    inventory: HashMap<String, Inventory>,
    workers: HashMap<String, watch::Sender<Update>>,
    slots: Slots,
    ended: mpsc::Sender<String>,
    done: mpsc::Sender<Done>,
}

impl Keeper {
    fn note(&mut self, change: Change) {
        match change {
            Change::Set(object) => self.set(object, false),
            Change::Gone(object) => self.set(object, true),
            Change::Reset(objects) => {
                let (mirrors, pods): (Vec<_>, Vec<_>) =
                    objects.into_iter().partition(|object| manifest::mirrored(object).is_some());
                self.slots.mirrors(&mirrors);
                let present: HashSet<String> = pods.iter().map(|o| o.head.uid.to_string()).collect();
                pods.into_iter().for_each(|object| self.set(object, false));
                for (uid, worker) in &self.workers {
                    if matches!(worker.borrow().origin, Origin::Api) && !present.contains(uid) {
                        worker.send_modify(|update| update.gone = true);
                    }
                }
                self.table.listed.send_replace(true);
                clear_orphans(&self.shared, &mut self.inventory);
            }
        }
    }

    fn set(&mut self, object: Arc<Object>, gone: bool) {
        match manifest::mirrored(&object) {
            None => self.deliver(Update { object, gone, origin: Origin::Api }),
            Some(_) if gone => {
                self.slots.mirror_gone((&object.head.namespace, &object.head.name), &object.head.uid);
            }
            Some(_) => self.slots.mirror(&object),
        }
    }

    fn deliver(&mut self, update: Update) {
        let uid = update.object.head.uid.to_string();
        // DNS answers for addresses of pods in the namespaces that it knows.
        self.shared.zone.set_namespace(&update.object.head.namespace, true);
        let shown = match &update.origin {
            Origin::Api => update.object.clone(),
            Origin::Manifest(mirror) => static_pods::shown(&update.object, mirror.as_deref()),
        };
        match self.workers.get(&uid) {
            Some(worker) => worker.send_modify(|known| known.follow(update)),
            None if update.gone => return,
            None => {
                let (sender, receiver) = watch::channel(update);
                self.workers.insert(uid.clone(), sender);
                let worker = Worker::new(self.shared.clone(), receiver);
                let left = self.inventory.remove(&uid).unwrap_or_default();
                let ended = self.ended.clone();
                self.shared.tasks.spawn("pod", OnStop::Abort, async move {
                    worker.run(left).await;
                    let _ = ended.send(uid).await;
                });
            }
        }
        self.table.set(&shown);
    }

    fn want(&mut self, pods: &[Arc<Object>]) {
        for twin in self.slots.want(pods) {
            let path = self.shared.config.pod_manifest_path.clone().unwrap_or_default();
            let message = format!("{}: another manifest has a pod of the name {}", path.display(), twin.key());
            static_pods::tell(&self.shared, &path, &message);
        }
    }

    fn end(&mut self, uid: &str) {
        self.workers.remove(uid);
        self.table.remove(uid);
        self.slots.ended(uid);
    }

    /// Does what is due for static pods and their mirrors.
    fn step(&mut self) {
        for step in self.slots.steps() {
            match step {
                Step::Start(object) => self.deliver(Update { object, gone: false, origin: Origin::Manifest(None) }),
                Step::Mirror(object, mirror) => {
                    self.deliver(Update { object, gone: false, origin: Origin::Manifest(mirror) });
                }
                Step::Stop(object) => {
                    if let Some(worker) = self.workers.get(&*object.head.uid) {
                        worker.send_modify(|update| update.gone = true);
                    }
                }
                Step::MakeMirror(pod) => static_pods::execute(&self.shared, pod, true, self.done.clone()),
                Step::RemoveMirror(pod) => static_pods::execute(&self.shared, pod, false, self.done.clone()),
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
    // Directories outlive all else: an agent may have died when the pod had gone and they had not.
    let pods = shared.config.data_dir.join("pods");
    let logs = pods.join("logs");
    let (dirs, logs) = shared.blocking(move |_| (names_in(&pods), names_in(&logs))).await?;
    for uid in dirs.into_iter().filter(|name| name != "logs") {
        out.entry(uid).or_default();
    }
    for name in logs {
        if let [namespace, pod, uid] = name.split('_').collect::<Vec<_>>()[..] {
            out.entry(uid.to_owned()).or_default().logs_of = Some((namespace.to_owned(), pod.to_owned()));
        }
    }
    Ok(out)
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Takes away what belongs to no pod of the API any more, and network allocations without a sandbox.
fn clear_orphans(shared: &Arc<Shared>, inventory: &mut HashMap<String, Inventory>) {
    let orphans: Vec<(String, Inventory)> = inventory.drain().collect();
    let shared = shared.clone();
    shared.tasks.clone().spawn("pod-orphans", OnStop::Abort, async move {
        for (uid, orphan) in orphans {
            let labels = orphan.sandboxes.first().map(|s| &s.labels).or(orphan.containers.first().map(|c| &c.labels));
            let named = labels.map(|all| {
                let label = |key| labels::get(all, key).to_owned();
                (label(labels::POD_NAMESPACE), label(labels::POD_NAME))
            });
            let mut pod = corten_views::Pod::default();
            pod.metadata.uid = uid;
            (pod.metadata.namespace, pod.metadata.name) = named.or(orphan.logs_of).unwrap_or_default();
            tracing::info!(pod = pod.metadata.name, uid = pod.metadata.uid, "taking away what a deleted pod has left");
            let (outbox, ending) = (mpsc::channel(1).0, watch::channel(true).1);
            let ctx = PodContext { shared: shared.clone(), pod: Arc::new(pod), outbox, ending };
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

#[cfg(test)]
mod tests {
    use corten_kinds::Registry;
    use corten_object::Revision;
    use corten_tree::tree;

    use super::*;

    /// A manifest's end and news of its mirror may come in one round, the end first.
    #[test]
    fn a_static_pod_that_was_stopped_stays_so_when_its_mirror_changes() {
        let registry = Registry::builtin();
        let object = |revision, meta| {
            let json = bytes::Bytes::from(tree!({"apiVersion": "v1", "kind": "Pod", "metadata": meta}).to_json());
            Arc::new(Object::parse(id::POD, json, Revision(revision), &registry.get(id::POD).fact_paths).unwrap())
        };
        let pod = object(0, tree!({"name": "web-n", "namespace": "default", "uid": "a"}));
        let mirror = object(
            7,
            tree!({"name": "web-n", "namespace": "default", "uid": "m", "annotations": {"kubernetes.io/config.mirror": "a"}}),
        );
        let mut slots = Slots::default();
        slots.want(std::slice::from_ref(&pod));
        slots.mirrors(&[]);
        slots.steps();
        let mut update = Update { object: pod, gone: false, origin: Origin::Manifest(None) };
        slots.want(&[]);
        slots.mirror(&mirror);
        for step in slots.steps() {
            match step {
                Step::Stop(_) => update.gone = true,
                Step::Mirror(object, mirror) => {
                    update.follow(Update { object, gone: false, origin: Origin::Manifest(mirror) });
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(update.gone && matches!(update.origin, Origin::Manifest(Some(_))));
    }
}
