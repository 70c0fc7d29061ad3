//! Files made of API objects (configMap, secret, downwardAPI, projected), changed all at once.
//!
//! As upstream's `pkg/volume/util/atomic_writer.go`: the files lie in a directory named by the time, `..data` is a link to it,
//! and each first path element is a link through `..data`. Swapping that one link changes all files in one step, and a reader
//! that resolved it before goes on with the old ones.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use crate::error::At;
use crate::{GroupPolicy, Result, VolumeError, ownership};

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectedFile {
    /// Relative to the volume; may have directories in it.
    pub path: String,
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// The user that it belongs to; `None`: root.
    pub owner: Option<u32>,
}

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Makes the volume's directory hold exactly these files. Says whether anything changed.
///
/// `group` may read all of them. Files that are the same in name and content leave everything as it is; a run that was cut
/// off is completed.
pub fn write_projected(root: &Path, files: &[ProjectedFile], group: Option<u32>) -> Result<bool> {
    for file in files {
        check_path(&file.path)?;
    }
    if !root.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(root).at("create", root)?;
        set_mode(root, 0o777)?;
    }
    let data = root.join(DATA);
    let old = match fs::read_link(&data) {
        Ok(name) => Some(root.join(name)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).at("read", &data),
    };
    let changed = match &old {
        Some(old) => !holds_exactly(old, files)?,
        None => true,
    };
    if changed {
        swap_in(root, files, group)?;
    }
    link_names(root, files)?;
    // What the swap replaced, and what interrupted runs have left.
    let present = fs::read_link(&data).at("read", &data)?;
    for entry in fs::read_dir(root).at("read", root)? {
        let entry = entry.at("read", root)?;
        let name = entry.file_name();
        let stale = name.to_string_lossy().starts_with("..") && name != DATA && name != present.as_os_str();
        if stale && entry.file_type().at("read", &entry.path())?.is_dir() {
            fs::remove_dir_all(entry.path()).at("remove", &entry.path())?;
        } else if stale {
            fs::remove_file(entry.path()).at("remove", &entry.path())?;
        }
    }
    Ok(changed)
}

/// Writes the files into a new directory and turns `..data` to it.
fn swap_in(root: &Path, files: &[ProjectedFile], group: Option<u32>) -> Result<()> {
    let fresh = new_dir(root)?;
    let written = write_files(&fresh, files).and_then(|()| match group {
        Some(group) => ownership::give_to_group(&fresh, group, true, GroupPolicy::Always),
        None => Ok(()),
    });
    let next = root.join(DATA_NEXT);
    let swapped = written.and_then(|()| {
        match fs::remove_file(&next) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).at("remove", &next),
            _ => {}
        }
        symlink(fresh.file_name().unwrap_or_default(), &next).at("link", &next)?;
        fs::rename(&next, root.join(DATA)).at("rename", &next)
    });
    if swapped.is_err() {
        let _ = fs::remove_dir_all(&fresh);
        let _ = fs::remove_file(&next);
    }
    swapped?;
    match group {
        Some(group) => ownership::give_to_group(root, group, true, GroupPolicy::Always),
        None => Ok(()),
    }
}

/// A new directory with the time in its name. The number keeps several in one second apart.
fn new_dir(root: &Path) -> Result<PathBuf> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let stamp = stamp(now.as_secs());
    let mut n = u64::from(now.subsec_nanos());
    loop {
        let path = root.join(format!("..{stamp}.{n}"));
        match fs::create_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => n += 1,
            made => {
                made.at("create", &path)?;
                set_mode(&path, 0o755)?;
                return Ok(path);
            }
        }
    }
}

/// `2006_01_02_15_04_05` in UTC, from seconds since 1970.
fn stamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date in years that begin in March, so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}_{month:02}_{day:02}_{:02}_{:02}_{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

fn write_files(dir: &Path, files: &[ProjectedFile]) -> Result<()> {
    for file in files {
        let path = dir.join(&file.path);
        let mut parent = dir.to_owned();
        for part in Path::new(&file.path).parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            if !parent.exists() {
                fs::create_dir(&parent).at("create", &parent)?;
                set_mode(&parent, 0o755)?;
            }
        }
        // Secrets are never readable by others, not even while they are written.
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut out: File = opened.at("create", &path)?;
        out.write_all(&file.content).at("write", &path)?;
        if let Some(owner) = file.owner {
            std::os::unix::fs::fchown(&out, Some(owner), None).at("change the owner of", &path)?;
        }
        set_mode(&path, file.mode)?;
    }
    Ok(())
}

/// Whether a directory has these files, with this content, and no others.
fn holds_exactly(dir: &Path, files: &[ProjectedFile]) -> Result<bool> {
    for file in files {
        let path = dir.join(&file.path);
        match fs::read(&path) {
            Ok(content) if content == file.content => {}
            Ok(_) => return Ok(false),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory | std::io::ErrorKind::IsADirectory
                ) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error).at("read", &path),
        }
    }
    let names: BTreeSet<PathBuf> = files.iter().map(|file| dir.join(&file.path)).collect();
    let mut found = 0;
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            entries => entries.at("read", &dir)?,
        };
        for entry in entries {
            let entry = entry.at("read", &dir)?;
            if entry.file_type().at("read", &entry.path())?.is_dir() {
                left.push(entry.path());
            } else if names.contains(&entry.path()) {
                found += 1;
            } else {
                return Ok(false);
            }
        }
    }
    Ok(found == names.len())
}

/// One link per first path element into `..data`; links to what is no more are removed.
fn link_names(root: &Path, files: &[ProjectedFile]) -> Result<()> {
    let first = |file: &ProjectedFile| {
        let first = Path::new(&file.path).components().find(|part| matches!(part, Component::Normal(_)));
        first.map(|part| part.as_os_str().to_owned())
    };
    let names: BTreeSet<_> = files.iter().filter_map(first).collect();
    for name in &names {
        let link = root.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link).at("link", &link)?;
        }
    }
    for entry in fs::read_dir(root).at("read", root)? {
        let entry = entry.at("read", root)?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("..") && !names.contains(&name) {
            fs::remove_file(entry.path()).at("remove", &entry.path())?;
        }
    }
    Ok(())
}

/// As upstream's `validatePath`.
fn check_path(path: &str) -> Result<()> {
    let wrong = |why: String| Err(VolumeError::InvalidPath(why));
    if path.is_empty() {
        return wrong("must not be empty: \"\"".into());
    }
    if path.starts_with('/') {
        return wrong(format!("must be relative path: {path}"));
    }
    if path.len() > 4096 {
        return wrong("must be less than or equal to 4096 characters".into());
    }
    if path.split('/').any(|item| item == "..") {
        return wrong(format!("must not contain '..': {path}"));
    }
    if path.split('/').any(|item| item.len() > 255) {
        return wrong("filenames must be less than or equal to 255 characters".into());
    }
    if path.starts_with("..") {
        return wrong(format!("must not start with '..': {path}"));
    }
    if path.contains('\0') || Path::new(path).components().all(|part| !matches!(part, Component::Normal(_))) {
        return wrong(format!("must name a file: {path:?}"));
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("change the mode of", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        assert_eq!(stamp(0), "1970_01_01_00_00_00");
        assert_eq!(stamp(951_827_696), "2000_02_29_12_34_56");
        assert_eq!(stamp(1_795_445_999), "2026_11_23_14_59_59");
        assert_eq!(stamp(4_107_542_399), "2100_02_28_23_59_59");
        assert_eq!(stamp(4_107_542_400), "2100_03_01_00_00_00");
    }

    #[test]
    fn paths_are_checked_as_upstream_does() {
        for good in ["a", "a/b", "a/..b", ".a", "a//b"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in ["", "/a", "..", "../a", "a/../b", "..a", "..a/b", ".", "a\0", &long] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }
}
