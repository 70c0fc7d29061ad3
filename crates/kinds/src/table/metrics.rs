//! The resource metrics API, which upstream leaves to an add-on: what nodes and pods use (`k8s.io/metrics/pkg/apis/metrics`).

use corten_object::time;
use corten_schema::scalars::{Quantity, QuantityFormat, duration, quantity};
use corten_tree::{Tree, tree};
use jiff::SignedDuration;

use super::id;
use crate::Column;
use crate::spec::{KindSpec, Verbs, Version};
use crate::usage::{Measured, NodeUsage, Used};

/// `metrics.k8s.io/v1 NodeMetrics`
pub(crate) const NODE_METRICS: KindSpec = KindSpec {
    kind: "NodeMetrics",
    plural: "nodes",
    measured: Some(Measured { objects: of_node, about: id::NODE }),
    ..METRICS
};

/// `metrics.k8s.io/v1 PodMetrics`
pub(crate) const POD_METRICS: KindSpec = KindSpec {
    kind: "PodMetrics",
    plural: "pods",
    scope: KindSpec::NAMESPACED.scope,
    measured: Some(Measured { objects: of_pods, about: id::POD }),
    ..METRICS
};

const METRICS: KindSpec = KindSpec {
    group: "metrics.k8s.io",
    versions: &[Version::named("v1"), Version::named("v1beta1")],
    verbs: Verbs::ReadOnly,
    columns: &[Column::NAME, Column::CREATED_AT],
    served_by: Some("api"),
    ..KindSpec::CLUSTER
};

fn usage(used: Used) -> Tree {
    let cpu = format!("{}n", used.cpu_nanocores);
    let cpu = quantity::canonical(&cpu).map(|c| c.into_owned()).unwrap_or(cpu);
    let memory = i64::try_from(used.memory_bytes).unwrap_or(i64::MAX);
    tree!({"cpu": (cpu), "memory": (Quantity::from_int(memory, QuantityFormat::BinarySi).to_string())})
}

/// The fields that both kinds have.
fn object(kind: &str, usage: &NodeUsage, window: SignedDuration, (namespace, name): (&str, &str)) -> Tree {
    let at = time::format(usage.at);
    let mut metadata = tree!({"name": (name), "creationTimestamp": (at.as_str())});
    if !namespace.is_empty() {
        metadata.insert("namespace", namespace);
    }
    let window = duration::format(i64::try_from(window.as_nanos()).unwrap_or(i64::MAX));
    tree!({"kind": (kind), "apiVersion": "metrics.k8s.io/v1", "metadata": (metadata), "timestamp": (at), "window": (window)})
}

fn of_node(node: &NodeUsage) -> Vec<Tree> {
    let mut tree = object("NodeMetrics", node, node.window, ("", &node.node));
    tree.insert("usage", usage(node.used));
    vec![tree]
}

fn of_pods(node: &NodeUsage) -> Vec<Tree> {
    let pods = node.containers.chunk_by(|a, b| (&a.namespace, &a.pod) == (&b.namespace, &b.pod));
    let pod = |containers: &[crate::usage::ContainerUsage]| {
        let first = containers.first()?;
        // All containers are told with one window: the shortest is what is true of each.
        let window = containers.iter().map(|c| c.window).min()?;
        let mut tree = object("PodMetrics", node, window, (&first.namespace, &first.pod));
        let one = |c: &crate::usage::ContainerUsage| tree!({"name": (c.container.as_str()), "usage": (usage(c.used))});
        tree.insert("containers", containers.iter().map(one).collect::<Vec<_>>());
        Some(tree)
    };
    pods.filter_map(pod).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::ContainerUsage;

    #[test]
    fn metrics_k8s_io_objects_are_as_a_metrics_server_makes_them() {
        let used = Used { cpu_nanocores: 250_000_000, memory_bytes: 3 << 20 };
        let container = |pod: &str, container: &str| ContainerUsage {
            namespace: "n".into(),
            pod: pod.into(),
            container: container.into(),
            window: SignedDuration::from_millis(15_250),
            used,
        };
        let node = NodeUsage {
            node: "w1".into(),
            at: "2026-01-01T00:00:15Z".parse().unwrap(),
            window: SignedDuration::from_secs(15),
            used: Used { cpu_nanocores: 1_234_567, memory_bytes: 1025 },
            containers: vec![container("a", "x"), container("a", "y"), container("b", "x")],
        };
        let expected = r#"{"kind":"NodeMetrics","apiVersion":"metrics.k8s.io/v1","metadata":{"name":"w1","creationTimestamp":"2026-01-01T00:00:15Z"},"timestamp":"2026-01-01T00:00:15Z","window":"15s","usage":{"cpu":"1234567n","memory":"1025"}}"#;
        assert_eq!(of_node(&node)[0].to_json_string(), expected);
        let pods = of_pods(&node);
        assert_eq!(pods.len(), 2);
        let expected = r#"{"kind":"PodMetrics","apiVersion":"metrics.k8s.io/v1","metadata":{"name":"a","creationTimestamp":"2026-01-01T00:00:15Z","namespace":"n"},"timestamp":"2026-01-01T00:00:15Z","window":"15.25s","containers":[{"name":"x","usage":{"cpu":"250m","memory":"3Mi"}},{"name":"y","usage":{"cpu":"250m","memory":"3Mi"}}]}"#;
        assert_eq!(pods[0].to_json_string(), expected);
    }
}
