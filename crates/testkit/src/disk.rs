//! A file system of its own, in a file: for what must be full, or new.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::mount::{UnmountFlags, unmount};

use crate::{run, tools};

/// An empty ext4, mounted. It stays mounted unless [`Disk::unmount`] is called: a test that fails leaves it to be looked at.
pub struct Disk {
    file: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// Makes the directory `at`, and `at` with `.disk` at its end for a file of `mib` MiB, of which what is never written takes no room.
    ///
    /// # Errors
    /// If this is not root, or there is no room.
    pub fn mount(at: &Path, mib: u64) -> Result<Disk> {
        tools::apt("mkfs.ext4", &["e2fsprogs"])?;
        let mut file = at.as_os_str().to_owned();
        file.push(".disk");
        let file = PathBuf::from(file);
        fs::create_dir_all(at).with_context(|| at.display().to_string())?;
        File::create(&file).and_then(|made| made.set_len(mib << 20)).with_context(|| file.display().to_string())?;
        // What is put off would be written while somebody measures.
        run(Command::new("mkfs.ext4")
            .args(["-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&file))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(at))?;
        Ok(Disk { file, at: at.to_owned() })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Takes it away, with all that is on it.
    ///
    /// # Errors
    /// If it is in use.
    pub fn unmount(self) -> Result<()> {
        unmount(&self.at, UnmountFlags::empty()).with_context(|| self.at.display().to_string())?;
        fs::remove_dir(&self.at)?;
        fs::remove_file(&self.file).with_context(|| self.file.display().to_string())
    }
}
