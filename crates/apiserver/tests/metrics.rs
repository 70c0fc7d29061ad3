//! The built-in `metrics.k8s.io`: what nodes and pods use.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::sync::Arc;

use common::{Client, Fixture};
use corten_auth::User;
use corten_base::{SystemClock, SystemEntropy};
use corten_cache::Scope;
use corten_controllers::horizontal_pod_autoscaler::Autoscaler;
use corten_kinds::id;
use corten_manager::Manager;
use corten_object::ObjectKey;
use hyper::Method;

/// Pods are made for an account.
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

#[tokio::test]
async fn metrics_k8s_io_shows_what_nodes_measured() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    assert_eq!(client.post(ACCOUNTS, r#"{"metadata":{"name":"default"}}"#).await.0, 201);
    for (name, tier) in [("a", "front"), ("b", "back")] {
        let pod = format!(
            r#"{{"metadata":{{"name":"{name}","labels":{{"tier":"{tier}"}}}},"spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}"#
        );
        assert_eq!(client.post("/api/v1/namespaces/default/pods", &pod).await.0, 201);
    }
    assert_eq!(client.post("/api/v1/nodes", r#"{"metadata":{"name":"n1","labels":{"disk":"ssd"}}}"#).await.0, 201);

    let (code, pods) = client.get(PODS, &[]).await;
    let names: Vec<&str> = pods.list_at("items").iter().map(|i| i.str_at("metadata.name")).collect();
    assert_eq!((code, names), (200, vec!["a", "b"]), "a pod that is gone is not shown: {pods}");
    assert_eq!((pods.str_at("kind"), pods.str_at("apiVersion")), ("PodMetricsList", "metrics.k8s.io/v1beta1"));
    let first = &pods.list_at("items")[0];
    assert_eq!((first.str_at("window"), first.str_at("metadata.labels.tier")), ("15s", "front"));
    let used = &first.list_at("containers")[0];
    assert_eq!((used.str_at("name"), used.str_at("usage.cpu"), used.str_at("usage.memory")), ("c", "250m", "64Mi"));

    let (_, selected) = client.get(&format!("{PODS}?labelSelector=tier%3Dback"), &[]).await;
    assert_eq!(selected.list_at("items").len(), 1);
    let (code, one) = client.get("/apis/metrics.k8s.io/v1/namespaces/default/pods/b", &[]).await;
    assert_eq!((code, one.str_at("apiVersion")), (200, "metrics.k8s.io/v1"));
    assert_eq!(client.get(&format!("{PODS}/gone"), &[]).await.0, 404);
    let (_, nodes) = client.get("/apis/metrics.k8s.io/v1beta1/nodes", &[]).await;
    let node = &nodes.list_at("items")[0];
    assert_eq!((node.str_at("metadata.name"), node.str_at("usage.cpu")), ("n1", "250m"));
    assert_eq!(client.post(PODS, "{}").await.0, 405);

    let (_, group) = client.get("/apis/metrics.k8s.io", &[]).await;
    assert_eq!(group.str_at("preferredVersion.version"), "v1");
}

#[tokio::test]
async fn metrics_k8s_io_is_read_by_path_as_the_autoscaler_does() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
    assert_eq!(client.post(ACCOUNTS, r#"{"metadata":{"name":"default"}}"#).await.0, 201);
    let pod = r#"{"metadata":{"name":"a","labels":{"tier":"front"}},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
    assert_eq!(client.post("/api/v1/namespaces/default/pods", pod).await.0, 201);
    let api = fixture.server.api_as(User::service_account("kube-system", "horizontal-pod-autoscaler"));
    let read = api.read(&format!("{PODS}?labelSelector=tier%3Dfront")).await.unwrap();
    assert_eq!(read.list_at("items").len(), 1);
    assert!(api.read(&format!("{PODS}?labelSelector=tier%3Dback")).await.unwrap().list_at("items").is_empty());
    let missing = api.read("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/qps").await.unwrap_err();
    assert_eq!((missing.code, missing.name.as_str()), (404, ""));
    let nobody = fixture.server.api_as(User::new("alice", &["system:authenticated"]));
    assert_eq!(nobody.read(PODS).await.unwrap_err().code, 403);
}

/// From what a node measured to the size of a Deployment, with the controller as its own user.
#[tokio::test]
async fn metrics_scale_a_deployment_through_its_autoscaler() {
    let fixture = Arc::new(Fixture::start().await);
    let mut client = Client::connect(&fixture, true).await;
    assert_eq!(client.post(ACCOUNTS, r#"{"metadata":{"name":"default"}}"#).await.0, 201);
    let template = r#"{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"100m"}}}]}}"#;
    let spec = format!(r#""replicas":1,"selector":{{"matchLabels":{{"app":"web"}}}},"template":{template}"#);
    let deployment = format!(r#"{{"metadata":{{"name":"web"}},"spec":{{{spec}}}}}"#);
    assert_eq!(client.post("/apis/apps/v1/namespaces/default/deployments", &deployment).await.0, 201);
    let pod = r#"{"metadata":{"name":"a","labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"100m"}}}]}}"#;
    assert_eq!(client.post("/api/v1/namespaces/default/pods", pod).await.0, 201);
    let running = r#"{"status":{"phase":"Running","startTime":"2020-01-01T00:00:00Z","conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2020-01-01T00:00:00Z"}]}}"#;
    let merge = [("content-type", "application/merge-patch+json")];
    let path = "/api/v1/namespaces/default/pods/a/status";
    assert_eq!(client.send(Method::PATCH, path, &merge, running.as_bytes()).await.status(), 200);
    let scaler = r#"{"apiVersion":"autoscaling/v2","metadata":{"name":"web"},"spec":{"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"web"},"maxReplicas":10,
        "metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":50}}}]}}"#;
    let scalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    assert_eq!(client.post(scalers, scaler).await.0, 201);

    let mut cursor = fixture.cache.cursor(Scope::Everything, fixture.cache.revision()).unwrap();
    let server = fixture.clone();
    let manager = Manager {
        cache: fixture.cache.clone(),
        api: Arc::new(move |user: &str| {
            let account = user.rsplit(':').next().unwrap();
            server.server.api_as(User::service_account("kube-system", account))
        }),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
    };
    manager.start_controller(&fixture.tasks, Box::new(Autoscaler));
    let key = |kind| ObjectKey::new(kind, "default", "web");
    let read = |kind| fixture.cache.get(&key(kind)).unwrap().to_tree();
    // Usage is five times the target; without a behavior a single replica becomes four at most.
    while read(id::HORIZONTAL_POD_AUTOSCALER).i64_at("status.desiredReplicas") != Some(4) {
        tokio::time::timeout(std::time::Duration::from_secs(20), cursor.next_batch(64)).await.unwrap().unwrap();
    }
    assert_eq!(read(id::DEPLOYMENT).i64_at("spec.replicas"), Some(4));
    let status = read(id::HORIZONTAL_POD_AUTOSCALER).path("status").cloned().unwrap();
    let current = &status.list_at("currentMetrics")[0];
    assert_eq!(current.i64_at("resource.current.averageUtilization"), Some(250));
    let limited = status.list_at("conditions").iter().find(|c| c.str_at("type") == "ScalingLimited").unwrap();
    assert_eq!(limited.str_at("reason"), "ScaleUpLimit");
}
