//! Rolls workloads when configuration that they refer to changes (Corten's own: `corten.dev/roll-on-config`).
//!
//! What the configuration was is kept as a hash in the object; asking for it rolls nothing. When the hash changes it goes into
//! the template too, and the workload's own controller does the rest.

use std::collections::BTreeSet;

use corten_kinds::id;
use corten_kinds::references::{self, Role};
use corten_object::{KindId, Object};
use corten_tree::{Tree, tree};

use crate::beyond::{CONFIG_HASH, ROLL_ON_CONFIG};
use crate::{Action, Changed, Controller, EventNote, Key, Plan, Watch, World, hash};

/// The controller.
pub struct RollOnConfig;

const KINDS: [KindId; 3] = [id::DEPLOYMENT, id::STATEFUL_SET, id::DAEMON_SET];

const WATCHES: &[Watch] = &[
    Watch::by(id::DEPLOYMENT, itself),
    Watch::by(id::STATEFUL_SET, itself),
    Watch::by(id::DAEMON_SET, itself),
    Watch::by(id::CONFIG_MAP, used),
    Watch::by(id::SECRET, used),
];

fn is_on(object: &Object) -> bool {
    object.to_tree().map_at("metadata.annotations").get(ROLL_ON_CONFIG).and_then(Tree::as_str) == Some("true")
}

/// A workload whose specification or annotations changed.
fn itself(change: &Changed<'_>, out: &mut Vec<Key>) {
    let Some(new) = change.new.filter(|new| is_on(new)) else { return };
    out.push(new.key());
}

/// A configuration wakes the workloads of its namespace that refer to it.
fn used(change: &Changed<'_>, out: &mut Vec<Key>) {
    let object = change.object();
    let reference = (object.kind, object.head.name.as_str());
    for kind in KINDS {
        for workload in change.state.list_in(kind, &object.head.namespace).filter(|w| is_on(w)) {
            let references = references(&workload.to_tree());
            if references.iter().any(|(kind, name)| (*kind, name.as_str()) == reference) {
                out.push(workload.key());
            }
        }
    }
}

/// The configuration that the containers of a workload's template see.
fn references(workload: &Tree) -> Vec<(KindId, String)> {
    let spec = workload.path("spec.template.spec").unwrap_or(&Tree::Null);
    let seen = references::references(spec).into_iter().filter(|r| r.role == Role::Content);
    let names: BTreeSet<_> = seen.map(|r| (r.kind, r.name.to_owned())).collect();
    names.into_iter().collect()
}

/// What stands for a configuration: a ConfigMap's data; of a Secret the revision only, so that nothing can be told from the hash.
fn content(world: &World<'_>, namespace: &str, (kind, name): &(KindId, String)) -> Tree {
    let Some(object) = world.state.find(*kind, namespace, name) else { return Tree::Null };
    if *kind == id::SECRET {
        return tree!([(name.as_str()), (object.head.uid.as_str()), (object.head.revision.to_string())]);
    }
    let tree = object.to_tree();
    let part = |field: &str| tree.get(field).cloned().unwrap_or_default();
    tree!([(name.as_str()), (part("data")), (part("binaryData"))])
}

impl Controller for RollOnConfig {
    fn name(&self) -> &'static str {
        "roll-on-config"
    }

    fn component(&self) -> &'static str {
        "roll-on-config-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(object) = world.state.get(key).filter(|o| is_on(o) && !o.head.is_deleting()) else {
            return Plan::empty();
        };
        let tree = object.to_tree();
        let references = references(&tree);
        let contents = references.iter().map(|r| content(world, &key.namespace, r)).collect::<Vec<_>>();
        let now = hash::compute(&Tree::List(contents), None);
        let before = tree.map_at("metadata.annotations").get(CONFIG_HASH).and_then(Tree::as_str).map(str::to_owned);
        if before.as_deref() == Some(now.as_str()) {
            return Plan::empty();
        }
        let annotations = tree!({CONFIG_HASH: (now.as_str())});
        let mut patch = tree!({"metadata": {"annotations": (annotations.clone())}});
        if before.is_none() {
            return Plan::of(vec![Action::patch(object, patch)]);
        }
        patch.set("spec.template.metadata.annotations", annotations);
        let message = "Rolling because configuration that the template refers to has changed";
        let note = EventNote::normal(object, "ConfigChanged", message);
        Plan::of(vec![Action::patch(object, patch).on_success(note)])
    }
}
