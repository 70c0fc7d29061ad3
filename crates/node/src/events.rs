//! Events: what users read when they ask what happened to a pod.

use std::sync::Arc;

use corten_base::Tasks;
use corten_client::{Api, events};
use corten_tree::{Tree, tree};

/// What an event is about.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// `Pod` or `Node`.
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The container's field path, as `spec.containers{app}`; empty for the object as a whole.
    pub field_path: String,
}

/// Takes events and writes them in the background.
#[derive(Clone)]
pub struct Recorder {
    events: events::Recorder,
    node: Arc<str>,
}

impl Recorder {
    /// A recorder whose writer runs in `tasks`.
    pub fn start(api: Arc<dyn Api>, tasks: &Tasks, node: &str) -> Recorder {
        Recorder { events: events::Recorder::start(tasks, tasks.clock(), api, "kubelet"), node: node.into() }
    }

    /// Records an event.
    pub fn record(&self, about: About, warning: bool, reason: &str, message: impl Into<String>) {
        let node = &*self.node;
        let mut involved = tree!({"kind": (about.kind), "apiVersion": "v1"});
        let fields = [
            ("namespace", &about.namespace),
            ("name", &about.name),
            ("uid", &about.uid),
            ("fieldPath", &about.field_path),
        ];
        for (key, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            involved.insert(key, value);
        }
        self.events.record(tree!({
            "involvedObject": involved,
            "reason": reason,
            "message": (message.into()),
            "source": {"component": "kubelet", "host": node},
            "type": (if warning { "Warning" } else { "Normal" }),
            "eventTime": (Tree::Null),
            "reportingComponent": "kubelet",
            "reportingInstance": node
        }));
    }
}
