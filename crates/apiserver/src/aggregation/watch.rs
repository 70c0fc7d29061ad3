//! The task behind aggregation: it follows APIServices, their Services and endpoints, and the definitions; it asks the servers,
//! and keeps APIServices and documents right.
//!
//! Events wake it. Only what no event tells is looked at by the clock: whether a server still answers (every 30 s, as upstream),
//! and what it serves (every minute).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use corten_auth::User;
use corten_base::backoff::Backoff;
use corten_base::{OnError, OnStop, Timestamp};
use corten_cache::{Event, Gone, Scope};
use corten_client::Api;
use corten_kinds::id;
use corten_object::ObjectKey;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::available::{self, SERVICE_NAME};
use super::{ApiService, Document, backend, register};
use crate::core::Core;
use crate::local::LocalApi;

/// How often a server is asked whether it is there.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// How often a server is asked what it serves.
const READ_EVERY: Duration = Duration::from_secs(60);
/// The pauses after failures.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(30));
/// Events that are looked at in one go.
const BATCH: usize = 256;
/// Servers that are asked at the same time.
const AT_ONCE: usize = 16;

/// Starts the task.
pub(crate) fn start(core: &Arc<Core>) {
    let own = core.clone();
    core.tasks.run("aggregation", OnError::Restart, OnStop::Abort, move || {
        let core = own.clone();
        async move { run(&core).await }
    });
}

async fn run(core: &Arc<Core>) -> Result<(), Gone> {
    let after = core.cache.revision();
    let cursor = |kind| core.cache.cursor(Scope::Kind(kind), after);
    let (mut own, mut services, mut slices) =
        (cursor(id::API_SERVICE)?, cursor(id::SERVICE)?, cursor(id::ENDPOINT_SLICE)?);
    let mut kinds = core.cache.kinds_moved();
    let mut probes = Probes::new(core.clone());
    let mut register = true;
    for service in core.aggregation.table(core).iter() {
        probes.look_at(&service.name);
    }
    loop {
        if std::mem::take(&mut register) {
            register = probes.register().await;
        }
        probes.start();
        let wake = probes.wake();
        let sleep = async {
            match wake {
                Some(at) => core.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            batch = own.next_batch(BATCH) => {
                batch?.iter().for_each(|event| probes.changed(event));
                register = true;
            }
            batch = services.next_batch(BATCH) => {
                batch?.iter().for_each(|event| probes.moved(event, |event| Some(event.shown(event.transition()).head.name.to_string())));
            }
            batch = slices.next_batch(BATCH) => {
                batch?.iter().for_each(|event| probes.moved(event, |event| {
                    event.shown(event.transition()).head.labels.get(SERVICE_NAME).map(str::to_owned)
                }));
            }
            moved = kinds.changed() => match moved {
                Ok(()) => register = true,
                // The cache is gone, and with it all that could ever come.
                Err(_) => std::future::pending().await,
            },
            Some(probe) = probes.running.next(), if !probes.running.is_empty() => probes.finish(probe),
            () = sleep => register |= probes.due(),
        }
    }
}

/// What came of asking a server.
struct Probe {
    name: String,
    /// This server serves the group version itself: there is nobody to ask again.
    local: bool,
    /// What it serves has not been read.
    stale: bool,
    /// It should be asked again soon.
    failed: bool,
}

/// Which servers are being asked, and which are to be asked when.
struct Probes {
    core: Arc<Core>,
    api: Arc<dyn Api>,
    /// To be asked as soon as there is room, and whether for their documents, too.
    waiting: BTreeMap<String, bool>,
    running: FuturesUnordered<BoxFuture<'static, Probe>>,
    busy: BTreeSet<String>,
    /// When they are to be asked again.
    next: BTreeMap<String, Timestamp>,
    /// When their documents were read last.
    read: BTreeMap<String, Timestamp>,
    failures: Backoff<String>,
    /// When the registration is to be tried again.
    again: Option<Timestamp>,
}

impl Probes {
    fn new(core: Arc<Core>) -> Probes {
        let api: Arc<dyn Api> = Arc::new(LocalApi::new(core.clone(), User::apiserver()));
        Probes {
            core,
            api,
            waiting: BTreeMap::new(),
            running: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            next: BTreeMap::new(),
            read: BTreeMap::new(),
            failures: Backoff::new(RETRY.0, RETRY.1),
            again: None,
        }
    }

    /// Puts the APIServices of definitions right; whether there is reason to do it again at once (never: a failure waits).
    async fn register(&mut self) -> bool {
        self.again = None;
        if let Err(error) = register::definitions(&self.core, &*self.api).await {
            tracing::warn!(%error, "an APIService of a definition could not be written");
            self.again = Some(self.core.clock.now() + RETRY.1);
        }
        false
    }

    fn look_at(&mut self, name: &str) {
        self.waiting.insert(name.to_owned(), true);
    }

    /// An APIService was written; only its status is of this task's own making.
    fn changed(&mut self, event: &Event) {
        let spec = |object: &Option<Arc<corten_object::Object>>| {
            object.as_ref().map(|o| o.to_tree().path("spec").cloned().unwrap_or_default())
        };
        let name = event.shown(event.transition()).head.name.to_string();
        if event.object.is_none() {
            self.forget(&name);
        } else if spec(&event.object) != spec(&event.previous) {
            self.failures.reset(&name);
            self.look_at(&name);
        }
    }

    fn forget(&mut self, name: &str) {
        self.waiting.remove(name);
        self.next.remove(name);
        self.read.remove(name);
        self.failures.reset(&name.to_owned());
        self.core.aggregation.keep(name, None);
    }

    /// A Service or its endpoints changed: those that it serves are asked.
    fn moved(&mut self, event: &Event, service: impl Fn(&Event) -> Option<String>) {
        let table = self.core.aggregation.table(&self.core);
        let Some(name) = service(event) else { return };
        let namespace = event.shown(event.transition()).head.namespace.as_str();
        for found in table.iter() {
            if found.backend.as_ref().is_some_and(|b| b.namespace == namespace && b.name == name) {
                self.failures.reset(&found.name);
                self.look_at(&found.name);
            }
        }
    }

    /// When there is something to do by the clock.
    fn wake(&self) -> Option<Timestamp> {
        self.next.values().chain(&self.again).min().copied()
    }

    /// Puts those whose time has come among the waiting; whether the registration's has.
    fn due(&mut self) -> bool {
        let now = self.core.clock.now();
        let due: Vec<String> = self.next.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            self.next.remove(&name);
            self.waiting.entry(name).or_insert(false);
        }
        self.again.is_some_and(|at| at <= now)
    }

    /// An APIService as it is: an event is seen here before its write is answered, and the table is made anew only then.
    fn service(&self, name: &str) -> Option<Arc<ApiService>> {
        let object = self.core.cache.get(&ObjectKey::new(id::API_SERVICE, "", name))?;
        Some(Arc::new(ApiService::of(&object)))
    }

    /// Begins to ask those that wait, as many as there is room for.
    fn start(&mut self) {
        let now = self.core.clock.now();
        let names: Vec<String> = self.waiting.keys().filter(|name| !self.busy.contains(*name)).cloned().collect();
        for name in names {
            if self.busy.len() >= AT_ONCE {
                return;
            }
            let whole = self.waiting.remove(&name).unwrap_or_default();
            let Some(service) = self.service(&name) else { continue };
            let old = self.read.get(&name).is_none_or(|at| now.duration_since(*at).unsigned_abs() >= READ_EVERY);
            let read = service.backend.is_some() && (whole || old);
            if read {
                self.read.insert(name.clone(), now);
            }
            self.busy.insert(name);
            self.running.push(Box::pin(probe(self.core.clone(), self.api.clone(), service, read)));
        }
    }

    fn finish(&mut self, probe: Probe) {
        let Probe { name, local, stale, failed } = probe;
        self.busy.remove(&name);
        if self.service(&name).is_none() {
            return self.forget(&name);
        }
        if stale {
            self.read.remove(&name);
        }
        let now = self.core.clock.now();
        let pause = match (failed, local) {
            (true, _) => self.failures.fail(name.clone(), now),
            (false, true) => return self.failures.reset(&name),
            (false, false) => {
                self.failures.reset(&name);
                CHECK_EVERY
            }
        };
        self.next.insert(name, now + pause);
    }
}

/// Asks one server. Who sees that it is available finds it in discovery, too.
async fn probe(core: Arc<Core>, api: Arc<dyn Api>, service: Arc<ApiService>, read: bool) -> Probe {
    let available = available::check(&core, &service).await;
    let local = service.backend.is_none();
    let before = core.aggregation.documents().get(&service.name).cloned().unwrap_or_default();
    let document = match available.status {
        _ if local => None,
        "True" if read || !before.current => Some(backend::document(&core, &service, &before).await),
        "True" => Some(before),
        _ => Some(Document { current: false, ..before }),
    };
    let stale = document.as_ref().is_some_and(|document| !document.current);
    core.aggregation.keep(&service.name, document);
    let written = available::write(&core, &*api, &service.name, &available).await;
    if let Err(error) = &written {
        tracing::warn!(service = service.name, %error, "an APIService's condition could not be written");
    }
    Probe { name: service.name.clone(), local, stale, failed: available.failed() || written.is_err() }
}
