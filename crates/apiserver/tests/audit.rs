//! What the audit records of requests: levels, stages, objects, annotations, both backends.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;
mod https;

use std::path::Path;

use common::Fixture;
use common::caller::Caller;
use corten_apiserver::{AuditOptions, ServerConfig};
use corten_auth::User;
use corten_cache::CacheOptions;
use corten_client::{Target, Write, WriteOptions};
use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::{Tree, json, tree};
use https::Https;
use hyper::Method;

/// A server that logs by these rules.
async fn start(policy: &str) -> Fixture {
    let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{policy}");
    Fixture::with_config(CacheOptions::default(), move |config, dir| logged(config, dir, &policy)).await
}

fn logged(config: &mut ServerConfig, dir: &Path, policy: &str) {
    std::fs::write(dir.join("policy.yaml"), policy).unwrap();
    config.audit.policy_file = Some(dir.join("policy.yaml"));
    config.audit.log.path = Some(dir.join("audit.log").to_str().unwrap().to_owned());
}

fn events(fixture: &Fixture) -> Vec<Tree> {
    let text = std::fs::read_to_string(fixture.dir.path().join("audit.log")).unwrap();
    text.lines().map(|line| json::parse(line.as_bytes()).unwrap()).collect()
}

fn stages(events: &[Tree], id: &str) -> Vec<(String, i64)> {
    let own = events.iter().filter(|e| e.str_at("auditID") == id);
    own.map(|e| (e.str_at("stage").to_owned(), e.i64_at("responseStatus.code").unwrap_or(0))).collect()
}

fn of(events: &[Tree], id: &str, stage: &str) -> Tree {
    let found = events.iter().find(|e| e.str_at("auditID") == id && e.str_at("stage") == stage);
    found.cloned().unwrap_or_else(|| panic!("no {stage} of {id} in {events:?}"))
}

const RULES: &str = "rules:
- {level: None, nonResourceURLs: ['/version']}
- {level: RequestResponse, omitManagedFields: true, resources: [{group: '', resources: [configmaps]}]}
- {level: Request, resources: [{group: '', resources: [secrets]}]}
- {level: Metadata, omitStages: [RequestReceived]}
";

#[tokio::test]
async fn audit_levels_record_metadata_request_and_response_objects() {
    let fixture = start(RULES).await;
    let id = |id: &'static str| ("Audit-ID", id);
    let mut calls = Vec::new();
    for (name, value) in ["create", "patch", "conflict", "secret", "delete", "list", "quiet", "meta"].map(id) {
        calls.push(Caller::admin(&fixture).await.with(name, value).with("user-agent", "tester/1"));
    }
    let [create, patch, conflict, secret, delete, list, quiet, meta] = &mut calls[..] else { unreachable!() };
    let maps = "/api/v1/namespaces/default/configmaps";
    let body = tree!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let (code, headers, _) = create.send(Method::POST, maps, "application/json", &body.to_string()).await;
    assert_eq!((code, headers.get("audit-id").unwrap().to_str().unwrap()), (201, "create"));
    assert_eq!(patch.merge(&format!("{maps}/a"), &tree!({"data": {"k": "w"}})).await.0, 200);
    assert_eq!(conflict.post(maps, &body).await.0, 409);
    let key = tree!({"metadata": {"name": "s"}, "stringData": {"k": "v"}});
    assert_eq!(secret.post("/api/v1/namespaces/default/secrets", &key).await.0, 201);
    let options = r#"{"propagationPolicy":"Background"}"#;
    assert_eq!(delete.send(Method::DELETE, &format!("{maps}/a"), "application/json", options).await.0, 200);
    assert_eq!(list.get(&format!("{maps}?limit=1")).await.0, 200);
    assert_eq!(quiet.get("/version").await.0, 200);
    assert_eq!(meta.get("/api/v1/nodes").await.0, 200);

    let events = events(&fixture);
    let both = |code| vec![("RequestReceived".to_owned(), 0), ("ResponseComplete".to_owned(), code)];
    assert_eq!(stages(&events, "create"), both(201));
    let created = of(&events, "create", "ResponseComplete");
    assert_eq!(created.str_at("kind"), "Event");
    assert_eq!(created.str_at("apiVersion"), "audit.k8s.io/v1");
    assert_eq!((created.str_at("verb"), created.str_at("requestURI")), ("create", maps));
    assert_eq!(created.str_at("user.username"), "system:admin");
    assert_eq!((created.str_at("userAgent"), created.list_at("sourceIPs")), ("tester/1", &["127.0.0.1".into()][..]));
    assert_eq!(
        created.get("objectRef").unwrap().to_string(),
        r#"{"resource":"configmaps","namespace":"default","name":"a","apiVersion":"v1"}"#
    );
    assert_eq!(
        created.get("requestObject").unwrap().to_string(),
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"k":"v"}}"#
    );
    let response = created.get("responseObject").unwrap();
    assert!(!response.str_at("metadata.uid").is_empty() && response.path("metadata.managedFields").is_none());
    assert_eq!(
        created.get("annotations").unwrap().to_string(),
        r#"{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}"#
    );
    let patched = of(&events, "patch", "ResponseComplete");
    assert_eq!(patched.get("requestObject").unwrap().to_string(), r#"{"data":{"k":"w"}}"#);
    assert_eq!(patched.str_at("responseObject.data.k"), "w");
    let refused = of(&events, "conflict", "ResponseComplete");
    assert_eq!(
        refused.get("responseStatus").unwrap().to_string(),
        r#"{"metadata":{},"status":"Failure","message":"configmaps \"a\" already exists","reason":"AlreadyExists","details":{"name":"a","kind":"configmaps"},"code":409}"#
    );
    assert_eq!(refused.str_at("responseObject.reason"), "AlreadyExists");
    let secret = of(&events, "secret", "ResponseComplete");
    let request = secret.path("requestObject").unwrap();
    assert_eq!(
        (request.str_at("metadata.name"), request.str_at("type")),
        ("s", "Opaque"),
        "with defaults, as upstream"
    );
    assert_eq!(secret.get("responseObject"), None);
    let deleted = of(&events, "delete", "ResponseComplete");
    assert_eq!(
        deleted.get("requestObject").unwrap().to_string(),
        r#"{"kind":"DeleteOptions","apiVersion":"meta.k8s.io/__internal","propagationPolicy":"Background"}"#
    );
    assert_eq!(deleted.str_at("responseStatus.status"), "Success");
    assert_eq!(of(&events, "list", "ResponseComplete").str_at("responseObject.kind"), "ConfigMapList");
    assert_eq!(stages(&events, "quiet"), []);
    assert_eq!(stages(&events, "meta"), [("ResponseComplete".to_owned(), 200)]);
    let (_, text) = Caller::admin(&fixture).await.get("/metrics").await;
    let text = text.as_str().unwrap();
    assert!(text.contains("apiserver_audit_level_total{level=\"Request\"} 1\n"), "{text}");
    assert!(!text.contains("apiserver_audit_event_total 0\n"));
    assert!(text.contains("apiserver_audit_requests_rejected_total 0\n"));
}

#[tokio::test]
async fn audit_records_refusals_impersonation_and_failed_authentication() {
    let fixture = start("rules: [{level: Metadata}]").await;
    let mut nobody = Caller::bearer(&fixture, "wrong").await.with("audit-id", "nobody");
    assert_eq!(nobody.get("/api/v1/nodes").await.0, 401);
    let mut alice = Caller::bearer(&fixture, "secret-token").await.with("audit-id", "alice");
    assert_eq!(alice.get("/api/v1/nodes/n?x=1").await.0, 403);
    let mut bob = Caller::admin(&fixture).await.with("audit-id", "bob").with("impersonate-user", "bob");
    assert_eq!(bob.get("/api/v1/nodes").await.0, 403);
    let events = events(&fixture);
    assert_eq!(stages(&events, "nobody"), [("ResponseStarted".to_owned(), 401)]);
    let failed = of(&events, "nobody", "ResponseStarted");
    assert_eq!(failed.str_at("responseStatus.message"), "Authentication failed, attempted: bearer");
    assert_eq!((failed.get("user").unwrap().to_string(), failed.str_at("verb")), ("{}".to_owned(), "list"));
    let refused = of(&events, "alice", "ResponseComplete");
    assert_eq!(refused.str_at("user.username"), "alice");
    assert_eq!(refused.at(&["annotations", "authorization.k8s.io/decision"]).unwrap().as_str(), Some("forbid"));
    assert_eq!(refused.i64_at("responseStatus.code"), Some(403));
    let other = of(&events, "bob", "ResponseComplete");
    assert_eq!((other.str_at("user.username"), other.str_at("impersonatedUser.username")), ("system:admin", "bob"));
    assert_eq!(other.at(&["annotations", "authorization.k8s.io/decision"]).unwrap().as_str(), Some("forbid"));
    assert_eq!(other.str_at("authenticationMetadata.impersonationConstraint"), "impersonate:user-info");
}

#[tokio::test]
async fn audit_of_a_watch_has_its_start_and_its_end() {
    let fixture = start("rules: [{level: Metadata}]").await;
    let mut watcher = Caller::admin(&fixture).await.with("audit-id", "w");
    assert_eq!(watcher.get("/api/v1/nodes?watch=true&timeoutSeconds=1").await.0, 200);
    let path = fixture.dir.path().join("audit.log");
    let complete = || std::fs::read_to_string(&path).unwrap().contains("\"ResponseComplete\"");
    while !complete() {
        tokio::task::yield_now().await;
    }
    let seen: Vec<String> = stages(&events(&fixture), "w").into_iter().map(|(stage, _)| stage).collect();
    assert_eq!(seen, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
}

#[tokio::test]
async fn audit_records_admission_annotations_and_the_parts_of_this_process() {
    let fixture = start("rules: [{level: Request}]").await;
    let mut admin = Caller::admin(&fixture).await.with("audit-id", "ns");
    let namespace =
        tree!({"metadata": {"name": "audited", "labels": {"pod-security.kubernetes.io/audit": "restricted"}}});
    assert_eq!(admin.post("/api/v1/namespaces", &namespace).await.0, 201);
    let account = tree!({"metadata": {"name": "default"}});
    assert_eq!(admin.post("/api/v1/namespaces/audited/serviceaccounts", &account).await.0, 201);
    let api = fixture.server.api_as(User::controller("job-controller"));
    let body = tree!({"metadata": {"name": "p", "namespace": "audited"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let target = Target::object(ObjectKey::new(id::POD, "audited", "p"));
    api.write(Write::Create { target, body }, WriteOptions::default()).await.unwrap();
    let events = events(&fixture);
    let own = |e: &&Tree| e.str_at("objectRef.resource") == "pods" && e.str_at("stage") == "ResponseComplete";
    let event = events.iter().find(own).unwrap();
    assert_eq!(event.str_at("user.username"), "system:serviceaccount:kube-system:job-controller");
    assert_eq!(event.str_at("requestURI"), "/api/v1/namespaces/audited/pods/p");
    assert_eq!(event.i64_at("responseStatus.code"), Some(201));
    let annotation = |key| event.at(&["annotations", key]).and_then(Tree::as_str).unwrap_or_default();
    assert!(annotation("pod-security.kubernetes.io/audit-violations").contains("restricted"), "{event}");
    assert_eq!(annotation("pod-security.kubernetes.io/enforce-policy"), "privileged:latest");
    assert!(annotation("authorization.k8s.io/reason").contains("system:controller:job-controller"), "{event}");
}

#[tokio::test]
async fn audit_webhook_gets_batches_and_blocking_strict_refuses_what_cannot_be_recorded() {
    let tasks = corten_base::Tasks::tokio();
    let sink = Https::start_in(&tasks, |_| Some((200, "{}".into()))).await;
    let kubeconfig = sink.kubeconfig("/audit");
    let fixture = Fixture::with_config(CacheOptions::default(), |config, dir| {
        logged(config, dir, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata, verbs: [delete]}]");
        std::fs::write(dir.join("hook.yaml"), kubeconfig).unwrap();
        config.audit.log.path = None;
        config.audit.webhook.config_file = Some(dir.join("hook.yaml"));
        config.audit.webhook.batch.max_size = 2;
    })
    .await;
    let mut admin = Caller::admin(&fixture).await.with("audit-id", "gone");
    assert_eq!(admin.delete("/api/v1/namespaces/default/configmaps/none").await.0, 404);
    let batch = loop {
        if let Some(asked) = sink.asked().pop() {
            break asked;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((batch.path.as_str(), batch.headers["authorization"].to_str().unwrap()), ("/audit", "Bearer sesame"));
    let list = json::parse(&batch.body).unwrap();
    assert_eq!((list.str_at("kind"), list.str_at("apiVersion")), ("EventList", "audit.k8s.io/v1"));
    let stages: Vec<&str> = list.list_at("items").iter().map(|e| e.str_at("stage")).collect();
    assert_eq!((stages, list.list_at("items")[0].get("kind")), (vec!["RequestReceived", "ResponseComplete"], None));

    let strict = Fixture::with_config(CacheOptions::default(), |config, dir| {
        logged(config, dir, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata, verbs: [delete]}]");
        config.audit.log.path = Some("/dev/full".into());
        config.audit.log.batch.mode = "blocking-strict".parse().unwrap();
    })
    .await;
    let mut admin = Caller::admin(&strict).await;
    let (code, status) = admin.delete("/api/v1/namespaces/default/configmaps/none").await;
    let expected = "Internal error occurred: failed to store audit event";
    assert_eq!((code, status.str_at("message")), (500, expected));
    let (_, text) = admin.get("/metrics").await;
    assert!(text.as_str().unwrap().contains("apiserver_audit_requests_rejected_total 1\n"));
    assert!(text.as_str().unwrap().contains("apiserver_audit_error_total{plugin=\"log\"} "));
    tasks.stop(std::time::Duration::from_secs(1)).await;
}

#[tokio::test]
async fn audit_policy_faults_keep_the_server_from_starting() {
    let options = AuditOptions { policy_file: Some("/nonexistent".into()), ..AuditOptions::default() };
    assert!(options.validate().is_ok());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p"), "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: All}]").unwrap();
    let error = corten_audit::Policy::load(&dir.path().join("p")).unwrap_err();
    assert!(error.starts_with("loading audit policy file: rules[0].level: Unsupported value: \"All\""), "{error}");
}
