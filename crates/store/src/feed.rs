//! The newest changes in memory, shared by all watchers of an embedded store: a bounded ring that the writer fills, in order,
//! after each durable commit. A watcher that is behind the ring reads the log until it has caught up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::{Changes, Error, Result, Revision};

/// Bounds of the ring. The watch cache has its own, larger one; this only has to cover the hop to it.
const CHANGES_MAX: usize = 256;
const BYTES_MAX: usize = 2 << 20;

pub(crate) struct Feed {
    state: Mutex<State>,
    moved: watch::Sender<()>,
}

struct State {
    /// Contiguous; the last is `revision`, unless the ring is empty.
    ring: VecDeque<Arc<Changes>>,
    bytes: usize,
    revision: Revision,
    compacted: Revision,
    end: Option<Error>,
}

/// What a watcher finds when it looks for the changes after some revision.
pub(crate) enum Step {
    Wait,
    Changes(Arc<Changes>),
    /// Further back than the ring: read the log.
    Behind,
    Failed(Error),
    Closed,
}

impl Feed {
    pub(crate) fn new(revision: Revision, compacted: Revision) -> Feed {
        let state = State { ring: VecDeque::new(), bytes: 0, revision, compacted, end: None };
        Feed { state: Mutex::new(state), moved: watch::Sender::new(()) }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    pub(crate) fn revision(&self) -> Revision {
        self.lock().revision
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.lock().compacted
    }

    /// Whether changes after `after` can be watched.
    pub(crate) fn check(&self, after: Revision) -> Result<()> {
        let state = self.lock();
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        check(after, state.revision, state.compacted)
    }

    /// Why the store ended, if it has.
    pub(crate) fn end(&self) -> Option<Error> {
        self.lock().end.clone()
    }

    /// Adds the changes of a durable group of commits.
    pub(crate) fn publish(&self, group: Vec<Arc<Changes>>) {
        let Some(last) = group.last() else { return };
        let mut state = self.lock();
        state.revision = last.revision;
        for changes in group {
            state.bytes += changes.size_bytes();
            state.ring.push_back(changes);
        }
        while state.ring.len() > CHANGES_MAX || (state.bytes > BYTES_MAX && state.ring.len() > 1) {
            if let Some(oldest) = state.ring.pop_front() {
                state.bytes -= oldest.size_bytes();
            }
        }
        drop(state);
        self.moved.send_replace(());
    }

    pub(crate) fn compact(&self, before: Revision) {
        self.lock().compacted = before;
        self.moved.send_replace(());
    }

    /// Ends every watch: quietly if `why` is `Closed`, else with that error. The first reason stays.
    pub(crate) fn end_with(&self, why: Error) {
        self.lock().end.get_or_insert(why);
        self.moved.send_replace(());
    }

    pub(crate) fn step(&self, after: Revision) -> Step {
        let state = self.lock();
        match &state.end {
            Some(Error::Closed) => return Step::Closed,
            Some(why) => return Step::Failed(why.clone()),
            None => {}
        }
        if let Err(error) = check(after, state.revision, state.compacted) {
            return Step::Failed(error);
        }
        if after == state.revision {
            return Step::Wait;
        }
        match state.ring.front() {
            Some(first) if first.revision <= after.next() => {
                let index = (after.next().0 - first.revision.0) as usize;
                Step::Changes(state.ring[index].clone())
            }
            _ => Step::Behind,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the feed")
    }
}

/// Whether `requested` lies between what is compacted and what is current.
pub(crate) fn check(requested: Revision, current: Revision, compacted: Revision) -> Result<()> {
    if requested < compacted {
        return Err(Error::Compacted { requested, compacted });
    }
    if requested > current {
        return Err(Error::Future { requested, current });
    }
    Ok(())
}
