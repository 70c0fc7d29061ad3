//! How the map lies in the database: the tables, the packing of row numbers, checksums, and connections.
//!
//! - `log` has one row per change that is not compacted: the history and the values. Its row number is the revision with the
//!   place in the batch behind it, so rows lie in the order of the changes. `previous` is the row number of the change to the
//!   same key before it: what a key was at an old revision is found by walking that chain.
//! - `cur` has one small row per key: the row number of its last change. A deleted key stays here until its deletion is compacted.
//! - `meta` has the current revision, the compacted one, and how far the compacted garbage has been swept out of `log`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{Error, Result, Revision};

pub(crate) const FILE: &str = "store.db";
/// Marks the file as ours (`file` and the like show it): "CRTN".
const APPLICATION_ID: i64 = 0x4352_544e;
const FORMAT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('revision', 1), ('compacted', 0), ('swept', 0);
    CREATE TABLE cur (
        key BLOB PRIMARY KEY, id INTEGER NOT NULL, created INTEGER NOT NULL, version INTEGER NOT NULL,
        live INTEGER NOT NULL, bytes INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE log (
        id INTEGER PRIMARY KEY, previous INTEGER NOT NULL, created INTEGER NOT NULL, version INTEGER NOT NULL,
        crc INTEGER NOT NULL, key BLOB NOT NULL, value BLOB
    );
";

const SEQUENCE_BITS: u32 = 12;

/// The row number of the `sequence`-th change of a revision.
pub(crate) fn row_id(revision: Revision, sequence: usize) -> i64 {
    debug_assert!(sequence < 1 << SEQUENCE_BITS);
    ((revision.0 << SEQUENCE_BITS) | sequence as u64) as i64
}

/// The last row number that a revision can have.
pub(crate) fn last_row_id(revision: Revision) -> i64 {
    row_id(revision, (1 << SEQUENCE_BITS) - 1)
}

/// The revision of a row; zero of row number zero, which stands for "none".
pub(crate) fn revision_of(id: i64) -> Revision {
    Revision((id as u64) >> SEQUENCE_BITS)
}

/// The checksum of a row of `log`. SQLite finds broken pages of its own, but not flipped bits in a value.
pub(crate) fn checksum(id: i64, created: Revision, version: u64, key: &[u8], value: Option<&[u8]>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&id.to_le_bytes());
    crc.update(&created.0.to_le_bytes());
    crc.update(&version.to_le_bytes());
    crc.update(&(key.len() as u64).to_le_bytes());
    crc.update(key);
    if let Some(value) = value {
        crc.update(&[1]);
        crc.update(value);
    }
    crc.finalize()
}

/// The place of a store on disk, for opening and for error messages.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
}

impl Place {
    pub(crate) fn new(dir: &Path) -> Place {
        Place { dir: dir.to_owned() }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// Bytes of the write-ahead log. What a process that was killed had not moved into the main file is still in it, and each
    /// opening reads it.
    pub(crate) fn log_bytes(&self) -> u64 {
        std::fs::metadata(self.dir.join(format!("{FILE}-wal"))).map_or(0, |log| log.len())
    }

    /// The connection that writes: makes the tables in a new file, checks those of an old one.
    pub(crate) fn open_writer(&self, bytes_max: Option<u64>) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let connection = self.connect(flags)?;
        self.sql("open", || self.prepare_file(&connection, bytes_max))?;
        self.check_format(&connection)?;
        Ok(connection)
    }

    /// A connection that only reads. The writer's must have been opened before.
    pub(crate) fn open_reader(&self) -> Result<Connection> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        self.sql("open", || {
            connection.pragma_update(None, "query_only", true)?;
            connection.pragma_update(None, "cache_size", -1024)
        })?;
        Ok(connection)
    }

    fn connect(&self, flags: OpenFlags) -> Result<Connection> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = self.sql("open", || Connection::open_with_flags(self.file(), flags))?;
        connection.set_prepared_statement_cache_capacity(32);
        self.sql("open", || connection.busy_timeout(Duration::from_secs(10)))?;
        Ok(connection)
    }

    fn prepare_file(&self, connection: &Connection, bytes_max: Option<u64>) -> rusqlite::Result<()> {
        let fresh: bool = connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // The writer checkpoints by itself, because SQLite's own checkpoint after a commit swallows its errors.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
        if let Some(bytes) = bytes_max {
            let page: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
            connection
                .query_row(&format!("PRAGMA max_page_count = {}", (bytes / page as u64).max(8)), [], |_| Ok(()))?;
        }
        if fresh {
            connection.execute_batch(&format!(
                "BEGIN; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
            ))?;
        }
        Ok(())
    }

    fn check_format(&self, connection: &Connection) -> Result<()> {
        let pragma = |name: &str| {
            self.sql("open", || connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)))
        };
        let (application, found) = (pragma("application_id")?, pragma("user_version")?);
        if application != APPLICATION_ID {
            return Err(self.corrupt(format!("{FILE} is a database of another program")));
        }
        if found != FORMAT {
            return Err(Error::Format { path: self.dir.clone(), found, known: FORMAT });
        }
        Ok(())
    }

    pub(crate) fn corrupt(&self, detail: impl Into<String>) -> Error {
        Error::Corrupt { path: self.dir.clone(), detail: detail.into() }
    }

    /// Runs `f` and turns SQLite's error into ours.
    pub(crate) fn sql<T>(&self, doing: &'static str, f: impl FnOnce() -> rusqlite::Result<T>) -> Result<T> {
        f().map_err(|error| self.translate(doing, error))
    }

    pub(crate) fn translate(&self, doing: &'static str, error: rusqlite::Error) -> Error {
        let detail = error.to_string();
        match &error {
            rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DiskFull => Error::DiskFull { path: self.dir.clone() },
                // Growing the file with the write-ahead log's index fails like this on a full disk.
                _ if failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => {
                    Error::DiskFull { path: self.dir.clone() }
                }
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => self.corrupt(detail),
                _ => Error::io(doing, self.file(), format!("{detail} (SQLite {})", failure.extended_code)),
            },
            // A value of another type, or a missing row or table: not what we wrote.
            _ => self.corrupt(detail),
        }
    }
}

/// The numbers in `meta`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    /// Up to where rows that were compacted have been deleted.
    pub(crate) swept: Revision,
}

impl Meta {
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Meta> {
        let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
        let mut number =
            |name: &str| statement.query_row([name], |row| row.get::<_, i64>(0)).map(|n| Revision(n as u64));
        Ok(Meta { revision: number("revision")?, compacted: number("compacted")?, swept: number("swept")? })
    }
}

pub(crate) fn write_meta(connection: &Connection, name: &str, revision: Revision) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE meta SET value = ?2 WHERE name = ?1")?
        .execute(rusqlite::params![name, revision.0 as i64])
        .map(drop)
}
