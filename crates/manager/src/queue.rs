//! Which keys are to be reconciled, and when.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use corten_base::Timestamp;
use corten_base::backoff::Backoff;
use corten_base::workqueue::QueueMetrics;

/// Upstream's `DefaultTypedControllerRateLimiter`.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1000);
/// The longest that a key rests between two runs.
const REST_MAX: Duration = Duration::from_millis(50);

/// A queue in which a key waits at most once, and is with one worker at a time. Bounded by the number of objects.
///
/// A key that is wanted again while it runs rests for a quarter of the run's time: the first change is answered at once, and of a
/// storm of them (the thousand pods of a job) each run sees many. (Upstream's job controller looks at a job at most once a second.)
pub(crate) struct Queue<K> {
    metrics: QueueMetrics,
    ready: VecDeque<K>,
    /// Since when.
    waiting: HashMap<K, Instant>,
    running: HashMap<K, Run>,
    /// Keys to add at a time; the number tells equal times apart.
    timers: BTreeMap<(Timestamp, u64), K>,
    timer_of: HashMap<K, (Timestamp, u64)>,
    timers_made: u64,
    /// Keys whose timer is the end of their rest.
    resting: HashSet<K>,
    backoff: Backoff<K>,
}

/// A key that is being worked on.
struct Run {
    begun: Instant,
    since: Timestamp,
    /// It was added again while it ran.
    again: bool,
}

impl<K: Hash + Eq + Clone> Queue<K> {
    pub fn new(metrics: QueueMetrics) -> Queue<K> {
        Queue {
            metrics,
            ready: VecDeque::new(),
            waiting: HashMap::new(),
            running: HashMap::new(),
            timers: BTreeMap::new(),
            timer_of: HashMap::new(),
            timers_made: 0,
            resting: HashSet::new(),
            backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX),
        }
    }

    /// Wants a key reconciled.
    pub fn add(&mut self, key: K) {
        if let Some(run) = self.running.get_mut(&key) {
            run.again = true;
        } else if !self.waiting.contains_key(&key) && !self.resting.contains(&key) {
            self.metrics.added();
            self.waiting.insert(key.clone(), Instant::now());
            self.ready.push_back(key);
        }
    }

    /// Wants a key reconciled at a time, or earlier if that was wanted already.
    pub fn add_at(&mut self, key: K, at: Timestamp) {
        if let Some(old) = self.timer_of.get(&key) {
            if old.0 <= at {
                return;
            }
            self.timers.remove(old);
        }
        self.timers_made += 1;
        let place = (at, self.timers_made);
        self.timers.insert(place, key.clone());
        self.timer_of.insert(key, place);
    }

    /// When the next timer is due.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Adds the keys whose time has come.
    pub fn fire(&mut self, now: Timestamp) {
        while let Some(first) = self.timers.first_entry() {
            if first.key().0 > now {
                return;
            }
            let key = first.remove();
            self.timer_of.remove(&key);
            self.resting.remove(&key);
            self.add(key);
        }
    }

    /// The next key; it is running until [`Queue::done`].
    pub fn take(&mut self, now: Timestamp) -> Option<K> {
        let key = self.ready.pop_front()?;
        let since = self.waiting.remove(&key).unwrap_or_else(Instant::now);
        self.running.insert(key.clone(), Run { begun: self.metrics.taken(since), since: now, again: false });
        Some(key)
    }

    /// A key's run is over and all is well; `requeue` is what the plan asked for. A timer from before has no meaning any more.
    pub fn succeeded(&mut self, key: K, requeue: Option<Duration>, now: Timestamp) {
        self.backoff.reset(&key);
        if let Some(place) = self.timer_of.remove(&key) {
            self.timers.remove(&place);
        }
        if let Some(at) = requeue.and_then(|delay| now.checked_add(delay).ok()) {
            self.add_at(key.clone(), at);
        }
        self.done(key, now);
    }

    /// A key's run is over and has failed: it comes back after a growing wait.
    pub fn failed(&mut self, key: K, now: Timestamp) {
        let wait = self.backoff.fail(key.clone(), now);
        self.metrics.retried();
        if let Ok(at) = now.checked_add(wait) {
            self.add_at(key.clone(), at);
        }
        self.done(key, now);
    }

    fn done(&mut self, key: K, now: Timestamp) {
        let Some(run) = self.running.remove(&key) else { return };
        self.metrics.done(run.begun);
        if !run.again {
            return;
        }
        let rest = (Duration::try_from(now.duration_since(run.since)).unwrap_or_default() / 4).min(REST_MAX);
        match now.checked_add(rest) {
            Ok(at) if !rest.is_zero() => {
                self.resting.insert(key.clone());
                self.add_at(key, at);
            }
            _ => self.add(key),
        }
    }

    /// How many keys are running.
    pub fn running(&self) -> usize {
        self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_key_waits_once_and_runs_alone() {
        let mut q = Queue::new(QueueMetrics::default());
        q.add("a");
        q.add("a");
        q.add("b");
        assert_eq!(q.take(at(0)), Some("a"));
        q.add("a");
        assert_eq!((q.take(at(0)), q.take(at(0))), (Some("b"), None));
        q.succeeded("a", None, at(0));
        q.succeeded("b", Some(Duration::from_secs(5)), at(0));
        assert_eq!((q.take(at(0)), q.take(at(0))), (Some("a"), None));
        assert_eq!(q.next_timer(), Some(at(5)));
        q.fire(at(4));
        assert_eq!(q.take(at(0)), None);
        q.fire(at(5));
        assert_eq!(q.take(at(0)), Some("b"));
    }

    #[test]
    fn a_key_that_is_wanted_while_it_runs_rests_for_a_while() {
        let after = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        let mut q = Queue::new(QueueMetrics::default());
        q.add("a");
        assert_eq!(q.take(after(100)), Some("a"));
        q.add("a");
        q.succeeded("a", None, after(108));
        q.add("a");
        assert_eq!((q.take(after(108)), q.next_timer()), (None, Some(after(110))));
        q.fire(after(110));
        assert_eq!((q.take(after(110)), q.take(after(110))), (Some("a"), None), "all that came meanwhile is one");
        q.add("a");
        q.succeeded("a", None, after(10_000));
        assert_eq!(q.next_timer(), Some(after(10_050)), "a long run does not mean a long rest");
        q.fire(after(10_050));
        q.take(after(10_050));
        q.succeeded("a", None, after(10_060));
        q.add("a");
        assert_eq!(q.take(after(10_060)), Some("a"), "who has rested, or was not wanted, is taken at once");
    }

    #[test]
    fn failures_wait_longer_and_longer() {
        let mut q = Queue::new(QueueMetrics::default());
        let mut waits = Vec::new();
        for _ in 0..4 {
            q.add("a");
            q.take(at(0));
            q.failed("a", at(0));
            waits.push(q.next_timer().unwrap().as_millisecond());
            q.fire(at(100_000));
        }
        assert_eq!(waits, [5, 10, 20, 40]);
    }
}
