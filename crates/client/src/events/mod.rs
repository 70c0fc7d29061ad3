//! Events for people, of all components of this process: correlated as client-go does it, and written in the background.
//!
//! Upstream: `client-go/tools/record/event.go`.

mod correlate;

use std::convert::Infallible;
use std::sync::Arc;

use corten_base::{Clock, OnError, OnStop, Tasks, Timestamp};
use corten_kinds::id;
use corten_object::{ObjectKey, time};
use corten_tree::{Tree, tree};
use tokio::sync::{Mutex, mpsc};

use crate::{Api, PatchKind, Target, Write, WriteOptions};
use correlate::{Correlated, Correlator};

/// How many events may wait; more are lost, as upstream.
const WAITING_MAX: usize = 1000;

/// Takes events to record; clones share it.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<(Tree, Timestamp)>,
    clock: Arc<dyn Clock>,
}

/// Writes what is recorded.
struct Writer {
    api: Arc<dyn Api>,
    options: WriteOptions,
    correlator: Correlator,
    last_nanos: i128,
}

impl Recorder {
    /// Starts the task that writes the events of one component, as the fields' owner of this name (empty: who writes).
    pub fn start(tasks: &Tasks, clock: Arc<dyn Clock>, api: Arc<dyn Api>, field_manager: &str) -> Recorder {
        let (queue, receiver) = mpsc::channel(WAITING_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let options = WriteOptions { field_manager: field_manager.to_owned(), ..WriteOptions::default() };
        tasks.run("events", OnError::Restart, OnStop::Abort, move || {
            let receiver = receiver.clone();
            let (api, options) = (api.clone(), options.clone());
            let mut writer = Writer { api, options, correlator: Correlator::default(), last_nanos: 0 };
            async move {
                let mut receiver = receiver.lock().await;
                while let Some((event, now)) = receiver.recv().await {
                    writer.write(event, now).await;
                }
                Ok::<(), Infallible>(())
            }
        });
        Recorder { queue, clock }
    }

    /// Records a `v1 Event` soon; it is lost if too many wait. The event says what it is about (`involvedObject`), `type`, `reason`,
    /// `message`, `source` and the reporting component; the rest is filled in.
    pub fn record(&self, event: Tree) {
        if self.queue.try_send((event, self.clock.now())).is_err() {
            tracing::warn!("too many events wait: one is lost");
        }
    }
}

impl Writer {
    async fn write(&mut self, event: Tree, now: Timestamp) {
        // Two events of one moment need two names.
        self.last_nanos = now.as_nanosecond().max(self.last_nanos + 1);
        let event = made(event, now, self.last_nanos);
        let Some(Correlated { event, known }) = self.correlator.correlate(event, now) else { return };
        let key = ObjectKey::new(id::EVENT, event.str_at("metadata.namespace"), event.str_at("metadata.name"));
        if known {
            let mut body = Tree::map();
            for field in ["count", "lastTimestamp", "message"] {
                body.insert(field, event.get(field).cloned());
            }
            let write = Write::Patch { target: Target::object(key.clone()), patch: PatchKind::Merge, body };
            match self.api.write(write, self.options.clone()).await {
                Ok(_) => return,
                // It has expired, or somebody has deleted it: it is made anew.
                Err(failure) if failure.status.is_not_found() => {}
                Err(failure) => return tracing::debug!(error = %failure, "event not counted"),
            }
        }
        let write = Write::Create { target: Target::object(key), body: event.clone() };
        match self.api.write(write, self.options.clone()).await {
            Ok(_) => self.correlator.written(&event),
            // The namespace ends, or the object's name does not make an event's: nobody will read it.
            Err(failure) => tracing::debug!(error = %failure, "event not recorded"),
        }
    }
}

/// The event with name, times and count. (`makeEvent`)
fn made(mut event: Tree, now: Timestamp, nanos: i128) -> Tree {
    let namespace = match event.str_at("involvedObject.namespace") {
        "" => "default",
        namespace => namespace,
    };
    let metadata =
        tree!({"name": (format!("{}.{nanos:x}", event.str_at("involvedObject.name"))), "namespace": namespace});
    event.insert("apiVersion", "v1");
    event.insert("kind", "Event");
    event.insert("metadata", metadata);
    let at = time::format(now);
    event.insert("firstTimestamp", at.as_str());
    event.insert("lastTimestamp", at);
    event.insert("count", 1);
    event
}
