//! How many watchers would hear of a write (`apiserver/pkg/util/flowcontrol/watch_tracker.go`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use corten_flowcontrol::What;

use super::Place;

/// The watches of clients, by group, resource, namespace and name; the last two are empty for all.
#[derive(Default)]
pub(crate) struct Watches(Mutex<HashMap<String, u64>>);

/// What a watch holds: its seats until it has begun, and its place among the watches until it ends.
pub(crate) struct Held {
    place: Option<Place>,
    _counted: Option<Counted>,
}

struct Counted {
    watches: Arc<Watches>,
    key: String,
}

impl Watches {
    /// Counts a watch for as long as the answer lives. `only`: it sees what is in one place of an index only, as a node's
    /// agent its own pods; then most writes do not concern it.
    pub fn register(self: &Arc<Watches>, place: Option<Place>, what: &What<'_>, name: &str, only: bool) -> Held {
        let What::Resource { group, resource, namespace, .. } = *what else {
            return Held { place, _counted: None };
        };
        let counted = (!only).then(|| {
            let key = key(group, resource, namespace, name);
            *self.lock().entry(key.clone()).or_default() += 1;
            Counted { watches: self.clone(), key }
        });
        Held { place, _counted: counted }
    }

    /// How many watches a write may concern (`GetInterestedWatchCount`).
    pub fn interested(&self, what: &What<'_>, name: &str) -> u64 {
        let What::Resource { group, resource, namespace, .. } = *what else { return 0 };
        let watches = self.lock();
        if watches.is_empty() {
            return 0;
        }
        let of = |namespace, name| watches.get(&key(group, resource, namespace, name)).copied().unwrap_or_default();
        let in_namespace = if namespace.is_empty() { 0 } else { of(namespace, "") };
        of("", "") + in_namespace + if name.is_empty() { 0 } else { of(namespace, name) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// The watch has begun: what comes from now on takes no seats.
    pub fn begun(&mut self) {
        self.place = None;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut watches = self.watches.lock();
        if let Some(count) = watches.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                watches.remove(&self.key);
            }
        }
    }
}

fn key(group: &str, resource: &str, namespace: &str, name: &str) -> String {
    [group, resource, namespace, name].join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_are_counted_while_they_watch() {
        let watches = Arc::new(Watches::default());
        let pods = |namespace| What::Resource { group: "", resource: "pods", subresource: "", namespace };
        let all = watches.register(None, &pods(""), "", false);
        let one = watches.register(None, &pods("a"), "", false);
        let named = watches.register(None, &pods("a"), "p", false);
        let node = watches.register(None, &pods(""), "", true);
        assert_eq!(watches.interested(&pods("a"), "p"), 3);
        assert_eq!(watches.interested(&pods("a"), "q"), 2);
        assert_eq!(watches.interested(&pods("b"), "p"), 1);
        let other = What::Resource { group: "apps", resource: "pods", subresource: "", namespace: "a" };
        assert_eq!(watches.interested(&other, "p"), 0);
        drop((all, one, named, node));
        assert!(watches.lock().is_empty());
    }
}
