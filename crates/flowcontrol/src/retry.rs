//! When a client that was turned away should come again (`apiserver/pkg/util/flowcontrol/dropped_requests_tracker.go`).

use std::collections::VecDeque;

/// The longest time, in seconds.
const SECONDS_MAX: i64 = 32;

/// Counts the requests that a level turned away. Many in the recent past double the time, few make it shorter.
#[derive(Debug, Clone)]
pub struct RetryAfter {
    seconds: i64,
    raised_at: i64,
    now: i64,
    count: i64,
    /// Seconds and how many were turned away in them; none older than [`SECONDS_MAX`].
    past: VecDeque<(i64, i64)>,
}

impl Default for RetryAfter {
    fn default() -> RetryAfter {
        RetryAfter { seconds: 1, raised_at: 0, now: 0, count: 0, past: VecDeque::new() }
    }
}

impl RetryAfter {
    /// Counts one at a time in seconds, and tells when the client should come again.
    pub fn refused(&mut self, now: i64) -> u64 {
        if self.now != now {
            self.past.push_back((self.now, self.count));
            let keep = (2 * self.seconds).min(SECONDS_MAX);
            while self.past.front().is_some_and(|(at, _)| self.now - at > keep) {
                self.past.pop_front();
            }
            (self.now, self.count) = (now, 0);
            self.update();
        }
        self.count += 1;
        self.seconds.unsigned_abs()
    }

    fn update(&mut self) {
        let recent = self.past.iter().rev().take_while(|(at, _)| self.now - at <= self.seconds);
        let refused: i64 = recent.filter(|(at, _)| *at < self.now).map(|(_, count)| count).sum();
        if self.now - self.raised_at >= self.seconds && refused >= 3 * self.seconds {
            self.seconds = (2 * self.seconds).min(SECONDS_MAX);
            self.raised_at = self.now;
        } else if refused < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_doubles_under_load_and_comes_down_slowly() {
        let mut retry = RetryAfter::default();
        let mut at = |second: i64, times: usize| (0..times).map(|_| retry.refused(second)).last().unwrap();
        assert_eq!(at(1, 10), 1);
        assert_eq!(at(2, 10), 2);
        // Not again before that time has passed.
        assert_eq!(at(3, 10), 2);
        assert_eq!(at(4, 10), 4);
        for second in 5..80 {
            at(second, 200);
        }
        assert_eq!(at(80, 1), 32);
        assert!(at(200, 1) < 32);
        for second in (300..3000).step_by(40) {
            at(second, 1);
        }
        assert_eq!(at(4000, 1), 1);
    }
}
