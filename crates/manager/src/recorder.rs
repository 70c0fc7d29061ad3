//! What controllers and the scheduler tell people (`client-go/tools/record`).

use std::sync::Arc;

use corten_base::{Clock, Tasks};
use corten_cache::Cache;
use corten_client::{Api, events};
use corten_controllers::EventNote;
use corten_kinds::Kinds;
use corten_tree::{Tree, tree};

use crate::Manager;

/// Takes notes to record as events; clones share it.
#[derive(Clone)]
pub struct Recorder {
    events: events::Recorder,
    registry: Kinds,
    component: &'static str,
}

impl Recorder {
    /// Starts the task that writes the events of one component.
    pub fn start(tasks: &Tasks, manager: &Manager, api: Arc<dyn Api>, component: &'static str) -> Recorder {
        Recorder::start_with(tasks, &manager.cache, manager.clock.clone(), api, component)
    }

    /// As `start`, with the two things of a manager that it needs.
    pub(crate) fn start_with(
        tasks: &Tasks,
        cache: &Cache,
        clock: Arc<dyn Clock>,
        api: Arc<dyn Api>,
        component: &'static str,
    ) -> Recorder {
        let events = events::Recorder::start(tasks, clock, api, "");
        Recorder { events, registry: cache.kinds().clone(), component }
    }

    /// Records an event soon; it is lost if too many wait.
    pub fn record(&self, note: EventNote) {
        self.events.record(self.event(&note));
    }

    fn event(&self, note: &EventNote) -> Tree {
        let (about, kind) = (&note.about.head, self.registry.get(note.about.kind));
        let mut involved = tree!({
            "kind": (kind.kind.clone()),
            "name": (about.name.as_str()),
            "uid": (about.uid.as_str()),
            "apiVersion": (kind.api_version()),
            "resourceVersion": (about.revision.to_string())
        });
        if !about.namespace.is_empty() {
            involved.insert("namespace", about.namespace.as_str());
        }
        tree!({
            "involvedObject": (involved),
            "reason": (note.reason),
            "message": (note.message.as_str()),
            "source": {"component": (self.component)},
            "type": (note.kind.as_str()),
            "reportingComponent": (self.component),
            "reportingInstance": ""
        })
    }
}
