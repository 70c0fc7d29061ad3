//! Quality of service of a pod, computed once when it is created. (`pkg/apis/core/helper/qos/qos.go`)

use corten_schema::scalars::Quantity;
use corten_tree::Tree;

use crate::validate::quantity;

/// `Guaranteed`, `Burstable` or `BestEffort`, from requests and limits of cpu and memory.
pub fn qos_class(pod: &Tree) -> &'static str {
    let pod_level = pod.path("spec.resources").filter(|r| has_compute(r));
    let containers: Vec<&Tree> = match pod_level {
        Some(resources) => vec![resources],
        None => ["spec.containers", "spec.initContainers"]
            .iter()
            .flat_map(|list| pod.list_at(list))
            .map(|container| container.path("resources").unwrap_or(&Tree::Null))
            .collect(),
    };
    let mut any = false;
    let mut guaranteed = true;
    for resources in containers {
        for name in ["cpu", "memory"] {
            let amount = |list: &str| positive(resources, list, name);
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            // A request that is not given equals its limit.
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn has_compute(resources: &Tree) -> bool {
    ["requests", "limits"].iter().any(|list| ["cpu", "memory"].iter().any(|n| resources.map_at(list).contains(n)))
}

fn positive(resources: &Tree, list: &str, name: &str) -> Option<Quantity> {
    resources.map_at(list).get(name).and_then(quantity).filter(|q| q.sign() > 0)
}

#[cfg(test)]
mod tests {
    use super::qos_class;
    use corten_tree::{Tree, tree};

    #[test]
    fn classes() {
        let pod = |resources: Tree| tree!({"spec": {"containers": [{"name": "a", "resources": (resources)}]}});
        for (resources, class) in [
            (tree!({}), "BestEffort"),
            (tree!({"requests": {"cpu": "0"}}), "BestEffort"),
            (tree!({"requests": {"cpu": "1"}}), "Burstable"),
            (tree!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                tree!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}),
                "Guaranteed",
            ),
            (tree!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
        ] {
            assert_eq!(qos_class(&pod(resources.clone())), class, "{resources}");
        }
    }
}
