//! What is on disk: one directory per sandbox and per container below the state directory, each with small JSON files that
//! are replaced whole. A directory without its record is what a crash left of an unfinished creation.

use crate::cgroup::Cgroups;
use crate::proto::VERSION;
use crate::{ContainerSpec, Error, ExitInfo, IdRange, Result, SandboxSpec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// `sandboxes/<id>/sandbox.json`
#[derive(Debug, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub version: u32,
    pub created_at: u64,
    pub spec: SandboxSpec,
    /// The init process of a shared PID namespace.
    pub init: Option<ProcessRef>,
    /// Namespaces live as long as the machine is up.
    pub boot_id: String,
}

/// `containers/<id>/container.json`: all that a shim needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub version: u32,
    pub created_at: u64,
    pub spec: ContainerSpec,
    /// Below the root cgroup.
    pub cgroup: String,
    pub cgroups: Cgroups,
    /// Pinned namespaces to join; `None` is the host's.
    pub net: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    pub shm: PathBuf,
    /// The sandbox's user namespace; `None` is the host's.
    #[serde(default)]
    pub users: Option<Users>,
}

/// A user namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Users {
    /// Where it is pinned.
    pub pin: PathBuf,
    pub ids: IdRange,
}

/// `containers/<id>/state.json`: there from the start of the program on.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunningRecord {
    pub version: u32,
    pub shim: ProcessRef,
    pub init: ProcessRef,
    pub started_at: u64,
    pub notes: Vec<String>,
}

pub const SANDBOX_FILE: &str = "sandbox.json";
pub const CONTAINER_FILE: &str = "container.json";
pub const STATE_FILE: &str = "state.json";
pub const EXIT_FILE: &str = "exit.json";
pub const SOCKET_FILE: &str = "shim.sock";
pub const LOCK_FILE: &str = "lock";
/// Panics and complaints of the shim.
pub const SHIM_LOG_FILE: &str = "shim.log";

/// A process that cannot be mistaken for a later one of the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    pub pid: i32,
    /// In clock ticks since boot.
    pub start: u64,
    pub boot_id: String,
}

impl ProcessRef {
    pub fn of(pid: i32) -> Result<ProcessRef> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).map_err(|e| Error::file(&path, e))?;
        let start = start_time(&stat).ok_or_else(|| Error::file(&path, io::Error::from(io::ErrorKind::InvalidData)))?;
        Ok(ProcessRef { pid, start, boot_id: boot_id()? })
    }

    /// A pidfd, if the process still is (it may have ended without having been reaped).
    pub fn open(&self) -> Option<OwnedFd> {
        let pid = rustix::process::Pid::from_raw(self.pid)?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
        // Checked after opening: the number cannot change hands any more.
        (ProcessRef::of(self.pid).ok()? == *self).then_some(pidfd)
    }
}

/// Field 22; the name in field 2 may contain anything, so count from its end.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Fields 48 and 49: where the command line lies in memory.
pub fn argument_bounds(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(45);
    let (start, end) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (start < end).then_some((start, end))
}

pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path).map_err(|e| Error::file(path, e))?.trim().to_string())
}

/// Ids become file names and cgroup names.
pub fn check_id(id: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.chars().all(good) {
        return Err(Error::Invalid(format!("{id:?} is not an id: letters, digits, '-', '_' and '.', at most 128")));
    }
    Ok(())
}

/// Replaces a file as a whole.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    // Of its own name: a shim and two looks of the server may write the same file at once.
    static WRITES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let count = WRITES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let temporary = path.with_extension(format!("new.{}.{count}", std::process::id()));
    let bytes = serde_json::to_vec(value).map_err(|e| Error::file(path, io::Error::other(e)))?;
    fs::write(&temporary, bytes).map_err(|e| Error::file(&temporary, e))?;
    fs::rename(&temporary, path).map_err(|e| Error::file(path, e))
}

/// Reads a file; `None` if it is not there.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| Error::file(path, e))?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::file(path, io::Error::other(e)))
}

/// Reads a record with a version and refuses one from a future.
pub fn read_versioned<T: DeserializeOwned>(path: &Path, version: impl Fn(&T) -> u32) -> Result<Option<T>> {
    let record = read(path)?;
    match record {
        Some(record) if version(&record) > VERSION => {
            let sentence = format!("{} is of version {}, newer than this program", path.display(), version(&record));
            Err(Error::Unsupported(sentence))
        }
        other => Ok(other),
    }
}

pub fn read_exit(directory: &Path) -> Result<Option<ExitInfo>> {
    read(&directory.join(EXIT_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_survives_hostile_names() {
        let stat = "12 (a) R 1 (b)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(start_time(stat), Some(4711));
        assert!(ProcessRef::of(std::process::id() as i32).unwrap().open().is_some());
    }

    #[test]
    fn ids() {
        assert!(check_id("pod-1_a.b").is_ok());
        for id in ["", ".", "..", "a/b", ".a", "ä", &"a".repeat(129)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
