//! A file's changes, as the kernel tells of them. The directory is watched: editors and mounted ConfigMaps put a new file in
//! the old one's place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_base::{Clock, OnStop, Tasks};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use crate::measured::{self, Configuration};

/// Calls `read` whenever a file has other contents; what is wrong with them is told in the log, and all stays as it was.
///
/// # Errors
/// If the file's directory cannot be watched.
pub(crate) fn reload(
    tasks: &Tasks,
    which: Configuration,
    file: &Path,
    clock: Arc<dyn Clock>,
    read: impl Fn() -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    let what = match which {
        Configuration::Authentication => "authentication configuration",
        Configuration::Authorization => "authorization configuration",
    };
    let mut changes = Changes::watch(file).map_err(|e| format!("watching {}: {e}", file.display()))?;
    tasks.spawn(what, OnStop::Abort, async move {
        while changes.next().await.is_ok() {
            let outcome = read();
            measured::reloaded(which, outcome.is_ok(), clock.now());
            match outcome {
                Ok(()) => tracing::info!("the {what} was read anew"),
                Err(error) => tracing::error!(%error, "the {what} stays as it was"),
            }
        }
    });
    Ok(())
}

/// The contents of a file, whenever they may have changed.
struct Changes {
    file: PathBuf,
    events: AsyncFd<std::os::fd::OwnedFd>,
    last: Option<Vec<u8>>,
}

impl Changes {
    /// Watches a file that has these contents now.
    ///
    /// # Errors
    /// If its directory cannot be watched.
    fn watch(file: &Path) -> std::io::Result<Changes> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let changes = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY;
        inotify::add_watch(&events, dir, changes)?;
        let last = std::fs::read(file).ok();
        Ok(Changes { file: file.to_owned(), events: async_fd(events)?, last })
    }

    /// Waits until the file can be read and has other contents than before.
    ///
    /// # Errors
    /// If the kernel's events cannot be read.
    async fn next(&mut self) -> std::io::Result<()> {
        loop {
            let mut ready = self.events.readable().await?;
            // What has happened is of no account: the file is read anyway.
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(ready.get_inner(), &mut buffer);
            while reader.next().is_ok() {}
            ready.clear_ready();
            let now = std::fs::read(&self.file).ok();
            if now.is_some() && now != self.last {
                self.last = now;
                return Ok(());
            }
        }
    }
}

/// An owned descriptor is one that nobody else closes, which is all that the other constructor asks to be promised.
#[expect(deprecated, reason = "the other constructor is unsafe, and this crate has no unsafe code")]
fn async_fd(fd: std::os::fd::OwnedFd) -> std::io::Result<AsyncFd<std::os::fd::OwnedFd>> {
    AsyncFd::new(fd)
}
