//! Grows volumes of the built-in provisioner when their claims ask for more.
//!
//! Such a volume is a directory: it is as large as the claim says at once, on and off line. The steps are those of upstream's
//! external resizer: the volume first, then the claim's status, so that a claim never tells more than its volume has.

use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::tree;
use corten_views::quantity::ResourceList;
use corten_views::{PersistentVolume, PersistentVolumeClaim, Quantity};

use crate::volume_binder::{LOCAL_PATH_PROVISIONER, PROVISIONED_BY};
use crate::{Action, Changed, Controller, EventNote, Key, Plan, Typed, Watch, World, status};

/// The controller.
pub struct VolumeExpand;

const WATCHES: &[Watch] = &[Watch::itself(id::PERSISTENT_VOLUME_CLAIM), Watch::by(id::PERSISTENT_VOLUME, claim_of)];

fn claim_of(change: &Changed<'_>, out: &mut Vec<Key>) {
    let Some(volume) = Typed::<PersistentVolume>::read(change.object()) else { return };
    let claim = volume.spec.claim_ref.as_ref();
    out.extend(claim.map(|c| ObjectKey::new(id::PERSISTENT_VOLUME_CLAIM, &c.namespace, &c.name)));
}

impl Controller for VolumeExpand {
    fn name(&self) -> &'static str {
        "expand"
    }

    fn component(&self) -> &'static str {
        "volume_expand"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(claim) = world.get::<PersistentVolumeClaim>(key) else { return Plan::empty() };
        if claim.head().is_deleting() || claim.status.phase != "Bound" {
            return Plan::empty();
        }
        let size = |list: &ResourceList| list.get("storage").map_or(0, Quantity::value);
        let wanted = size(&claim.spec.resources.requests);
        if wanted <= size(&claim.status.capacity) {
            return Plan::empty();
        }
        let volume = world.find::<PersistentVolume>(id::PERSISTENT_VOLUME, "", &claim.spec.volume_name);
        let Some(volume) = volume else { return Plan::empty() };
        if volume.metadata.annotations.get(PROVISIONED_BY).is_none_or(|p| p != LOCAL_PATH_PROVISIONER) {
            return Plan::empty();
        }
        let asked = claim.tree().at(&["spec", "resources", "requests", "storage"]).cloned().unwrap_or_default();
        if size(&volume.spec.capacity) < wanted {
            let patch = tree!({"spec": {"capacity": {"storage": (asked)}}});
            return Plan::of(vec![Action::patch(&volume.object, patch)]);
        }
        let before = status::of(&claim.tree());
        let mut after = before.clone();
        let has = volume.tree().at(&["spec", "capacity", "storage"]).cloned().unwrap_or(asked);
        after.set("capacity.storage", has);
        let note = EventNote::normal(&claim.object, "VolumeResizeSuccessful", "Resize volume succeeded");
        Plan::of(status::write(&claim.object, &before, &after).map(|a| a.on_success(note)).into_iter().collect())
    }
}
