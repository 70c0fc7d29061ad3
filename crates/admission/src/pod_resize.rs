//! A resize must fit the pod's node (`plugin/pkg/admission/podresize/admission.go`).

use corten_kinds::id;
use corten_kinds::quota::{ResourceList, pod_requests};
use corten_object::{Cause, Status};
use corten_tree::Tree;

use crate::{Operation, Request};

/// Refuses a resize on a node of another system, or beyond what the node has.
pub(crate) fn validate(request: &Request<'_>, object: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
    let (Some(pod), Some(old)) = (object, old) else { return Ok(()) };
    let concerns =
        request.operation == Operation::Update && request.kind.id == id::POD && request.subresource == "resize";
    let node = pod.str_at("spec.nodeName");
    let generation = |tree: &Tree| tree.i64_at("metadata.generation");
    if !concerns || node.is_empty() || generation(pod) == generation(old) {
        return Ok(());
    }
    let found = request.find(id::NODE, "", node);
    let object = found.ok_or_else(|| request.forbidden(format!("node {node:?} not found")))?;
    if let Some(system) = object.head.labels.get("kubernetes.io/os").filter(|system| *system != "linux") {
        let why = format!("pod resize is only supported on linux nodes, node {node:?} is {system:?}");
        return Err(because(request, why, "UnsupportedPlatform"));
    }
    let allocatable = ResourceList::of(object.to_tree().map_at("status.allocatable"));
    let mut requests = pod_requests(pod, false);
    requests.add(&ResourceList::of(pod.map_at("spec.overhead")));
    let lacking = faults(&requests, &allocatable);
    if lacking.is_empty() {
        return Ok(());
    }
    let why = format!("node didn't have enough allocatable resources: {}", lacking.join("; "));
    Err(because(request, why, "NodeCapacity"))
}

fn because(request: &Request<'_>, why: String, reason: &str) -> Status {
    let mut status = request.forbidden(why);
    status.causes.push(Cause { reason: reason.into(), message: String::new(), field: String::new() });
    status
}

/// `cpu, requested: 3000, allocatable: 2000`, in thousandths of cores and in bytes.
fn faults(requests: &ResourceList, allocatable: &ResourceList) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, scale) in [("cpu", -3), ("memory", 0)] {
        let amount = |list: &ResourceList| list.get(name).cloned().unwrap_or_default();
        let (wanted, has) = (amount(requests), amount(allocatable));
        if wanted > has {
            faults.push(format!("{name}, requested: {}, allocatable: {}", wanted.scaled(scale), has.scaled(scale)));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use corten_tree::tree;

    use super::*;

    #[test]
    fn pod_resize_names_what_the_node_lacks() {
        let list = |tree: Tree| ResourceList::of(tree.fields());
        let node = list(tree!({"cpu": "2", "memory": "1Gi"}));
        assert_eq!(
            faults(&list(tree!({"cpu": "2500m", "memory": "2Gi"})), &node),
            ["cpu, requested: 2500, allocatable: 2000", "memory, requested: 2147483648, allocatable: 1073741824"]
        );
        assert!(faults(&list(tree!({"cpu": "2"})), &node).is_empty());
    }
}
