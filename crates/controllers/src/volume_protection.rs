//! Claims that pods use, volumes that claims use and attribute classes that both name are not deleted under them
//! (`pkg/controller/volume/pvcprotection`, `pvprotection`, `vacprotection`): their finalizer goes when nothing uses them any more.
//! Admission has put it there.

use corten_kinds::id;
use corten_object::{Object, ObjectKey};
use corten_tree::{Tree, tree};
use corten_views::{PersistentVolume, Pod};

use crate::{Action, Changed, Controller, Key, Plan, Typed, Watch, World};

/// The controller of claims.
pub struct ClaimProtection;
/// The controller of volumes.
pub struct VolumeProtection;

/// The controller of attribute classes.
pub struct AttributesClassProtection;

const CLASS_FINALIZER: &str = "kubernetes.io/vac-protection";
const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

const CLAIM_WATCHES: &[Watch] = &[Watch::itself(id::PERSISTENT_VOLUME_CLAIM), Watch::by(id::POD, pod_ended)];
const VOLUME_WATCHES: &[Watch] = &[Watch::itself(id::PERSISTENT_VOLUME)];
const CLASS_WATCHES: &[Watch] = &[
    Watch::itself(id::VOLUME_ATTRIBUTES_CLASS),
    Watch::by(id::PERSISTENT_VOLUME, classes_left),
    Watch::by(id::PERSISTENT_VOLUME_CLAIM, classes_left),
];

/// Where a claim or a volume names a class.
const CLASS_PATHS: [&str; 3] = [
    "spec.volumeAttributesClassName",
    "status.currentVolumeAttributesClassName",
    "status.modifyVolumeStatus.targetVolumeAttributesClassName",
];

/// The classes that a claim or a volume named and may name no more.
fn classes_left(change: &Changed<'_>, out: &mut Vec<Key>) {
    let Some(old) = change.old else { return };
    let tree = old.to_tree();
    let names = CLASS_PATHS.iter().map(|path| tree.str_at(path)).filter(|name| !name.is_empty());
    out.extend(names.map(|name| ObjectKey::new(id::VOLUME_ATTRIBUTES_CLASS, "", name)));
}

/// A pod that ended or went no longer uses its claims.
fn pod_ended(change: &Changed<'_>, out: &mut Vec<Key>) {
    let Some(pod) = Typed::<Pod>::read(change.object()) else { return };
    if change.new.is_none() || pod.is_terminal() {
        out.extend(claims(&pod).map(|name| ObjectKey::new(id::PERSISTENT_VOLUME_CLAIM, pod.namespace(), &name)));
    }
}

/// The names of the claims that a pod uses.
pub(crate) fn claims(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    pod.spec.volumes.iter().filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (_, Some(_)) => Some(format!("{}-{}", pod.metadata.name, volume.name)),
        _ => None,
    })
}

fn without(object: &Object, finalizer: &str) -> Option<Action> {
    if !object.head.is_deleting() || !object.head.finalizers.iter().any(|f| *f == *finalizer) {
        return None;
    }
    let rest = object.head.finalizers.iter().filter(|f| **f != *finalizer);
    let rest: Vec<Tree> = rest.map(|f| Tree::from(f.as_str())).collect();
    Some(Action::patch(object, tree!({"metadata": {"finalizers": (rest)}})))
}

impl Controller for ClaimProtection {
    fn name(&self) -> &'static str {
        "pvc-protection"
    }

    fn component(&self) -> &'static str {
        "pvc-protection-controller"
    }

    fn watches(&self) -> &[Watch] {
        CLAIM_WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(claim) = world.state.get(key) else { return Plan::empty() };
        let Some(action) = without(claim, CLAIM_FINALIZER) else { return Plan::empty() };
        let used = |pod: &Typed<Pod>| !pod.is_terminal() && pod.is_scheduled() && claims(pod).any(|c| *key.name == *c);
        if world.list::<Pod>(id::POD, &key.namespace).iter().any(used) {
            return Plan::empty();
        }
        Plan::of(vec![action])
    }
}

impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "pv-protection"
    }

    fn component(&self) -> &'static str {
        "pv-protection-controller"
    }

    fn watches(&self) -> &[Watch] {
        VOLUME_WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(volume) = world.get::<PersistentVolume>(key) else { return Plan::empty() };
        if volume.status.phase == "Bound" {
            return Plan::empty();
        }
        Plan::of(without(&volume.object, VOLUME_FINALIZER).into_iter().collect())
    }
}

impl Controller for AttributesClassProtection {
    fn name(&self) -> &'static str {
        "volumeattributesclass-protection"
    }

    fn component(&self) -> &'static str {
        "volumeattributesclass-protection-controller"
    }

    fn watches(&self) -> &[Watch] {
        CLASS_WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(class) = world.state.get(key) else { return Plan::empty() };
        let Some(action) = without(class, CLASS_FINALIZER) else { return Plan::empty() };
        let names = |object: &std::sync::Arc<Object>| {
            let tree = object.to_tree();
            CLASS_PATHS.iter().any(|path| tree.str_at(path) == &*key.name)
        };
        let used = |kind| world.state.list(kind).any(names);
        if used(id::PERSISTENT_VOLUME) || used(id::PERSISTENT_VOLUME_CLAIM) {
            return Plan::empty();
        }
        Plan::of(vec![action])
    }
}
