//! API priority and fairness: every request is one of a FlowSchema's, and takes seats of its priority level.
//!
//! `corten-flowcontrol` decides; here is what is shared by all requests. The compiled schemas are replaced as a whole when the
//! objects change ([`settings`]). Each level has a lock of its own, which is held for a decision and never while waiting.

mod dump;
pub(crate) mod settings;
mod text;
mod watches;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use corten_auth::User;
use corten_base::{Clock, OnStop, Tasks};
use corten_flowcontrol::limits::{self, Limits, Wants};
use corten_flowcontrol::{
    Arrival, Begin, Digest, Ended, FlowSchema, Id, Method, Nanos, PriorityLevel, QueueSet, RetryAfter, Smoothed, Work,
    bootstrap, name, shuffle,
};
use corten_object::Status;
use futures::future::Either;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::oneshot;

pub(crate) use dump::dump;
pub(crate) use watches::{Held, Watches};

/// What is said to who is turned away.
pub(crate) const TOO_MANY: &str = "Too many requests, please try again later.";
/// Under what answers say their level and their schema.
const UID_HEADERS: [HeaderName; 2] = [
    HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid"),
    HeaderName::from_static("x-kubernetes-pf-flowschema-uid"),
];
/// How often levels lend each other what they do not use (`borrowingAdjustmentPeriod`).
const ADJUST_EVERY: Nanos = 10_000_000_000;

/// How much the server does at once and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowLimits {
    /// Seats for reads (`--max-requests-inflight`); the sum of the two is divided among the priority levels.
    pub reads: u64,
    /// Seats for writes (`--max-mutating-requests-inflight`).
    pub writes: u64,
    /// How long a request may take that is not made to last (`--request-timeout`).
    pub request_timeout: Duration,
}

impl Default for FlowLimits {
    fn default() -> FlowLimits {
        FlowLimits { reads: 400, writes: 200, request_timeout: Duration::from_secs(60) }
    }
}

/// All levels and schemas.
pub(crate) struct Flow {
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    pub limits: FlowLimits,
    /// In the order in which they are looked at. The last resort is among them.
    schemas: RwLock<Vec<Arc<Schema>>>,
    control: Mutex<Control>,
    adjust_at: AtomicU64,
    pub watches: Arc<Watches>,
}

/// A schema in use.
pub(crate) struct Schema {
    config: FlowSchema,
    level: Arc<Level>,
    /// Its place in the counts of its level.
    place: usize,
    /// The uids that answers carry: the level's and the schema's.
    uids: [HeaderValue; 2],
}

/// A priority level.
pub(crate) struct Level {
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    queues: Mutex<QueueSet<Ticket>>,
    /// How wide its requests may be thought; zero: no bound of its own.
    width_max: AtomicU64,
    retry: Mutex<RetryAfter>,
}

/// What goes along with a request through the queues.
struct Ticket {
    user: Arc<User>,
    verb: &'static str,
    uri: Option<hyper::Uri>,
    wake: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct Control {
    levels: BTreeMap<String, Managed>,
    adjusted_at: Nanos,
    fair_fraction: f64,
}

struct Managed {
    level: Arc<Level>,
    config: PriorityLevel,
    limits: Limits,
    demand: Smoothed,
    target: f64,
    /// It is not wanted any more, and goes when its last request has gone.
    quiescing: bool,
}

/// Who asks for seats.
pub(crate) struct Asking<'a> {
    pub user: &'a Arc<User>,
    pub digest: Digest<'a>,
    pub verb: &'static str,
    /// Where it came from, to be shown.
    pub uri: Option<&'a hyper::Uri>,
    /// How long it may wait.
    pub wait_max: Duration,
}

/// The seats of a request, until this is dropped.
pub(crate) struct Place {
    schema: Arc<Schema>,
    /// `None` once it has left.
    id: Option<Id>,
}

/// What the answer to a request says of its schema and level: their uids, so that nobody learns their names.
pub(crate) struct Mark(Arc<Schema>);

impl Mark {
    /// Says it.
    pub fn set(&self, headers: &mut HeaderMap) {
        self.0.mark(headers);
    }
}

/// A request that gets no seats.
pub(crate) struct Refused {
    schema: Arc<Schema>,
    pub retry_after_seconds: u64,
}

impl Flow {
    /// With the configuration that there always is.
    pub fn new(clock: Arc<dyn Clock>, tasks: Tasks, limits: FlowLimits) -> Flow {
        let flow = Flow {
            clock,
            tasks,
            limits,
            schemas: RwLock::default(),
            control: Mutex::default(),
            adjust_at: AtomicU64::new(0),
            watches: Arc::new(Watches::default()),
        };
        flow.configure(Vec::new(), Vec::new());
        flow
    }

    /// How long a request may wait for its seats that is not bounded itself (`WithPriorityAndFairness`).
    pub fn wait_default(&self) -> Duration {
        self.limits.request_timeout / 4
    }

    /// Seats for a request, waited for if need be. `work` tells how many, of the bound of the level.
    pub async fn enter(
        &self,
        asking: Asking<'_>,
        work: impl FnOnce(Option<u64>) -> (Work, Option<u64>),
    ) -> Result<Place, Refused> {
        let now = now(&*self.clock);
        self.adjust_if_due(now);
        let schema = self.classify(&asking.digest);
        let level = schema.level.clone();
        let bound = level.width_max.load(Ordering::Relaxed);
        let (work, watchers) = work((bound > 0).then_some(bound));
        let told_apart = match schema.config.method {
            Some(Method::User) => asking.digest.user,
            Some(Method::Namespace) => asking.digest.namespace(),
            None => "",
        };
        let hash = shuffle::flow_hash(&schema.config.name, told_apart);
        let arrival = Arrival { schema: schema.place, hash, work, watch: asking.verb == "watch" };
        let ticket = Ticket { user: asking.user.clone(), verb: asking.verb, uri: asking.uri.cloned(), wake: None };
        let (place, woken) = {
            let mut queues = level.queues();
            if let Some(watchers) = watchers {
                queues.note_watchers(schema.place, watchers);
            }
            match queues.begin(now, arrival, ticket, &mut Ticket::wake) {
                Begin::Runs(id) => return Ok(Place { schema, id: Some(id) }),
                Begin::Waits(id) => {
                    let (wake, woken) = oneshot::channel();
                    queues.token(id).wake = Some(wake);
                    (Place { schema, id: Some(id) }, woken)
                }
                Begin::Refused(_) => {
                    drop(queues);
                    return Err(level.refuse(schema));
                }
            }
        };
        Box::pin(self.wait(place, woken, asking.wait_max)).await
    }

    async fn wait(&self, mut place: Place, mut woken: oneshot::Receiver<()>, most: Duration) -> Result<Place, Refused> {
        let deadline = now(&*self.clock).saturating_add(nanos(most));
        loop {
            // While all wait, nobody comes in who would see that it is time to lend.
            let now_is = now(&*self.clock);
            let wakes_at = deadline.min(self.adjust_at.load(Ordering::Relaxed).max(now_is.saturating_add(1_000_000)));
            let sleep = self.clock.sleep(Duration::from_nanos(wakes_at.saturating_sub(now_is)));
            match futures::future::select(woken, sleep).await {
                Either::Left((_, _)) => return Ok(place),
                Either::Right((_, again)) => woken = again,
            }
            let now_is = now(&*self.clock);
            self.adjust_if_due(now_is);
            let Some(id) = place.id.filter(|_| now_is >= deadline) else { continue };
            if place.schema.level.queues().give_up(id, now_is) {
                place.id = None;
                let schema = place.schema.clone();
                return Err(schema.level.clone().refuse(schema));
            }
        }
    }

    /// The schema of a request (`startRequest`).
    fn classify(&self, digest: &Digest<'_>) -> Arc<Schema> {
        let schemas = self.schemas.read().unwrap_or_else(PoisonError::into_inner);
        let found = schemas.iter().find(|schema| schema.config.matches(digest));
        let last_resort = || schemas.iter().rfind(|schema| schema.config.name == name::CATCH_ALL);
        found.or_else(last_resort).expect("the last resort is added to every table").clone()
    }

    /// Goes on with other levels and schemas (`lockAndDigestConfigObjects`).
    pub fn configure(&self, levels: Vec<PriorityLevel>, schemas: Vec<FlowSchema>) {
        let now = now(&*self.clock);
        let mut control = self.control();
        let mut old = std::mem::take(&mut control.levels);
        let mut all: BTreeMap<String, Managed> = BTreeMap::new();
        for config in levels {
            let managed = match old.remove(&config.name) {
                Some(managed) => Managed { config, quiescing: false, ..managed },
                None => self.managed(config, now),
            };
            all.insert(managed.config.name.clone(), managed);
        }
        let wanted: Vec<String> = all.keys().cloned().collect();
        for config in bootstrap::mandatory_levels().iter().filter_map(PriorityLevel::read) {
            if !all.contains_key(&config.name) {
                let managed = match old.remove(&config.name) {
                    Some(managed) => managed,
                    None => self.managed(config, now),
                };
                all.insert(managed.config.name.clone(), managed);
            }
        }
        old.retain(|_, managed| !managed.level.queues().is_idle());
        all.extend(old.into_iter().map(|(name, managed)| (name, Managed { quiescing: true, ..managed })));
        let capacities: Vec<_> = all.values().map(|managed| managed.config.capacity).collect();
        let divided = limits::divide(self.limits.reads + self.limits.writes, &capacities);
        for (managed, limits) in all.values_mut().zip(divided) {
            managed.limits = limits;
            let width_max = managed.config.width_max(limits.nominal).unwrap_or_default();
            managed.level.width_max.store(width_max, Ordering::Relaxed);
            let limit = managed.level.queues().limit();
            managed.level.queues().configure(managed.config.response, limit, now, &mut Ticket::wake);
        }
        control.levels = all;
        control.adjust(now);
        self.adjust_at.store(now.saturating_add(ADJUST_EVERY), Ordering::Relaxed);
        let table = table(&control, &wanted, schemas);
        *self.schemas.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    fn managed(&self, config: PriorityLevel, now: Nanos) -> Managed {
        let level = Level {
            clock: self.clock.clone(),
            tasks: self.tasks.clone(),
            queues: Mutex::new(QueueSet::new(config.response, 0, now)),
            width_max: AtomicU64::new(0),
            retry: Mutex::default(),
        };
        let (limits, demand) = (Limits::default(), Smoothed::default());
        Managed { level: Arc::new(level), config, limits, demand, target: 0.0, quiescing: false }
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends seats anew, if the last time is long enough ago. No timer does it: without requests there is nothing to lend.
    fn adjust_if_due(&self, now: Nanos) {
        let due = self.adjust_at.load(Ordering::Relaxed);
        let next = now.saturating_add(ADJUST_EVERY);
        let taken = |due| self.adjust_at.compare_exchange(due, next, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if now >= due && taken(due) {
            let mut control = self.control();
            control.levels.retain(|_, managed| !managed.quiescing || !managed.level.queues().is_idle());
            control.adjust(now);
        }
    }
}

impl Control {
    /// `updateBorrowingLocked`
    fn adjust(&mut self, now: Nanos) {
        let periods = now.saturating_sub(self.adjusted_at) as f64 / ADJUST_EVERY as f64;
        self.adjusted_at = now;
        let wants: Vec<Wants> = self
            .levels
            .values_mut()
            .map(|managed| {
                let mut queues = managed.level.queues();
                managed.demand = queues.take_demand(now, managed.demand, periods);
                let exempt = managed.config.response.is_none();
                Wants { limits: managed.limits, exempt, demand: managed.demand, current: queues.limit() }
            })
            .collect();
        let adjusted = limits::adjust(&wants);
        self.fair_fraction = adjusted.fair_fraction;
        for (managed, (limit, target)) in self.levels.values_mut().zip(adjusted.levels) {
            managed.target = target;
            managed.level.queues().set_limit(limit, now, &mut Ticket::wake);
        }
    }
}

/// The schemas in order; of those that name a level that is not there, none is used (`digestFlowSchemasLocked`).
fn table(control: &Control, wanted: &[String], mut schemas: Vec<FlowSchema>) -> Vec<Arc<Schema>> {
    schemas.retain(|schema| wanted.contains(&schema.level));
    schemas.sort_by(|a, b| a.order().cmp(&b.order()));
    let [exempt, catch_all] = bootstrap::mandatory_schemas().map(|schema| FlowSchema::read(&schema));
    if !schemas.iter().any(|schema| schema.name == exempt.name) {
        schemas.insert(0, exempt);
    }
    if !schemas.iter().any(|schema| schema.name == catch_all.name) {
        schemas.push(catch_all);
    }
    let kept: Vec<(String, String)> = schemas.iter().map(|s| (s.level.clone(), s.name.clone())).collect();
    let compiled = schemas.into_iter().filter_map(|config| {
        let managed = control.levels.get(&config.level)?;
        let is_kept = |name: &str| kept.iter().any(|(level, schema)| *level == config.level && schema == name);
        let place = managed.level.queues().schema(&config.name, is_kept);
        let uid = |uid: &str| HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""));
        let uids = [uid(&managed.config.uid), uid(&config.uid)];
        Some(Arc::new(Schema { level: managed.level.clone(), place, uids, config }))
    });
    compiled.collect()
}

impl Level {
    fn queues(&self) -> MutexGuard<'_, QueueSet<Ticket>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, schema: Arc<Schema>) -> Refused {
        let now = self.clock.now().as_second();
        let retry_after_seconds = self.retry.lock().unwrap_or_else(PoisonError::into_inner).refused(now);
        Refused { schema, retry_after_seconds }
    }
}

impl Ticket {
    fn wake(&mut self) {
        if let Some(wake) = self.wake.take() {
            // Who does not listen any more gives its seats back when it is dropped.
            let _ = wake.send(());
        }
    }
}

impl Schema {
    fn mark(&self, headers: &mut HeaderMap) {
        for (name, uid) in UID_HEADERS.into_iter().zip(&self.uids) {
            headers.insert(name, uid.clone());
        }
    }
}

impl Place {
    /// What the answer to this request says of its schema and level.
    pub fn mark(&self) -> Mark {
        Mark(self.schema.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (level, Some(id)) = (&self.schema.level, self.id) else { return };
        let now_is = now(&*level.clock);
        let mut queues = level.queues();
        // Whoever is dropped while it waits leaves the queue.
        if queues.give_up(id, now_is) {
            return;
        }
        let Ended::Lingers(time) = queues.end(id, now_is, &mut Ticket::wake) else { return };
        drop(queues);
        let level = level.clone();
        let sleep = level.clock.sleep(Duration::from_nanos(time));
        level.tasks.clone().spawn("lingering seats", OnStop::Drain, async move {
            sleep.await;
            level.queues().release(id, now(&*level.clock), &mut Ticket::wake);
        });
    }
}

impl Refused {
    /// What the answer to this request says of its schema and level.
    pub fn mark(&self, headers: &mut HeaderMap) {
        self.schema.mark(headers);
    }

    /// The refusal as components of this process see it.
    pub fn status(&self) -> Status {
        Status::too_many_requests(TOO_MANY, u32::try_from(self.retry_after_seconds).unwrap_or(1))
    }
}

fn now(clock: &dyn Clock) -> Nanos {
    Nanos::try_from(clock.now().as_nanosecond()).unwrap_or_default()
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}
