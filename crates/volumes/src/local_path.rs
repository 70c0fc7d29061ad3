//! Directories for claims: what a volume of the built-in storage class is.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::At;
use crate::{Result, VolumeError, remove_dir};

/// The directory that holds all local volumes of a node.
#[derive(Clone, Debug)]
pub struct LocalPath {
    root: PathBuf,
}

impl LocalPath {
    /// Volumes below `<data-dir>/storage`.
    pub fn new(data_dir: &Path) -> LocalPath {
        LocalPath { root: data_dir.join("storage") }
    }

    /// Where a volume lies: `VOLUME_NAMESPACE_CLAIM`, so that people find theirs.
    pub fn path(&self, volume: &str, namespace: &str, claim: &str) -> Result<PathBuf> {
        for name in [volume, namespace, claim] {
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
                return Err(VolumeError::InvalidPath(format!("{name:?} is not a name")));
            }
        }
        Ok(self.root.join(format!("{volume}_{namespace}_{claim}")))
    }

    /// Makes a volume's directory, open to everyone, as any user may run in the pod that mounts it. Keeps what is there.
    pub fn create(&self, path: &Path) -> Result<()> {
        self.check(path)?;
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&self.root).at("create", &self.root)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(error).at("create", path),
            Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o777)).at("change the mode of", path),
        }
    }

    /// Makes a volume's file for block mode: sparse, at least `bytes` large. Keeps what is there.
    pub fn create_image(&self, path: &Path, bytes: u64) -> Result<()> {
        self.check(path)?;
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&self.root).at("create", &self.root)?;
        let opened = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = opened.at("create", path)?;
        match file.metadata().at("read", path)?.len() < bytes {
            true => file.set_len(bytes).at("grow", path),
            false => Ok(()),
        }
    }

    /// Deletes a volume and all that is in it. Nothing to do is no error; a path elsewhere is.
    pub fn remove(&self, path: &Path) -> Result<()> {
        self.check(path)?;
        remove_dir(path)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let own = path.parent() == Some(&self.root) && path.file_name().is_some();
        if own {
            return Ok(());
        }
        Err(VolumeError::InvalidPath(format!("{} is not directly below {}", path.display(), self.root.display())))
    }
}
