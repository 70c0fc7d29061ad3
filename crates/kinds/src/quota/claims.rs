//! Claims of volumes and of devices (`pkg/quota/v1/evaluator/core/{persistent_volume_claims,resource_claims}.go`).

use std::collections::BTreeMap;

use corten_base::Timestamp;
use corten_schema::scalars::Quantity;
use corten_tree::Tree;

use super::{Evaluator, ResourceList, count, fits, one};

const BY_CLASS: &str = ".storageclass.storage.k8s.io/";
const CLAIMS: &str = "persistentvolumeclaims";
const STORAGE: &str = "requests.storage";
const DEVICES: &str = ".deviceclass.resource.k8s.io/devices";
/// Most devices that a request for all of them gets (`AllocationResultsMaxSize`).
const DEVICES_MAX: i64 = 32;

pub(super) const VOLUME_CLAIMS: Evaluator = Evaluator {
    covers: |resource| {
        let plain = resource.split_once(BY_CLASS).map_or(resource, |(_, plain)| plain);
        matches!(plain, CLAIMS | STORAGE)
    },
    usage: volume_usage,
    in_scope: |scope, claim| {
        scope.str_at("scopeName") == "VolumeAttributesClass" && fits(scope, &attribute_classes(claim))
    },
    update_counts: |subresource, new, old| match subresource {
        "" => true,
        "status" => {
            let allocated = |claim: &Tree| ResourceList::of(claim.map_at("status.allocatedResources"));
            allocated(new) != allocated(old) || attribute_classes(new) != attribute_classes(old)
        }
        _ => false,
    },
    ..Evaluator::NONE
};

fn volume_usage(claim: &Tree, _: Timestamp) -> ResourceList {
    let annotation = claim.at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]);
    let class = annotation.and_then(Tree::as_str).unwrap_or_else(|| claim.str_at("spec.storageClassName"));
    let mut usage = ResourceList::default();
    usage.set(CLAIMS, one());
    if !class.is_empty() {
        usage.set(&format!("{class}{BY_CLASS}{CLAIMS}"), one());
    }
    let amount = |list: &str| ResourceList::of(claim.map_at(list)).get("storage").cloned();
    if let Some(wanted) = amount("spec.resources.requests") {
        let allocated = amount("status.allocatedResources").filter(|a| *a > wanted);
        let storage = allocated.unwrap_or(wanted).rounded_up(0);
        usage.set(STORAGE, storage.clone());
        if !class.is_empty() {
            usage.set(&format!("{class}{BY_CLASS}{STORAGE}"), storage);
        }
    }
    usage
}

/// All classes that a claim names, wants and has.
fn attribute_classes(claim: &Tree) -> Vec<&str> {
    let mut names: Vec<&str> = [
        "spec.volumeAttributesClassName",
        "status.currentVolumeAttributesClassName",
        "status.modifyVolumeStatus.targetVolumeAttributesClassName",
    ]
    .iter()
    .map(|path| claim.str_at(path))
    .filter(|name| !name.is_empty())
    .collect();
    names.sort_unstable();
    names.dedup();
    names
}

pub(super) const RESOURCE_CLAIMS: Evaluator = Evaluator {
    covers: |resource| resource.ends_with(DEVICES),
    usage: device_usage,
    update_counts: |subresource, _, _| subresource.is_empty(),
    ..Evaluator::NONE
};

fn device_usage(claim: &Tree, _: Timestamp) -> ResourceList {
    let devices = |request: &Tree| match request.str_at("allocationMode") {
        "All" => DEVICES_MAX,
        _ => request.i64_at("count").unwrap_or(1),
    };
    let mut by_class: BTreeMap<&str, i64> = BTreeMap::new();
    for request in claim.list_at("spec.devices.requests") {
        if let Some(exactly) = request.path("exactly") {
            *by_class.entry(exactly.str_at("deviceClassName")).or_default() += devices(exactly);
        }
        // Of alternatives the most demanding one counts, per class.
        let mut most: BTreeMap<&str, i64> = BTreeMap::new();
        for alternative in request.list_at("firstAvailable") {
            let slot = most.entry(alternative.str_at("deviceClassName")).or_default();
            *slot = (*slot).max(devices(alternative));
        }
        for (class, n) in most {
            *by_class.entry(class).or_default() += n;
        }
    }
    let mut usage = ResourceList::default();
    for (class, n) in by_class {
        let amount: Quantity = count(n);
        usage.set(&format!("{class}{DEVICES}"), amount);
    }
    usage
}

#[cfg(test)]
mod tests {
    use corten_tree::tree;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn quota_counts_volume_claims_by_class_and_in_whole_bytes() {
        let claim = tree!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1500m"}}}});
        assert_eq!(
            volume_usage(&claim, now()).to_string(),
            "gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/requests.storage=2,\
             persistentvolumeclaims=1,requests.storage=2"
        );
        assert!((VOLUME_CLAIMS.covers)("x.storageclass.storage.k8s.io/requests.storage"));
        assert!(!(VOLUME_CLAIMS.covers)("x.storageclass.storage.k8s.io/limits.storage"));
    }

    #[test]
    fn quota_counts_devices_by_class() {
        let claim = tree!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu", "count": 2}},
            {"name": "b", "firstAvailable": [{"deviceClassName": "gpu", "count": 3}, {"deviceClassName": "cpu"}]}]}}});
        assert_eq!(
            device_usage(&claim, now()).to_string(),
            "cpu.deviceclass.resource.k8s.io/devices=1,gpu.deviceclass.resource.k8s.io/devices=5"
        );
    }
}
