//! Events: what users read when they ask what happened to a pod.

use std::sync::{Arc, OnceLock};

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
    /// The Node object's.
    node_uid: Arc<OnceLock<String>>,
}

impl Recorder {
    /// A recorder whose writer runs in `tasks`.
    pub fn start(api: Arc<dyn Api>, tasks: &Tasks, node: &str) -> Recorder {
        let events = events::Recorder::start(tasks, tasks.clock(), api, "kubelet");
        Recorder { events, node: node.into(), node_uid: Arc::default() }
    }

    /// The Node object has this uid.
    pub fn know_node(&self, uid: &str) {
        let _ = self.node_uid.set(uid.to_owned());
    }

    /// Records an event about the node. Before its uid is known its name stands for it.
    pub fn node(&self, warning: bool, reason: &str, message: impl Into<String>) {
        let name = self.node.to_string();
        let uid = self.node_uid.get().unwrap_or(&name).clone();
        self.record(About { kind: "Node", name, uid, ..About::default() }, warning, reason, message);
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
