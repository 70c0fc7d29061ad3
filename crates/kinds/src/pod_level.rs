//! Resources of a pod as a whole: what follows from those of its containers, and what they may be.
//! (`DefaultPodLevelResources` in `pkg/api/pod/util.go`, `validatePodResourceConsistency`)

use corten_tree::Tree;

use crate::Errors;
use crate::quota::{ResourceList, container_limits, container_requests, is_pod_level};
use crate::validate::{Spot, resources::is_huge_pages};

fn own(pod: &Tree, list: &str) -> ResourceList {
    ResourceList::of(pod.map_at(&format!("spec.resources.{list}")))
}

/// Completes the resources of a pod that has some of its own.
pub(crate) fn default(pod: &mut Tree) {
    let (mut requests, mut limits) = (own(pod, "requests"), own(pod, "limits"));
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let (of_requests, of_limits) = (container_requests(pod), container_limits(pod));
    for (name, limit) in of_limits.iter() {
        if is_huge_pages(name) && requests.get(name).is_none() && limits.get(name).is_none() {
            limits.set(name, limit.clone());
        }
    }
    for (name, request) in of_requests.iter() {
        if is_pod_level(name) && !is_huge_pages(name) && requests.get(name).is_none() {
            requests.set(name, request.clone());
        }
    }
    for (name, limit) in limits.iter() {
        if is_pod_level(name) && requests.get(name).is_none() {
            requests.set(name, limit.clone());
        }
    }
    let containers = || ["spec.initContainers", "spec.containers", "spec.ephemeralContainers"];
    let limited = |name: &str| {
        let mut all = containers().into_iter().flat_map(|list| pod.list_at(list));
        all.all(|c| c.map_at("resources.limits").contains(name))
    };
    for (name, request) in requests.iter() {
        if is_pod_level(name)
            && limits.get(name).is_none()
            && limited(name)
            && let Some(limit) = of_limits.get(name)
        {
            limits.set(name, if request > limit { request.clone() } else { limit.clone() });
        }
    }
    for (list, amounts) in [("requests", requests), ("limits", limits)] {
        if !amounts.is_empty() {
            pod.set(&format!("spec.resources.{list}"), amounts.to_tree());
        }
    }
}

/// Finds where a pod's own resources contradict those of its containers. `spec` is a pod's or a template's.
pub(crate) fn validate(spec: &Spot<'_>, errors: &mut Errors) {
    let pod = Tree::Map([("spec".into(), spec.tree.clone())].into_iter().collect());
    let at = |list: &str, name: &str| {
        let list = spec.child("resources").child(list);
        Spot::at(list.map("").get(name).unwrap_or(&Tree::Null), list.path.key(name)).path
    };
    let fault = |path, shown: String, detail: String, errors: &mut Errors| {
        Spot::at(&Tree::Null, path).invalid_as("", shown, detail, errors);
    };
    let (requests, limits) = (own(&pod, "requests"), own(&pod, "limits"));
    for (name, sum) in container_requests(&pod).iter() {
        if let Some(own) = requests.get(name).filter(|own| sum > *own) {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            fault(at("requests", name), own.to_string(), detail, errors);
        }
    }
    for (name, sum) in container_limits(&pod).iter().filter(|(name, _)| is_huge_pages(name)) {
        if let Some(own) = limits.get(name).filter(|own| sum > *own) {
            let detail = format!("must be greater than or equal to aggregate container limits of {sum}");
            fault(at("limits", name), own.to_string(), detail, errors);
        }
    }
    for (i, container) in spec.list("containers").iter().enumerate() {
        for (name, limit) in ResourceList::of(container.map_at("resources.limits")).iter() {
            if let Some(own) = limits.get(name).filter(|own| limit > *own) {
                let path = spec.path.child("resources").child("containers").index(i).key(name).child("limits");
                fault(path, limit.to_string(), format!("must be less than or equal to pod limits of {own}"), errors);
            }
        }
    }
}
