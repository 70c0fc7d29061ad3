//! What can go wrong in a store.

use std::path::PathBuf;

use bytes::Bytes;

use crate::Revision;

/// The answer of a store that could not do what it was asked.
///
/// `Clone`, because one failed group commit answers many writers.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A precondition did not hold. Nothing was written.
    #[error("conflict: {} is at revision {}", show_key(&.0.key), .0.current)]
    Conflict(Conflict),
    /// The history that was asked for is gone.
    #[error("revision {requested} has been compacted (history begins at {compacted})")]
    Compacted { requested: Revision, compacted: Revision },
    /// A revision that does not exist yet.
    #[error("revision {requested} is in the future (the store is at {current})")]
    Future { requested: Revision, current: Revision },
    /// The batch itself is wrong; it would fail on every store.
    #[error("invalid batch: {0}")]
    InvalidBatch(String),
    /// The disk, or the configured size, is full. Nothing of the batch was written; later commits may succeed again.
    #[error("no space left for the store in {}: free some disk space", path.display())]
    DiskFull { path: PathBuf },
    /// What is on disk is not what was written there.
    #[error("the store in {} is corrupt: {detail}; restore a backup", path.display())]
    Corrupt { path: PathBuf, detail: String },
    /// Another process has the data directory open.
    #[error("{} is in use by {}; stop it first", path.display(), show_pid(*pid))]
    Locked { path: PathBuf, pid: Option<u32> },
    /// The files are of a layout that this version does not know.
    #[error("{} holds a store of format {found}; this version knows formats up to {known}", path.display())]
    Format { path: PathBuf, found: i64, known: i64 },
    /// The write may or may not have happened: read before trying again.
    #[error("the outcome of the write is unknown: {0}")]
    OutcomeUnknown(String),
    /// The store stopped after a failure that it could not survive (a failed fsync, for one): it must be opened anew.
    #[error("the store has stopped: {0}")]
    Stopped(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Any other failure of the system below.
    #[error("store: {doing} {}: {detail}", path.display())]
    Io { doing: &'static str, path: PathBuf, detail: String },
}

/// Which precondition of a batch did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub key: Bytes,
    /// The key's modification revision now; zero: the key is absent.
    pub current: Revision,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The failed precondition, if that is what went wrong.
    pub fn conflict(&self) -> Option<&Conflict> {
        match self {
            Error::Conflict(conflict) => Some(conflict),
            _ => None,
        }
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, detail: impl ToString) -> Error {
        Error::Io { doing, path: path.into(), detail: detail.to_string() }
    }

    /// As `io`, but a full disk is called that.
    pub(crate) fn system(doing: &'static str, path: &std::path::Path, error: std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Error::DiskFull { path: path.to_owned() }
            }
            _ => Error::io(doing, path, error),
        }
    }
}

fn show_key(key: &Bytes) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(key)
}

fn show_pid(pid: Option<u32>) -> String {
    pid.map_or("another process".to_string(), |pid| format!("process {pid}"))
}
