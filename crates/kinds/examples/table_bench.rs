//! How long the table of many pods takes: `cargo run --release -p corten-kinds --example table_bench`.

use std::time::Instant;

use bytes::Bytes;
use corten_kinds::{Registry, RowContext, id};
use corten_object::{Object, Revision};
use corten_tree::{Tree, tree};

const PODS: usize = 10_000;

fn main() {
    let registry = Registry::builtin();
    let kind = registry.get(id::POD);
    let bytes = Bytes::from(pod().to_json());
    let size = bytes.len();
    let pods: Vec<Object> = (0..PODS)
        .map(|_| Object::parse(kind.id, bytes.clone(), Revision(1), &kind.fact_paths).expect("a pod's bytes"))
        .collect();
    let context = RowContext { now: "2026-11-23T12:00:00Z".parse().expect("a time") };
    let started = Instant::now();
    let cells: usize = pods.iter().map(|pod| kind.row("v1", pod, &context).len()).sum();
    let took = started.elapsed();
    println!("{PODS} pods of {size} bytes, {cells} cells: {took:?}, {:?} each", took / PODS as u32);
}

/// A pod of some 5 kB, a third of it managed fields.
fn pod() -> Tree {
    let env: Vec<Tree> =
        (0..20).map(|i| tree!({"name": (format!("VARIABLE_{i}")), "value": (format!("value number {i}"))})).collect();
    let fields: Vec<(corten_tree::Key, Tree)> =
        (0..60).map(|i| (format!("f:field{i}").into(), tree!({".": {}, "f:value": {}}))).collect();
    let status = tree!({"name": "web", "ready": true, "started": true, "restartCount": 1, "image": "nginx:1",
        "imageID": "sha256:0123456789abcdef", "containerID": "corten://0123456789abcdef",
        "state": {"running": {"startedAt": "2026-11-20T12:00:00Z"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-11-20T11:59:00Z"}}});
    tree!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "web-0", "namespace": "default", "uid": "0", "creationTimestamp": "2026-11-20T11:00:00Z",
            "labels": {"app": "web", "tier": "front"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": (Tree::Map(corten_tree::Map::from_entries(fields)))}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "web", "image": "nginx:1", "env": (Tree::List(env)),
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [(status)]}
    })
}
