//! The task tree: every background task has a name, a rule for its failure and a rule for the stop.
//!
//! `tokio::spawn` is disallowed elsewhere, so that no task is forgotten at shutdown and none dies unseen.

use std::fmt::Display;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use tokio::sync::watch;

use crate::{Clock, SystemClock, backoff};

/// What happens when a task ends with an error or a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// Run it again, with growing pauses up to 30 s (only for tasks made by [`Tasks::run`]).
    Restart,
    /// Say so and go on without it.
    Log,
    /// Stop the whole tree; [`Tasks::failed`] completes with the reason.
    Fatal,
}

/// What happens to a running task when the tree stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// It watches [`Tasks::stopping`] and ends by itself; the stop waits for it.
    Drain,
    /// It is dropped at its next await.
    Abort,
}

/// Runs futures: tokio's threads, or the simulator's seeded single thread.
pub trait Executor: Send + Sync + 'static {
    /// Runs `future` to its end.
    fn spawn(&self, future: BoxFuture<'static, ()>);
}

/// The executor of the tokio runtime that was current when it was made.
#[derive(Debug, Clone)]
pub struct TokioExecutor(tokio::runtime::Handle);

impl TokioExecutor {
    /// The current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn current() -> TokioExecutor {
        TokioExecutor(tokio::runtime::Handle::current())
    }
}

impl Executor for TokioExecutor {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.0.spawn(future);
    }
}

/// A handle on the task tree; clones share it.
#[derive(Clone)]
pub struct Tasks(Arc<Inner>);

struct Inner {
    executor: Arc<dyn Executor>,
    clock: Arc<dyn Clock>,
    stop: watch::Sender<bool>,
    failed: watch::Sender<Option<String>>,
    live: AtomicUsize,
    idle: watch::Sender<()>,
    /// Handles of running tasks; an entry whose task has ended is dropped at the next start.
    aborts: Mutex<Vec<(Weak<()>, AbortHandle)>>,
}

impl Tasks {
    /// A tree on the current tokio runtime and the machine's clock.
    pub fn tokio() -> Tasks {
        Tasks::new(Arc::new(TokioExecutor::current()), Arc::new(SystemClock))
    }

    /// A tree on the given backend.
    pub fn new(executor: Arc<dyn Executor>, clock: Arc<dyn Clock>) -> Tasks {
        Tasks(Arc::new(Inner {
            executor,
            clock,
            stop: watch::channel(false).0,
            failed: watch::channel(None).0,
            live: AtomicUsize::new(0),
            idle: watch::channel(()).0,
            aborts: Mutex::new(Vec::new()),
        }))
    }

    /// The clock that this tree runs on.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.0.clock.clone()
    }

    /// Starts a short-lived task that cannot fail (a connection, one request's tail).
    pub fn spawn(&self, name: &'static str, on_stop: OnStop, future: impl Future<Output = ()> + Send + 'static) {
        self.start(name, OnError::Log, on_stop, future.map(Ok::<(), String>).boxed());
    }

    /// Starts a long-lived task from a factory, so that [`OnError::Restart`] can start it anew.
    pub fn run<F, Fut, E>(&self, name: &'static str, on_error: OnError, on_stop: OnStop, factory: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let clock = self.0.clock.clone();
        let body = async move {
            let mut failures = 0;
            loop {
                let outcome = std::panic::AssertUnwindSafe(factory()).catch_unwind().await;
                let reason = match outcome {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(error)) => error.to_string(),
                    Err(panic) => panic_text(panic.as_ref()),
                };
                if on_error != OnError::Restart {
                    return Err(reason);
                }
                failures += 1;
                let pause = backoff::delay(Duration::from_millis(100), Duration::from_secs(30), failures);
                tracing::warn!(task = name, error = %reason, "restarting task in {pause:?}");
                clock.sleep(pause).await;
            }
        };
        self.start(name, on_error, on_stop, body.boxed());
    }

    fn start(
        &self,
        name: &'static str,
        on_error: OnError,
        on_stop: OnStop,
        body: BoxFuture<'static, Result<(), String>>,
    ) {
        let (abort, registration) = AbortHandle::new_pair();
        let alive = Arc::new(());
        if on_stop == OnStop::Abort {
            let mut aborts = self.0.aborts.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            aborts.retain(|(ended, _)| ended.strong_count() > 0);
            aborts.push((Arc::downgrade(&alive), abort));
        }
        self.0.live.fetch_add(1, Ordering::AcqRel);
        let live = Live(self.clone(), alive);
        let guarded = Abortable::new(std::panic::AssertUnwindSafe(body).catch_unwind(), registration);
        self.0.executor.spawn(Box::pin(async move {
            let reason = match guarded.await {
                Ok(Ok(Ok(()))) | Err(_) => None,
                Ok(Ok(Err(reason))) => Some(reason),
                Ok(Err(panic)) => Some(panic_text(panic.as_ref())),
            };
            if let Some(reason) = reason {
                tracing::error!(task = name, error = %reason, "task failed");
                if on_error == OnError::Fatal {
                    live.0.0.failed.send_if_modified(|slot| {
                        let first = slot.is_none();
                        slot.get_or_insert_with(|| format!("{name}: {reason}"));
                        first
                    });
                    live.0.begin_stop();
                }
            }
        }));
    }

    /// Completes when the tree has begun to stop.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.0.stop.subscribe();
        async move {
            // An error means that the tree is gone: that is a stop too.
            let _ = stop.wait_for(|stopped| *stopped).await;
        }
    }

    /// Whether the tree has begun to stop.
    pub fn is_stopping(&self) -> bool {
        *self.0.stop.borrow()
    }

    /// Completes when a [`OnError::Fatal`] task has failed, with the reason.
    pub async fn failed(&self) -> String {
        let mut failed = self.0.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => String::from("the task tree is gone"),
        }
    }

    /// Begins the stop: draining tasks are told, the others are dropped.
    pub fn begin_stop(&self) {
        self.0.stop.send_replace(true);
        for (_, abort) in self.0.aborts.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).drain(..) {
            abort.abort();
        }
    }

    /// Begins the stop and waits until every task has ended, at most for `limit`. True if all have.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.begin_stop();
        let mut idle = self.0.idle.subscribe();
        let all = async {
            while self.0.live.load(Ordering::Acquire) > 0 {
                if idle.changed().await.is_err() {
                    return;
                }
            }
        };
        let deadline = self.0.clock.sleep(limit);
        matches!(futures::future::select(Box::pin(all), deadline).await, futures::future::Either::Left(_))
    }
}

/// Counts a task until it is dropped.
struct Live(
    Tasks,
    #[expect(dead_code, reason = "held, so that its weak twin tells whether the task still runs")] Arc<()>,
);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.0.live.fetch_sub(1, Ordering::AcqRel);
        self.0.0.idle.send_replace(());
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_else(|| String::from("(no text)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_waits_for_draining_tasks_and_drops_the_others() {
        let tasks = Tasks::tokio();
        let (done, seen) = tokio::sync::oneshot::channel();
        let stopping = tasks.stopping();
        tasks.spawn("drains", OnStop::Drain, async move {
            stopping.await;
            let _ = done.send(());
        });
        tasks.spawn("forever", OnStop::Abort, std::future::pending());
        assert!(tasks.stop(Duration::from_secs(5)).await);
        assert!(seen.await.is_ok());
    }

    #[tokio::test]
    async fn a_fatal_failure_stops_the_tree() {
        let tasks = Tasks::tokio();
        tasks.run("doomed", OnError::Fatal, OnStop::Abort, || async { Err::<(), _>("no disk") });
        assert_eq!(tasks.failed().await, "doomed: no disk");
        assert!(tasks.is_stopping());
    }
}
