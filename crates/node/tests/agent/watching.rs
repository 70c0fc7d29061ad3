//! Waiting for what the kernel tells of: files, and what a container says.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use corten_client::{LogRequest, PodTarget};
use futures::StreamExt as _;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Cluster;

/// How long anything may take: long enough for a machine in emulation that gets little of its host.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Looks whenever something in the directories has changed, until it is so.
pub async fn until_in(directories: &[&Path], what: &str, mut check: impl AsyncFnMut() -> bool) {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
    for directory in directories {
        let all = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE;
        inotify::add_watch(&inotify, *directory, all).unwrap();
    }
    let inotify = event_fd(inotify);
    let looking = async {
        while !check().await {
            changed(&inotify).await;
        }
    };
    tokio::time::timeout(LIMIT, looking).await.unwrap_or_else(|_| panic!("timed out: {what}"));
}

#[expect(deprecated, reason = "the constructor that replaces it is unsafe for the sake of other types than OwnedFd")]
fn event_fd(fd: OwnedFd) -> AsyncFd<OwnedFd> {
    AsyncFd::with_interest(fd, Interest::READABLE).unwrap()
}

async fn changed(inotify: &AsyncFd<OwnedFd>) {
    loop {
        let mut ready = inotify.readable().await.unwrap();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(inotify, &mut buffer);
        let mut any = false;
        while events.next().is_ok() {
            any = true;
        }
        ready.clear_ready();
        if any {
            return;
        }
    }
}

impl Cluster {
    /// Follows a pod's log until it is so.
    pub async fn until_log_is(&self, pod: &str, check: impl Fn(&str) -> bool) {
        let target = PodTarget { namespace: "default".into(), pod: pod.into(), container: String::new() };
        let request = LogRequest { target, follow: true, ..LogRequest::default() };
        let mut stream = self.node().logs(request).await.unwrap();
        let mut said = Vec::new();
        let reading = async {
            while !check(&String::from_utf8_lossy(&said)) {
                match stream.next().await {
                    Some(piece) => said.extend_from_slice(&piece.unwrap()),
                    None => return false,
                }
            }
            true
        };
        let found = tokio::time::timeout(LIMIT, reading).await.unwrap_or(false);
        assert!(found, "{:?}", String::from_utf8_lossy(&said));
    }

    /// Waits until a pod's log is so.
    pub async fn until_log(&self, pod: &str, wanted: &str) {
        self.until_log_is(pod, |said| said == wanted).await;
    }
}
