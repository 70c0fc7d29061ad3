//! From events to backends: rendered once, truncated, buffered or waited for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use corten_base::{Clock, OnStop, Tasks, Timestamp};
use corten_webhook::Caller;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::event::Event;
use crate::hook::Hook;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::options::{BatchOptions, Mode, Options, OptionsError, TruncateOptions};
use crate::policy::{Level, Policy, Ruling};

/// Batches that are being sent to the webhook at once, at most.
const SENDING_MAX: usize = 32;

/// What the backends need of the process.
#[derive(Clone)]
pub struct Environment {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The task tree: what is buffered is recorded before it stops.
    pub tasks: Tasks,
    /// The client for the webhook.
    pub caller: Caller,
}

/// The policy, and where events go.
pub struct Backends {
    policy: Policy,
    all: Vec<Backend>,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    environment: Environment,
    /// How many requests are under way: what is buffered waits for their last event.
    live: watch::Sender<usize>,
}

struct Backend {
    truncate: TruncateOptions,
    mode: Mode,
    sink: Arc<Sink>,
    /// The buffer of the mode `batch`.
    buffer: Option<mpsc::Sender<Bytes>>,
}

/// Where events end.
enum Sink {
    Log { log: Mutex<Log>, legacy: bool, clock: Arc<dyn Clock> },
    Hook(Hook),
}

impl Sink {
    fn plugin(&self) -> &'static str {
        match self {
            Sink::Log { .. } => "log",
            Sink::Hook(_) => "webhook",
        }
    }

    async fn record(&self, events: &[Bytes], metrics: &Metrics) -> bool {
        let recorded = match self {
            Sink::Hook(hook) => hook.send(events).await,
            Sink::Log { log, clock, .. } => {
                let lines = events.concat();
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.write(&lines, clock.now()).map_err(|e| e.to_string())
            }
        };
        if let Err(error) = &recorded {
            metrics.errors(self.plugin(), events.len());
            let (plugin, impacted) = (self.plugin(), events.len());
            tracing::error!(plugin, impacted, %error, "audit events were not recorded");
        }
        recorded.is_ok()
    }

    /// An event in the form of this sink; `tree` is the event without its type.
    fn render(&self, event: &Event) -> Bytes {
        match self {
            Sink::Hook(_) => event.to_tree().to_json().into(),
            Sink::Log { legacy: true, .. } => format!("{}\n", event.to_line()).into(),
            Sink::Log { .. } => {
                let json = event.to_tree().to_json();
                [br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#, &json[1..], b"\n"].concat().into()
            }
        }
    }
}

impl Backends {
    /// Starts what the options switch on; `None` if nothing is recorded.
    ///
    /// # Errors
    /// If an option, the policy, the log file or the webhook's kubeconfig is of no use.
    pub fn start(options: &Options, environment: Environment) -> Result<Option<Arc<Backends>>, OptionsError> {
        options.validate()?;
        let Some(policy) = &options.policy_file else {
            if options.log.path.is_some() || options.webhook.config_file.is_some() {
                tracing::warn!("no audit policy file provided, no audit events will be recorded");
            }
            return Ok(None);
        };
        let policy = Policy::load(policy).map_err(OptionsError::Policy)?;
        let (metrics, live) = (Arc::new(Metrics::default()), watch::Sender::new(0));
        let mut all = Vec::new();
        let mut add = |sink: Sink, batch: &BatchOptions, truncate: &TruncateOptions| {
            let sink = Arc::new(sink);
            let buffer = (batch.mode == Mode::Batch)
                .then(|| buffered(&sink, batch, truncate, &metrics, &environment, live.subscribe()));
            all.push(Backend { truncate: truncate.clone(), mode: batch.mode, sink, buffer });
        };
        if let Some(path) = &options.log.path {
            let log =
                Log::open(path, &options.log).map_err(|source| OptionsError::Log { path: path.clone(), source })?;
            let legacy = options.log.format == "legacy";
            let sink = Sink::Log { log: Mutex::new(log), legacy, clock: environment.clock.clone() };
            add(sink, &options.log.batch, &options.log.truncate);
        }
        if let Some(file) = &options.webhook.config_file {
            let hook = Hook::load(file, options.webhook.initial_backoff, environment.caller.clone());
            let hook = hook.map_err(OptionsError::Webhook)?;
            add(Sink::Hook(hook), &options.webhook.batch, &options.webhook.truncate);
        }
        if all.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Backends { policy, all, metrics, environment, live })))
    }

    /// What is recorded of a request.
    pub fn ruling(&self, asked: &corten_auth::Attributes<'_>) -> Ruling {
        let ruling = self.policy.ruling(asked);
        self.metrics.level(ruling.level);
        ruling
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        self.environment.clock.now()
    }

    /// Records an event. False if the request must not go on.
    pub(crate) async fn record(&self, event: &Event) -> bool {
        self.metrics.event();
        let mut recorded = true;
        for backend in &self.all {
            recorded &= backend.record(event, &self.metrics).await;
        }
        recorded
    }

    /// Records an event from where nothing can be waited for.
    pub(crate) fn record_later(self: &Arc<Backends>, event: Event) {
        let backends = self.clone();
        self.environment.tasks.spawn("audit event", OnStop::Drain, async move {
            backends.record(&event).await;
        });
    }

    /// A request begins or ends.
    pub(crate) fn count_live(&self, by: isize) {
        self.live.send_modify(|live| *live = live.saturating_add_signed(by));
    }

    /// What `/metrics` says of it.
    pub fn metrics_text(&self) -> String {
        self.metrics.text()
    }
}

impl Backend {
    async fn record(&self, event: &Event, metrics: &Metrics) -> bool {
        let mut json = self.sink.render(event);
        if self.truncate.enabled {
            let max = self.truncate.max_event_size;
            if json.len() > max && event.level >= Level::Request {
                json = self.sink.render(&event.without_objects());
            }
            if json.len() > max {
                metrics.errors("truncate", 1);
                tracing::error!(audit_id = event.id, "an audit event is too large even after truncating");
                return true;
            }
        }
        let Some(buffer) = &self.buffer else {
            let recorded = self.sink.record(std::slice::from_ref(&json), metrics).await;
            return recorded || self.mode == Mode::Blocking;
        };
        if buffer.try_send(json).is_err() {
            metrics.errors("buffered", 1);
            tracing::error!(audit_id = event.id, "audit buffer queue blocked: an event is dropped");
        }
        true
    }
}

/// Starts the task that empties a buffer.
fn buffered(
    sink: &Arc<Sink>,
    batch: &BatchOptions,
    truncate: &TruncateOptions,
    metrics: &Arc<Metrics>,
    environment: &Environment,
    live: watch::Receiver<usize>,
) -> mpsc::Sender<Bytes> {
    let (sender, events) = mpsc::channel(batch.buffer_size);
    let worker = Worker {
        events,
        live,
        sink: sink.clone(),
        batch: batch.clone(),
        bytes_max: if truncate.enabled { truncate.max_batch_size } else { usize::MAX },
        metrics: metrics.clone(),
        environment: environment.clone(),
        sent: VecDeque::new(),
        sending: Arc::new(Semaphore::new(SENDING_MAX)),
    };
    environment.tasks.spawn("audit buffer", OnStop::Drain, worker.run());
    sender
}

/// Empties a buffer (`plugin/pkg/audit/buffered`).
struct Worker {
    events: mpsc::Receiver<Bytes>,
    live: watch::Receiver<usize>,
    sink: Arc<Sink>,
    batch: BatchOptions,
    bytes_max: usize,
    metrics: Arc<Metrics>,
    environment: Environment,
    /// When the last batches were sent: as many as may be sent at once.
    sent: VecDeque<Timestamp>,
    sending: Arc<Semaphore>,
}

impl Worker {
    async fn run(mut self) {
        let mut stopping = Box::pin(self.environment.tasks.stopping());
        loop {
            let first = tokio::select! {
                first = self.events.recv() => first,
                () = &mut stopping => break,
            };
            let Some(first) = first else { return };
            let batch = self.collect(first).await;
            self.send(batch).await;
        }
        // What requests that are still under way have to say is recorded, too.
        let _ = self.live.wait_for(|live| *live == 0).await;
        while let Ok(first) = self.events.try_recv() {
            let batch = self.collect(first).await;
            self.send(batch).await;
        }
        let all = u32::try_from(SENDING_MAX).unwrap_or(u32::MAX);
        let _ = self.sending.acquire_many(all).await;
    }

    /// The event and those that come within the time that it may wait for them.
    async fn collect(&mut self, first: Bytes) -> Vec<Bytes> {
        let mut batch = vec![first];
        if self.batch.max_size <= 1 {
            return batch;
        }
        let mut stopping = Box::pin(self.environment.tasks.stopping());
        let mut over = self.environment.clock.sleep(self.batch.max_wait);
        while batch.len() < self.batch.max_size {
            if let Ok(event) = self.events.try_recv() {
                batch.push(event);
                continue;
            }
            let next = tokio::select! {
                next = self.events.recv() => next,
                () = &mut over => None,
                () = &mut stopping => None,
            };
            let Some(event) = next else { break };
            batch.push(event);
        }
        batch
    }

    async fn send(&mut self, batch: Vec<Bytes>) {
        let mut rest = &batch[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |event: &&Bytes| {
                bytes += event.len();
                bytes <= self.bytes_max
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (part, more) = rest.split_at(count);
            rest = more;
            self.throttle().await;
            let (sink, metrics, part) = (self.sink.clone(), self.metrics.clone(), part.to_vec());
            if matches!(*sink, Sink::Log { .. }) {
                sink.record(&part, &metrics).await;
                continue;
            }
            // A slow receiver must not keep the buffer from being emptied.
            let Ok(permit) = self.sending.clone().acquire_owned().await else { return };
            self.environment.tasks.spawn("audit webhook", OnStop::Drain, async move {
                sink.record(&part, &metrics).await;
                drop(permit);
            });
        }
    }

    /// Waits until one more batch may be sent: a bucket of `burst` that fills with `qps`.
    async fn throttle(&mut self) {
        let Some((qps, burst)) = self.batch.throttle else { return };
        let now = self.environment.clock.now();
        if self.sent.len() >= burst as usize
            && let Some(oldest) = self.sent.pop_front()
        {
            let due = Duration::from_secs_f64(f64::from(burst) / qps);
            let since = now.duration_since(oldest).unsigned_abs();
            if since < due {
                self.environment.clock.sleep(due - since).await;
            }
        }
        self.sent.push_back(self.environment.clock.now());
    }
}
