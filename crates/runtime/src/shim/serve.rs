//! The shim's life: one poll loop over its streams, its socket, its children.

use super::exec::{self, Report, Target};
use super::{Init, Shim};
use crate::proto::{self, Op, Reply, Request, VERSION};
use crate::{Error, ExecSpec, ExitStatus, PidNamespace, Result, state, status, sys};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};

/// How long output may still come after the container's first process has ended: somebody outside may hold its pipes.
const DRAIN_NANOS_MAX: u64 = 2_000_000_000;
/// How often stalled clients are looked at.
const STALL_CHECK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Connections at a time; more wait in the socket's queue.
const CONNECTIONS_MAX: usize = 256;

pub struct Server {
    listener: OwnedFd,
    connections: Vec<(u64, OwnedFd)>,
    execs: Vec<Exec>,
    next_connection: u64,
}

/// A further process in the container.
struct Exec {
    connection: u64,
    pid: i32,
    /// While its program has not begun.
    report: Option<(OwnedFd, Vec<u8>)>,
    terminal: Option<OwnedFd>,
    exit: Option<ExitStatus>,
}

impl Server {
    pub fn listen() -> Result<Server> {
        let failed = |e: rustix::io::Errno| Error::system("listen on the shim's socket", e);
        let _ = std::fs::remove_file(state::SOCKET_FILE);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(failed)?;
        rustix::net::bind(&listener, &SocketAddrUnix::new(state::SOCKET_FILE).map_err(failed)?).map_err(failed)?;
        rustix::net::listen(&listener, 64).map_err(failed)?;
        Ok(Server { listener, connections: Vec::new(), execs: Vec::new(), next_connection: 1 })
    }

    fn reply(&self, connection: u64, reply: &Reply, fds: &[std::os::fd::BorrowedFd<'_>]) {
        if let Some((_, socket)) = self.connections.iter().find(|(id, _)| *id == connection) {
            // Whoever has gone away does not want to know.
            let _ = proto::send(socket, reply, fds);
        }
    }
}

/// What became ready.
#[derive(Clone, Copy)]
enum Ready {
    Signals,
    Listener,
    Source(usize),
    Sinks,
    Connection(u64),
    Report(i32),
}

impl Shim {
    /// Runs until the container has ended and all its output is delivered.
    pub(super) fn run(mut self) -> Result<()> {
        loop {
            self.reap();
            if let Some(exit) = self.exit {
                let late = status::now().saturating_sub(exit.2) > DRAIN_NANOS_MAX;
                if late || (self.output.is_done() && self.server.execs.is_empty()) {
                    return self.finish(exit);
                }
            }
            for ready in self.wait()? {
                self.handle(ready);
            }
        }
    }

    fn wait(&self) -> Result<Vec<Ready>> {
        let mut fds = vec![(Ready::Signals, PollFd::new(&self.signals, PollFlags::IN))];
        if self.server.connections.len() < CONNECTIONS_MAX {
            fds.push((Ready::Listener, PollFd::new(&self.server.listener, PollFlags::IN)));
        }
        for n in 0..2 {
            if let (true, Some(source)) = (self.output.is_open(n), &self.output.sources[n]) {
                fds.push((Ready::Source(n), PollFd::new(&source.fd, PollFlags::IN)));
            }
        }
        let mut behind = false;
        for sink in self.output.clients.iter().flat_map(|c| c.sinks.iter().flatten()).filter(|s| !s.pending.is_empty())
        {
            behind = true;
            fds.push((Ready::Sinks, PollFd::new(&sink.fd, PollFlags::OUT)));
        }
        for (id, socket) in &self.server.connections {
            fds.push((Ready::Connection(*id), PollFd::new(socket, PollFlags::IN)));
        }
        for exec in &self.server.execs {
            if let Some((report, _)) = &exec.report {
                fds.push((Ready::Report(exec.pid), PollFd::new(report, PollFlags::IN)));
            }
        }
        let timeout = match self.exit {
            Some((_, _, at)) => {
                let left = (at + DRAIN_NANOS_MAX).saturating_sub(status::now()) + 1_000_000;
                Some(Timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as _ })
            }
            None if behind => Some(STALL_CHECK),
            None => None,
        };
        let (tokens, mut polled): (Vec<Ready>, Vec<PollFd<'_>>) = fds.into_iter().unzip();
        match poll(&mut polled, timeout.as_ref()) {
            Ok(0) if behind => return Ok(vec![Ready::Sinks]),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::system("poll", e)),
        }
        Ok(polled.iter().zip(tokens).filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, token)| token).collect())
    }

    fn handle(&mut self, ready: Ready) {
        match ready {
            Ready::Signals => {
                let mut discard = [0u8; 128];
                while rustix::io::read(&self.signals, &mut discard).is_ok() {}
            }
            Ready::Listener => {
                if let Ok(socket) = rustix::net::accept_with(&self.server.listener, SocketFlags::CLOEXEC) {
                    self.server.connections.push((self.server.next_connection, socket));
                    self.server.next_connection += 1;
                }
            }
            Ready::Source(n) => self.output.pump(n),
            Ready::Sinks => self.output.flush(),
            Ready::Connection(id) => self.receive(id),
            Ready::Report(pid) => self.started(pid),
        }
    }

    /// Notes the end of children: the container's first process, and those of `exec`. Orphans are just reaped.
    fn reap(&mut self) {
        while let Some((pid, exit_code, signal)) = sys::reap() {
            if pid == self.init.pid {
                self.exit = Some((exit_code, signal, status::now()));
                if self.record.spec.pid != PidNamespace::Own {
                    // Nobody else ends what the container started in a namespace that lives on.
                    if let Err(e) = self.record.cgroups.kill(&self.record.cgroup) {
                        self.complain(&e.to_string());
                    }
                }
            }
            if let Some(exec) = self.server.execs.iter_mut().find(|e| e.pid == pid) {
                exec.exit = Some(ExitStatus { exit_code, signal });
            }
        }
        self.report_exits();
    }

    fn report_exits(&mut self) {
        let (ended, running) = std::mem::take(&mut self.server.execs)
            .into_iter()
            .partition(|exec: &Exec| exec.report.is_none() && exec.exit.is_some());
        self.server.execs = running;
        for exec in ended {
            if let Some(exit) = exec.exit {
                self.server.reply(exec.connection, &Reply::Exited(exit), &[]);
            }
        }
    }

    /// Something on the pipe of a starting process: its program has begun, or could not.
    fn started(&mut self, pid: i32) {
        let Some(at) = self.server.execs.iter().position(|e| e.pid == pid) else { return };
        let exec = &mut self.server.execs[at];
        let Some((pipe, told)) = &mut exec.report else { return };
        let mut chunk = [0u8; 512];
        match rustix::io::read(&*pipe, &mut chunk) {
            Ok(0) => {}
            Ok(n) => return told.extend_from_slice(&chunk[..n]),
            Err(_) => return,
        }
        let failure = Report::parse(told).failure;
        exec.report = None;
        let terminal = exec.terminal.take();
        let connection = exec.connection;
        match failure {
            None => {
                let fds: Vec<_> = terminal.iter().map(|fd| fd.as_fd()).collect();
                self.server.reply(connection, &Reply::Exec { pid }, &fds);
            }
            Some(message) => {
                // The process is reaped like an orphan.
                self.server.execs.remove(at);
                self.server.reply(connection, &Reply::Failed { message, start: true }, &[]);
            }
        }
        self.report_exits();
    }

    fn receive(&mut self, connection: u64) {
        let Some((_, socket)) = self.server.connections.iter().find(|(id, _)| *id == connection) else { return };
        let result = match proto::receive::<Request>(socket) {
            Ok(Some((request, _))) if request.version > VERSION => {
                Err(Error::Unsupported(format!("this shim speaks version {VERSION}, not {}", request.version)))
            }
            Ok(Some((request, fds))) => self.request(connection, request.op, fds),
            Ok(None) | Err(_) => {
                self.output.remove_client(connection);
                self.server.connections.retain(|(id, _)| *id != connection);
                return;
            }
        };
        if let Err(e) = result {
            let reply = Reply::Failed { message: e.to_string(), start: e.is_start_error() };
            self.server.reply(connection, &reply, &[]);
        }
    }

    fn request(&mut self, connection: u64, op: Op, fds: Vec<OwnedFd>) -> Result<()> {
        match op {
            Op::Exec => return self.exec(connection, fds),
            Op::Signal { signal } => {
                // Not yet reaped, so the number is still its own.
                let pid = self.server.execs.iter().find(|e| e.connection == connection && e.exit.is_none());
                if let Some(pid) = pid.and_then(|e| rustix::process::Pid::from_raw(e.pid)) {
                    send_signal(pid, signal)?;
                }
                return Ok(());
            }
            Op::Attach => {
                let stdin = self.output.client_stdin()?;
                self.output.add_client(connection, fds);
                let fds: Vec<_> = stdin.iter().map(|fd| fd.as_fd()).collect();
                let reply = Reply::Attached { tty: self.output.terminal.is_some(), stdin: self.record.spec.stdin };
                self.server.reply(connection, &reply, &fds);
                return Ok(());
            }
            Op::Resize { size } => match &self.output.terminal {
                Some(terminal) => {
                    exec::set_size(terminal, size).map_err(|e| Error::system("resize the terminal", e))?;
                }
                None => return Err(Error::Invalid("the container has no terminal".into())),
            },
            Op::ReopenLog => self.output.reopen_log()?,
        }
        self.server.reply(connection, &Reply::Done, &[]);
        Ok(())
    }

    fn exec(&mut self, connection: u64, mut fds: Vec<OwnedFd>) -> Result<()> {
        if self.exit.is_some() {
            return Err(Error::State { id: self.record.spec.id.clone(), state: "exited" });
        }
        if fds.is_empty() {
            return Err(Error::Invalid("the process to run is missing".into()));
        }
        let mut text = Vec::new();
        let mut file = File::from(fds.remove(0));
        let spec: ExecSpec = file
            .rewind()
            .and_then(|()| file.read_to_end(&mut text))
            .and_then(|_| Ok(serde_json::from_slice(&text)?))
            .map_err(|e| Error::system("read the process to run", e))?;
        let Init { pidfd, .. } = &self.init;
        let handles = self.record.cgroups.handles(&self.record.cgroup)?;
        let target = Target { record: &self.record, init: pidfd.as_fd(), devpts: &self.devpts, handles };
        let starting = exec::start(&target, &spec, fds)?;
        let report = Some((starting.report, Vec::new()));
        self.server.execs.push(Exec { connection, pid: starting.pid, report, terminal: starting.terminal, exit: None });
        Ok(())
    }
}

/// Any signal number, real-time ones included.
fn send_signal(pid: rustix::process::Pid, signal: i32) -> Result<()> {
    sys::kill(pid.as_raw_nonzero().get(), signal).map_err(|e| Error::system(format!("send signal {signal}"), e))
}
