//! Claims for pods' generic ephemeral volumes (`pkg/controller/volume/ephemeral/controller.go`): the pod owns them, and they go
//! with it.

use corten_kinds::id;
use corten_object::{Object, ObjectKey};
use corten_tree::{Tree, tree};
use corten_views::{PersistentVolumeClaim, Pod};

use crate::{Action, Changed, Controller, EventNote, Key, Plan, Typed, Watch, World, owners};

/// The controller.
pub struct EphemeralVolumes;

const WATCHES: &[Watch] = &[Watch::by(id::POD, pod_with_volumes), Watch::by(id::PERSISTENT_VOLUME_CLAIM, claim_gone)];

/// A pod's spec does not change later: only a new pod needs claims.
fn pod_with_volumes(change: &Changed<'_>, out: &mut Vec<Key>) {
    if change.old.is_some() || change.new.is_none() {
        return;
    }
    let Some(pod) = Typed::<Pod>::read(change.object()) else { return };
    if pod.spec.volumes.iter().any(|v| v.ephemeral.is_some()) {
        out.push(pod.key());
    }
}

/// A claim that was deleted under its pod is made anew.
fn claim_gone(change: &Changed<'_>, out: &mut Vec<Key>) {
    if change.new.is_some() {
        return;
    }
    let claim = &change.object().head;
    if let Some(owner) = claim.owners.iter().find(|o| o.controller && o.kind.as_str() == "Pod") {
        out.push(ObjectKey::new(id::POD, &claim.namespace, &owner.name));
    }
}

impl Controller for EphemeralVolumes {
    fn name(&self) -> &'static str {
        "ephemeral-volume"
    }

    fn component(&self) -> &'static str {
        "ephemeral_volume"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let mut plan = Plan::empty();
        let Some(pod) = world.get::<Pod>(key).filter(|pod| !pod.head().is_deleting()) else { return plan };
        let tree = pod.tree();
        for volume in tree.list_at("spec.volumes") {
            let (name, Some(template)) = (volume.str_at("name"), volume.path("ephemeral.volumeClaimTemplate")) else {
                continue;
            };
            let failed = format!("ephemeral volume {name}: ");
            let claim = ObjectKey::new(id::PERSISTENT_VOLUME_CLAIM, pod.namespace(), &format!("{}-{name}", pod.name()));
            match world.get::<PersistentVolumeClaim>(&claim) {
                Some(found) if is_for(&found.object, &pod) => {}
                Some(_) => {
                    let why = format!("PVC {claim} was not created for pod {} (pod is not owner)", pod.key());
                    plan.events.push(EventNote::warning(&pod.object, "FailedBinding", failed + &why));
                    return plan;
                }
                None => {
                    let failed = format!("{failed}create PVC {}: ", claim.name);
                    let create = Action::create(claim, claim_body(world, &pod.object, template));
                    let note = EventNote::warning(&pod.object, "FailedBinding", failed);
                    plan.stage([create.while_alive(&pod.object).on_failure(note)]);
                }
            }
        }
        plan
    }
}

/// `VolumeIsForPod` (`k8s.io/component-helpers/storage/ephemeral`)
fn is_for(claim: &Object, pod: &Typed<Pod>) -> bool {
    claim.head.owners.iter().any(|o| o.controller && o.uid.as_str() == pod.uid())
}

fn claim_body(world: &World<'_>, pod: &Object, template: &Tree) -> Tree {
    let owner = owners::controller_reference(world, pod);
    let mut metadata = tree!({"ownerReferences": [(owner)]});
    for field in ["labels", "annotations"] {
        if let Some(texts) = template.at(&["metadata", field]) {
            metadata.insert(field, texts.clone());
        }
    }
    tree!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": (metadata),
        "spec": (template.get("spec").cloned().unwrap_or_default())
    })
}
