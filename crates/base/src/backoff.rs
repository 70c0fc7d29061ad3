//! Exponential back-off per key.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::Timestamp;

/// Counts failures per key and says how long to wait: `base * 2^(failures-1)`, at most `max`.
#[derive(Debug)]
pub struct Backoff<K> {
    base: Duration,
    max: Duration,
    entries: HashMap<K, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    failures: u32,
    last: Timestamp,
}

impl<K: Hash + Eq> Backoff<K> {
    /// A back-off that starts at `base` and grows to `max`.
    pub fn new(base: Duration, max: Duration) -> Backoff<K> {
        Backoff { base, max, entries: HashMap::new() }
    }

    /// Notes one more failure at `now` and returns the wait that follows it.
    pub fn fail(&mut self, key: K, now: Timestamp) -> Duration {
        let entry = self.entries.entry(key).or_insert(Entry { failures: 0, last: now });
        entry.failures = entry.failures.saturating_add(1);
        entry.last = now;
        delay(self.base, self.max, entry.failures)
    }

    /// How many failures in a row `key` has.
    pub fn failures(&self, key: &K) -> u32 {
        self.entries.get(key).map_or(0, |e| e.failures)
    }

    /// Forgets `key`'s failures.
    pub fn reset(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// Forgets keys whose last failure is older than `age` at `now`: the map stays bounded.
    pub fn sweep(&mut self, now: Timestamp, age: Duration) {
        self.entries.retain(|_, e| now.duration_since(e.last).unsigned_abs() < age);
    }
}

/// `base * 2^(failures-1)`, at most `max`; zero for no failure.
pub fn delay(base: Duration, max: Duration, failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => base.saturating_mul(1u32.checked_shl(n - 1).unwrap_or(u32::MAX)).min(max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_maximum() {
        let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        let waits: Vec<u64> = (0..7).map(|_| backoff.fail("a", Timestamp::UNIX_EPOCH).as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        backoff.reset(&"a");
        assert_eq!(backoff.failures(&"a"), 0);
        assert_eq!(delay(Duration::from_secs(1), Duration::from_secs(9), 99), Duration::from_secs(9));
    }
}
