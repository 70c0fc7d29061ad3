//! One change of one object, shared by all who watch it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use corten_base::Revision;
use corten_object::{KindId, Object};

use crate::Filter;

/// What happened to an object, as a watcher with a selector sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transition {
    /// It came into being, or into the selection.
    Added,
    /// It changed.
    Modified,
    /// It went, or left the selection.
    Deleted,
}

/// An encoding of wire frames that is worth sharing between watchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Protobuf,
}

const ENCODINGS: usize = 2;
const TRANSITIONS: usize = 3;

/// One change. Shared as `Arc<Event>`; the objects in it are the cache's own.
#[derive(Debug)]
pub struct Event {
    pub revision: Revision,
    pub kind: KindId,
    /// The object after the change; `None`: it was deleted.
    pub object: Option<Arc<Object>>,
    /// The object before the change; `None`: it was created.
    pub previous: Option<Arc<Object>>,
    /// The last state under this event's revision, as those see it whose selection it left.
    last: OnceLock<Arc<Object>>,
    /// By transition and encoding. Most events are never sent anywhere, so the slots are made when needed.
    frames: OnceLock<Box<[OnceLock<Bytes>; TRANSITIONS * ENCODINGS]>>,
}

impl Event {
    pub(crate) fn new(
        revision: Revision,
        kind: KindId,
        object: Option<Arc<Object>>,
        previous: Option<Arc<Object>>,
    ) -> Event {
        Event { revision, kind, object, previous, last: OnceLock::new(), frames: OnceLock::new() }
    }

    /// What this event is to everyone who sees all objects.
    pub fn transition(&self) -> Transition {
        match (&self.object, &self.previous) {
            (None, _) => Transition::Deleted,
            (Some(_), None) => Transition::Added,
            (Some(_), Some(_)) => Transition::Modified,
        }
    }

    /// What this event is to a watcher with this filter; `None`: nothing. An object that enters the selection is added, one
    /// that leaves it is deleted (upstream: `staging/src/k8s.io/apiserver/pkg/storage/cacher/cache_watcher.go`,
    /// `convertToWatchEvent`).
    pub fn seen_by(&self, filter: &Filter) -> Option<Transition> {
        let passes = |object: &Option<Arc<Object>>| object.as_ref().is_some_and(|object| filter.matches(object));
        match (passes(&self.object), passes(&self.previous)) {
            (true, true) => Some(Transition::Modified),
            (true, false) => Some(Transition::Added),
            (false, true) => Some(Transition::Deleted),
            (false, false) => None,
        }
    }

    /// The object that goes with a transition: the new state, or for `Deleted` the last state with this event's revision.
    pub fn shown(&self, transition: Transition) -> &Arc<Object> {
        let last = || {
            let previous = self.previous.as_ref().or(self.object.as_ref());
            Arc::new(previous.expect("an event has an object before or after").at_revision(self.revision))
        };
        match (&self.object, transition) {
            (Some(object), Transition::Added | Transition::Modified) => object,
            _ => self.last.get_or_init(last),
        }
    }

    /// The wire frame of a transition: encoded by the first watcher that needs it, shared by the others.
    pub fn frame(&self, transition: Transition, encoding: Encoding, encode: impl FnOnce(&Object) -> Bytes) -> Bytes {
        let slots = self.frames.get_or_init(Default::default);
        slots[transition as usize * ENCODINGS + encoding as usize]
            .get_or_init(|| encode(self.shown(transition)))
            .clone()
    }

    /// About how much memory this event keeps from being freed. The state before it is left out: as a rule it is the state
    /// after an earlier event.
    pub(crate) fn size_bytes(&self) -> usize {
        // Heads are not counted byte by byte; a small pod's is about this big.
        const HEAD: usize = 600;
        let object = self.object.as_ref().or(self.previous.as_ref());
        size_of::<Event>() + HEAD + object.map_or(0, |object| object.stored_len())
    }
}
