//! The built-in `metrics.k8s.io`: what nodes and pods use.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::{Client, Fixture};
use corten_auth::User;

const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

#[tokio::test]
async fn metrics_k8s_io_shows_what_nodes_measured() {
    let fixture = Fixture::start().await;
    let mut client = Client::connect(&fixture, true).await;
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
