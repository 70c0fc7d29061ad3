//! Further processes in a running container.

use crate::cgroup::Handles;
use crate::program::{Program, Streams, reason};
use crate::rootfs::Step;
use crate::state::ContainerRecord;
use crate::sys::{self, Cloned};
use crate::{Error, ExecSpec, Result, TerminalSize};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How a new process tells its maker what happened before its program began; the pipe closes at `execve`.
pub struct Report {
    pipe: std::fs::File,
}

impl Report {
    pub fn new(pipe: OwnedFd) -> Report {
        Report { pipe: pipe.into() }
    }

    /// Closes everything else but the standard streams. A descriptor of the host's that is still open when the program's
    /// path or working directory is looked up could be walked through, by way of `/proc/self/fd` (CVE-2024-21626).
    pub fn keep_alone(&mut self) {
        const PLACE: i32 = 3;
        // Whoever owned the others never runs again: what follows is exec or exit.
        if let Ok(pipe) = sys::move_to(self.pipe.as_fd(), PLACE) {
            std::mem::forget(std::mem::replace(&mut self.pipe, pipe.into()));
            sys::close_from(PLACE + 1);
        }
    }

    pub fn note(&mut self, text: &str) {
        let _ = self.pipe.write_all(format!("N{text}\n").as_bytes());
    }

    pub fn fail(&mut self, text: &str) -> ! {
        let _ = self.pipe.write_all(format!("E{text}\n").as_bytes());
        sys::exit(127)
    }

    /// Names the process that was made in this one's place.
    pub fn made(&mut self, pid: i32) {
        let _ = self.pipe.write_all(format!("P{pid}\n").as_bytes());
    }

    pub fn parse(bytes: &[u8]) -> Told {
        let text = String::from_utf8_lossy(bytes);
        let with = |tag: char| text.lines().filter_map(move |l| l.strip_prefix(tag)).map(str::to_string);
        Told {
            notes: with('N').collect(),
            failure: with('E').next(),
            made: with('P').next().and_then(|pid| pid.parse().ok()),
        }
    }
}

/// What a new process has told.
pub struct Told {
    pub notes: Vec<String>,
    /// Why there is no program.
    pub failure: Option<String>,
    /// The process that was made in its place.
    pub made: Option<i32>,
}

/// Moves the calling process into the v1 cgroups; it was born into the v2 one.
pub fn join_cgroups(handles: &Handles) -> Step<()> {
    for procs in &handles.procs {
        rustix::io::write(procs, b"0").map_err(|e| ("join the cgroups".to_string(), e))?;
    }
    Ok(())
}

/// A process on its way to its program.
pub struct Starting {
    pub pid: i32,
    /// Ends when the program has begun, or holds the reason why it has not.
    pub report: OwnedFd,
    /// The terminal's master side.
    pub terminal: Option<OwnedFd>,
}

/// What a new process needs of its container.
pub struct Target<'a> {
    pub record: &'a ContainerRecord,
    pub init: BorrowedFd<'a>,
    pub devpts: &'a OwnedFd,
    pub handles: Handles,
}

/// Starts a process in the container. The caller must be in its PID namespace for children.
pub fn start(target: &Target<'_>, exec: &ExecSpec, given: Vec<OwnedFd>) -> Result<Starting> {
    let program = Program::of_exec(target.record, exec)?;
    let (streams, terminal) = if exec.tty {
        let (master, slave) = open_terminal(target.devpts, exec.terminal_size)?;
        (terminal_streams(slave)?, Some(master))
    } else {
        (given_streams(exec, given)?, None)
    };
    program.give_streams(&streams)?;
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| Error::system("pipe", e))?;
    let cloned = sys::clone_process(0, target.handles.unified.as_ref().map(|fd| fd.as_fd()));
    match cloned.map_err(|e| Error::system("make a process in the container", e))? {
        Cloned::Child => {
            drop(reader);
            let mut report = Report::new(writer);
            let failure = enter(&program, target, &streams, &mut report);
            report.fail(&failure)
        }
        Cloned::Parent { pid, .. } => Ok(Starting { pid, report: reader, terminal }),
    }
}

fn enter(program: &Program, target: &Target<'_>, streams: &Streams, report: &mut Report) -> String {
    let mut prepare = || -> Step<()> {
        sys::reset_signals();
        join_cgroups(&target.handles)?;
        program.apply_scores(&mut |note| report.note(&note))?;
        Program::take_streams(streams)?;
        let namespaces =
            libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;
        let users = if target.record.users.is_some() { libc::CLONE_NEWUSER } else { 0 };
        sys::set_namespace(target.init, namespaces | users).map_err(|e| {
            ("join the container's namespaces".to_string(), Errno::from_io_error(&e).unwrap_or(Errno::IO))
        })?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        Ok(())
    };
    match prepare() {
        Err((what, e)) => format!("{what}: {}", reason(e)),
        Ok(()) => {
            report.keep_alone();
            program.run(false)
        }
    }
}

/// A new terminal of the container's own instance, opened without a path that the container could have changed.
pub fn open_terminal(devpts: &OwnedFd, size: Option<TerminalSize>) -> Result<(OwnedFd, OwnedFd)> {
    let open = || -> rustix::io::Result<(OwnedFd, OwnedFd)> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::openat(devpts, "ptmx", flags, Mode::empty())?;
        rustix::pty::unlockpt(&master)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        if let Some(size) = size {
            set_size(&master, size)?;
        }
        Ok((master, slave))
    };
    open().map_err(|e| Error::system("open a terminal", e))
}

pub fn set_size(terminal: impl AsFd, size: TerminalSize) -> rustix::io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size)
}

pub fn terminal_streams(slave: OwnedFd) -> Result<Streams> {
    let dup = || slave.try_clone().map_err(|e| Error::system("dup", e));
    Ok(Streams { fds: [dup()?, dup()?, slave], terminal: true })
}

/// The caller's ends in the order of the spec's wishes, `/dev/null` for the rest.
fn given_streams(exec: &ExecSpec, given: Vec<OwnedFd>) -> Result<Streams> {
    let mut given = given.into_iter();
    let mut take = |wanted: bool| -> Result<OwnedFd> {
        if !wanted {
            return super::null();
        }
        given.next().ok_or_else(|| Error::Invalid("a stream's descriptor is missing".into()))
    };
    Ok(Streams { fds: [take(exec.stdin)?, take(exec.stdout)?, take(exec.stderr)?], terminal: false })
}
