//! How many requests are worked on at once (upstream's `--max-requests-inflight`); priorities and fairness come later.

use std::sync::Arc;
use std::time::Duration;

use corten_auth::{User, group};
use corten_base::Clock;
use corten_object::Status;
use futures::future::Either;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reads at once.
const READS_MAX: usize = 400;
/// Writes at once.
const WRITES_MAX: usize = 200;

/// How long a request waits for its place.
const WAIT_MAX: Duration = Duration::from_secs(5);

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
    /// A place for one request, waited for if need be; 429 if there is none for too long. The masters always have one.
    pub async fn enter(
        &self,
        user: &User,
        writes: bool,
        clock: &dyn Clock,
    ) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if user.in_group(group::MASTERS) {
            return Ok(None);
        }
        let places = if writes { &self.writes } else { &self.reads };
        if let Ok(permit) = places.clone().try_acquire_owned() {
            return Ok(Some(permit));
        }
        let place = places.clone().acquire_owned();
        futures::pin_mut!(place);
        match futures::future::select(place, clock.sleep(WAIT_MAX)).await {
            Either::Left((Ok(permit), _)) => Ok(Some(permit)),
            _ => Err(Status::too_many_requests("Too many requests, please try again later.", 1)),
        }
    }
}
