//! What managed fields cost: `cargo run --release -p corten-object --example managed`.
//!
//! A typical pod (two containers, three managers) is updated and applied again and again; the time of one write's bookkeeping is
//! printed in microseconds.

use std::hint::black_box;
use std::time::Instant;

use corten_base::Timestamp;
use corten_object::managed::{Context, Ownable, Versions, apply, update};
use corten_schema::{Options, Schema, TypeId, canonicalise};
use corten_tree::{Tree, tree};

const ROUNDS: u32 = 20_000;

struct One(TypeId);

impl Versions for One {
    fn type_of(&self, api_version: &str) -> Option<TypeId> {
        (api_version == "v1").then_some(self.0)
    }

    fn convert(&self, tree: &Tree, _: &str, _: &str) -> Option<Tree> {
        Some(tree.clone())
    }
}

fn pod() -> Tree {
    let container = |name: &str| {
        tree!({"name": name, "image": "registry.example.com/team/app:1.2.3", "imagePullPolicy": "IfNotPresent",
            "args": ["--listen=:8080", "--verbose"], "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"},
                {"name": "POD", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}, {"name": "tmp", "mountPath": "/tmp"}],
            "livenessProbe": {"httpGet": {"path": "/live", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10,
                "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3}})
    };
    tree!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app-0", "namespace": "default", "uid": "u",
            "labels": {"app": "app", "tier": "web", "pod-template-hash": "5d5b"}, "annotations": {"checksum": "0123456789abcdef"}},
        "spec": {"containers": [(container("app")), (container("sidecar"))], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "nodeName": "node-1", "terminationGracePeriodSeconds": 30, "priority": 0,
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
            "volumes": [{"name": "config", "configMap": {"name": "app", "defaultMode": 420}}, {"name": "tmp", "emptyDir": {}}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn context<'c>(schema: &'c Schema, versions: &'c One, subresource: &'c str) -> Context<'c> {
    Context {
        schema,
        versions,
        api_version: "v1",
        kind: "Pod",
        subresource,
        ownable: if subresource.is_empty() { Ownable::Except(&["status"]) } else { Ownable::Except(&["spec"]) },
        now: Timestamp::UNIX_EPOCH,
        schema_changes: false,
    }
}

fn with_fields(mut tree: Tree, fields: Option<Tree>) -> Tree {
    tree.make_map_at("metadata").insert("managedFields", fields);
    tree
}

fn measure(what: &str, mut work: impl FnMut()) {
    (0..ROUNDS / 10).for_each(|_| work());
    let began = Instant::now();
    (0..ROUNDS).for_each(|_| work());
    let micros = began.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
    println!("{what:<40} {micros:7.1} µs");
}

fn main() {
    let schema = corten_schema::builtin();
    let ty = schema.gvk("", "v1", "Pod").expect("the table has pods");
    let versions = One(ty);
    let canonical = |tree: &Tree| canonicalise(schema, ty, tree, Options::default()).expect("it fits").tree;
    let empty = canonical(&tree!({"apiVersion": "v1", "kind": "Pod"}));
    let whole = context(schema, &versions, "");
    let status = context(schema, &versions, "status");
    let pod = canonical(&pod());
    let made = update(&whole, &empty, &pod, "kube-controller-manager").expect("comparable");
    let made = with_fields(pod.clone(), made);
    let mut running = made.clone();
    running.set("status.podIP", "10.0.0.2");
    let fields = update(&status, &made, &running, "kubelet").expect("comparable");
    let live = with_fields(running, fields);
    let configuration = tree!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app-0", "namespace": "default",
        "labels": {"team": "a"}}, "spec": {"containers": [{"name": "app", "image": "registry.example.com/team/app:1.2.3"}]}});
    let live = canonical(&apply(&whole, &empty, &live, &configuration, "team", true).expect("it applies").tree);
    let mut labelled = live.clone();
    labelled.set("metadata.labels.extra", "1");
    let mut next = live.clone();
    next.set("status.podIP", "10.0.0.3");

    measure("create", || drop(black_box(update(&whole, &empty, &pod, "kubectl"))));
    measure("update of a label", || drop(black_box(update(&whole, &live, &labelled, "kubectl"))));
    measure("status update", || drop(black_box(update(&status, &live, &next, "kubelet"))));
    measure("write that changes nothing", || drop(black_box(update(&whole, &live, &live, "kubectl"))));
    measure("apply of two fields", || drop(black_box(apply(&whole, &empty, &live, &configuration, "team", false))));
}
