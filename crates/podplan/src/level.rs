//! A pod's resources as a whole, in its status (`kubelet_pods.go` `convertToAPIPodLevelResourcesStatus`).

use corten_schema::scalars::quantity::{Quantity, QuantityFormat};
use corten_tree::Tree;
use corten_views::Pod;
use corten_views::requests::{Amounts, pod_limits, pod_requests};

use crate::allotment::list_tree;
use crate::resources::{CPU_PERIOD, CgroupValues, shares};

/// A CPU request up to which the kernel's smallest share is given, in thousandths.
const CPU_REQUEST_MIN: i64 = 2;
/// The same for limits.
const CPU_LIMIT_MIN: i64 = 10;

/// Sets `allocatedResources` and `resources`. `cgroup` is what was written to the pod's cgroup.
pub(crate) fn insert(out: &mut Tree, pod: &Pod, cgroup: &CgroupValues) {
    // Without the status: the pod has been promised what its specification says here.
    let promised = pod_requests(&Pod { spec: pod.spec.clone(), ..Pod::default() });
    let promised_tree = amounts(&promised);
    if !promised_tree.fields().is_empty() {
        out.insert("allocatedResources", promised_tree.clone());
    }
    let mut both = Tree::map();
    let (requests, limits) = match pod.status.phase.as_str() {
        "Running" => actual(pod, &promised, cgroup),
        _ => (promised_tree, amounts(&pod_limits(&pod.spec))),
    };
    for (key, list) in [("limits", limits), ("requests", requests)] {
        if !list.fields().is_empty() {
            both.insert(key, list);
        }
    }
    out.insert("resources", both);
}

fn actual(pod: &Pod, promised: &Amounts, cgroup: &CgroupValues) -> (Tree, Tree) {
    let level = pod.spec.resources.as_ref();
    let mut requests = level.map_or_else(Tree::map, |l| list_tree(&l.requests));
    let mut limits = level.map_or_else(Tree::map, |l| list_tree(&l.limits));
    let own = level.and_then(|l| l.requests.get("cpu")).map_or(0, |q| q.milli());
    if let Some(written) = cgroup.cpu_shares {
        let asked = promised.get("cpu");
        let has = match shares(asked) == written {
            true => asked,
            false => i64::try_from((written * 1000).div_ceil(1024)).unwrap_or(i64::MAX),
        };
        if has > CPU_REQUEST_MIN || own > CPU_REQUEST_MIN {
            requests.insert("cpu", cpu(has));
        }
    }
    if requests.get("memory").is_none() && promised.contains("memory") {
        requests.insert("memory", bytes(promised.get("memory")));
    }
    if let Some(quota) = cgroup.cpu_quota {
        let has = quota * 1000 / CPU_PERIOD as i64;
        let own = level.and_then(|l| l.limits.get("cpu")).map_or(0, |q| q.milli());
        if has > CPU_LIMIT_MIN || own > CPU_LIMIT_MIN {
            limits.insert("cpu", cpu(has));
        }
    }
    if let Some(memory) = cgroup.memory_max {
        limits.insert("memory", bytes(memory));
    }
    (requests, limits)
}

fn amounts(of: &Amounts) -> Tree {
    let mut out = Tree::map();
    for (name, amount) in of.iter() {
        out.insert(name.to_owned(), if name == "cpu" { cpu(amount) } else { bytes(amount) });
    }
    out
}

fn cpu(milli: i64) -> String {
    Quantity::from_milli(milli, QuantityFormat::DecimalSi).to_string()
}

fn bytes(value: i64) -> String {
    Quantity::from_int(value, QuantityFormat::BinarySi).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::pod_cgroup;

    fn shown(phase: &str, spec: &str) -> String {
        let pod: Pod = serde_json::from_str(&format!(r#"{{"spec":{spec},"status":{{"phase":"{phase}"}}}}"#)).unwrap();
        let mut out = Tree::map();
        insert(&mut out, &pod, &pod_cgroup(&pod));
        out.to_json_string()
    }

    #[test]
    fn status_allocated_resources_and_resources_of_a_pod() {
        let limited = r#"{"containers":[{"name":"a","resources":{"requests":{"cpu":"100m","memory":"64Mi"},
            "limits":{"cpu":"1","memory":"64Mi"}}}, {"name":"b","resources":{"requests":{"cpu":"150m"},"limits":{"cpu":"1"}}}]}"#;
        assert_eq!(
            shown("Pending", limited),
            r#"{"allocatedResources":{"cpu":"250m","memory":"64Mi"},"resources":{"limits":{"cpu":"2","memory":"64Mi"},"requests":{"cpu":"250m","memory":"64Mi"}}}"#
        );
        assert_eq!(
            shown("Running", limited),
            r#"{"allocatedResources":{"cpu":"250m","memory":"64Mi"},"resources":{"limits":{"cpu":"2"},"requests":{"cpu":"250m","memory":"64Mi"}}}"#
        );
        assert_eq!(shown("Running", r#"{"containers":[{"name":"a"}]}"#), r#"{"resources":{}}"#);
        let level = r#"{"resources":{"requests":{"cpu":"1"},"limits":{"memory":"1Gi"}},"containers":[{"name":"a"}]}"#;
        assert_eq!(
            shown("Running", level),
            r#"{"allocatedResources":{"cpu":"1"},"resources":{"limits":{"memory":"1Gi"},"requests":{"cpu":"1"}}}"#
        );
    }
}
