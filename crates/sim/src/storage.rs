//! What the API, the binder and the protection of volumes make of claims, volumes and classes together.

use std::sync::Arc;
use std::time::Duration;

use corten_auth::User;
use corten_base::Timestamp;
use corten_client::{DeleteOptions, PatchKind, Target, Write};
use corten_kinds::id;
use corten_object::{KindId, Object, ObjectKey};

use crate::cluster::Cluster;
use crate::node::Nodes;

/// A cluster in which one test works step by step.
struct Storage(Cluster);

impl Storage {
    fn new() -> Storage {
        let cluster = Cluster::start(1, false);
        Nodes::start(&cluster, 1);
        let storage = Storage(cluster);
        storage.pass(60);
        storage
    }

    /// Lets so many seconds pass.
    fn pass(&self, seconds: u64) {
        let sim = &self.0.sim;
        let until: Timestamp = sim.now().checked_add(Duration::from_secs(seconds)).expect("within jiff's range");
        loop {
            while sim.step() {}
            if !sim.advance(until) {
                return;
            }
        }
    }

    fn write(&self, write: Write) -> Result<(), String> {
        let api = self.0.api(User::admin());
        let done = self.0.sim.block_on(async move { api.write(write).await });
        done.map(drop).map_err(|status| status.to_string())
    }

    fn create(&self, kind: KindId, json: &str) {
        let body = corten_tree::json::parse(json.as_bytes()).unwrap();
        let key = ObjectKey::new(kind, body.str_at("metadata.namespace"), body.str_at("metadata.name"));
        self.write(Write::Create { target: Target::object(key), body }).unwrap();
        self.pass(5);
    }

    fn patch(&self, kind: KindId, namespace: &str, name: &str, json: &str) -> Result<(), String> {
        let body = corten_tree::json::parse(json.as_bytes()).unwrap();
        let target = Target::object(ObjectKey::new(kind, namespace, name));
        let done = self.write(Write::Patch { target, patch: PatchKind::Merge, body });
        self.pass(5);
        done
    }

    fn delete(&self, kind: KindId, namespace: &str, name: &str) {
        let key = ObjectKey::new(kind, namespace, name);
        self.write(Write::Delete { key, options: DeleteOptions::default() }).unwrap();
        self.pass(5);
    }

    fn get(&self, kind: KindId, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.0.api(User::admin()).cache().get(&ObjectKey::new(kind, namespace, name))
    }

    fn text(&self, kind: KindId, namespace: &str, name: &str, path: &str) -> String {
        self.get(kind, namespace, name).map(|o| o.to_tree().str_at(path).to_owned()).unwrap_or_default()
    }
}

#[test]
fn an_unused_volume_attributes_class_can_be_deleted() {
    let storage = Storage::new();
    storage.create(
        id::VOLUME_ATTRIBUTES_CLASS,
        r#"{"apiVersion":"storage.k8s.io/v1","kind":"VolumeAttributesClass","metadata":{"name":"gold"},"driverName":"d","parameters":{"a":"b"}}"#,
    );
    storage.patch(id::VOLUME_ATTRIBUTES_CLASS, "", "gold", r#"{"metadata":{"labels":{"gold":"patched"}}}"#).unwrap();
    let finalizers = |s: &Storage| s.get(id::VOLUME_ATTRIBUTES_CLASS, "", "gold").map(|o| o.head.finalizers.len());
    assert_eq!(finalizers(&storage), Some(1), "admission protects it");
    storage.delete(id::VOLUME_ATTRIBUTES_CLASS, "", "gold");
    assert_eq!(finalizers(&storage), None);
}

const CLASS: &str = r#"{"apiVersion":"storage.k8s.io/v1","kind":"StorageClass","metadata":{"name":"here"},
    "provisioner":"corten.dev/local-path","reclaimPolicy":"Delete","volumeBindingMode":"WaitForFirstConsumer","allowVolumeExpansion":true}"#;

/// A pod with a generic ephemeral volume of the class.
const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"default"},
    "spec":{"containers":[{"name":"c","image":"i"}],"volumes":[{"name":"v","ephemeral":{"volumeClaimTemplate":{
    "spec":{"storageClassName":"here","accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}}}]}}"#;

#[test]
fn an_ephemeral_volume_is_provisioned_for_its_pod_grows_and_goes_with_it() {
    let storage = Storage::new();
    storage.create(id::STORAGE_CLASS, CLASS);
    storage.create(id::POD, POD);
    storage.pass(60);
    let claim = |path: &str| storage.text(id::PERSISTENT_VOLUME_CLAIM, "default", "p-v", path);
    assert_eq!(claim("status.phase"), "Bound");
    assert_eq!(claim("status.capacity.storage"), "1Gi");
    assert_ne!(storage.text(id::POD, "default", "p", "spec.nodeName"), "");
    let volume = claim("spec.volumeName");
    let of_volume = |path: &str| storage.text(id::PERSISTENT_VOLUME, "", &volume, path);
    assert_eq!(of_volume("status.phase"), "Bound");
    // Expansion.
    let larger = r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#;
    storage.patch(id::PERSISTENT_VOLUME_CLAIM, "default", "p-v", larger).unwrap();
    assert_eq!(of_volume("spec.capacity.storage"), "2Gi");
    assert_eq!(claim("status.capacity.storage"), "2Gi");
    let smaller = r#"{"spec":{"resources":{"requests":{"storage":"1Gi"}}}}"#;
    let refused = storage.patch(id::PERSISTENT_VOLUME_CLAIM, "default", "p-v", smaller).unwrap_err();
    assert!(refused.contains("field can not be less than status.capacity"), "{refused}");
    // A claim in use stays although it is deleted.
    storage.delete(id::PERSISTENT_VOLUME_CLAIM, "default", "p-v");
    assert_eq!(claim("status.phase"), "Bound");
    storage.delete(id::POD, "default", "p");
    storage.pass(120);
    assert!(storage.get(id::PERSISTENT_VOLUME_CLAIM, "default", "p-v").is_none());
    assert_eq!(of_volume("status.phase"), "Released", "the node has not removed the directory yet");
}
