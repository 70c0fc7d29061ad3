//! The trait that every backend implements.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};

use crate::{Batch, Changes, Got, KeyRange, Page, Result, Revision};

/// A revisioned, ordered map from key to bytes. Used as `Arc<dyn Store>`.
///
/// What every backend promises (and the conformance suite checks):
/// - Commits are atomic and totally ordered; the n-th changing commit of a store has revision `n + 1`.
/// - A commit is answered only when it is as durable as the backend can make it; from then on every read shows it.
/// - Dropping a future does not undo what it began: a commit whose future is dropped may still happen.
/// - Futures need no particular executor.
pub trait Store: Send + Sync + 'static {
    /// The newest value of `key`.
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Got>>;

    /// The entries of `range` in key order, as of revision `at` (`None`: now), at most `limit` of them (0: all).
    ///
    /// Errors: `Compacted` if `at` is before the compacted revision, `Future` if it is not reached yet.
    fn scan(&self, range: KeyRange, at: Option<Revision>, limit: usize) -> BoxFuture<'_, Result<Page>>;

    /// Checks all preconditions, then applies all writes at one new revision, which is returned.
    ///
    /// A batch that changes nothing (no writes, or only deletions of absent keys) takes no revision; the answer is then
    /// the current one. Errors: `Conflict` (the first precondition that failed), `InvalidBatch`, `DiskFull` — all with
    /// nothing written — and `OutcomeUnknown`.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision>>;

    /// All changes after revision `after`, in order, without a gap, and then every change as it is committed.
    ///
    /// Errors, at once or later from the stream: `Compacted` if changes after `after` are gone, `Future` if `after` is not
    /// reached yet.
    fn watch(&self, after: Revision) -> BoxFuture<'_, Result<Watch>>;

    /// Forgets history: afterwards, reads at and watches from revisions before `before` are `Compacted`. What is current
    /// at `before` stays readable. Compacting to an already compacted revision does nothing. Error: `Future`.
    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<()>>;

    /// The revision of the newest commit that is visible to all readers.
    fn current_revision(&self) -> BoxFuture<'_, Result<Revision>>;

    /// The oldest revision that can still be read; zero if nothing was ever compacted.
    fn compacted_revision(&self) -> BoxFuture<'_, Result<Revision>>;
}

/// A stream of changes in revision order. After an error it ends.
pub struct Watch {
    stream: BoxStream<'static, Result<Arc<Changes>>>,
    failed: bool,
}

impl Watch {
    pub fn new(stream: impl Stream<Item = Result<Arc<Changes>>> + Send + 'static) -> Watch {
        Watch { stream: stream.boxed(), failed: false }
    }

    /// The next revision's changes, as soon as there are any. `None`: the stream ended, with an error before or because
    /// the store was closed.
    pub async fn recv(&mut self) -> Option<Result<Arc<Changes>>> {
        self.next().await
    }
}

impl Stream for Watch {
    type Item = Result<Arc<Changes>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let item = futures::ready!(self.stream.poll_next_unpin(cx));
        self.failed = matches!(item, Some(Err(_)));
        Poll::Ready(item)
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("failed", &self.failed).finish_non_exhaustive()
    }
}
