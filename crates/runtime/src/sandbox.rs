//! Sandboxes: namespaces without a process. A thread of the server steps into new namespaces, sets them up, pins them as
//! bind mounts of its `/proc/thread-self/ns` files and ends.

use crate::cgroup::Cgroups;
use crate::proto::VERSION;
use crate::state::{self, ProcessRef, SandboxRecord};
use crate::{Error, Result, Sandbox, SandboxSpec, Share, defaults, pause, status, sys, users};
use rustix::mount::{MountFlags, UnmountFlags};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Which kernel parameters belong to which namespace, as kubelet `pkg/kubelet/sysctl/namespace.go` has them.
const IPC_SYSCTLS: [&str; 4] = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
const NET_SYSCTLS: &str = "net.";

/// What `statfs` says of a pinned namespace.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// Names of the pins, below the sandbox's directory.
const PINS: [(&str, libc::c_int); 4] = [
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    (USER, libc::CLONE_NEWUSER),
];
const USER: &str = "user";
const SHM: &str = "shm";

/// Namespaces that a sandbox has of its own.
pub fn own(spec: &SandboxSpec) -> libc::c_int {
    let net = if spec.network == Share::Sandbox { libc::CLONE_NEWNET | libc::CLONE_NEWUTS } else { 0 };
    let users = if spec.users.is_some() { libc::CLONE_NEWUSER } else { 0 };
    net | users | if spec.ipc == Share::Sandbox { libc::CLONE_NEWIPC } else { 0 }
}

/// The sandbox's user namespace, if it has one.
pub fn users(directory: &Path, spec: &SandboxSpec) -> Option<state::Users> {
    Some(state::Users { ids: spec.users?, pin: directory.join(USER) })
}

/// The pin of a namespace, `None` for the host's.
pub fn pin(directory: &Path, spec: &SandboxSpec, name: &str) -> Option<PathBuf> {
    let kind = PINS.iter().find(|(n, _)| *n == name)?.1;
    (own(spec) & kind != 0).then(|| directory.join(name))
}

/// The `/dev/shm` of a sandbox's containers.
pub fn shm(directory: &Path, spec: &SandboxSpec) -> PathBuf {
    if spec.ipc == Share::Sandbox { directory.join(SHM) } else { PathBuf::from("/dev/shm") }
}

/// Makes a sandbox in an empty directory. The caller cleans up after an error with [`remove`].
pub fn create(
    directory: &Path,
    spec: &SandboxSpec,
    cgroups: &Cgroups,
    spawn: &dyn Fn(&str) -> Result<()>,
) -> Result<()> {
    check_sysctls(spec)?;
    cgroups.create(&spec.cgroup)?;
    cgroups.set(&spec.cgroup, &spec.resources)?;
    if spec.users.is_some() {
        // Only a process with one thread may step into a user namespace.
        state::write(&directory.join(users::ORDER_FILE), spec)?;
        spawn(users::ARGUMENT)?;
    } else {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("sandbox".into());
            let started = thread.spawn_scoped(scope, || make_namespaces(directory, spec));
            let joined = started.map_err(|e| Error::system("start a thread", e))?.join();
            joined.map_err(|_| Error::system("make namespaces", io::Error::other("the thread panicked")))?
        })?;
    }
    let init = if spec.shared_pid {
        let users = users(directory, spec).map(|users| users.pin);
        let order = pause::Order { cgroups: cgroups.clone(), cgroup: format!("{}/init", spec.cgroup), users };
        cgroups.create(&order.cgroup)?;
        state::write(&directory.join(pause::ORDER_FILE), &order)?;
        spawn(pause::ARGUMENT)?;
        state::read::<ProcessRef>(&directory.join(pause::INIT_FILE))?
    } else {
        None
    };
    let record = SandboxRecord {
        version: VERSION,
        created_at: status::now(),
        spec: spec.clone(),
        init,
        boot_id: state::boot_id()?,
    };
    state::write(&directory.join(state::SANDBOX_FILE), &record)
}

/// Runs on a thread of its own, whose namespaces it changes.
fn make_namespaces(directory: &Path, spec: &SandboxSpec) -> Result<()> {
    let namespaces = own(spec);
    if namespaces != 0 {
        sys::unshare(namespaces).map_err(|e| Error::system("make namespaces", e))?;
    }
    settle(directory, spec, "/proc/thread-self/ns")
}

/// In the sandbox's namespaces, with the host's rights: sets them up and pins them. `shown`: the directory of `/proc` that
/// shows them.
pub fn settle(directory: &Path, spec: &SandboxSpec, shown: &str) -> Result<()> {
    let namespaces = own(spec);
    if namespaces & libc::CLONE_NEWUTS != 0 {
        rustix::system::sethostname(spec.hostname.as_bytes())
            .map_err(|e| Error::system(format!("set the host name {:?}", spec.hostname), e))?;
    }
    if namespaces & libc::CLONE_NEWNET != 0 {
        sys::loopback_up().map_err(|e| Error::system("bring the loopback link up", e))?;
    }
    for (name, value) in &spec.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value).map_err(|e| Error::system(format!("set sysctl {name} to {value:?}"), e))?;
    }
    for (name, kind) in PINS {
        if namespaces & kind == 0 {
            continue;
        }
        let pin = directory.join(name);
        fs::write(&pin, "").map_err(|e| Error::file(&pin, e))?;
        let source = format!("{shown}/{name}");
        rustix::mount::mount_bind(source.as_str(), &pin)
            .map_err(|e| Error::system(format!("pin {name} namespace"), e))?;
    }
    if spec.ipc == Share::Sandbox {
        let shm = directory.join(SHM);
        fs::create_dir_all(&shm).map_err(|e| Error::file(&shm, e))?;
        let owner = spec.users.map_or(0, |ids| ids.first);
        let options = format!("mode=1777,size={},uid={owner},gid={owner}", defaults::SHM_BYTES);
        let options = std::ffi::CString::new(options).expect("no zero byte");
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("shm", &shm, "tmpfs", flags, options.as_c_str())
            .map_err(|e| Error::system("mount the sandbox's /dev/shm", e))?;
    }
    Ok(())
}

/// A parameter of a namespace that is the host's would change the host.
fn check_sysctls(spec: &SandboxSpec) -> Result<()> {
    for name in spec.sysctls.keys() {
        let plain = name
            .split('.')
            .all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/')));
        let net = name.starts_with(NET_SYSCTLS);
        let share = match (net, IPC_SYSCTLS.iter().any(|prefix| name.starts_with(prefix))) {
            (true, _) => spec.network,
            (_, true) => spec.ipc,
            _ => Share::Host,
        };
        if !plain || name.contains("..") || share == Share::Host {
            return Err(Error::Invalid(format!("sysctl {name:?} is not of a namespace that the sandbox owns")));
        }
    }
    Ok(())
}

/// Takes away what [`create`] made, whole or in part.
pub fn remove(directory: &Path, cgroups: &Cgroups) -> Result<()> {
    let record: Option<SandboxRecord> = state::read(&directory.join(state::SANDBOX_FILE))?;
    let init: Option<ProcessRef> = state::read(&directory.join(pause::INIT_FILE))?;
    if let Some(pidfd) = init.and_then(|init| init.open()) {
        sys::kill_pidfd(rustix::fd::AsFd::as_fd(&pidfd), libc::SIGKILL)
            .map_err(|e| Error::system("kill the sandbox's init process", e))?;
    }
    for name in PINS.iter().map(|(name, _)| *name).chain([SHM]) {
        let path = directory.join(name);
        // EINVAL: nothing is mounted there.
        let _ = rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
    if let Some(record) = record {
        cgroups.remove(&record.spec.cgroup)?;
    }
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file(directory, e)),
        _ => Ok(()),
    }
}

/// What a record says, checked against the kernel.
pub fn describe(directory: &Path, record: SandboxRecord) -> Result<Sandbox> {
    let netns = pin(directory, &record.spec, "net");
    let pinned = |name: &str| match pin(directory, &record.spec, name) {
        None => true,
        Some(path) => rustix::fs::statfs(&path).is_ok_and(|s| s.f_type == NSFS_MAGIC),
    };
    let ready = record.boot_id == state::boot_id()?
        && PINS.iter().all(|(name, _)| pinned(name))
        && (!record.spec.shared_pid || record.init.as_ref().is_some_and(|init| init.open().is_some()));
    Ok(Sandbox {
        id: record.spec.id,
        labels: record.spec.labels,
        netns,
        cgroup: record.spec.cgroup,
        created_at: record.created_at,
        ready,
    })
}
