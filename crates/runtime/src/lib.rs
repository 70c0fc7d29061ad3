//! Containers on the kernel: namespaces, cgroups, capabilities, seccomp, one shim process each.
//!
//! The crate knows nothing of Kubernetes: a [`SandboxSpec`] is a set of pinned namespaces below a cgroup, a
//! [`ContainerSpec`] is a process tree in it. A [`Runtime`] is the server's side: synchronous, thread-safe, without any
//! state in memory; what exists is what the state directory and the kernel say, so a new `Runtime` on the same directory
//! adopts what an old one left.
//!
//! Each running container has one shim: the same executable started again with `container-shim` as its first argument. The
//! binary's `main` must call [`dispatch`] before it does anything else, above all before any thread starts. The shim is
//! single-threaded, makes the container's process, writes its log, reaps it, writes the exit file and ends. It survives the
//! server's death.
//!
//! Threads of control for an asynchronous caller: a [`RunningShim`]'s pidfd becomes readable when the container has exited
//! and its exit file is there; an [`ExecSession`]'s descriptor becomes readable when the process has exited; streams are
//! plain pipes and terminals. Every other call blocks for milliseconds at most and belongs on a blocking thread.

pub mod caps;
mod cgroup;
pub mod defaults;
mod error;
mod inside;
mod log;
pub mod loop_device;
mod maker;
mod pause;
mod program;
pub mod project_quota;
mod proto;
mod rootfs;
mod runtime;
mod sandbox;
mod seccomp;
mod session;
mod shim;
mod spec;
mod state;
mod status;
mod sys;
pub mod user;
mod users;

pub use caps::CapSet;
pub use error::{Error, Result};
pub use runtime::{RunningShim, Runtime, RuntimeConfig};
pub use session::{Attachment, ExecSession, set_terminal_size};
pub use spec::{
    ContainerSpec, Device, ExecSpec, IdRange, Log, Mount, MountSource, PidNamespace, Propagation, ReadOnly, Resources,
    Rlimit, Rootfs, SandboxSpec, Seccomp, Share, TerminalSize, User,
};
pub use status::{Container, ContainerStatus, ExitInfo, ExitStatus, Sandbox, Stats};

/// Runs one of the runtime's own processes and ends, when the arguments ask for one; returns otherwise.
///
/// Call it first in `main`: the shim must be single-threaded.
pub fn dispatch() {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(what), Some(directory)) = (arguments.next(), arguments.next()) else { return };
    match what.to_str() {
        Some(maker::ARGUMENT) => maker::main(),
        Some(what) => run(what, std::path::Path::new(&directory)),
        None => {}
    }
}

/// Runs what works on one directory; returns if it is none of that.
fn run(what: &str, directory: &std::path::Path) {
    match what {
        shim::ARGUMENT => shim::main(directory),
        pause::ARGUMENT => pause::main(directory),
        users::ARGUMENT => users::main(directory),
        _ => {}
    }
}
