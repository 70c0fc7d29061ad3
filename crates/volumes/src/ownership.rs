//! fsGroup: a volume's content is given to a group.
//!
//! Upstream: `pkg/volume/volume_linux.go`. Containers may be changing the volume meanwhile, so every entry is opened without
//! following links and changed through its descriptor: a link that is swapped in leads nowhere.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, chmodat, chownat, fstat, openat};
use rustix::io::Errno;

use crate::Result;
use crate::error::At;

/// `fsGroupChangePolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupPolicy {
    #[default]
    Always,
    /// Only if the volume's root does not have the right group and mode.
    OnRootMismatch,
}

const SETGID: u32 = 0o2000;

/// Gives everything in a volume to a group, which may then read it (and write it, unless it is read-only). New files get the
/// group, too.
pub fn give_to_group(root: &Path, group: u32, read_only: bool, policy: GroupPolicy) -> Result<()> {
    let fd = match open(CWD, root.as_os_str()).at("open", root)? {
        Some(fd) => fd,
        None => return Err(std::io::Error::from(Errno::NOENT)).at("open", root),
    };
    let wanted = if read_only { 0o440 } else { 0o660 };
    let meta = fstat(&fd).at("read", root)?;
    let is_dir = FileType::from_raw_mode(meta.st_mode) == FileType::Directory;
    let root_mode = SETGID | wanted | 0o110;
    if policy == GroupPolicy::OnRootMismatch && is_dir && meta.st_gid == group && meta.st_mode & root_mode == root_mode
    {
        return Ok(());
    }
    change(&fd, meta.st_mode, Gid::from_raw(group), wanted).at("change the owner of", root)
}

/// Changes an entry after all that is below it, so that an interrupted run is seen at the root.
fn change(fd: &OwnedFd, mode: u32, group: Gid, wanted: u32) -> std::result::Result<(), Errno> {
    let kind = FileType::from_raw_mode(mode);
    let mut bits = mode & 0o7777 | wanted;
    if kind == FileType::Directory {
        let list = openat(fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for entry in Dir::new(list)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            // What goes away meanwhile need not be changed.
            if let Some(child) = open(fd, entry.file_name())? {
                let mode = fstat(&child)?.st_mode;
                change(&child, mode, group, wanted)?;
            }
        }
        bits |= SETGID | 0o110;
    }
    chownat(fd, "", None, Some(group), AtFlags::EMPTY_PATH)?;
    if kind != FileType::Symlink {
        // A descriptor that only stands for a path cannot be changed itself, but its name in /proc can.
        let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
        chmodat(CWD, name.as_str(), Mode::from_raw_mode(bits), AtFlags::empty())?;
    }
    Ok(())
}

/// A descriptor of an entry itself, whatever it is; `None` if it is not there.
fn open(dir: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> std::result::Result<Option<OwnedFd>, Errno> {
    match openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
