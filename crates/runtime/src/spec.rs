//! What a caller asks for: sandboxes, containers and processes in them, as plain serialisable data.
//!
//! A spec is complete: nothing here refers to Kubernetes objects, images by name or users by name. The same types are
//! written to the state directory, so a field may only be added with `#[serde(default)]`.

use crate::caps::CapSet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A pod's share of the kernel: namespaces that its containers join and the cgroup above theirs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// Unique below one state directory; letters, digits, `-`, `_` and `.` only.
    pub id: String,
    /// The host name that the pod sees. Not used with the host's network, where the UTS namespace is the host's, too.
    pub hostname: String,
    /// Opaque to the runtime and given back by [`crate::Runtime::list_sandboxes`].
    pub labels: BTreeMap<String, String>,
    /// Network namespace. With [`Share::Host`] the UTS namespace is the host's, as in CRI.
    pub network: Share,
    /// IPC namespace and `/dev/shm`.
    pub ipc: Share,
    /// A user namespace of the sandbox's own, which owns its other namespaces; `None`: the host's.
    pub users: Option<IdRange>,
    /// One PID namespace for all containers (`shareProcessNamespace`): costs one small init process.
    pub shared_pid: bool,
    /// Written inside the new namespaces: `net.*`, `kernel.shm*`, `kernel.msg*`, `kernel.sem`, `fs.mqueue.*`.
    pub sysctls: BTreeMap<String, String>,
    /// Below the runtime's cgroup root, for example `burstable/pod1234`. Missing levels are made.
    pub cgroup: String,
    /// Limits of the pod as a whole.
    pub resources: Resources,
}

/// The users and groups of a sandbox: 0 to `count` inside are `first` and those after it on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// On the host; never 0, which would be root itself.
    pub first: u32,
    pub count: u32,
}

/// Whether a namespace is the node's or the sandbox's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Share {
    /// The namespace of the host.
    Host,
    /// A namespace of the sandbox, shared by its containers.
    #[default]
    Sandbox,
}

/// One container. Everything that the kernel needs to know is in here, resolved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Unique below one state directory; letters, digits, `-`, `_` and `.` only.
    pub id: String,
    /// The sandbox, which must exist.
    pub sandbox: String,
    /// Opaque to the runtime and given back by [`crate::Runtime::list_containers`].
    pub labels: BTreeMap<String, String>,
    pub rootfs: Rootfs,
    /// Program and arguments; the program is looked up in the `PATH` of `env` when it has no slash.
    pub args: Vec<String>,
    /// Name and value, in order; a later entry of the same name wins.
    pub env: Vec<(String, String)>,
    /// Working directory inside the container, made when missing; empty means `/`.
    pub cwd: String,
    pub user: User,
    pub pid: PidNamespace,
    /// The caller's mounts, sorted by the runtime so that parents come first. `/proc`, `/dev`, `/dev/pts`, `/dev/shm`,
    /// `/dev/mqueue`, `/sys` and `/sys/fs/cgroup` are always there; an entry for one of these paths replaces it.
    pub mounts: Vec<Mount>,
    /// The final set: bounding, permitted and effective. See [`crate::caps`] for the default set.
    pub capabilities: CapSet,
    pub no_new_privs: bool,
    /// All capabilities, all of the host's devices, writable `/sys` and cgroups, nothing masked, no seccomp.
    pub privileged: bool,
    pub seccomp: Seccomp,
    /// A profile of AppArmor that is loaded on the host; the container does not start without it.
    pub app_armor: Option<String>,
    /// Hidden inside the container. Start from [`crate::defaults::MASKED_PATHS`]; empty for `procMount: Unmasked`.
    pub masked_paths: Vec<String>,
    /// Read-only inside the container. Start from [`crate::defaults::READONLY_PATHS`].
    pub readonly_paths: Vec<String>,
    /// Devices of the host beyond the default ones.
    pub devices: Vec<Device>,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: i32,
    pub resources: Resources,
    pub tty: bool,
    /// Keep a standard input open for [`crate::Runtime::attach`]; else it is `/dev/null`.
    pub stdin: bool,
    /// Close the standard input when the first attached client closes its end.
    pub stdin_once: bool,
    /// First size of the terminal.
    pub terminal_size: Option<TerminalSize>,
    pub log: Option<Log>,
}

/// The root file system: an overlay of image layers, or one plain directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rootfs {
    /// Image layers, unpacked, topmost first.
    pub lower: Vec<PathBuf>,
    /// The container's writable layer, made when missing and removed with the container. `None` makes the root read-only.
    pub upper: Option<PathBuf>,
    /// Overlay's scratch directory on the same file system as `upper`. `None`: `upper` with `.work` appended.
    pub work: Option<PathBuf>,
    pub read_only: bool,
}

/// Who runs the process. Names are resolved by [`crate::user::resolve`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
}

/// The PID namespace of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    #[default]
    Own,
    /// The sandbox's, made with [`SandboxSpec::shared_pid`].
    Sandbox,
    /// Another running container's (`targetContainerName` of an ephemeral container).
    Container(String),
    Host,
}

/// A mount that the caller wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container; links are followed inside the container's root only.
    pub destination: String,
    pub source: MountSource,
    #[serde(default)]
    pub read_only: ReadOnly,
    #[serde(default)]
    pub propagation: Propagation,
}

/// Where a mount's content comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the host with what is mounted below it.
    Bind(PathBuf),
    /// A fresh tmpfs, of at most so many bytes (`None`: half of the memory), with a mode such as 0o1777.
    Tmpfs { size: Option<u64>, mode: u32 },
}

/// How far a mount is read-only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadOnly {
    #[default]
    No,
    /// The mount itself; mounts below it keep their own mode.
    Yes,
    /// With all mounts below it (`recursiveReadOnly`).
    Recursive,
}

/// Mount propagation between the host and a bind mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    /// The source must be below a shared mount of the host.
    Bidirectional,
}

/// System call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// A profile in the JSON form that container runtimes share, at this path of the host.
    Localhost(PathBuf),
}

/// A device node of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub host_path: PathBuf,
    pub container_path: String,
    /// Some of `rwm`.
    pub permissions: String,
}

/// A resource limit of the process, by its `RLIMIT_` name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// For example `RLIMIT_NOFILE`.
    pub resource: String,
    /// `u64::MAX` means unlimited.
    pub soft: u64,
    pub hard: u64,
}

/// Limits of a cgroup; `None` leaves the kernel's or the current value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Relative weight in v1's scale, 2 to 262144; converted on v2.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU per period; 0 or below means unlimited.
    pub cpu_quota: Option<i64>,
    /// Microseconds; the kernel's default is 100000.
    pub cpu_period: Option<u64>,
    /// Bytes; 0 or below means unlimited. Swap is not given beyond it.
    pub memory_max: Option<i64>,
    /// Count of tasks; 0 or below means unlimited.
    pub pids_max: Option<i64>,
    /// Bytes of huge pages by the size of a page, in bytes; of sizes that are not named none may be used.
    pub huge_pages: Option<BTreeMap<u64, u64>>,
}

/// Where the shim writes the container's output, in CRI's log format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    pub path: PathBuf,
    /// The file is rotated before it would exceed so many bytes.
    #[serde(default = "Log::default_max_bytes")]
    pub max_bytes: u64,
    /// Files kept, the current one included.
    #[serde(default = "Log::default_max_files")]
    pub max_files: u32,
}

impl Log {
    /// A log at `path` that rotates as kubelet does by default: at 10 MiB, five files.
    pub fn new(path: impl Into<PathBuf>) -> Log {
        Log { path: path.into(), max_bytes: Log::default_max_bytes(), max_files: Log::default_max_files() }
    }

    fn default_max_bytes() -> u64 {
        10 << 20
    }

    fn default_max_files() -> u32 {
        5
    }
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// A further process in a running container. Capabilities, seccomp, no_new_privs, rlimits and cgroup are the container's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    pub args: Vec<String>,
    /// `None`: the container's environment.
    pub env: Option<Vec<(String, String)>>,
    /// `None`: the container's working directory.
    pub cwd: Option<String>,
    /// `None`: the container's user.
    pub user: Option<User>,
    /// One terminal instead of three pipes; `stdout` and `stderr` then have no meaning.
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub terminal_size: Option<TerminalSize>,
}
