//! Takes away this node's volumes of the built-in storage class: the directory first, then the PersistentVolume.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use corten_client::{Api, DeleteOptions, ListOptions, Write, WriteOptions};
use corten_kinds::id;
use corten_object::{Object, ObjectKey};
use corten_views::PersistentVolume;
use corten_volumes::LocalPath;

use crate::events::About;
use crate::shared::Shared;
use crate::watcher::{Change, Watcher};

/// The annotation that names a volume's provisioner, and the built-in one.
const PROVISIONED_BY: (&str, &str) = ("pv.kubernetes.io/provisioned-by", "corten.dev/local-path");
/// Pause before a directory that could not be removed is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// Volumes that wait for another try; of more, those that changed last are forgotten until the next list.
const WAITING_MAX: usize = 1024;

/// Follows the volumes. Runs until it is dropped.
pub async fn run(shared: Arc<Shared>, api: Arc<dyn Api>) {
    let options = ListOptions::default();
    let mut watcher = Watcher::new(api.clone(), shared.clock.clone(), id::PERSISTENT_VOLUME, options);
    let mut waiting: Vec<Arc<Object>> = Vec::new();
    loop {
        let again = async {
            match waiting.is_empty() {
                true => std::future::pending().await,
                false => shared.clock.sleep(RETRY).await,
            }
        };
        let changed: Vec<(Arc<Object>, bool)> = tokio::select! {
            change = watcher.next() => match change {
                Change::Reset(all) => all.into_iter().map(|o| (o, false)).collect(),
                Change::Set(object) => vec![(object, false)],
                Change::Gone(object) => vec![(object, true)],
            },
            () = again => std::mem::take(&mut waiting).into_iter().map(|o| (o, false)).collect(),
        };
        for (object, gone) in changed {
            waiting.retain(|o| o.head.uid != object.head.uid);
            if let Err(error) = reclaim(&shared, &api, &object, gone).await {
                tracing::warn!(volume = %object.head.name, error, "a local volume cannot be removed yet");
                let about = About {
                    kind: "PersistentVolume",
                    name: object.head.name.to_string(),
                    uid: object.head.uid.to_string(),
                    ..About::default()
                };
                shared.events.record(about, true, "VolumeFailedDelete", error);
                if waiting.len() < WAITING_MAX && !gone {
                    waiting.push(object);
                }
            }
        }
    }
}

async fn reclaim(shared: &Arc<Shared>, api: &Arc<dyn Api>, object: &Arc<Object>, gone: bool) -> Result<(), String> {
    let volume = object.view::<PersistentVolume>().map_err(|e| e.to_string())?;
    let Some(path) = to_remove(&volume, &shared.config.node_name, &shared.config.data_dir, gone) else {
        return Ok(());
    };
    let local = LocalPath::new(&shared.config.data_dir);
    let removed = shared.blocking(move |_| {
        corten_runtime::loop_device::detach(&path).map_err(|e| e.to_string())?;
        corten_runtime::project_quota::clear(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        local.remove(&path).map_err(|e| e.to_string())
    });
    removed.await??;
    if gone {
        return Ok(());
    }
    let key = ObjectKey::new(id::PERSISTENT_VOLUME, "", &object.head.name);
    let options = DeleteOptions { uid: Some(object.head.uid.to_string()), ..DeleteOptions::default() };
    match api.write(Write::Delete { key, options }, WriteOptions::default()).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.status.is_not_found() || failure.status.is_conflict() => Ok(()),
        Err(failure) => Err(failure.status.to_string()),
    }
}

/// The directory to remove: that of a volume which was made here, whose claim (or which itself) is gone, and whose policy is
/// `Delete`.
fn to_remove(volume: &PersistentVolume, node: &str, data_dir: &Path, gone: bool) -> Option<PathBuf> {
    let (key, provisioner) = PROVISIONED_BY;
    let ours = volume.metadata.annotations.get(key).is_some_and(|p| p == provisioner);
    let due = gone || volume.status.phase == "Released";
    let required = volume.spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
    let terms = required.into_iter().flat_map(|r| &r.node_selector_terms).flat_map(|t| &t.match_expressions);
    let here = terms.filter(|e| e.key == "kubernetes.io/hostname").any(|e| e.values.iter().any(|v| v == node));
    let wanted = ours && due && here && volume.spec.persistent_volume_reclaim_policy == "Delete";
    let path = PathBuf::from(&volume.spec.local.as_ref()?.path);
    (wanted && path.starts_with(data_dir)).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_released_volumes_of_this_node_with_the_policy_delete_are_removed() {
        let volume = |phase: &str, policy: &str, node: &str, path: &str, by: &str| -> PersistentVolume {
            serde_json::from_str(&format!(
                r#"{{"metadata":{{"annotations":{{"pv.kubernetes.io/provisioned-by":"{by}"}}}},"spec":{{"local":{{"path":"{path}"}},
                "persistentVolumeReclaimPolicy":"{policy}","nodeAffinity":{{"required":{{"nodeSelectorTerms":[{{"matchExpressions":
                [{{"key":"kubernetes.io/hostname","operator":"In","values":["{node}"]}}]}}]}}}}}},"status":{{"phase":"{phase}"}}}}"#
            ))
            .unwrap()
        };
        let ours = "corten.dev/local-path";
        let removes = |v: &PersistentVolume, gone| to_remove(v, "n", Path::new("/data"), gone).is_some();
        assert!(removes(&volume("Released", "Delete", "n", "/data/storage/v", ours), false));
        for kept in [
            volume("Bound", "Delete", "n", "/data/storage/v", ours),
            volume("Released", "Retain", "n", "/data/storage/v", ours),
            volume("Released", "Delete", "m", "/data/storage/v", ours),
            volume("Released", "Delete", "n", "/etc", ours),
            volume("Released", "Delete", "n", "/data/storage/v", "other"),
        ] {
            assert!(!removes(&kept, false), "{kept:?}");
        }
        assert!(removes(&volume("Bound", "Delete", "n", "/data/storage/v", ours), true), "the volume itself is gone");
        assert!(!removes(&volume("Bound", "Retain", "n", "/data/storage/v", ours), true));
    }
}
