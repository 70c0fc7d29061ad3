//! Parts of pods that have a verb of their own.

use corten_tree::{Tree, tree};
use hyper::Method;

use crate::common::Fixture;
use crate::common::caller::Caller;

const PODS: &str = "/api/v1/namespaces/default/pods";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A server with a pod `p` of one container `c` on a node.
async fn with_pod() -> (Fixture, Caller) {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(admin.post(accounts, &tree!({"metadata": {"name": "default"}})).await.0, 201);
    assert_eq!(admin.post("/api/v1/nodes", &tree!({"metadata": {"name": "n1"}})).await.0, 201);
    let room = tree!({"status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "9"}}});
    assert_eq!(admin.merge("/api/v1/nodes/n1/status", &room).await.0, 200);
    let pod = tree!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}, "limits": {"cpu": "200m", "memory": "2Mi"}}}]}});
    let (code, made) = admin.post(PODS, &pod).await;
    assert_eq!(code, 201, "{made}");
    (fixture, admin)
}

async fn strategic(admin: &mut Caller, path: &str, body: Tree) -> (u16, Tree) {
    let (code, _, answer) = admin.send(Method::PATCH, path, STRATEGIC, &body.to_string()).await;
    (code, answer)
}

#[tokio::test]
async fn ephemeralcontainers_are_only_ever_added() {
    let (_fixture, mut admin) = with_pod().await;
    let add = |name: &str, image: &str| tree!({"spec": {"ephemeralContainers": [{"name": name, "image": image, "targetContainerName": "c"}]}});
    let (code, status) = strategic(&mut admin, &format!("{PODS}/p"), add("debug", "x")).await;
    assert_eq!(code, 422, "not through the pod itself: {status}");
    let path = format!("{PODS}/p/ephemeralcontainers");
    let (code, pod) = strategic(&mut admin, &path, add("debug", "x")).await;
    assert_eq!((code, pod.str_at("kind"), pod.i64_at("metadata.generation")), (200, "Pod", Some(2)), "{pod}");
    let made = &pod.list_at("spec.ephemeralContainers")[0];
    assert_eq!(
        (made.str_at("targetContainerName"), made.str_at("terminationMessagePath")),
        ("c", "/dev/termination-log")
    );
    let (code, pod) = strategic(&mut admin, &path, add("more", "y")).await;
    assert_eq!((code, pod.list_at("spec.ephemeralContainers").len()), (200, 2));
    let (code, status) = strategic(&mut admin, &path, add("debug", "other")).await;
    assert_eq!(code, 422);
    assert!(
        status.str_at("message").contains("existing ephemeral containers \"debug\" may not be changed"),
        "{status}"
    );
    let mut fewer = pod.clone();
    fewer.set("spec.ephemeralContainers", tree!([]));
    let (code, status) = admin.put(&path, &fewer).await;
    assert_eq!(code, 422);
    assert!(status.str_at("message").contains("may not be removed"), "{status}");
    let wrong = tree!({"spec": {"ephemeralContainers": [{"name": "z", "image": "z", "targetContainerName": "none"}]}});
    let (code, status) = strategic(&mut admin, &path, wrong).await;
    assert_eq!((code, status.str_at("details.causes")), (422, ""), "{status}");
    assert!(status.str_at("message").contains("targetContainerName: Not found: \"none\""), "{status}");
}

#[tokio::test]
async fn resize_changes_resources_and_nothing_else() {
    let (_fixture, mut admin) = with_pod().await;
    let cpu = |value: &str| tree!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": value}}}]}});
    let (code, status) = strategic(&mut admin, &format!("{PODS}/p"), cpu("300m")).await;
    assert_eq!(code, 422, "not through the pod itself: {status}");
    assert!(status.str_at("message").contains("pod updates may not change fields other than"), "{status}");
    let path = format!("{PODS}/p/resize");
    let (code, pod) = strategic(&mut admin, &path, cpu("300m")).await;
    assert_eq!((code, pod.i64_at("metadata.generation")), (200, Some(2)), "{pod}");
    let container = &pod.list_at("spec.containers")[0];
    assert_eq!(
        container.path("resources").unwrap().to_string(),
        r#"{"limits":{"cpu":"300m","memory":"2Mi"},"requests":{"cpu":"100m","memory":"1Mi"}}"#
    );
    let image = tree!({"spec": {"containers": [{"name": "c", "image": "other"}]}});
    let (code, answer) = strategic(&mut admin, &path, image).await;
    assert!(code == 422 || answer.list_at("spec.containers")[0].str_at("image") == "i", "{code} {answer}");
    let none = tree!({"spec": {"containers": [{"name": "c", "resources": {"limits": null, "requests": null}}]}});
    let (code, status) = strategic(&mut admin, &path, none).await;
    assert_eq!(code, 422, "{status}");
    let (code, scale) = admin.get(&path).await;
    assert_eq!((code, scale.str_at("kind")), (200, "Pod"));
}

#[tokio::test]
async fn status_of_pods_is_written_apart_and_generation_is_the_specs() {
    let (_fixture, mut admin) = with_pod().await;
    let both = tree!({"metadata": {"labels": {"a": "b"}}, "spec": {"activeDeadlineSeconds": 5}, "status": {"phase": "Running"}});
    let (code, pod) = admin.merge(&format!("{PODS}/p/status"), &both).await;
    assert_eq!((code, pod.str_at("status.phase"), pod.path("spec.activeDeadlineSeconds")), (200, "Running", None));
    assert_eq!(pod.i64_at("metadata.generation"), Some(1));
    let (_, pod) = admin.merge(&format!("{PODS}/p"), &both).await;
    let spec = pod.i64_at("spec.activeDeadlineSeconds");
    assert_eq!((spec, pod.i64_at("metadata.generation"), pod.str_at("status.phase")), (Some(5), Some(2), "Running"));
}
