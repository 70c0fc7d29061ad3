//! Fields whose feature gate is off by default in v1.37: upstream's server drops them from what clients write, unless the object has
//! one of the same feature already. (`DropDisabledPodFields` in `pkg/api/pod/util.go`; gates in `pkg/features/kube_features.go`)

use corten_tree::Tree;

/// A feature and its fields: dotted paths below a pod's spec, through lists; `*` stands for each sort of container.
type Feature = (&'static str, &'static [&'static str]);

const OF_SPECS: &[Feature] = &[
    ("ContainerStopSignals", &["*.lifecycle.stopSignal"]),
    ("EmptyDirVolumeMode", &["volumes.emptyDir.mode"]),
    ("VolumeBindMountOptions", &["*.volumeMounts.bindMountOptions"]),
    (
        "H2CContainerProbe",
        &[
            "*.livenessProbe.httpGet.protocol",
            "*.readinessProbe.httpGet.protocol",
            "*.startupProbe.httpGet.protocol",
            "*.lifecycle.postStart.httpGet.protocol",
            "*.lifecycle.preStop.httpGet.protocol",
        ],
    ),
    ("GRPCContainerProbeTLS", &["*.livenessProbe.grpc.mode", "*.readinessProbe.grpc.mode", "*.startupProbe.grpc.mode"]),
    ("GenericWorkload", &["schedulingGroup"]),
    ("EvictionRequestAPI", &["evictionResponders"]),
    (
        "AtomicWriteVolumeUserFields",
        &[
            "volumes.secret.defaultUser",
            "volumes.secret.items.user",
            "volumes.configMap.defaultUser",
            "volumes.configMap.items.user",
            "volumes.downwardAPI.defaultUser",
            "volumes.downwardAPI.items.user",
            "volumes.projected.defaultUser",
            "volumes.projected.sources.secret.items.user",
            "volumes.projected.sources.configMap.items.user",
            "volumes.projected.sources.downwardAPI.items.user",
            "volumes.projected.sources.serviceAccountToken.user",
            "volumes.projected.sources.clusterTrustBundle.user",
            "volumes.projected.sources.podCertificate.user",
        ],
    ),
];

const OF_STATUSES: &[Feature] = &[
    ("CSIVolumeHealth", &["volumeHealth"]),
    ("DRANodeAllocatableResources", &["nodeAllocatableResourceClaimStatuses"]),
    (
        "ImageVolumeWithDigest",
        &[
            "containerStatuses.volumeMounts.volumeStatus",
            "initContainerStatuses.volumeMounts.volumeStatus",
            "ephemeralContainerStatuses.volumeMounts.volumeStatus",
        ],
    ),
];

/// Drops what is off from a pod's spec, which stands at the path in a new and maybe an old object.
pub(crate) fn drop_from_spec(new: &mut Tree, old: Option<&Tree>, path: &str) {
    drop_features(new, old, path, OF_SPECS);
    let Some(spec) = new.path_mut(path) else { return };
    for list in CONTAINERS {
        crate::defaults::each(spec, list, |container| {
            if container.path("lifecycle").is_some_and(|l| l.as_map().is_some_and(corten_tree::Map::is_empty)) {
                container.remove("lifecycle");
            }
        });
    }
}

/// Drops what is off from a pod's status.
pub(crate) fn drop_from_status(new: &mut Tree, old: Option<&Tree>) {
    drop_features(new, old, "status", OF_STATUSES);
}

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn drop_features(new: &mut Tree, old: Option<&Tree>, path: &str, features: &[Feature]) {
    let before = old.and_then(|old| old.path(path));
    for (_, fields) in features {
        let paths = || {
            fields.iter().flat_map(|field| match field.strip_prefix("*.") {
                Some(rest) => CONTAINERS.iter().map(|list| format!("{list}.{rest}")).collect(),
                None => vec![(*field).to_owned()],
            })
        };
        let Some(spec) = new.path_mut(path) else { return };
        if paths().any(|path| has(spec, &path)) && !before.is_some_and(|old| paths().any(|path| has(old, &path))) {
            paths().for_each(|path| remove(spec, &path));
        }
    }
}

fn has(tree: &Tree, path: &str) -> bool {
    if let Some(items) = tree.as_list() {
        return items.iter().any(|item| has(item, path));
    }
    match path.split_once('.') {
        Some((first, rest)) => tree.get(first).is_some_and(|child| has(child, rest)),
        None => tree.get(path).is_some_and(|value| !value.is_null()),
    }
}

fn remove(tree: &mut Tree, path: &str) {
    if let Some(items) = tree.as_list_mut() {
        items.iter_mut().for_each(|item| remove(item, path));
        return;
    }
    match path.split_once('.') {
        Some((first, rest)) => {
            if let Some(child) = tree.get_mut(first) {
                remove(child, rest);
            }
        }
        None => drop(tree.remove(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    #[test]
    fn disabled_fields_go_unless_they_were_there() {
        let pod = tree!({"spec": {"containers": [{"name": "a", "lifecycle": {"stopSignal": "SIGTERM"}}],
            "volumes": [{"name": "v", "emptyDir": {"mode": 511}}]}});
        let mut new = pod.clone();
        drop_from_spec(&mut new, None, "spec");
        assert_eq!(new, tree!({"spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]}}));
        let mut kept = pod.clone();
        drop_from_spec(&mut kept, Some(&pod), "spec");
        assert_eq!(kept, pod);
    }
}
