//! The shim: one small single-threaded process per container that makes it, keeps its log, reaps it and tells how it ended.
//!
//! It is started with the container's directory as its argument and a socket to its maker as descriptor 0. It leaves the
//! maker's session at once, so the maker's death does not touch it.

mod exec;
pub(crate) use exec::{join_cgroups, set_size};
mod output;
mod serve;

use crate::proto::{self, Started, VERSION};
use crate::rootfs::{Assembled, Plan};
use crate::state::{self, ContainerRecord, ProcessRef, RunningRecord};
use crate::sys::{self, Cloned};
use crate::{Error, ExitInfo, PidNamespace, Result, defaults, log, status, users};
use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The first argument of a shim's command line.
pub const ARGUMENT: &str = "container-shim";

/// Where the shim of a running container holds its things.
struct Shim {
    directory: PathBuf,
    record: ContainerRecord,
    init: Init,
    devpts: OwnedFd,
    output: output::Output,
    server: serve::Server,
    signals: OwnedFd,
    /// Exit code, signal and time of the container's first process.
    exit: Option<(i32, i32, u64)>,
}

/// The container's first process.
struct Init {
    pid: i32,
    pidfd: OwnedFd,
    started_at: u64,
}

/// Runs a shim. `directory` is the container's state directory.
pub fn main(directory: &Path) -> ! {
    sys::close_from(3);
    let report = sys::inherited(0);
    match sys::fork() {
        Ok(true) => {}
        // The maker waits for this process only; its child belongs to init.
        Ok(false) => {
            warm_up(directory);
            sys::exit(0)
        }
        Err(e) => fail(&report, &Error::system("fork", e)),
    }
    let result = detach(report).and_then(|report| match Shim::start(directory, &report) {
        Ok(shim) => {
            let told = proto::send(&report, &Started::Running, &[]);
            // A maker that has died meanwhile will find the container by its files.
            drop((told, report));
            Ok(shim)
        }
        Err(e) => {
            record_failure(directory, &e);
            fail(&report, &e)
        }
    });
    match result {
        Ok(shim) => match shim.run() {
            Ok(()) => sys::exit(0),
            Err(e) => {
                eprintln!("{e}");
                sys::exit(1)
            }
        },
        Err(e) => {
            eprintln!("{e}");
            sys::exit(1)
        }
    }
}

/// Moving a process between v1 cgroups waits for an RCU grace period (milliseconds), unless another move has just waited for
/// one. So this process, which has nothing else to do, moves itself while the shim prepares; then it ends.
fn warm_up(directory: &Path) {
    let record = state::read::<ContainerRecord>(&directory.join(state::CONTAINER_FILE));
    if let Ok(Some(record)) = record
        && let Ok(handles) = record.cgroups.handles(&record.cgroup)
        && let Some(procs) = handles.procs.first()
    {
        let _ = rustix::io::write(procs, b"0");
    }
}

fn fail(report: &OwnedFd, error: &Error) -> ! {
    let _ = proto::send(report, &Started::Failed { message: error.to_string(), start: error.is_start_error() }, &[]);
    sys::exit(1)
}

/// A container that never ran has ended, too.
fn record_failure(directory: &Path, error: &Error) {
    let exit = ExitInfo {
        exit_code: defaults::EXIT_CODE_START_ERROR,
        signal: 0,
        oom_killed: false,
        started_at: 0,
        finished_at: status::now(),
        message: error.to_string(),
    };
    let _ = state::write(&directory.join(state::EXIT_FILE), &exit);
}

/// Leaves the maker: own session, own name, nothing of the maker's on the standard descriptors.
fn detach(report: OwnedFd) -> Result<OwnedFd> {
    let failed = |what: &'static str| move |e: std::io::Error| Error::system(what, e);
    rustix::process::setsid().map_err(|e| Error::system("setsid", e))?;
    let _ = rustix::thread::set_name(c"corten-shim");
    sys::set_not_dumpable().map_err(failed("leave the dumpable state"))?;
    sys::set_child_subreaper().map_err(failed("become a subreaper"))?;
    // Best effort: a machine without CAP_SYS_RESOURCE does not let it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
    // Drops what the maker passed on as ignored.
    sys::reset_signals();
    sys::ignore_signal(libc::SIGPIPE);
    let inherited = report;
    let report = rustix::io::fcntl_dupfd_cloexec(&inherited, 3).map_err(|e| Error::system("dup", e))?;
    // Its number is taken over by /dev/null now and must not be closed: another file would get it.
    std::mem::forget(inherited);
    let null = null()?;
    for target in [0, 1] {
        sys::redirect(null.as_fd(), target).map_err(failed("take /dev/null"))?;
    }
    Ok(report)
}

fn null() -> Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::file("/dev/null", e))
}

impl Shim {
    fn start(directory: &Path, _report: &OwnedFd) -> Result<Shim> {
        // Short relative names: a socket's path has no more than 107 bytes.
        rustix::process::chdir(directory).map_err(|e| Error::file(directory, e))?;
        lock()?;
        let path = Path::new(state::CONTAINER_FILE);
        let record: ContainerRecord = state::read_versioned(path, |r: &ContainerRecord| r.version)?
            .ok_or_else(|| Error::file(directory.join(path), std::io::Error::from(std::io::ErrorKind::NotFound)))?;
        let spec = &record.spec;
        let program = crate::program::Program::of_container(&record)?;
        let plan = Plan::prepare(&record, directory)?;
        let server = serve::Server::listen()?;
        let output = output::Output::new(spec, plan.devpts())?;
        let join = Join::open(&record, directory)?;
        let signals = sys::child_signal_fd().map_err(|e| Error::system("signalfd", e))?;
        let (output, streams) = output;
        let mut notes = Vec::new();
        let init = start_init(&record, &program, &plan, streams, &join, &mut notes)?;
        let devpts = plan.devpts().try_clone().map_err(|e| Error::system("dup", e))?;
        drop((plan, join, program));
        if !matches!(spec.pid, PidNamespace::Host) {
            // Further processes are born into the container's namespace; one that is over already needs none.
            sys::set_namespace(init.pidfd.as_fd(), libc::CLONE_NEWPID)
                .or_else(|e| if e.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(e) })
                .map_err(|e| Error::system("join the container's PID namespace", e))?;
        }
        let running = RunningRecord {
            version: VERSION,
            shim: ProcessRef::of(std::process::id() as i32)?,
            init: ProcessRef::of(init.pid)?,
            started_at: init.started_at,
            notes,
        };
        state::write(Path::new(state::STATE_FILE), &running)?;
        sys::trim_memory();
        Ok(Shim { directory: directory.to_path_buf(), record, init, devpts, output, server, signals, exit: None })
    }
}

/// Held as long as the shim lives: nobody starts a container twice.
fn lock() -> Result<()> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let path = state::LOCK_FILE;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(|e| Error::file(path, e))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|e| Error::system("the container is being started already", e))?;
    // Kept open without an owner, until the process ends.
    std::mem::forget(file);
    Ok(())
}

/// Namespaces that a container's first process joins.
struct Join {
    namespaces: Vec<OwnedFd>,
    /// The user namespace that owns them, if it is not the host's.
    users: Option<OwnedFd>,
    /// A process of the PID namespace to join.
    pid: Option<OwnedFd>,
}

impl Join {
    fn open(record: &ContainerRecord, directory: &Path) -> Result<Join> {
        let mut namespaces = Vec::new();
        for path in [&record.net, &record.ipc, &record.uts].into_iter().flatten() {
            namespaces.push(OwnedFd::from(File::open(path).map_err(|e| Error::file(path, e))?));
        }
        let state_dir = directory.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
        let process = match &record.spec.pid {
            PidNamespace::Own | PidNamespace::Host => None,
            PidNamespace::Sandbox => {
                let path = state_dir.join("sandboxes").join(&record.spec.sandbox).join(state::SANDBOX_FILE);
                let sandbox: Option<state::SandboxRecord> = state::read(&path)?;
                Some(sandbox.and_then(|s| s.init).ok_or_else(|| {
                    Error::Invalid(format!("sandbox {:?} has no shared PID namespace", record.spec.sandbox))
                })?)
            }
            PidNamespace::Container(id) => {
                let running: Option<RunningRecord> =
                    state::read(&state_dir.join("containers").join(id).join(state::STATE_FILE))?;
                Some(running.map(|r| r.init).ok_or_else(|| Error::State { id: id.clone(), state: "not running" })?)
            }
        };
        let pid = match process {
            Some(process) => Some(process.open().ok_or_else(|| {
                Error::Start(format!("process {} of the PID namespace to join has ended", process.pid))
            })?),
            None => None,
        };
        let users = match &record.users {
            Some(found) => Some(users::open(&found.pin)?),
            None => None,
        };
        Ok(Join { namespaces, users, pid })
    }
}

/// Makes the container's first process and waits until it has become its program.
fn start_init(
    record: &ContainerRecord,
    program: &crate::program::Program,
    plan: &Plan,
    streams: crate::program::Streams,
    join: &Join,
    notes: &mut Vec<String>,
) -> Result<Init> {
    let handles = record.cgroups.handles(&record.cgroup)?;
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| Error::system("pipe", e))?;
    program.give_streams(&streams)?;
    let parts = Parts { record, program, plan, streams: &streams, join, handles: &handles };
    // A first process with users of its own is made by one that still has the host's rights.
    let cloned = match &join.users {
        Some(_) => sys::clone_process(libc::CLONE_NEWNS, None),
        None => parts.join_pid().and_then(|()| parts.clone_init(libc::CLONE_NEWNS)),
    };
    match cloned.map_err(|e| Error::system("make the container's first process", e))? {
        Cloned::Child => {
            drop(reader);
            let mut report = exec::Report::new(writer);
            let failure = match &join.users {
                Some(users) => parts.make_init(users, &mut report),
                None => parts.become_init(None, &mut report),
            };
            report.fail(&failure)
        }
        Cloned::Parent { pid, pidfd } => {
            drop((writer, streams));
            let mut report = Vec::new();
            let _ = File::from(reader).read_to_end(&mut report);
            let told = exec::Report::parse(&report);
            notes.extend(told.notes);
            if let Some(message) = told.failure {
                return Err(Error::Start(message));
            }
            let (pid, pidfd) = match told.made {
                None => (pid, pidfd),
                Some(made) => {
                    let reaped = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                    reaped.map_err(|e| Error::system("reap the maker of the first process", e))?;
                    (made, open_child(made)?)
                }
            };
            Ok(Init { pid, pidfd, started_at: status::now() })
        }
    }
}

/// A descriptor of a child, which cannot be another process: it has not been reaped.
fn open_child(pid: i32) -> Result<OwnedFd> {
    let number = rustix::process::Pid::from_raw(pid).ok_or_else(|| Error::Invalid(format!("{pid} is no process")))?;
    rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty())
        .map_err(|e| Error::system("pidfd_open", e))
}

/// What a container's first process is made of.
struct Parts<'a> {
    record: &'a ContainerRecord,
    program: &'a crate::program::Program,
    plan: &'a Plan,
    streams: &'a crate::program::Streams,
    join: &'a Join,
    handles: &'a crate::cgroup::Handles,
}

fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> (String, rustix::io::Errno) {
    move |e| (what.to_string(), rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO))
}

impl Parts<'_> {
    /// Has the caller's next child be born into the PID namespace that the container shares, if it does.
    fn join_pid(&self) -> std::io::Result<()> {
        self.join.pid.as_ref().map_or(Ok(()), |process| sys::set_namespace(process.as_fd(), libc::CLONE_NEWPID))
    }

    /// Clones the calling process as the container's first one, into its cgroup.
    fn clone_init(&self, flags: libc::c_int) -> std::io::Result<Cloned> {
        let pid = if self.record.spec.pid == PidNamespace::Own { libc::CLONE_NEWPID } else { 0 };
        sys::clone_process(flags | pid, self.handles.unified.as_ref().map(|fd| fd.as_fd()))
    }

    /// In a process in between, in a mount namespace of the host's root: does what takes the host's rights, steps into the
    /// user namespace and makes the first process there, so that the namespaces that this makes belong to it, too. Returns only
    /// with the reason why not.
    fn make_init(&self, users: &OwnedFd, report: &mut exec::Report) -> String {
        let mut prepare = || -> crate::rootfs::Step<Assembled> {
            sys::set_parent_death_signal(libc::SIGKILL).map_err(failed("tie the container to its shim"))?;
            self.program.apply_scores(&mut |note| report.note(&note))?;
            let made = self.plan.assemble()?;
            self.join_pid().map_err(failed("join a PID namespace"))?;
            sys::set_namespace(users.as_fd(), libc::CLONE_NEWUSER).map_err(failed("join the user namespace"))?;
            Ok(made)
        };
        let cloned = prepare().and_then(|made| {
            let cloned = self.clone_init(libc::CLONE_NEWNS | libc::CLONE_PARENT);
            Ok((made, cloned.map_err(failed("make the container's first process"))?))
        });
        match cloned {
            Err((what, e)) => format!("{what}: {}", crate::program::reason(e)),
            Ok((made, Cloned::Child)) => self.become_init(Some(&made), report),
            Ok((_, Cloned::Parent { pid, .. })) => {
                report.made(pid);
                sys::exit(0)
            }
        }
    }

    /// In the container's first process. Returns only with the reason why it is none.
    fn become_init(&self, assembled: Option<&Assembled>, report: &mut exec::Report) -> String {
        let mut prepare = || -> crate::rootfs::Step<()> {
            sys::set_parent_death_signal(libc::SIGKILL).map_err(failed("tie the container to its shim"))?;
            sys::reset_signals();
            for namespace in &self.join.namespaces {
                sys::set_namespace(namespace.as_fd(), 0).map_err(failed("join the sandbox's namespaces"))?;
            }
            if assembled.is_none() {
                self.program.apply_scores(&mut |note| report.note(&note))?;
            }
            crate::program::Program::take_streams(self.streams)?;
            self.plan.enter(assembled, self.streams.terminal.then(|| self.streams.fds[0].as_fd()), &|| {
                exec::join_cgroups(self.handles)?;
                sys::unshare(libc::CLONE_NEWCGROUP).map_err(failed("make a cgroup namespace"))
            })
        };
        match prepare() {
            Err((what, e)) => format!("{what}: {}", crate::program::reason(e)),
            Ok(()) => {
                report.keep_alone();
                self.program.run(true)
            }
        }
    }
}

impl Shim {
    /// Ends with the container, its exit file written.
    fn finish(&self, exit: (i32, i32, u64)) -> Result<()> {
        let (exit_code, signal, finished_at) = exit;
        let oom_killed = self.record.cgroups.oom_kills(&self.record.cgroup) > 0;
        let started_at = self.init.started_at;
        let info = ExitInfo { exit_code, signal, oom_killed, started_at, finished_at, message: String::new() };
        state::write(Path::new(state::EXIT_FILE), &info)
    }

    fn log_time(&self) -> String {
        log::timestamp(status::now())
    }

    /// A complaint for whoever debugs this.
    fn complain(&self, what: &str) {
        eprintln!("{} {}: {what}", self.log_time(), self.directory.display());
    }
}
