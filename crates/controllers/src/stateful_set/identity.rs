//! The pods of a StatefulSet: names, ordinals, labels, volumes (`stateful_set_utils.go`).

use corten_tree::{Tree, tree};
use corten_views::{Pod, StatefulSet};

use crate::{Typed, World, history, pods};

/// Label with the pod's name.
pub(super) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// Label with the pod's ordinal.
pub(super) const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in a pod's name if it is `set-N`.
pub(super) fn ordinal_of(set: &str, pod: &str) -> Option<i64> {
    let (parent, ordinal) = pod.rsplit_once('-')?;
    let digits = !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit());
    (parent == set && digits).then(|| ordinal.parse().ok()).flatten()
}

/// The revision that a pod is of.
pub(super) fn revision_of(pod: &Typed<Pod>) -> &str {
    pod.head().labels.get(history::REVISION_HASH).unwrap_or_default()
}

/// The claim of a template for an ordinal.
pub(super) fn claim_name(template: &str, set: &str, ordinal: i64) -> String {
    format!("{template}-{set}-{ordinal}")
}

/// The pod of an ordinal at a revision.
pub(super) fn new_pod(
    world: &World<'_>,
    set: &Typed<StatefulSet>,
    template: &Tree,
    revision: &str,
    ordinal: i64,
) -> Tree {
    let name = format!("{}-{ordinal}", set.name());
    let mut pod = pods::from_template(world, template, &set.object);
    let labels = pod.make_map_at("metadata.labels");
    labels.insert(POD_NAME, name.as_str());
    labels.insert(POD_INDEX, ordinal.to_string());
    labels.insert(history::REVISION_HASH, revision);
    pod.set("spec.hostname", name);
    if set.spec.service_name.is_empty() {
        pod.remove("spec.subdomain");
    } else {
        pod.set("spec.subdomain", set.spec.service_name.as_str());
    }
    let claims: Vec<&str> = set.spec.volume_claim_templates.iter().map(|c| c.metadata.name.as_str()).collect();
    if !claims.is_empty() {
        let mut volumes: Vec<Tree> = claims
            .iter()
            .map(|claim| {
                let name = claim_name(claim, set.name(), ordinal);
                tree!({"name": (*claim), "persistentVolumeClaim": {"claimName": (name)}})
            })
            .collect();
        let others = pod.list_at("spec.volumes").iter().filter(|v| !claims.contains(&v.str_at("name")));
        volumes.extend(others.cloned());
        pod.set("spec.volumes", volumes);
    }
    pod
}

/// The patch that gives a pod its identity labels back; `None` if it has them.
pub(super) fn repair(pod: &Typed<Pod>, ordinal: i64) -> Option<Tree> {
    if pod.head().labels.get(POD_NAME) == Some(pod.name()) {
        return None;
    }
    let mut labels = Tree::map();
    labels.insert(POD_NAME, pod.name());
    labels.insert(POD_INDEX, ordinal.to_string());
    Some(tree!({"metadata": {"labels": (labels)}}))
}

#[cfg(test)]
mod tests {
    use super::ordinal_of;

    #[test]
    fn ordinals() {
        assert_eq!(ordinal_of("web", "web-10"), Some(10));
        assert_eq!(ordinal_of("web", "web-a-1"), None);
        assert_eq!(ordinal_of("web", "web-"), None);
        assert_eq!(ordinal_of("web-1", "web-1-0"), Some(0));
    }
}
