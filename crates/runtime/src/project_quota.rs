//! How much a directory may hold, where its file system keeps account of projects (ext4 and XFS mounted with `prjquota`).
//!
//! A project's number stands in the directory's own attributes and is passed on to all that is made in it, so nothing is
//! remembered here. Upstream: `pkg/volume/util/fsquota`, which only measures.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::sys::{self, FileAttributes};

/// New files and directories take the directory's project (`linux/fs.h` `FS_XFLAG_PROJINHERIT`).
const INHERIT: u32 = 0x200;
/// The first number that we give, as upstream (`fsquota/common` `FirstQuota`).
const FIRST: u32 = 1_048_577;
/// Numbers that are tried for a directory.
const TRIES_MAX: u32 = 65_536;

/// Bounds what a directory holds to so many bytes, or changes its bound; true if its file system can do that. A directory that held
/// something before its first bound stays without.
///
/// Its number is one that no other directory beside it has, and that nobody else has used.
pub fn set(directory: &Path, bytes: u64) -> io::Result<bool> {
    // Two directories must not take the same number.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = open(directory)?;
    let Some(mut attributes) = attributes(&dir)? else { return Ok(false) };
    let known = attributes.project != 0;
    if sys::project_quota(dir.as_fd(), if known { attributes.project } else { FIRST }).is_err_and(|e| is_off(&e)) {
        return Ok(false);
    }
    if !known {
        if fs::read_dir(directory)?.next().is_some() {
            return Ok(false);
        }
        attributes.project = free_number(directory, &dir)?;
        attributes.flags |= INHERIT;
    }
    // First the bound: what has the number has it, too.
    sys::set_project_quota(dir.as_fd(), attributes.project, bytes)?;
    if !known {
        sys::set_file_attributes(dir.as_fd(), &attributes)?;
    }
    Ok(true)
}

/// Takes the bound away, before the directory is removed. Fine if it has none, or is not there.
pub fn clear(directory: &Path) -> io::Result<()> {
    let dir = match open(directory) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        dir => dir?,
    };
    match attributes(&dir)? {
        Some(attributes) if attributes.project >= FIRST => {
            match sys::set_project_quota(dir.as_fd(), attributes.project, 0) {
                Err(e) if is_off(&e) => Ok(()),
                done => done,
            }
        }
        _ => Ok(()),
    }
}

fn open(directory: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(directory)
}

/// `None`: this file system has no such attributes.
fn attributes(dir: &File) -> io::Result<Option<FileAttributes>> {
    match sys::file_attributes(dir.as_fd()) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP)) => Ok(None),
        found => found.map(Some),
    }
}

/// Nobody keeps account of projects here.
fn is_off(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ESRCH | libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL | libc::ENOTBLK | libc::EPERM)
    )
}

fn free_number(directory: &Path, dir: &File) -> io::Result<u32> {
    let beside = directory.parent().map(fs::read_dir).transpose()?.into_iter().flatten().flatten();
    let number = |path: &Path| Some(attributes(&open(path).ok()?).ok()??.project);
    let taken: HashSet<u32> = beside.filter_map(|entry| number(&entry.path())).collect();
    let free = (FIRST..FIRST + TRIES_MAX).filter(|n| !taken.contains(n)).find(|n| {
        // XFS knows nothing of a number that was never used.
        sys::project_quota(dir.as_fd(), *n).map_or_else(|e| e.kind() == ErrorKind::NotFound, |used| used == (0, 0))
    });
    free.ok_or_else(|| io::Error::other("all numbers of projects are in use"))
}
