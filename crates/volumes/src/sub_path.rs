//! subPath: a part of a volume is mounted, and nothing else, whatever containers do to the volume meanwhile.
//!
//! A path that is checked first and mounted later can be turned into a link in between. So the kernel resolves the path below
//! the volume's descriptor (`openat2` with `RESOLVE_BENEATH`), and what it opened, not its name, is bind-mounted to a place of
//! the pod's own, which containers get. Upstream: `pkg/volume/util/subpath/subpath_linux.go`.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, open, openat, openat2};
use rustix::io::Errno;
use rustix::mount::mount_bind_recursive;

use crate::error::At;
use crate::{Result, VolumeError, is_mount_point, unmount_below};

/// Mounts the part `sub` of the volume `root` at `target`, which then stands for it; makes `sub` as a directory (with the mode
/// of the volume's root) if it is not there. A target that is mounted already is mounted anew: it may stand for what has been
/// deleted since. Take it away with [`crate::remove_dir`]. Needs root.
pub fn bind_sub_path(root: &Path, sub: &str, target: &Path) -> Result<()> {
    let part = open_sub_path(root, sub)?;
    let is_dir = FileType::from_raw_mode(fstat(&part).at("read", &root.join(sub))?.st_mode) == FileType::Directory;
    if is_mount_point(target)? {
        unmount_below(target)?;
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).at("create", parent)?;
    }
    let found = fs::symlink_metadata(target).ok();
    match found {
        Some(meta) if meta.is_dir() == is_dir => {}
        Some(meta) if meta.is_dir() => fs::remove_dir(target).at("replace", target)?,
        Some(_) => fs::remove_file(target).at("replace", target)?,
        None => {}
    }
    if is_dir {
        fs::create_dir_all(target).at("create", target)?;
    } else {
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(target).at("create", target)?;
    }
    let source = format!("/proc/self/fd/{}", part.as_raw_fd());
    mount_bind_recursive(source.as_str(), target).at("mount", target)
}

/// Opens a part of a volume by path, making directories that are missing. Links in it may not lead out of the volume.
pub fn open_sub_path(root: &Path, sub: &str) -> Result<OwnedFd> {
    let parts: Vec<&std::ffi::OsStr> = Path::new(sub)
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| match part {
            Component::Normal(name) => Ok(name),
            _ => Err(VolumeError::InvalidPath(format!("must be a relative path without '..': {sub}"))),
        })
        .collect::<Result<_>>()?;
    let shown = root.join(sub);
    let volume = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("open", root)?;
    let mode = Mode::from_raw_mode(fstat(&volume).at("read", root)?.st_mode & 0o7777);
    // Resolving all from the volume's root each time lets links go up, but not out.
    let mut path = std::path::PathBuf::from(".");
    for name in parts {
        let parent = path.clone();
        path.push(name);
        match beneath(&volume, &path) {
            Ok(_) => continue,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(explain(error, sub, &shown)),
        }
        let parent = beneath(&volume, &parent).map_err(|error| explain(error, sub, &shown))?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {
                // The umask has had its say; the volume's own mode is what counts.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(&parent, name, flags, Mode::empty()).at("open", &shown)?;
                fchmod(&made, mode).at("change the mode of", &shown)?;
            }
            // Made by somebody else just now, or a link that leads nowhere, which the next look refuses.
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error).at("create", &shown),
        }
    }
    beneath(&volume, &path).map_err(|error| explain(error, sub, &shown))
}

fn beneath(volume: impl AsFd, path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(&volume, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Something was renamed while the kernel was looking.
            Err(Errno::AGAIN) => {}
            opened => return opened,
        }
    }
}

fn explain(error: Errno, sub: &str, shown: &Path) -> VolumeError {
    match error {
        Errno::XDEV | Errno::LOOP => VolumeError::Escape { sub: sub.to_owned() },
        error => match Err::<(), _>(error).at("open", shown) {
            Err(error) => error,
            Ok(()) => VolumeError::Escape { sub: sub.to_owned() },
        },
    }
}

/// For callers that only want to know whether a part of a volume is there: `open` with no file system change.
pub fn sub_path_exists(root: &Path, sub: &str) -> Result<bool> {
    let volume =
        openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("open", root)?;
    match beneath(&volume, Path::new(sub)) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(explain(error, sub, &root.join(sub))),
    }
}
