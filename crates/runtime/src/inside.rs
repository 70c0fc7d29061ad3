//! Paths inside a container's root, which belongs to a stranger: every lookup is bounded by `openat2(RESOLVE_IN_ROOT)`, so
//! no link of a hostile image leads out.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Opens a path below `root`; absolute links and `..` stay inside.
pub fn open(root: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    resolve(root, path, flags, ResolveFlags::empty())
}

/// Like [`open`], and refuses links on the way.
pub fn open_plain(root: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    resolve(root, path, flags, ResolveFlags::NO_SYMLINKS)
}

fn resolve(root: impl AsFd, path: &str, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    let path = if path.is_empty() { "." } else { path };
    loop {
        // EAGAIN: something was renamed during the lookup.
        match rustix::fs::openat2(&root, path, flags, Mode::empty(), how) {
            Err(Errno::AGAIN) => {}
            done => return done,
        }
    }
}

/// Makes a directory with all levels above it and opens it with `O_PATH`.
pub fn make_directory(root: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    make_levels(root.as_fd(), path, LINKS_MAX)
}

/// The kernel's own bound.
const LINKS_MAX: u32 = 40;

fn make_levels(root: BorrowedFd<'_>, path: &str, links_left: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open(root, path, flags) {
        Err(Errno::NOENT) => {}
        done => return done,
    }
    let (parent, name) = split(path);
    let directory = make_levels(root, parent, links_left)?;
    match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => open(root, path, flags),
        // A link to something that is not there yet, such as `/var/run` of an image without `/run`: make that.
        Err(Errno::EXIST) if links_left > 0 => match rustix::fs::readlinkat(&directory, name, Vec::new()) {
            Ok(target) => {
                let target = target.to_str().map_err(|_| Errno::ILSEQ)?.to_string();
                let path = if target.starts_with('/') { target } else { format!("{parent}/{target}") };
                make_levels(root, &path, links_left - 1)
            }
            Err(_) => open(root, path, flags),
        },
        Err(e) => Err(e),
    }
}

/// Makes an empty file where there is nothing and opens what is there with `O_PATH`.
pub fn make_file(root: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    match open(&root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        done => return done,
    }
    let (parent, name) = split(path);
    let parent = make_directory(&root, parent)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => open(&root, path, OFlags::PATH),
        Err(e) => Err(e),
    }
}

/// The parent and the last name of a path.
pub fn split(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').unwrap_or(("", path))
}
