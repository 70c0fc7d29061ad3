//! The writer: one thread that owns the only writing connection.
//!
//! It takes all commits that wait, applies them in one transaction (one fsync), publishes the changes to the watchers and then
//! answers the callers. Between groups it checkpoints the write-ahead log and sweeps out compacted rows in small steps. When
//! nothing happens it sleeps: its only timer is the ledger's deadline, which exists only while there is garbage.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use super::layout::{Meta, Place, checksum, last_row_id, revision_of, row_id, write_meta};
use super::lock::DirLock;
use super::queue::{Job, Queue, Wake};
use super::{Counters, Failpoint};
use crate::feed::Feed;
use crate::memory::check_batch;
use crate::retention::Ledger;
use crate::{Batch, Change, Changes, Conflict, Error, Result, Revision, Write};

/// The write-ahead log is moved into the main file when it has grown by this much.
const CHECKPOINT_BYTES: u64 = 4 << 20;
/// How many revisions one step sweeps, at most: it holds up commits for some milliseconds.
const SWEEP_REVISIONS: u64 = 500;
/// After a full disk stopped a sweep or a checkpoint, it is tried again this much later.
const RETRY_AFTER: Duration = Duration::from_secs(60);

pub(crate) struct Writer {
    pub(crate) place: Place,
    pub(crate) connection: Connection,
    pub(crate) queue: Arc<Queue>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) ledger: Ledger,
    pub(crate) meta: Meta,
    pub(crate) started: Instant,
    pub(crate) unchecked_bytes: u64,
    pub(crate) housekeeping_after: Option<Instant>,
    pub(crate) failpoint: Option<Failpoint>,
    /// Dropped last: the next owner may come when all else is closed.
    #[expect(dead_code, reason = "held, not used")]
    pub(crate) lock: DirLock,
}

impl Writer {
    /// Works until the queue is closed, or something fails that must not be tried again.
    pub(crate) fn run(mut self) {
        let result = self.work();
        if result.is_ok() {
            self.tidy_up();
        }
        let why = match result {
            Ok(()) => Error::Closed,
            Err(error) => {
                tracing::error!(%error, "the store stops");
                Error::Stopped(error.to_string())
            }
        };
        self.feed.end_with(why.clone());
        self.queue.close();
        // Whoever came in between is answered, too.
        while let Wake::Jobs(jobs) = self.queue.take(None) {
            jobs.into_iter().for_each(|job| job.fail(&why));
        }
    }

    /// Moves everything into the main file, so that the next start has nothing to recover. It would not be lost otherwise.
    fn tidy_up(&self) {
        // A reader that is still busy (a backup) is not worth waiting for.
        let _ = self.connection.busy_timeout(Duration::from_millis(100));
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }

    fn work(&mut self) -> Result<()> {
        loop {
            let sweeping = self.meta.swept < self.meta.compacted;
            let busy = sweeping || self.unchecked_bytes >= CHECKPOINT_BYTES;
            let deadline = match (busy, self.housekeeping_after) {
                (true, None) => Some(Instant::now()),
                (true, Some(after)) => Some(after),
                (false, _) => self.ledger.deadline().map(|at| self.started + at),
            };
            match self.queue.take(deadline) {
                Wake::Closed => return Ok(()),
                Wake::Deadline => {}
                Wake::Jobs(jobs) => self.group(jobs)?,
            }
            self.housekeeping()?;
        }
    }

    /// One step of what is not urgent. A full disk only postpones it.
    fn housekeeping(&mut self) -> Result<()> {
        if self.housekeeping_after.is_some_and(|after| Instant::now() < after) {
            return Ok(());
        }
        match self.housekeeping_step() {
            Err(Error::DiskFull { .. }) => {
                self.place.sql("roll back", || rollback(&self.connection))?;
                self.meta = self.place.sql("read", || Meta::read(&self.connection))?;
                self.housekeeping_after = Some(Instant::now() + RETRY_AFTER);
                Ok(())
            }
            result => {
                self.housekeeping_after = None;
                result
            }
        }
    }

    fn housekeeping_step(&mut self) -> Result<()> {
        if self.unchecked_bytes >= CHECKPOINT_BYTES {
            self.place.sql("checkpoint", || {
                self.connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |_| Ok(()))
            })?;
            self.unchecked_bytes = 0;
        }
        if let Some(before) = self.ledger.due(self.started.elapsed()) {
            self.compact(before)?;
        }
        if self.meta.swept < self.meta.compacted {
            self.sweep()?;
        }
        Ok(())
    }

    /// Does a group of jobs in one transaction and answers them.
    fn group(&mut self, jobs: Vec<Job>) -> Result<()> {
        let mut group = Group::default();
        let mut compacts = Vec::new();
        for job in jobs {
            match job {
                Job::Commit { batch, reply } => group.waiting.push((batch, reply)),
                Job::Compact { before, reply } => compacts.push((before, reply)),
            }
        }
        if !group.waiting.is_empty() {
            self.commit_group(group)?;
        }
        for (before, reply) in compacts {
            let result = if before > self.meta.revision {
                Err(Error::Future { requested: before, current: self.meta.revision })
            } else {
                self.compact(before)
            };
            let fatal = result.as_ref().err().filter(|error| is_fatal(error)).cloned();
            let _ = reply.send(result);
            if let Some(error) = fatal {
                return Err(error);
            }
        }
        Ok(())
    }

    fn commit_group(&mut self, mut group: Group) -> Result<()> {
        let before = self.meta;
        let answers = match self.apply_group(&mut group) {
            Ok(answers) => answers,
            Err(failure) => {
                self.meta = before;
                let replies: Vec<_> = group.waiting.into_iter().map(|(_, reply)| reply).collect();
                return self.group_failed(replies, failure);
            }
        };
        self.counters.groups.fetch_add(1, Relaxed);
        self.counters.commits.fetch_add(group.changes.len() as u64, Relaxed);
        self.unchecked_bytes += group.changes.iter().map(|changes| changes.size_bytes() as u64 + 4096).sum::<u64>();
        if !group.changes.is_empty() {
            self.ledger.record(self.started.elapsed(), self.meta.revision, group.replaced_bytes);
        }
        self.feed.publish(group.changes);
        for ((_, reply), answer) in group.waiting.into_iter().zip(answers) {
            // A caller may have gone; its commit stays.
            let _ = reply.send(answer);
        }
        Ok(())
    }

    /// All of a group but the answers. An error here means that nothing of the group was acknowledged.
    fn apply_group(&mut self, group: &mut Group) -> Result<Vec<Result<Revision>>, Failure> {
        let doing = |error| Failure::Before(self.place.translate("write", error));
        run(&self.connection, "BEGIN IMMEDIATE").map_err(doing)?;
        let mut answers = Vec::with_capacity(group.waiting.len());
        for (batch, _) in &mut group.waiting {
            let batch = std::mem::take(batch);
            let answer = apply(&self.connection, &batch, self.meta.revision).map_err(doing)?;
            answers.push(answer.map(|applied| {
                if let Some((changes, replaced_bytes)) = applied {
                    self.meta.revision = changes.revision;
                    group.changes.push(Arc::new(changes));
                    group.replaced_bytes += replaced_bytes;
                }
                self.meta.revision
            }));
        }
        if group.changes.is_empty() {
            run(&self.connection, "ROLLBACK").map_err(doing)?;
            return Ok(answers);
        }
        write_meta(&self.connection, "revision", self.meta.revision).map_err(doing)?;
        if let Some(failpoint) = &self.failpoint {
            failpoint().map_err(|error| Failure::InCommit(Error::io("commit", self.place.file(), error)))?;
        }
        run(&self.connection, "COMMIT").map_err(|error| Failure::InCommit(self.place.translate("commit", error)))?;
        Ok(answers)
    }

    /// Answers a group that failed; returns the error if the store must stop.
    fn group_failed(&mut self, replies: Vec<oneshot::Sender<Result<Revision>>>, failure: Failure) -> Result<()> {
        // A full disk is found when the log grows, before the commit record is written: nothing of the group is there.
        let (error, fatal) = match failure {
            Failure::Before(error) | Failure::InCommit(error @ Error::DiskFull { .. }) => {
                let fatal = is_fatal(&error).then(|| error.clone());
                (error, fatal)
            }
            Failure::InCommit(error) => (Error::OutcomeUnknown(error.to_string()), Some(error)),
        };
        if fatal.is_none() {
            self.place.sql("roll back", || rollback(&self.connection))?;
        } else {
            self.feed.end_with(Error::Stopped(error.to_string()));
        }
        for reply in replies {
            let _ = reply.send(Err(error.clone()));
        }
        fatal.map_or(Ok(()), Err)
    }

    /// Makes revisions before `before` unreadable. The garbage is swept out later.
    fn compact(&mut self, before: Revision) -> Result<()> {
        if before <= self.meta.compacted {
            return Ok(());
        }
        self.place.sql("compact", || write_meta(&self.connection, "compacted", before))?;
        self.meta.compacted = before;
        self.ledger.compacted(before);
        self.feed.compact(before);
        Ok(())
    }

    /// Deletes a part of the rows that nobody can see any more: what was replaced or deleted at or before the compacted
    /// revision is found at the change that did it.
    fn sweep(&mut self) -> Result<()> {
        let until = Revision((self.meta.swept.0 + SWEEP_REVISIONS).min(self.meta.compacted.0));
        let range = params![last_row_id(self.meta.swept), last_row_id(until)];
        self.place.sql("compact", || {
            let run = |sql: &str| self.connection.prepare_cached(sql)?.execute(range);
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            run("DELETE FROM log WHERE id IN (SELECT previous FROM log WHERE id > ?1 AND id <= ?2 AND previous != 0)")?;
            run("DELETE FROM cur WHERE live = 0 AND id > ?1 AND id <= ?2
                 AND key IN (SELECT key FROM log WHERE id > ?1 AND id <= ?2 AND value IS NULL)")?;
            run("DELETE FROM log WHERE id > ?1 AND id <= ?2 AND value IS NULL")?;
            write_meta(&self.connection, "swept", until)?;
            self.connection.execute_batch("COMMIT")
        })?;
        self.unchecked_bytes += 4096 * (until.0 - self.meta.swept.0);
        self.meta.swept = until;
        Ok(())
    }
}

#[derive(Default)]
struct Group {
    waiting: Vec<(Batch, oneshot::Sender<Result<Revision>>)>,
    changes: Vec<Arc<Changes>>,
    /// The size of the values that the group replaced or deleted.
    replaced_bytes: u64,
}

/// When an error came: before the commit nothing can have been written for good, in it anything may have.
enum Failure {
    Before(Error),
    InCommit(Error),
}

impl Job {
    fn fail(self, why: &Error) {
        match self {
            Job::Commit { reply, .. } => drop(reply.send(Err(why.clone()))),
            Job::Compact { reply, .. } => drop(reply.send(Err(why.clone()))),
        }
    }
}

/// Everything but a full disk and a caller's mistake: what failed may leave less on the disk than SQLite believes.
fn is_fatal(error: &Error) -> bool {
    !matches!(error, Error::DiskFull { .. } | Error::Future { .. })
}

/// Runs a statement that gives no rows, parsed once.
fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

fn rollback(connection: &Connection) -> rusqlite::Result<()> {
    // Some errors have already rolled back by themselves.
    if connection.is_autocommit() { Ok(()) } else { connection.execute_batch("ROLLBACK") }
}

/// A row of `cur`.
struct Current {
    id: i64,
    created: Revision,
    version: u64,
    live: bool,
    bytes: u64,
}

fn current(connection: &Connection, key: &[u8]) -> rusqlite::Result<Option<Current>> {
    connection
        .prepare_cached("SELECT id, created, version, live, bytes FROM cur WHERE key = ?1")?
        .query_row([key], |row| {
            Ok(Current {
                id: row.get(0)?,
                created: Revision(row.get::<_, i64>(1)? as u64),
                version: row.get::<_, i64>(2)? as u64,
                live: row.get(3)?,
                bytes: row.get::<_, i64>(4)? as u64,
            })
        })
        .optional()
}

type Applied = Option<(Changes, u64)>;

/// Checks and applies one batch inside the transaction: what it changed and how many bytes that replaced, or why not.
fn apply(connection: &Connection, batch: &Batch, at: Revision) -> rusqlite::Result<Result<Applied>> {
    if let Err(error) = check_batch(batch) {
        return Ok(Err(error));
    }
    for compare in &batch.compares {
        let found = current(connection, &compare.key)?.filter(|found| found.live);
        let found = found.map_or(Revision::ZERO, |found| revision_of(found.id));
        if found != compare.expected {
            return Ok(Err(Error::Conflict(Conflict { key: compare.key.clone(), current: found })));
        }
    }
    let revision = at.next();
    let mut changes = Vec::with_capacity(batch.writes.len());
    let mut replaced_bytes = 0;
    for write in &batch.writes {
        let (key, value) = match write {
            Write::Put { key, value } => (key, Some(value)),
            Write::Delete { key } => (key, None),
        };
        let before = current(connection, key)?;
        if value.is_none() && !before.as_ref().is_some_and(|before| before.live) {
            continue;
        }
        replaced_bytes += before.as_ref().map_or(0, |before| before.bytes);
        let id = row_id(revision, changes.len());
        changes.push(apply_write(connection, id, key, value, before)?);
    }
    Ok(Ok((!changes.is_empty()).then_some((Changes { revision, changes }, replaced_bytes))))
}

fn apply_write(
    connection: &Connection,
    id: i64,
    key: &Bytes,
    value: Option<&Bytes>,
    before: Option<Current>,
) -> rusqlite::Result<Change> {
    // The chain goes through deletions; what the caller sees as the previous value does not.
    let chain = before.as_ref().map_or(0, |before| before.id);
    let previous = before.as_ref().filter(|before| before.live);
    let (create_revision, version) = match (previous, value) {
        (None, _) => (revision_of(id), 1),
        (Some(old), Some(_)) => (old.created, old.version + 1),
        (Some(old), None) => (old.created, old.version),
    };
    let crc = checksum(id, create_revision, version, key, value.map(Bytes::as_ref));
    let (created, count) = (create_revision.0 as i64, version as i64);
    connection
        .prepare_cached(
            "INSERT INTO log (id, previous, created, version, crc, key, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![id, chain, created, count, crc, key.as_ref(), value.map(Bytes::as_ref)])?;
    let bytes = (key.len() + value.map_or(0, Bytes::len)) as i64;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO cur (key, id, created, version, live, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![key.as_ref(), id, created, count, value.is_some(), bytes])?;
    Ok(Change {
        key: key.clone(),
        value: value.cloned(),
        create_revision,
        version,
        previous: previous.map_or(Revision::ZERO, |old| revision_of(old.id)),
    })
}
