//! How many requests are worked on at once (upstream's `--max-requests-inflight`); priorities and fairness come later.

use std::sync::Arc;

use corten_auth::{User, group};
use corten_object::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reads at once.
const READS_MAX: usize = 400;
/// Writes at once.
const WRITES_MAX: usize = 200;

/// Bounds of requests in flight.
pub(crate) struct Flow {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow { reads: Arc::new(Semaphore::new(READS_MAX)), writes: Arc::new(Semaphore::new(WRITES_MAX)) }
    }
}

impl Flow {
    /// A place for one request; 429 if there is none. The masters always have one.
    pub fn enter(&self, user: &User, writes: bool) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if user.in_group(group::MASTERS) {
            return Ok(None);
        }
        let places = if writes { &self.writes } else { &self.reads };
        match places.clone().try_acquire_owned() {
            Ok(permit) => Ok(Some(permit)),
            Err(_) => Err(Status::too_many_requests("Too many requests, please try again later.", 1)),
        }
    }
}
