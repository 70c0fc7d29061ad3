//! The embedded backend: one SQLite database in a directory that belongs to one process.
//!
//! WAL with `synchronous=FULL`: a commit that was answered survives a crash of the process and of the machine. Writes go
//! through one thread that puts all waiting commits into one transaction, so that many writers share an fsync. After a failed
//! commit the store stops: what the disk has kept is then unknown, and trying again is how acknowledged data gets lost.

mod layout;
mod lock;
mod queue;
mod read;
mod tend;
mod write;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use futures::future::{BoxFuture, FutureExt};
use futures::stream;
use tokio::sync::{oneshot, watch};

use self::layout::{Meta, Place, last_row_id};
use self::lock::DirLock;
use self::queue::{Job, Queue};
use self::read::Readers;
use self::write::Writer;
use crate::feed::{Feed, Step};
use crate::retention::{Ledger, Retention};
use crate::{Batch, Changes, Error, Got, KeyRange, Page, Result, Revision, Store, Watch};

pub use self::tend::Verified;

/// How to open a [`SqliteStore`].
#[derive(Clone, Debug, Default)]
pub struct SqliteOptions {
    pub retention: Retention,
    /// The greatest size of the database file; writes beyond it are answered `DiskFull`. `None`: as the disk allows.
    pub bytes_max: Option<u64>,
    #[doc(hidden)]
    pub failpoint: Failpoints,
}

type Failpoint = Arc<dyn Fn() -> std::io::Result<()> + Send + Sync>;

/// Lets tests fail a commit at the point where an fsync would.
#[doc(hidden)]
#[derive(Clone, Default)]
pub struct Failpoints {
    pub commit: Option<Failpoint>,
}

impl std::fmt::Debug for Failpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failpoints").finish_non_exhaustive()
    }
}

/// What the store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Commits that changed something.
    pub commits: u64,
    /// Transactions (that is, fsyncs) that they took.
    pub groups: u64,
}

#[derive(Default)]
struct Counters {
    commits: AtomicU64,
    groups: AtomicU64,
}

/// A store in one local directory. Clones share it; it closes when the last one is dropped, or by [`SqliteStore::close`].
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    place: Place,
    queue: Arc<Queue>,
    feed: Arc<Feed>,
    readers: Arc<Readers>,
    counters: Arc<Counters>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens the store in `dir`, which is created (for the owner only) if it is not there.
    ///
    /// Blocks for some milliseconds. Errors: `Locked` if another process has it, `Corrupt`, `Format`, `DiskFull`, `Io`.
    pub fn open(dir: &Path, options: SqliteOptions) -> Result<SqliteStore> {
        create_dir(dir)?;
        let place = Place::new(dir);
        let lock = DirLock::take(dir)?;
        let connection = place.open_writer(options.bytes_max)?;
        let meta = place.sql("open", || Meta::read(&connection))?;
        let last: i64 =
            place.sql("open", || connection.query_row("SELECT coalesce(max(id), 0) FROM log", [], |row| row.get(0)))?;
        if last > last_row_id(meta.revision) || meta.swept > meta.compacted || meta.compacted > meta.revision {
            return Err(place.corrupt("its revisions contradict each other"));
        }
        let mut ledger = Ledger::new(options.retention);
        if meta.compacted < meta.revision && meta.revision > Revision::EMPTY {
            // Nobody knows how old the history from before is, nor how much: as old as this process, and something.
            ledger.record(std::time::Duration::ZERO, meta.revision, 1);
        }
        let readers = Arc::new(Readers::start(&place)?);
        let (queue, counters) = (Arc::new(Queue::new()), Arc::new(Counters::default()));
        let feed = Arc::new(Feed::new(meta.revision, meta.compacted));
        let writer = Writer {
            place: place.clone(),
            connection,
            queue: queue.clone(),
            feed: feed.clone(),
            counters: counters.clone(),
            ledger,
            meta,
            started: Instant::now(),
            unchecked_bytes: place.log_bytes(),
            housekeeping_after: None,
            failpoint: options.failpoint.commit,
            lock,
        };
        let spawned = std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run());
        let writer = spawned.map_err(|error| Error::io("start a thread for", place.file(), error))?;
        let writer = Mutex::new(Some(writer));
        Ok(SqliteStore { inner: Arc::new(Inner { place, queue, feed, readers, counters, writer }) })
    }

    /// Finishes what was committed, ends all watches and lets go of the directory. Blocks until that is done. Later calls
    /// on any clone are answered `Closed`.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Resolves with the reason when the store has stopped: `Closed`, or the failure that it could not survive.
    pub async fn stopped(&self) -> Error {
        let mut moved = self.inner.feed.subscribe();
        loop {
            moved.borrow_and_update();
            if let Some(why) = self.inner.feed.end() {
                return why;
            }
            if moved.changed().await.is_err() {
                return Error::Closed;
            }
        }
    }

    pub fn stats(&self) -> Stats {
        let counters = &self.inner.counters;
        Stats { commits: counters.commits.load(Relaxed), groups: counters.groups.load(Relaxed) }
    }

    /// The directory that the store lives in.
    pub fn dir(&self) -> &Path {
        &self.inner.place.dir
    }
}

impl Store for SqliteStore {
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Got>> {
        let key = key.to_vec();
        self.inner.read(move |view| view.get(&key)).boxed()
    }

    fn scan(&self, range: KeyRange, at: Option<Revision>, limit: usize) -> BoxFuture<'_, Result<Page>> {
        self.inner.read(move |view| view.scan(&range, at, limit)).boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision>> {
        self.inner.write(move |reply| Job::Commit { batch, reply }).boxed()
    }

    fn watch(&self, after: Revision) -> BoxFuture<'_, Result<Watch>> {
        async move {
            self.inner.feed.check(after)?;
            let cursor = Cursor {
                feed: self.inner.feed.clone(),
                readers: self.inner.readers.clone(),
                after,
                piece: VecDeque::new(),
                moved: self.inner.feed.subscribe(),
            };
            Ok(Watch::new(stream::unfold(cursor, |mut cursor| async move {
                let item = cursor.next().await?;
                Some((item, cursor))
            })))
        }
        .boxed()
    }

    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<()>> {
        self.inner.write(move |reply| Job::Compact { before, reply }).boxed()
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision>> {
        futures::future::ready(self.inner.open().map(|feed| feed.revision())).boxed()
    }

    fn compacted_revision(&self) -> BoxFuture<'_, Result<Revision>> {
        futures::future::ready(self.inner.open().map(|feed| feed.compacted())).boxed()
    }
}

impl Inner {
    fn open(&self) -> Result<&Feed> {
        self.feed.end().map_or(Ok(&*self.feed), Err)
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&read::View<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.open()?;
        self.readers.run(read).await
    }

    async fn write<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T>>) -> Job) -> Result<T> {
        let _place = self.queue.place().await;
        let (reply, answer) = oneshot::channel();
        if self.queue.push(job(reply)).is_err() {
            return Err(self.feed.end().unwrap_or(Error::Closed));
        }
        match answer.await {
            Ok(answer) => answer,
            // Only a panic of the writer leaves a job without an answer.
            Err(_) => Err(Error::OutcomeUnknown("the writer died".into())),
        }
    }

    fn close(&self) {
        self.queue.close();
        let writer = self.writer.lock().expect("nothing panics while it holds the handle").take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// A watcher's place.
struct Cursor {
    feed: Arc<Feed>,
    readers: Arc<Readers>,
    after: Revision,
    /// Read ahead from the log.
    piece: VecDeque<Arc<Changes>>,
    moved: watch::Receiver<()>,
}

impl Cursor {
    async fn next(&mut self) -> Option<Result<Arc<Changes>>> {
        loop {
            if let Some(changes) = self.piece.pop_front() {
                self.after = changes.revision;
                return Some(Ok(changes));
            }
            self.moved.borrow_and_update();
            match self.feed.step(self.after) {
                Step::Wait => self.moved.changed().await.ok()?,
                Step::Changes(changes) => self.piece.push_back(changes),
                Step::Behind => {
                    let after = self.after;
                    match self.readers.run(move |view| view.changes_after(after)).await {
                        Ok(piece) => self.piece = piece.into(),
                        Err(error) => return Some(Err(error)),
                    }
                }
                Step::Failed(error) => return Some(Err(error)),
                Step::Closed => return None,
            }
        }
    }
}

fn create_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| Error::system("create", dir, error))
}
