//! hostPath: a path of the node, checked to be what the pod expects.
//!
//! Upstream: `pkg/volume/hostpath/host_path.go`, `checkTypeInternal`.

use std::fs::{self, FileType, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::At;
use crate::{Result, VolumeError};

/// `hostPath.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostPathType {
    /// Empty: no check.
    #[default]
    Unset,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

impl HostPathType {
    /// From the API's text.
    pub fn parse(text: &str) -> Result<HostPathType> {
        Ok(match text {
            "" => HostPathType::Unset,
            "DirectoryOrCreate" => HostPathType::DirectoryOrCreate,
            "Directory" => HostPathType::Directory,
            "FileOrCreate" => HostPathType::FileOrCreate,
            "File" => HostPathType::File,
            "Socket" => HostPathType::Socket,
            "CharDevice" => HostPathType::CharDevice,
            "BlockDevice" => HostPathType::BlockDevice,
            other => return Err(VolumeError::InvalidType(other.to_owned())),
        })
    }
}

/// Checks that a path is what the pod says, and makes it where the type allows that.
pub fn host_path(path: &Path, expected: HostPathType) -> Result<()> {
    let found = fs::metadata(path);
    let absent = found.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    let what = match expected {
        // The kubelet looks at nothing then, and containerd makes what is missing (`WithMounts`).
        HostPathType::Unset if absent => {
            return fs::DirBuilder::new().recursive(true).mode(0o755).create(path).at("create", path);
        }
        HostPathType::Unset => return Ok(()),
        HostPathType::DirectoryOrCreate if absent => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path).at("create", path)?;
            return fs::set_permissions(path, fs::Permissions::from_mode(0o755)).at("change the mode of", path);
        }
        HostPathType::FileOrCreate if absent => {
            let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path);
            return made.map(drop).at("create", path);
        }
        HostPathType::DirectoryOrCreate | HostPathType::Directory => "directory",
        HostPathType::FileOrCreate | HostPathType::File => "file",
        HostPathType::Socket => "socket file",
        HostPathType::CharDevice => "character device",
        HostPathType::BlockDevice => "block device",
    };
    let path = path.to_owned();
    match found.map(|meta| name_of(meta.file_type())) {
        Ok((name, _)) if name == what => Ok(()),
        Ok((_, found)) => Err(VolumeError::WrongType { path, expected: what, found }),
        Err(source) => Err(VolumeError::NoType { path, expected: what, source }),
    }
}

/// What we call a type, and what the API calls it.
fn name_of(kind: FileType) -> (&'static str, &'static str) {
    match kind {
        _ if kind.is_dir() => ("directory", "Directory"),
        _ if kind.is_file() => ("file", "File"),
        _ if kind.is_socket() => ("socket file", "Socket"),
        _ if kind.is_char_device() => ("character device", "CharDevice"),
        _ if kind.is_block_device() => ("block device", "BlockDevice"),
        _ => ("pipe", "pipe"),
    }
}
