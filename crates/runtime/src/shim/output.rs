//! The container's own streams: from its pipes or terminal to the log and to attached clients.

use super::exec;
use crate::log::{Lines, LogFile};
use crate::program::Streams;
use crate::{ContainerSpec, Error, Result, status};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsFd, OwnedFd};

/// Bytes taken from a stream at once.
const CHUNK_BYTES: usize = 16 << 10;
/// An attached client that takes nothing for so long is dropped, so that it cannot hold up the container for ever.
const STALL_NANOS_MAX: u64 = 10_000_000_000;

pub struct Output {
    /// Standard output (or the terminal), standard error.
    pub sources: [Option<Source>; 2],
    /// Write end of standard input, as long as the shim keeps it open.
    stdin: Option<OwnedFd>,
    stdin_once: bool,
    /// The terminal's master side.
    pub terminal: Option<OwnedFd>,
    log: Option<LogFile>,
    pub clients: Vec<Client>,
}

pub struct Source {
    pub fd: OwnedFd,
    lines: Lines,
}

/// Somebody who watches.
pub struct Client {
    /// Which connection it came from.
    pub connection: u64,
    /// One per source.
    pub sinks: [Option<Sink>; 2],
}

pub struct Sink {
    pub fd: OwnedFd,
    pub pending: Vec<u8>,
    stalled_since: u64,
}

impl Output {
    /// Streams for the container's first process, and our ends of them.
    pub fn new(spec: &ContainerSpec, devpts: &OwnedFd) -> Result<(Output, Streams)> {
        let log = match &spec.log {
            Some(log) => Some(LogFile::open(log.clone()).map_err(|e| Error::file(&log.path, e))?),
            None => None,
        };
        let mut output = Output {
            sources: [None, None],
            stdin: None,
            stdin_once: spec.stdin_once,
            terminal: None,
            log,
            clients: Vec::new(),
        };
        if spec.tty {
            let (master, slave) = exec::open_terminal(devpts, spec.terminal_size)?;
            output.terminal = Some(master.try_clone().map_err(|e| Error::system("dup", e))?);
            output.sources[0] = Some(source(master, "stdout")?);
            return Ok((output, exec::terminal_streams(slave)?));
        }
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::system("pipe", e));
        let stdin = if spec.stdin {
            let (reader, writer) = pipe()?;
            output.stdin = Some(writer);
            reader
        } else {
            super::null()?
        };
        let (stdout, stdout_writer) = pipe()?;
        let (stderr, stderr_writer) = pipe()?;
        output.sources = [Some(source(stdout, "stdout")?), Some(source(stderr, "stderr")?)];
        Ok((output, Streams { fds: [stdin, stdout_writer, stderr_writer], terminal: false }))
    }

    /// What an attaching client may write to.
    pub fn client_stdin(&mut self) -> Result<Option<OwnedFd>> {
        let fd = match (&self.terminal, &self.stdin) {
            (Some(terminal), _) => terminal,
            (None, Some(stdin)) => stdin,
            (None, None) => return Ok(None),
        };
        let copy = fd.try_clone().map_err(|e| Error::system("dup", e))?;
        if self.stdin_once {
            // The client's copy is the last one: the container sees the end when the client closes it.
            self.stdin = None;
        }
        Ok(Some(copy))
    }

    pub fn add_client(&mut self, connection: u64, fds: Vec<OwnedFd>) {
        let mut sinks = fds.into_iter().map(|fd| {
            let _ = rustix::io::ioctl_fionbio(&fd, true);
            Sink { fd, pending: Vec::new(), stalled_since: 0 }
        });
        self.clients.push(Client { connection, sinks: [sinks.next(), sinks.next()] });
    }

    pub fn remove_client(&mut self, connection: u64) {
        self.clients.retain(|c| c.connection != connection);
    }

    /// Whether a source may be read: nobody is behind with it.
    pub fn is_open(&self, n: usize) -> bool {
        self.sources[n].is_some() && !self.is_held_up(n)
    }

    fn is_held_up(&self, n: usize) -> bool {
        self.clients.iter().any(|c| c.sinks[n].as_ref().is_some_and(|s| !s.pending.is_empty()))
    }

    /// All is read and all is delivered.
    pub fn is_done(&self) -> bool {
        (0..2).all(|n| self.sources[n].is_none() && !self.is_held_up(n))
    }

    /// Reads one chunk of a source that is ready.
    pub fn pump(&mut self, n: usize) {
        let Some(source) = &mut self.sources[n] else { return };
        let mut chunk = [0u8; CHUNK_BYTES];
        let now = status::now();
        let mut entries = Vec::new();
        let read = match rustix::io::read(&source.fd, &mut chunk) {
            Ok(read) => read,
            Err(Errno::AGAIN | Errno::INTR) => return,
            // A terminal whose last user is gone gives EIO.
            Err(_) => 0,
        };
        let bytes = &chunk[..read];
        if bytes.is_empty() {
            source.lines.finish(now, &mut entries);
            self.sources[n] = None;
        } else {
            source.lines.push(bytes, now, &mut entries);
        }
        if let Some(log) = &mut self.log {
            log.write(&entries, now);
        }
        for client in &mut self.clients {
            deliver(&mut client.sinks[n], bytes, now);
        }
        if self.sources[n].is_none() {
            // End of file for those who have all; the others get it with their last bytes.
            self.clients.iter_mut().for_each(|c| {
                c.sinks[n].take_if(|s| s.pending.is_empty());
            });
        }
    }

    /// Goes on with clients that were behind.
    pub fn flush(&mut self) {
        let now = status::now();
        for client in &mut self.clients {
            for n in 0..2 {
                deliver(&mut client.sinks[n], &[], now);
                let ended = self.sources[n].is_none();
                client.sinks[n].take_if(|s| ended && s.pending.is_empty());
            }
        }
    }

    pub fn reopen_log(&mut self) -> Result<()> {
        match &mut self.log {
            Some(log) => log.reopen().map_err(|e| Error::system("reopen the log", e)),
            None => Ok(()),
        }
    }
}

fn source(fd: OwnedFd, stream: &'static str) -> Result<Source> {
    rustix::io::ioctl_fionbio(&fd, true).map_err(|e| Error::system("make a stream non-blocking", e))?;
    Ok(Source { fd, lines: Lines::new(stream) })
}

/// Writes what a client takes now and keeps the rest; a client that is gone or stuck loses its sink.
fn deliver(slot: &mut Option<Sink>, bytes: &[u8], now: u64) {
    let Some(sink) = slot else { return };
    sink.pending.extend_from_slice(bytes);
    while !sink.pending.is_empty() {
        match rustix::io::write(sink.fd.as_fd(), &sink.pending) {
            Ok(written) => {
                sink.pending.drain(..written);
                sink.stalled_since = now;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN)
                if now.saturating_sub(sink.stalled_since) < STALL_NANOS_MAX || sink.stalled_since == 0 =>
            {
                if sink.stalled_since == 0 {
                    sink.stalled_since = now;
                }
                return;
            }
            Err(_) => {
                *slot = None;
                return;
            }
        }
    }
    sink.stalled_since = 0;
}
