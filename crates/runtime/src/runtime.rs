//! The server's side: everything that a node asks of the runtime.
//!
//! Nothing is remembered in memory but what never changes: each call reads the state directory, so a restarted server simply goes on.

use crate::cgroup::{Cgroups, DeviceRule};
use crate::maker::Maker;
use crate::proto::{self, Op, Reply, Started, VERSION};
use crate::session::Connection;
use crate::state::{self, ContainerRecord, RunningRecord, SandboxRecord};
use crate::{
    Attachment, Container, ContainerSpec, ContainerStatus, Error, ExecSession, ExecSpec, ExitInfo, Resources, Result,
    Sandbox, SandboxSpec, Stats, TerminalSize, sandbox, shim, status, sys, user, users,
};
use rustix::mount::{MountAttrFlags, OpenTreeFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where a runtime keeps its things.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// For example `…/run`; made when missing. One runtime per directory at a time.
    pub state_dir: PathBuf,
    /// The executable whose `main` calls [`crate::dispatch`]; usually `/proc/self/exe`.
    pub exe: PathBuf,
    /// Name of the cgroup above all others, for example `corten-default`: no slashes. Made when missing.
    pub cgroup_root: String,
}

/// The container runtime. Cheap to share behind an `Arc`; all methods may be called from any thread.
#[derive(Debug)]
pub struct Runtime {
    state_dir: PathBuf,
    /// A private read-only view of the executable: a process in a container that gets hold of its `/proc/<pid>/exe` cannot
    /// write to the host's file through it.
    exe: OwnedFd,
    cgroups: Cgroups,
    maker: Mutex<Option<Maker>>,
    /// The sandboxes of containers, by their ids, as far as they have been read.
    homes: Mutex<HashMap<String, String>>,
}

/// A running container's shim, held open.
#[derive(Debug)]
pub struct RunningShim {
    /// Readable once the container has ended; then [`Runtime::exit_info`] answers.
    pub pidfd: OwnedFd,
}

/// Containers that are gone and whose sandboxes are remembered, beside as many as there are.
const HOMES_SPARE: usize = 64;

/// How long a shim may take to go after its container was killed.
const SHIM_END: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };

impl Runtime {
    /// Checks the machine (root, kernel, cgroups), makes the state directory and the root cgroup, and clears away what a
    /// crash left of unfinished creations.
    pub fn new(config: RuntimeConfig) -> Result<Runtime> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::Unsupported("containers need root".into()));
        }
        state::check_id(&config.cgroup_root)?;
        for directory in ["containers", "sandboxes"] {
            let path = config.state_dir.join(directory);
            fs::create_dir_all(&path).map_err(|e| Error::file(&path, e))?;
        }
        restrict(&config.state_dir, 0o700)?;
        // Relative names and links would mean something else to a shim.
        let state_dir = config.state_dir.canonicalize().map_err(|e| Error::file(&config.state_dir, e))?;
        let runtime = Runtime {
            state_dir,
            exe: read_only_view(&config.exe)?,
            cgroups: Cgroups::open(&config.cgroup_root)?,
            maker: Mutex::new(None),
            homes: Mutex::default(),
        };
        runtime.clear_unfinished()?;
        Ok(runtime)
    }

    fn clear_unfinished(&self) -> Result<()> {
        for directory in directories(&self.state_dir.join("sandboxes"))? {
            if !directory.join(state::SANDBOX_FILE).exists() {
                sandbox::remove(&directory, &self.cgroups)?;
            }
        }
        for directory in directories(&self.state_dir.join("containers"))? {
            if !directory.join(state::CONTAINER_FILE).exists() {
                fs::remove_dir_all(&directory).map_err(|e| Error::file(&directory, e))?;
            }
        }
        Ok(())
    }

    fn sandbox_directory(&self, id: &str) -> Result<PathBuf> {
        state::check_id(id)?;
        Ok(self.state_dir.join("sandboxes").join(id))
    }

    fn container_directory(&self, id: &str) -> Result<PathBuf> {
        state::check_id(id)?;
        Ok(self.state_dir.join("containers").join(id))
    }

    fn sandbox_record(&self, id: &str) -> Result<SandboxRecord> {
        let path = self.sandbox_directory(id)?.join(state::SANDBOX_FILE);
        let record = state::read_versioned(&path, |r: &SandboxRecord| r.version)?;
        record.ok_or_else(|| Error::NotFound { what: "sandbox", id: id.to_string() })
    }

    fn record(&self, id: &str) -> Result<ContainerRecord> {
        let path = self.container_directory(id)?.join(state::CONTAINER_FILE);
        let record = state::read_versioned(&path, |r: &ContainerRecord| r.version)?;
        record.ok_or_else(|| Error::NotFound { what: "container", id: id.to_string() })
    }

    /// Makes the sandbox's namespaces and cgroup. An error leaves nothing behind.
    pub fn create_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox> {
        let directory = self.sandbox_directory(&spec.id)?;
        make_new(&directory, "sandbox", &spec.id)?;
        let spawn = |argument: &str| self.spawn(argument, &directory, &spec.id);
        if let Err(e) = sandbox::create(&directory, spec, &self.cgroups, &spawn) {
            let _ = sandbox::remove(&directory, &self.cgroups);
            let _ = self.cgroups.remove(&spec.cgroup);
            return Err(e);
        }
        self.sandbox(&spec.id)
    }

    /// Kills and deletes what is left of its containers and takes away namespaces, cgroup and state. Idempotent.
    pub fn remove_sandbox(&self, id: &str) -> Result<()> {
        let directory = self.sandbox_directory(id)?;
        for container in self.containers_in(|sandbox| sandbox == id)? {
            self.delete_container(&container)?;
        }
        sandbox::remove(&directory, &self.cgroups)
    }

    pub fn sandbox(&self, id: &str) -> Result<Sandbox> {
        sandbox::describe(&self.sandbox_directory(id)?, self.sandbox_record(id)?)
    }

    pub fn list_sandboxes(&self) -> Result<Vec<Sandbox>> {
        each(&self.state_dir.join("sandboxes"), |id| self.sandbox(id))
    }

    /// Records a container: checks the spec and makes its cgroup and writable layer. No process yet.
    pub fn create_container(&self, spec: &ContainerSpec) -> Result<()> {
        let sandbox = self.sandbox_record(&spec.sandbox)?;
        let directory = self.container_directory(&spec.id)?;
        check(spec)?;
        users::check(&spec.user, sandbox.spec.users)?;
        make_new(&directory, "container", &spec.id)?;
        let record = ContainerRecord {
            version: VERSION,
            created_at: status::now(),
            spec: with_home(spec),
            cgroup: format!("{}/{}", sandbox.spec.cgroup, spec.id),
            cgroups: self.cgroups.clone(),
            net: sandbox::pin(&self.sandbox_directory(&spec.sandbox)?, &sandbox.spec, "net"),
            ipc: sandbox::pin(&self.sandbox_directory(&spec.sandbox)?, &sandbox.spec, "ipc"),
            uts: sandbox::pin(&self.sandbox_directory(&spec.sandbox)?, &sandbox.spec, "uts"),
            shm: sandbox::shm(&self.sandbox_directory(&spec.sandbox)?, &sandbox.spec),
            users: sandbox::users(&self.sandbox_directory(&spec.sandbox)?, &sandbox.spec),
        };
        if let Err(e) = self.prepare(&directory, &record) {
            let _ = self.cgroups.remove(&record.cgroup);
            let _ = fs::remove_dir_all(&directory);
            return Err(e);
        }
        Ok(())
    }

    fn prepare(&self, directory: &Path, record: &ContainerRecord) -> Result<()> {
        let spec = &record.spec;
        for path in [Some(directory.join("rootfs")), spec.rootfs.upper.clone(), spec.rootfs.work_directory()] {
            let Some(path) = path else { continue };
            fs::create_dir_all(&path).map_err(|e| Error::file(&path, e))?;
        }
        if let (Some(users), Some(upper)) = (&record.users, &spec.rootfs.upper) {
            // What the container writes lies there under its users' numbers on the host; so does the root itself.
            let owner = Some(users.ids.first);
            std::os::unix::fs::chown(upper, owner, owner).map_err(|e| Error::file(upper, e))?;
        }
        self.cgroups.create(&record.cgroup)?;
        self.cgroups.set(&record.cgroup, &spec.resources)?;
        self.cgroups.kill_together_on_oom(&record.cgroup)?;
        if !spec.privileged {
            let mut rules = DeviceRule::defaults();
            for device in &spec.devices {
                rules.push(DeviceRule::of(&device.host_path, &device.permissions)?);
            }
            self.cgroups.restrict_devices(&record.cgroup, &rules)?;
        }
        state::write(&directory.join(state::CONTAINER_FILE), record)
    }

    /// Starts the shim and the container's program. Returns once the program runs (its `execve` has succeeded). After an
    /// error of the program ([`Error::is_start_error`]) the container is `Exited` with code 128.
    pub fn start_container(&self, id: &str) -> Result<RunningShim> {
        let directory = self.container_directory(id)?;
        match self.container(id)?.status {
            ContainerStatus::Created => {}
            ContainerStatus::Running { .. } => return Err(Error::State { id: id.into(), state: "already running" }),
            ContainerStatus::Exited(_) => return Err(Error::State { id: id.into(), state: "exited" }),
        }
        self.spawn(shim::ARGUMENT, &directory, id)?;
        match self.running_shim(id)? {
            Some(running) => Ok(running),
            // It has ended already: a descriptor that is readable at once says so.
            None => Ok(RunningShim { pidfd: readable()? }),
        }
    }

    /// Starts one of our own processes and waits for its report.
    fn spawn(&self, argument: &str, directory: &Path, id: &str) -> Result<()> {
        let failed = |e: io::Error| Error::system("start a shim", e);
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| Error::system("socketpair", e))?;
        let log_path = directory.join(state::SHIM_LOG_FILE);
        let log = fs::File::create(&log_path).map_err(|e| Error::file(&log_path, e))?;
        self.order(argument, directory, theirs.as_fd(), log.as_fd())?;
        // Without our copy of the other end, the end of file means that the process has died.
        drop(theirs);
        match proto::receive::<Started>(&ours).map_err(failed)? {
            Some((Started::Running, _)) => Ok(()),
            Some((Started::Failed { message, start: true }, _)) => Err(Error::Start(message)),
            Some((Started::Failed { message, .. }, _)) => Err(Error::Shim { id: id.to_string(), message }),
            None => {
                let message = fs::read_to_string(&log_path).unwrap_or_default();
                let message = if message.is_empty() { "it ended without a word".into() } else { message };
                Err(Error::Shim { id: id.to_string(), message })
            }
        }
    }

    /// Has the maker of shims fork; starts it with the first order, and anew when it was killed.
    fn order(&self, argument: &str, directory: &Path, report: BorrowedFd<'_>, log: BorrowedFd<'_>) -> Result<()> {
        let mut maker = self.maker.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(running) = maker.as_ref()
            && running.order(argument, directory, report, log).is_ok()
        {
            return Ok(());
        }
        // Dropping the old one first: it is reaped then.
        *maker = None;
        let started = maker.insert(Maker::start(&self.exe)?);
        started.order(argument, directory, report, log).map_err(|e| Error::system("ask the maker of shims", e))
    }

    pub fn container(&self, id: &str) -> Result<Container> {
        let record = self.record(id)?;
        let directory = self.container_directory(id)?;
        let running: Option<RunningRecord> = state::read(&directory.join(state::STATE_FILE))?;
        let status = self.status(id, &directory, &record, running.as_ref())?;
        Ok(Container {
            id: record.spec.id,
            sandbox: record.spec.sandbox,
            labels: record.spec.labels,
            created_at: record.created_at,
            status,
            notes: running.map_or(vec![], |r| r.notes),
        })
    }

    fn status(
        &self,
        id: &str,
        directory: &Path,
        record: &ContainerRecord,
        running: Option<&RunningRecord>,
    ) -> Result<ContainerStatus> {
        if let Some(exit) = state::read_exit(directory)? {
            return Ok(ContainerStatus::Exited(exit));
        }
        let Some(running) = running else { return Ok(ContainerStatus::Created) };
        if running.shim.open().is_some_and(|pidfd| !is_readable(&pidfd)) {
            return Ok(ContainerStatus::Running { pid: running.init.pid, started_at: running.started_at });
        }
        // It may have ended properly between the two looks.
        if let Some(exit) = state::read_exit(directory)? {
            return Ok(ContainerStatus::Exited(exit));
        }
        self.cgroups.kill(&record.cgroup)?;
        let exit = ExitInfo {
            exit_code: 255,
            signal: 0,
            oom_killed: false,
            started_at: running.started_at,
            finished_at: status::now(),
            message: format!("The shim of container {id} was lost; how the container ended is not known."),
        };
        state::write(&directory.join(state::EXIT_FILE), &exit)?;
        Ok(ContainerStatus::Exited(exit))
    }

    pub fn list_containers(&self) -> Result<Vec<Container>> {
        each(&self.state_dir.join("containers"), |id| self.container(id))
    }

    /// Ids of the containers whose sandbox fits. Much less work than [`Runtime::list_containers`]: a record is read once, as a
    /// container never changes its sandbox.
    pub fn containers_in(&self, fits: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        let parent = self.state_dir.join("containers");
        let (mut found, mut count) = (Vec::new(), 0);
        for entry in fs::read_dir(&parent).map_err(|e| Error::file(&parent, e))?.flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str() else { continue };
            count += 1;
            if !homes.contains_key(id) {
                match self.record(id) {
                    Ok(record) => drop(homes.insert(id.to_owned(), record.spec.sandbox)),
                    // It vanishes, or is not finished.
                    Err(e) if e.is_not_found() => {}
                    Err(e) => return Err(e),
                }
            }
            if homes.get(id).is_some_and(|sandbox| fits(sandbox)) {
                found.push(id.to_owned());
            }
        }
        // Those that are gone are forgotten, but not one by one: when hundreds go, each asks.
        if homes.len() > 2 * count + HOMES_SPARE {
            homes.retain(|id, _| parent.join(id).exists());
        }
        Ok(found)
    }

    /// Ids of all sandboxes; nothing is read of them.
    pub fn sandbox_ids(&self) -> Result<Vec<String>> {
        each(&self.state_dir.join("sandboxes"), |id| Ok(id.to_owned()))
    }

    fn running(&self, id: &str) -> Result<RunningRecord> {
        let record = state::read(&self.container_directory(id)?.join(state::STATE_FILE))?;
        record.ok_or_else(|| Error::State { id: id.to_string(), state: "not running" })
    }

    /// The shim of a running container, after a restart of the server as well; `None` when it is not running.
    pub fn running_shim(&self, id: &str) -> Result<Option<RunningShim>> {
        self.record(id)?;
        let Some(running): Option<RunningRecord> = state::read(&self.container_directory(id)?.join(state::STATE_FILE))?
        else {
            return Ok(None);
        };
        Ok(running.shim.open().map(|pidfd| RunningShim { pidfd }))
    }

    /// How the container ended, `None` while it has not.
    pub fn exit_info(&self, id: &str) -> Result<Option<ExitInfo>> {
        match self.container(id)?.status {
            ContainerStatus::Exited(exit) => Ok(Some(exit)),
            _ => Ok(None),
        }
    }

    /// Sends a signal to the container's first process. Fine when it is gone.
    pub fn kill(&self, id: &str, signal: i32) -> Result<()> {
        self.record(id)?;
        let Ok(running) = self.running(id) else { return Ok(()) };
        match running.init.open() {
            Some(pidfd) => sys::kill_pidfd(pidfd.as_fd(), signal)
                .map_err(|e| Error::system(format!("send signal {signal} to container {id}"), e)),
            None => Ok(()),
        }
    }

    /// Kills all processes of the container with SIGKILL. Fine when they are gone.
    pub fn kill_all(&self, id: &str) -> Result<()> {
        self.cgroups.kill(&self.record(id)?.cgroup)
    }

    fn connect(&self, id: &str) -> Result<Connection> {
        self.record(id)?;
        let directory = self.container_directory(id)?;
        // The shim wrote this file: its version is the shim's.
        let running = state::read_versioned(&directory.join(state::STATE_FILE), |r: &RunningRecord| r.version)?;
        Connection::open(id, &directory, running.map_or(VERSION, |r| r.version))
    }

    /// Runs a further process in a running container. Returns once its `execve` has succeeded.
    pub fn exec(&self, id: &str, spec: &ExecSpec) -> Result<ExecSession> {
        ExecSession::start(self.connect(id)?, spec)
    }

    /// Connects to a running container's streams.
    pub fn attach(&self, id: &str) -> Result<Attachment> {
        Attachment::start(self.connect(id)?, self.record(id)?.spec.tty)
    }

    /// Changes the size of the container's terminal.
    pub fn resize(&self, id: &str, size: TerminalSize) -> Result<()> {
        self.done(id, Op::Resize { size })
    }

    /// Closes the log file and opens its path anew, after somebody else renamed it.
    pub fn reopen_log(&self, id: &str) -> Result<()> {
        self.done(id, Op::ReopenLog)
    }

    fn done(&self, id: &str, op: Op) -> Result<()> {
        let connection = self.connect(id)?;
        match connection.ask(op, &[])? {
            (Reply::Done, _) => Ok(()),
            (reply, _) => Err(connection.unexpected(&reply)),
        }
    }

    /// Changes limits of a container in place; `None` fields stay.
    pub fn update_container(&self, id: &str, resources: &Resources) -> Result<()> {
        self.cgroups.set(&self.record(id)?.cgroup, resources)
    }

    /// Changes limits of a cgroup below the root (a sandbox's or a level above), made when missing.
    pub fn update_cgroup(&self, cgroup: &str, resources: &Resources) -> Result<()> {
        self.cgroups.create(cgroup)?;
        self.cgroups.set(cgroup, resources)
    }

    pub fn container_stats(&self, id: &str) -> Result<Stats> {
        self.cgroups.stats(&self.record(id)?.cgroup)
    }

    /// Usage of a cgroup below the root: a sandbox's, or `""` for everything.
    pub fn cgroup_stats(&self, cgroup: &str) -> Result<Stats> {
        self.cgroups.stats(cgroup)
    }

    /// Kills what still runs and takes away cgroup, writable layer and state; the log stays. Idempotent.
    pub fn delete_container(&self, id: &str) -> Result<()> {
        let directory = self.container_directory(id)?;
        let record = match self.record(id) {
            Err(Error::NotFound { .. }) => return Ok(()),
            other => other?,
        };
        // First the processes, so that the shim ends by itself and frees what it holds.
        let shim = self.running(id).ok().and_then(|r| r.shim.open());
        if let Some(shim) = shim {
            self.cgroups.kill(&record.cgroup)?;
            if !wait_readable(&shim, &SHIM_END) {
                sys::kill_pidfd(shim.as_fd(), libc::SIGKILL).map_err(|e| Error::system("kill a shim", e))?;
                wait_readable(&shim, &SHIM_END);
            }
        }
        self.cgroups.remove(&record.cgroup)?;
        let rootfs = &record.spec.rootfs;
        for path in [rootfs.upper.clone(), rootfs.work_directory(), Some(directory)].into_iter().flatten() {
            match fs::remove_dir_all(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::file(path, e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the root cgroup and the state directory's own things, after all sandboxes. For `corten down`.
    pub fn shutdown(self) -> Result<()> {
        for sandbox in self.list_sandboxes()? {
            self.remove_sandbox(&sandbox.id)?;
        }
        self.cgroups.remove_root()?;
        for directory in ["containers", "sandboxes"] {
            let path = self.state_dir.join(directory);
            fs::remove_dir(&path).map_err(|e| Error::file(path, e))?;
        }
        Ok(())
    }
}

/// Finds mistakes before anything is made.
fn check(spec: &ContainerSpec) -> Result<()> {
    if spec.args.is_empty() {
        return Err(Error::Invalid("no command specified".into()));
    }
    for mount in &spec.mounts {
        if !mount.destination.starts_with('/') || mount.destination.trim_end_matches('/').is_empty() {
            return Err(Error::Invalid(format!("mount destination {:?} is not an absolute path", mount.destination)));
        }
    }
    if !spec.cwd.is_empty() && !spec.cwd.starts_with('/') {
        return Err(Error::Invalid(format!("working directory {:?} is not an absolute path", spec.cwd)));
    }
    Ok(())
}

/// Runtimes give programs a `HOME`, from the image's users.
fn with_home(spec: &ContainerSpec) -> ContainerSpec {
    let mut spec = spec.clone();
    if !spec.env.iter().any(|(name, _)| name == "HOME") {
        let home = user::home(&spec.rootfs, spec.user.uid).filter(|home| !home.is_empty());
        spec.env.push(("HOME".into(), home.unwrap_or_else(|| "/".into())));
    }
    spec
}

fn make_new(directory: &Path, what: &'static str, id: &str) -> Result<()> {
    match fs::create_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists { what, id: id.to_string() }),
        other => other.map_err(|e| Error::file(directory, e)),
    }
}

fn restrict(directory: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(mode)).map_err(|e| Error::file(directory, e))
}

fn directories(parent: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(parent).map_err(|e| Error::file(parent, e))?;
    Ok(entries.flatten().map(|e| e.path()).collect())
}

/// Describes each entry of a directory; those that vanish or are unfinished are left out.
fn each<T>(parent: &Path, describe: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    let mut found = Vec::new();
    for path in directories(parent)? {
        let Some(id) = path.file_name().and_then(|n| n.to_str()) else { continue };
        match describe(id) {
            Ok(one) => found.push(one),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

fn read_only_view(exe: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let view = rustix::mount::open_tree(rustix::fs::CWD, exe, flags)
        .map_err(|e| Error::system("make a private mount (Linux 5.12 or later is needed)", e))?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;
    sys::set_mount_attributes(view.as_fd(), false, read_only, 0)
        .map_err(|e| Error::system("make a mount read-only (Linux 5.12 or later is needed)", e))?;
    Ok(view)
}

fn is_readable(fd: &OwnedFd) -> bool {
    wait_readable(fd, &rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })
}

fn wait_readable(fd: &OwnedFd, timeout: &rustix::time::Timespec) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.is_ok_and(|n| n > 0),
        }
    }
}

/// A descriptor that is always readable.
fn readable() -> Result<OwnedFd> {
    rustix::event::eventfd(1, rustix::event::EventfdFlags::CLOEXEC).map_err(|e| Error::system("eventfd", e))
}
