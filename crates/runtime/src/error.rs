//! One error type for the crate's operations.

use std::io;
use std::path::{Path, PathBuf};

/// Why an operation failed, in one sentence that names the object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{what} {id:?} not found")]
    NotFound { what: &'static str, id: String },
    #[error("{what} {id:?} already exists")]
    Exists { what: &'static str, id: String },
    /// The container is not in the state that the operation needs.
    #[error("container {id:?} is {state}")]
    State { id: String, state: &'static str },
    /// The spec itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The program could not be started: upstream's `StartError` or `ContainerCannotRun`, exit code 128.
    #[error("{0}")]
    Start(String),
    /// The kernel or the machine lacks something that was asked for.
    #[error("{0}")]
    Unsupported(String),
    /// The shim answered something else than expected, or died.
    #[error("shim of container {id:?}: {message}")]
    Shim { id: String, message: String },
    #[error("{what}: {source}")]
    System { what: String, source: io::Error },
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::System { what: what.into(), source: source.into() }
    }

    pub(crate) fn file(path: impl AsRef<Path>, source: impl Into<io::Error>) -> Error {
        Error::File { path: path.as_ref().to_path_buf(), source: source.into() }
    }

    /// Whether the container's own program is to blame (exit code 128), not the machine.
    pub fn is_start_error(&self) -> bool {
        matches!(self, Error::Start(_))
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. })
    }
}
