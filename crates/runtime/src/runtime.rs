//! The server's side: everything that a node asks of the runtime.

use crate::{
    Container, ContainerSpec, Error, ExecSpec, ExitInfo, ExitStatus, Resources, Result, Sandbox, SandboxSpec, Stats,
    TerminalSize,
};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

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
    #[allow(dead_code)]
    config: RuntimeConfig,
}

/// A running container's shim, held open.
#[derive(Debug)]
pub struct RunningShim {
    /// Readable once the container has ended; then [`Runtime::exit_info`] answers.
    pub pidfd: OwnedFd,
}

/// A process started by [`Runtime::exec`]. Dropping it closes its streams and leaves the process alone.
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
}

impl ExecSession {
    /// The exit status if it has arrived, without blocking. Fails if the shim is gone.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        Ok(None)
    }

    /// Blocks until the process has exited.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Err(Error::Unsupported("wait".into()))
    }

    /// Sends a signal to the process; does nothing when it has exited.
    pub fn kill(&self, _signal: i32) -> Result<()> {
        Ok(())
    }
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
}

/// Changes the size of a terminal that an [`ExecSession`] or [`Attachment`] gave.
pub fn set_terminal_size(_terminal: &OwnedFd, _size: TerminalSize) -> Result<()> {
    Ok(())
}

impl Runtime {
    /// Checks the machine (root, kernel, cgroups) and makes the state directory and the root cgroup.
    pub fn new(config: RuntimeConfig) -> Result<Runtime> {
        Ok(Runtime { config })
    }

    /// Makes the sandbox's namespaces and cgroup. An error leaves nothing behind.
    pub fn create_sandbox(&self, _spec: &SandboxSpec) -> Result<Sandbox> {
        pending()
    }

    /// Kills and deletes what is left of its containers and takes away namespaces, cgroup and state. Idempotent.
    pub fn remove_sandbox(&self, _id: &str) -> Result<()> {
        pending()
    }

    pub fn sandbox(&self, _id: &str) -> Result<Sandbox> {
        pending()
    }

    pub fn list_sandboxes(&self) -> Result<Vec<Sandbox>> {
        pending()
    }

    /// Records a container: checks the spec and makes its cgroup and writable layer. No process yet.
    pub fn create_container(&self, _spec: &ContainerSpec) -> Result<()> {
        pending()
    }

    /// Starts the shim and the container's program. Returns once the program runs (its `execve` has succeeded). After an
    /// error of the program ([`Error::is_start_error`]) the container is `Exited` with code 128.
    pub fn start_container(&self, _id: &str) -> Result<RunningShim> {
        pending()
    }

    pub fn container(&self, _id: &str) -> Result<Container> {
        pending()
    }

    pub fn list_containers(&self) -> Result<Vec<Container>> {
        pending()
    }

    /// The shim of a running container, after a restart of the server as well; `None` when it is not running.
    pub fn running_shim(&self, _id: &str) -> Result<Option<RunningShim>> {
        pending()
    }

    /// How the container ended, `None` while it has not.
    pub fn exit_info(&self, _id: &str) -> Result<Option<ExitInfo>> {
        pending()
    }

    /// Sends a signal to the container's first process. Fine when it is gone.
    pub fn kill(&self, _id: &str, _signal: i32) -> Result<()> {
        pending()
    }

    /// Kills all processes of the container with SIGKILL. Fine when they are gone.
    pub fn kill_all(&self, _id: &str) -> Result<()> {
        pending()
    }

    /// Runs a further process in a running container. Returns once its `execve` has succeeded.
    pub fn exec(&self, _id: &str, _spec: &ExecSpec) -> Result<ExecSession> {
        pending()
    }

    /// Connects to a running container's streams.
    pub fn attach(&self, _id: &str) -> Result<Attachment> {
        pending()
    }

    /// Changes the size of the container's terminal.
    pub fn resize(&self, _id: &str, _size: TerminalSize) -> Result<()> {
        pending()
    }

    /// Closes the log file and opens its path anew, after somebody else renamed it.
    pub fn reopen_log(&self, _id: &str) -> Result<()> {
        pending()
    }

    /// Changes limits of a container in place; `None` fields stay.
    pub fn update_container(&self, _id: &str, _resources: &Resources) -> Result<()> {
        pending()
    }

    /// Changes limits of a cgroup below the root (a sandbox's or a level above), made when missing.
    pub fn update_cgroup(&self, _cgroup: &str, _resources: &Resources) -> Result<()> {
        pending()
    }

    pub fn container_stats(&self, _id: &str) -> Result<Stats> {
        pending()
    }

    /// Usage of a cgroup below the root: a sandbox's, or `""` for everything.
    pub fn cgroup_stats(&self, _cgroup: &str) -> Result<Stats> {
        pending()
    }

    /// Kills what still runs and takes away cgroup, writable layer and state; the log stays. Idempotent.
    pub fn delete_container(&self, _id: &str) -> Result<()> {
        pending()
    }

    /// Removes the root cgroup, which must be empty, and the state directory's own things. For `corten down`.
    pub fn shutdown(self) -> Result<()> {
        pending()
    }
}

fn pending<T>() -> Result<T> {
    Err(Error::Unsupported("the container runtime is not part of this build yet".into()))
}
