//! Services (`pkg/quota/v1/evaluator/core/services.go`).

use corten_base::Timestamp;
use corten_tree::Tree;

use super::{Evaluator, ResourceList, count, one};

const NODE_PORTS: &str = "services.nodeports";
const LOAD_BALANCERS: &str = "services.loadbalancers";

pub(super) const EVALUATOR: Evaluator = Evaluator {
    covers: |resource| matches!(resource, "services" | NODE_PORTS | LOAD_BALANCERS),
    usage,
    update_counts: |subresource, _, _| subresource.is_empty(),
    ..Evaluator::NONE
};

fn usage(service: &Tree, _: Timestamp) -> ResourceList {
    let ports = service.list_at("spec.ports");
    let own = ports.iter().filter(|p| p.i64_at("nodePort").unwrap_or(0) != 0).count();
    let allocates = service.path("spec.allocateLoadBalancerNodePorts").and_then(Tree::as_bool) != Some(false);
    let (node_ports, balancers) = match service.str_at("spec.type") {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if allocates => (ports.len(), 1),
        "LoadBalancer" => (own, 1),
        _ => (0, 0),
    };
    let mut usage = ResourceList::default();
    usage.set("services", one());
    usage.set(NODE_PORTS, count(node_ports as i64));
    usage.set(LOAD_BALANCERS, count(balancers));
    usage
}
