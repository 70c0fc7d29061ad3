//! Network namespaces: entering, pinning, unpinning.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::mount::UnmountFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::NetError;

/// The calling thread's own namespace file.
const OWN: &str = "/proc/thread-self/ns/net";

/// Makes a network namespace and pins it at `path` (a file that must not exist yet) with a bind mount.
///
/// # Errors
/// If the file cannot be made or the kernel refuses.
pub fn create_pinned(path: &Path) -> Result<(), NetError> {
    File::create_new(path).map_err(|source| NetError::file(path, source))?;
    let pinned = on_own_thread(|| {
        // SAFETY: only the network namespace is unshared, which shares no memory or descriptors with other threads.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        rustix::mount::mount_bind(OWN, path)?;
        Ok(())
    });
    if pinned.is_err() {
        let _ = std::fs::remove_file(path);
    }
    pinned.map_err(|source| NetError::kernel(format!("pin a network namespace at {}", path.display()), source))
}

/// Unpins a namespace and removes its file; harmless if it is gone. The namespace ends with its last process.
///
/// # Errors
/// If the kernel refuses.
pub fn remove_pinned(path: &Path) -> Result<(), NetError> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(NetError::kernel(format!("unmount {}", path.display()), error.into())),
    }
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(NetError::file(path, error)),
    }
}

/// Runs `work` on a thread of its own inside the namespace at `path` and waits for it. Sockets opened there stay in
/// that namespace.
///
/// # Errors
/// If the namespace cannot be entered, or what `work` answers.
pub fn run_in<T: Send>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    on_own_thread(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    })
}

/// Runs `work` in a new network namespace that ends with it.
pub(crate) fn in_throwaway<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_own_thread(|| {
        // SAFETY: only the network namespace is unshared, which shares no memory or descriptors with other threads.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok(work())
    })
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
}

/// Enters `target` with the calling thread for the length of `work`, then goes back.
///
/// The thread must be one of ours: if the way back is barred it would be left in the wrong namespace, so that it panics.
pub(crate) fn visit<T>(target: &File, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let home = File::open(OWN)?;
    move_into_link_name_space(target.as_fd(), Some(LinkNameSpaceType::Network))?;
    let outcome = work();
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("a thread may return to the namespace that it came from");
    outcome
}

/// Whether an open namespace file is the calling thread's own namespace.
pub(crate) fn is_own(namespace: &File) -> io::Result<bool> {
    let (one, other) = (namespace.metadata()?, std::fs::metadata(OWN)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Moves the calling thread for good.
pub(crate) fn enter(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}
