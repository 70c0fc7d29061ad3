//! What the runtime reports: sandboxes, containers, exits, usage.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A sandbox that exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    /// The network namespace to plug: a path that `setns` takes. `None` with the host's network.
    pub netns: Option<PathBuf>,
    /// Where the sandbox's containers are, below the cgroup root.
    pub cgroup: String,
    /// Unix time in nanoseconds.
    pub created_at: u64,
    /// False when a reboot or somebody else took its namespaces away: remove it and make a new one.
    pub ready: bool,
}

/// A container that exists, with its state when it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    pub id: String,
    pub sandbox: String,
    pub labels: BTreeMap<String, String>,
    /// Unix time in nanoseconds.
    pub created_at: u64,
    pub status: ContainerStatus,
    /// Restrictions or settings that this machine could not give in full, one sentence each.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ContainerStatus {
    Created,
    Running {
        /// The first process, as the host numbers it.
        pid: i32,
        /// Unix time in nanoseconds.
        started_at: u64,
    },
    Exited(ExitInfo),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitInfo {
    /// The program's own code, or 128 + signal; 255 when the shim was lost and nobody saw the end.
    pub exit_code: i32,
    /// The signal that ended it, 0 for none.
    pub signal: i32,
    /// The kernel's OOM killer struck inside the container's cgroup.
    pub oom_killed: bool,
    /// Unix time in nanoseconds; 0 if it never started.
    pub started_at: u64,
    /// Unix time in nanoseconds.
    pub finished_at: u64,
    /// Why, where the runtime knows more than the numbers say; else empty.
    #[serde(default)]
    pub message: String,
}

/// How a process of [`crate::Runtime::exec`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The program's own code, or 128 + signal.
    pub exit_code: i32,
    /// The signal that ended it, 0 for none.
    pub signal: i32,
}

/// Usage of a cgroup at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Unix time in nanoseconds.
    pub at: u64,
    /// CPU time used since the cgroup was made, in nanoseconds.
    pub cpu_usage: u64,
    /// Bytes, page cache included.
    pub memory_usage: u64,
    /// Bytes without inactive page cache, as kubelet counts it.
    pub memory_working_set: u64,
    /// Bytes of anonymous memory.
    pub memory_rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub pids: u64,
}

/// Unix time in nanoseconds.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
