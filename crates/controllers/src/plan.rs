//! What a reconcile wants written, and what became of it.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use corten_object::{Object, ObjectKey, Revision, Status};
use corten_tree::{Tree, tree};

/// What the driver keeps of a key from one reconcile to the next, in memory only: what no object says and what may be forgotten
/// at a restart (upstream's controllers keep the same in maps).
pub type Kept = Arc<dyn Any + Send + Sync>;

/// What a reconcile wants.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Writes. Those of a stage happen in any order, creates with a slow start; a stage starts only when the one before has
    /// fully succeeded, else the rest is dropped.
    pub stages: Vec<Vec<Action>>,
    /// Events to record in any case.
    pub events: Vec<EventNote>,
    /// When to reconcile again although nothing has changed.
    pub requeue: Option<Duration>,
    /// Paths of the API to read once the writes are done (with their queries), at most [`ASKS_MAX`]. The key is reconciled again
    /// at once, with the answers in [`Outcome::answers`].
    pub asks: Vec<String>,
    /// What to remember of the key until its next reconcile; `None` forgets.
    pub keep: Option<Kept>,
}

/// The most paths that a plan may ask for; the rest is not read.
pub const ASKS_MAX: usize = 64;

impl Plan {
    /// Nothing to do.
    pub fn empty() -> Plan {
        Plan::default()
    }

    /// One stage.
    pub fn of(actions: Vec<Action>) -> Plan {
        let mut plan = Plan::default();
        plan.stage(actions);
        plan
    }

    /// Adds a stage unless it is empty.
    pub fn stage(&mut self, actions: impl IntoIterator<Item = Action>) {
        let actions: Vec<Action> = actions.into_iter().collect();
        if !actions.is_empty() {
            self.stages.push(actions);
        }
    }

    /// Asks to come back after `delay`, or earlier if that was asked for already.
    pub fn requeue_after(&mut self, delay: Duration) {
        self.requeue = Some(self.requeue.map_or(delay, |d| d.min(delay)));
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty() && self.events.is_empty() && self.asks.is_empty()
    }
}

/// One write, and what to tell people about it.
#[derive(Debug, Clone)]
pub struct Action {
    /// What is written.
    pub write: Write,
    /// Objects that must still have this uid and not be in deletion when the write is committed.
    pub owners_alive: Vec<(ObjectKey, String)>,
    /// Recorded when it has succeeded.
    pub done: Option<EventNote>,
    /// Recorded when it has failed for good reasons (no conflict, not gone, namespace not terminating); the failure's message
    /// is appended.
    pub failed: Option<EventNote>,
}

/// A write.
#[derive(Debug, Clone)]
pub enum Write {
    /// Makes an object of the key's kind and name.
    Create {
        /// What is made.
        key: ObjectKey,
        /// The object.
        body: Tree,
    },
    /// Replaces an object or its subresource; conditional on `metadata.resourceVersion` of the body.
    Update {
        /// What is replaced.
        key: ObjectKey,
        /// Empty, `status` or `finalize`.
        subresource: &'static str,
        /// The new state.
        body: Tree,
    },
    /// Changes an object by a merge patch; conditional on `metadata.resourceVersion` and `metadata.uid` of the patch.
    Patch {
        /// What is changed.
        key: ObjectKey,
        /// Empty or `status`.
        subresource: &'static str,
        /// The merge patch.
        patch: Tree,
        /// It must go out as a patch: the controller's role says `patch` where others' say `update`.
        as_patch: bool,
    },
    /// Deletes an object.
    Delete {
        /// What is deleted.
        key: ObjectKey,
        /// It must have this uid; empty: any.
        uid: String,
        /// It must be at this revision.
        revision: Option<Revision>,
        /// What becomes of dependents; empty: the kind's default.
        propagation: &'static str,
        /// Seconds of grace.
        grace_seconds: Option<i64>,
    },
    /// Acts on an object by creating something at its subresource (`eviction`).
    Act {
        /// On what.
        key: ObjectKey,
        /// Which subresource.
        subresource: &'static str,
        /// The body.
        body: Tree,
    },
}

impl Write {
    /// What is written to.
    pub fn key(&self) -> &ObjectKey {
        match self {
            Write::Create { key, .. }
            | Write::Update { key, .. }
            | Write::Patch { key, .. }
            | Write::Delete { key, .. }
            | Write::Act { key, .. } => key,
        }
    }

    /// What sort of write it is.
    pub fn verb(&self) -> Verb {
        match self {
            Write::Create { .. } => Verb::Create,
            Write::Update { .. } => Verb::Update,
            Write::Patch { .. } => Verb::Patch,
            Write::Delete { .. } => Verb::Delete,
            Write::Act { .. } => Verb::Act,
        }
    }
}

/// The sort of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// [`Write::Create`]
    Create,
    /// [`Write::Update`]
    Update,
    /// [`Write::Patch`]
    Patch,
    /// [`Write::Delete`]
    Delete,
    /// [`Write::Act`]
    Act,
}

impl From<Write> for Action {
    fn from(write: Write) -> Action {
        Action { write, owners_alive: Vec::new(), done: None, failed: None }
    }
}

impl Action {
    /// Makes an object. The body's metadata gets the key's name and namespace.
    pub fn create(key: ObjectKey, mut body: Tree) -> Action {
        body.set("metadata.name", key.name.as_str());
        if !key.namespace.is_empty() {
            body.set("metadata.namespace", key.namespace.as_str());
        }
        Write::Create { key, body }.into()
    }

    /// Changes an object that is still as it was read. `patch` has no metadata of its own beyond what changes.
    pub fn patch(object: &Object, patch: Tree) -> Action {
        Action::patch_subresource(object, "", patch)
    }

    /// Changes an object's status if the object is still as it was read; `status` is a merge patch of it.
    pub fn patch_status(object: &Object, status: Tree) -> Action {
        Action::patch_subresource(object, "status", tree!({ "status": (status) }))
    }

    fn patch_subresource(object: &Object, subresource: &'static str, mut patch: Tree) -> Action {
        patch.set("metadata.uid", object.head.uid.as_str());
        patch.set("metadata.resourceVersion", object.head.revision.to_string());
        Write::Patch { key: object.key(), subresource, patch, as_patch: false }.into()
    }

    /// Sends the patch as such. (Mostly an update is made of it, as upstream's controllers may update.)
    #[must_use]
    pub fn sent_as_patch(mut self) -> Action {
        if let Write::Patch { as_patch, .. } = &mut self.write {
            *as_patch = true;
        }
        self
    }

    /// Deletes an object, whatever has become of it as long as it has the same uid.
    pub fn delete(object: &Object) -> Action {
        let uid = object.head.uid.to_string();
        Write::Delete { key: object.key(), uid, revision: None, propagation: "", grace_seconds: None }.into()
    }

    /// Deletes an object with this propagation policy.
    pub fn delete_with(object: &Object, policy: &'static str) -> Action {
        let uid = object.head.uid.to_string();
        Write::Delete { key: object.key(), uid, revision: None, propagation: policy, grace_seconds: None }.into()
    }

    /// Only if this object is alive.
    #[must_use]
    pub fn while_alive(mut self, owner: &Object) -> Action {
        self.owners_alive.push((owner.key(), owner.head.uid.to_string()));
        self
    }

    /// Records an event when it has succeeded.
    #[must_use]
    pub fn on_success(mut self, note: EventNote) -> Action {
        self.done = Some(note);
        self
    }

    /// Records an event when it has failed; the failure's message follows the note's.
    #[must_use]
    pub fn on_failure(mut self, note: EventNote) -> Action {
        self.failed = Some(note);
        self
    }
}

/// Whether an event is good news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// `Normal`
    Normal,
    /// `Warning`
    Warning,
}

impl EventKind {
    /// Upstream's text.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Normal => "Normal",
            EventKind::Warning => "Warning",
        }
    }
}

/// An event to record.
#[derive(Debug, Clone)]
pub struct EventNote {
    /// What it is about.
    pub about: Arc<Object>,
    /// Good or bad.
    pub kind: EventKind,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl EventNote {
    /// A `Normal` event.
    pub fn normal(about: &Arc<Object>, reason: &'static str, message: impl Into<String>) -> EventNote {
        EventNote { about: about.clone(), kind: EventKind::Normal, reason, message: message.into() }
    }

    /// A `Warning` event.
    pub fn warning(about: &Arc<Object>, reason: &'static str, message: impl Into<String>) -> EventNote {
        EventNote { about: about.clone(), kind: EventKind::Warning, reason, message: message.into() }
    }
}

/// What became of a plan.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The writes that failed. Deleting what is gone is no failure, nor is making something in a namespace that ends.
    pub failures: Vec<Failed>,
    /// What was read at the paths that the plan asked for.
    pub answers: Vec<Answer>,
}

/// What was read at a path of the API.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The path, with its query, as it was asked for.
    pub path: String,
    /// The document, or why there is none.
    pub read: Result<Tree, Status>,
}

/// A write that failed.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The sort of write.
    pub verb: Verb,
    /// What was written to.
    pub key: ObjectKey,
    /// Why it failed.
    pub status: Status,
}

impl Outcome {
    /// What was read at this path, if it was asked for.
    pub fn answer(&self, path: &str) -> Option<&Result<Tree, Status>> {
        self.answers.iter().find(|a| a.path == path).map(|a| &a.read)
    }

    /// The first failure that is no conflict.
    pub fn first_error(&self, verb: Verb) -> Option<&Failed> {
        self.failures.iter().find(|f| f.verb == verb && !f.status.is_conflict() && !f.status.is_not_found())
    }
}
