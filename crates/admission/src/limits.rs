//! LimitRanger: defaults and bounds for what pods and claims ask for (`plugin/pkg/admission/limitranger/admission.go`).

use std::collections::BTreeMap;

use corten_kinds::id;
use corten_kinds::quota::{ResourceList, pod_limits, pod_requests};
use corten_object::Status;
use corten_schema::scalars::Quantity;
use corten_tree::Tree;

use crate::{Operation, Request};

/// Says which amounts were filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Whether limit ranges are about the request (`SupportsAttributes`).
fn concerns(request: &Request<'_>, old: Option<&Tree>) -> bool {
    let going = old.is_some_and(|old| old.path("metadata.deletionTimestamp").is_some());
    let pod = request.kind.id == id::POD;
    let fits = match (request.subresource, request.operation) {
        ("resize", Operation::Update) => pod,
        ("", Operation::Create) => pod || request.kind.id == id::PERSISTENT_VOLUME_CLAIM,
        ("", Operation::Update) => request.kind.id == id::PERSISTENT_VOLUME_CLAIM,
        _ => false,
    };
    fits && !going
}

/// The limits of the request's namespace, range by range.
fn ranges(request: &Request<'_>) -> Vec<Vec<Tree>> {
    let ranges = request.cluster.objects_in(id::LIMIT_RANGE, request.namespace);
    ranges.iter().map(|range| range.to_tree().list_at("spec.limits").to_vec()).collect()
}

/// Fills in a container's requests and limits from the ranges' defaults (`PodMutateLimitFunc`).
pub(crate) fn mutate(request: &Request<'_>, object: &mut Tree, old: Option<&Tree>) -> Result<(), Status> {
    if request.kind.id != id::POD || !concerns(request, old) {
        return Ok(());
    }
    for limits in ranges(request) {
        let (mut requests_default, mut limits_default) = (BTreeMap::new(), BTreeMap::new());
        for limit in limits.iter().filter(|l| l.str_at("type") == "Container") {
            for (list, into) in [("defaultRequest", &mut requests_default), ("default", &mut limits_default)] {
                into.extend(limit.map_at(list).iter().map(|(name, value)| (name.to_owned(), value.clone())));
            }
        }
        let mut told = Vec::new();
        for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
            let containers = object.get_mut("spec").and_then(|s| s.get_mut(list)).and_then(Tree::as_list_mut);
            for container in containers.into_iter().flatten() {
                let requests = fill(container, "requests", &requests_default);
                let limits = fill(container, "limits", &limits_default);
                let name = container.str_at("name");
                for (set, kind) in [(requests, "request"), (limits, "limit")] {
                    if !set.is_empty() {
                        told.push(format!("{} {kind} for {what} {name}", set.join(", ")));
                    }
                }
            }
        }
        if !told.is_empty() {
            let text = format!("LimitRanger plugin set: {}", told.join("; "));
            object.make_map_at("metadata.annotations").insert(ANNOTATION, text);
        }
    }
    Ok(())
}

/// Adds what is missing of a list of amounts; returns the names, sorted.
fn fill(container: &mut Tree, list: &str, defaults: &BTreeMap<String, Tree>) -> Vec<String> {
    let has = container.path(&format!("resources.{list}")).cloned().unwrap_or_default();
    let missing: Vec<(&String, &Tree)> = defaults.iter().filter(|(name, _)| has.get(name).is_none()).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let amounts = container.make_map_at(&format!("resources.{list}"));
    for (name, value) in &missing {
        amounts.insert((*name).clone(), (*value).clone());
    }
    amounts.sort_keys();
    missing.into_iter().map(|(name, _)| name.clone()).collect()
}

/// Compares what is asked for with all bounds (`ValidateLimit`).
pub(crate) fn validate(request: &Request<'_>, object: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
    let Some(object) = object.filter(|_| concerns(request, old)) else { return Ok(()) };
    for limits in ranges(request) {
        let faults: Vec<String> = match request.kind.id {
            id::POD => limits.iter().flat_map(|limit| pod_faults(limit, object)).collect(),
            _ => limits.iter().flat_map(|limit| claim_faults(limit, object)).collect(),
        };
        match faults.as_slice() {
            [] => {}
            [one] => return Err(request.forbidden(one)),
            many => {
                let mut unique: Vec<&str> = Vec::new();
                for fault in many {
                    if !unique.contains(&fault.as_str()) {
                        unique.push(fault);
                    }
                }
                let shown = if unique.len() == 1 { unique[0].to_owned() } else { format!("[{}]", unique.join(", ")) };
                return Err(request.forbidden(shown));
            }
        }
    }
    Ok(())
}

/// What somebody asks for.
struct Asked {
    requests: ResourceList,
    limits: ResourceList,
}

fn pod_faults(limit: &Tree, pod: &Tree) -> Vec<String> {
    let asked: Vec<Asked> = match limit.str_at("type") {
        "Container" => pod
            .list_at("spec.containers")
            .iter()
            .chain(pod.list_at("spec.initContainers"))
            .map(|c| Asked {
                requests: ResourceList::of(c.map_at("resources.requests")),
                limits: ResourceList::of(c.map_at("resources.limits")),
            })
            .collect(),
        "Pod" => vec![Asked { requests: pod_requests(pod, false), limits: pod_limits(pod, false) }],
        _ => return Vec::new(),
    };
    let mut faults = Vec::new();
    for asked in &asked {
        let bounds: [(&str, Bound); 3] = [("min", min), ("max", max), ("maxLimitRequestRatio", ratio)];
        for (list, bound) in bounds {
            for (name, enforced) in ResourceList::of(limit.map_at(list)).iter() {
                let (request, given) = (asked.requests.get(name), asked.limits.get(name));
                faults.extend(bound(limit.str_at("type"), name, enforced, request, given));
            }
        }
    }
    faults
}

/// Only what a claim requests counts; it has no limits.
fn claim_faults(limit: &Tree, claim: &Tree) -> Vec<String> {
    let kind = limit.str_at("type");
    if kind != "PersistentVolumeClaim" {
        return Vec::new();
    }
    let requests = ResourceList::of(claim.map_at("spec.resources.requests"));
    let mut faults = Vec::new();
    for (name, enforced) in ResourceList::of(limit.map_at("min")).iter() {
        faults.extend(min(kind, name, enforced, requests.get(name), None));
    }
    for (name, enforced) in ResourceList::of(limit.map_at("max")).iter() {
        let usage = format!("maximum {name} usage per {kind} is {enforced}");
        match requests.get(name) {
            None => faults.push(format!("{usage}.  No request is specified")),
            Some(request) if request > enforced => faults.push(format!("{usage}, but request is {request}")),
            Some(_) => {}
        }
    }
    faults
}

type Bound = fn(&str, &str, &Quantity, Option<&Quantity>, Option<&Quantity>) -> Option<String>;

/// `minConstraint`
fn min(
    kind: &str,
    name: &str,
    enforced: &Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let usage = format!("minimum {name} usage per {kind} is {enforced}");
    match (request, limit) {
        (None, _) => Some(format!("{usage}.  No request is specified")),
        (Some(request), _) if request < enforced => Some(format!("{usage}, but request is {request}")),
        (_, Some(limit)) if limit < enforced => Some(format!("{usage}, but limit is {limit}")),
        _ => None,
    }
}

/// `maxConstraint`
fn max(
    kind: &str,
    name: &str,
    enforced: &Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let usage = format!("maximum {name} usage per {kind} is {enforced}");
    match (request, limit) {
        (_, None) => Some(format!("{usage}.  No limit is specified")),
        (_, Some(limit)) if limit > enforced => Some(format!("{usage}, but limit is {limit}")),
        (Some(request), _) if request > enforced => Some(format!("{usage}, but request is {request}")),
        _ => None,
    }
}

/// `limitRequestRatioConstraint`
fn ratio(
    kind: &str,
    name: &str,
    enforced: &Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let rule = format!("{name} max limit to request ratio per {kind} is {enforced}");
    let Some(request) = request.filter(|q| !q.is_zero()) else {
        return Some(format!("{rule}, but no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|q| !q.is_zero()) else {
        return Some(format!("{rule}, but no limit is specified or limit is 0"));
    };
    let found = limit.to_f64() / request.to_f64();
    (found > enforced.to_f64()).then(|| format!("{rule}, but provided ratio is {found:.6}"))
}

#[cfg(test)]
mod tests {
    use corten_tree::tree;

    use super::*;

    #[test]
    fn limit_range_bounds_are_upstreams_words() {
        let limit = tree!({"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "500m", "memory": "500Mi"},
            "maxLimitRequestRatio": {"cpu": "2"}});
        let pod = |resources: Tree| tree!({"spec": {"containers": [{"name": "c", "resources": (resources)}]}});
        let faults = |resources| pod_faults(&limit, &pod(resources));
        assert_eq!(
            faults(tree!({"requests": {"cpu": "10m"}, "limits": {"cpu": "600m", "memory": "1Gi"}})),
            [
                "minimum cpu usage per Container is 50m, but request is 10m",
                "maximum cpu usage per Container is 500m, but limit is 600m",
                "maximum memory usage per Container is 500Mi, but limit is 1Gi",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 60.000000",
            ]
        );
        assert_eq!(
            faults(tree!({})),
            [
                "minimum cpu usage per Container is 50m.  No request is specified",
                "maximum cpu usage per Container is 500m.  No limit is specified",
                "maximum memory usage per Container is 500Mi.  No limit is specified",
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ]
        );
        let pods = tree!({"type": "Pod", "max": {"cpu": "1"}});
        let two = tree!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "800m"}}},
            {"name": "b", "resources": {"limits": {"cpu": "300m"}}}]}});
        assert_eq!(pod_faults(&pods, &two), ["maximum cpu usage per Pod is 1, but limit is 1100m"]);
        let claims = tree!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}});
        let claim = tree!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
        assert_eq!(
            claim_faults(&claims, &claim),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]
        );
    }

    #[test]
    fn limit_range_defaults_fill_what_is_missing() {
        let mut container = tree!({"name": "c", "resources": {"requests": {"cpu": "1"}}});
        let defaults = BTreeMap::from([("cpu".to_owned(), "2".into()), ("memory".to_owned(), "1Gi".into())]);
        assert_eq!(fill(&mut container, "requests", &defaults), ["memory"]);
        assert_eq!(container.path("resources").unwrap().to_string(), r#"{"requests":{"cpu":"1","memory":"1Gi"}}"#);
    }
}
