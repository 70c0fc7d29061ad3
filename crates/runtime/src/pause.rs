//! The init process of a PID namespace that containers share: it reaps and does nothing else, with no capabilities and in
//! an empty root, so that `/proc/1` of the namespace leads nowhere.

use crate::cgroup::{Cgroups, Handles};
use crate::maker;
use crate::rootfs;
use crate::shim::join_cgroups;
use crate::state::{self, ProcessRef};
use crate::sys::{self, Cloned};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// The first argument of its command line.
pub const ARGUMENT: &str = "container-init";

/// What it is to do: written by the server beside the sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub cgroups: Cgroups,
    pub cgroup: String,
    /// The pin of the user namespace that is to own the PID namespace.
    #[serde(default)]
    pub users: Option<PathBuf>,
}

pub const ORDER_FILE: &str = "init-order.json";
/// Who it is: a [`ProcessRef`].
pub const INIT_FILE: &str = "init.json";

/// Makes the namespace and its first process and ends; the process stays.
pub fn main(directory: &Path) -> ! {
    maker::perform(|| start(directory))
}

fn start(directory: &Path) -> Result<()> {
    rustix::process::setsid().map_err(|e| Error::system("setsid", e))?;
    sys::set_not_dumpable().map_err(|e| Error::system("leave the dumpable state", e))?;
    let order: Order = state::read(&directory.join(ORDER_FILE))?
        .ok_or_else(|| Error::Invalid(format!("{} has no {ORDER_FILE}", directory.display())))?;
    let handles = order.cgroups.handles(&order.cgroup)?;
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| Error::system("pipe", e))?;
    if let Some(pin) = &order.users {
        // Last: what follows is done as a user of the host's who has no rights there.
        crate::users::join(&crate::users::open(pin)?)?;
    }
    let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    let cloned = sys::clone_process(namespaces, handles.unified.as_ref().map(|fd| fd.as_fd()));
    match cloned.map_err(|e| Error::system("make a PID namespace", e))? {
        Cloned::Child => {
            drop(reader);
            if let Err(message) = settle(directory, &handles, order.users.is_some()) {
                let _ = rustix::io::write(&writer, message.as_bytes());
                sys::exit(1)
            }
            drop((writer, handles));
            sys::close_from(0);
            loop {
                sys::pause();
            }
        }
        Cloned::Parent { pid, .. } => {
            drop(writer);
            state::write(&directory.join(INIT_FILE), &ProcessRef::of(pid)?)?;
            let mut message = String::new();
            let _ = std::io::Read::read_to_string(&mut std::fs::File::from(reader), &mut message);
            if message.is_empty() { Ok(()) } else { Err(Error::Invalid(message)) }
        }
    }
}

fn settle(directory: &Path, handles: &Handles, own_users: bool) -> Result<(), String> {
    let said = |(what, e): (String, rustix::io::Errno)| format!("{what}: {e}");
    let _ = rustix::thread::set_name(c"corten-init");
    sys::reset_signals();
    // An ignored SIGCHLD reaps; as first process of its namespace it gets no other signal but SIGKILL from outside.
    sys::ignore_signal(libc::SIGCHLD);
    join_cgroups(handles).map_err(said)?;
    rootfs::enter_empty(directory).map_err(said)?;
    if own_users {
        sys::become_user(0, 0, &[]).map_err(|e| e.to_string())?;
    }
    for capability in (0..63).take_while(|n| sys::in_bounding_set(*n).is_some()) {
        sys::drop_from_bounding_set(capability).map_err(|e| e.to_string())?;
    }
    sys::set_no_new_privs().map_err(|e| e.to_string())?;
    sys::set_capabilities(0, 0, 0).map_err(|e| e.to_string())
}
