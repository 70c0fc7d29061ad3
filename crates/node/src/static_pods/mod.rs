//! Static pods: what manifests on this machine ask for, with or without an API. (`pkg/kubelet/config/file.go`)
//!
//! [`follow`] reads the manifests whenever the kernel says that they have changed; [`slots`] decides which pods run and which mirror
//! pods tell of them in the API; `crate::pods` has workers for them as for all pods.

mod directory;
pub mod manifest;
mod mirrors;
mod slots;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use corten_base::Timestamp;
use corten_kinds::{Kind, Registry, id};
use corten_object::{Object, time};
use tokio::sync::watch;

use crate::shared::Shared;

pub use mirrors::{Done, execute};
pub use slots::{Outcome, Slots, Step};

/// The static pods that manifests ask for; `None` until they have been read once.
pub type Wanted = watch::Sender<Option<Vec<Arc<Object>>>>;

/// The row of Pod.
static POD: LazyLock<Arc<Kind>> = LazyLock::new(|| Registry::builtin().get(id::POD).clone());

/// What was last read of a file.
struct Known {
    /// Its text, or why it could not be read.
    text: Result<String, String>,
    /// The pod that it last made.
    pod: Option<Arc<Object>>,
    /// Since when it makes none.
    wrong_since: Option<Timestamp>,
}

impl Known {
    /// When a file that has got wrong loses the pod that it made before.
    fn loses_pod_at(&self, patience: Duration) -> Option<Timestamp> {
        let since = self.wrong_since.filter(|_| self.pod.is_some())?;
        since.checked_add(patience).ok()
    }
}

/// Reads the manifests now and after each change. Ends when there is nothing to read.
///
/// # Errors
/// If they cannot be watched.
pub async fn follow(shared: Arc<Shared>, wanted: Arc<Wanted>) -> Result<(), String> {
    let Some(path) = shared.config.pod_manifest_path.clone() else {
        wanted.send_replace(Some(Vec::new()));
        return Ok(());
    };
    let said = |error: std::io::Error| format!("static pods: {}: {error}", path.display());
    let mut known: BTreeMap<PathBuf, Known> = BTreeMap::new();
    // Read before they are watched, too: without a watch the pods run all the same.
    take(&shared, &path, &mut known, &wanted).await?;
    let mut watched = directory::Directory::new(&path).map_err(said)?;
    loop {
        watched.watch().map_err(said)?;
        let wake_at = take(&shared, &path, &mut known, &wanted).await?;
        let patience = async {
            match wake_at {
                Some(at) => shared.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = watched.changed() => changed.map_err(said)?,
            () = patience => {}
        }
    }
}

/// Reads the manifests and says which pods they ask for. Gives when to look again though nothing changes.
async fn take(
    shared: &Arc<Shared>,
    path: &Path,
    known: &mut BTreeMap<PathBuf, Known>,
    wanted: &Wanted,
) -> Result<Option<Timestamp>, String> {
    let place = path.to_owned();
    match shared.blocking(move |_| directory::read(&place)).await? {
        Ok(files) => {
            note(shared, known, files);
            let pods: Vec<Arc<Object>> = known.values().filter_map(|file| file.pod.clone()).collect();
            wanted.send_replace(Some(pods));
            let patience = shared.config.file_check;
            Ok(known.values().filter_map(|file| file.loses_pod_at(patience)).min())
        }
        Err(error) => {
            // Those that run stay; without any, the node goes on.
            tell(shared, path, &format!("{}: {error}", path.display()));
            wanted.send_if_modified(|now| now.is_none() && now.replace(Vec::new()).is_none());
            Ok(None)
        }
    }
}

/// Takes files in as they are now. A file that gets wrong keeps the pod that it made before until upstream would have listed the files
/// again (`consumeWatchEvent` passes over it, `listConfig` leaves its pod out); the other files go on.
fn note(shared: &Shared, known: &mut BTreeMap<PathBuf, Known>, files: BTreeMap<PathBuf, std::io::Result<String>>) {
    known.retain(|path, _| files.contains_key(path));
    let now = shared.clock.now();
    for (path, text) in files {
        let text = text.map_err(|error| format!("{}: {error}", path.display()));
        let mut file = match known.remove(&path) {
            Some(before) if before.text == text => before,
            before => read(shared, &path, text, before, now),
        };
        if file.loses_pod_at(shared.config.file_check).is_some_and(|at| now >= at) {
            tracing::error!(file = %path.display(), "static pod: its manifest is still wrong, so it ends");
            file.pod = None;
        }
        known.insert(path, file);
    }
}

/// Reads a file that is not as it was before.
fn read(shared: &Shared, path: &Path, text: Result<String, String>, before: Option<Known>, now: Timestamp) -> Known {
    let (seen, file) = (time::format_micro(now), path.to_string_lossy());
    let reading = manifest::Reading { kind: &POD, node: &shared.config.node_name, file: &file, seen: &seen };
    let outcome = text.as_deref().map_err(Clone::clone).and_then(|text| manifest::read(text, &reading));
    let (pod, wrong_since) = before.map(|before| (before.pod, before.wrong_since)).unwrap_or_default();
    match outcome {
        Ok(read) => {
            for unknown in read.unknown {
                tracing::warn!(file = %path.display(), "static pod: {unknown}");
            }
            // The same pod stays as it was first seen.
            let pod = pod.filter(|pod| pod.head.uid == read.pod.head.uid).unwrap_or(read.pod);
            Known { text, pod: Some(pod), wrong_since: None }
        }
        Err(error) => {
            tell(shared, path, &error);
            Known { text, pod, wrong_since: wrong_since.or(Some(now)) }
        }
    }
}

/// Tells what is wrong with a manifest: in the log, and as an event about the node.
pub fn tell(shared: &Shared, path: &Path, message: &str) {
    tracing::error!(file = %path.display(), "static pod: {message}");
    shared.events.node(true, "InvalidStaticPod", format!("Could not process manifest file {message}"));
}

/// A static pod as others see it: with the status that its mirror has.
pub fn shown(pod: &Arc<Object>, mirror: Option<&Object>) -> Arc<Object> {
    let Some(mirror) = mirror else { return pod.clone() };
    let (mut tree, from) = (pod.to_tree(), mirror.to_tree());
    for path in ["status", "metadata.creationTimestamp"] {
        if let Some(value) = from.path(path) {
            tree.set(path, value.clone());
        }
    }
    let object = Object::parse(id::POD, tree.to_json().into(), mirror.head.revision, &POD.fact_paths);
    object.map_or_else(|_| pod.clone(), Arc::new)
}
