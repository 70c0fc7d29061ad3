//! emptyDir: a directory of the pod's own, on disk or in memory.
//!
//! Upstream: `pkg/volume/emptydir/empty_dir.go`.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::mount::{MountFlags, mount};

use crate::error::At;
use crate::{GroupPolicy, Result, VolumeError, is_mount_point, ownership};

/// What an emptyDir is kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Medium {
    #[default]
    Disk,
    /// A tmpfs, of at most so many bytes (`None`: half of the memory).
    Memory { bytes_max: Option<u64> },
    /// Huge pages of so many bytes each, mapped from files.
    HugePages { page_bytes: u64 },
}

/// Makes an empty directory ready. What is there already stays as it is, so that a restarted agent may call this again.
///
/// The directory is open to everyone (mode 0777), or given to the group if there is one. A tmpfs wants root.
pub fn empty_dir(path: &Path, medium: Medium, group: Option<u32>) -> Result<()> {
    let fresh = match fs::create_dir(path) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(path).at("create", path)?;
            true
        }
        Err(error) => return Err(error).at("create", path),
    };
    let mut changed = fresh;
    match medium {
        Medium::Disk if fresh => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).at("change the mode of", path)?;
        }
        Medium::Disk => {}
        Medium::Memory { .. } | Medium::HugePages { .. } if is_mount_point(path)? => changed = false,
        Medium::Memory { bytes_max } => {
            mount_tmpfs(path, bytes_max)?;
            changed = true;
        }
        Medium::HugePages { page_bytes } => {
            let options = CString::new(format!("pagesize={page_bytes}")).expect("it is made of a number");
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            mount("nodev", path, "hugetlbfs", flags, options.as_c_str()).at("mount huge pages at", path)?;
            changed = true;
        }
    }
    match group {
        Some(group) if changed => ownership::give_to_group(path, group, false, GroupPolicy::Always),
        _ => Ok(()),
    }
}

fn mount_tmpfs(path: &Path, bytes_max: Option<u64>) -> Result<()> {
    let mut options = "mode=1777".to_owned();
    if let Some(bytes) = bytes_max.filter(|bytes| *bytes > 0) {
        options.push_str(&format!(",size={bytes}"));
    }
    // Secrets in a tmpfs must not reach a swap device; kernels before 6.4 do not know the option.
    for options in [format!("{options},noswap"), options] {
        let data = CString::new(options).map_err(|_| VolumeError::Unsupported("a NUL in a mount option".into()))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        match mount("tmpfs", path, "tmpfs", flags, data.as_c_str()) {
            Err(rustix::io::Errno::INVAL) => {}
            mounted => return mounted.at("mount a tmpfs at", path),
        }
    }
    Err(std::io::Error::from(rustix::io::Errno::INVAL)).at("mount a tmpfs at", path)
}

/// What a directory takes on its file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocated bytes; files with several names count once.
    pub bytes: u64,
    pub inodes: u64,
}

/// Adds up what a directory takes, without other file systems that are mounted in it. Walks all of it.
pub fn usage(path: &Path) -> Result<Usage> {
    use std::os::unix::fs::MetadataExt;
    let root = fs::symlink_metadata(path).at("read", path)?;
    let mut seen = std::collections::HashSet::new();
    let mut sum = Usage { bytes: root.blocks() * 512, inodes: 1 };
    let mut left = vec![path.to_owned()];
    while let Some(dir) = left.pop() {
        // What goes away while we look is no error.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != root.dev() || (meta.nlink() > 1 && !meta.is_dir() && !seen.insert(meta.ino())) {
                continue;
            }
            sum.bytes += meta.blocks() * 512;
            sum.inodes += 1;
            if meta.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(sum)
}
