//! Deletes finished jobs after their time (`pkg/controller/ttlafterfinished`).

use std::time::Duration;

use corten_kinds::id;
use corten_views::Job;

use crate::{Action, Controller, Key, Plan, Watch, World};

/// The controller.
pub struct TtlController;

const WATCHES: &[Watch] = &[Watch::itself(id::JOB)];

impl Controller for TtlController {
    fn name(&self) -> &'static str {
        "ttl-after-finished"
    }

    fn component(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(job) = world.get::<Job>(key).filter(|j| !j.head().is_deleting()) else { return Plan::empty() };
        let finished = job.finished().and_then(|c| c.last_transition_time);
        let Some((at, ttl)) = finished.zip(job.spec.ttl_seconds_after_finished) else { return Plan::empty() };
        let left = jiff::SignedDuration::from_secs(ttl) - world.now.duration_since(at);
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => Plan { requeue: Some(left), ..Plan::empty() },
            _ => Plan::of(vec![Action::delete_with(&job.object, "Foreground")]),
        }
    }
}
