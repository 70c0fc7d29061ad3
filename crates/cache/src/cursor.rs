//! Following the changes: a cursor gives every event of its scope, a watcher what one selection sees of them.

use std::collections::VecDeque;
use std::sync::Arc;

use corten_base::Revision;
use corten_object::Object;
use tokio::sync::watch;

use crate::cache::Shared;
use crate::ring::Place;
use crate::{Event, Filter, Gone, Scope, Transition};

/// A reader's place in the ring. It holds nothing back: who is too slow gets [`Gone`] and must list again.
pub struct Cursor {
    shared: Arc<Shared>,
    scope: Scope,
    place: Place,
    moved: watch::Receiver<u64>,
}

impl Cursor {
    pub(crate) fn new(shared: Arc<Shared>, scope: Scope, after: Revision) -> Result<Cursor, Gone> {
        let moved = shared.moved(&scope);
        let place = shared.ring().place_after(&scope, after)?;
        Ok(Cursor { shared, scope, place, moved })
    }

    /// What there is now, at most `limit` events; empty if nothing is new.
    pub fn take(&mut self, limit: usize) -> Result<Vec<Arc<Event>>, Gone> {
        let (events, place) = self.shared.ring().read(&self.scope, self.place, limit)?;
        self.place = place;
        Ok(events)
    }

    /// Waits until there is something, then gives all of it, at most `limit` events. Nothing is lost when this is dropped.
    pub async fn next_batch(&mut self, limit: usize) -> Result<Vec<Arc<Event>>, Gone> {
        loop {
            self.moved.borrow_and_update();
            let events = self.take(limit.max(1))?;
            if !events.is_empty() {
                return Ok(events);
            }
            if self.moved.changed().await.is_err() {
                // The cache is gone, and with it all that could ever come.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The next event.
    pub async fn next(&mut self) -> Result<Arc<Event>, Gone> {
        let mut events = self.next_batch(1).await?;
        Ok(events.pop().expect("next_batch gives at least one"))
    }

    /// The revision up to which everything in scope has been given: what a bookmark says. While more is waiting, this is
    /// where the last batch ended.
    pub fn progress(&mut self) -> Result<Revision, Gone> {
        let (waiting, place) = self.shared.ring().read(&self.scope, self.place, 1)?;
        if waiting.is_empty() {
            self.place = place;
        }
        Ok(self.place.seen)
    }
}

/// What a watcher is shown.
#[derive(Clone, Debug)]
pub struct Seen {
    pub transition: Transition,
    /// The change itself, for its frame and its objects.
    pub event: Arc<Event>,
}

impl Seen {
    /// The object that goes with it: for `Deleted` the last state, with the event's revision.
    pub fn object(&self) -> &Arc<Object> {
        self.event.shown(self.transition)
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        self.event.revision
    }
}

/// A cursor that sees one selection.
pub struct Watcher {
    cursor: Cursor,
    filter: Filter,
    ready: VecDeque<Seen>,
}

/// How many events a watcher looks at in one go.
const LOOK_MAX: usize = 256;

impl Watcher {
    pub(crate) fn new(cursor: Cursor, filter: Filter) -> Watcher {
        Watcher { cursor, filter, ready: VecDeque::new() }
    }

    /// The next change that the selection sees. Nothing is lost when this is dropped.
    pub async fn next(&mut self) -> Result<Seen, Gone> {
        loop {
            if let Some(seen) = self.ready.pop_front() {
                return Ok(seen);
            }
            let events = self.cursor.next_batch(LOOK_MAX).await?;
            self.ready.extend(events.into_iter().filter_map(|event| {
                let transition = event.seen_by(&self.filter)?;
                Some(Seen { transition, event })
            }));
        }
    }

    /// What is ready now without waiting, if anything is.
    pub fn try_next(&mut self) -> Result<Option<Seen>, Gone> {
        loop {
            if let Some(seen) = self.ready.pop_front() {
                return Ok(Some(seen));
            }
            let events = self.cursor.take(LOOK_MAX)?;
            if events.is_empty() {
                return Ok(None);
            }
            self.ready.extend(events.into_iter().filter_map(|event| {
                let transition = event.seen_by(&self.filter)?;
                Some(Seen { transition, event })
            }));
        }
    }

    /// The revision up to which this selection has been shown everything, or `None` while changes are waiting to be taken.
    pub fn progress(&mut self) -> Result<Option<Revision>, Gone> {
        if !self.ready.is_empty() {
            return Ok(None);
        }
        self.cursor.progress().map(Some)
    }

    /// The selection.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }
}
