//! What can go wrong with images. Each message is one sentence that says what to do where that is not obvious.

use std::path::{Path, PathBuf};

use crate::Digest;

/// Why an image operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Upstream's `InvalidImageName`.
    #[error("couldn't parse image name {reference:?}: {why}")]
    InvalidReference { reference: String, why: String },
    #[error("no such image: {reference}; import it with `corten image import` or build it with `corten image build`")]
    NotFound { reference: String },
    /// A blob's content is not what its digest says.
    #[error("image is corrupt: blob {expected} has the digest {actual} ({}); import it again", path.display())]
    CorruptBlob { path: PathBuf, expected: Digest, actual: Digest },
    /// A layer's content is not what the image's configuration says.
    #[error("image is corrupt: layer {layer} unpacks to {actual}, its configuration says {expected}")]
    CorruptLayer { layer: Digest, expected: Digest, actual: Digest },
    /// Something is missing or malformed in an archive or in the store.
    #[error("image in {} is corrupt: {detail}", path.display())]
    Corrupt { path: PathBuf, detail: String },
    /// Neither an OCI layout nor a docker archive.
    #[error("{} is not an image: {detail}; expected an OCI layout (directory or tar) or the output of `docker save`", path.display())]
    NotAnImage { path: PathBuf, detail: String },
    #[error("{} holds no image for linux/{architecture}, only for {found}", path.display())]
    WrongPlatform { path: PathBuf, architecture: &'static str, found: String },
    #[error("the image in {} has no name; give it one with --name", path.display())]
    NoName { path: PathBuf },
    /// An entry that would be written outside of the layer's directory, or that no sane builder makes.
    #[error("layer {layer} is refused: {detail}")]
    Unsafe { layer: Digest, detail: String },
    /// A registry does not give an image.
    #[error("failed to pull and unpack image {reference:?}: {error}")]
    Pull { reference: String, error: Box<crate::PullError> },
    #[error("unsupported: {0}")]
    Unsupported(String),
    #[error("write {}: no space left on device; free some disk space", path.display())]
    DiskFull { path: PathBuf },
    #[error("not allowed to {doing} {}: image layers are unpacked as root", path.display())]
    NotPermitted { doing: &'static str, path: PathBuf },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
}

pub type Result<T, E = ImageError> = std::result::Result<T, E>;

impl ImageError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: std::io::Error) -> ImageError {
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                ImageError::DiskFull { path: path.to_owned() }
            }
            std::io::ErrorKind::PermissionDenied => ImageError::NotPermitted { doing, path: path.to_owned() },
            _ => ImageError::Io { doing, path: path.to_owned(), source },
        }
    }

    pub(crate) fn corrupt(path: &Path, detail: impl Into<String>) -> ImageError {
        ImageError::Corrupt { path: path.to_owned(), detail: detail.into() }
    }
}

/// Adds the path and the action to an I/O error.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T> {
        self.map_err(|error| ImageError::io(doing, path, error.into()))
    }
}
