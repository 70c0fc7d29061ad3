//! The caller's ends of processes and streams in containers.

use crate::proto::{self, Op, Reply, Request};
use crate::{Error, ExecSpec, ExitStatus, Result, TerminalSize, state};
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A process started by [`crate::Runtime::exec`]. Dropping it closes its streams and leaves the process alone.
#[derive(Debug)]
pub struct ExecSession {
    /// The process as the host numbers it.
    pub pid: i32,
    /// Write end; close it for end of file.
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// The terminal's master side, for reading, writing and [`set_terminal_size`]; with `tty` instead of the three pipes.
    /// Reading fails with `EIO` at the end.
    pub terminal: Option<OwnedFd>,
    /// Readable when the exit status has arrived: see [`ExecSession::try_wait`].
    pub exit: OwnedFd,
    id: String,
    version: u32,
    status: Option<ExitStatus>,
}

/// A live connection to a running container's streams. Dropping it detaches.
#[derive(Debug)]
pub struct Attachment {
    /// Write end of the container's standard input, or of its terminal; `None` when the container has none.
    pub stdin: Option<OwnedFd>,
    /// Output from now on; of both streams when the container has a terminal.
    pub stdout: OwnedFd,
    /// `None` when the container has a terminal.
    pub stderr: Option<OwnedFd>,
    /// The terminal's master side for [`set_terminal_size`] only: reading it would steal output.
    pub terminal: Option<OwnedFd>,
    /// The shim drops the client when this closes.
    _connection: OwnedFd,
}

/// Changes the size of a terminal that an [`ExecSession`] or [`Attachment`] gave.
pub fn set_terminal_size(terminal: impl AsFd, size: TerminalSize) -> Result<()> {
    crate::shim::set_size(terminal, size).map_err(|e| Error::system("resize the terminal", e))
}

/// A connection to a shim.
pub(crate) struct Connection {
    id: String,
    socket: OwnedFd,
    /// What the shim understands: it may be of an older program.
    version: u32,
}

impl Connection {
    /// Connects to the shim in a container's directory, which speaks a version of the protocol.
    pub fn open(id: &str, directory: &Path, version: u32) -> Result<Connection> {
        let not_running = || Error::State { id: id.to_string(), state: "not running" };
        let failed = |e: rustix::io::Errno| Error::Shim { id: id.to_string(), message: format!("connect: {e}") };
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty()).map_err(|_| not_running())?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(failed)?;
        // By descriptor, since the path may be longer than a socket address.
        let path = format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), state::SOCKET_FILE);
        match rustix::net::connect(&socket, &SocketAddrUnix::new(path).map_err(failed)?) {
            Ok(()) => Ok(Connection { id: id.to_string(), socket, version }),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => Err(not_running()),
            Err(e) => Err(failed(e)),
        }
    }

    /// Asks and waits for the answer; a refusal is an error.
    pub fn ask(&self, op: Op, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
        let failed = |message: String| Error::Shim { id: self.id.clone(), message };
        proto::send(&self.socket, &Request { version: self.version, op }, fds).map_err(|e| failed(e.to_string()))?;
        match proto::receive::<Reply>(&self.socket).map_err(|e| failed(e.to_string()))? {
            Some((Reply::Failed { message, start: true }, _)) => Err(Error::Start(message)),
            Some((Reply::Failed { message, .. }, _)) => Err(failed(message)),
            Some(answer) => Ok(answer),
            None => Err(Error::State { id: self.id.clone(), state: "not running" }),
        }
    }

    pub fn unexpected(&self, reply: &Reply) -> Error {
        Error::Shim { id: self.id.clone(), message: format!("unexpected answer {reply:?}") }
    }
}

/// Our end and the process's end of a stream.
fn stream(ours_writes: bool) -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::system("pipe", e))?;
    Ok(if ours_writes { (writer, reader) } else { (reader, writer) })
}

impl ExecSession {
    pub(crate) fn start(connection: Connection, spec: &ExecSpec) -> Result<ExecSession> {
        let mut theirs = vec![in_memory(spec)?];
        let mut ours = [None, None, None];
        for (n, wanted) in [spec.stdin, spec.stdout, spec.stderr].into_iter().enumerate() {
            if wanted && !spec.tty {
                let (mine, other) = stream(n == 0)?;
                ours[n] = Some(mine);
                theirs.push(other);
            }
        }
        let fds: Vec<BorrowedFd<'_>> = theirs.iter().map(|fd| fd.as_fd()).collect();
        let (pid, mut fds) = match connection.ask(Op::Exec, &fds)? {
            (Reply::Exec { pid }, fds) => (pid, fds),
            (reply, _) => return Err(connection.unexpected(&reply)),
        };
        let [stdin, stdout, stderr] = ours;
        let Connection { id, socket, version } = connection;
        Ok(ExecSession { pid, stdin, stdout, stderr, terminal: fds.pop(), exit: socket, id, version, status: None })
    }

    /// The exit status if it has arrived, without blocking. Fails if the shim is gone.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let mut peek = [0u8; 1];
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            match rustix::net::recv(&self.exit, &mut peek[..], flags) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
                _ => self.wait()?,
            };
        }
        Ok(self.status)
    }

    /// Blocks until the process has exited.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let failed = |message: String| Error::Shim { id: self.id.clone(), message };
        loop {
            match proto::receive::<Reply>(&self.exit) {
                Ok(Some((Reply::Exited(status), _))) => {
                    self.status = Some(status);
                    return Ok(status);
                }
                // The descriptor may be non-blocking, made so by an event loop.
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    use rustix::event::{PollFd, PollFlags, poll};
                    let _ = poll(&mut [PollFd::new(&self.exit, PollFlags::IN)], None);
                }
                // Killed with its container; the shim did not wait for the last word.
                Ok(None) => return Err(failed("it ended before the process's exit status came".into())),
                Ok(Some((reply, _))) => return Err(failed(format!("unexpected message {reply:?}"))),
                Err(e) => return Err(failed(e.to_string())),
            }
        }
    }

    /// Sends a signal to the process; does nothing when it has exited.
    pub fn kill(&self, signal: i32) -> Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        match proto::send(&self.exit, &Request { version: self.version, op: Op::Signal { signal } }, &[]) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|e| Error::Shim { id: self.id.clone(), message: e.to_string() }),
        }
    }
}

impl Attachment {
    pub(crate) fn start(connection: Connection, tty: bool) -> Result<Attachment> {
        let (stdout, stdout_theirs) = stream(false)?;
        let (stderr, stderr_theirs) =
            if tty { (None, None) } else { stream(false).map(|(a, b)| (Some(a), Some(b)))? };
        let fds: Vec<BorrowedFd<'_>> =
            [Some(&stdout_theirs), stderr_theirs.as_ref()].into_iter().flatten().map(|fd| fd.as_fd()).collect();
        let (has_stdin, mut fds) = match connection.ask(Op::Attach, &fds)? {
            (Reply::Attached { stdin, .. }, fds) => (stdin, fds),
            (reply, _) => return Err(connection.unexpected(&reply)),
        };
        let given = fds.pop();
        let (stdin, terminal) = match given {
            Some(fd) if tty => {
                let copy = if has_stdin { Some(fd.try_clone().map_err(|e| Error::system("dup", e))?) } else { None };
                (copy, Some(fd))
            }
            other => (other, None),
        };
        Ok(Attachment { stdin, stdout, stderr, terminal, _connection: connection.socket })
    }
}

/// A spec may be larger than a message: environments and arguments have no small bound.
fn in_memory(spec: &ExecSpec) -> Result<OwnedFd> {
    let write = || -> std::io::Result<OwnedFd> {
        let fd = rustix::fs::memfd_create("corten-exec", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(fd);
        file.write_all(&serde_json::to_vec(spec)?)?;
        Ok(file.into())
    };
    write().map_err(|e| Error::system("pass the process to run", e))
}
