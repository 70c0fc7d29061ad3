//! Making and removing mirror pods (`pkg/kubelet/pod/mirror_client.go`).

use std::sync::Arc;
use std::time::Duration;

use corten_base::OnStop;
use corten_kinds::id;
use corten_object::{Object, ObjectKey, Status};
use tokio::sync::mpsc;

use super::{Outcome, manifest};
use crate::shared::Shared;
use crate::write;

/// Pause before a mirror that could not be made or removed is looked at again.
const RETRY: Duration = Duration::from_secs(5);

/// A mirror's making or removal that is over: of which pod, and how it went.
pub type Done = (Arc<Object>, Outcome);

/// Makes the mirror of a static pod, or removes a mirror, in the background.
pub fn execute(shared: &Arc<Shared>, pod: Arc<Object>, make: bool, done: mpsc::Sender<Done>) {
    let shared = shared.clone();
    shared.tasks.clone().spawn("mirror-pod", OnStop::Abort, async move {
        let outcome = if make { create(&shared, &pod).await } else { remove(&shared, &pod).await };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(status) => {
                let verb = if make { "creating" } else { "deleting" };
                tracing::warn!(pod = %pod.key(), error = %status, "failed {verb} a mirror pod");
                shared.clock.sleep(RETRY).await;
                Outcome::Failed
            }
        };
        let _ = done.send((pod, outcome)).await;
    });
}

async fn create(shared: &Arc<Shared>, pod: &Object) -> Result<Outcome, Status> {
    let node = &shared.config.node_name;
    let owner = shared.api.get(&ObjectKey::new(id::NODE, "", node)).await?;
    let body = manifest::mirror(pod, node, &owner.head.uid);
    match write::create(&shared.api, pod.key(), body).await {
        Ok(written) => Ok(written.object.map_or(Outcome::Failed, Outcome::Made)),
        Err(failure) if failure.status.is_already_exists() => {
            // An answer that was lost, or another pod with this name.
            let found = shared.api.get(&pod.key()).await?;
            match manifest::mirrored(&found) {
                Some(_) => Ok(Outcome::Made(found)),
                None => Err(failure.status),
            }
        }
        Err(failure) => Err(failure.status),
    }
}

async fn remove(shared: &Arc<Shared>, mirror: &Object) -> Result<Outcome, Status> {
    match write::delete_now(&shared.api, mirror.key(), &mirror.head.uid).await {
        Ok(_) => Ok(Outcome::Removed),
        Err(failure) if failure.status.is_not_found() || failure.status.is_conflict() => Ok(Outcome::Removed),
        Err(failure) => Err(failure.status),
    }
}
