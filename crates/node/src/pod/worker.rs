//! The worker of one pod: observes, plans, writes the status, starts jobs, waits.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use corten_base::{Istr, OnStop, Timestamp};
use corten_object::{Object, ObjectKey, Revision};
use corten_podplan::{
    Action, Lifecycle, Memory, NodeFacts, Observed, ObservedContainer, ObservedSandbox, Plan, ProbeKind, Run,
    container_of, support,
};
use corten_scheduler::Rejection;
use corten_tree::Tree;
use corten_views::{Node, Pod, PodStatus};
use jiff::SignedDuration;
use tokio::sync::{mpsc, watch};

use super::kill::Killing;
use super::probes::Answer;
use super::start::StartJob;
use super::{INBOX_MAX, Message, PodContext, Stopper, kill, observe, probes, sandbox, start, teardown};
use crate::shared::Shared;
use crate::sources::{Changes, Reader};
use crate::{volumes, write};

/// Pause after a failed write or a failed teardown.
const RETRY: SignedDuration = SignedDuration::from_secs(1);
/// Within so long the end and the new start of a container are told as one (upstream looks at containers once a second).
const REPLACE_MAX: SignedDuration = SignedDuration::from_secs(1);
/// Pause after volumes could not be written anew.
const REFRESH_RETRY: SignedDuration = SignedDuration::from_secs(10);

/// The pod's object as it was last seen.
#[derive(Clone)]
pub struct Update {
    pub object: Arc<Object>,
    /// Whether it has gone from the API, or its manifest has.
    pub gone: bool,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a pod comes from.
#[derive(Clone)]
pub enum Origin {
    /// It is an object of the API.
    Api,
    /// A manifest on this machine, with the mirror that it has in the API: the mirror has its status.
    Manifest(Option<Arc<Object>>),
}

impl Update {
    /// Takes in what was seen later. A pod that has gone does not come back: a manifest's mirror may still be heard of.
    pub fn follow(&mut self, later: Update) {
        *self = Update { gone: self.gone || later.gone, ..later };
    }

    /// The object of the API that has the pod's status.
    fn in_api(&self) -> Option<&Arc<Object>> {
        match &self.origin {
            Origin::Api => Some(&self.object),
            Origin::Manifest(mirror) => mirror.as_ref(),
        }
    }
}

/// What a former agent left of a pod.
#[derive(Default)]
pub struct Inventory {
    pub containers: Vec<corten_runtime::Container>,
    pub sandboxes: Vec<corten_runtime::Sandbox>,
    /// Namespace and name of the pod, if its logs are there.
    pub logs_of: Option<(String, String)>,
}

/// The worker of one pod.
pub struct Worker {
    /// Its pod has the resources that it was promised.
    ctx: PodContext,
    /// The pod as the API has it.
    desired: Arc<Pod>,
    /// Changes when the node may have room for a resize that waits.
    freed: watch::Receiver<u64>,
    key: ObjectKey,
    updates: watch::Receiver<Update>,
    /// Tells jobs that the pod is being ended.
    ending: watch::Sender<bool>,
    inbox: mpsc::Receiver<Message>,
    gone: bool,
    /// Uid of the object that has the status in the API; `None`: a static pod without a mirror.
    in_api: Option<Istr>,
    /// Whether a manifest on this machine asks for the pod, not the API.
    is_static: bool,
    memory: Memory,
    previous: PodStatus,
    /// The status that the API has, and at which revision.
    stored: (Tree, Revision),
    containers: HashMap<String, ObservedContainer>,
    sandbox: Option<ObservedSandbox>,
    starting: BTreeSet<String>,
    sandbox_starting: bool,
    tearing_down: bool,
    torn_down: bool,
    deleted: bool,
    kills: HashMap<String, Killing>,
    /// When the node's own kill ended a container's last instance, by the container's name, until the next has started.
    replaced: HashMap<String, Timestamp>,
    probes: HashMap<(String, ProbeKind), Stopper>,
    hold: Option<(Reader, Changes)>,
    generation: Option<i64>,
    retry_at: Option<Timestamp>,
    /// When volumes that could not be written anew are tried again.
    refresh_again_at: Option<Timestamp>,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, updates: watch::Receiver<Update>) -> Worker {
        let first = updates.borrow().clone();
        let pod = view(&first);
        let (outbox, inbox) = mpsc::channel(INBOX_MAX);
        let ending = watch::Sender::new(false);
        let stored = first.in_api().map(|object| stored(object));
        Worker {
            key: first.object.key(),
            previous: pod.status.clone(),
            freed: shared.ledger.freed(),
            desired: pod.clone(),
            ctx: PodContext { shared, pod, outbox, ending: ending.subscribe() },
            ending,
            updates,
            inbox,
            gone: first.gone,
            in_api: first.in_api().map(|object| object.head.uid.clone()),
            is_static: matches!(first.origin, Origin::Manifest(_)),
            memory: Memory::default(),
            stored: stored.unwrap_or_default(),
            containers: HashMap::new(),
            sandbox: None,
            starting: BTreeSet::new(),
            sandbox_starting: false,
            tearing_down: false,
            torn_down: false,
            deleted: false,
            kills: HashMap::new(),
            replaced: HashMap::new(),
            probes: HashMap::new(),
            hold: None,
            generation: None,
            retry_at: None,
            refresh_again_at: None,
        }
    }

    /// Works until the pod is gone for good. What a former agent left is taken over first.
    pub async fn run(mut self, inventory: Inventory) {
        self.ctx.shared.mailboxes.open(self.ctx.uid(), self.ctx.outbox.clone());
        self.adopt(inventory).await;
        self.note_generation().await;
        loop {
            let wake_at = self.step().await;
            if self.gone && self.memory.lifecycle() == Lifecycle::Cleaned {
                teardown::purge(&self.ctx).await;
                self.ctx.shared.sources.forget(self.ctx.uid());
                self.ctx.shared.probes.forget(self.ctx.uid());
                return;
            }
            while !self.wait(wake_at).await {}
        }
    }

    async fn adopt(&mut self, inventory: Inventory) {
        let newest = inventory.sandboxes.iter().max_by_key(|s| s.created_at);
        if let Some(found) = newest {
            let allocations = self.ctx.shared.network.allocations();
            let address = allocations.iter().find(|a| a.sandbox_id == found.id).map(|a| a.address.ip.to_string());
            let networked = found.netns.is_none() || address.is_some();
            self.sandbox = Some(ObservedSandbox {
                id: found.id.clone(),
                attempt: crate::labels::number(&found.labels, crate::labels::ATTEMPT),
                ready: found.ready && networked,
                ips: address.into_iter().collect(),
            });
        }
        for container in &inventory.containers {
            let seen = observe::container(container);
            if seen.is_running() {
                self.watch_exit(&seen.id).await;
            }
            if matches!(seen.run, Run::Created) && self.forget_unstarted(&seen.id).await {
                continue;
            }
            self.containers.insert(seen.id.clone(), seen);
        }
    }

    /// Removes a container that an agent made and died before it could start it: nothing of it has run, so it counts as no restart.
    async fn forget_unstarted(&self, id: &str) -> bool {
        let owned = id.to_owned();
        match self.ctx.shared.blocking(move |s| s.runtime.delete_container(&owned)).await {
            Ok(Ok(())) => {
                self.ctx.shared.images.release(id.to_owned()).await;
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(container = id, %error, "a container that was never started cannot be removed");
                false
            }
            Err(_) => false,
        }
    }

    async fn watch_exit(&self, id: &str) {
        let owned = id.to_owned();
        let shim = self.ctx.shared.blocking(move |s| s.runtime.running_shim(&owned)).await;
        match shim {
            Ok(Ok(Some(shim))) => start::watch_exit(&self.ctx, id, shim),
            // It has ended between the two looks.
            _ => {
                let (ctx, id) = (self.ctx.clone(), id.to_owned());
                let tasks = ctx.shared.tasks.clone();
                tasks.spawn("container-look", OnStop::Abort, async move { start::report(&ctx, &id).await });
            }
        }
    }

    /// Fields that cannot be honoured, and objects that the pod refers to: looked at when the spec changes.
    async fn note_generation(&mut self) {
        let generation = self.ctx.pod.metadata.generation;
        if self.generation == Some(generation) || self.ctx.pod.is_terminal() {
            return;
        }
        let first = self.generation.is_none();
        self.generation = Some(generation);
        if first && let Some(saved) = super::resize::load(&self.ctx) {
            self.memory.restore(&saved, &self.desired);
            self.ctx.pod = Arc::new(self.memory.allocated(&self.desired));
        }
        if first && self.containers.is_empty() {
            let update = self.updates.borrow().clone();
            let refusals = support::refusals(&update.object.to_tree(), self.ctx.shared.facts.selinux);
            if !refusals.is_empty() {
                let list: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                let message = format!("Pod was rejected: {}", list.join("; "));
                self.ctx.event("", true, "FieldNotSupported", &message);
                self.memory.end("FieldNotSupported", message);
                return;
            }
            if let Err(rejection) = self.admit().await {
                self.ctx.event("", true, &rejection.reason, &rejection.message);
                self.memory.end(&rejection.reason, format!("Pod was rejected: {}", rejection.message));
                return;
            }
        } else if first {
            self.ctx.shared.ledger.adopt(&self.ctx.pod);
        }
        if first && !self.memory.is_taken() {
            self.memory.note_taken(&self.ctx.pod);
        }
        self.ask_for_resize().await;
        if !self.ctx.pod.is_terminating() {
            self.hold = Some(self.ctx.shared.sources.hold(&self.ctx.pod).await);
        }
    }

    /// Has the node promise what the pod asks for, if that differs from what it has.
    async fn ask_for_resize(&mut self) {
        let desired = self.desired.clone();
        let (event, accepted) = super::resize::ask(&self.ctx, &mut self.memory, &desired).await;
        if accepted {
            self.ctx.pod = desired;
        }
        if let Some(event) = event {
            self.ctx.event(&event.container, event.warning, event.reason, event.message);
        }
        if accepted {
            self.refresh_volumes().await;
        }
    }

    /// Takes the pod when it fits beside the others; a critical one waits until they have made room.
    async fn admit_beside(&self, node: &Node) -> Result<(), Rejection> {
        let shared = &self.ctx.shared;
        let (mut freed, mut updates) = (shared.ledger.freed(), self.updates.clone());
        let has_gone = |update: &Update| update.gone || update.object.head.is_deleting();
        loop {
            let orders = shared.ledger.admit(node, &self.ctx.pod)?;
            if orders.is_empty() {
                return Ok(());
            }
            let ordered: Vec<String> = orders.iter().map(|order| order.uid.clone()).collect();
            for order in orders {
                shared.mailboxes.send(&order.uid.clone(), Message::Evict(order)).await;
            }
            while ordered.iter().any(|uid| shared.ledger.has(uid)) {
                tokio::select! {
                    _ = freed.changed() => {}
                    _ = updates.wait_for(has_gone) => return Ok(()),
                }
            }
        }
    }

    /// Whether the node takes the pod, asked in the kubelet's order (`NewMainKubelet`: eviction, room, AppArmor, shutdown): the first
    /// that says no is the reason that everyone sees. A pod that is going already gets nothing any more.
    async fn admit(&self) -> Result<(), Rejection> {
        let shared = &self.ctx.shared;
        if self.ctx.pod.is_terminating() {
            return Ok(());
        }
        if let Some(message) = corten_podplan::eviction::refuses(&shared.conditions.get(), &self.ctx.pod) {
            return Err(Rejection { reason: corten_podplan::eviction::REASON.into(), message });
        }
        match crate::node_object::admitting(shared).await {
            Ok(node) => self.admit_beside(&node).await?,
            Err(error) => {
                tracing::warn!(error, "the node's object cannot be read: a pod is taken unseen");
                shared.ledger.adopt(&self.ctx.pod);
            }
        }
        let app_armor = corten_podplan::security::app_armor_refusal(&self.ctx.pod, shared.facts.app_armor);
        let app_armor = app_armor.map(|message| Rejection { reason: "AppArmor".into(), message });
        match app_armor.or_else(|| shared.shutdown.refuses()) {
            None => Ok(()),
            Some(rejection) => {
                shared.ledger.release(self.ctx.uid());
                Err(rejection)
            }
        }
    }

    fn reader(&self) -> Option<Reader> {
        self.hold.as_ref().map(|(reader, _)| reader.clone())
    }

    fn observed(&self) -> Observed {
        Observed {
            sandbox: self.sandbox.clone(),
            containers: self.containers.values().cloned().collect(),
            starting: self.starting.iter().cloned().collect(),
            sandbox_starting: self.sandbox_starting,
            torn_down: self.torn_down,
        }
    }

    /// Plans, starts what is to be done, writes the status. When to look again.
    async fn step(&mut self) -> Option<Timestamp> {
        let now = self.ctx.shared.clock.now();
        let facts = NodeFacts { host_ips: vec![self.ctx.shared.config.node_ip.to_string()] };
        let observed = self.observed();
        let pod = self.ctx.pod.clone();
        let plan = corten_podplan::plan(&pod, &observed, &self.previous, &mut self.memory, &facts, now);
        let Plan { actions, status, events, wake_at, probes } = plan;
        for event in events {
            self.ctx.event(&event.container, event.warning, event.reason, event.message);
        }
        self.retry_at = self.retry_at.filter(|at| now < *at);
        super::resize::save(&self.ctx, &mut self.memory);
        let mut delete = false;
        for action in actions {
            match action {
                Action::Delete => delete = true,
                other => self.execute(other),
            }
        }
        if self.memory.lifecycle() > Lifecycle::Syncing {
            self.ending.send_replace(true);
        }
        self.keep_probes(probes);
        if self.memory.lifecycle() >= Lifecycle::Terminated {
            // Before anyone can know: the next pod may be here at once.
            self.ctx.shared.ledger.release(self.ctx.uid());
            self.ctx.shared.mailboxes.close(self.ctx.uid());
        }
        let quiet_until = self.replacing_until().filter(|until| now < *until);
        let written = match quiet_until {
            Some(_) => false,
            None => {
                match serde_json::from_slice(&status.to_json()) {
                    Ok(view) => self.previous = view,
                    Err(error) => tracing::error!(%error, "the status that was made cannot be read"),
                }
                self.gone || self.write_status(status).await
            }
        };
        if delete && written && !self.gone && !self.deleted && !self.is_static {
            self.delete().await;
        }
        let refresh = self.refresh_times().filter(|at| now < *at);
        [wake_at, self.retry_at, quiet_until].into_iter().flatten().chain(refresh).min()
    }

    /// Until when the status stays as it is: a container that the node itself replaces is told as one change, as by upstream, whose kill
    /// and start are one step. What takes longer is told all the same.
    fn replacing_until(&self) -> Option<Timestamp> {
        let replaced = self.starting.iter().filter_map(|name| self.replaced.get(name)).max();
        replaced.map(|at| *at + REPLACE_MAX)
    }

    /// An instance of a container has ended.
    fn note_end(&mut self, id: &str, name: &str, now: Timestamp) {
        if self.kills.remove(id).is_some() && self.memory.lifecycle() == Lifecycle::Syncing {
            self.replaced.insert(name.to_owned(), now);
        }
    }

    fn execute(&mut self, action: Action) {
        match action {
            Action::CreateSandbox { attempt, replaces } if !self.sandbox_starting => {
                let Some(reader) = self.reader() else { return };
                self.sandbox_starting = true;
                let ctx = self.ctx.clone();
                if let Some(old) = &replaces {
                    self.containers.retain(|_, c| c.sandbox != *old);
                    self.ctx.event(
                        "",
                        false,
                        "SandboxChanged",
                        "Pod sandbox changed, it will be killed and re-created.",
                    );
                }
                self.job(async move {
                    let outcome = sandbox::create(&ctx, attempt, replaces, &reader).await;
                    ctx.tell(Message::Sandbox(outcome)).await;
                });
            }
            Action::Start { container, kind, attempt } => self.start(&container, kind, attempt),
            Action::Kill { id, container, grace_seconds, pre_stop, message, .. } => {
                let deadline = self.ctx.shared.clock.now() + SignedDuration::from_secs(grace_seconds);
                match self.kills.get(&id) {
                    Some(killing) => killing.shorten(deadline),
                    None => {
                        self.ctx.event(&container, false, "Killing", message);
                        let spec = container_of(&self.ctx.pod, &container).cloned();
                        let ips = self.ips();
                        let killing = kill::begin(&self.ctx, &id, spec, grace_seconds, pre_stop, ips);
                        self.kills.insert(id, killing);
                    }
                }
            }
            Action::Resize { steps } => self.job(super::resize::run(self.ctx.clone(), steps)),
            Action::RemoveContainer { id, keep_log } => {
                self.containers.remove(&id);
                let ctx = self.ctx.clone();
                self.job(async move {
                    let owned = id.clone();
                    let removed = ctx.shared.blocking(move |s| {
                        let log = s.runtime.container(&owned).map(|c| c.labels.get(crate::labels::LOG).cloned());
                        s.runtime.delete_container(&owned)?;
                        if let Ok(Some(log)) = log
                            && !keep_log
                        {
                            crate::logs::remove(std::path::Path::new(&log));
                        }
                        Ok::<(), corten_runtime::Error>(())
                    });
                    let removed = removed.await;
                    if let Ok(Err(error)) = removed {
                        tracing::warn!(container = id, %error, "cannot remove an ended container");
                    }
                    ctx.shared.images.release(id.clone()).await;
                    ctx.tell(Message::Removed(id)).await;
                });
            }
            Action::TearDown if !self.tearing_down && self.retry_at.is_none() => {
                self.tearing_down = true;
                self.probes.clear();
                let ctx = self.ctx.clone();
                self.job(async move {
                    let outcome = teardown::run(&ctx).await;
                    ctx.tell(Message::TornDown(outcome)).await;
                });
            }
            Action::CreateSandbox { .. } | Action::TearDown | Action::Delete => {}
        }
    }

    fn start(&mut self, name: &str, kind: corten_podplan::ContainerKind, attempt: u32) {
        let Some(reader) = self.reader() else { return };
        let Some(container) = container_of(&self.ctx.pod, name).cloned() else { return };
        let Some(sandbox) = self.sandbox.as_ref() else { return };
        let target = &container.target_container_name;
        let target = self.containers.values().find(|c| c.name == *target && c.is_running()).map(|c| c.id.clone());
        let job = StartJob { container, kind, attempt, sandbox: sandbox.id.clone(), ips: self.ips(), reader, target };
        self.starting.insert(name.to_owned());
        self.job(start::run(self.ctx.clone(), job));
    }

    fn ips(&self) -> Vec<String> {
        self.sandbox.as_ref().map(|s| s.ips.clone()).unwrap_or_default()
    }

    fn job(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.ctx.shared.tasks.spawn("pod-job", OnStop::Abort, future);
    }

    /// Starts the probes that are missing and stops those that are no longer wanted.
    fn keep_probes(&mut self, wanted: Vec<corten_podplan::ProbeWanted>) {
        let key = |w: &corten_podplan::ProbeWanted| (w.id.clone(), w.kind);
        let keys: BTreeSet<(String, ProbeKind)> = wanted.iter().map(key).collect();
        self.probes.retain(|k, _| keys.contains(k));
        for probe in wanted {
            if self.probes.contains_key(&key(&probe)) {
                continue;
            }
            let Some(container) = container_of(&self.ctx.pod, &probe.container).cloned() else { continue };
            let at = key(&probe);
            let stopper = probes::start(&self.ctx, probe, container, self.ips());
            self.probes.insert(at, stopper);
        }
    }

    /// Writes the status if it differs from what the API has. False: it is to be tried again.
    async fn write_status(&mut self, status: Tree) -> bool {
        let Some(uid) = self.in_api.clone() else { return true };
        const OWNED: [&str; 6] = ["message", "reason", "podIP", "podIPs", "hostIP", "hostIPs"];
        let (stored, _) = &self.stored;
        let mut patch = Tree::map();
        for (key, value) in status.as_map().into_iter().flat_map(|m| m.iter()) {
            if !stored.get(key).is_some_and(|old| value.semantically_equal(old)) {
                patch.insert(key.to_owned(), value.clone());
            }
        }
        for key in OWNED {
            if status.get(key).is_none() && stored.get(key).is_some_and(|v| !v.is_empty_value()) {
                patch.insert(key, Tree::Null);
            }
        }
        if patch.as_map().is_none_or(|m| m.is_empty()) {
            return true;
        }
        let mut body = Tree::map();
        body.set("metadata.uid", uid.as_str());
        body.insert("status", patch);
        match write::merge_status(&self.ctx.shared.api, self.key.clone(), body).await {
            Ok(written) => {
                if let Some(object) = written.object {
                    self.note_stored(&object);
                }
                true
            }
            Err(failure) if failure.status.is_not_found() => {
                // The watch will say so; nothing can be written until then.
                true
            }
            Err(failure) => {
                tracing::warn!(pod = %self.key, error = %failure.status, "the pod's status cannot be written");
                self.retry_soon();
                false
            }
        }
    }

    fn note_stored(&mut self, object: &Object) {
        if object.head.revision >= self.stored.1 {
            self.stored = stored(object);
        }
    }

    /// Which object has the pod's status, and what that has.
    fn note_in_api(&mut self, update: &Update) {
        match update.in_api() {
            Some(object) if self.in_api.as_ref() == Some(&object.head.uid) => self.note_stored(object),
            other => {
                self.in_api = other.map(|object| object.head.uid.clone());
                self.stored = other.map(|object| stored(object)).unwrap_or_default();
            }
        }
    }

    fn retry_soon(&mut self) {
        self.retry_at = Some(self.ctx.shared.clock.now() + RETRY);
    }

    async fn delete(&mut self) {
        let outcome = write::delete_now(&self.ctx.shared.api, self.key.clone(), self.ctx.uid()).await;
        match outcome {
            Ok(_) => self.deleted = true,
            Err(failure) if failure.status.is_not_found() || failure.status.is_conflict() => self.deleted = true,
            Err(failure) => {
                tracing::warn!(pod = %self.key, error = %failure.status, "the pod cannot be deleted");
                self.retry_soon();
            }
        }
    }

    /// Waits until something comes and notes it. Whether it is worth a new plan: the next good answer of a probe, of which there are hundreds
    /// a second on a full node, is not.
    async fn wait(&mut self, wake_at: Option<Timestamp>) -> bool {
        let shared = self.ctx.shared.clone();
        let sleep = async {
            match wake_at {
                Some(at) => shared.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            match &mut self.hold {
                Some((_, changes)) => changes.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            seen = self.updates.changed() => match seen {
                Ok(()) => self.note_update().await,
                // The agent is stopping: the task will be dropped.
                Err(_) => std::future::pending().await,
            },
            Some(message) = self.inbox.recv() => {
                let mut matters = self.handle(message);
                while let Ok(more) = self.inbox.try_recv() {
                    matters |= self.handle(more);
                }
                return matters;
            }
            () = changed => self.refresh_volumes().await,
            Ok(()) = self.freed.changed(), if self.memory.resize_pending_since().is_some() => {
                self.ask_for_resize().await;
            }
            () = sleep => {
                let now = shared.clock.now();
                if self.refresh_times().any(|at| now >= at) {
                    self.refresh_volumes().await;
                }
            }
        }
        true
    }

    async fn note_update(&mut self) {
        let update = self.updates.borrow_and_update().clone();
        self.gone |= update.gone;
        let mut pod = view(&update);
        if self.gone && !pod.is_terminating() {
            // It went without a word: end it with its own grace.
            let mut ended = Pod::clone(&pod);
            ended.metadata.deletion_timestamp = Some(self.ctx.shared.clock.now());
            pod = Arc::new(ended);
        }
        self.note_in_api(&update);
        // What downwardAPI volumes tell of.
        let (new, old) = (&pod.metadata, &self.ctx.pod.metadata);
        let told = new.labels == old.labels && new.annotations == old.annotations && new.generation == old.generation;
        self.memory.note_changed(&self.desired, &pod);
        self.ctx.pod = Arc::new(self.memory.allocated(&pod));
        self.desired = pod;
        self.note_generation().await;
        if !told && !self.ctx.pod.is_terminating() {
            self.refresh_volumes().await;
        }
    }

    /// When volumes are to be written anew though no object changes: a token gets old, or the last time failed.
    fn refresh_times(&self) -> impl Iterator<Item = Timestamp> {
        let old = self.hold.as_ref().and_then(|(reader, _)| reader.refresh_at());
        [old, self.refresh_again_at].into_iter().flatten()
    }

    async fn refresh_volumes(&mut self) {
        let Some(reader) = self.reader() else { return };
        if self.sandbox.is_none() {
            return;
        }
        self.refresh_again_at = None;
        if let Err(error) = volumes::refresh(&self.ctx, &reader, &self.ips()).await {
            tracing::debug!(pod = %self.key, error, "volumes were not refreshed");
            self.refresh_again_at = Some(self.ctx.shared.clock.now() + REFRESH_RETRY);
        }
    }

    /// Notes a message; whether it changes anything.
    fn handle(&mut self, message: Message) -> bool {
        let now = self.ctx.shared.clock.now();
        match message {
            Message::Sandbox(outcome) => {
                self.sandbox_starting = false;
                match outcome {
                    Ok(sandbox) => {
                        self.memory.note_sandbox_made();
                        self.sandbox = Some(sandbox);
                    }
                    Err(error) => {
                        tracing::warn!(pod = %self.key, error, "no sandbox");
                        self.sandbox = None;
                        self.memory.note_sandbox_failure(now);
                    }
                }
            }
            Message::Container(seen) => {
                // Two looks may come in the wrong order: an end is final.
                let ended = self.containers.get(&seen.id).is_some_and(|c| c.exit_code().is_some());
                if self.tearing_down || (ended && seen.exit_code().is_none()) {
                    return false;
                }
                if !seen.is_running() {
                    self.note_end(&seen.id, &seen.name, now);
                }
                self.containers.insert(seen.id.clone(), *seen);
            }
            Message::Exited(id) => {
                if let Some(name) = self.containers.get(&id).map(|container| container.name.clone()) {
                    self.note_end(&id, &name, now);
                }
                self.kills.remove(&id);
                let lost = self.containers.get_mut(&id).filter(|c| c.is_running());
                if let Some(container) = lost {
                    // The shim has gone and the runtime could not say more.
                    let Run::Running { started_at } = container.run else { return false };
                    container.run = Run::Exited {
                        exit_code: 255,
                        signal: 0,
                        oom_killed: false,
                        started_at: Some(started_at),
                        finished_at: now,
                    };
                }
            }
            Message::Progress(name, text) => self.memory.note_progress(&name, text),
            Message::Started(name, outcome) => {
                self.starting.remove(&name);
                self.replaced.remove(&name);
                match outcome {
                    Ok(()) => self.memory.note_started(&name),
                    Err(failure) => self.memory.note_start_failure(&name, failure, now),
                }
            }
            Message::Resized(done, error) => {
                let event = self.memory.note_resized(done, error.as_deref(), &self.ctx.pod, now);
                if let Some(event) = event {
                    self.ctx.event(&event.container, event.warning, event.reason, event.message);
                }
            }
            Message::Removed(id) => drop(self.containers.remove(&id)),
            Message::Probe { id, container, kind, answer } => {
                return self.note_probe(&id, &container, kind, &answer);
            }
            Message::Evict(eviction) => {
                if self.memory.lifecycle() < Lifecycle::Terminated {
                    self.ctx.event("", true, eviction.reason, &eviction.message);
                    self.memory.evict(&eviction);
                }
            }
            Message::ShutDown { grace_seconds } => {
                if self.memory.lifecycle() < Lifecycle::Terminated {
                    self.memory.shut_down(grace_seconds);
                }
            }
            Message::TornDown(outcome) => {
                self.tearing_down = false;
                match outcome {
                    Ok(()) => {
                        self.torn_down = true;
                        self.containers.clear();
                        self.sandbox = None;
                        self.hold = None;
                    }
                    Err(error) => {
                        tracing::warn!(pod = %self.key, error, "the pod's things cannot be taken away yet");
                        self.ctx.event("", true, "FailedKillPod", format!("error killing pod: {error}"));
                        self.retry_soon();
                    }
                }
            }
        }
        true
    }

    /// Notes an outcome of a probe. Whether its verdict changes.
    fn note_probe(&mut self, id: &str, container: &str, kind: ProbeKind, answer: &Answer) -> bool {
        if !self.probes.contains_key(&(id.to_owned(), kind)) {
            return false;
        }
        if let Some((reason, message)) = answer.event(kind) {
            self.ctx.event(container, true, reason, message);
        }
        if let Answer::Error(_) = answer {
            return false;
        }
        let ok = answer.passes();
        self.ctx.shared.probes.note(&self.ctx.pod, container, kind, ok);
        let spec = container_of(&self.ctx.pod, container);
        spec.and_then(|c| kind.of(c)).is_some_and(|probe| self.memory.note_probe(id, kind, probe, ok))
    }
}

/// The status that an object has in the API, and at which revision.
fn stored(object: &Object) -> (Tree, Revision) {
    (object.to_tree().get("status").cloned().unwrap_or_default(), object.head.revision)
}

fn view(update: &Update) -> Arc<Pod> {
    update.object.view::<Pod>().unwrap_or_else(|error| {
        tracing::error!(%error, "a pod cannot be read");
        Arc::new(Pod::default())
    })
}
