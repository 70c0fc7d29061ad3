//! The applied revision, and who waits for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use corten_base::Revision;

/// A revision that only grows (but for a reload, which may go back). Waiters are woken when theirs is reached, and in the
/// order of revision and arrival: a simulated run does not depend on chance.
pub(crate) struct Applied(Mutex<State>);

struct State {
    revision: Revision,
    waiting: BTreeMap<(Revision, u64), Waker>,
    arrivals: u64,
}

impl Applied {
    pub fn new() -> Applied {
        Applied(Mutex::new(State { revision: Revision::ZERO, waiting: BTreeMap::new(), arrivals: 0 }))
    }

    pub fn get(&self) -> Revision {
        self.lock().revision
    }

    pub fn set(&self, revision: Revision) {
        let mut state = self.lock();
        state.revision = revision;
        let later = state.waiting.split_off(&(revision, u64::MAX));
        let due = std::mem::replace(&mut state.waiting, later);
        drop(state);
        due.into_values().for_each(Waker::wake);
    }

    /// Completes once `revision` is reached.
    pub fn reached(&self, revision: Revision) -> Reached<'_> {
        Reached { applied: self, revision, place: None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Applied::reached`].
pub(crate) struct Reached<'a> {
    applied: &'a Applied,
    revision: Revision,
    place: Option<u64>,
}

impl Future for Reached<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.applied.lock();
        if state.revision >= self.revision {
            return Poll::Ready(());
        }
        let place = self.place.unwrap_or_else(|| {
            state.arrivals += 1;
            state.arrivals
        });
        state.waiting.insert((self.revision, place), context.waker().clone());
        drop(state);
        self.place = Some(place);
        Poll::Pending
    }
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.applied.lock().waiting.remove(&(self.revision, place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn waiters_are_woken_at_their_revision() {
        let applied = Applied::new();
        let mut two = Box::pin(applied.reached(Revision(2)));
        let mut three = Box::pin(applied.reached(Revision(3)));
        assert!(two.as_mut().now_or_never().is_none() && three.as_mut().now_or_never().is_none());
        applied.set(Revision(2));
        assert!(two.as_mut().now_or_never().is_some() && three.as_mut().now_or_never().is_none());
        assert_eq!(applied.lock().waiting.len(), 1);
        drop(three);
        assert!(applied.lock().waiting.is_empty());
        assert_eq!(applied.get(), Revision(2));
    }
}
