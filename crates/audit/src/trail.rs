//! The record of the request that is being answered.
//!
//! Upstream keeps it in the request's context (`apiserver/pkg/audit/context.go`); here it is the task's own. Nothing is done
//! where no trail is, and nothing of an object is looked at where the policy does not ask for it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corten_auth::{Attributes, User};
use corten_base::Timestamp;
use corten_object::{Reason, Status};
use corten_tree::{Tree, tree};
use futures::FutureExt as _;

use crate::backend::Backends;
use crate::event::{Event, ObjectRef, Stage};
use crate::policy::{Level, Ruling};

/// Letters of a user agent that are kept.
const USER_AGENT_MAX: usize = 1024;

tokio::task_local! {
    static CURRENT: Arc<Trail>;
}

/// What is known of a request when it comes.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The request's id.
    pub id: String,
    /// When it came.
    pub received: Timestamp,
    /// Path and query.
    pub uri: String,
    /// Where it came from, the last one last.
    pub source_ips: Vec<String>,
    /// The client's name for itself.
    pub user_agent: String,
    /// Whether it is made to last: then there is an event when its answer begins, and the last one when it ends.
    pub long_running: bool,
}

/// The record of one request. Its end, when nobody holds it any more, is the end of the request's answer.
pub struct Trail {
    backends: Arc<Backends>,
    long_running: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the policy says; `None` until the caller is known.
    ruling: Option<Ruling>,
    event: Event,
    started: bool,
    over: bool,
}

impl Trail {
    /// Begins the record of a request.
    pub fn new(backends: &Arc<Backends>, asked: Asked) -> Arc<Trail> {
        backends.count_live(1);
        let mut user_agent = asked.user_agent;
        if user_agent.len() > USER_AGENT_MAX {
            let cut = (0..=USER_AGENT_MAX).rev().find(|at| user_agent.is_char_boundary(*at)).unwrap_or(0);
            user_agent.truncate(cut);
            user_agent.push_str("...TRUNCATED");
        }
        let event = Event {
            id: asked.id,
            received: asked.received,
            uri: asked.uri,
            source_ips: asked.source_ips,
            user_agent,
            ..Event::default()
        };
        let state = Mutex::new(State { event, ..State::default() });
        Arc::new(Trail { backends: backends.clone(), long_running: asked.long_running, state })
    }

    /// Answers the request with this as its record, up to the last event of a request that is not made to last.
    pub async fn scope<T>(self: Arc<Trail>, answering: impl Future<Output = T>, code: impl Fn(&T) -> u16) -> T {
        let answered = AssertUnwindSafe(CURRENT.scope(self.clone(), answering)).catch_unwind().await;
        match answered {
            Ok(answered) => {
                self.answered(code(&answered)).await;
                answered
            }
            Err(panic) => {
                let said = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
                let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
                self.panicked(&said.unwrap_or_default()).await;
                std::panic::resume_unwind(panic)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller is known: the policy decides, and the first event is made. False if the request must not go on.
    pub async fn decided(&self, asked: &Attributes<'_>, version: &str) -> bool {
        let event = {
            let mut state = self.state();
            let ruling = self.backends.ruling(asked);
            state.ruling = Some(ruling);
            let event = &mut state.event;
            event.level = ruling.level;
            event.verb = asked.verb.to_owned();
            event.user = asked.user.clone();
            if asked.path.is_empty() {
                event.object = Some(ObjectRef {
                    resource: asked.resource.into(),
                    namespace: asked.namespace.into(),
                    name: asked.name.into(),
                    group: asked.group.into(),
                    version: version.into(),
                    subresource: asked.subresource.into(),
                    ..ObjectRef::default()
                });
            }
            at_stage(&mut state, Stage::RequestReceived, None)
        };
        let recorded = match event {
            Some(event) => self.backends.record(&event).await,
            None => true,
        };
        if !recorded {
            self.backends.metrics.rejected();
            self.state().over = true;
        }
        recorded
    }

    /// The caller could not be found out: the one event of such a request (`filters/authn_audit.go`).
    pub async fn unauthenticated(&self, asked: &Attributes<'_>, version: &str, attempted: &[&str]) {
        let said = match attempted {
            [] => "Authentication failed, no credentials provided".to_owned(),
            some => format!("Authentication failed, attempted: {}", some.join(", ")),
        };
        let event = {
            let mut state = self.state();
            let ruling = self.backends.ruling(asked);
            state.ruling = Some(ruling);
            state.event.level = ruling.level;
            state.event.verb = asked.verb.to_owned();
            if asked.path.is_empty() {
                state.event.object = Some(ObjectRef {
                    resource: asked.resource.into(),
                    namespace: asked.namespace.into(),
                    name: asked.name.into(),
                    group: asked.group.into(),
                    version: version.into(),
                    subresource: asked.subresource.into(),
                    ..ObjectRef::default()
                });
            }
            state.event.status = Some(tree!({"metadata": {}, "message": said, "code": 401}));
            let event = at_stage(&mut state, Stage::ResponseStarted, Some(self.backends.now()));
            state.over = true;
            event
        };
        if let Some(event) = event {
            self.backends.record(&event).await;
        }
    }

    /// The answer is there, or its head is.
    async fn answered(&self, code: u16) {
        let stage = if self.long_running { Stage::ResponseStarted } else { Stage::ResponseComplete };
        let event = {
            let mut state = self.state();
            set_code(&mut state.event, code);
            state.started = true;
            let event = at_stage(&mut state, stage, Some(self.backends.now()));
            state.over |= !self.long_running;
            event
        };
        if let Some(event) = event {
            self.backends.record(&event).await;
        }
    }

    async fn panicked(&self, said: &str) {
        let event = {
            let mut state = self.state();
            state.event.status = Some(tree!({"metadata": {}, "status": "Failure",
                "message": (format!("APIServer panic'd: {said}")), "reason": (Reason::InternalError.as_str()), "code": 500}));
            let event = at_stage(&mut state, Stage::Panic, Some(self.backends.now()));
            state.over = true;
            event
        };
        if let Some(event) = event {
            self.backends.record(&event).await;
        }
    }
}

/// The event of a stage, if there is one.
fn at_stage(state: &mut State, stage: Stage, now: Option<Timestamp>) -> Option<Event> {
    let ruling = state.ruling.filter(|r| r.level != Level::None && !r.omit[stage as usize])?;
    if state.over || ruling.level == Level::None {
        return None;
    }
    state.event.stage = stage;
    state.event.reached = now.unwrap_or(state.event.received);
    Some(state.event.clone())
}

fn set_code(event: &mut Event, code: u16) {
    event.status.get_or_insert_with(|| tree!({"metadata": {}})).insert("code", i64::from(code));
}

/// Nobody holds the record of a lasting request any more: its answer has ended.
impl Drop for Trail {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.started && !state.over {
            let event = at_stage(state, Stage::ResponseComplete, Some(self.backends.now()));
            if let Some(event) = event {
                self.backends.record_later(event);
            }
        }
        self.backends.count_live(-1);
    }
}

/// The record of the request that this task answers: who goes on with the answer elsewhere holds it there.
pub fn current() -> Option<Arc<Trail>> {
    CURRENT.try_with(Arc::clone).ok()
}

fn note(level: Level, note: impl FnOnce(&mut State)) {
    let _ = CURRENT.try_with(|trail| {
        let mut state = trail.state();
        // Before the policy was asked, everything may yet be wanted.
        if state.ruling.is_none_or(|r| r.level >= level && r.level != Level::None) {
            note(&mut state);
        }
    });
}

/// Whether this much is recorded of the request.
pub fn wants(level: Level) -> bool {
    let mut wanted = false;
    note(level, |state| wanted = state.ruling.is_some());
    wanted
}

/// Adds an annotation; the first value of a key stays.
pub fn annotate(key: &str, value: &str) {
    note(Level::Metadata, |state| {
        state.event.annotations.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    });
}

/// The request is answered as for this user; `constraint` is what allowed that, if it was constrained.
pub fn impersonated(user: &User, constraint: &str) {
    note(Level::Metadata, |state| {
        state.event.impersonated = Some(user.clone());
        constraint.clone_into(&mut state.event.constraint);
    });
}

/// The decoded object of the request; `written` is it as it is recorded.
pub fn request_object(object: &Tree, written: impl FnOnce() -> Tree) {
    note(Level::Metadata, |state| {
        let reference = state.event.object.get_or_insert_default();
        for (slot, path) in [
            (&mut reference.namespace, "metadata.namespace"),
            (&mut reference.name, "metadata.name"),
            (&mut reference.uid, "metadata.uid"),
            (&mut reference.resource_version, "metadata.resourceVersion"),
        ] {
            if slot.is_empty() {
                object.str_at(path).clone_into(slot);
            }
        }
        let ruling = state.ruling.unwrap_or_default();
        if ruling.level >= Level::Request && state.event.request.is_none() {
            state.event.request = Some(kept(written(), ruling));
        }
    });
}

/// The patch that the request is.
pub fn request_patch(patch: impl FnOnce() -> Option<Tree>) {
    note(Level::Request, |state| state.event.request = patch());
}

/// The answer's object.
pub fn response_object(object: impl FnOnce() -> Option<Tree>) {
    note(Level::RequestResponse, |state| {
        let ruling = state.ruling.unwrap_or_default();
        if ruling.level == Level::RequestResponse {
            state.event.response = object().map(|tree| kept(tree, ruling));
        }
    });
}

/// The answer is a Status.
pub fn response_status(status: &Status) {
    response_status_tree(&|| status.to_tree());
}

/// The answer is a Status, given as a tree.
pub fn response_status_tree(make: &dyn Fn() -> Tree) {
    note(Level::Metadata, |state| {
        let full = make();
        let mut status = tree!({"metadata": {}});
        for key in ["status", "message", "reason", "details", "code"] {
            if let Some(value) = full.get(key) {
                status.insert(key, value.clone());
            }
        }
        state.event.status = Some(status);
        if state.ruling.is_some_and(|r| r.level == Level::RequestResponse) {
            state.event.response = Some(full);
        }
    });
}

/// An object as the policy wants it kept.
fn kept(mut tree: Tree, ruling: Ruling) -> Tree {
    if !ruling.omit_managed_fields {
        return tree;
    }
    tree.remove("metadata.managedFields");
    for item in tree.get_mut("items").and_then(Tree::as_list_mut).into_iter().flatten() {
        item.remove("metadata.managedFields");
    }
    for row in tree.get_mut("rows").and_then(Tree::as_list_mut).into_iter().flatten() {
        row.remove("object.metadata.managedFields");
    }
    tree
}
