//! How far a pull has come.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// How far a pull has come, for who shows it.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
    moved: Notify,
}

impl Progress {
    /// Bytes that are here, and bytes in all; zero until the manifest is known.
    pub fn bytes(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Completes when there is something new to show.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }

    pub(crate) fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.moved.notify_one();
    }
}
