//! The memory backend: everything in maps, nothing durable. For tests and for the simulator, so it spawns nothing, knows no
//! clock and answers every call without waiting.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::future::{self, BoxFuture, FutureExt};
use futures::stream;
use tokio::sync::watch;

use crate::{
    Batch, Change, Changes, Conflict, Entry, Error, Got, KeyRange, Page, Result, Revision, Store, Watch, Write,
};

/// A store in memory. Clones share it.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Tells watchers that the revision moved (or history was compacted, or the store closed).
    moved: watch::Sender<Revision>,
}

struct State {
    revision: Revision,
    compacted: Revision,
    closed: bool,
    /// Every version of every key that is still readable, newest last; a version without a value is a deletion.
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// The changes of each revision after the compacted one.
    log: BTreeMap<Revision, Arc<Changes>>,
}

#[derive(Clone)]
struct Version {
    revision: Revision,
    value: Option<Bytes>,
    create_revision: Revision,
    version: u64,
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl MemoryStore {
    pub fn new() -> MemoryStore {
        let state = State {
            revision: Revision::EMPTY,
            compacted: Revision::ZERO,
            closed: false,
            keys: BTreeMap::new(),
            log: BTreeMap::new(),
        };
        MemoryStore {
            shared: Arc::new(Shared { state: Mutex::new(state), moved: watch::Sender::new(Revision::EMPTY) }),
        }
    }

    /// Ends all watches; every later call is answered `Closed`.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.moved.send_replace(state.revision);
    }

    fn with<T>(&self, read: impl FnOnce(&mut State) -> Result<T>) -> BoxFuture<'_, Result<T>>
    where
        T: Send + 'static,
    {
        let mut state = self.shared.lock();
        let answer = if state.closed { Err(Error::Closed) } else { read(&mut state) };
        drop(state);
        future::ready(answer).boxed()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the state")
    }
}

impl Store for MemoryStore {
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Got>> {
        self.with(|state| {
            let entry =
                state.keys.get_key_value(key).and_then(|(key, versions)| entry_at(key, versions, state.revision));
            Ok(Got { entry, revision: state.revision })
        })
    }

    fn scan(&self, range: KeyRange, at: Option<Revision>, limit: usize) -> BoxFuture<'_, Result<Page>> {
        self.with(|state| state.scan(&range, at, limit))
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision>> {
        self.with(|state| {
            let revision = state.commit(batch)?;
            self.shared.moved.send_replace(revision);
            Ok(revision)
        })
    }

    fn watch(&self, after: Revision) -> BoxFuture<'_, Result<Watch>> {
        let cursor = Cursor { shared: self.shared.clone(), after, moved: self.shared.moved.subscribe() };
        self.with(|state| {
            state.check(after)?;
            Ok(Watch::new(stream::unfold(cursor, |mut cursor| async move {
                let item = cursor.next().await?;
                Some((item, cursor))
            })))
        })
    }

    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<()>> {
        self.with(|state| {
            if before > state.revision {
                return Err(Error::Future { requested: before, current: state.revision });
            }
            state.compact(before);
            self.shared.moved.send_replace(state.revision);
            Ok(())
        })
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision>> {
        self.with(|state| Ok(state.revision))
    }

    fn compacted_revision(&self) -> BoxFuture<'_, Result<Revision>> {
        self.with(|state| Ok(state.compacted))
    }
}

impl State {
    /// Whether reads at and watches from `revision` are possible.
    fn check(&self, revision: Revision) -> Result<()> {
        if revision < self.compacted {
            return Err(Error::Compacted { requested: revision, compacted: self.compacted });
        }
        if revision > self.revision {
            return Err(Error::Future { requested: revision, current: self.revision });
        }
        Ok(())
    }

    fn scan(&self, range: &KeyRange, at: Option<Revision>, limit: usize) -> Result<Page> {
        let revision = at.unwrap_or(self.revision);
        self.check(revision)?;
        let mut page = Page { entries: Vec::new(), revision, more: false };
        if range.is_empty() {
            return Ok(page);
        }
        let end = range.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        for (key, versions) in self.keys.range::<Bytes, _>((Bound::Included(&range.start), end)) {
            let Some(entry) = entry_at(key, versions, revision) else { continue };
            if limit != 0 && page.entries.len() == limit {
                page.more = true;
                break;
            }
            page.entries.push(entry);
        }
        Ok(page)
    }

    fn commit(&mut self, batch: Batch) -> Result<Revision> {
        check_batch(&batch)?;
        for compare in &batch.compares {
            let current = self.keys.get(&compare.key).and_then(|versions| live(versions.last()));
            let current = current.map_or(Revision::ZERO, |version| version.revision);
            if current != compare.expected {
                return Err(Error::Conflict(Conflict { key: compare.key.clone(), current }));
            }
        }
        let revision = self.revision.next();
        let changes: Vec<Change> = batch.writes.into_iter().filter_map(|write| self.apply(write, revision)).collect();
        if changes.is_empty() {
            return Ok(self.revision);
        }
        self.revision = revision;
        self.log.insert(revision, Arc::new(Changes { revision, changes }));
        Ok(revision)
    }

    fn apply(&mut self, write: Write, revision: Revision) -> Option<Change> {
        let (key, value) = match write {
            Write::Put { key, value } => (key, Some(value)),
            Write::Delete { key } => (key, None),
        };
        let before = self.keys.get(&key).and_then(|versions| live(versions.last())).cloned();
        let next = match (&value, &before) {
            (None, None) => return None,
            (None, Some(old)) => Version { revision, value: None, ..*old },
            (Some(_), None) => Version { revision, value, create_revision: revision, version: 1 },
            (Some(_), Some(old)) => Version { revision, value, version: old.version + 1, ..*old },
        };
        let change = Change {
            key: key.clone(),
            value: next.value.clone(),
            create_revision: next.create_revision,
            version: next.version,
            previous: before.map_or(Revision::ZERO, |old| old.revision),
        };
        self.keys.entry(key).or_default().push(next);
        Some(change)
    }

    fn compact(&mut self, before: Revision) {
        if before <= self.compacted {
            return;
        }
        let gone = std::mem::take(&mut self.log);
        let mut touched: HashMap<&Bytes, ()> = HashMap::new();
        for (revision, changes) in &gone {
            if *revision <= before {
                touched.extend(changes.changes.iter().map(|change| (&change.key, ())));
            } else {
                self.log.insert(*revision, changes.clone());
            }
        }
        for key in touched.into_keys() {
            let Some(versions) = self.keys.get_mut(key) else { continue };
            // Keep the version that is current at `before` (unless that is a deletion) and all after it.
            let current = versions.iter().rposition(|version| version.revision <= before);
            if let Some(current) = current {
                let keep = if versions[current].value.is_some() { current } else { current + 1 };
                versions.drain(..keep);
            }
            if versions.is_empty() {
                self.keys.remove(key);
            }
        }
        self.compacted = before;
    }
}

/// A watcher's place.
struct Cursor {
    shared: Arc<Shared>,
    after: Revision,
    moved: watch::Receiver<Revision>,
}

impl Cursor {
    async fn next(&mut self) -> Option<Result<Arc<Changes>>> {
        loop {
            self.moved.borrow_and_update();
            match self.step() {
                Some(answer) => return answer,
                None => self.moved.changed().await.ok()?,
            }
        }
    }

    /// What there is now: nothing yet (`None`), the end, an error or the next changes.
    fn step(&mut self) -> Option<Option<Result<Arc<Changes>>>> {
        let state = self.shared.lock();
        if state.closed {
            return Some(None);
        }
        if self.after < state.compacted {
            return Some(Some(Err(Error::Compacted { requested: self.after, compacted: state.compacted })));
        }
        let changes = state.log.get(&self.after.next())?;
        self.after = changes.revision;
        Some(Some(Ok(changes.clone())))
    }
}

fn live(version: Option<&Version>) -> Option<&Version> {
    version.filter(|version| version.value.is_some())
}

fn entry_at(key: &Bytes, versions: &[Version], at: Revision) -> Option<Entry> {
    let version = versions.iter().rev().find(|version| version.revision <= at)?;
    Some(Entry {
        key: key.clone(),
        value: version.value.clone()?,
        create_revision: version.create_revision,
        mod_revision: version.revision,
        version: version.version,
    })
}

/// What is wrong with a batch on every store.
pub(crate) fn check_batch(batch: &Batch) -> Result<()> {
    if batch.writes.len() > Batch::WRITES_MAX {
        return Err(Error::InvalidBatch(format!("{} writes; {} are allowed", batch.writes.len(), Batch::WRITES_MAX)));
    }
    if let [one] = batch.writes.as_slice() {
        return if one.key().is_empty() { Err(Error::InvalidBatch("an empty key".into())) } else { Ok(()) };
    }
    let mut keys: Vec<&Bytes> = batch.writes.iter().map(Write::key).collect();
    keys.sort_unstable();
    if keys.first().is_some_and(|key| key.is_empty()) {
        return Err(Error::InvalidBatch("an empty key".into()));
    }
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            Err(Error::InvalidBatch(format!("{} is written more than once", String::from_utf8_lossy(pair[0]))))
        }
        None => Ok(()),
    }
}
