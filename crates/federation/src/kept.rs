//! Answers of others that are good for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use corten_base::Timestamp;

/// Answers by question, each with its end.
pub(crate) struct Kept<K, V> {
    max: usize,
    entries: Mutex<HashMap<K, (Timestamp, V)>>,
}

impl<K: Hash + Eq, V: Clone> Kept<K, V> {
    /// At most so many.
    pub fn new(max: usize) -> Kept<K, V> {
        Kept { max, entries: Mutex::default() }
    }

    /// The answer, if it is still good.
    pub fn get(&self, key: &K, now: Timestamp) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).filter(|(until, _)| *until > now).map(|(_, value)| value.clone())
    }

    /// Keeps an answer for a while. When there are too many, those whose time is over go; if that is not enough, all do.
    pub fn put(&self, key: K, value: V, now: Timestamp, life: Duration) {
        if life.is_zero() {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.max {
            entries.retain(|_, (until, _)| *until > now);
            if entries.len() >= self.max {
                entries.clear();
            }
        }
        entries.insert(key, (now + life, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_for_their_life_and_within_the_bound() {
        let kept = Kept::new(2);
        let at = |s| Timestamp::from_second(s).unwrap();
        kept.put("a", 1, at(0), Duration::from_secs(10));
        kept.put("b", 2, at(0), Duration::from_secs(20));
        assert_eq!((kept.get(&"a", at(9)), kept.get(&"a", at(10))), (Some(1), None));
        kept.put("c", 3, at(15), Duration::from_secs(1));
        assert_eq!((kept.get(&"b", at(15)), kept.get(&"c", at(15))), (Some(2), Some(3)));
        kept.put("d", 4, at(15), Duration::from_secs(1));
        assert_eq!((kept.get(&"b", at(15)), kept.get(&"d", at(15))), (None, Some(4)));
        kept.put("e", 5, at(15), Duration::ZERO);
        assert_eq!(kept.get(&"e", at(15)), None);
    }
}
