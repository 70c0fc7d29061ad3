//! Taking away what is left of a pod.

use corten_runtime::Error;

use super::{PodContext, sandbox};
use crate::images::volume_lease;
use crate::volumes;

/// Takes away sandboxes, containers, network and volumes of a pod; its logs stay.
pub async fn run(ctx: &PodContext) -> Result<(), String> {
    let uid = ctx.uid().to_owned();
    let found = ctx.shared.blocking(move |s| -> Result<(Vec<String>, Vec<String>), Error> {
        let containers = s.runtime.containers_in(|id| sandbox::is_of(id, &uid))?;
        containers.iter().try_for_each(|id| s.runtime.delete_container(id))?;
        let mut sandboxes = s.runtime.sandbox_ids()?;
        sandboxes.retain(|id| sandbox::is_of(id, &uid));
        Ok((containers, sandboxes))
    });
    let (containers, sandboxes) = found.await?.map_err(|e| e.to_string())?;
    for id in containers {
        ctx.shared.images.release(id).await;
    }
    for id in sandboxes {
        sandbox::remove(ctx, &id).await?;
    }
    volumes::remove(ctx).await?;
    for volume in ctx.pod.spec.volumes.iter().filter(|volume| volume.image.is_some()) {
        ctx.shared.images.release(volume_lease(ctx.uid(), &volume.name)).await;
    }
    Ok(())
}

/// Removes the last traces: logs and the pod's directory.
pub async fn purge(ctx: &PodContext) {
    let paths = [ctx.log_dir(), ctx.dir()];
    let removed = ctx.shared.blocking(move |_| {
        for path in &paths {
            if let Err(error) = std::fs::remove_dir_all(path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove a pod's directory");
            }
        }
    });
    drop(removed.await);
}
