//! One controller's task.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use corten_base::workqueue::QueueMetrics;
use corten_base::{Clock, Entropy};
use corten_cache::{Cursor, Event, Scope};
use corten_client::Api;
use corten_controllers::{Changed, Controller, Kept, Key, Outcome, Plan, World};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::queue::Queue;
use crate::{Manager, Recorder, execute};

/// How many keys of a controller are worked on at once.
const PARALLEL_MAX: usize = 16;
/// How many events are looked at in one go.
const EVENTS_MAX: usize = 256;

pub(crate) struct Runner {
    context: execute::Context,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    controller: Arc<dyn Controller>,
    queue: Queue<Key>,
    /// What became of the last plan of keys whose next reconcile has not been empty yet.
    outcomes: HashMap<Key, Outcome>,
    /// What plans wanted remembered. Bounded by the keys whose last plan wanted something.
    kept: HashMap<Key, Kept>,
}

type Runs = FuturesUnordered<BoxFuture<'static, (Key, Outcome, Plan)>>;

impl Runner {
    pub fn new(manager: &Manager, controller: Arc<dyn Controller>, api: Arc<dyn Api>, recorder: Recorder) -> Runner {
        Runner {
            context: execute::Context { api, cache: manager.cache.clone(), recorder },
            clock: manager.clock.clone(),
            entropy: manager.entropy.clone(),
            queue: Queue::new(QueueMetrics::of(controller.name())),
            controller,
            outcomes: HashMap::new(),
            kept: HashMap::new(),
        }
    }

    /// Runs for ever.
    pub async fn run(mut self) -> Result<(), std::convert::Infallible> {
        let mut runs: Runs = FuturesUnordered::new();
        let mut cursor = self.list();
        loop {
            self.start(&mut runs);
            let timer = match self.queue.next_timer() {
                Some(at) => self.clock.sleep_until(at),
                None => futures::future::pending().boxed(),
            };
            tokio::select! {
                biased;
                Some((key, outcome, plan)) = runs.next(), if !runs.is_empty() => self.finish(key, outcome, &plan),
                events = cursor.next_batch(EVENTS_MAX) => match events {
                    Ok(events) => self.wake(&events),
                    Err(_gone) => cursor = self.list(),
                },
                () = timer => self.queue.fire(self.clock.now()),
            }
        }
    }

    /// Wakes whatever all present objects wake, and follows the changes from there.
    fn list(&mut self) -> Cursor {
        loop {
            let world = self.context.cache.read();
            let mut keys = Vec::new();
            for watch in self.controller.watches() {
                let kinds = match watch.kind {
                    Some(kind) => vec![kind],
                    None => world.registry().iter().map(|kind| kind.id).collect(),
                };
                for object in kinds.into_iter().flat_map(|kind| world.list(kind)) {
                    watch.keys(&Changed { state: &world, old: None, new: Some(object) }, &mut keys);
                }
            }
            let revision = world.revision();
            drop(world);
            keys.into_iter().for_each(|key| self.queue.add(key));
            // The ring may have moved on meanwhile, but not by its whole length.
            if let Ok(cursor) = self.context.cache.cursor(self.scope(), revision) {
                return cursor;
            }
        }
    }

    /// What wakes this controller: few look at everything, and a write of another kind is not worth a hop to the rest.
    fn scope(&self) -> Scope {
        let kinds: Option<Vec<_>> = self.controller.watches().iter().map(|watch| watch.kind).collect();
        kinds.map_or(Scope::Everything, Scope::kinds)
    }

    fn wake(&mut self, events: &[Arc<Event>]) {
        let mut keys = Vec::new();
        let world = self.context.cache.read();
        for event in events {
            let change = Changed { state: &world, old: event.previous.as_ref(), new: event.object.as_ref() };
            for watch in self.controller.watches() {
                watch.keys(&change, &mut keys);
            }
        }
        drop(world);
        keys.into_iter().for_each(|key| self.queue.add(key));
    }

    /// Reconciles waiting keys and begins to execute their plans.
    fn start(&mut self, runs: &mut Runs) {
        while self.queue.running() < PARALLEL_MAX {
            let Some(key) = self.queue.take(self.clock.now()) else { return };
            let plan = self.reconcile(&key);
            for note in &plan.events {
                self.context.recorder.record(note.clone());
            }
            match &plan.keep {
                Some(kept) => drop(self.kept.insert(key.clone(), kept.clone())),
                None => drop(self.kept.remove(&key)),
            }
            if plan.stages.is_empty() && plan.asks.is_empty() {
                self.outcomes.remove(&key);
                self.queue.succeeded(key, plan.requeue, self.clock.now());
                continue;
            }
            let context = self.context.clone();
            runs.push(
                async move {
                    let (outcome, barrier) = execute::plan(&context, &plan).await;
                    context.cache.wait_for(barrier).await;
                    (key, outcome, plan)
                }
                .boxed(),
            );
        }
    }

    fn reconcile(&self, key: &Key) -> Plan {
        let objects = self.context.cache.read();
        let world = World {
            state: &objects,
            now: self.clock.now(),
            entropy: &*self.entropy,
            last: self.outcomes.get(key),
            kept: self.kept.get(key),
        };
        self.controller.reconcile(&world, key)
    }

    fn finish(&mut self, key: Key, outcome: Outcome, plan: &Plan) {
        let now = self.clock.now();
        if outcome.failures.is_empty() {
            let requeue = if plan.asks.is_empty() { plan.requeue } else { Some(Duration::ZERO) };
            self.queue.succeeded(key.clone(), requeue, now);
        } else {
            for failed in &outcome.failures {
                tracing::debug!(controller = self.controller.name(), %key, target = %failed.key, error = %failed.status, "write failed");
            }
            self.queue.failed(key.clone(), now);
        }
        self.outcomes.insert(key, outcome);
    }
}
