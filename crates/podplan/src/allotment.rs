//! The resources that a pod has been given: what a resize may change, by container and for the pod as a whole
//! (`pkg/kubelet/allocation/state`).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use corten_tree::Tree;
use corten_views::container::ResourceRequirements;
use corten_views::quantity::ResourceList;
use corten_views::{Container, Pod, Quantity};

/// Resources of a pod and its containers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allotment {
    /// `spec.resources`
    pub pod: Option<ResourceRequirements>,
    /// `resources` of the init and app containers, by name.
    pub containers: BTreeMap<String, ResourceRequirements>,
}

fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.init_containers.iter().chain(&pod.spec.containers)
}

impl Allotment {
    /// What a pod's specification asks for (`ResourceInfoForPod`).
    pub fn of(pod: &Pod) -> Allotment {
        Allotment {
            pod: pod.spec.resources.clone(),
            containers: resizable(pod).map(|c| (c.name.clone(), c.resources.clone())).collect(),
        }
    }

    /// The pod with these resources in place of those that its specification asks for (`updatePodFromAllocation`).
    pub fn apply(&self, pod: &Pod) -> Pod {
        let mut out = pod.clone();
        out.spec.resources.clone_from(&self.pod);
        for container in out.spec.init_containers.iter_mut().chain(&mut out.spec.containers) {
            if let Some(resources) = self.containers.get(&container.name) {
                container.resources.clone_from(resources);
            }
        }
        out
    }

    /// Whether a pod's specification asks for exactly this.
    pub fn fits(&self, pod: &Pod) -> bool {
        let none = ResourceRequirements::default();
        let same_pod = match (&self.pod, &pod.spec.resources) {
            (None, None) => true,
            (a, b) => same(a.as_ref().unwrap_or(&none), b.as_ref().unwrap_or(&none)),
        };
        same_pod && resizable(pod).all(|c| self.containers.get(&c.name).is_none_or(|r| same(r, &c.resources)))
    }

    /// As JSON, to be kept in a file.
    pub(crate) fn to_tree(&self) -> Tree {
        let mut out = Tree::map();
        if let Some(pod) = &self.pod {
            out.insert("pod", requirements_tree(pod));
        }
        let mut containers = Tree::map();
        for (name, resources) in &self.containers {
            containers.insert(name.clone(), requirements_tree(resources));
        }
        out.insert("containers", containers);
        out
    }

    /// From what [`Allotment::to_tree`] made.
    pub(crate) fn from_tree(tree: &Tree) -> Allotment {
        let containers = tree.map_at("containers").iter();
        Allotment {
            pod: tree.get("pod").map(requirements),
            containers: containers.map(|(name, value)| (name.to_owned(), requirements(value))).collect(),
        }
    }
}

/// Whether two resources are the same amounts, however they are written.
pub(crate) fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    same_list(&a.limits, &b.limits) && same_list(&a.requests, &b.requests)
}

fn same_list(a: &ResourceList, b: &ResourceList) -> bool {
    let equal = |(name, quantity): (&String, &Quantity)| {
        b.get(name).and_then(|other| quantity.partial_cmp(other)) == Some(Ordering::Equal)
    };
    a.len() == b.len() && a.iter().all(equal)
}

/// `v1.ResourceRequirements` as Go writes it.
pub(crate) fn requirements_tree(resources: &ResourceRequirements) -> Tree {
    let mut out = Tree::map();
    for (key, list) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        if !list.is_empty() {
            out.insert(key, list_tree(list));
        }
    }
    out
}

/// `v1.ResourceList`
pub(crate) fn list_tree(list: &ResourceList) -> Tree {
    let mut out = Tree::map();
    for (name, quantity) in list {
        out.insert(name.clone(), quantity.as_str());
    }
    out
}

fn requirements(tree: &Tree) -> ResourceRequirements {
    let list = |key: &str| -> ResourceList {
        let fields = tree.map_at(key).iter();
        fields.filter_map(|(name, value)| Some((name.to_owned(), Quantity::parse(value.as_str()?)?))).collect()
    };
    ResourceRequirements { limits: list("limits"), requests: list("requests"), ..ResourceRequirements::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        serde_json::from_str(&format!(r#"{{"spec":{spec}}}"#)).unwrap()
    }

    #[test]
    fn an_allotment_stands_in_for_the_specification() {
        let first = pod(r#"{"resources":{"limits":{"memory":"1Gi"}},"initContainers":[{"name":"i"}],
            "containers":[{"name":"c","resources":{"requests":{"cpu":"500m"},"limits":{"cpu":"1"}}}]}"#);
        let given = Allotment::of(&first);
        let written_otherwise = pod(r#"{"resources":{"limits":{"memory":"1024Mi"}},"initContainers":[{"name":"i"}],
            "containers":[{"name":"c","resources":{"requests":{"cpu":"0.5"},"limits":{"cpu":"1000m"}}}]}"#);
        assert!(given.fits(&written_otherwise));
        let larger = pod(r#"{"resources":{"limits":{"memory":"2Gi"}},"initContainers":[{"name":"i"}],
            "containers":[{"name":"c","resources":{"requests":{"cpu":"500m"},"limits":{"cpu":"1"}}}]}"#);
        assert!(!given.fits(&larger));
        assert_eq!(given.apply(&larger), first);
        let text = given.to_tree().to_json();
        assert_eq!(Allotment::from_tree(&corten_tree::json::parse(&text).unwrap()), given);
    }
}
