//! User namespaces: a sandbox whose root is nobody on the host.
//!
//! The sandbox's user namespace owns its other namespaces, so that capabilities inside reach no further than these. It is
//! made by a short process of ours, as only a process with one thread may step into one. File systems are mounted by the
//! host's root: layers and volumes with their owners mapped (`mount_setattr`), so that nothing is ever chowned.

use crate::maker;
use crate::sandbox;
use crate::state;
use crate::sys::{self, Cloned};
use crate::{Error, IdRange, Result, SandboxSpec, User};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The first argument of its command line.
pub const ARGUMENT: &str = "container-users";
/// The sandbox that it works for: a [`SandboxSpec`].
pub const ORDER_FILE: &str = "users-order.json";

/// Makes a sandbox's namespaces below a user namespace of its own, pins them and ends.
pub fn main(directory: &Path) -> ! {
    maker::perform(|| make(directory))
}

fn make(directory: &Path) -> Result<()> {
    let path = directory.join(ORDER_FILE);
    let missing = || Error::file(&path, io::Error::from(io::ErrorKind::NotFound));
    let spec: SandboxSpec = state::read(&path)?.ok_or_else(missing)?;
    let ids = spec.users.ok_or_else(|| Error::Invalid(format!("{} names no users", path.display())))?;
    let others = sandbox::own(&spec) & !libc::CLONE_NEWUSER;
    let holder = Holder::start(ids, others)?;
    // Not into the user namespace: with the host's rights all can be set up as in any other sandbox.
    if others != 0 {
        sys::set_namespace(holder.pidfd.as_fd(), others).map_err(|e| Error::system("join the new namespaces", e))?;
    }
    sandbox::settle(directory, &spec, &format!("/proc/{}/ns", holder.pid))
}

/// A process that holds new namespaces while they are pinned; it is killed with this.
struct Holder {
    pid: i32,
    pidfd: OwnedFd,
}

impl Holder {
    fn start(ids: IdRange, namespaces: libc::c_int) -> Result<Holder> {
        let failed = |what: &'static str| move |e: io::Error| Error::system(what, e);
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::system("pipe", e));
        let ((wait, go), (told, tell)) = (pipe()?, pipe()?);
        let cloned = sys::clone_process(libc::CLONE_NEWUSER, None);
        match cloned.map_err(failed("make a user namespace"))? {
            Cloned::Child => {
                drop((go, told));
                hold(wait, tell, namespaces)
            }
            Cloned::Parent { pid, pidfd } => {
                drop((wait, tell));
                let holder = Holder { pid, pidfd };
                for map in ["uid_map", "gid_map"] {
                    let path = format!("/proc/{pid}/{map}");
                    let line = format!("0 {} {}\n", ids.first, ids.count);
                    fs::write(&path, line).map_err(|e| Error::system(format!("map users {ids:?}"), e))?;
                }
                File::from(go).write_all(b"g").map_err(failed("wake the holder of a user namespace"))?;
                let mut said = String::new();
                let _ = File::from(told).read_to_string(&mut said);
                match said.as_str() {
                    "ready" => Ok(holder),
                    said => Err(Error::system("make namespaces for other users", io::Error::other(said.to_owned()))),
                }
            }
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It is reaped by nobody but init, as this process is about to end.
        let _ = sys::kill_pidfd(self.pidfd.as_fd(), libc::SIGKILL);
    }
}

/// Waits until its users are mapped, so that what it makes belongs to them, makes the other namespaces and stays.
fn hold(wait: OwnedFd, tell: OwnedFd, namespaces: libc::c_int) -> ! {
    let mut go = [0u8];
    let made = sys::set_parent_death_signal(libc::SIGKILL)
        .and_then(|()| File::from(wait).read_exact(&mut go))
        .and_then(|()| if namespaces == 0 { Ok(()) } else { sys::unshare(namespaces) });
    let said = made.map_or_else(|e| e.to_string(), |()| "ready".to_owned());
    let _ = File::from(tell).write_all(said.as_bytes());
    loop {
        sys::pause();
    }
}

/// A pinned user namespace.
pub fn open(pin: &Path) -> Result<OwnedFd> {
    File::open(pin).map(OwnedFd::from).map_err(|e| Error::file(pin, e))
}

/// Steps into a user namespace, with all capabilities there and none on the host. The user stays the host's root, who owns
/// what only this runtime may open, until [`sys::become_user`].
pub fn join(namespace: &OwnedFd) -> Result<()> {
    sys::set_namespace(namespace.as_fd(), libc::CLONE_NEWUSER).map_err(|e| Error::system("join a user namespace", e))
}

/// Shows a detached mount's files to a user namespace as its own. The message is runc's, `libcontainer/rootfs_linux.go`.
pub fn map_mount(tree: impl AsFd, namespace: &OwnedFd, shown: &str) -> Result<()> {
    sys::map_mount_ids(tree.as_fd(), namespace.as_fd()).map_err(|e| {
        let hint = match e.raw_os_error() {
            Some(libc::EINVAL) => " (maybe the filesystem used doesn't support idmap mounts on this kernel?)",
            _ => "",
        };
        let reason = rustix::io::Errno::from_io_error(&e).map_or_else(|| e.to_string(), crate::program::reason);
        Error::Invalid(format!("failed to set MOUNT_ATTR_IDMAP on {shown}: {reason}{hint}"))
    })
}

/// Refuses users that a sandbox does not have. The messages are runc's, `libcontainer/init_linux.go`.
pub fn check(user: &User, ids: Option<IdRange>) -> Result<()> {
    let Some(ids) = ids else { return Ok(()) };
    if user.uid >= ids.count {
        return Err(Error::Invalid("cannot set uid to unmapped user in user namespace".into()));
    }
    if user.gid >= ids.count || user.additional_gids.iter().any(|gid| *gid >= ids.count) {
        return Err(Error::Invalid("cannot set gid to unmapped user in user namespace".into()));
    }
    Ok(())
}
