//! Watch.
//!
//! Upstream: `apiserver/pkg/storage/cacher`. A watch begins in one of three ways: at a revision (changes after it), from now
//! with the present state as ADDED events first (no revision, or `0`), or as a streamed list (`sendInitialEvents`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use corten_auth::{Attributes, User};
use corten_base::{BoxFuture, Clock, Revision};
use corten_cache::{Seen, Watcher};
use corten_kinds::Kind;
use corten_object::{Object, Status};

use super::{ListRequest, RevisionMatch};
use crate::core::{Core, attributes};
use crate::flow::Held;

/// How often a quiet watch that wants bookmarks gets one (upstream: about a minute).
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchStart {
    /// With the present state as ADDED events, then (for who wants bookmarks) one that says so: a streamed list.
    State(RevisionMatch),
    /// With what comes from now on.
    Now(RevisionMatch),
    /// With what came after a revision, which may be one that is still to come.
    After(Revision),
}

/// What a watch asks for.
#[derive(Debug, Clone)]
pub(crate) struct WatchRequest {
    /// What it selects.
    pub list: ListRequest,
    pub start: WatchStart,
    pub bookmarks: bool,
    /// When it ends by itself.
    pub timeout: Option<Duration>,
}

/// What a watcher is sent.
pub(crate) enum WatchItem {
    /// An object of the state at the beginning.
    Initial(Arc<Object>),
    /// A change.
    Change(Seen),
    /// Nothing has happened up to this revision; `true` ends the initial events.
    Bookmark(Revision, bool),
    /// The watch is over; list again.
    Error(Status),
}

/// A running watch.
pub(crate) struct Watching {
    watcher: Watcher,
    initial: VecDeque<Arc<Object>>,
    /// The bookmark that ends the initial events.
    initial_end: Option<Revision>,
    bookmarks: bool,
    /// Changes up to here are of no account: a client may begin at a revision that is still to come.
    after: Revision,
    clock: Arc<dyn Clock>,
    deadline: BoxFuture<'static, ()>,
    next_bookmark: BoxFuture<'static, ()>,
    bookmarked: Revision,
    over: bool,
    /// Its seats until its beginning is sent.
    held: Option<Held>,
}

impl Core {
    /// Begins a watch.
    pub async fn watch(&self, user: &User, kind: &Arc<Kind>, watch: &WatchRequest) -> Result<Watching, Status> {
        let list = &watch.list;
        let name = list.fields.exact("metadata.name").unwrap_or_default();
        let about = attributes(user, "watch", kind, (&list.namespace, name, ""));
        self.authorize(&Attributes { fields: &list.fields.terms, ..about }).await?;
        let filter = self.filter(kind, list)?;
        let (mut initial, mut initial_end) = (VecDeque::new(), None);
        let after = match watch.start {
            WatchStart::After(revision) => revision,
            WatchStart::Now(wanted) => {
                self.wait_for(wanted).await?;
                self.cache.revision()
            }
            WatchStart::State(wanted) => {
                self.wait_for(wanted).await?;
                let listed = self.cache.list(&filter);
                initial.extend(listed.items);
                initial_end = watch.bookmarks.then_some(listed.revision);
                listed.revision
            }
        };
        let watcher = self.cache.watch(filter, after).map_err(|gone| Status::expired(gone.to_string()))?;
        let deadline: BoxFuture<'static, ()> = match watch.timeout {
            Some(timeout) => self.clock.sleep(timeout),
            None => Box::pin(std::future::pending()),
        };
        Ok(Watching {
            watcher,
            initial,
            initial_end,
            bookmarks: watch.bookmarks,
            after,
            clock: self.clock.clone(),
            deadline,
            next_bookmark: self.clock.sleep(BOOKMARK_EVERY),
            bookmarked: after,
            over: false,
            held: None,
        })
    }
}

impl Watching {
    /// Gives up the seats as soon as what it begins with is on its way.
    pub fn holding(mut self, held: Held) -> Watching {
        self.held = Some(held);
        self.begun();
        self
    }

    fn begun(&mut self) {
        if self.initial.is_empty()
            && self.initial_end.is_none()
            && let Some(held) = &mut self.held
        {
            held.begun();
        }
    }

    /// What it begins with, if that is not sent yet.
    fn first(&mut self) -> Option<WatchItem> {
        let item = match self.initial.pop_front() {
            Some(object) => WatchItem::Initial(object),
            None => {
                let revision = self.initial_end.take()?;
                self.bookmarked = revision;
                WatchItem::Bookmark(revision, true)
            }
        };
        self.begun();
        Some(item)
    }

    /// What comes next; `None` when the watch has ended. Nothing is lost when this is dropped.
    pub async fn next(&mut self) -> Option<WatchItem> {
        if self.over {
            return None;
        }
        if let Some(first) = self.first() {
            return Some(first);
        }
        loop {
            tokio::select! {
                biased;
                seen = self.watcher.next() => {
                    if !matches!(&seen, Ok(seen) if seen.revision() <= self.after) {
                        return Some(self.item(seen));
                    }
                }
                () = &mut self.deadline => {
                    self.over = true;
                    return self.bookmark();
                }
                () = &mut self.next_bookmark => {
                    self.next_bookmark = self.clock.sleep(BOOKMARK_EVERY);
                    if let Some(bookmark) = self.bookmark() {
                        return Some(bookmark);
                    }
                }
            }
        }
    }

    /// What is ready without waiting.
    pub fn try_next(&mut self) -> Option<WatchItem> {
        if self.over {
            return None;
        }
        if let Some(first) = self.first() {
            return Some(first);
        }
        loop {
            match self.watcher.try_next() {
                Ok(None) => return None,
                Ok(Some(seen)) if seen.revision() <= self.after => {}
                Ok(Some(seen)) => return Some(self.item(Ok(seen))),
                Err(gone) => return Some(self.item(Err(gone))),
            }
        }
    }

    fn item(&mut self, seen: Result<Seen, corten_cache::Gone>) -> WatchItem {
        match seen {
            Ok(seen) => WatchItem::Change(seen),
            Err(gone) => {
                self.over = true;
                WatchItem::Error(Status::expired(gone.to_string()))
            }
        }
    }

    /// A bookmark, if one is wanted and there is something new to say.
    fn bookmark(&mut self) -> Option<WatchItem> {
        let revision = self.watcher.progress().ok().flatten()?;
        if !self.bookmarks || revision <= self.bookmarked {
            return None;
        }
        self.bookmarked = revision;
        Some(WatchItem::Bookmark(revision, false))
    }
}
