//! Events: what users read when they ask what happened to a pod.
//!
//! Equal events within ten minutes become one with a growing count, as upstream's correlator makes them.

use std::collections::HashMap;
use std::sync::Arc;

use corten_base::{Clock, OnStop, Tasks, Timestamp};
use corten_client::Api;
use corten_kinds::id;
use corten_object::{ObjectKey, time};
use corten_tree::Tree;
use jiff::SignedDuration;
use tokio::sync::mpsc;

use crate::write;

/// Events waiting to be written; more are dropped.
const QUEUE_MAX: usize = 1024;
/// Remembered events for counting.
const SEEN_MAX: usize = 4096;

/// What an event is about.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// `Pod` or `Node`.
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The container's field path, as `spec.containers{app}`; empty for the object as a whole.
    pub field_path: String,
}

struct Note {
    about: About,
    warning: bool,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Takes events and writes them in the background.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
    clock: Arc<dyn Clock>,
}

impl Recorder {
    /// A recorder whose writer runs in `tasks`.
    pub fn start(api: Arc<dyn Api>, tasks: &Tasks, node: &str) -> Recorder {
        let (queue, mut notes) = mpsc::channel::<Note>(QUEUE_MAX);
        let node = node.to_owned();
        let writer = async move {
            let mut seen: HashMap<String, Seen> = HashMap::new();
            while let Some(note) = notes.recv().await {
                if seen.len() >= SEEN_MAX {
                    seen.clear();
                }
                record(&api, &node, note, &mut seen).await;
            }
        };
        tasks.spawn("node-events", OnStop::Abort, writer);
        Recorder { queue, clock: tasks.clock() }
    }

    /// Records an event.
    pub fn record(&self, about: About, warning: bool, reason: &str, message: impl Into<String>) {
        let note = Note { about, warning, reason: reason.to_owned(), message: message.into(), at: self.clock.now() };
        if self.queue.try_send(note).is_err() {
            tracing::debug!("an event was dropped: too many are waiting");
        }
    }
}

struct Seen {
    name: String,
    count: i64,
    last: Timestamp,
}

async fn record(api: &Arc<dyn Api>, node: &str, note: Note, seen: &mut HashMap<String, Seen>) {
    let about = &note.about;
    let identity = [about.uid.as_str(), &about.field_path, &note.reason, &note.message].join("\n");
    let namespace = if about.namespace.is_empty() { "default" } else { &about.namespace };
    if let Some(known) = seen.get_mut(&identity)
        && note.at.duration_since(known.last) < SignedDuration::from_mins(10)
    {
        known.count += 1;
        known.last = note.at;
        let mut body = Tree::map();
        body.insert("count", known.count);
        body.insert("lastTimestamp", time::format(note.at));
        if write::merge(api, ObjectKey::new(id::EVENT, namespace, &known.name), body).await.is_ok() {
            return;
        }
    }
    let name = format!("{}.{:x}", about.name, note.at.as_nanosecond());
    let mut body = Tree::map();
    body.insert("apiVersion", "v1");
    body.insert("kind", "Event");
    body.set("metadata.name", name.as_str());
    body.set("metadata.namespace", namespace);
    let mut involved = Tree::map();
    involved.insert("kind", about.kind);
    let fields = [("namespace", &about.namespace), ("name", &about.name), ("uid", &about.uid)];
    for (key, value) in fields.into_iter().filter(|(_, v)| !v.is_empty()) {
        involved.insert(key, value);
    }
    involved.insert("apiVersion", "v1");
    if !about.field_path.is_empty() {
        involved.insert("fieldPath", &about.field_path);
    }
    body.insert("involvedObject", involved);
    body.insert("reason", &note.reason);
    body.insert("message", &note.message);
    body.set("source.component", "kubelet");
    body.set("source.host", node);
    body.insert("firstTimestamp", time::format(note.at));
    body.insert("lastTimestamp", time::format(note.at));
    body.insert("count", 1_i64);
    body.insert("type", if note.warning { "Warning" } else { "Normal" });
    body.insert("eventTime", Tree::Null);
    body.insert("reportingComponent", "kubelet");
    body.insert("reportingInstance", node);
    match write::create(api, ObjectKey::new(id::EVENT, namespace, &name), body).await {
        Ok(_) => drop(seen.insert(identity, Seen { name, count: 1, last: note.at })),
        Err(failure) => tracing::debug!(%failure, "an event could not be written"),
    }
}
