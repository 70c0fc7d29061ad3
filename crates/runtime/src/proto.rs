//! What server and shim say to each other: one JSON message per packet of a Unix socket, with descriptors beside it.
//!
//! The socket outlives servers, so each request carries the version of its form; a shim refuses versions that it does not
//! know, a server speaks the versions of the shims that it may find.

use crate::{ExitStatus, TerminalSize};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The form of state files and messages.
pub const VERSION: u32 = 1;

/// Descriptors in one message, and bytes of its text.
const FDS_MAX: usize = 8;
const MESSAGE_BYTES_MAX: usize = 16 << 10;

#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    pub version: u32,
    pub op: Op,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Op {
    /// Descriptors: a file with the [`crate::ExecSpec`], then the process's ends of those streams that the spec asks for.
    Exec,
    /// On a connection with a running [`Op::Exec`].
    Signal {
        signal: i32,
    },
    /// Descriptors: where to write standard output and, without a terminal, standard error.
    Attach,
    Resize {
        size: TerminalSize,
    },
    ReopenLog,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Done,
    /// Descriptor: the terminal's master side, if there is one.
    Exec {
        pid: i32,
    },
    /// Descriptor: standard input or the terminal's master side, if there is one.
    Attached {
        tty: bool,
        stdin: bool,
    },
    Exited(ExitStatus),
    Failed {
        message: String,
        start: bool,
    },
}

/// What a shim tells its maker, once.
#[derive(Debug, Serialize, Deserialize)]
pub enum Started {
    Running,
    Failed { message: String, start: bool },
}

pub fn send<T: Serialize>(socket: impl AsFd, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors in one message"));
    }
    rustix::io::retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// The next message; `None` when the other side has closed.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0u8; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, fds)))
}
