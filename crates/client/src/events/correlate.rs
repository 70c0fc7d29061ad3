//! Which events become one: counts, combined events, and a bound on what one source says about one object. Pure.
//!
//! Upstream: `client-go/tools/record/events_cache.go`.

use std::collections::{BTreeMap, HashMap, HashSet};

use corten_base::Timestamp;
use corten_tree::Tree;

/// How many keys each memory holds (`maxLruCacheEntries`); the one that was used least recently goes.
const REMEMBERED_MAX: usize = 4096;
/// From the how manieth different message on similar events are combined.
const SIMILAR_MAX: usize = 10;
/// How long after its last event a group of similar ones is forgotten, in seconds.
const SIMILAR_SECONDS: f64 = 600.0;
/// Events about one object that may come at once, and the seconds until one more may.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;

/// What is to be written.
pub(super) struct Correlated {
    /// The event with its name and count.
    pub event: Tree,
    /// Whether an event of this name was written before: `count`, `lastTimestamp` and `message` change.
    pub known: bool,
}

/// Remembers what was recorded. (`EventCorrelator`)
#[derive(Default)]
pub(super) struct Correlator {
    /// Different messages of similar events, and the time of the last one.
    similar: Recent<(HashSet<String>, Timestamp)>,
    observed: Recent<Observed>,
    /// Tokens left, and when that was counted.
    tokens: Recent<(f64, Timestamp)>,
}

#[derive(Clone)]
struct Observed {
    name: String,
    count: i64,
    first: String,
}

impl Correlator {
    /// What becomes of a new event; `None`: it is too much.
    pub fn correlate(&mut self, event: Tree, now: Timestamp) -> Option<Correlated> {
        let (mut event, key) = self.aggregate(event, now);
        let known = self.observe(&mut event, key);
        self.admits(&event, now).then_some(Correlated { event, known })
    }

    /// The event lies in the API as it is.
    pub fn written(&mut self, event: &Tree) {
        self.observed.put(event_key(event), Observed::of(event));
    }

    /// (`EventAggregate`)
    fn aggregate(&mut self, mut event: Tree, now: Timestamp) -> (Tree, String) {
        let group = similar_key(&event);
        let fresh = || (HashSet::new(), now);
        let (mut messages, last) = self.similar.take(&group).unwrap_or_else(fresh);
        if now.duration_since(last).as_secs_f64() > SIMILAR_SECONDS {
            messages = HashSet::new();
        }
        messages.insert(event.str_at("message").to_owned());
        let combine = messages.len() >= SIMILAR_MAX;
        if combine && let Some(one) = messages.iter().next().cloned() {
            messages.remove(&one);
        }
        self.similar.put(group.clone(), (messages, now));
        if !combine {
            let key = event_key(&event);
            return (event, key);
        }
        event.insert("message", format!("(combined from similar events): {}", event.str_at("message")));
        (event, group)
    }

    /// Whether the event was written before; it gets that one's name, beginning and count then. (`eventObserve`)
    fn observe(&mut self, event: &mut Tree, key: String) -> bool {
        let last = self.observed.take(&key);
        if let Some(last) = &last {
            event.set("metadata.name", last.name.as_str());
            event.insert("firstTimestamp", last.first.as_str());
            event.insert("count", last.count + 1);
        }
        self.observed.put(key, Observed::of(event));
        last.is_some()
    }

    /// (`EventSourceObjectSpamFilter`)
    fn admits(&mut self, event: &Tree, now: Timestamp) -> bool {
        let key = spam_key(event);
        let (tokens, since) = self.tokens.take(&key).unwrap_or((BURST, now));
        let tokens = (tokens + now.duration_since(since).as_secs_f64().max(0.0) / REFILL_SECONDS).min(BURST);
        let admitted = tokens >= 1.0;
        self.tokens.put(key, (if admitted { tokens - 1.0 } else { tokens }, now));
        admitted
    }
}

impl Observed {
    fn of(event: &Tree) -> Observed {
        Observed {
            name: event.str_at("metadata.name").to_owned(),
            count: event.i64_at("count").unwrap_or(1),
            first: event.str_at("firstTimestamp").to_owned(),
        }
    }
}

fn key(event: &Tree, fields: &[&str]) -> String {
    fields.iter().map(|field| event.str_at(field)).collect::<Vec<&str>>().join("\n")
}

/// (`getEventKey`)
fn event_key(event: &Tree) -> String {
    const OWN: [&str; 3] = ["involvedObject.fieldPath", "reason", "message"];
    spam_key(event) + "\n" + &key(event, &OWN)
}

/// (`getSpamKey`)
fn spam_key(event: &Tree) -> String {
    const OF: [&str; 8] = [
        "source.component",
        "source.host",
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "type",
    ];
    key(event, &OF)
}

/// (`EventAggregatorByReasonFunc`)
fn similar_key(event: &Tree) -> String {
    const OWN: [&str; 3] = ["reason", "reportingComponent", "reportingInstance"];
    spam_key(event) + "\n" + &key(event, &OWN)
}

/// A bounded map that forgets what was used least recently.
struct Recent<V> {
    entries: HashMap<String, (u64, V)>,
    order: BTreeMap<u64, String>,
    uses: u64,
}

impl<V> Default for Recent<V> {
    fn default() -> Recent<V> {
        Recent { entries: HashMap::new(), order: BTreeMap::new(), uses: 0 }
    }
}

impl<V> Recent<V> {
    fn take(&mut self, key: &str) -> Option<V> {
        let (used, value) = self.entries.remove(key)?;
        self.order.remove(&used);
        Some(value)
    }

    fn put(&mut self, key: String, value: V) {
        self.take(&key);
        if self.entries.len() >= REMEMBERED_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.uses += 1;
        self.order.insert(self.uses, key.clone());
        self.entries.insert(key, (self.uses, value));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use corten_tree::tree;

    use super::*;

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn event(uid: &str, reason: &str, message: &str, at: Timestamp) -> Tree {
        let event = tree!({"involvedObject": {"kind": "Pod", "name": "a", "uid": uid}, "type": "Normal", "reason": reason,
            "message": message, "source": {"component": "test"}});
        super::super::made(event, at, at.as_nanosecond())
    }

    #[test]
    fn series_of_the_same_event_are_counted() {
        let mut correlator = Correlator::default();
        let first = correlator.correlate(event("u", "R", "m", start()), start()).unwrap();
        assert!(!first.known);
        let later = start() + Duration::from_secs(5000);
        let second = correlator.correlate(event("u", "R", "m", later), later).unwrap();
        assert!(second.known);
        assert_eq!(second.event.i64_at("count"), Some(2));
        assert_eq!(second.event.str_at("metadata.name"), first.event.str_at("metadata.name"));
        assert_eq!(second.event.str_at("firstTimestamp"), "2026-01-01T00:00:00Z");
        assert_eq!(second.event.str_at("lastTimestamp"), "2026-01-01T01:23:20Z");
        assert!(!correlator.correlate(event("other", "R", "m", later), later).unwrap().known);
    }

    #[test]
    fn similar_events_are_combined_from_the_tenth_within_ten_minutes() {
        let mut correlator = Correlator::default();
        let mut said = Vec::new();
        for n in 0..12 {
            let found = correlator.correlate(event("u", "R", &format!("m{n}"), start()), start()).unwrap();
            said.push((found.known, found.event.str_at("message").to_owned(), found.event.i64_at("count").unwrap()));
        }
        assert_eq!(said[8], (false, "m8".to_owned(), 1));
        assert_eq!(said[9], (false, "(combined from similar events): m9".to_owned(), 1));
        assert_eq!(said[11], (true, "(combined from similar events): m11".to_owned(), 3));
        let later = start() + Duration::from_secs(601);
        let found = correlator.correlate(event("u", "R", "m13", later), later).unwrap();
        assert_eq!(found.event.str_at("message"), "m13", "the group is forgotten");
    }

    #[test]
    fn twenty_five_events_about_an_object_and_one_more_each_five_minutes() {
        let mut correlator = Correlator::default();
        let mut admitted = |at: Timestamp| correlator.correlate(event("u", "R", "m", at), at);
        assert_eq!((0..40).filter(|_| admitted(start()).is_some()).count(), 25);
        let later = start() + Duration::from_secs(301);
        assert_eq!(admitted(later).unwrap().event.i64_at("count"), Some(41), "what is not written counts, too");
        assert!(admitted(later).is_none());
    }

    #[test]
    fn memories_are_bounded() {
        let mut recent = Recent::default();
        for n in 0..REMEMBERED_MAX + 10 {
            recent.put(n.to_string(), n);
        }
        assert_eq!((recent.entries.len(), recent.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(recent.take("9").is_none());
        assert_eq!(recent.take("10"), Some(10));
    }
}
