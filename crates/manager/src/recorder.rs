//! Events for people: made once, counted when they come again (`client-go/tools/record`).

use std::collections::HashMap;
use std::sync::Arc;

use corten_base::task::{OnError, OnStop, Tasks};
use corten_base::{Clock, Timestamp};
use corten_cache::Cache;
use corten_client::{Api, PatchKind, Target, Write, WriteOptions};
use corten_controllers::EventNote;
use corten_kinds::{Kinds, id};
use corten_object::{ObjectKey, time};
use corten_tree::{Tree, tree};
use tokio::sync::{Mutex, mpsc};

use crate::Manager;

/// How many events may wait; more are lost, as upstream.
const WAITING_MAX: usize = 1000;
/// How many different events are remembered, to count them.
const REMEMBERED_MAX: usize = 4096;
/// How many different messages of one reason about one object are written before only counts grow.
const SIMILAR_MAX: u32 = 10;
/// Events about one object that may come at once, and how long until one more may (`EventSourceObjectSpamFilter`).
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;

/// Takes events to record; clones share it.
#[derive(Clone)]
pub struct Recorder(mpsc::Sender<EventNote>);

/// What makes two events the same.
type Sameness = (String, &'static str, &'static str, String);

struct Remembered {
    key: ObjectKey,
    count: i64,
}

struct Writer {
    api: Arc<dyn Api>,
    clock: Arc<dyn Clock>,
    registry: Kinds,
    component: &'static str,
    remembered: HashMap<Sameness, Remembered>,
    /// By object and reason: different messages seen.
    similar: HashMap<(String, &'static str), u32>,
    /// By object: tokens left, and when that was counted.
    tokens: HashMap<String, (f64, Timestamp)>,
    last_nanos: i128,
}

impl Recorder {
    /// Starts the task that writes the events of one component.
    pub fn start(tasks: &Tasks, manager: &Manager, api: Arc<dyn Api>, component: &'static str) -> Recorder {
        Recorder::start_with(tasks, &manager.cache, manager.clock.clone(), api, component)
    }

    /// As `start`, with the two things of a manager that it needs.
    pub(crate) fn start_with(
        tasks: &Tasks,
        cache: &Cache,
        clock: Arc<dyn Clock>,
        api: Arc<dyn Api>,
        component: &'static str,
    ) -> Recorder {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let registry = cache.kinds().clone();
        tasks.run("events", OnError::Restart, OnStop::Abort, move || {
            let receiver = receiver.clone();
            let mut writer = Writer {
                api: api.clone(),
                clock: clock.clone(),
                registry: registry.clone(),
                component,
                remembered: HashMap::new(),
                similar: HashMap::new(),
                tokens: HashMap::new(),
                last_nanos: 0,
            };
            async move {
                let mut receiver = receiver.lock().await;
                while let Some(note) = receiver.recv().await {
                    writer.write(note).await;
                }
                Ok::<(), std::convert::Infallible>(())
            }
        });
        Recorder(sender)
    }

    /// Records an event soon; it is lost if too many wait.
    pub fn record(&self, note: EventNote) {
        if self.0.try_send(note).is_err() {
            tracing::warn!("too many events wait: one is lost");
        }
    }
}

impl Writer {
    async fn write(&mut self, mut note: EventNote) {
        let now = self.clock.now();
        let uid = note.about.head.uid.to_string();
        if !self.admit(&uid, now) {
            return;
        }
        let similar = self.similar.entry((uid.clone(), note.reason)).or_insert(0);
        let sameness = |note: &EventNote| (uid.clone(), note.kind.as_str(), note.reason, note.message.clone());
        let mut same = sameness(&note);
        if !self.remembered.contains_key(&same) {
            *similar += 1;
            if *similar > SIMILAR_MAX {
                note.message = format!("(combined from similar events): {}", note.message);
                same.3 = String::from("(combined)");
            }
        }
        if let Some(old) = self.remembered.get_mut(&same) {
            old.count += 1;
            let body =
                tree!({"count": (old.count), "lastTimestamp": (time::format(now)), "message": (note.message.as_str())});
            let target = Target::object(old.key.clone());
            let write = Write::Patch { target, patch: PatchKind::Merge, body };
            match self.api.write(write, WriteOptions::default()).await {
                Ok(_) => return,
                Err(failure) if failure.status.is_not_found() => drop(self.remembered.remove(&same)),
                Err(failure) => return tracing::debug!(error = %failure, "event not counted"),
            }
        }
        self.create(same, &note, now).await;
    }

    async fn create(&mut self, same: Sameness, note: &EventNote, now: Timestamp) {
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.clear();
            self.similar.clear();
            self.tokens.clear();
        }
        // Two events of one moment need two names.
        self.last_nanos = now.as_nanosecond().max(self.last_nanos + 1);
        let about = &note.about.head;
        let name = format!("{}.{:x}", about.name, self.last_nanos);
        let namespace = if about.namespace.is_empty() { "default" } else { &about.namespace };
        let key = ObjectKey::new(id::EVENT, namespace, &name);
        let body = self.body(&key, note, now);
        let write = Write::Create { target: Target::object(key.clone()), body };
        match self.api.write(write, WriteOptions::default()).await {
            Ok(_) => drop(self.remembered.insert(same, Remembered { key, count: 1 })),
            // The namespace ends, or the object's name does not make an event's: nobody will read it.
            Err(failure) => tracing::debug!(error = %failure, "event not recorded"),
        }
    }

    fn body(&self, key: &ObjectKey, note: &EventNote, now: Timestamp) -> Tree {
        let (about, kind) = (&note.about.head, self.registry.get(note.about.kind));
        let mut involved = tree!({
            "kind": (kind.kind.clone()),
            "name": (about.name.as_str()),
            "uid": (about.uid.as_str()),
            "apiVersion": (kind.api_version()),
            "resourceVersion": (about.revision.to_string())
        });
        if !about.namespace.is_empty() {
            involved.insert("namespace", about.namespace.as_str());
        }
        let at = time::format(now);
        tree!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": (key.name.as_str()), "namespace": (key.namespace.as_str())},
            "involvedObject": (involved),
            "reason": (note.reason),
            "message": (note.message.as_str()),
            "source": {"component": (self.component)},
            "firstTimestamp": (at.as_str()),
            "lastTimestamp": (at.as_str()),
            "count": 1,
            "type": (note.kind.as_str()),
            "reportingComponent": (self.component),
            "reportingInstance": ""
        })
    }

    /// Whether one more event about an object may be written now.
    fn admit(&mut self, uid: &str, now: Timestamp) -> bool {
        let (tokens, since) = self.tokens.entry(uid.to_owned()).or_insert((BURST, now));
        *tokens = (*tokens + now.duration_since(*since).as_secs_f64() / REFILL_SECONDS).min(BURST);
        *since = now;
        let admitted = *tokens >= 1.0;
        if admitted {
            *tokens -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Now;

    use corten_base::BoxFuture;
    use corten_kinds::Registry;

    use super::*;
    use crate::fake::{FakeApi, pod};

    struct At(Now<Timestamp>);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            *self.0.lock().unwrap()
        }

        fn sleep(&self, _: std::time::Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    /// What of these notes is written: `create` with the message, `count` with the number and the message.
    async fn written(notes: Vec<EventNote>) -> Vec<String> {
        let api = FakeApi::refusing(&[]);
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let registry = Kinds::new(Arc::new(Registry::builtin()));
        let mut writer = Writer {
            api: api.clone(),
            clock: Arc::new(At(Now::new(now))),
            registry,
            component: "test",
            remembered: HashMap::new(),
            similar: HashMap::new(),
            tokens: HashMap::new(),
            last_nanos: 0,
        };
        for note in notes {
            writer.write(note).await;
        }
        let show = |write: Write| match write {
            Write::Create { body, .. } => format!("create {}", body.str_at("message")),
            Write::Patch { body, .. } => {
                format!("count {} {}", body.i64_at("count").unwrap(), body.str_at("message"))
            }
            other => panic!("{other:?}"),
        };
        api.writes().into_iter().map(show).collect()
    }

    #[tokio::test]
    async fn series_of_the_same_event_are_counted() {
        let about = pod("p");
        let note = |message: &str| EventNote::warning(&about, "FailedCreate", message);
        let seen = written(vec![note("a"), note("a"), note("b"), note("a")]).await;
        assert_eq!(seen, ["create a", "count 2 a", "create b", "count 3 a"]);
    }

    #[tokio::test]
    async fn similar_events_are_combined_and_too_many_are_dropped() {
        let about = pod("p");
        let note = |n: usize| EventNote::warning(&about, "FailedCreate", format!("number {n}"));
        let seen = written((0..30).map(note).collect()).await;
        assert_eq!(seen.len(), 25, "a burst, then one in five minutes");
        assert_eq!(
            (seen[9].as_str(), seen[10].as_str()),
            ("create number 9", "create (combined from similar events): number 10")
        );
        assert_eq!(seen[11], "count 2 (combined from similar events): number 11");
        let others = pod("q");
        let mut notes: Vec<EventNote> = (0..30).map(note).collect();
        notes.push(EventNote::normal(&others, "Started", "fine"));
        assert_eq!(
            written(notes).await.last().map(String::as_str),
            Some("create fine"),
            "each object has its own bound"
        );
    }
}
