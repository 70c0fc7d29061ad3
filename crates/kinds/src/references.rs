//! Which configuration a pod's spec takes from other objects of its namespace (`pkg/api/pod/util.go` `VisitPodSecretNames`,
//! `VisitPodConfigmapNames`).
//!
//! The one list of the fields that name ConfigMaps and Secrets: what a node may read, what a mirror pod may not name, and what a
//! workload rolls for.

use corten_object::KindId;
use corten_tree::Tree;

use crate::id;

/// A ConfigMap or Secret that a pod's spec names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference<'a> {
    /// ConfigMap or Secret.
    pub kind: KindId,
    /// Never empty.
    pub name: &'a str,
    /// What it is for.
    pub role: Role,
}

/// What a pod takes a configuration for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Its containers see it: as variables or as files.
    Content,
    /// To get at something else: images, or the volumes of a storage system.
    Credentials,
}

/// Fields of a volume that name one.
const VOLUME: &[(KindId, &str, Role)] = &[
    (id::CONFIG_MAP, "configMap.name", Role::Content),
    (id::SECRET, "secret.secretName", Role::Content),
    (id::SECRET, "azureFile.secretName", Role::Credentials),
    (id::SECRET, "cephfs.secretRef.name", Role::Credentials),
    (id::SECRET, "cinder.secretRef.name", Role::Credentials),
    (id::SECRET, "csi.nodePublishSecretRef.name", Role::Credentials),
    (id::SECRET, "flexVolume.secretRef.name", Role::Credentials),
    (id::SECRET, "iscsi.secretRef.name", Role::Credentials),
    (id::SECRET, "rbd.secretRef.name", Role::Credentials),
    (id::SECRET, "scaleIO.secretRef.name", Role::Credentials),
    (id::SECRET, "storageos.secretRef.name", Role::Credentials),
];

/// Fields of a source of a projected volume.
const PROJECTED: &[(KindId, &str)] = &[(id::CONFIG_MAP, "configMap.name"), (id::SECRET, "secret.name")];

/// Fields of an entry of a container's `envFrom`.
const ENV_FROM: &[(KindId, &str)] = &[(id::CONFIG_MAP, "configMapRef.name"), (id::SECRET, "secretRef.name")];

/// Fields of an entry of a container's `env`.
const ENV: &[(KindId, &str)] =
    &[(id::CONFIG_MAP, "valueFrom.configMapKeyRef.name"), (id::SECRET, "valueFrom.secretKeyRef.name")];

/// Sources of volumes that stand for objects of the API, in upstream's words.
const API_VOLUMES: [(&str, &str); 5] = [
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];

/// Sources of projected volumes, likewise.
const API_PROJECTED: [(&str, &str); 3] = [
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

/// What a pod's spec names, in the order of the spec's parts; something may be there more than once.
pub fn references<'a>(spec: &'a Tree) -> Vec<Reference<'a>> {
    let mut out = Vec::new();
    let mut add = |kind, from: &'a Tree, path: &str, role| match from.str_at(path) {
        "" => {}
        name => out.push(Reference { kind, name, role }),
    };
    for pull in spec.list_at("imagePullSecrets") {
        add(id::SECRET, pull, "name", Role::Credentials);
    }
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    for container in lists.iter().flat_map(|list| spec.list_at(list)) {
        for (list, fields) in [("envFrom", ENV_FROM), ("env", ENV)] {
            for entry in container.list_at(list) {
                fields.iter().for_each(|(kind, path)| add(*kind, entry, path, Role::Content));
            }
        }
    }
    for volume in spec.list_at("volumes") {
        VOLUME.iter().for_each(|(kind, path, role)| add(*kind, volume, path, *role));
        for source in volume.list_at("projected.sources") {
            PROJECTED.iter().for_each(|(kind, path)| add(*kind, source, path, Role::Content));
        }
    }
    out
}

/// The first sort of API object that a pod's spec names, in upstream's words; static pods and their mirrors must name none
/// (`pkg/api/pod/util.go`, `HasAPIObjectReference`).
pub fn api_reference(pod: &Tree) -> Option<&'static str> {
    let spec = pod.get("spec")?;
    if !spec.str_at("serviceAccountName").is_empty() {
        return Some("serviceaccounts");
    }
    let named = references(spec);
    let names = |kind: KindId| named.iter().any(|reference| reference.kind == kind);
    if names(id::SECRET) {
        return Some("secrets");
    }
    if names(id::CONFIG_MAP) {
        return Some("configmaps");
    }
    if !spec.list_at("resourceClaims").is_empty() {
        return Some("resourceclaims");
    }
    let volumes = spec.list_at("volumes");
    let sources: Vec<&Tree> = volumes.iter().flat_map(|v| v.list_at("projected.sources")).collect();
    let of = |table: &[(&str, &'static str)], has: &dyn Fn(&str) -> bool| {
        table.iter().find(|(source, _)| has(source)).map(|(_, resource)| *resource)
    };
    let volume = of(&API_VOLUMES, &|source| volumes.iter().any(|v| v.path(source).is_some()));
    volume.or_else(|| of(&API_PROJECTED, &|source| sources.iter().any(|s| s.path(source).is_some())))
}

#[cfg(test)]
mod tests {
    use corten_tree::tree;

    use super::*;

    #[test]
    fn references_are_found_in_every_part_of_a_spec() {
        let spec = tree!({
            "imagePullSecrets": [{"name": "pull"}, {"name": ""}],
            "initContainers": [{"env": [{"name": "a", "valueFrom": {"configMapKeyRef": {"name": "init-env", "key": "k"}}}]}],
            "containers": [{"envFrom": [{"secretRef": {"name": "from"}}], "env": [{"name": "plain", "value": "v"}]}],
            "ephemeralContainers": [{"envFrom": [{"configMapRef": {"name": "late"}}]}],
            "volumes": [{"secret": {"secretName": "vol"}}, {"configMap": {"name": "vol"}}, {"rbd": {"secretRef": {"name": "rbd"}}},
                {"projected": {"sources": [{"secret": {"name": "proj"}}, {"configMap": {"name": "proj"}}]}}],
        });
        let found = references(&spec);
        let names = |kind: KindId| found.iter().filter(|r| r.kind == kind).map(|r| r.name).collect::<Vec<_>>();
        assert_eq!(names(id::SECRET), ["pull", "from", "vol", "rbd", "proj"]);
        assert_eq!(names(id::CONFIG_MAP), ["init-env", "late", "vol", "proj"]);
        let credentials = found.iter().filter(|r| r.role == Role::Credentials).map(|r| r.name).collect::<Vec<_>>();
        assert_eq!(credentials, ["pull", "rbd"]);
    }

    #[test]
    fn mirror_and_static_pods_name_no_objects_of_the_api() {
        let pod = |spec: Tree| api_reference(&tree!({"spec": spec}));
        let with = |volume: Tree| pod(tree!({"volumes": [volume]}));
        assert_eq!(pod(tree!({"containers": [{"env": [{"name": "a", "value": "b"}]}]})), None);
        assert_eq!(pod(tree!({"serviceAccountName": "default"})), Some("serviceaccounts"));
        let env = tree!({"containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "m"}}}]}]});
        assert_eq!(pod(env), Some("configmaps"));
        let env = tree!({"initContainers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]});
        assert_eq!(pod(env), Some("secrets"));
        assert_eq!(with(tree!({"name": "v", "hostPath": {"path": "/"}})), None);
        assert_eq!(with(tree!({"secret": {"secretName": "s"}})), Some("secrets"));
        assert_eq!(with(tree!({"rbd": {"secretRef": {"name": "s"}}})), Some("secrets"));
        assert_eq!(with(tree!({"ephemeral": {}})), Some("persistentvolumeclaims (via ephemeral volumes)"));
        let token = tree!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}});
        assert_eq!(with(token), Some("serviceaccounts (via projected volumes)"));
        let downward = tree!({"projected": {"sources": [{"downwardAPI": {"items": []}}]}});
        assert_eq!(with(downward), None);
    }
}
