//! Binds claims and volumes, makes local volumes for claims, and takes released ones away
//! (`pkg/controller/volume/persistentvolume/pv_controller.go`).

use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::{Tree, tree};
use corten_views::meta::compile;
use corten_views::quantity::ResourceList;
use corten_views::{Node, PersistentVolume, PersistentVolumeClaim, Quantity, StorageClass};

use crate::{Action, Changed, Controller, EventNote, Key, Plan, Typed, Watch, World, status};

/// The controller.
pub struct VolumeBinder {
    /// Directory on the nodes below which local volumes are.
    pub local_path: String,
}

/// The provisioner that this controller is.
pub const LOCAL_PATH_PROVISIONER: &str = "corten.dev/local-path";

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
pub(crate) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
const HOSTNAME: &str = "kubernetes.io/hostname";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

const WATCHES: &[Watch] = &[
    Watch::itself(id::PERSISTENT_VOLUME_CLAIM),
    Watch::itself(id::PERSISTENT_VOLUME),
    Watch::by(id::PERSISTENT_VOLUME_CLAIM, volume_of),
    Watch::by(id::PERSISTENT_VOLUME, claims_of),
    Watch::by(id::STORAGE_CLASS, class_changed),
];

fn volume_of(change: &Changed<'_>, out: &mut Vec<Key>) {
    let Some(claim) = Typed::<PersistentVolumeClaim>::read(change.object()) else { return };
    if !claim.spec.volume_name.is_empty() {
        out.push(ObjectKey::new(id::PERSISTENT_VOLUME, "", &claim.spec.volume_name));
    }
}

/// A volume wakes its claim; a free one all that wait.
fn claims_of(change: &Changed<'_>, out: &mut Vec<Key>) {
    let Some(volume) = Typed::<PersistentVolume>::read(change.object()) else { return };
    match &volume.spec.claim_ref {
        Some(claim) => out.push(ObjectKey::new(id::PERSISTENT_VOLUME_CLAIM, &claim.namespace, &claim.name)),
        None if volume.status.phase == "Available" => out.extend(waiting(change)),
        None => {}
    }
}

fn class_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    out.extend(waiting(change));
}

fn waiting(change: &Changed<'_>) -> Vec<Key> {
    let claims = change.state.list(id::PERSISTENT_VOLUME_CLAIM);
    let unbound = |c: &Typed<PersistentVolumeClaim>| !c.metadata.annotations.contains_key(BIND_COMPLETED);
    claims.filter_map(Typed::read).filter(unbound).map(|c| c.key()).collect()
}

impl Controller for VolumeBinder {
    fn name(&self) -> &'static str {
        "persistent-volume-binder"
    }

    fn component(&self) -> &'static str {
        "persistentvolume-controller"
    }

    fn user(&self) -> String {
        String::from("system:serviceaccount:kube-system:persistent-volume-binder")
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        if key.kind == id::PERSISTENT_VOLUME {
            let volume = world.get::<PersistentVolume>(key);
            return volume.map_or_else(Plan::empty, |volume| sync_volume(world, &volume));
        }
        match world.get::<PersistentVolumeClaim>(key) {
            Some(claim) if claim.spec.volume_name.is_empty() => self.sync_unbound(world, &claim),
            Some(claim) => sync_bound(world, &claim),
            None => Plan::empty(),
        }
    }
}

/// Whether a volume is reserved for (or bound to) a claim.
fn is_for(volume: &PersistentVolume, claim: &Typed<PersistentVolumeClaim>) -> bool {
    volume.spec.claim_ref.as_ref().is_some_and(|r| {
        r.namespace == claim.namespace() && r.name == claim.name() && (r.uid.is_empty() || r.uid == claim.uid())
    })
}

fn phase(object: &std::sync::Arc<corten_object::Object>, phase: &str) -> Option<Action> {
    let before = status::of(&object.to_tree());
    let mut after = before.clone();
    after.insert("phase", phase);
    if phase != "Failed" {
        after.remove("message");
        after.remove("reason");
    }
    status::write(object, &before, &after)
}

/// `syncVolume`
fn sync_volume(world: &World<'_>, volume: &Typed<PersistentVolume>) -> Plan {
    let Some(reference) = &volume.spec.claim_ref else {
        return Plan::of(phase(&volume.object, "Available").into_iter().collect());
    };
    if reference.uid.is_empty() {
        // Reserved by its maker, not bound yet.
        return Plan::of(phase(&volume.object, "Available").into_iter().collect());
    }
    let key = ObjectKey::new(id::PERSISTENT_VOLUME_CLAIM, &reference.namespace, &reference.name);
    let claim = world.get::<PersistentVolumeClaim>(&key).filter(|c| c.uid() == reference.uid);
    let Some(claim) = claim else { return release(world, volume) };
    if claim.spec.volume_name == volume.name() {
        return Plan::of(phase(&volume.object, "Bound").into_iter().collect());
    }
    if claim.spec.volume_name.is_empty() {
        // The claim's own reconcile goes on.
        return Plan::empty();
    }
    // The claim went to another volume: this one is free again, or was made for nothing.
    let by_controller = volume.metadata.annotations.contains_key(BOUND_BY_CONTROLLER);
    if volume.metadata.annotations.contains_key(PROVISIONED_BY) {
        return release(world, volume);
    }
    let mut annotations = Tree::map();
    annotations.insert(BOUND_BY_CONTROLLER, Tree::Null);
    let reference = if by_controller { Tree::Null } else { tree!({"uid": null, "resourceVersion": null}) };
    let patch = tree!({"metadata": {"annotations": (annotations)}, "spec": {"claimRef": (reference)}});
    Plan::of(vec![Action::patch(&volume.object, patch)])
}

/// The claim is gone: the volume waits for its administrator, or goes (`reclaimVolume`).
fn release(world: &World<'_>, volume: &Typed<PersistentVolume>) -> Plan {
    let waits = matches!(volume.status.phase.as_str(), "Released" | "Failed");
    if !waits {
        return Plan::of(phase(&volume.object, "Released").into_iter().collect());
    }
    if volume.head().is_deleting() {
        return Plan::empty();
    }
    let provisioner = volume.metadata.annotations.get(PROVISIONED_BY).map(String::as_str);
    match (volume.spec.persistent_volume_reclaim_policy.as_str(), provisioner) {
        // Its node removes the directory and then the volume. What was on a node that is no more is gone with it.
        ("Delete", Some(LOCAL_PATH_PROVISIONER)) if node_exists(world, volume) => Plan::empty(),
        ("Delete", Some(LOCAL_PATH_PROVISIONER)) => Plan::of(vec![Action::delete(&volume.object)]),
        // Whoever made it takes it away.
        ("Delete", Some(_)) | ("Retain" | "", _) => Plan::empty(),
        ("Delete", None) if volume.spec.csi.is_some() => Plan::empty(),
        // `findDeletablePlugin`
        ("Delete", None) => failed(
            volume,
            "VolumeFailedDelete",
            &format!(
                "error getting deleter volume plugin for volume {:?}: no deletable volume plugin matched",
                volume.name()
            ),
        ),
        ("Recycle", _) => failed(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!"),
        _ => failed(volume, "VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy"),
    }
}

/// Why a claim without a class waits.
const NO_CLASS: &str = "no persistent volumes available for this claim and no storage class is set";

/// Whether the node that a local volume is on still exists.
fn node_exists(world: &World<'_>, volume: &Typed<PersistentVolume>) -> bool {
    let required = volume.spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
    let terms = required.into_iter().flat_map(|r| &r.node_selector_terms).flat_map(|t| &t.match_expressions);
    let names: Vec<&String> = terms.filter(|e| e.key == HOSTNAME).flat_map(|e| &e.values).collect();
    let here = |node: &Typed<Node>| {
        let host = node.head().labels.get(HOSTNAME).unwrap_or(node.name());
        names.iter().any(|name| *name == host)
    };
    world.list::<Node>(id::NODE, "").iter().any(here)
}

/// The volume can not be reclaimed; said once.
fn failed(volume: &Typed<PersistentVolume>, reason: &'static str, message: &str) -> Plan {
    let before = status::of(&volume.tree());
    let mut after = before.clone();
    after.insert("phase", "Failed");
    after.insert("message", message);
    let note = EventNote::warning(&volume.object, reason, message);
    Plan::of(status::write(&volume.object, &before, &after).map(|a| a.on_success(note)).into_iter().collect())
}

/// `syncBoundClaim`
fn sync_bound(world: &World<'_>, claim: &Typed<PersistentVolumeClaim>) -> Plan {
    let completed = claim.metadata.annotations.contains_key(BIND_COMPLETED);
    let Some(volume) = world.find::<PersistentVolume>(id::PERSISTENT_VOLUME, "", &claim.spec.volume_name) else {
        return if completed {
            lost(claim, "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
        } else {
            Plan::of(phase(&claim.object, "Pending").into_iter().collect())
        };
    };
    if volume.spec.claim_ref.is_none() && !completed {
        return match mismatch(&volume, claim) {
            None => bind(claim, &volume),
            Some(why) => {
                let message = format!("Cannot bind to requested volume \"{}\": {why}", volume.name());
                pending(claim, EventNote::warning(&claim.object, "VolumeMismatch", message))
            }
        };
    }
    if !is_for(&volume, claim) {
        if completed {
            return lost(claim, "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!");
        }
        let message = format!("volume \"{}\" already bound to a different claim.", volume.name());
        return pending(claim, EventNote::warning(&claim.object, "FailedBinding", message));
    }
    bind(claim, &volume)
}

/// The claim waits; why is told when it begins to.
fn pending(claim: &Typed<PersistentVolumeClaim>, note: EventNote) -> Plan {
    Plan::of(phase(&claim.object, "Pending").map(|a| a.on_success(note)).into_iter().collect())
}

/// Why a volume that a claim names does not do for it (`checkVolumeSatisfyClaim`).
fn mismatch(volume: &Typed<PersistentVolume>, claim: &Typed<PersistentVolumeClaim>) -> Option<String> {
    let (has, wants) = (&volume.spec, &claim.spec);
    let size = |list: &ResourceList| list.get("storage").map_or(0, Quantity::value);
    Some(match () {
        () if volume.head().is_deleting() => format!("the volume is marked for deletion \"{}\"", volume.name()),
        () if size(&has.capacity) < size(&wants.resources.requests) => "requested PV is too small".into(),
        () if has.storage_class_name != class_name(claim) => "storageClassName does not match".into(),
        () if !same_mode(volume, claim) => "incompatible volumeMode".into(),
        () if !wants.access_modes.iter().all(|m| has.access_modes.contains(m)) => "incompatible accessMode".into(),
        () => return None,
    })
}

/// `GetPersistentVolumeClaimClass`
fn class_name(claim: &Typed<PersistentVolumeClaim>) -> &str {
    let old = claim.metadata.annotations.get(CLASS_BETA);
    old.or(claim.spec.storage_class_name.as_ref()).map_or("", String::as_str)
}

fn same_mode(volume: &Typed<PersistentVolume>, claim: &Typed<PersistentVolumeClaim>) -> bool {
    let mode = |m: &Option<String>| m.as_deref().unwrap_or("Filesystem").to_owned();
    mode(&volume.spec.volume_mode) == mode(&claim.spec.volume_mode)
}

fn lost(claim: &Typed<PersistentVolumeClaim>, message: &str) -> Plan {
    let note = EventNote::warning(&claim.object, "ClaimLost", message);
    Plan::of(phase(&claim.object, "Lost").map(|a| a.on_success(note)).into_iter().collect())
}

/// How a volume names the claim that it is for.
fn claim_reference(claim: &Typed<PersistentVolumeClaim>) -> Tree {
    tree!({
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "namespace": (claim.namespace()),
        "name": (claim.name()),
        "uid": (claim.uid()),
        "resourceVersion": (claim.head().revision.to_string())
    })
}

/// The four writes of a binding, each only if it is not done yet: volume, its phase, claim, its phase.
fn bind(claim: &Typed<PersistentVolumeClaim>, volume: &Typed<PersistentVolume>) -> Plan {
    let reference = volume.spec.claim_ref.as_ref();
    if reference.is_none_or(|r| r.uid != claim.uid()) {
        let mut patch = tree!({"spec": {"claimRef": (claim_reference(claim))}});
        if reference.is_none() {
            patch.make_map_at("metadata.annotations").insert(BOUND_BY_CONTROLLER, "yes");
        }
        return Plan::of(vec![Action::patch(&volume.object, patch)]);
    }
    let bound = claim.spec.volume_name == volume.name() && claim.metadata.annotations.contains_key(BIND_COMPLETED);
    if !bound {
        let mut patch = Tree::map();
        let annotations = patch.make_map_at("metadata.annotations");
        annotations.insert(BIND_COMPLETED, "yes");
        if claim.spec.volume_name.is_empty() {
            annotations.insert(BOUND_BY_CONTROLLER, "yes");
            patch.set("spec.volumeName", volume.name());
        }
        return Plan::of(vec![Action::patch(&claim.object, patch)]);
    }
    let mut actions: Vec<Action> = phase(&volume.object, "Bound").into_iter().collect();
    let before = status::of(&claim.tree());
    let mut after = before.clone();
    after.insert("phase", "Bound");
    let tree = volume.tree();
    for field in ["accessModes", "capacity"] {
        // What grew since is told by whoever grows it.
        if claim.status.phase != "Bound" {
            after.set(field, tree.at(&["spec", field]).cloned().unwrap_or_default());
        }
    }
    actions.extend(status::write(&claim.object, &before, &after));
    Plan::of(actions)
}

impl VolumeBinder {
    /// `syncUnboundClaim`
    fn sync_unbound(&self, world: &World<'_>, claim: &Typed<PersistentVolumeClaim>) -> Plan {
        if claim.head().is_deleting() {
            return Plan::empty();
        }
        let volumes = world.list::<PersistentVolume>(id::PERSISTENT_VOLUME, "");
        if let Some(reserved) = volumes.iter().find(|v| is_for(v, claim)) {
            return bind(claim, reserved);
        }
        let name = class_name(claim);
        let class = (!name.is_empty()).then(|| world.find::<StorageClass>(id::STORAGE_CLASS, "", name)).flatten();
        let waits = class.as_ref().is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
        let node = claim.metadata.annotations.get(SELECTED_NODE);
        let pending: Vec<Action> = phase(&claim.object, "Pending").into_iter().collect();
        if waits && node.is_none() {
            let mut plan = Plan::of(pending);
            if claim.status.phase != "Pending" || !plan.stages.is_empty() {
                let text = "waiting for first consumer to be created before binding";
                plan.events.push(EventNote::normal(&claim.object, "WaitForFirstConsumer", text));
            }
            return plan;
        }
        if !waits && let Some(volume) = best(claim, &volumes) {
            return bind(claim, volume);
        }
        match class {
            Some(class) if class.provisioner == LOCAL_PATH_PROVISIONER => {
                self.provision(world, claim, &class, node.map(String::as_str))
            }
            Some(class) if class.provisioner != "kubernetes.io/no-provisioner" => external(claim, &class, pending),
            None if name.is_empty() => {
                self::pending(claim, EventNote::normal(&claim.object, "FailedBinding", NO_CLASS))
            }
            _ => Plan::of(pending),
        }
    }

    /// Makes a local volume for a claim, on the node that the scheduler chose (or any that is ready).
    fn provision(
        &self,
        world: &World<'_>,
        claim: &Typed<PersistentVolumeClaim>,
        class: &Typed<StorageClass>,
        node: Option<&str>,
    ) -> Plan {
        let nodes = world.list::<Node>(id::NODE, "");
        let chosen = match node {
            Some(name) => nodes.iter().find(|n| n.name() == name),
            None => nodes.iter().find(|n| n.is_ready()),
        };
        let Some(chosen) = chosen else { return Plan::empty() };
        let name = format!("pvc-{}", claim.uid());
        let path = format!("{}/{name}_{}_{}", self.local_path, claim.namespace(), claim.name());
        let host = chosen.head().labels.get(HOSTNAME).unwrap_or(chosen.name());
        let tree = claim.tree();
        let mut annotations = Tree::map();
        annotations.insert(PROVISIONED_BY, LOCAL_PATH_PROVISIONER);
        let size = tree.at(&["spec", "resources", "requests", "storage"]).cloned().unwrap_or_default();
        let body = tree!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"annotations": (annotations)},
            "spec": {
                "capacity": {"storage": (size)},
                "local": {"path": (path)},
                "accessModes": (tree.path("spec.accessModes").cloned().unwrap_or_default()),
                "claimRef": (claim_reference(claim)),
                "persistentVolumeReclaimPolicy": (class.reclaim_policy.as_deref().unwrap_or("Delete")),
                "storageClassName": (class.name()),
                "volumeMode": (claim.spec.volume_mode.as_deref().unwrap_or("Filesystem")),
                "nodeAffinity": {"required": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [(host)]}]}
                ]}}
            }
        });
        let done = format!("Successfully provisioned volume {name}");
        let failed = format!("failed to provision volume with StorageClass \"{}\": ", class.name());
        let key = ObjectKey::new(id::PERSISTENT_VOLUME, "", &name);
        let create = Action::create(key, body)
            .while_alive(&claim.object)
            .on_success(EventNote::normal(&claim.object, "ProvisioningSucceeded", done))
            .on_failure(EventNote::warning(&claim.object, "ProvisioningFailed", failed));
        Plan::of(vec![create])
    }
}

/// Somebody else makes the volume; the claim says who (`provisionClaimOperationExternal`).
fn external(claim: &Typed<PersistentVolumeClaim>, class: &Typed<StorageClass>, pending: Vec<Action>) -> Plan {
    let provisioner = &class.provisioner;
    if claim.metadata.annotations.get(PROVISIONER) == Some(provisioner) {
        return Plan::of(pending);
    }
    let mut annotations = Tree::map();
    annotations.insert(PROVISIONER, provisioner.as_str());
    annotations.insert(PROVISIONER_BETA, provisioner.as_str());
    let text = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system \
         administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    let note = EventNote::normal(&claim.object, "ExternalProvisioning", text);
    let patch = tree!({"metadata": {"annotations": (annotations)}});
    Plan::of(vec![Action::patch(&claim.object, patch).on_success(note)])
}

/// The smallest free volume that fits (`findBestMatchForClaim`).
fn best<'v>(
    claim: &Typed<PersistentVolumeClaim>,
    volumes: &'v [Typed<PersistentVolume>],
) -> Option<&'v Typed<PersistentVolume>> {
    let spec = &claim.spec;
    let wanted = spec.resources.requests.get("storage").map_or(0, Quantity::value);
    let size = |v: &Typed<PersistentVolume>| v.spec.capacity.get("storage").map_or(0, Quantity::value);
    let fits = |v: &&Typed<PersistentVolume>| {
        v.spec.claim_ref.is_none()
            && !v.head().is_deleting()
            && v.status.phase == "Available"
            && v.spec.storage_class_name == class_name(claim)
            && same_mode(v, claim)
            && spec.access_modes.iter().all(|m| v.spec.access_modes.contains(m))
            && spec.selector.as_ref().is_none_or(|s| compile(Some(s)).matches(&v.head().labels))
            && size(v) >= wanted
    };
    volumes.iter().filter(fits).min_by_key(|v| (size(v), v.name().to_owned()))
}
