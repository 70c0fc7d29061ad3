//! Mount points: finding and removing them, as often as one likes.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::Result;
use crate::error::At;

/// Whether something is mounted right at this path. False if the path is not there.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error).at("read", path),
    }
}

/// All mount points at and below a path, the deepest first.
pub fn mounts_below(path: &Path) -> Result<Vec<PathBuf>> {
    let info = Path::new("/proc/self/mountinfo");
    let text = fs::read(info).at("read", info)?;
    // Paths in there are without links.
    let real = match path.canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        real => real.at("read", path)?,
    };
    let points = text.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4)).map(unescape);
    // Later lines are mounted later: over, or below, earlier ones.
    let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(&real)).collect();
    points.reverse();
    Ok(points)
}

/// Takes away whatever is mounted at and below a path; busy mounts go when their last user goes. Nothing to do is no error.
pub fn unmount_below(path: &Path) -> Result<()> {
    for point in mounts_below(path)? {
        match unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Gone in the meantime, or with the mount that it was on.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(error).at("unmount", &point),
        }
    }
    Ok(())
}

/// Unmounts all below a directory, then deletes it: never the content of what was mounted. Nothing to do is no error.
pub fn remove_dir(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Ok(meta) if !meta.is_dir() => return fs::remove_file(path).at("remove", path),
        found => found.map(drop).at("read", path)?,
    }
    unmount_below(path)?;
    if let Some(point) = mounts_below(path)?.first() {
        let still = std::io::Error::other(format!("{} is still mounted", point.display()));
        return Err(still).at("remove", path);
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.at("remove", path),
    }
}

/// mountinfo writes blanks, tabs, newlines and backslashes as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| first == b'\\');
        out.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(br"/plain\9"), Path::new(r"/plain\9"));
    }
}
