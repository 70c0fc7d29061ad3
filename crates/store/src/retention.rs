//! How much history a store keeps: policy as a pure object that is told about writes and says when to compact to what.
//!
//! Readers may rely on the horizon: a page that was read at some revision can be continued for that long. History beyond the
//! horizon is a luxury (time travel, late watchers) and is kept within an age and a byte budget.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Revision;

/// The budget of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What was current this long ago is never compacted. Upstream's API server has 5 minutes as well.
    pub horizon: Duration,
    /// What was replaced longer ago than this is compacted even when there is room. Upstream's API server compacts every 5
    /// minutes what was replaced 5 minutes ago, and clients wait no longer than 10 minutes for an old page's end.
    pub age_max: Duration,
    /// When replaced values occupy more than this, all beyond the horizon that is too much is compacted.
    pub history_bytes_max: u64,
}

impl Default for Retention {
    fn default() -> Retention {
        let minute = Duration::from_secs(60);
        Retention { horizon: 5 * minute, age_max: 7 * minute, history_bytes_max: 64 << 20 }
    }
}

/// What a store has written since its compacted revision, in coarse slices of time. Times are durations since any fixed start.
#[derive(Debug)]
pub struct Ledger {
    retention: Retention,
    slices: VecDeque<Slice>,
    /// The sum of all slices.
    bytes: u64,
}

#[derive(Debug)]
struct Slice {
    began: Duration,
    last_write: Duration,
    revision: Revision,
    /// The bytes that compacting to `revision` frees, beyond the slices before.
    bytes: u64,
}

impl Ledger {
    pub fn new(retention: Retention) -> Ledger {
        Ledger { retention, slices: VecDeque::new(), bytes: 0 }
    }

    /// Notes that at time `now` the store reached `revision`, and that this made `bytes` of older values historic.
    pub fn record(&mut self, now: Duration, revision: Revision, bytes: u64) {
        self.bytes += bytes;
        let width = self.retention.horizon / 30;
        match self.slices.back_mut() {
            Some(slice) if now.saturating_sub(slice.began) < width => {
                slice.last_write = now;
                slice.revision = revision;
                slice.bytes += bytes;
            }
            // A slice that frees nothing need not be told apart from the next one.
            Some(slice) if slice.bytes == 0 => *slice = Slice { began: now, last_write: now, revision, bytes },
            _ => self.slices.push_back(Slice { began: now, last_write: now, revision, bytes }),
        }
    }

    /// What to compact to at time `now`, if anything is due. The caller then does so; the ledger has forgotten it.
    ///
    /// Everything before revision R had been replaced when R was written, so R's write time decides.
    pub fn due(&mut self, now: Duration) -> Option<Revision> {
        if now < self.deadline()? {
            return None;
        }
        let mut target = None;
        while let Some(slice) = self.slices.front() {
            let age = now.saturating_sub(slice.last_write);
            if slice.bytes == 0 || age < self.wait() {
                break;
            }
            target = Some(slice.revision);
            self.bytes -= slice.bytes;
            self.slices.pop_front();
        }
        target
    }

    /// When to ask [`Ledger::due`] next; `None`: not before another write. An idle store needs no timer.
    ///
    /// A little later than the oldest slice is due, so that a steady trickle of writes is compacted in fewer, larger steps.
    pub fn deadline(&self) -> Option<Duration> {
        let oldest = self.slices.front().filter(|slice| slice.bytes > 0)?;
        Some(oldest.last_write + self.wait() + self.retention.horizon / 5)
    }

    fn wait(&self) -> Duration {
        let over_budget = self.bytes > self.retention.history_bytes_max;
        if over_budget { self.retention.horizon } else { self.retention.age_max.max(self.retention.horizon) }
    }

    /// Forgets what an explicit compaction to `before` has freed.
    pub fn compacted(&mut self, before: Revision) {
        while let Some(slice) = self.slices.front().filter(|slice| slice.revision <= before) {
            self.bytes -= slice.bytes;
            self.slices.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn ledger() -> Ledger {
        Ledger::new(Retention { horizon: 300 * S, age_max: 1800 * S, history_bytes_max: 1000 })
    }

    #[test]
    fn an_idle_store_has_no_deadline() {
        let mut ledger = ledger();
        assert_eq!(ledger.deadline(), None);
        ledger.record(S, Revision(2), 0);
        assert_eq!(ledger.deadline(), None, "nothing to free");
        ledger.record(100 * S, Revision(3), 10);
        assert_eq!(ledger.slices.len(), 1, "what frees nothing is merged");
        assert_eq!(ledger.deadline(), Some(1960 * S));
        assert_eq!(ledger.due(1959 * S), None);
        assert_eq!(ledger.due(1960 * S), Some(Revision(3)));
        assert_eq!(ledger.deadline(), None);
    }

    #[test]
    fn a_full_budget_shortens_history_but_never_below_the_horizon() {
        let mut ledger = ledger();
        ledger.record(Duration::ZERO, Revision(2), 600);
        ledger.record(100 * S, Revision(3), 600);
        ledger.record(200 * S, Revision(4), 600);
        assert_eq!(ledger.deadline(), Some(360 * S));
        assert_eq!(ledger.due(359 * S), None);
        assert_eq!(ledger.due(360 * S), Some(Revision(2)), "1200 bytes are left: still too much, but too young");
        assert_eq!(ledger.deadline(), Some(460 * S));
        assert_eq!(ledger.due(600 * S), Some(Revision(3)), "600 bytes are left: within the budget");
        assert_eq!(ledger.deadline(), Some(2060 * S));
    }

    #[test]
    fn writes_close_together_share_a_slice() {
        let mut ledger = ledger();
        for i in 0..1000 {
            ledger.record(i * S / 100, Revision(u64::from(i) + 2), 1);
        }
        assert_eq!(ledger.slices.len(), 1);
        ledger.compacted(Revision(5));
        assert_eq!(ledger.bytes, 1000);
        ledger.compacted(Revision(1001));
        assert_eq!((ledger.bytes, ledger.slices.len()), (0, 0));
    }
}
