//! Objects that are removed some time after their last write: Events (`--event-ttl`; upstream's etcd leases).
//!
//! One task sleeps until the next object is due. Nothing that is written meanwhile can be due earlier than a whole time to live from
//! then, so it need not be told.

use std::sync::Arc;
use std::time::Duration;

use corten_base::{OnError, OnStop, Timestamp};
use corten_kinds::Kind;
use corten_object::{Object, time};

use crate::core::Core;
use crate::pipeline::{Commit, CommitError};

/// The shortest pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts the task; objects live so long in place of what their rows say.
pub(crate) fn start(core: &Arc<Core>, life: Option<Duration>) {
    let core = core.clone();
    core.tasks.clone().run("expiry", OnError::Restart, OnStop::Abort, move || {
        let core = core.clone();
        async move {
            loop {
                let now = core.clock.now();
                let Some(next) = core.expire(now, life).await else { return Ok::<(), std::convert::Infallible>(()) };
                core.clock.sleep_until(next.max(now + PAUSE)).await;
            }
        }
    });
}

/// When an object was written last, as its managed fields tell; its beginning if they tell nothing.
fn written(object: &Object) -> Option<Timestamp> {
    let tree = object.to_tree();
    let entries = tree.list_at("metadata.managedFields").iter();
    entries.filter_map(|entry| time::parse(entry.str_at("time"))).chain(object.head.created).max()
}

impl Core {
    /// Removes what is due; returns when the next object is, at the earliest. `None` if no kind's objects expire. `life` is the time to
    /// live in place of that of the rows.
    async fn expire(&self, now: Timestamp, life: Option<Duration>) -> Option<Timestamp> {
        let mut next = None;
        for kind in self.registry.now().iter() {
            let Some(seconds) = kind.spec.filter(|row| row.stored_as.is_none()).and_then(|row| row.ttl_seconds) else {
                continue;
            };
            let life = life.unwrap_or(Duration::from_secs(seconds.unsigned_abs()));
            let mut first = now + life;
            let objects: Vec<Arc<Object>> = self.cache.read().list(kind.id).cloned().collect();
            for object in objects {
                let due = |since: Option<Timestamp>| since.map_or(now, |since| since + life);
                // The beginning is at hand; the last write is looked for only where that is long ago.
                let mut at = due(object.head.created);
                if at <= now {
                    at = due(written(&object));
                }
                if at > now {
                    first = first.min(at);
                } else {
                    self.remove_expired(kind, &object).await;
                }
            }
            next = Some(next.map_or(first, |next: Timestamp| next.min(first)));
        }
        next
    }

    async fn remove_expired(&self, kind: &Kind, object: &Object) {
        let commit = Commit {
            kind,
            key: object.key(),
            expected: object.head.revision,
            value: None,
            owners_alive: &[],
            bookings: &[],
        };
        match self.commit(commit).await {
            // Written or removed meanwhile.
            Ok(_) | Err(CommitError::Conflict) => {}
            Err(CommitError::Status(status)) => {
                tracing::warn!(kind = %kind.kind, error = %status.message, "an expired object stays for now");
            }
        }
    }
}
