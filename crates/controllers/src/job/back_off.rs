//! How long a job waits after failures in a row (`pkg/controller/job/backoff_utils.go`).

use std::collections::BTreeMap;
use std::time::Duration;

use corten_base::{Timestamp, backoff};
use corten_views::Pod;

use super::Sync;
use super::pods::{finished_at, is_tracked};
use crate::{Typed, World};

const BACKOFF_MIN: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);
/// As many failures as it takes to wait for [`BACKOFF_MAX`], and more.
const FAILURES_MAX: usize = 16;

/// The failures of a job since its last success. The pods themselves tell of them while they are there; what is remembered
/// beyond that is lost at a restart, as upstream's.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct BackOff {
    last_success: Option<Timestamp>,
    /// When the pods with these uids failed.
    failures: BTreeMap<String, Timestamp>,
}

impl BackOff {
    /// What was known, and what the pods tell now.
    pub fn observe(known: Option<&BackOff>, sync: &Sync<'_>) -> BackOff {
        let mut out = known.cloned().unwrap_or_default();
        // A pod that goes without having been counted was not wanted any more.
        let counts = |p: &Typed<Pod>| sync.is_failed(p) && (is_tracked(p) || !p.is_terminating());
        let failed = sync.pods.iter().filter(|p| counts(p) || out.failures.contains_key(p.uid()));
        let failed: Vec<_> = failed.filter_map(|p| Some((p.uid().to_owned(), finished_at(p)?))).collect();
        out.failures.extend(failed);
        if out.failures.is_empty() {
            return BackOff::default();
        }
        out.last_success = out.last_success.max(sync.last_success());
        out.failures.retain(|_, at| out.last_success.is_none_or(|success| *at > success));
        while out.failures.len() > FAILURES_MAX
            && let Some(oldest) = out.failures.iter().min_by_key(|(_, at)| **at).map(|(uid, _)| uid.clone())
        {
            out.failures.remove(&oldest);
        }
        out
    }

    /// Whether there is anything to remember.
    pub fn is_empty(&self) -> bool {
        *self == BackOff::default()
    }

    /// How long the next pod waits; `None` if it need not.
    pub fn remaining(&self, world: &World<'_>) -> Option<Duration> {
        remaining(world, self.failures.len(), *self.failures.values().max()?)
    }
}

/// How long to wait after so many failures in a row (`getRemainingTimeForFailuresCount`).
pub(super) fn remaining(world: &World<'_>, failures: usize, last: Timestamp) -> Option<Duration> {
    let wait = backoff::delay(BACKOFF_MIN, BACKOFF_MAX, u32::try_from(failures).unwrap_or(u32::MAX));
    let passed = Duration::try_from(world.now.duration_since(last)).unwrap_or(Duration::ZERO);
    wait.checked_sub(passed).filter(|d| !d.is_zero())
}
