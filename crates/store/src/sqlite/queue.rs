//! The writer's queue: filled by async callers, emptied in groups by one thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::{Batch, Result, Revision};

/// How many callers may wait for the writer; more wait for a place in the queue.
const WAITING_MAX: usize = 4096;
/// How many commits share a transaction.
const GROUP_MAX: usize = 1024;

pub(crate) enum Job {
    Commit { batch: Batch, reply: oneshot::Sender<Result<Revision>> },
    Compact { before: Revision, reply: oneshot::Sender<Result<()>> },
}

pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    places: Semaphore,
}

struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// Why the writer was woken.
pub(crate) enum Wake {
    Jobs(Vec<Job>),
    Deadline,
    Closed,
}

impl Queue {
    pub(crate) fn new() -> Queue {
        let state = State { jobs: VecDeque::new(), closed: false };
        Queue { state: Mutex::new(state), filled: Condvar::new(), places: Semaphore::new(WAITING_MAX) }
    }

    /// Waits for a place; keep it until the job is answered.
    pub(crate) async fn place(&self) -> SemaphorePermit<'_> {
        self.places.acquire().await.expect("the semaphore is never closed")
    }

    /// Gives the job back if the queue is closed.
    pub(crate) fn push(&self, job: Job) -> std::result::Result<(), Job> {
        let mut state = self.lock();
        if state.closed {
            return Err(job);
        }
        state.jobs.push_back(job);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// No more jobs; those in the queue are still done.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Waits for jobs, until `deadline` (`None`: for ever), and takes as many as make a group.
    pub(crate) fn take(&self, deadline: Option<Instant>) -> Wake {
        let mut state = self.lock();
        while state.jobs.is_empty() {
            if state.closed {
                return Wake::Closed;
            }
            state = match deadline {
                None => self.filled.wait(state).expect(HELD),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Wake::Deadline;
                    }
                    self.filled.wait_timeout(state, left).expect(HELD).0
                }
            };
        }
        let count = state.jobs.len().min(GROUP_MAX);
        Wake::Jobs(state.jobs.drain(..count).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(HELD)
    }
}

const HELD: &str = "nothing panics while it holds the queue";
