//! A change of a pod must be one that its node can follow (`plugin/pkg/admission/nodedeclaredfeatures/admission.go`).
//!
//! What a change needs: `component-helpers/nodedeclaredfeatures/features`. Features that only matter when a pod is placed are the
//! scheduler's business.

use corten_kinds::id;
use corten_object::Status;
use corten_tree::Tree;

use crate::{Operation, Request};

/// Refuses a change of a pod's spec that needs a feature which its node has not declared.
pub(crate) fn validate(request: &Request<'_>, object: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
    let (Some(pod), Some(old)) = (object, old) else { return Ok(()) };
    let of_spec = matches!(request.subresource, "" | "resize");
    let concerns = request.operation == Operation::Update && request.kind.id == id::POD && of_spec;
    let node = pod.str_at("spec.nodeName");
    let generation = |tree: &Tree| tree.i64_at("metadata.generation");
    if !concerns || node.is_empty() || generation(pod) == generation(old) {
        return Ok(());
    }
    let needed = needed(pod, old);
    if needed.is_empty() {
        return Ok(());
    }
    let found = request.find(id::NODE, "", node);
    let found = found.ok_or_else(|| request.forbidden(format!("node {node:?} not found")))?.to_tree();
    let declared = found.list_at("status.declaredFeatures");
    let lacking: Vec<&str> =
        needed.into_iter().filter(|feature| !declared.iter().any(|has| has.as_str() == Some(feature))).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let lacking = lacking.join(", ");
    Err(request.forbidden(format!("pod update requires features {lacking} which are not available on node {node:?}")))
}

/// What the change of a pod needs of its node (`InferForUpdate`).
fn needed(pod: &Tree, old: &Tree) -> Vec<&'static str> {
    let mut out = Vec::new();
    let null = Tree::Null;
    let resources = |of: &Tree, path: &str| of.path(path).unwrap_or(&null).clone();
    if !resources(pod, "spec.resources").semantically_equal(&resources(old, "spec.resources")) {
        out.push("InPlacePodLevelResourcesVerticalScaling");
    }
    let containers = old.list_at("spec.initContainers").iter().zip(pod.list_at("spec.initContainers"));
    let mut own = containers.filter(|(old, _)| old.str_at("restartPolicy") != "Always");
    if own.any(|(old, new)| !resources(old, "resources").semantically_equal(&resources(new, "resources"))) {
        out.push("InPlacePodVerticalScalingInitContainers");
    }
    out
}

#[cfg(test)]
mod tests {
    use corten_tree::tree;

    use super::*;

    #[test]
    fn declared_features_that_a_changed_pod_needs() {
        let pod = tree!({"spec": {"resources": {"requests": {"cpu": "1"}}, "initContainers": [
            {"name": "a", "resources": {"limits": {"cpu": "1"}}},
            {"name": "b", "restartPolicy": "Always", "resources": {"limits": {"cpu": "1"}}}]}});
        assert!(needed(&pod, &pod).is_empty());
        let mut level = pod.clone();
        level.set("spec.resources.requests.cpu", "2");
        assert_eq!(needed(&level, &pod), ["InPlacePodLevelResourcesVerticalScaling"]);
        let with = |at: usize| {
            let mut containers = pod.list_at("spec.initContainers").to_vec();
            containers[at].set("resources.limits.cpu", "3");
            let mut pod = pod.clone();
            pod.set("spec.initContainers", containers);
            pod
        };
        assert_eq!(needed(&with(0), &pod), ["InPlacePodVerticalScalingInitContainers"]);
        assert!(needed(&with(1), &pod).is_empty(), "sidecars could be resized before");
    }
}
