//! Random operations on every backend, compared with the simplest model there is: a copy of the whole map per revision.

#![allow(clippy::unwrap_used, reason = "in tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_store::{Batch, Compare, Error, KeyRange, MemoryStore, Revision, SqliteOptions, SqliteStore, Store, Write};
use futures::FutureExt;
use futures::executor::block_on;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    /// Preconditions and writes; a precondition is right or off by this much.
    Commit {
        compares: Vec<(u8, bool)>,
        writes: Vec<(u8, Option<u8>)>,
    },
    Get(u8),
    Scan {
        from: u8,
        to: u8,
        back: u64,
        limit: usize,
    },
    Compact {
        back: u64,
    },
    Watch {
        back: u64,
    },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..12u8;
    let compares = prop::collection::vec((key.clone(), prop::bool::weighted(0.9)), 0..3);
    let writes = prop::collection::vec((key.clone(), prop::option::weighted(0.7, any::<u8>())), 0..4);
    prop_oneof![
        12 => (compares, writes).prop_map(|(compares, writes)| Op::Commit { compares, writes }),
        3 => key.clone().prop_map(Op::Get),
        4 => (key.clone(), key, 0..8u64, 0..4usize).prop_map(|(from, to, back, limit)| Op::Scan { from, to, back, limit }),
        1 => (0..8u64).prop_map(|back| Op::Compact { back }),
        2 => (0..8u64).prop_map(|back| Op::Watch { back }),
        1 => Just(Op::Reopen),
    ]
}

/// value, created, modified, version
type Cell = (u8, u64, u64, u64);

struct Model {
    /// The state at each revision; index 0 is revision 1.
    states: Vec<BTreeMap<u8, Cell>>,
    compacted: u64,
}

impl Model {
    fn revision(&self) -> u64 {
        self.states.len() as u64
    }

    fn at(&self, revision: u64) -> &BTreeMap<u8, Cell> {
        &self.states[revision as usize - 1]
    }

    fn now(&self) -> &BTreeMap<u8, Cell> {
        self.at(self.revision())
    }

    /// The new revision, or the key and revision of the conflict.
    fn commit(&mut self, compares: &[(u8, u64)], writes: &[(u8, Option<u8>)]) -> Result<u64, (u8, u64)> {
        let modified = |key: &u8| self.now().get(key).map_or(0, |cell| cell.2);
        if let Some((key, _)) = compares.iter().find(|(key, expected)| modified(key) != *expected) {
            return Err((*key, modified(key)));
        }
        let (mut state, revision) = (self.now().clone(), self.revision() + 1);
        for (key, value) in writes {
            let old = state.remove(key);
            if let Some(value) = value {
                let (created, version) = old.map_or((revision, 1), |cell| (cell.1, cell.3 + 1));
                state.insert(*key, (*value, created, revision, version));
            }
        }
        if state != *self.now() {
            self.states.push(state);
        }
        Ok(self.revision())
    }

    /// What a watch shows for a revision, key by key.
    fn changes(&self, revision: u64) -> BTreeMap<u8, (Option<u8>, u64)> {
        let (before, after) = (self.at(revision - 1), self.at(revision));
        let keys = before.keys().chain(after.keys());
        keys.filter(|key| before.get(key) != after.get(key))
            .map(|key| (*key, (after.get(key).map(|cell| cell.0), before.get(key).map_or(0, |cell| cell.2))))
            .collect()
    }
}

fn key(k: u8) -> Vec<u8> {
    vec![b'k', k]
}

/// Something that can be closed and opened again, or not.
trait Backend {
    fn store(&self) -> Arc<dyn Store>;
    fn reopen(&mut self) {}
}

struct Memory(MemoryStore);

impl Backend for Memory {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }
}

struct Sqlite(tempfile::TempDir, SqliteStore);

impl Backend for Sqlite {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.1.clone())
    }

    fn reopen(&mut self) {
        self.1.close();
        SqliteStore::verify(self.0.path()).unwrap();
        self.1 = SqliteStore::open(self.0.path(), SqliteOptions::default()).unwrap();
    }
}

async fn check(mut backend: impl Backend, ops: &[Op]) {
    let mut model = Model { states: vec![BTreeMap::new()], compacted: 0 };
    let mut store = backend.store();
    for op in ops {
        match op {
            Op::Reopen => {
                drop(store);
                backend.reopen();
                store = backend.store();
            }
            Op::Compact { back } => {
                let before = model.revision().saturating_sub(*back);
                store.compact(Revision(before)).await.unwrap();
                model.compacted = model.compacted.max(before);
            }
            Op::Get(k) => {
                let got = store.get(&key(*k)).await.unwrap();
                assert_eq!(got.revision.0, model.revision());
                let cell = got.entry.map(|e| (e.value[0], e.create_revision.0, e.mod_revision.0, e.version));
                assert_eq!(cell.as_ref(), model.now().get(k));
            }
            Op::Commit { compares, writes } => check_commit(&*store, &mut model, compares, writes).await,
            Op::Scan { from, to, back, limit } => check_scan(&*store, &model, *from..*to, *back, *limit).await,
            Op::Watch { back } => check_watch(&*store, &model, *back).await,
        }
        assert_eq!(store.current_revision().await.unwrap().0, model.revision());
        assert_eq!(store.compacted_revision().await.unwrap().0, model.compacted);
    }
}

async fn check_commit(store: &dyn Store, model: &mut Model, compares: &[(u8, bool)], writes: &[(u8, Option<u8>)]) {
    let modified = |k: &u8| model.now().get(k).map_or(0, |cell| cell.2);
    let compares: Vec<(u8, u64)> = compares.iter().map(|(k, right)| (*k, modified(k) + u64::from(!right))).collect();
    let writes: BTreeMap<u8, Option<u8>> = writes.iter().copied().collect();
    let writes: Vec<(u8, Option<u8>)> = writes.into_iter().collect();
    let batch = Batch {
        compares: compares.iter().map(|(k, r)| Compare { key: key(*k).into(), expected: Revision(*r) }).collect(),
        writes: writes
            .iter()
            .map(|(k, value)| match value {
                Some(value) => Write::Put { key: key(*k).into(), value: vec![*value].into() },
                None => Write::Delete { key: key(*k).into() },
            })
            .collect(),
    };
    match (store.commit(batch).await, model.commit(&compares, &writes)) {
        (Ok(revision), Ok(expected)) => assert_eq!(revision.0, expected),
        (Err(error), Err((k, current))) => {
            let conflict = error.conflict().expect("a conflict");
            assert_eq!((conflict.key.to_vec(), conflict.current.0), (key(k), current));
        }
        (got, expected) => panic!("{got:?}, expected {expected:?}"),
    }
}

async fn check_scan(store: &dyn Store, model: &Model, keys: std::ops::Range<u8>, back: u64, limit: usize) {
    let at = model.revision().saturating_sub(back).max(1);
    let range = KeyRange { start: key(keys.start).into(), end: Some(key(keys.end).into()) };
    let page = match store.scan(range, Some(Revision(at)), limit).await {
        Ok(page) => page,
        Err(Error::Compacted { .. }) => return assert!(at < model.compacted),
        Err(error) => panic!("{error}"),
    };
    assert!(at >= model.compacted);
    let all: Vec<(u8, Cell)> =
        model.at(at).iter().filter(|(k, _)| keys.contains(k)).map(|(k, cell)| (*k, *cell)).collect();
    let shown = if limit == 0 { all.len() } else { limit.min(all.len()) };
    let found: Vec<(u8, Cell)> = page
        .entries
        .iter()
        .map(|e| (e.key[1], (e.value[0], e.create_revision.0, e.mod_revision.0, e.version)))
        .collect();
    assert_eq!((found, page.more, page.revision.0), (all[..shown].to_vec(), shown < all.len(), at));
}

async fn check_watch(store: &dyn Store, model: &Model, back: u64) {
    let after = model.revision().saturating_sub(back).max(1);
    let mut watch = match store.watch(Revision(after)).await {
        Ok(watch) => watch,
        Err(Error::Compacted { .. }) => return assert!(after < model.compacted),
        Err(error) => panic!("{error}"),
    };
    for revision in after + 1..=model.revision() {
        let changes = watch.recv().await.unwrap().unwrap();
        let shown: BTreeMap<u8, (Option<u8>, u64)> =
            changes.changes.iter().map(|c| (c.key[1], (c.value.as_ref().map(|v| v[0]), c.previous.0))).collect();
        assert_eq!((changes.revision.0, shown), (revision, model.changes(revision)));
    }
    assert!(watch.recv().now_or_never().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_agrees_with_the_model(ops in prop::collection::vec(op(), 1..80)) {
        block_on(check(Memory(MemoryStore::new()), &ops));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_agrees_with_the_model(ops in prop::collection::vec(op(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), SqliteOptions::default()).unwrap();
        block_on(check(Sqlite(dir, store), &ops));
    }
}
