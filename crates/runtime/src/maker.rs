//! The maker of shims: one single-threaded process per server that forks on request. A shim so shares the memory of the
//! program's start (relocated tables, the loader's and the allocator's own) with all its siblings, and starts without that
//! work: most of a shim's memory and start-up time in a large program.
//!
//! It ends with its server, when its socket closes; shims live on.

use crate::proto::{self, Started};
use crate::state;
use crate::sys;
use crate::{Error, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The first argument of its command line.
pub const ARGUMENT: &str = "container-shims";
/// Room for the title of a shim, which replaces the command line that it inherits.
const TITLE_BYTES: usize = 512;

/// Descriptors: a socket for the report, a file for complaints.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    argument: String,
    directory: PathBuf,
}

/// The server's side.
#[derive(Debug)]
pub struct Maker {
    /// `None` only while it is dropped.
    socket: Option<OwnedFd>,
    process: Child,
}

impl Maker {
    /// Starts the process from an open executable.
    pub fn start(exe: &OwnedFd) -> Result<Maker> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| Error::system("socketpair", e))?;
        let mut command = Command::new(format!("/proc/self/fd/{}", exe.as_raw_fd()));
        sys::without_huge_pages(&mut command);
        let process = command
            .arg0("corten-shims")
            .arg(ARGUMENT)
            .arg(" ".repeat(TITLE_BYTES))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| Error::system("start the maker of shims", e))?;
        Ok(Maker { socket: Some(ours), process })
    }

    /// Asks for a process with the two descriptors as its 0 and 2. Fails if the maker is gone.
    pub fn order(
        &self,
        argument: &str,
        directory: &Path,
        report: BorrowedFd<'_>,
        log: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let order = Order { argument: argument.to_string(), directory: directory.to_path_buf() };
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        proto::send(socket, &order, &[report, log])
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        // It ends when this closes.
        self.socket = None;
        let _ = self.process.wait();
    }
}

/// Runs the maker.
pub fn main() -> ! {
    sys::close_from(3);
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"corten-shims");
    // Its children are reaped by nobody else; they reset this.
    sys::ignore_signal(libc::SIGCHLD);
    let socket = sys::inherited(0);
    loop {
        match proto::receive::<Order>(&socket) {
            Ok(Some((order, fds))) => {
                // A failed fork closes the report, which says enough.
                if let Ok(true) = sys::fork() {
                    drop(socket);
                    become_ordered(&order, &fds)
                }
            }
            Ok(None) | Err(_) => sys::exit(0),
        }
    }
}

fn become_ordered(order: &Order, fds: &[OwnedFd]) -> ! {
    let [report, log] = fds else { sys::exit(1) };
    if sys::redirect(report.as_fd(), 0).and(sys::redirect(log.as_fd(), 2)).is_err() {
        sys::exit(1)
    }
    // Cosmetic: who looks at processes sees which container this is.
    let _ = set_title(&format!("corten-shim {} {}", order.argument, order.directory.display()));
    crate::run(&order.argument, &order.directory);
    sys::exit(1)
}

/// Does the work of a short process of ours, tells the server how it went, and ends.
pub fn perform(work: impl FnOnce() -> Result<()>) -> ! {
    sys::close_from(3);
    let report = sys::inherited(0);
    let told = match work() {
        Ok(()) => Started::Running,
        Err(e) => Started::Failed { message: e.to_string(), start: false },
    };
    let _ = proto::send(&report, &told, &[]);
    sys::exit(0)
}

/// Overwrites the command line. A last byte that is not zero tells the kernel that it is one title, up to the first zero.
fn set_title(title: &str) -> Result<()> {
    let path = "/proc/self/stat";
    let stat = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    let bounds =
        state::argument_bounds(&stat).ok_or_else(|| Error::file(path, io::Error::from(io::ErrorKind::InvalidData)))?;
    let room = (bounds.1 - bounds.0) as usize;
    let mut area = vec![0u8; room];
    let length = title.len().min(room.saturating_sub(2));
    area[..length].copy_from_slice(&title.as_bytes()[..length]);
    if let Some(last) = area.last_mut() {
        *last = b' ';
    }
    let path = "/proc/self/mem";
    let memory = File::options().write(true).open(path).map_err(|e| Error::file(path, e))?;
    memory.write_all_at(&area, bounds.0).map_err(|e| Error::file(path, e))
}
