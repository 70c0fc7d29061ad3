//! What can go wrong with volumes. The texts end up in FailedMount events.

use std::path::{Path, PathBuf};

/// Why a volume operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// A hostPath is not of the type that the pod asks for. The text is upstream's (`pkg/volume/hostpath/host_path.go`).
    #[error("hostPath type check failed: {} is not a {expected}, it's a {found}", path.display())]
    WrongType { path: PathBuf, expected: &'static str, found: &'static str },
    #[error("hostPath type check failed, {} is not a {expected}, unable to determine its type: {source}", path.display())]
    NoType { path: PathBuf, expected: &'static str, source: std::io::Error },
    #[error("{0} is an invalid volume type")]
    InvalidType(String),
    /// A path inside a volume that is not one (upstream: `pkg/volume/util/atomic_writer.go`, `validatePath`).
    #[error("invalid path: {0}")]
    InvalidPath(String),
    #[error("subpath {sub:?} leads out of its volume")]
    Escape { sub: String },
    #[error("unsupported: {0}")]
    Unsupported(String),
    #[error("no space left on the device that holds {}", path.display())]
    DiskFull { path: PathBuf },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
}

pub type Result<T, E = VolumeError> = std::result::Result<T, E>;

/// Adds the path and the action to an I/O error.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T> {
        self.map_err(|error| {
            let (source, path) = (error.into(), path.to_owned());
            match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => VolumeError::DiskFull { path },
                _ => VolumeError::Io { doing, path, source },
            }
        })
    }
}
