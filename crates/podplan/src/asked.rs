//! Restarts of one container that somebody asked for (Corten's own: `corten restart`).
//!
//! The request is an annotation of the pod, with the time at which it was made: a container that runs since before that is
//! restarted, whoever looks and however often.

use corten_base::Timestamp;
use corten_object::time;
use corten_tree::json;
use corten_views::Pod;

use crate::{ObservedContainer, Run};

/// The annotation: `{"container":…,"at":…,"by":…,"why":…}`.
pub const ANNOTATION: &str = "corten.dev/restart";

/// When a running container is to be restarted, and what the `Killing` event says of that; `None` if it is not. The time is that
/// of whoever asked: it may be ahead of the node's.
pub(crate) fn asked(pod: &Pod, found: &ObservedContainer) -> Option<(Timestamp, String)> {
    let request = json::parse(pod.metadata.annotations.get(ANNOTATION)?.as_bytes()).ok()?;
    let Run::Running { started_at } = found.run else { return None };
    let at = time::parse(request.str_at("at"))?;
    if request.str_at("container") != found.name || at <= started_at {
        return None;
    }
    let why = match request.str_at("why") {
        "" => String::new(),
        why => format!(" ({why})"),
    };
    Some((at, format!("was asked to restart by {}{why}", request.str_at("by"))))
}
