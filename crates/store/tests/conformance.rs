//! One suite of behaviour for every backend.

#![allow(clippy::unwrap_used, reason = "in tests")]

use std::sync::Arc;

use bytes::Bytes;
use corten_store::{
    Batch, Error, FaultyStore, KeyRange, MemoryStore, Revision, Scripted, SqliteOptions, SqliteStore, Store, Watch,
};
use futures::FutureExt;
use futures::executor::block_on;

/// Runs one case on every backend. The executor is not tokio's: the trait promises to need none in particular.
fn on_all<F: Future<Output = ()>>(case: impl Fn(Arc<dyn Store>) -> F) {
    block_on(case(Arc::new(MemoryStore::new())));
    block_on(case(Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), Scripted::default()))));
    let dir = tempfile::tempdir().unwrap();
    block_on(case(Arc::new(SqliteStore::open(dir.path(), SqliteOptions::default()).unwrap())));
    SqliteStore::verify(dir.path()).unwrap();
}

async fn put(store: &Arc<dyn Store>, key: &str, value: &str) -> Revision {
    store.commit(Batch::new().put(key.to_string(), value.to_string())).await.unwrap()
}

/// `key=value@mod` of each entry, and a `+` if there are more.
async fn scan(store: &Arc<dyn Store>, range: KeyRange, at: Option<u64>, limit: usize) -> String {
    let page = store.scan(range, at.map(Revision), limit).await.unwrap();
    let mut shown: Vec<String> =
        page.entries.iter().map(|e| format!("{}={}@{}", text(&e.key), text(&e.value), e.mod_revision)).collect();
    shown.extend(page.more.then(|| "+".to_string()));
    shown.join(" ")
}

/// The next `n` revisions as `revision:key=value(previous)`, `-key(previous)` for deletions.
async fn watched(watch: &mut Watch, n: usize) -> String {
    let mut shown = Vec::new();
    for _ in 0..n {
        let changes = watch.recv().await.unwrap().unwrap();
        let each = changes.changes.iter().map(|c| match &c.value {
            Some(value) => format!("{}={}({})", text(&c.key), text(value), c.previous),
            None => format!("-{}({})", text(&c.key), c.previous),
        });
        shown.push(format!("{}:{}", changes.revision, each.collect::<Vec<_>>().join(",")));
    }
    shown.join(" ")
}

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn an_empty_store_is_at_revision_one() {
    on_all(|s| async move {
        assert_eq!(s.current_revision().await.unwrap(), Revision(1));
        assert_eq!(s.compacted_revision().await.unwrap(), Revision(0));
        let got = s.get(b"a").await.unwrap();
        assert_eq!((got.entry, got.revision), (None, Revision(1)));
        assert_eq!(scan(&s, KeyRange::all(), None, 0).await, "");
        assert_eq!(put(&s, "a", "1").await, Revision(2));
    });
}

#[test]
fn entries_count_their_revisions_and_versions() {
    on_all(|s| async move {
        put(&s, "a", "1").await;
        put(&s, "b", "1").await;
        put(&s, "a", "2").await;
        let entry = s.get(b"a").await.unwrap().entry.unwrap();
        assert_eq!((text(&entry.value), entry.create_revision.0, entry.mod_revision.0, entry.version), ("2", 2, 4, 2));
        s.commit(Batch::new().delete("a")).await.unwrap();
        assert!(s.get(b"a").await.unwrap().entry.is_none());
        put(&s, "a", "3").await;
        let entry = s.get(b"a").await.unwrap().entry.unwrap();
        assert_eq!((entry.create_revision.0, entry.mod_revision.0, entry.version), (6, 6, 1));
    });
}

#[test]
fn a_batch_is_one_revision_or_nothing() {
    on_all(|s| async move {
        let two = Batch::new().put("b", "1").put("a", "1");
        assert_eq!(s.commit(two).await.unwrap(), Revision(2));
        let half_wrong = Batch::new().expect("a", Revision(2)).expect("b", Revision(9)).put("a", "2").delete("b");
        let error = s.commit(half_wrong).await.unwrap_err();
        let conflict = error.conflict().unwrap();
        assert_eq!((text(&conflict.key), conflict.current.0), ("b", 2));
        assert_eq!(scan(&s, KeyRange::all(), None, 0).await, "a=1@2 b=1@2");
        // A precondition on a key that is not written, and one on absence.
        let good = Batch::new().expect("a", Revision(2)).expect("z", Revision::ZERO).put("c", "1").delete("b");
        assert_eq!(s.commit(good).await.unwrap(), Revision(3));
        assert_eq!(scan(&s, KeyRange::all(), None, 0).await, "a=1@2 c=1@3");
        assert_eq!(s.current_revision().await.unwrap(), Revision(3));
    });
}

#[test]
fn creating_twice_and_writing_over_the_deleted_conflict() {
    on_all(|s| async move {
        s.commit(Batch::create("a", "1")).await.unwrap();
        let again = s.commit(Batch::create("a", "2")).await.unwrap_err();
        assert_eq!(again.conflict().unwrap().current, Revision(2));
        s.commit(Batch::remove("a", Revision(2))).await.unwrap();
        let gone = s.commit(Batch::update("a", Revision(2), "3")).await.unwrap_err();
        assert_eq!(gone.conflict().unwrap().current, Revision::ZERO);
        assert_eq!(s.commit(Batch::create("a", "4")).await.unwrap(), Revision(4));
    });
}

#[test]
fn what_changes_nothing_takes_no_revision() {
    on_all(|s| async move {
        put(&s, "a", "1").await;
        assert_eq!(s.commit(Batch::new()).await.unwrap(), Revision(2));
        assert_eq!(s.commit(Batch::new().delete("x")).await.unwrap(), Revision(2));
        assert_eq!(s.commit(Batch::new().expect("a", Revision(2))).await.unwrap(), Revision(2));
        assert!(s.commit(Batch::new().expect("a", Revision(1))).await.is_err());
        assert_eq!(s.commit(Batch::new().delete("x").put("b", "1")).await.unwrap(), Revision(3));
        let mut watch = s.watch(Revision(1)).await.unwrap();
        assert_eq!(watched(&mut watch, 2).await, "2:a=1(0) 3:b=1(0)");
    });
}

#[test]
fn invalid_batches_are_refused() {
    on_all(|s| async move {
        for batch in
            [Batch::new().put("a", "1").delete("a"), Batch::new().put("", "1"), Batch::new().put("a", "1").delete("")]
        {
            assert!(matches!(s.commit(batch).await, Err(Error::InvalidBatch(_))));
        }
        let many = |n: usize| (0..n).fold(Batch::new(), |batch, i| batch.put(format!("k{i}"), "v"));
        assert!(matches!(s.commit(many(Batch::WRITES_MAX + 1)).await, Err(Error::InvalidBatch(_))));
        assert_eq!(s.commit(many(Batch::WRITES_MAX)).await.unwrap(), Revision(2));
        let mut watch = s.watch(Revision(1)).await.unwrap();
        assert_eq!(watch.recv().await.unwrap().unwrap().changes.len(), Batch::WRITES_MAX);
    });
}

#[test]
fn scans_are_ordered_bounded_and_continue() {
    on_all(|s| async move {
        for key in ["/b/2", "/a/1", "/b/1", "/b/3", "/c"] {
            put(&s, key, "v").await;
        }
        let b = || KeyRange::prefix("/b/");
        assert_eq!(scan(&s, b(), None, 0).await, "/b/1=v@4 /b/2=v@2 /b/3=v@5");
        assert_eq!(scan(&s, b(), None, 3).await, "/b/1=v@4 /b/2=v@2 /b/3=v@5");
        assert_eq!(scan(&s, b(), None, 2).await, "/b/1=v@4 /b/2=v@2 +");
        assert_eq!(scan(&s, b().after(b"/b/2"), Some(6), 2).await, "/b/3=v@5");
        assert_eq!(scan(&s, KeyRange::all(), None, 1).await, "/a/1=v@3 +");
        assert_eq!(scan(&s, KeyRange { start: "/b/9".into(), end: Some("/b/1".into()) }, None, 0).await, "");
    });
}

#[test]
fn old_revisions_stay_readable() {
    on_all(|s| async move {
        put(&s, "a", "1").await; // 2
        put(&s, "b", "1").await; // 3
        put(&s, "a", "2").await; // 4
        s.commit(Batch::new().delete("b")).await.unwrap(); // 5
        put(&s, "b", "2").await; // 6
        s.commit(Batch::new().delete("a")).await.unwrap(); // 7
        let expected = ["", "a=1@2", "a=1@2 b=1@3", "a=2@4 b=1@3", "a=2@4", "a=2@4 b=2@6", "b=2@6"];
        for (at, expected) in (1..).zip(expected) {
            assert_eq!(scan(&s, KeyRange::all(), Some(at), 0).await, expected, "at {at}");
        }
        let future = s.scan(KeyRange::all(), Some(Revision(8)), 0).await;
        assert!(matches!(future, Err(Error::Future { current: Revision(7), .. })));
        assert_eq!(scan(&s, KeyRange::all(), Some(5), 1).await, "a=2@4", "no more at 5: b was deleted");
    });
}

#[test]
fn watches_show_everything_in_order_then_follow() {
    on_all(|s| async move {
        put(&s, "a", "1").await;
        s.commit(Batch::new().put("a", "2").put("b", "1")).await.unwrap();
        s.commit(Batch::new().delete("a")).await.unwrap();
        let mut all = s.watch(Revision(1)).await.unwrap();
        let mut late = s.watch(Revision(4)).await.unwrap();
        assert_eq!(watched(&mut all, 3).await, "2:a=1(0) 3:a=2(2),b=1(0) 4:-a(3)");
        assert!(all.recv().now_or_never().is_none());
        assert!(late.recv().now_or_never().is_none());
        put(&s, "a", "3").await;
        assert_eq!(watched(&mut all, 1).await, "5:a=3(0)");
        let changes = late.recv().await.unwrap().unwrap();
        assert_eq!((changes.changes[0].version, changes.changes[0].create_revision.0), (1, 5));
        assert!(matches!(s.watch(Revision(6)).await, Err(Error::Future { .. })));
    });
}

#[test]
fn a_watch_far_behind_catches_up() {
    on_all(|s| async move {
        const N: u64 = 3000;
        for n in 0..N {
            let _ = s.commit(Batch::new().put(format!("k{}", n % 7), n.to_string())).await.unwrap();
        }
        let mut watch = s.watch(Revision(1)).await.unwrap();
        for n in 0..N {
            let changes = watch.recv().await.unwrap().unwrap();
            assert_eq!(changes.revision, Revision(n + 2));
            assert_eq!(text(changes.changes[0].value.as_ref().unwrap()), n.to_string());
            assert_eq!(changes.changes[0].existed(), n >= 7);
        }
    });
}

#[test]
fn compaction_forgets_the_past_and_nothing_else() {
    on_all(|s| async move {
        put(&s, "a", "1").await; // 2
        put(&s, "gone", "1").await; // 3
        s.commit(Batch::new().delete("gone")).await.unwrap(); // 4
        put(&s, "a", "2").await; // 5
        put(&s, "back", "1").await; // 6
        s.commit(Batch::new().delete("back")).await.unwrap(); // 7
        put(&s, "back", "2").await; // 8
        put(&s, "a", "3").await; // 9
        let mut behind = s.watch(Revision(1)).await.unwrap();
        let mut ahead = s.watch(Revision(7)).await.unwrap();
        s.compact(Revision(7)).await.unwrap();
        assert_eq!(s.compacted_revision().await.unwrap(), Revision(7));
        s.compact(Revision(3)).await.unwrap();
        assert_eq!(s.compacted_revision().await.unwrap(), Revision(7));
        assert!(matches!(s.compact(Revision(10)).await, Err(Error::Future { .. })));

        let old = s.scan(KeyRange::all(), Some(Revision(6)), 0).await;
        assert!(matches!(old, Err(Error::Compacted { compacted: Revision(7), .. })), "{old:?}");
        assert!(matches!(s.watch(Revision(6)).await, Err(Error::Compacted { .. })));
        assert!(matches!(behind.recv().await, Some(Err(Error::Compacted { .. }))));
        assert!(behind.recv().await.is_none());

        assert_eq!(scan(&s, KeyRange::all(), Some(7), 0).await, "a=2@5");
        assert_eq!(scan(&s, KeyRange::all(), Some(8), 0).await, "a=2@5 back=2@8");
        assert_eq!(scan(&s, KeyRange::all(), None, 0).await, "a=3@9 back=2@8");
        assert_eq!(watched(&mut ahead, 2).await, "8:back=2(0) 9:a=3(5)");
        s.compact(Revision(9)).await.unwrap();
        assert_eq!(scan(&s, KeyRange::all(), Some(9), 0).await, "a=3@9 back=2@8");
        assert_eq!(put(&s, "gone", "2").await, Revision(10));
        assert_eq!(watched(&mut ahead, 1).await, "10:gone=2(0)");
    });
}

#[test]
fn any_bytes_are_keys_and_values() {
    on_all(|s| async move {
        let key = Bytes::from_static(b"\x00\xff/\xfe");
        s.commit(Batch::new().put(key.clone(), Bytes::new()).put(vec![0xff; 300], vec![7; 3_000_000])).await.unwrap();
        assert_eq!(s.get(&key).await.unwrap().entry.unwrap().value, Bytes::new());
        let page = s.scan(KeyRange::prefix(vec![0xff]), None, 0).await.unwrap();
        assert_eq!(page.entries[0].value.len(), 3_000_000);
    });
}

#[test]
fn many_writers_at_once_lose_nothing() {
    on_all(|s| async move {
        let writers = (0..64).map(|w| {
            let s = s.clone();
            async move {
                for _ in 0..20 {
                    // Increment a shared counter and a private one, in one batch, until it succeeds.
                    loop {
                        let (shared, own) = (s.get(b"shared").await.unwrap().entry, format!("own{w}"));
                        let expected = shared.as_ref().map_or(Revision::ZERO, |e| e.mod_revision);
                        let n: u32 = shared.map_or(0, |e| text(&e.value).parse().unwrap());
                        let batch = Batch::update("shared", expected, (n + 1).to_string()).put(own, "x");
                        match s.commit(batch).await {
                            Ok(_) => break,
                            Err(error) => assert!(error.conflict().is_some(), "{error}"),
                        }
                    }
                }
            }
        });
        futures::future::join_all(writers).await;
        let entry = s.get(b"shared").await.unwrap().entry.unwrap();
        assert_eq!((text(&entry.value), entry.version), ("1280", 1280));
        assert_eq!(s.current_revision().await.unwrap(), Revision(1281));
    });
}
