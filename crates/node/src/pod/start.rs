//! Starting a container: image, environment, volumes, creation, start, postStart hook.

use corten_podplan::env;
use corten_podplan::volumes::{VolumeKind, kind};
use corten_podplan::{ContainerKind, StartFailure};
use corten_runtime::ContainerStatus;
use corten_views::Container;

use super::{Message, PodContext, hooks, image, kill, observe, spec};
use crate::images::{PreparedImage, PullRequest, PullSecret, volume_lease};
use crate::sources::Reader;
use crate::volumes;

/// How the message begins when an image volume, or its part that a container wants, cannot be mounted (`ErrImageVolumeMountFailed` of
/// the container runtime's interface, which the kubelet knows by its text).
pub const IMAGE_VOLUME_MOUNT_FAILED: &str = "ImageVolumeMountFailed";

/// What a start needs beside the pod.
pub struct StartJob {
    pub container: Container,
    pub kind: ContainerKind,
    pub attempt: u32,
    pub sandbox: String,
    pub ips: Vec<String>,
    pub reader: Reader,
    /// The runtime's id of `targetContainerName`.
    pub target: Option<String>,
}

fn failure(reason: &'static str, message: impl Into<String>) -> StartFailure {
    StartFailure { reason, message: message.into(), image: String::new() }
}

/// Starts a container and tells the worker about each step.
pub async fn run(ctx: PodContext, job: StartJob) {
    let name = job.container.name.clone();
    let outcome = start(&ctx, &job).await;
    if let Err(failed) = &outcome
        && failed.image.is_empty()
        && failed.reason != "PostStartHookError"
    {
        ctx.event(&name, true, "Failed", format!("Error: {}", failed.message));
    }
    ctx.tell(Message::Started(name, outcome)).await;
}

async fn start(ctx: &PodContext, job: &StartJob) -> Result<(), StartFailure> {
    let shared = &ctx.shared;
    let id = shared.entropy.uid().replace('-', "") + &shared.entropy.uid().replace('-', "");
    // As `SyncPod`: the images of volumes come before the container's own.
    let secrets = pull_secrets(ctx, job);
    image_volumes(ctx, job, &secrets).await?;
    let prepared = container_image(ctx, job, secrets, &id).await?;
    let outcome = create_and_start(ctx, job, &prepared, &id).await;
    if outcome.is_err() {
        let look = id.clone();
        let known = shared.blocking(move |s| s.runtime.container(&look).is_ok()).await;
        if known == Ok(false) {
            shared.images.release(id).await;
        }
    }
    outcome
}

async fn create_and_start(
    ctx: &PodContext,
    job: &StartJob,
    image: &PreparedImage,
    id: &str,
) -> Result<(), StartFailure> {
    let (shared, container) = (&ctx.shared, &job.container);
    let config = |message: String| failure("CreateContainerConfigError", message);
    let mut sources = job.reader.sources(ctx, &job.ips).await.map_err(config)?;
    let mounted = volumes::prepare(ctx, &job.reader).await.map_err(|refused| {
        let all = refused.into_iter().map(|(volume, error)| format!("volume {volume:?}: {error}"));
        config(all.collect::<Vec<_>>().join("; "))
    })?;
    for (volume, path) in env::files(container) {
        let Some(root) = mounted.get(&volume).map(|m| m.path.clone()) else { continue };
        let sub = path.clone();
        let text = shared.blocking(move |_| volumes::read_text(&root, &sub)).await.and_then(|text| text);
        if let Err(error) = &text {
            tracing::debug!(pod = ctx.pod.metadata.name, volume, path, error, "a file of variables cannot be read");
        }
        sources.files.insert((volume, path), text);
    }
    let environment = env::environment(&ctx.pod, container, &sources).map_err(|e| config(e.to_string()))?;
    let inputs = spec::Inputs { ctx, job, image, environment, mounted: &mounted, id };
    let runtime_spec = spec::build(inputs).map_err(|message| match message.starts_with(IMAGE_VOLUME_MOUNT_FAILED) {
        true => failure("CreateContainerError", message),
        false => config(message),
    })?;
    if runtime_spec.args.is_empty() {
        let message =
            format!("failed to generate container {id:?} spec: failed to generate spec: no command specified");
        return Err(failure("CreateContainerError", message));
    }
    let made = shared.blocking(move |s| s.runtime.create_container(&runtime_spec)).await;
    let made = made.map_err(|e| failure("CreateContainerError", e))?;
    made.map_err(|e| failure("CreateContainerError", e.to_string()))?;
    report(ctx, id).await;
    ctx.event(&container.name, false, "Created", "Container created");
    let begun = {
        let id = id.to_owned();
        shared.blocking(move |s| s.runtime.start_container(&id)).await
    };
    let shim = match begun.map_err(|e| failure("RunContainerError", e))? {
        Ok(shim) => shim,
        Err(error) => {
            report(ctx, id).await;
            let message = format!("failed to start containerd task {:?}: {error}", container.name);
            let message = if error.is_start_error() { error.to_string() } else { message };
            return Err(failure("RunContainerError", message));
        }
    };
    watch_exit(ctx, id, shim);
    report(ctx, id).await;
    ctx.event(&container.name, false, "Started", "Container started");
    let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
    if let Some(hook) = hook
        && let Err(error) = hooks::run(ctx, id, container, hook, &job.ips).await
    {
        ctx.event(&container.name, true, "FailedPostStartHook", "PostStartHook failed");
        ctx.event(&container.name, false, "Killing", "FailedPostStartHook");
        kill::now(ctx, id, ctx.pod.spec.termination_grace_period_seconds.unwrap_or(30)).await;
        return Err(failure("PostStartHookError", error));
    }
    Ok(())
}

fn pull_secrets(ctx: &PodContext, job: &StartJob) -> Vec<PullSecret> {
    let (secrets, missing) = job.reader.pull_secrets(&ctx.pod);
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        ctx.event("", true, "FailedToRetrieveImagePullSecret", message);
    }
    secrets
}

async fn container_image(
    ctx: &PodContext,
    job: &StartJob,
    secrets: Vec<PullSecret>,
    lease: &str,
) -> Result<PreparedImage, StartFailure> {
    let request = PullRequest {
        image: job.container.image.clone(),
        policy: job.container.image_pull_policy.clone(),
        secrets,
        lease: lease.to_owned(),
    };
    image::ready(ctx, &job.container.name, image::Use::Root, request).await
}

/// Brings the images that the container mounts as volumes.
async fn image_volumes(ctx: &PodContext, job: &StartJob, secrets: &[PullSecret]) -> Result<(), StartFailure> {
    for volume in &ctx.pod.spec.volumes {
        let mounts = job.container.volume_mounts.iter().any(|mount| mount.name == volume.name);
        let Ok(VolumeKind::Image { reference, policy }) = kind(&ctx.pod, volume) else { continue };
        if !mounts {
            continue;
        }
        let (secrets, lease) = (secrets.to_vec(), volume_lease(ctx.uid(), &volume.name));
        let request = PullRequest { image: reference, policy, secrets, lease };
        let prepared = image::ready(ctx, &job.container.name, image::Use::Volume, request).await?;
        let mounted = volumes::mount_image(ctx, volume, prepared.layers).await;
        mounted.map_err(|error| failure("CreateContainerError", format!("{IMAGE_VOLUME_MOUNT_FAILED}: {error}")))?;
    }
    Ok(())
}

/// Tells the worker what the runtime now says of a container.
pub async fn report(ctx: &PodContext, id: &str) {
    let owned = id.to_owned();
    let found = ctx.shared.blocking(move |s| s.runtime.container(&owned).map(|c| observe::container(&c))).await;
    if let Ok(Ok(found)) = found {
        ctx.tell(Message::Container(Box::new(found))).await;
    }
}

/// Tells the worker when a container ends.
pub fn watch_exit(ctx: &PodContext, id: &str, shim: corten_runtime::RunningShim) {
    let (outer, id) = (ctx.clone(), id.to_owned());
    ctx.shared.tasks.spawn("container-exit", corten_base::OnStop::Abort, async move {
        if let Err(error) = observe::readable(shim.pidfd).await {
            tracing::warn!(container = id, %error, "cannot wait for the container's end");
        }
        report(&outer, &id).await;
        outer.tell(Message::Exited(id)).await;
    });
}

/// Whether a container of the runtime runs.
pub fn is_running(status: &ContainerStatus) -> bool {
    matches!(status, ContainerStatus::Running { .. })
}
