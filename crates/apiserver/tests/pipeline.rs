//! The pipeline in process: every verb, through the same `Api` that components use.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::Fixture;
use corten_auth::User;
use corten_client::{
    Api, DeleteOptions, ListOptions, PatchKind, Propagation, Target, WatchEventKind, Write, WriteOptions, Written,
};
use corten_kinds::id;
use corten_object::{KindId, ObjectKey, Status, conditions};
use corten_tree::{Tree, tree};
use futures::StreamExt;

async fn create(api: &dyn Api, kind: KindId, body: Tree) -> Result<Written, Status> {
    let namespace = body.str_at("metadata.namespace").to_owned();
    let target = Target::object(ObjectKey::new(kind, &namespace, body.str_at("metadata.name")));
    api.write(Write::Create { target, body }, WriteOptions::default()).await.map_err(|f| f.status)
}

async fn update(api: &dyn Api, key: &ObjectKey, body: Tree) -> Result<Written, Status> {
    let target = Target::object(key.clone());
    api.write(Write::Update { target, body }, WriteOptions::default()).await.map_err(|f| f.status)
}

async fn patch(api: &dyn Api, key: &ObjectKey, kind: PatchKind, body: Tree) -> Result<Written, Status> {
    let (target, options) = (Target::object(key.clone()), WriteOptions::default());
    api.write(Write::Patch { target, patch: kind, body }, options).await.map_err(|f| f.status)
}

async fn delete(api: &dyn Api, key: &ObjectKey, options: DeleteOptions) -> Result<Written, Status> {
    let write = Write::Delete { key: key.clone(), options };
    api.write(write, WriteOptions::default()).await.map_err(|f| f.status)
}

fn config_map(name: &str) -> Tree {
    tree!({"metadata": {"name": name, "namespace": "default"}, "data": {"a": "1"}})
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(id::CONFIG_MAP, "default", name)
}

#[tokio::test]
async fn an_object_is_made_changed_and_deleted() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let made = create(api, id::CONFIG_MAP, config_map("c")).await.unwrap().object.unwrap();
    assert!(!made.head.uid.is_empty() && made.head.created.is_some());
    let again = create(api, id::CONFIG_MAP, config_map("c")).await.unwrap_err();
    assert_eq!(again.message, "configmaps \"c\" already exists");
    let mut tree = made.to_tree();
    tree.set("data.b", "2");
    let changed = update(api, &key("c"), tree.clone()).await.unwrap().object.unwrap();
    assert!(changed.head.revision > made.head.revision);
    let stale = update(api, &key("c"), tree).await.unwrap_err();
    assert!(stale.is_conflict() && stale.message.contains("the object has been modified"), "{stale}");
    let unconditional = tree!({"metadata": {"name": "c", "namespace": "default"}, "data": {"a": "1", "b": "3"}});
    let changed = update(api, &key("c"), unconditional).await.unwrap().object.unwrap_or(changed);
    assert_eq!(changed.to_tree().str_at("data.b"), "3");
    let same = update(api, &key("c"), changed.to_tree()).await.unwrap().object.unwrap();
    assert_eq!(same.head.revision, changed.head.revision, "a write that changes nothing takes no revision");
    delete(api, &key("c"), DeleteOptions::default()).await.unwrap();
    assert!(api.get(&key("c")).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn patches_of_all_kinds() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    create(api, id::CONFIG_MAP, config_map("c")).await.unwrap();
    patch(api, &key("c"), PatchKind::Merge, tree!({"data": {"b": "2"}})).await.unwrap();
    patch(api, &key("c"), PatchKind::Json, tree!([{"op": "remove", "path": "/data/a"}])).await.unwrap();
    let done = patch(api, &key("c"), PatchKind::Strategic, tree!({"metadata": {"labels": {"x": "y"}}})).await.unwrap();
    let tree = done.object.unwrap().to_tree();
    assert_eq!(tree.path("data").unwrap().to_string(), r#"{"b":"2"}"#);
    assert_eq!(tree.str_at("metadata.labels.x"), "y");
    let options = WriteOptions { field_manager: "me".into(), ..WriteOptions::default() };
    for value in ["1", "2"] {
        let body =
            tree!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"k": value}});
        let target = Target::object(key("applied"));
        let write = Write::Patch { target, patch: PatchKind::Apply, body };
        let applied = api.write(write, options.clone()).await.unwrap().object.unwrap().to_tree();
        assert_eq!(applied.str_at("data.k"), value);
    }
}

#[tokio::test]
async fn faults_are_reported_with_their_paths() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let mut bad = config_map("c");
    bad.set("metadata.labels", tree!({"-x": "y"}));
    let status = create(api, id::CONFIG_MAP, bad).await.unwrap_err();
    assert_eq!((status.code, status.causes[0].field.as_str()), (422, "metadata.labels"));
    let missing = tree!({"metadata": {"name": "c", "namespace": "nowhere"}});
    let status = create(api, id::CONFIG_MAP, missing).await.unwrap_err();
    assert_eq!(status.message, "namespaces \"nowhere\" not found");
    let strict = WriteOptions { field_validation: "Strict".into(), ..WriteOptions::default() };
    let mut unknown = config_map("c");
    unknown.set("nonsense", 1);
    let write = Write::Create { target: Target::object(key("c")), body: unknown };
    let status = api.write(write, strict).await.unwrap_err().status;
    assert_eq!(
        status.message,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"nonsense\""
    );
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let mut body = config_map("c");
    body.set("metadata.finalizers", tree!(["example.com/hold"]));
    create(api, id::CONFIG_MAP, body).await.unwrap();
    let marked = delete(api, &key("c"), DeleteOptions::default()).await.unwrap().object.unwrap();
    assert!(marked.head.is_deleting());
    let more = tree!({"metadata": {"finalizers": ["example.com/hold", "a.b/c"]}});
    let added = patch(api, &key("c"), PatchKind::Merge, more).await;
    assert!(added.unwrap_err().message.contains("no new finalizers can be added"));
    patch(api, &key("c"), PatchKind::Merge, tree!({"metadata": {"finalizers": null}})).await.unwrap();
    assert!(api.get(&key("c")).await.unwrap_err().is_not_found());
    create(api, id::CONFIG_MAP, config_map("d")).await.unwrap();
    let foreground = DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
    let marked = delete(api, &key("d"), foreground).await.unwrap().object.unwrap();
    assert_eq!(marked.head.finalizers[0].as_str(), "foregroundDeletion");
}

#[tokio::test]
async fn preconditions_dry_run_and_generated_names() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let write = Write::Create { target: Target::object(key("c")), body: config_map("c") };
    let shown = api.write(write, dry).await.unwrap().object.unwrap();
    assert_eq!(shown.to_tree().path("metadata.resourceVersion"), None);
    assert!(api.get(&key("c")).await.is_err());
    let generated = tree!({"metadata": {"generateName": "x-", "namespace": "default"}});
    let made = create(api, id::CONFIG_MAP, generated).await.unwrap().object.unwrap();
    assert!(made.head.name.starts_with("x-") && made.head.name.len() == 7);
    let wrong = DeleteOptions { uid: Some("other".into()), ..DeleteOptions::default() };
    let status = delete(api, &made.key(), wrong).await.unwrap_err();
    assert!(status.message.contains("the UID in the precondition (other) does not match"), "{status}");
    let owners = vec![(made.key(), "other".to_owned())];
    let options = WriteOptions { owners_alive: owners, ..WriteOptions::default() };
    let write = Write::Create { target: Target::object(key("owned")), body: config_map("owned") };
    assert!(api.write(write, options).await.unwrap_err().status.is_conflict());
}

#[tokio::test]
async fn pods_get_what_the_cluster_gives_and_go_gracefully() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let pod = tree!({"metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let status = create(api, id::POD, pod.clone()).await.unwrap_err();
    assert!(status.message.contains("error looking up service account default/default"), "{status}");
    let account = tree!({"metadata": {"name": "default", "namespace": "default"}});
    create(api, id::SERVICE_ACCOUNT, account).await.unwrap();
    let made = create(api, id::POD, pod).await.unwrap().object.unwrap();
    let tree = made.to_tree();
    assert_eq!(tree.str_at("spec.serviceAccountName"), "default");
    assert!(tree.list_at("spec.volumes")[0].str_at("name").starts_with("kube-api-access-"));
    assert_eq!(tree.list_at("spec.tolerations").len(), 2);
    assert_eq!(tree.i64_at("spec.priority"), Some(0));
    let binding = tree!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let target = Target { key: made.key(), subresource: "binding" };
    let scheduler = fixture.server.api_as(User::scheduler());
    let write = Write::Create { target, body: binding };
    scheduler.write(write.clone(), WriteOptions::default()).await.unwrap();
    let twice = scheduler.write(write, WriteOptions::default()).await.unwrap_err().status;
    assert!(twice.message.contains("is already assigned to node \"n1\""), "{twice}");
    let going = delete(api, &made.key(), DeleteOptions::default()).await.unwrap().object.unwrap();
    assert_eq!(going.head.deletion_grace_seconds, Some(30));
    let now = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
    delete(&*fixture.server.api_as(User::node("n1")), &made.key(), now).await.unwrap();
    assert!(api.get(&made.key()).await.is_err());
}

#[tokio::test]
async fn a_watch_sees_what_its_selector_selects() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let listed = api.list(id::CONFIG_MAP, ListOptions::default()).await.unwrap();
    let options = ListOptions {
        namespace: "default".into(),
        labels: Some(corten_object::LabelSelector::parse("x=y").unwrap()),
        ..ListOptions::default()
    };
    let mut watch = api.watch(id::CONFIG_MAP, options, listed.revision).await.unwrap();
    create(api, id::CONFIG_MAP, config_map("c")).await.unwrap();
    patch(api, &key("c"), PatchKind::Merge, tree!({"metadata": {"labels": {"x": "y"}}})).await.unwrap();
    patch(api, &key("c"), PatchKind::Merge, tree!({"data": {"z": "z"}})).await.unwrap();
    patch(api, &key("c"), PatchKind::Merge, tree!({"metadata": {"labels": {"x": "n"}}})).await.unwrap();
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(watch.next().await.unwrap().unwrap().kind);
    }
    assert_eq!(kinds, [WatchEventKind::Added, WatchEventKind::Modified, WatchEventKind::Deleted]);
}

#[tokio::test]
async fn who_may_not_is_told_so_and_roles_take_effect_at_once() {
    let fixture = Fixture::start().await;
    let (admin, alice) = (fixture.admin(), fixture.server.api_as(User::new("alice", &[])));
    let status = alice.list(id::POD, ListOptions { namespace: "default".into(), ..ListOptions::default() }).await;
    assert_eq!(
        status.unwrap_err().message,
        "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let binding = tree!({"metadata": {"name": "alice", "namespace": "default"},
        "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}});
    create(&*admin, id::ROLE_BINDING, binding).await.unwrap();
    let options = ListOptions { namespace: "default".into(), ..ListOptions::default() };
    alice.list(id::POD, options).await.unwrap();
    let review = tree!({"spec": {"resourceAttributes": {"namespace": "default", "verb": "list", "resource": "pods"}}});
    let target = Target::object(ObjectKey::new(id::SELF_SUBJECT_ACCESS_REVIEW, "", ""));
    let answer = alice.write(Write::Create { target, body: review }, WriteOptions::default()).await.unwrap();
    assert!(answer.answer.unwrap().bool_at("status.allowed"));
}

#[tokio::test]
async fn status_and_spec_are_written_apart_and_scale_changes_replicas() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let body = tree!({"metadata": {"name": "d", "namespace": "default"}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}, "status": {"replicas": 9}});
    let made = create(api, id::DEPLOYMENT, body).await.unwrap().object.unwrap();
    assert_eq!((made.head.generation, made.to_tree().i64_at("status.replicas")), (1, None));
    let key = made.key();
    let status = Write::Patch {
        target: Target::status(key.clone()),
        patch: PatchKind::Merge,
        body: tree!({"spec": {"replicas": 7}, "status": {"replicas": 1}}),
    };
    let written = api.write(status, WriteOptions::default()).await.unwrap().object.unwrap();
    let tree = written.to_tree();
    assert_eq!((tree.i64_at("spec.replicas"), tree.i64_at("status.replicas")), (Some(1), Some(1)));
    assert_eq!(written.head.generation, 1);
    let target = Target { key: key.clone(), subresource: "scale" };
    let scale = Write::Patch { target, patch: PatchKind::Merge, body: tree!({"spec": {"replicas": 4}}) };
    let answer = api.write(scale, WriteOptions::default()).await.unwrap().answer.unwrap();
    assert_eq!((answer.i64_at("spec.replicas"), answer.str_at("status.selector")), (Some(4), "a=b"));
    let scaled = api.get(&key).await.unwrap();
    assert_eq!((scaled.head.generation, scaled.to_tree().i64_at("spec.replicas")), (2, Some(4)));
}

#[tokio::test]
async fn who_gives_rights_must_have_them() {
    let fixture = Fixture::start().await;
    let (admin, alice) = (fixture.admin(), fixture.server.api_as(User::new("alice", &[])));
    let binding = |name: &str, role: &str| {
        tree!({"metadata": {"name": name, "namespace": "default"},
            "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"kind": "ClusterRole", "name": role, "apiGroup": "rbac.authorization.k8s.io"}})
    };
    create(&*admin, id::ROLE_BINDING, binding("a", "admin")).await.unwrap();
    create(&*alice, id::ROLE_BINDING, binding("b", "view")).await.unwrap();
    let status = create(&*alice, id::ROLE_BINDING, binding("c", "cluster-admin")).await.unwrap_err();
    assert!(status.message.contains("is attempting to grant RBAC permissions not currently held"), "{status}");
    let role = |resource: &str| {
        tree!({"metadata": {"name": resource, "namespace": "default"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]})
    };
    create(&*alice, id::ROLE, role("pods")).await.unwrap();
    let status = create(&*alice, id::ROLE, role("nodes")).await.unwrap_err();
    assert!(status.message.contains("{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}"), "{status}");
}

#[tokio::test]
async fn a_token_secret_is_full_and_dies_with_its_account() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let account = tree!({"metadata": {"name": "robot", "namespace": "default"}});
    create(api, id::SERVICE_ACCOUNT, account).await.unwrap();
    let secret = tree!({"metadata": {"name": "t", "namespace": "default",
        "annotations": {"kubernetes.io/service-account.name": "robot"}}, "type": "kubernetes.io/service-account-token"});
    let made = create(api, id::SECRET, secret).await.unwrap().object.unwrap().to_tree();
    assert!(made.str_at("data.token").len() > 100);
    let request = tree!({"spec": {"expirationSeconds": 600}});
    let target = Target { key: ObjectKey::new(id::SERVICE_ACCOUNT, "default", "robot"), subresource: "token" };
    let write = Write::Create { target, body: request };
    let answer = api.write(write, WriteOptions::default()).await.unwrap().answer.unwrap();
    let token = answer.str_at("status.token").to_owned();
    let review = |token: &str| Write::Create {
        target: Target::object(ObjectKey::new(id::TOKEN_REVIEW, "", "")),
        body: tree!({"spec": {"token": token}}),
    };
    let reviewed = api.write(review(&token), WriteOptions::default()).await.unwrap().answer.unwrap();
    assert_eq!(reviewed.str_at("status.user.username"), "system:serviceaccount:default:robot");
    let robot = ObjectKey::new(id::SERVICE_ACCOUNT, "default", "robot");
    delete(api, &robot, DeleteOptions::default()).await.unwrap();
    let reviewed = api.write(review(&token), WriteOptions::default()).await.unwrap().answer.unwrap();
    assert!(!reviewed.bool_at("status.authenticated"));
}

#[tokio::test]
async fn an_eviction_takes_from_the_budget() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    create(api, id::SERVICE_ACCOUNT, tree!({"metadata": {"name": "default", "namespace": "default"}})).await.unwrap();
    let budget = tree!({"metadata": {"name": "b", "namespace": "default"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    let budget = create(api, id::POD_DISRUPTION_BUDGET, budget).await.unwrap().object.unwrap().key();
    let status = tree!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 2, "expectedPods": 2}});
    let write = Write::Patch { target: Target::status(budget), patch: PatchKind::Merge, body: status };
    api.write(write, WriteOptions::default()).await.unwrap();
    let (mut answers, mut pods) = (Vec::new(), Vec::new());
    for (name, ready) in [("p", "True"), ("q", "True"), ("unhealthy", "False")] {
        let pod = tree!({"metadata": {"name": name, "namespace": "default", "labels": {"a": "b"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
        let key = create(api, id::POD, pod).await.unwrap().object.unwrap().key();
        let running = tree!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
        let write = Write::Patch { target: Target::status(key.clone()), patch: PatchKind::Merge, body: running };
        api.write(write, WriteOptions::default()).await.unwrap();
        pods.push(key.clone());
        let body = tree!({"metadata": {"name": name}});
        let write = Write::Create { target: Target { key, subresource: "eviction" }, body };
        answers.push(api.write(write, WriteOptions::default()).await.map_or_else(|f| f.status.code, |_| 201));
    }
    // The third is not healthy and its application is: it goes, and takes nothing.
    assert_eq!(answers, [201, 429, 201]);
    let evicted = |key: &ObjectKey| {
        let tree = fixture.cache.get(key).unwrap().to_tree();
        let condition = conditions::find(tree.get("status").unwrap(), "DisruptionTarget").map(|c| c.str_at("reason"));
        (tree.path("metadata.deletionTimestamp").is_some(), condition.unwrap_or_default().to_owned())
    };
    let marked = (true, "EvictionByEvictionAPI".to_owned());
    assert_eq!(
        [evicted(&pods[0]), evicted(&pods[1]), evicted(&pods[2])],
        [marked.clone(), (false, String::new()), marked]
    );
}

#[tokio::test]
async fn unhealthy_pod_eviction_policy_decides_about_pods_that_are_not_ready() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    create(api, id::SERVICE_ACCOUNT, tree!({"metadata": {"name": "default", "namespace": "default"}})).await.unwrap();
    // The application is below what it wants: of pods that run and are not ready, only `AlwaysAllow` lets one go.
    for (name, policy, code) in [
        ("unset", Tree::Null, 429),
        ("budget", Tree::from("IfHealthyBudget"), 429),
        ("always", Tree::from("AlwaysAllow"), 201),
    ] {
        let mut budget = tree!({"metadata": {"name": name, "namespace": "default"},
            "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": name}}}});
        if !policy.is_null() {
            budget.set("spec.unhealthyPodEvictionPolicy", policy);
        }
        let budget = create(api, id::POD_DISRUPTION_BUDGET, budget).await.unwrap().object.unwrap().key();
        let status = tree!({"status": {"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 2, "expectedPods": 2}});
        let write = Write::Patch { target: Target::status(budget), patch: PatchKind::Merge, body: status };
        api.write(write, WriteOptions::default()).await.unwrap();
        let pod = tree!({"metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
        let key = create(api, id::POD, pod).await.unwrap().object.unwrap().key();
        let running = tree!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}});
        let write = Write::Patch { target: Target::status(key.clone()), patch: PatchKind::Merge, body: running };
        api.write(write, WriteOptions::default()).await.unwrap();
        let write = Write::Create {
            target: Target { key, subresource: "eviction" },
            body: tree!({"metadata": {"name": name}}),
        };
        let answer = api.write(write, WriteOptions::default()).await.map_or_else(|f| f.status.code, |_| 201);
        assert_eq!(answer, code, "{name}");
    }
}

#[tokio::test]
async fn every_controller_has_a_role() {
    let fixture = Fixture::start().await;
    let world = fixture.cache.read();
    let bound: Vec<String> = world
        .list(id::CLUSTER_ROLE_BINDING)
        .flat_map(|binding| {
            let binding = binding.to_tree();
            let subject = |s: &Tree| match s.str_at("kind") {
                "ServiceAccount" => format!("system:serviceaccount:{}:{}", s.str_at("namespace"), s.str_at("name")),
                _ => s.str_at("name").to_owned(),
            };
            binding.list_at("subjects").iter().map(subject).collect::<Vec<_>>()
        })
        .collect();
    let config = corten_controllers::Config::default();
    let users = corten_controllers::all(&config).into_iter().map(|c| c.user());
    // The API server's own user may do everything (group system:masters).
    let without: Vec<String> = users.filter(|user| user != "system:apiserver" && !bound.contains(user)).collect();
    assert!(without.is_empty(), "nothing is allowed to {without:?}");
}
