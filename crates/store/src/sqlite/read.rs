//! Reading: the queries, and the few threads that run them (SQLite blocks, and an executor's threads may not).

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::oneshot;

use super::layout::{Meta, Place, checksum, last_row_id, revision_of};
use crate::feed::check;
use crate::{Change, Changes, Entry, Error, Got, KeyRange, Page, Result, Revision};

/// Two: a long scan must not hold up everything else. Hardly anything reads here, the watch cache answers nearly all.
const READERS: usize = 2;
/// A watcher that is behind reads the log in pieces of about this much.
const PIECE_ROWS: usize = 1000;
const PIECE_BYTES: usize = 4 << 20;

type Job = Box<dyn FnOnce(&View<'_>) + Send>;

/// The reading threads; they end when this is dropped.
pub(crate) struct Readers {
    jobs: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(crate) fn start(place: &Place) -> Result<Readers> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let mut readers = Readers { jobs: Some(jobs), threads: Vec::new() };
        for _ in 0..READERS {
            let connection = place.open_reader()?;
            let (own_place, queue) = (place.clone(), queue.clone());
            let run = move || {
                loop {
                    let job = queue.lock().expect("readers do not panic while they wait").recv();
                    let Ok(job) = job else { return };
                    job(&View { place: &own_place, connection: &connection });
                }
            };
            let spawned = std::thread::Builder::new().name("store-reader".into()).spawn(run);
            readers.threads.push(spawned.map_err(|error| Error::io("start a thread for", place.file(), error))?);
        }
        Ok(readers)
    }

    /// Runs `read` on one of the threads, in a read transaction: all that it sees is of one moment.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run_outside_transaction(move |view| view.transaction(read)).await
    }

    /// As `run`, for what brings its own transaction.
    pub(crate) async fn run_outside_transaction<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |view| {
            let _ = reply.send(read(view));
        });
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(Error::Closed);
        }
        answer.await.map_err(|_| Error::Stopped("a reading thread died".into()))?
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.jobs = None;
        let current = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // The last handle may be dropped by a job, that is, on one of the threads themselves.
            if thread.thread().id() != current {
                let _ = thread.join();
            }
        }
    }
}

/// A connection to read from.
pub(crate) struct View<'a> {
    pub(crate) place: &'a Place,
    pub(crate) connection: &'a Connection,
}

impl View<'_> {
    fn transaction<T>(&self, read: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        self.place.sql("read", || self.connection.execute_batch("BEGIN"))?;
        let answer = read(self);
        let ended = self.place.sql("read", || self.connection.execute_batch("COMMIT"));
        answer.and_then(|answer| ended.map(|()| answer))
    }

    pub(crate) fn meta(&self) -> Result<Meta> {
        self.place.sql("read", || Meta::read(self.connection))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Got> {
        let revision = self.meta()?.revision;
        let row = self.place.sql("read", || {
            self.connection
                .prepare_cached(
                    "SELECT id, previous, created, version, crc, key, value FROM log
                     WHERE id = (SELECT id FROM cur WHERE key = ?1 AND live)",
                )?
                .query_row([key], LogRow::read)
                .optional()
        })?;
        let entry = row.map(|row| row.checked(self.place)?.into_entry(self.place)).transpose()?;
        Ok(Got { entry, revision })
    }

    pub(crate) fn scan(&self, range: &KeyRange, at: Option<Revision>, limit: usize) -> Result<Page> {
        let meta = self.meta()?;
        let revision = at.unwrap_or(meta.revision);
        check(revision, meta.revision, meta.compacted)?;
        let mut page = Page { entries: Vec::new(), revision, more: false };
        if range.is_empty() {
            return Ok(page);
        }
        if revision == meta.revision {
            self.scan_now(range, limit, &mut page)
        } else {
            self.scan_then(range, limit, &mut page)
        }?;
        Ok(page)
    }

    /// What is there now: one statement, which is how a whole store is read at a start.
    fn scan_now(&self, range: &KeyRange, limit: usize, page: &mut Page) -> Result<()> {
        let (end_clause, end) = end_of(range);
        let sql = format!(
            "SELECT log.id, log.previous, log.created, log.version, log.crc, log.key, log.value
             FROM cur CROSS JOIN log ON log.id = cur.id
             WHERE cur.key >= ?1 {end_clause} AND cur.live ORDER BY cur.key"
        );
        let mut rows = self.place.sql("read", || self.connection.prepare_cached(&sql))?;
        let mut rows = self.place.sql("read", || rows.query(params![range.start.as_ref(), end]))?;
        while let Some(row) = self.place.sql("read", || rows.next())? {
            if limit != 0 && page.entries.len() == limit {
                page.more = true;
                break;
            }
            let row = self.place.sql("read", || LogRow::read(row))?;
            page.entries.push(row.checked(self.place)?.into_entry(self.place)?);
        }
        Ok(())
    }

    /// What was there at the page's revision: also of keys that were deleted, or written again, since.
    fn scan_then(&self, range: &KeyRange, limit: usize, page: &mut Page) -> Result<()> {
        let (end_clause, end) = end_of(range);
        let sql = format!("SELECT id FROM cur WHERE cur.key >= ?1 {end_clause} ORDER BY cur.key");
        let mut ids = self.place.sql("read", || self.connection.prepare_cached(&sql))?;
        let mut ids = self.place.sql("read", || ids.query(params![range.start.as_ref(), end]))?;
        while let Some(id) = self.place.sql("read", || ids.next()?.map(|row| row.get::<_, i64>(0)).transpose())? {
            let Some(entry) = self.entry_at(id, page.revision)? else { continue };
            if limit != 0 && page.entries.len() == limit {
                page.more = true;
                break;
            }
            page.entries.push(entry);
        }
        Ok(())
    }

    /// What a key, whose last change is row `id`, was at a revision.
    fn entry_at(&self, mut id: i64, at: Revision) -> Result<Option<Entry>> {
        let newest = last_row_id(at);
        while id > newest {
            let previous = self.place.sql("read", || {
                self.connection
                    .prepare_cached("SELECT previous FROM log WHERE id = ?1")?
                    .query_row([id], |row| row.get::<_, i64>(0))
                    .optional()
            })?;
            id = previous.ok_or_else(|| self.missing(id))?;
        }
        if id == 0 {
            return Ok(None);
        }
        match self.row(id)? {
            Some(row) if row.value.is_none() => Ok(None),
            Some(row) => row.into_entry(self.place).map(Some),
            // The only rows that are gone although something points to them are compacted deletions (and, behind those,
            // compacted values), which are as good as none. Anything else would have been kept: `at` is not compacted.
            None => Ok(None),
        }
    }

    fn row(&self, id: i64) -> Result<Option<LogRow>> {
        let row = self.place.sql("read", || {
            self.connection
                .prepare_cached("SELECT id, previous, created, version, crc, key, value FROM log WHERE id = ?1")?
                .query_row([id], LogRow::read)
                .optional()
        })?;
        row.map(|row| row.checked(self.place)).transpose()
    }

    fn missing(&self, id: i64) -> Error {
        self.place.corrupt(format!("the change at revision {} is missing", revision_of(id)))
    }

    /// The next piece of the log after a revision, whole revisions only; empty if there is nothing yet.
    pub(crate) fn changes_after(&self, after: Revision) -> Result<Vec<Arc<Changes>>> {
        let meta = self.meta()?;
        check(after, meta.revision, meta.compacted)?;
        let mut pieces: Vec<Changes> = Vec::new();
        let (mut rows_read, mut bytes_read) = (0, 0);
        let mut statement = self.place.sql("read", || {
            self.connection.prepare_cached(
                "SELECT id, previous, created, version, crc, key, value FROM log WHERE id > ?1 ORDER BY id",
            )
        })?;
        let mut rows = self.place.sql("read", || statement.query([last_row_id(after)]))?;
        while let Some(row) = self.place.sql("read", || rows.next()?.map(LogRow::read).transpose())? {
            let row = row.checked(self.place)?;
            let revision = revision_of(row.id);
            let same = pieces.last_mut().filter(|last| last.revision == revision);
            if same.is_none() && (rows_read >= PIECE_ROWS || bytes_read >= PIECE_BYTES) {
                break;
            }
            rows_read += 1;
            bytes_read += row.value.as_ref().map_or(0, Bytes::len);
            match same {
                Some(last) => last.changes.push(row.into_change()),
                None => pieces.push(Changes { revision, changes: vec![row.into_change()] }),
            }
        }
        let gap = pieces.iter().zip(1..).find(|(changes, n)| changes.revision.0 != after.0 + n);
        if let Some((_, n)) = gap {
            return Err(self.place.corrupt(format!("the changes of revision {} are missing", after.0 + n)));
        }
        Ok(pieces.into_iter().map(Arc::new).collect())
    }
}

/// The condition on the end of a range, and its parameter.
fn end_of(range: &KeyRange) -> (&'static str, &[u8]) {
    match &range.end {
        Some(end) => ("AND cur.key < ?2", end.as_ref()),
        None => ("AND ?2 IS NOT NULL", b""),
    }
}

/// A row of `log`.
pub(crate) struct LogRow {
    pub(crate) id: i64,
    pub(crate) previous: i64,
    pub(crate) created: Revision,
    pub(crate) version: u64,
    pub(crate) crc: u32,
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
}

impl LogRow {
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<LogRow> {
        Ok(LogRow {
            id: row.get(0)?,
            previous: row.get(1)?,
            created: Revision(row.get::<_, i64>(2)? as u64),
            version: row.get::<_, i64>(3)? as u64,
            crc: row.get(4)?,
            key: Bytes::copy_from_slice(row.get_ref(5)?.as_blob()?),
            value: row.get_ref(6)?.as_blob_or_null()?.map(Bytes::copy_from_slice),
        })
    }

    pub(crate) fn checked(self, place: &Place) -> Result<LogRow> {
        if checksum(self.id, self.created, self.version, &self.key, self.value.as_deref()) == self.crc {
            return Ok(self);
        }
        let key = String::from_utf8_lossy(&self.key);
        Err(place.corrupt(format!("the value of {key} at revision {} has a wrong checksum", revision_of(self.id))))
    }

    fn into_entry(self, place: &Place) -> Result<Entry> {
        let mod_revision = revision_of(self.id);
        let Some(value) = self.value else {
            let key = String::from_utf8_lossy(&self.key);
            return Err(place.corrupt(format!("{key} is listed, but was deleted at revision {mod_revision}")));
        };
        Ok(Entry { key: self.key, value, create_revision: self.created, mod_revision, version: self.version })
    }

    fn into_change(self) -> Change {
        // A key that is created points to its last deletion, for the chain's sake.
        let created = self.value.is_some() && self.version == 1;
        Change {
            previous: if created { Revision::ZERO } else { revision_of(self.previous) },
            key: self.key,
            value: self.value,
            create_revision: self.created,
            version: self.version,
        }
    }
}

/// Opens a store's files for reading only, without the threads. The caller holds the directory's lock.
pub(crate) fn with_view<T>(dir: &Path, read: impl FnOnce(&View<'_>) -> Result<T>) -> Result<T> {
    let place = Place::new(dir);
    if !place.file().exists() {
        return Err(Error::io("open", place.file(), "there is no store here"));
    }
    let connection = place.open_writer(None)?;
    View { place: &place, connection: &connection }.transaction(read)
}
