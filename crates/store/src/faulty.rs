//! A wrapper that makes a store fail on purpose, reproducibly: by script, by seed or by hand. For tests and the simulator.
//!
//! It knows no clock: a delayed watch is one that stays pending for some polls, or until it is released.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use futures::future::{BoxFuture, FutureExt};

use crate::{Batch, Changes, Conflict, Error, Got, KeyRange, Page, Result, Revision, Store, Watch};

/// What happens to a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// Answered `Conflict` on its first precondition, whatever the store holds. Batches without one are let through.
    Conflict,
    /// Answered `OutcomeUnknown`, and not done.
    UnknownLost,
    /// Answered `OutcomeUnknown`, but done.
    UnknownDone,
    /// Answered `DiskFull`, and not done.
    DiskFull,
}

/// What happens to one revision's changes on one watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFault {
    /// Shown only after this many polls more.
    Delay { polls: u32 },
    /// The watch ends with `Compacted` in its place.
    Compacted,
}

/// Decides about faults. It must be deterministic; calls come in the order of the commits and of the polls.
pub trait FaultPlan: Send {
    /// The `n`-th commit (from 0) is about to be done.
    fn commit(&mut self, n: u64, batch: &Batch) -> Option<CommitFault>;
    /// A watch is about to show `revision`.
    fn watch(&mut self, revision: Revision) -> Option<WatchFault>;
}

/// Faults at given places: commits by number (from 0), watches by revision (each strikes the first watch that comes to it).
#[derive(Clone, Debug, Default)]
pub struct Scripted {
    pub commits: BTreeMap<u64, CommitFault>,
    pub watches: BTreeMap<Revision, WatchFault>,
}

impl FaultPlan for Scripted {
    fn commit(&mut self, n: u64, _batch: &Batch) -> Option<CommitFault> {
        self.commits.remove(&n)
    }

    fn watch(&mut self, revision: Revision) -> Option<WatchFault> {
        self.watches.remove(&revision)
    }
}

/// Faults by chance from a seed. Rates are per thousand.
#[derive(Clone, Debug)]
pub struct Seeded {
    state: u64,
    pub conflict_permille: u32,
    pub unknown_permille: u32,
    pub delay_permille: u32,
    pub compacted_permille: u32,
    /// The longest delay of a watch.
    pub delay_polls_max: u32,
}

impl Seeded {
    /// Some of everything.
    pub fn new(seed: u64) -> Seeded {
        Seeded {
            state: seed,
            conflict_permille: 20,
            unknown_permille: 10,
            delay_permille: 100,
            compacted_permille: 2,
            delay_polls_max: 20,
        }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn strikes(&mut self, permille: u32) -> bool {
        self.next() % 1000 < u64::from(permille)
    }
}

impl FaultPlan for Seeded {
    fn commit(&mut self, _n: u64, _batch: &Batch) -> Option<CommitFault> {
        if self.strikes(self.conflict_permille) {
            return Some(CommitFault::Conflict);
        }
        if self.strikes(self.unknown_permille) {
            let done = self.next() & 1 == 1;
            return Some(if done { CommitFault::UnknownDone } else { CommitFault::UnknownLost });
        }
        None
    }

    fn watch(&mut self, _revision: Revision) -> Option<WatchFault> {
        if self.strikes(self.compacted_permille) {
            return Some(WatchFault::Compacted);
        }
        if self.strikes(self.delay_permille) {
            let polls = 1 + (self.next() % u64::from(self.delay_polls_max.max(1))) as u32;
            return Some(WatchFault::Delay { polls });
        }
        None
    }
}

/// A store that fails as planned. Clones share it.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    faults: Arc<Mutex<Faults>>,
}

struct Faults {
    plan: Box<dyn FaultPlan>,
    commits: u64,
    held: bool,
    waiting: Vec<Waker>,
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn Store>, plan: impl FaultPlan + 'static) -> FaultyStore {
        let faults = Faults { plan: Box::new(plan), commits: 0, held: false, waiting: Vec::new() };
        FaultyStore { inner, faults: Arc::new(Mutex::new(faults)) }
    }

    /// From now on, watches show nothing.
    pub fn hold_watches(&self) {
        lock(&self.faults).held = true;
    }

    /// Lets the watches show what was held back, and go on.
    pub fn release_watches(&self) {
        let mut faults = lock(&self.faults);
        faults.held = false;
        faults.waiting.drain(..).for_each(Waker::wake);
    }

    async fn commit_with(&self, batch: Batch, fault: CommitFault) -> Result<Revision> {
        match fault {
            CommitFault::Conflict => {
                let Some(compare) = batch.compares.first() else { return self.inner.commit(batch).await };
                let entry = self.inner.get(&compare.key).await?.entry;
                let current = entry.map_or(Revision::ZERO, |entry| entry.mod_revision);
                Err(Error::Conflict(Conflict { key: compare.key.clone(), current }))
            }
            CommitFault::UnknownLost => Err(Error::OutcomeUnknown("injected; it was not done".into())),
            CommitFault::UnknownDone => {
                self.inner.commit(batch).await?;
                Err(Error::OutcomeUnknown("injected; it was done".into()))
            }
            CommitFault::DiskFull => Err(Error::DiskFull { path: "injected".into() }),
        }
    }
}

fn lock(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    faults.lock().expect("a fault plan does not panic")
}

impl Store for FaultyStore {
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Got>> {
        self.inner.get(key)
    }

    fn scan(&self, range: KeyRange, at: Option<Revision>, limit: usize) -> BoxFuture<'_, Result<Page>> {
        self.inner.scan(range, at, limit)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision>> {
        let fault = {
            let mut faults = lock(&self.faults);
            let n = faults.commits;
            faults.commits += 1;
            faults.plan.commit(n, &batch)
        };
        match fault {
            None => self.inner.commit(batch),
            Some(fault) => self.commit_with(batch, fault).boxed(),
        }
    }

    fn watch(&self, after: Revision) -> BoxFuture<'_, Result<Watch>> {
        async move {
            let inner = self.inner.watch(after).await?;
            Ok(Watch::new(FaultyWatch { inner, faults: self.faults.clone(), next: None, delay_polls: 0 }))
        }
        .boxed()
    }

    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<()>> {
        self.inner.compact(before)
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision>> {
        self.inner.current_revision()
    }

    fn compacted_revision(&self) -> BoxFuture<'_, Result<Revision>> {
        self.inner.compacted_revision()
    }
}

struct FaultyWatch {
    inner: Watch,
    faults: Arc<Mutex<Faults>>,
    /// What is shown next, once the delay is over.
    next: Option<Arc<Changes>>,
    delay_polls: u32,
}

impl Stream for FaultyWatch {
    type Item = Result<Arc<Changes>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.next.is_none() {
            let changes = match futures::ready!(Pin::new(&mut this.inner).poll_next(cx)) {
                Some(Ok(changes)) => changes,
                end => return Poll::Ready(end),
            };
            match lock(&this.faults).plan.watch(changes.revision) {
                Some(WatchFault::Compacted) => {
                    let compacted = changes.revision;
                    return Poll::Ready(Some(Err(Error::Compacted {
                        requested: Revision(compacted.0 - 1),
                        compacted,
                    })));
                }
                Some(WatchFault::Delay { polls }) => this.delay_polls = polls,
                None => {}
            }
            this.next = Some(changes);
        }
        if this.delay_polls > 0 {
            this.delay_polls -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut faults = lock(&this.faults);
        if faults.held {
            faults.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(this.next.take().map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;
    use futures::executor::block_on;

    fn store(plan: impl FaultPlan + 'static) -> FaultyStore {
        FaultyStore::new(Arc::new(MemoryStore::new()), plan)
    }

    #[test]
    fn scripted_commit_faults_strike_once_and_do_what_they_say() {
        let commits = BTreeMap::from([
            (0, CommitFault::Conflict),
            (1, CommitFault::UnknownLost),
            (2, CommitFault::UnknownDone),
            (3, CommitFault::DiskFull),
        ]);
        let store = store(Scripted { commits, ..Scripted::default() });
        block_on(async {
            let create = || Batch::create("k", "v");
            assert_eq!(store.commit(create()).await.unwrap_err().conflict().unwrap().current, Revision::ZERO);
            assert!(matches!(store.commit(create()).await, Err(Error::OutcomeUnknown(_))));
            assert!(store.get(b"k").await.unwrap().entry.is_none());
            assert!(matches!(store.commit(create()).await, Err(Error::OutcomeUnknown(_))));
            assert!(store.get(b"k").await.unwrap().entry.is_some());
            assert!(matches!(store.commit(Batch::new().put("k", "w")).await, Err(Error::DiskFull { .. })));
            assert_eq!(store.commit(Batch::new().put("k", "w")).await.unwrap(), Revision(3));
        });
    }

    #[test]
    fn held_and_delayed_watches_lose_nothing() {
        let watches =
            BTreeMap::from([(Revision(2), WatchFault::Delay { polls: 3 }), (Revision(4), WatchFault::Compacted)]);
        let store = store(Scripted { watches, ..Scripted::default() });
        block_on(async {
            let mut watch = store.watch(Revision::EMPTY).await.unwrap();
            for n in 0..3 {
                store.commit(Batch::new().put("k", n.to_string())).await.unwrap();
            }
            assert_eq!(watch.recv().await.unwrap().unwrap().revision, Revision(2));
            store.hold_watches();
            assert!(watch.recv().now_or_never().is_none());
            store.release_watches();
            assert_eq!(watch.recv().await.unwrap().unwrap().revision, Revision(3));
            assert!(matches!(watch.recv().await, Some(Err(Error::Compacted { .. }))));
            assert!(watch.recv().await.is_none());
        });
    }

    #[test]
    fn a_seed_gives_the_same_faults_every_time() {
        let faults = |seed| {
            let mut plan = Seeded::new(seed);
            (0..1000).map(|n| plan.commit(n, &Batch::new())).collect::<Vec<_>>()
        };
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
        assert!(faults(7).iter().flatten().count() > 5);
    }
}
