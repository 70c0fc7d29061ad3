//! Quotas, limit ranges and PodSecurity, through the pipeline.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::sync::Arc;

use common::Fixture;
use corten_client::{Api, PatchKind, Target, Write, WriteOptions, Written};
use corten_kinds::id;
use corten_object::{KindId, ObjectKey, Status};
use corten_tree::{Tree, tree};

async fn write(api: &dyn Api, write: Write) -> Result<Written, Status> {
    api.write(write, WriteOptions::default()).await.map_err(|f| f.status)
}

async fn create(api: &dyn Api, kind: KindId, body: Tree) -> Result<Written, Status> {
    let key = ObjectKey::new(kind, body.str_at("metadata.namespace"), body.str_at("metadata.name"));
    write(api, Write::Create { target: Target::object(key), body }).await
}

async fn patch(api: &dyn Api, target: Target, body: Tree) -> Result<Written, Status> {
    write(api, Write::Patch { target, patch: PatchKind::Merge, body }).await
}

/// A quota whose usage is known, as after its controller's first look.
async fn quota(api: &dyn Api, name: &str, hard: Tree, used: Tree) -> ObjectKey {
    let body = tree!({"metadata": {"name": name, "namespace": "default"}, "spec": {"hard": (hard.clone())}});
    create(api, id::RESOURCE_QUOTA, body).await.unwrap();
    let key = ObjectKey::new(id::RESOURCE_QUOTA, "default", name);
    let status = tree!({"status": {"hard": (hard), "used": (used)}});
    patch(api, Target::status(key.clone()), status).await.unwrap();
    key
}

async fn used(api: &dyn Api, key: &ObjectKey) -> String {
    api.get(key).await.unwrap().to_tree().path("status.used").unwrap().to_string()
}

fn config_map(name: &str) -> Tree {
    tree!({"metadata": {"name": name, "namespace": "default"}})
}

async fn pod_account(api: &dyn Api) {
    let account = tree!({"metadata": {"name": "default", "namespace": "default"}});
    create(api, id::SERVICE_ACCOUNT, account).await.unwrap();
}

fn pod(name: &str, resources: Tree) -> Tree {
    tree!({"metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "x", "resources": (resources)}]}})
}

#[tokio::test]
async fn quota_is_booked_with_the_object_and_refuses_what_is_too_much() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let hard = tree!({"configmaps": "2", "count/configmaps": "10"});
    let key = quota(api, "q", hard, tree!({"configmaps": "0", "count/configmaps": "0"})).await;
    create(api, id::CONFIG_MAP, config_map("a")).await.unwrap();
    create(api, id::CONFIG_MAP, config_map("b")).await.unwrap();
    let status = create(api, id::CONFIG_MAP, config_map("c")).await.unwrap_err();
    assert_eq!(
        status.message,
        "configmaps \"c\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2"
    );
    let again = create(api, id::CONFIG_MAP, config_map("a")).await.unwrap_err();
    assert!(again.message.contains("exceeded quota"), "{again}");
    assert_eq!(used(api, &key).await, r#"{"configmaps":"2","count/configmaps":"2"}"#);
    let target = Target::object(ObjectKey::new(id::CONFIG_MAP, "default", "d"));
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let refused = api.write(Write::Create { target, body: config_map("d") }, dry).await;
    assert!(refused.unwrap_err().status.message.contains("exceeded quota"));
}

#[tokio::test]
async fn quota_is_never_exceeded_by_concurrent_creates() {
    let fixture = Fixture::start().await;
    let api = fixture.admin();
    let key = quota(&*api, "q", tree!({"configmaps": "7"}), tree!({"configmaps": "0"})).await;
    let creates = (0..20).map(|i| {
        let api: Arc<dyn Api> = api.clone();
        async move { create(&*api, id::CONFIG_MAP, config_map(&format!("c{i}"))).await }
    });
    let results = futures::future::join_all(creates).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 7);
    for refused in results.into_iter().filter_map(Result::err) {
        assert!(refused.message.contains("exceeded quota: q"), "{refused}");
    }
    assert_eq!(used(&*api, &key).await, r#"{"configmaps":"7"}"#);
}

#[tokio::test]
async fn quota_of_cpu_wants_requests_and_counts_changes_of_services() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    pod_account(api).await;
    let key = quota(api, "q", tree!({"requests.cpu": "1"}), tree!({"requests.cpu": "0"})).await;
    let status = create(api, id::POD, pod("p", tree!({}))).await.unwrap_err();
    assert_eq!(status.message, "pods \"p\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    create(api, id::POD, pod("p", tree!({"requests": {"cpu": "600m"}}))).await.unwrap();
    let status = create(api, id::POD, pod("r", tree!({"requests": {"cpu": "600m"}}))).await.unwrap_err();
    let expected = "pods \"r\" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: \
                    requests.cpu=1";
    assert_eq!(status.message, expected);
    assert_eq!(used(api, &key).await, r#"{"requests.cpu":"600m"}"#);
    let hard = tree!({"services.nodeports": "1"});
    let key = quota(api, "s", hard, tree!({"services.nodeports": "0"})).await;
    let service = tree!({"metadata": {"name": "s", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}});
    create(api, id::SERVICE, service).await.unwrap();
    assert_eq!(used(api, &key).await, r#"{"services.nodeports":"0"}"#);
    let target = Target::object(ObjectKey::new(id::SERVICE, "default", "s"));
    patch(api, target, tree!({"spec": {"type": "NodePort"}})).await.unwrap();
    assert_eq!(used(api, &key).await, r#"{"services.nodeports":"1"}"#);
    let unknown = tree!({"metadata": {"name": "u", "namespace": "default"}, "spec": {"hard": {"secrets": "1"}}});
    create(api, id::RESOURCE_QUOTA, unknown).await.unwrap();
    create(api, id::SECRET, config_map("x")).await.unwrap();
    let target = Target::status(ObjectKey::new(id::RESOURCE_QUOTA, "default", "u"));
    patch(api, target, tree!({"status": {"hard": {"secrets": "1"}}})).await.unwrap();
    let status = create(api, id::SECRET, config_map("y")).await.unwrap_err();
    assert_eq!(status.message, "secrets \"y\" is forbidden: status unknown for quota: u, resources: secrets");
}

#[tokio::test]
async fn limit_range_fills_in_and_refuses() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    pod_account(api).await;
    let range = tree!({"metadata": {"name": "l", "namespace": "default"}, "spec": {"limits": [{"type": "Container",
        "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}]}});
    create(api, id::LIMIT_RANGE, range).await.unwrap();
    let made = create(api, id::POD, pod("p", tree!({}))).await.unwrap().object.unwrap().to_tree();
    let resources = made.list_at("spec.containers")[0].path("resources").unwrap().to_string();
    assert_eq!(resources, r#"{"limits":{"cpu":"500m"},"requests":{"cpu":"100m"}}"#);
    assert_eq!(
        made.at(&["metadata", "annotations", "kubernetes.io/limit-ranger"]).and_then(Tree::as_str),
        Some("LimitRanger plugin set: cpu request for container c; cpu limit for container c")
    );
    let status = create(api, id::POD, pod("q", tree!({"limits": {"cpu": "2"}}))).await.unwrap_err();
    let expected = "pods \"q\" is forbidden: [maximum cpu usage per Container is 1, but limit is 2]";
    assert_eq!(status.message.replace(['[', ']'], ""), expected.replace(['[', ']'], ""));
}

#[tokio::test]
async fn pod_security_refuses_pods_and_warns_of_templates_and_existing_pods() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    pod_account(api).await;
    let mut bad = pod("bad", tree!({}));
    bad.set("spec.hostPID", true);
    let before = tree!({"metadata": {"name": "before", "namespace": "default"},
        "spec": {"hostPID": true, "containers": [{"name": "c", "image": "x"}]}});
    create(api, id::POD, before).await.unwrap();
    let namespace = ObjectKey::new(id::NAMESPACE, "", "default");
    let mut labels = Tree::map();
    labels.insert("pod-security.kubernetes.io/enforce", "baseline");
    let labels = tree!({"metadata": {"labels": (labels)}});
    patch(api, Target::object(namespace.clone()), labels).await.unwrap();
    let status = create(api, id::POD, bad).await.unwrap_err();
    assert_eq!(
        status.message,
        "pods \"bad\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"
    );
    let mut wrong = Tree::map();
    wrong.insert("pod-security.kubernetes.io/enforce", "strict");
    let wrong = tree!({"metadata": {"labels": (wrong)}});
    let status = patch(api, Target::object(namespace), wrong).await.unwrap_err();
    assert!(status.message.ends_with("must be one of privileged, baseline, restricted"), "{status}");
}
