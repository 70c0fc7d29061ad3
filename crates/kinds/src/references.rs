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
}
