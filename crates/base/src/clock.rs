//! Time as a value that is passed in.

use std::time::Duration;

use futures::future::BoxFuture;

/// A point in time, UTC, nanoseconds.
pub type Timestamp = jiff::Timestamp;

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock's time.
    fn now(&self) -> Timestamp;

    /// Completes after `duration` of this clock's time.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Completes once the clock shows `deadline` (at once if that is past).
    fn sleep_until(&self, deadline: Timestamp) -> BoxFuture<'static, ()> {
        self.sleep(
            Duration::try_from(self.now().until(deadline).map_or(jiff::SignedDuration::ZERO, |s| {
                jiff::SignedDuration::try_from(s).unwrap_or(jiff::SignedDuration::ZERO)
            }))
            .unwrap_or(Duration::ZERO),
        )
    }
}

/// The machine's clock; sleeps on tokio's timer.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}
