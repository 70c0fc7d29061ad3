//! Making sure that an image is there, with the events that upstream tells of it (`EnsureImageExists`).

use std::sync::Arc;
use std::time::Duration;

use corten_images::Progress;
use corten_podplan::StartFailure;

use super::{Message, PodContext};
use crate::images::{ImageFailure, PreparedImage, PullRequest, Pulled};

/// Pause between two notes of a pull's progress; one that is over sooner is not shown.
const PROGRESS_PAUSE: Duration = Duration::from_secs(2);

/// What an image is for: whom its events are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A container's root file system: about the container.
    Root,
    /// A volume: about the pod.
    Volume,
}

/// Makes an image ready, pulling it if its policy asks for that. `container` is the one that waits for it: its status shows the
/// progress.
pub async fn ready(
    ctx: &PodContext,
    container: &str,
    used_as: Use,
    request: PullRequest,
) -> Result<PreparedImage, StartFailure> {
    let name = request.image.clone();
    let about = if used_as == Use::Root { container } else { "" };
    let refuse = |failed: ImageFailure| {
        let (reason, message) = (failed.reason, failed.message);
        let told = match reason {
            "InvalidImageName" | "ImageInspectError" => Some("InspectFailed"),
            "ErrImageNeverPull" => Some("ErrImageNeverPull"),
            _ => None,
        };
        if let Some(event) = told {
            ctx.event(about, true, event, &message);
        }
        ctx.event(container, true, "Failed", format!("Error: {reason}"));
        StartFailure { reason, message, image: name.clone() }
    };
    let images = &ctx.shared.images;
    if images.usable(request.clone()).await.map_err(refuse)? {
        let message = format!("Container image {name:?} already present on machine and can be accessed by the pod");
        ctx.event(about, false, "Pulled", message);
    } else {
        ctx.event(about, false, "Pulling", format!("Pulling image {name:?}"));
        let began = ctx.shared.clock.now();
        let Pulled { size, took } = pull(ctx, container, &request).await.map_err(|failed| {
            ctx.event(about, true, "Failed", format!("Failed to pull image {name:?}: {}", failed.message));
            refuse(failed)
        })?;
        let all = ctx.shared.clock.now().duration_since(began).unsigned_abs();
        let (took, all) = (go_duration(took), go_duration(all));
        let message = format!(
            "Successfully pulled image {name:?} in {took} ({all} including waiting). Image size: {size} bytes."
        );
        ctx.event(about, false, "Pulled", message);
    }
    images.prepare(request).await.map_err(refuse)
}

async fn pull(ctx: &PodContext, container: &str, request: &PullRequest) -> Result<Pulled, ImageFailure> {
    let progress = Arc::new(Progress::default());
    let show = async {
        loop {
            ctx.shared.clock.sleep(PROGRESS_PAUSE).await;
            progress.moved().await;
            let (done, total) = progress.bytes();
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            if total > 0 {
                let text = format!("Pulling image {:?}: {:.1} of {:.1} MiB", request.image, mib(done), mib(total));
                ctx.tell(Message::Progress(container.to_owned(), text)).await;
            }
        }
    };
    let pull = ctx.shared.images.pull(request.clone(), progress.clone());
    tokio::select! {
        outcome = pull => outcome,
        never = show => never,
        () = ctx.ended() => {
            let message = format!(
                "rpc error: code = Canceled desc = failed to pull and unpack image {:?}: context canceled",
                request.image
            );
            Err(ImageFailure { reason: "ErrImagePull", message })
        }
    }
}

/// A duration of whole milliseconds as Go shows it.
pub fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match millis {
        0 => "0s".into(),
        1..1000 => format!("{millis}ms"),
        1000..60_000 => format!("{seconds}s"),
        _ if minutes < 60 => format!("{minutes}m{seconds}s"),
        _ => format!("{}h{}m{seconds}s", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (millis, text) in [
            (0, "0s"),
            (7, "7ms"),
            (1000, "1s"),
            (1230, "1.23s"),
            (60_000, "1m0s"),
            (61_005, "1m1.005s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}
