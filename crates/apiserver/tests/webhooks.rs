//! Admission webhooks: real HTTPS servers in this process, asked by the pipeline.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;
mod hook;
mod https;

use base64::Engine as _;

use common::Fixture;
use corten_client::{Api, DeleteOptions, Target, Write, WriteOptions, Written};
use corten_kinds::id;
use corten_object::{KindId, ObjectKey, Reason, Status};
use corten_tree::{Tree, tree};
use hook::Hook;

async fn write(api: &dyn Api, write: Write) -> Result<Written, Status> {
    api.write(write, WriteOptions::default()).await.map_err(|f| f.status)
}

async fn create(api: &dyn Api, kind: KindId, body: Tree) -> Result<Written, Status> {
    let key = ObjectKey::new(kind, body.str_at("metadata.namespace"), body.str_at("metadata.name"));
    write(api, Write::Create { target: Target::object(key), body }).await
}

async fn configure(api: &dyn Api, kind: KindId, name: &str, webhooks: Vec<Tree>) {
    create(api, kind, tree!({"metadata": {"name": name}, "webhooks": (webhooks)})).await.unwrap();
}

fn config_map(name: &str) -> Tree {
    tree!({"metadata": {"name": name, "namespace": "default"}, "data": {"a": "1"}})
}

fn patch(operations: Tree) -> Tree {
    let patch = base64::engine::general_purpose::STANDARD.encode(operations.to_json());
    tree!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

fn allowed(_: &Tree) -> Tree {
    tree!({"allowed": true})
}

#[tokio::test]
async fn webhook_validating_denies_with_its_words_and_code() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let hook = Hook::start(&fixture, |request| {
        let denied = request.str_at("object.data.a") == "no" || request.str_at("operation") == "DELETE";
        let mut response = tree!({"allowed": (!denied), "warnings": ["mind the gap"], "auditAnnotations": {"k": "v"}});
        if denied {
            response.insert("status", tree!({"message": "the answer is no", "reason": "Never", "code": 402}));
        }
        response
    })
    .await;
    let webhook = hook.webhook("deny.example.com", tree!(["CREATE", "DELETE"]), "configmaps");
    configure(api, id::VALIDATING_WEBHOOK_CONFIGURATION, "v", vec![webhook]).await;
    let fine = create(api, id::CONFIG_MAP, config_map("fine")).await.unwrap().object.unwrap();
    let asked = hook.asked();
    assert_eq!(asked.len(), 1);
    let question = &asked[0];
    assert_eq!(question.path("kind").unwrap().to_string(), r#"{"group":"","version":"v1","kind":"ConfigMap"}"#);
    assert_eq!(
        question.path("resource").unwrap().to_string(),
        r#"{"group":"","version":"v1","resource":"configmaps"}"#
    );
    assert_eq!(question.str_at("requestKind.kind"), "ConfigMap");
    assert_eq!((question.str_at("name"), question.str_at("namespace")), ("fine", "default"));
    assert_eq!(question.str_at("object.metadata.uid"), fine.head.uid.as_str(), "validation sees what will be stored");
    assert_eq!(question.str_at("options.kind"), "CreateOptions");
    assert_eq!(question.str_at("userInfo.username"), "system:admin");
    assert!(question.path("oldObject").is_none() && !question.bool_at("dryRun"));
    let mut refused = config_map("refused");
    refused.set("data.a", "no");
    let status = create(api, id::CONFIG_MAP, refused).await.unwrap_err();
    assert_eq!(status.message, "admission webhook \"deny.example.com\" denied the request: the answer is no");
    assert_eq!(status.code, 402);
    let key = ObjectKey::new(id::CONFIG_MAP, "default", "fine");
    let status = write(api, Write::Delete { key: key.clone(), options: DeleteOptions::default() }).await.unwrap_err();
    assert!(status.message.contains("denied the request"), "{status}");
    let question = hook.asked().pop().unwrap();
    assert_eq!((question.str_at("operation"), question.str_at("oldObject.data.a")), ("DELETE", "1"));
    assert!(question.path("object").is_none());
    assert!(api.get(&key).await.is_ok());
    // Configurations themselves are nobody's business.
    let webhook = hook.webhook("all.example.com", tree!(["*"]), "*");
    configure(api, id::VALIDATING_WEBHOOK_CONFIGURATION, "w", vec![webhook]).await;
    let key = ObjectKey::new(id::VALIDATING_WEBHOOK_CONFIGURATION, "", "w");
    hook.asked();
    write(api, Write::Delete { key, options: DeleteOptions::default() }).await.unwrap();
    assert!(hook.asked().is_empty());
}

#[tokio::test]
async fn webhook_mutating_patches_and_reinvokes() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    // The first counts how often it was asked; the second changes the object after it.
    let first = Hook::start(&fixture, |request| {
        let path = if request.path("object.data.second").is_some() { "/data/again" } else { "/data/first" };
        patch(tree!([{"op": "add", "path": path, "value": "1"}]))
    })
    .await;
    let second = Hook::start(&fixture, |request| match request.path("object.data.second") {
        Some(_) => allowed(request),
        None => patch(tree!([{"op": "add", "path": "/data/second", "value": "2"}])),
    })
    .await;
    let mut again = first.webhook("first.example.com", tree!(["CREATE"]), "configmaps");
    again.insert("reinvocationPolicy", "IfNeeded");
    let once = second.webhook("second.example.com", tree!(["CREATE"]), "configmaps");
    configure(api, id::MUTATING_WEBHOOK_CONFIGURATION, "m", vec![again, once]).await;
    let made = create(api, id::CONFIG_MAP, config_map("c")).await.unwrap().object.unwrap().to_tree();
    assert_eq!(made.path("data").unwrap().to_string(), r#"{"a":"1","again":"1","first":"1","second":"2"}"#);
    let asked = first.asked();
    assert_eq!((asked.len(), second.asked().len()), (2, 1));
    assert!(asked[0].path("object.metadata.uid").is_none(), "mutation sees what was sent");
}

#[tokio::test]
async fn webhook_mutating_runs_plugins_and_defaults_again() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let hook = Hook::start(&fixture, |request| match request.list_at("object.spec.initContainers") {
        [] => patch(tree!([{"op": "add", "path": "/spec/initContainers", "value": [{"name": "i", "image": "x"}]}])),
        _ => tree!({"allowed": true}),
    })
    .await;
    let webhook = hook.webhook("pods.example.com", tree!(["CREATE"]), "pods");
    configure(api, id::MUTATING_WEBHOOK_CONFIGURATION, "m", vec![webhook]).await;
    let account = tree!({"metadata": {"name": "default", "namespace": "default"}});
    create(api, id::SERVICE_ACCOUNT, account).await.unwrap();
    let pod = tree!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let pod = create(api, id::POD, pod).await.unwrap().object.unwrap().to_tree();
    let added = &pod.list_at("spec.initContainers")[0];
    assert_eq!(added.str_at("terminationMessagePath"), "/dev/termination-log", "the webhook's container has defaults");
    assert_eq!(added.list_at("volumeMounts").len(), 1, "the service account's token was mounted in it, too");
}

#[tokio::test]
async fn webhook_failures_follow_the_policy() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let hook = Hook::start(&fixture, |_| tree!({"never": true})).await;
    let mut slow = hook.webhook("slow.example.com", tree!(["CREATE"]), "configmaps");
    slow.insert("timeoutSeconds", 1);
    let kind = id::VALIDATING_WEBHOOK_CONFIGURATION;
    configure(api, kind, "slow", vec![slow.clone()]).await;
    let status = create(api, id::CONFIG_MAP, config_map("c")).await.unwrap_err();
    let expected = format!(
        "Internal error occurred: failed calling webhook \"slow.example.com\": failed to call webhook: Post \
         \"{}?timeout=1s\": context deadline exceeded",
        hook.url
    );
    assert_eq!((status.message.as_str(), status.reason), (expected.as_str(), Reason::InternalError));
    write(api, Write::Delete { key: ObjectKey::new(kind, "", "slow"), options: DeleteOptions::default() })
        .await
        .unwrap();
    slow.insert("failurePolicy", "Ignore");
    configure(api, kind, "slow", vec![slow]).await;
    create(api, id::CONFIG_MAP, config_map("c")).await.unwrap();
    // A Service that is not there, and a certificate that nobody has signed.
    let mut lost = hook.webhook("lost.example.com", tree!(["CREATE"]), "secrets");
    lost.insert("clientConfig", tree!({"service": {"namespace": "default", "name": "lost", "path": "/x"}}));
    configure(api, kind, "lost", vec![lost]).await;
    let secret = |name: &str| tree!({"metadata": {"name": name, "namespace": "default"}});
    let status = create(api, id::SECRET, secret("s")).await.unwrap_err();
    assert_eq!(
        status.message,
        "Internal error occurred: failed calling webhook \"lost.example.com\": failed to call webhook: Post \
         \"https://lost.default.svc:443/x?timeout=10s\": service \"lost\" not found"
    );
    let other = Hook::start(&fixture, allowed).await;
    let mut untrusted = hook.webhook("u.example.com", tree!(["CREATE"]), "podtemplates");
    untrusted.set("clientConfig.caBundle", other.ca_bundle.as_str());
    configure(api, kind, "untrusted", vec![untrusted]).await;
    let template = tree!({"metadata": {"name": "t", "namespace": "default"}, "template": {"spec": {"containers":
        [{"name": "c", "image": "x"}]}}});
    let status = create(api, id::POD_TEMPLATE, template).await.unwrap_err();
    let expected = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert!(status.message.ends_with(expected), "{status}");
}

#[tokio::test]
async fn webhook_selectors_dry_run_and_equivalent_versions() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let hook = Hook::start(&fixture, allowed).await;
    let mut labelled = hook.webhook("labelled.example.com", tree!(["CREATE"]), "configmaps");
    labelled.insert("objectSelector", tree!({"matchLabels": {"ask": "yes"}}));
    labelled.insert("sideEffects", "NoneOnDryRun");
    let mut elsewhere = hook.webhook("elsewhere.example.com", tree!(["*"]), "configmaps");
    elsewhere.insert("namespaceSelector", tree!({"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}));
    let mut scaler = hook.webhook("v1.example.com", tree!(["CREATE"]), "horizontalpodautoscalers");
    let rule = tree!({"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"],
        "resources": ["horizontalpodautoscalers"]});
    scaler.insert("rules", vec![rule]);
    configure(api, id::VALIDATING_WEBHOOK_CONFIGURATION, "v", vec![labelled, elsewhere, scaler]).await;
    create(api, id::CONFIG_MAP, config_map("plain")).await.unwrap();
    assert!(hook.asked().is_empty());
    let mut asked = config_map("asked");
    asked.set("metadata.labels.ask", "yes");
    let key = ObjectKey::new(id::CONFIG_MAP, "default", "asked");
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let create_asked = Write::Create { target: Target::object(key), body: asked.clone() };
    api.write(create_asked, dry).await.map_err(|f| f.status).unwrap();
    assert!(hook.asked().pop().unwrap().bool_at("dryRun"));
    create(api, id::CONFIG_MAP, asked).await.unwrap();
    assert_eq!(hook.asked().len(), 1);
    let scaler = tree!({"metadata": {"name": "h", "namespace": "default"}, "spec": {"maxReplicas": 3,
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target":
            {"type": "Utilization", "averageUtilization": 50}}}]}});
    create(api, id::HORIZONTAL_POD_AUTOSCALER, scaler).await.unwrap();
    let question = hook.asked().pop().unwrap();
    assert_eq!((question.str_at("kind.version"), question.str_at("requestKind.version")), ("v1", "v2"));
    assert_eq!(question.i64_at("object.spec.targetCPUUtilizationPercentage"), Some(50), "{question}");
}

#[tokio::test]
async fn webhook_sees_subresources() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let hook = Hook::start(&fixture, allowed).await;
    let scale = hook.webhook("scale.example.com", tree!(["UPDATE"]), "deployments/scale");
    let token = hook.webhook("token.example.com", tree!(["CREATE"]), "serviceaccounts/token");
    configure(api, id::VALIDATING_WEBHOOK_CONFIGURATION, "v", vec![scale, token]).await;
    let deployment = tree!({"metadata": {"name": "d", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
    create(api, id::DEPLOYMENT, deployment).await.unwrap();
    let target = Target { key: ObjectKey::new(id::DEPLOYMENT, "default", "d"), subresource: "scale" };
    let body = tree!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d", "namespace": "default"},
        "spec": {"replicas": 3}});
    write(api, Write::Update { target, body }).await.unwrap();
    let asked = hook.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].str_at("kind.kind"), asked[0].str_at("resource.resource")), ("Scale", "deployments"));
    assert_eq!((asked[0].str_at("subResource"), asked[0].i64_at("object.spec.replicas")), ("scale", Some(3)));
    assert_eq!(asked[0].i64_at("oldObject.spec.replicas"), Some(1));
    let account = tree!({"metadata": {"name": "a", "namespace": "default"}});
    create(api, id::SERVICE_ACCOUNT, account).await.unwrap();
    let target = Target { key: ObjectKey::new(id::SERVICE_ACCOUNT, "default", "a"), subresource: "token" };
    write(api, Write::Create { target, body: tree!({"spec": {"audiences": ["x"]}}) }).await.unwrap();
    let asked = hook.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].str_at("kind.kind"), "TokenRequest");
}

#[tokio::test]
async fn webhook_match_conditions_decide_who_is_asked() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let hook = Hook::start(&fixture, |_| tree!({"allowed": false})).await;
    let mut picky = hook.webhook("picky.example.com", tree!(["CREATE"]), "configmaps");
    let conditions = tree!([{"name": "not-me", "expression": "object.metadata.name != 'skip-me'"},
        {"name": "allowed", "expression": "authorizer.requestResource.check('create').allowed()"}]);
    picky.insert("matchConditions", conditions);
    configure(api, id::VALIDATING_WEBHOOK_CONFIGURATION, "v", vec![picky.clone()]).await;
    create(api, id::CONFIG_MAP, config_map("skip-me")).await.unwrap();
    assert!(create(api, id::CONFIG_MAP, config_map("other")).await.is_err());
    assert_eq!(hook.asked().len(), 1);
    let mut wrong = hook.webhook("wrong.example.com", tree!(["CREATE"]), "secrets");
    wrong.insert("matchConditions", tree!([{"name": "e", "expression": "object.nothing == 'x'"}]));
    configure(api, id::VALIDATING_WEBHOOK_CONFIGURATION, "w", vec![wrong]).await;
    let secret = tree!({"metadata": {"name": "s", "namespace": "default"}});
    let status = create(api, id::SECRET, secret).await.unwrap_err();
    assert_eq!(
        status.message,
        "secrets \"s\" is forbidden: expression 'object.nothing == 'x'' resulted in error: no such key: nothing"
    );
    picky.insert("matchConditions", tree!([{"name": "bad", "expression": "... [] bad expression"}]));
    let body = tree!({"metadata": {"name": "x"}, "webhooks": [(picky)]});
    let status = create(api, id::VALIDATING_WEBHOOK_CONFIGURATION, body).await.unwrap_err();
    assert!(status.message.contains("compilation failed"), "{status}");
}

#[tokio::test]
async fn webhook_mutates_custom_resources_at_its_version_and_prunes_them() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let schema = tree!({"openAPIV3Schema": {"type": "object", "properties":
        {"data": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}}}});
    let version = |name: &str, storage: bool| tree!({"name": name, "served": true, "storage": storage, "schema": (schema.clone())});
    let definition = tree!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [(version("v1", true)), (version("v2", false))]}});
    create(api, id::CUSTOM_RESOURCE_DEFINITION, definition).await.unwrap();
    let key = ObjectKey::new(id::CUSTOM_RESOURCE_DEFINITION, "", "things.example.com");
    let accepted = tree!([{"type": "NamesAccepted", "status": "True", "reason": "NoConflicts"},
        {"type": "Established", "status": "True", "reason": "InitialNamesAccepted"}]);
    let names = tree!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"});
    let status = tree!({"status": {"conditions": (accepted), "acceptedNames": (names), "storedVersions": ["v1"]}});
    let target = Target::status(key);
    let made = write(api, Write::Patch { target, patch: corten_client::PatchKind::Merge, body: status }).await;
    made.unwrap();
    let Some(kind) = fixture.cache.registry().group_kind("example.com", "Thing").map(|kind| kind.id) else {
        panic!("the definition makes a kind");
    };
    let hook = Hook::start(&fixture, |_| {
        patch(
            tree!([{"op": "add", "path": "/data/b", "value": "hook"}, {"op": "add", "path": "/data/c", "value": "x"}]),
        )
    })
    .await;
    let mut webhook = hook.webhook("things.example.com", tree!(["CREATE"]), "things");
    let rule =
        tree!({"operations": ["CREATE"], "apiGroups": ["example.com"], "apiVersions": ["v2"], "resources": ["things"]});
    webhook.insert("rules", vec![rule]);
    configure(api, id::MUTATING_WEBHOOK_CONFIGURATION, "m", vec![webhook]).await;
    let thing = tree!({"apiVersion": "example.com/v1", "kind": "Thing",
        "metadata": {"name": "t", "namespace": "default"}, "data": {"a": "1"}});
    let made = create(api, kind, thing).await.unwrap().object.unwrap().to_tree();
    assert_eq!(made.str_at("apiVersion"), "example.com/v1");
    assert_eq!(made.path("data").unwrap().to_string(), r#"{"a":"1","b":"hook"}"#, "what the schema lacks is dropped");
    let asked = hook.asked().pop().unwrap();
    assert_eq!((asked.str_at("object.apiVersion"), asked.str_at("kind.version")), ("example.com/v2", "v2"));
    assert_eq!(asked.str_at("requestKind.version"), "v1");
}
