//! The cluster's CA as a config map in each namespace (`pkg/controller/certificates/rootcacertpublisher`).

use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::{Tree, tree};
use corten_views::{ConfigMap, Namespace};

use crate::{Action, Changed, Controller, Key, Plan, Watch, World};

/// The controller.
pub struct RootCaPublisher {
    /// PEM of the CA; empty publishes nothing.
    pub ca: String,
}

const NAME: &str = "kube-root-ca.crt";
const FILE: &str = "ca.crt";

const WATCHES: &[Watch] = &[Watch::itself(id::NAMESPACE), Watch::by(id::CONFIG_MAP, changed)];

fn changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let object = change.object();
    if object.head.name == *NAME {
        out.push(ObjectKey::new(id::NAMESPACE, "", &object.head.namespace));
    }
}

impl Controller for RootCaPublisher {
    fn name(&self) -> &'static str {
        "root-ca-cert-publisher"
    }

    fn component(&self) -> &'static str {
        "root-ca-cert-publisher"
    }

    fn user(&self) -> String {
        String::from("system:serviceaccount:kube-system:root-ca-cert-publisher")
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(namespace) = world.get::<Namespace>(key) else { return Plan::empty() };
        let ends = namespace.head().is_deleting() || namespace.status.phase == "Terminating";
        if ends || self.ca.is_empty() {
            return Plan::empty();
        }
        let mut data = Tree::map();
        data.insert(FILE, self.ca.as_str());
        let key = ObjectKey::new(id::CONFIG_MAP, namespace.name(), NAME);
        match world.get::<ConfigMap>(&key) {
            None => {
                let body = tree!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": (data)});
                Plan::of(vec![Action::create(key, body)])
            }
            Some(map) if map.data.len() == 1 && map.data.get(FILE) == Some(&self.ca) => Plan::empty(),
            Some(map) => {
                for stray in map.data.keys().filter(|k| *k != FILE) {
                    data.insert(stray.clone(), Tree::Null);
                }
                Plan::of(vec![Action::patch(&map.object, tree!({"data": (data)}))])
            }
        }
    }
}
