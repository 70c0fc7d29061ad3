//! What only the embedded backend has: durability under kill -9, the lock, corruption, full disks, a failed commit, backup.

#![allow(clippy::unwrap_used, reason = "in tests")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use corten_store::{Batch, Error, Failpoints, KeyRange, Retention, Revision, SqliteOptions, SqliteStore, Store};
use futures::executor::block_on;

/// Set for the child processes that the tests make of this very program.
const CHILD_DIR: &str = "CORTEN_STORE_TEST_DIR";

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, SqliteOptions::default()).unwrap()
}

fn put(store: &SqliteStore, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Result<Revision, Error> {
    block_on(store.commit(Batch::new().put(key.into(), value.into())))
}

/// Runs one (ignored) test of this program in another process.
fn child(test: &str, dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

/// Not a test: writes from 8 threads until it is killed, and says what was acknowledged.
#[test]
#[ignore = "run by the kill test, in a process of its own"]
fn child_writes_for_ever() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let store = open(Path::new(&dir));
    let round = block_on(store.current_revision()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for n in 0u64.. {
                    let key = format!("{round}/{thread}/{n}");
                    let revision = put(store, key.clone(), value_of(&key)).unwrap();
                    println!("acknowledged {key} {revision}");
                    if n % 50 == 49 {
                        block_on(store.compact(revision)).unwrap();
                    }
                }
            });
        }
    });
}

fn value_of(key: &str) -> Vec<u8> {
    key.bytes().cycle().take(1500 + key.len() * 7).collect()
}

/// One that is killed before it has written much leaves its log to the next, which must not leave it to the one after it.
#[test]
fn the_log_of_many_short_lives_does_not_grow() {
    const VALUE: usize = 1 << 19;
    const PUTS: usize = 6;
    const LIVES: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let life = |n: usize| dir.path().join(n.to_string());
    for n in 0..LIVES {
        let store = open(&life(n));
        for _ in 0..PUTS {
            put(&store, "key", vec![n as u8; VALUE]).unwrap();
        }
        // What is on disk now is what a killed process leaves.
        std::fs::create_dir(life(n + 1)).unwrap();
        for file in ["store.db", "store.db-wal"] {
            std::fs::copy(life(n).join(file), life(n + 1).join(file)).unwrap();
        }
    }
    let log = std::fs::metadata(life(LIVES).join("store.db-wal")).unwrap().len();
    assert!(log < (4 * PUTS * VALUE) as u64, "{log} bytes");
    SqliteStore::verify(&life(LIVES)).unwrap();
    let entry = block_on(open(&life(LIVES)).get(b"key")).unwrap().entry.unwrap();
    assert_eq!((entry.value.len(), entry.value.first()), (VALUE, Some(&(LIVES as u8 - 1))));
}

#[test]
fn every_acknowledged_write_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<String, u64> = HashMap::new();
    for _ in 0..4 {
        let (mut child, out) = child("child_writes_for_ever", dir.path());
        let pid = child.id();
        let mut count = 0;
        let mut lines = out.lines();
        while let Some(Ok(line)) = lines.next() {
            let mut words = line.split(' ').skip_while(|word| *word != "acknowledged").skip(1);
            let (Some(key), Some(Ok(revision))) = (words.next(), words.next().map(str::parse)) else { continue };
            acknowledged.insert(key.to_string(), revision);
            count += 1;
            if count == 400 {
                child.kill().unwrap(); // SIGKILL; what is already in the pipe was acknowledged, too
            }
        }
        assert!(count >= 400, "process {pid} died early");
        child.wait().unwrap();
        SqliteStore::verify(dir.path()).unwrap();
    }
    let store = open(dir.path());
    for (key, revision) in &acknowledged {
        let entry = block_on(store.get(key.as_bytes())).unwrap().entry.unwrap_or_else(|| panic!("{key} is lost"));
        assert_eq!((entry.mod_revision.0, entry.value.as_ref()), (*revision, value_of(key).as_slice()));
    }
}

/// Not a test: opens the store and waits for its end.
#[test]
#[ignore = "run by the lock test, in a process of its own"]
fn child_holds_the_lock() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let _store = open(Path::new(&dir));
    println!("holding");
    let _ = std::io::stdin().read_line(&mut String::new());
    std::thread::park();
}

#[test]
fn a_second_process_is_told_who_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, mut out) = child("child_holds_the_lock", dir.path());
    let mut line = String::new();
    while !line.contains("holding") {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "the child died");
    }
    let error = SqliteStore::open(dir.path(), SqliteOptions::default()).map(drop).unwrap_err();
    assert!(matches!(error, Error::Locked { pid: Some(pid), .. } if pid == child.id()), "{error}");
    assert!(error.to_string().contains(&format!("in use by process {}", child.id())));
    assert!(matches!(SqliteStore::verify(dir.path()), Err(Error::Locked { .. })));
    child.kill().unwrap();
    child.wait().unwrap();
    open(dir.path());
}

#[test]
fn closing_frees_the_directory_and_ends_everything() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, "a", "1").unwrap();
    let mut watch = block_on(store.watch(Revision(2))).unwrap();
    store.close();
    assert!(block_on(watch.recv()).is_none());
    assert!(matches!(put(&store, "a", "2"), Err(Error::Closed)));
    assert!(matches!(block_on(store.get(b"a")), Err(Error::Closed)));
    assert!(matches!(block_on(store.stopped()), Error::Closed));
    let again = open(dir.path());
    assert_eq!(block_on(again.current_revision()).unwrap(), Revision(2));
    drop(again);
    open(dir.path());
}

#[test]
fn waiting_writers_share_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = (0..500).map(|n| store.commit(Batch::new().put(format!("k{n}"), "v")));
    for result in block_on(futures::future::join_all(all)) {
        result.unwrap();
    }
    let stats = store.stats();
    assert_eq!(stats.commits, 500);
    assert!(stats.groups < 100, "{stats:?}");
}

#[test]
fn a_full_disk_refuses_writes_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteOptions { bytes_max: Some(1 << 20), ..SqliteOptions::default() };
    let store = SqliteStore::open(dir.path(), options).unwrap();
    let mut n = 0;
    let error = loop {
        match put(&store, format!("k{n}"), vec![7; 50_000]) {
            Ok(_) => n += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::DiskFull { path } if path == dir.path()), "{error}");
    assert!((10..21).contains(&n), "{n} writes fitted");
    // Reading goes on, and what was refused is not there.
    assert_eq!(block_on(store.scan(KeyRange::all(), None, 0)).unwrap().entries.len(), n);
    assert_eq!(block_on(store.current_revision()).unwrap().0, n as u64 + 1);
    // Space that compaction frees can be written again.
    let room = (0..n).fold(Batch::new(), |batch, n| batch.delete(format!("k{n}")));
    let freed = block_on(store.commit(room)).unwrap();
    block_on(store.compact(freed)).unwrap();
    let mut tries = 0;
    while let Err(error) = put(&store, "again", vec![7; 50_000]) {
        // The sweep goes on between commits, a step at a time.
        assert!(matches!(error, Error::DiskFull { .. }) && tries < 1000, "{error}");
        tries += 1;
    }
    drop(store);
    SqliteStore::verify(dir.path()).unwrap();
}

/// A small file system of its own, gone with the test.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(options: &std::ffi::CStr) -> Tmpfs {
        assert!(rustix::process::geteuid().is_root(), "this test mounts a small disk: run it as root");
        let dir = tempfile::tempdir().unwrap();
        rustix::mount::mount("corten-test", dir.path(), "tmpfs", rustix::mount::MountFlags::empty(), options).unwrap();
        Tmpfs(dir)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_disk_that_is_really_full_loses_nothing_and_the_store_goes_on_when_there_is_room() {
    let disk = Tmpfs::mount(c"size=4m");
    let (dir, filler) = (disk.0.path().join("store"), disk.0.path().join("filler"));
    std::fs::write(&filler, vec![7; 2 << 20]).unwrap();
    let store = open(&dir);
    let mut stored = Vec::new();
    let mut refused = 0;
    // Small and large commits, so that the end comes at different places.
    for n in 0..400 {
        let key = format!("k{n}");
        match put(&store, key.clone(), value_of(&key).repeat(1 + n % 20)) {
            Ok(revision) => stored.push((key, n, revision)),
            Err(Error::DiskFull { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 10 && stored.len() > 10, "{refused} refused, {} stored", stored.len());
    std::fs::remove_file(&filler).unwrap();
    put(&store, "after", "there is room").unwrap();
    drop(store);
    SqliteStore::verify(&dir).unwrap();
    let store = open(&dir);
    for (key, n, revision) in stored {
        let entry = block_on(store.get(key.as_bytes())).unwrap().entry.unwrap();
        assert_eq!(
            (entry.mod_revision, entry.value.as_ref()),
            (revision, value_of(&key).repeat(1 + n % 20).as_slice())
        );
    }
    // Not even an empty store fits on this one.
    let full = Tmpfs::mount(c"size=16k");
    std::fs::write(full.0.path().join("filler"), vec![7; 16384]).unwrap();
    let error = SqliteStore::open(&full.0.path().join("store"), SqliteOptions::default()).map(drop).unwrap_err();
    assert!(error.to_string().contains("free some disk space"), "{error}");
}

#[test]
fn a_failed_commit_stops_the_store_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let commit = {
        let broken = broken.clone();
        move || if broken.load(Ordering::SeqCst) { Err(std::io::Error::other("fsync failed")) } else { Ok(()) }
    };
    let failpoint = Failpoints { commit: Some(Arc::new(commit)) };
    let store = SqliteStore::open(dir.path(), SqliteOptions { failpoint, ..SqliteOptions::default() }).unwrap();
    put(&store, "a", "1").unwrap();
    let mut watch = block_on(store.watch(Revision(2))).unwrap();
    broken.store(true, Ordering::SeqCst);
    assert!(matches!(put(&store, "b", "1"), Err(Error::OutcomeUnknown(_))));
    broken.store(false, Ordering::SeqCst);
    assert!(matches!(put(&store, "c", "1"), Err(Error::Stopped(_))));
    assert!(matches!(block_on(store.get(b"a")), Err(Error::Stopped(_))));
    assert!(matches!(block_on(watch.recv()), Some(Err(Error::Stopped(_)))));
    assert!(matches!(block_on(store.stopped()), Error::Stopped(_)));
    drop(store);
    let store = open(dir.path());
    assert_eq!(block_on(store.scan(KeyRange::all(), None, 0)).unwrap().entries.len(), 1);
}

fn some_store(dir: &Path) {
    let store = open(dir);
    for n in 0..200 {
        put(&store, format!("k{}", n % 50), vec![n as u8; 3000]).unwrap();
    }
}

#[test]
fn a_flipped_bit_in_a_value_is_found() {
    let dir = tempfile::tempdir().unwrap();
    some_store(dir.path());
    // The last of the 200 values is the only run of its byte.
    let path = dir.path().join("store.db");
    let content = std::fs::read(&path).unwrap();
    let at = content.windows(64).position(|window| window == [199; 64]).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[198], at as u64 + 10).unwrap();
    drop(file);
    let error = SqliteStore::verify(dir.path()).unwrap_err();
    assert!(error.to_string().contains("k49 at revision 201 has a wrong checksum"), "{error}");
    let store = open(dir.path());
    let error = block_on(store.scan(KeyRange::all(), None, 0)).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(block_on(store.get(b"k48")).is_ok());
}

#[test]
fn broken_files_are_corrupt_not_empty() {
    let breakers: [fn(&Path); 4] = [
        |path| std::fs::write(path, vec![b'x'; 8192]).unwrap(),
        |path| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(8192).unwrap(),
        |path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&[0xee; 4096], 4096).unwrap();
        },
        |path| {
            let connection = rusqlite::Connection::open(path).unwrap();
            connection.execute_batch("DELETE FROM log WHERE id = (SELECT max(id) FROM log)").unwrap();
        },
    ];
    for (n, breaker) in breakers.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        some_store(dir.path());
        breaker(&dir.path().join("store.db"));
        let error = SqliteStore::verify(dir.path()).expect_err("it is broken");
        assert!(matches!(error, Error::Corrupt { .. }), "{n}: {error}");
    }
}

#[test]
fn other_programs_and_newer_formats_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE x (y)").unwrap();
    let error = SqliteStore::open(dir.path(), SqliteOptions::default()).map(drop).unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");
    std::fs::remove_file(&path).unwrap();
    some_store(dir.path());
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 9").unwrap();
    let error = SqliteStore::open(dir.path(), SqliteOptions::default()).map(drop).unwrap_err();
    assert!(matches!(error, Error::Format { found: 9, known: 1, .. }), "{error}");
}

#[test]
fn a_backup_is_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let (live, copy) = (dir.path().join("live"), dir.path().join("copy"));
    let store = open(&live);
    put(&store, "a", "1").unwrap();
    put(&store, "a", "2").unwrap();
    block_on(store.backup(&copy)).unwrap();
    put(&store, "a", "3").unwrap();
    assert!(block_on(store.backup(&copy)).is_err(), "never over an old one");
    assert_eq!(SqliteStore::verify(&copy).unwrap().revision, Revision(3));
    let mut shown = Vec::new();
    SqliteStore::dump(&copy, None, |entry| shown.push(entry.clone())).unwrap();
    SqliteStore::dump(&copy, Some(Revision(2)), |entry| shown.push(entry.clone())).unwrap();
    assert_eq!(shown.iter().map(|e| e.value.as_ref()).collect::<Vec<_>>(), [b"2", b"1"]);
    let restored = open(&copy);
    assert_eq!(put(&restored, "b", "1").unwrap(), Revision(4));
}

#[test]
fn history_is_compacted_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let short = Duration::from_millis(30);
    let retention = Retention { horizon: short, age_max: short, history_bytes_max: 0 };
    let store = SqliteStore::open(dir.path(), SqliteOptions { retention, ..SqliteOptions::default() }).unwrap();
    let mut watch = block_on(store.watch(Revision(1))).unwrap();
    put(&store, "a", "1").unwrap();
    put(&store, "a", "2").unwrap();
    // A watch that stays behind learns of the compaction by itself: the writer's timer made it.
    loop {
        match block_on(store.watch(Revision(1))) {
            Ok(_) => std::thread::yield_now(),
            Err(error) => break assert!(matches!(error, Error::Compacted { .. })),
        }
    }
    assert!(matches!(block_on(watch.recv()), Some(Err(Error::Compacted { .. }))));
    let current = block_on(store.get(b"a")).unwrap();
    assert_eq!((current.entry.unwrap().value.as_ref(), current.revision), (&b"2"[..], Revision(3)));
}
