//! API priority and fairness over HTTP: who gets seats, who waits, who is turned away, and what is said of it.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Client, Fixture};
use corten_auth::User;
use corten_client::{Api, PatchKind, Target, Write, WriteOptions};
use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::{Tree, tree};
use http_body_util::BodyExt;
use hyper::Method;

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

async fn names(client: &mut Client, path: &str) -> Vec<String> {
    let (code, list) = client.get(path, &[]).await;
    assert_eq!(code, 200, "{list:?}");
    list.list_at("items").iter().map(|item| item.str_at("metadata.name").to_owned()).collect()
}

/// Asks again and again until the answer is as wanted, for twenty seconds: counts of requests have no event.
async fn until(mut ask: impl AsyncFnMut() -> bool, what: &str) {
    let wanted = async { while !ask().await {} };
    tokio::time::timeout(Duration::from_secs(20), wanted).await.unwrap_or_else(|_| panic!("{what}"));
}

/// The `Dangling` condition of a schema: its status and reason.
fn dangling(fixture: &Fixture, name: &str) -> (String, String) {
    let schema = fixture.cache.get(&ObjectKey::new(id::FLOW_SCHEMA, "", name)).map(|o| o.to_tree()).unwrap_or_default();
    let condition = schema.list_at("status.conditions").iter().find(|c| c.str_at("type") == "Dangling").cloned();
    condition.map(|c| (c.str_at("status").to_owned(), c.str_at("reason").to_owned())).unwrap_or_default()
}

fn level(name: &str, shares: i64, response: Tree) -> String {
    tree!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "limitResponse": response}}})
    .to_json_string()
}

/// A schema for the requests of one user, before all others.
fn schema(name: &str, level: &str, user: &str) -> String {
    tree!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name},
        "spec": {"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": level},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": user}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}})
    .to_json_string()
}

#[tokio::test]
async fn flowcontrol_bootstrap_objects_are_there_and_known_by_their_uids() {
    let fixture = Fixture::start().await;
    let mut admin = Client::connect(&fixture, true).await;
    assert_eq!(
        names(&mut admin, SCHEMAS).await,
        [
            "catch-all",
            "exempt",
            "global-default",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-system-service-accounts",
            "probes",
            "service-accounts",
            "system-leader-election",
            "system-node-high",
            "system-nodes"
        ]
    );
    let levels = names(&mut admin, LEVELS).await;
    assert_eq!(
        levels,
        [
            "catch-all",
            "exempt",
            "global-default",
            "leader-election",
            "node-high",
            "system",
            "workload-high",
            "workload-low"
        ]
    );
    let uid = async |client: &mut Client, path: &str| client.get(path, &[]).await.1.str_at("metadata.uid").to_owned();
    let marks = async |client: &mut Client, headers: &[(&str, &str)], path: &str| {
        let response = client.send(Method::GET, path, headers, b"").await;
        let value = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        let found = [value("x-kubernetes-pf-flowschema-uid"), value("x-kubernetes-pf-prioritylevel-uid")];
        let _ = response.into_body().collect().await;
        found
    };
    for (headers, path, schema, level) in [
        (&[][..], "/api/v1/namespaces", "exempt", "exempt"),
        (&[("authorization", "Bearer secret-token")], "/livez", "probes", "exempt"),
        // Turned away by the authorizer, and still of its schema.
        (&[("authorization", "Bearer secret-token")], "/api/v1/pods", "global-default", "global-default"),
        (
            &[("impersonate-user", "system:serviceaccount:kube-system:x")],
            "/api/v1/pods",
            "kube-system-service-accounts",
            "workload-high",
        ),
    ] {
        let expected = [
            uid(&mut admin, &format!("{SCHEMAS}/{schema}")).await,
            uid(&mut admin, &format!("{LEVELS}/{level}")).await,
        ];
        let mut client = Client::connect(&fixture, headers.is_empty() || headers[0].0 != "authorization").await;
        assert_eq!(marks(&mut client, headers, path).await, expected.map(Some), "{headers:?} {path}");
    }
}

#[tokio::test]
async fn dangling_flow_schema_says_so_and_is_not_used() {
    let fixture = Fixture::start().await;
    let mut admin = Client::connect(&fixture, true).await;
    let is = |name: &str, status: &str, reason: &str| {
        let (name, wanted) = (name.to_owned(), (status.to_owned(), reason.to_owned()));
        move |fixture: &Fixture| dangling(fixture, &name) == wanted
    };
    fixture.until_cache(is("probes", "False", "Found")).await;
    assert_eq!(admin.post(SCHEMAS, &schema("mine", "later", "alice")).await.0, 201);
    fixture.until_cache(is("mine", "True", "NotFound")).await;
    let (_, object) = admin.get(&format!("{SCHEMAS}/mine"), &[]).await;
    assert_eq!(
        object.list_at("status.conditions")[0].str_at("message"),
        "This FlowSchema references the PriorityLevelConfiguration object named \"later\" but there is no such object"
    );
    let managers: Vec<&str> = object.list_at("metadata.managedFields").iter().map(|m| m.str_at("manager")).collect();
    assert!(managers.contains(&"api-priority-and-fairness-config-consumer-v1"), "{managers:?}");
    let mut alice = Client::connect(&fixture, false).await;
    let token = [("authorization", "Bearer secret-token")];
    let response = alice.send(Method::GET, "/version", &token, b"").await;
    let global = admin.get(&format!("{SCHEMAS}/global-default"), &[]).await.1.str_at("metadata.uid").to_owned();
    assert_eq!(response.headers()["x-kubernetes-pf-flowschema-uid"].to_str().unwrap(), global);
    let _ = response.into_body().collect().await;
    assert_eq!(admin.post(LEVELS, &level("later", 5, tree!({"type": "Reject"}))).await.0, 201);
    fixture.until_cache(is("mine", "False", "Found")).await;
    let mine = object.str_at("metadata.uid");
    let response = alice.send(Method::GET, "/version", &token, b"").await;
    assert_eq!(response.headers()["x-kubernetes-pf-flowschema-uid"].to_str().unwrap(), mine);
}

#[tokio::test]
async fn autoupdate_spec_is_kept_at_start() {
    let fixture = Fixture::start().await;
    let mut admin = Client::connect(&fixture, true).await;
    let merge = [("content-type", "application/merge-patch+json")];
    let seats = tree!({"spec": {"limited": {"nominalConcurrencyShares": 7}}});
    let mut own = seats.clone();
    own.make_map_at("metadata.annotations").insert("apf.kubernetes.io/autoupdate-spec", "false");
    for (method, path, headers, body, code) in [
        (Method::PATCH, format!("{LEVELS}/system"), &merge[..], seats.to_json_string(), 200),
        (Method::PATCH, format!("{LEVELS}/node-high"), &merge[..], own.to_json_string(), 200),
        (Method::DELETE, format!("{LEVELS}/workload-low"), &[][..], String::new(), 200),
        (Method::POST, SCHEMAS.to_owned(), &[][..], schema("own", "system", "u"), 201),
    ] {
        let response = admin.send(method, &path, headers, body.as_bytes()).await;
        assert_eq!(response.status().as_u16(), code, "{path}");
        let _ = response.into_body().collect().await;
    }
    let mut left = corten_tree::json::parse(schema("left", "system", "u").as_bytes()).unwrap();
    left.make_map_at("metadata.annotations").insert("apf.kubernetes.io/autoupdate-spec", "true");
    assert_eq!(admin.post(SCHEMAS, &left.to_json_string()).await.0, 201);
    let _next = fixture.start_again().await;
    let shares = async |admin: &mut Client, name: &str| {
        let (_, level) = admin.get(&format!("{LEVELS}/{name}"), &[]).await;
        level.i64_at("spec.limited.nominalConcurrencyShares")
    };
    assert_eq!(shares(&mut admin, "system").await, Some(30));
    assert_eq!(shares(&mut admin, "node-high").await, Some(7));
    assert_eq!(shares(&mut admin, "workload-low").await, Some(100));
    let schemas = names(&mut admin, SCHEMAS).await;
    assert!(schemas.contains(&"own".to_owned()) && !schemas.contains(&"left".to_owned()), "{schemas:?}");
}

/// A level that alice's requests go to and that has one seat, as the server has few.
async fn one_seat(response: Tree) -> (Fixture, Client) {
    let fixture = Fixture::start().await;
    let mut admin = Client::connect(&fixture, true).await;
    // One share of 246, of 600 seats, rounded up: three. It lends none and borrows none.
    let mut narrow = corten_tree::json::parse(level("narrow", 0, response).as_bytes()).unwrap();
    narrow.set("spec.limited.nominalConcurrencyShares", 1);
    narrow.set("spec.limited.borrowingLimitPercent", 0);
    assert_eq!(admin.post(LEVELS, &narrow.to_json_string()).await.0, 201);
    assert_eq!(admin.post(SCHEMAS, &schema("alice", "narrow", "alice")).await.0, 201);
    let role = tree!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "alice"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}]});
    assert_eq!(
        admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &role.to_json_string()).await.0,
        201
    );
    let uid = admin.get(&format!("{SCHEMAS}/alice"), &[]).await.1.str_at("metadata.uid").to_owned();
    let mut alice = Client::connect(&fixture, false).await;
    until(
        async || {
            let response = alice.send(Method::GET, "/version", &[("authorization", "Bearer secret-token")], b"").await;
            let found = response.headers()["x-kubernetes-pf-flowschema-uid"].to_str().unwrap() == uid;
            let _ = response.into_body().collect().await;
            found
        },
        "the schema is in use",
    )
    .await;
    (fixture, admin)
}

/// A request of alice's that is answered only when the revision that it waits for has come, for three seconds.
async fn slow(fixture: &Fixture, query: &str) -> tokio::task::JoinHandle<(u16, Option<String>, String)> {
    let mut client = Client::connect(fixture, false).await;
    let path = format!("/api/v1/namespaces/default/configmaps?resourceVersion=999999{query}");
    #[allow(clippy::disallowed_methods, reason = "a test's own task")]
    tokio::spawn(async move {
        let response = client.send(Method::GET, &path, &[("authorization", "Bearer secret-token")], b"").await;
        let code = response.status().as_u16();
        let retry = response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, retry, String::from_utf8_lossy(&body).into_owned())
    })
}

async fn number(admin: &mut Client, line: &str) -> Option<f64> {
    let response = admin.send(Method::GET, "/metrics", &[], b"").await;
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&text).into_owned();
    let found = text.lines().find_map(|l| {
        l.strip_prefix("apiserver_flowcontrol_")?.strip_prefix(line)?.strip_prefix(' ').map(str::to_owned)
    });
    found.map(|value| value.parse().unwrap())
}

const FLOW: &str = "{flow_schema=\"alice\",priority_level=\"narrow\"";

#[tokio::test]
async fn reject_answers_429_too_many_requests_with_retry_after() {
    let (fixture, mut admin) = one_seat(tree!({"type": "Reject"})).await;
    assert_eq!(number(&mut admin, "nominal_limit_seats{priority_level=\"narrow\"}").await, Some(3.0));
    assert_eq!(number(&mut admin, "upper_limit_seats{priority_level=\"narrow\"}").await, Some(3.0));
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(slow(&fixture, "").await);
    }
    let executing = format!("current_executing_requests{FLOW}}}");
    until(async || number(&mut admin, &executing).await == Some(3.0), "three run").await;
    let refused = slow(&fixture, "").await.await.unwrap();
    assert_eq!(refused, (429, Some("1".to_owned()), "Too many requests, please try again later.\n".to_owned()));
    // Who is exempt does not care.
    assert_eq!(admin.get("/api/v1/namespaces", &[]).await.0, 200);
    for task in running {
        assert_eq!(task.await.unwrap().0, 504);
    }
    assert_eq!(slow(&fixture, "&timeout=50ms").await.await.unwrap().0, 504);
    assert_eq!(
        number(&mut admin, &format!("rejected_requests_total{FLOW},reason=\"concurrency-limit\"}}")).await,
        Some(1.0)
    );
    assert_eq!(number(&mut admin, &executing).await, Some(0.0));
}

#[tokio::test]
async fn queue_lets_wait_a_quarter_of_the_request_timeout_and_answers_429_when_full() {
    let queuing = tree!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 2}});
    let (fixture, mut admin) = one_seat(queuing).await;
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(slow(&fixture, "").await);
    }
    let executing = format!("current_executing_requests{FLOW}}}");
    until(async || number(&mut admin, &executing).await == Some(3.0), "three run").await;
    let inqueue = format!("current_inqueue_requests{FLOW}}}");
    // This one waits 100 ms for its seat, and so does not get it.
    let short = slow(&fixture, "&timeout=400ms").await;
    until(async || number(&mut admin, &inqueue).await == Some(1.0), "one waits").await;
    assert_eq!(short.await.unwrap().0, 429);
    assert_eq!(number(&mut admin, &inqueue).await, Some(0.0));
    assert_eq!(number(&mut admin, &format!("rejected_requests_total{FLOW},reason=\"time-out\"}}")).await, Some(1.0));
    let patient = [slow(&fixture, "").await, slow(&fixture, "").await];
    until(async || number(&mut admin, &inqueue).await == Some(2.0), "two wait").await;
    assert_eq!(slow(&fixture, "").await.await.unwrap().0, 429);
    assert_eq!(number(&mut admin, &format!("rejected_requests_total{FLOW},reason=\"queue-full\"}}")).await, Some(1.0));
    let response = admin
        .send(Method::GET, "/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1", &[], b"")
        .await;
    let dump = String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned();
    let rows: Vec<&str> = dump.lines().filter(|line| line.starts_with("narrow,")).collect();
    assert_eq!(rows.len(), 5, "{dump}");
    assert!(
        rows.iter().all(|row| row.contains("alice,") && row.contains("configmaps,") && row.contains("default,")),
        "{dump}"
    );
    let response = admin.send(Method::GET, "/debug/api_priority_and_fairness/dump_queues", &[], b"").await;
    let dump = String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned();
    let row: Vec<&str> = dump.lines().find(|line| line.starts_with("narrow,")).unwrap().split_whitespace().collect();
    assert_eq!((&row[1..5], &row[6..9]), (&["0,", "2,", "3,", "3,"][..], &["2,", "2,", "0.00600000ss"][..]), "{dump}");
    // The first three end after three seconds without having seen their revision; then the others' turn comes.
    for task in running.into_iter().chain(patient) {
        assert_eq!(task.await.unwrap().0, 504);
    }
    let response = admin.send(Method::GET, "/debug/api_priority_and_fairness/dump_priority_levels", &[], b"").await;
    let dump = String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned();
    let row: Vec<&str> = dump.lines().find(|line| line.starts_with("narrow,")).unwrap().split_whitespace().collect();
    assert_eq!(row[2..6], ["true,", "false,", "0,", "0,"], "{dump}");
    // A client that goes away while it waits leaves no trace either.
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(slow(&fixture, "").await);
    }
    until(async || number(&mut admin, &executing).await == Some(3.0), "three run").await;
    let gone = slow(&fixture, "").await;
    until(async || number(&mut admin, &inqueue).await == Some(1.0), "one waits").await;
    gone.abort();
    until(async || number(&mut admin, &inqueue).await == Some(0.0), "it has left").await;
    running.iter().for_each(tokio::task::JoinHandle::abort);
    until(async || number(&mut admin, &executing).await == Some(0.0), "all have left").await;
}

#[tokio::test]
async fn watch_takes_seats_until_it_has_begun_and_log_takes_none() {
    let (fixture, mut admin) = one_seat(tree!({"type": "Reject"})).await;
    let token = [("authorization", "Bearer secret-token")];
    let mut watches = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(&fixture, false).await;
        let response = client.send(Method::GET, "/api/v1/namespaces?watch=1", &token, b"").await;
        assert_eq!(response.status(), 200);
        assert!(response.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
        watches.push((client, body));
    }
    assert_eq!(number(&mut admin, &format!("current_executing_requests{FLOW}}}")).await, Some(0.0));
    assert_eq!(number(&mut admin, &format!("request_execution_seconds_count{FLOW},type=\"watch\"}}")).await, Some(5.0));
    let mut client = Client::connect(&fixture, false).await;
    let response = client.send(Method::GET, "/api/v1/namespaces/default/pods/none/log", &token, b"").await;
    assert!(!response.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
}

#[tokio::test]
async fn components_of_this_process_take_seats_as_anyone() {
    let fixture = Fixture::start().await;
    let mut admin = Client::connect(&fixture, true).await;
    let count =
        "dispatched_requests_total{flow_schema=\"kube-system-service-accounts\",priority_level=\"workload-high\"}";
    let before = number(&mut admin, count).await.unwrap_or_default();
    let api: Arc<dyn Api> = fixture.server.api_as(User::controller("job-controller"));
    let key = ObjectKey::new(id::NAMESPACE, "", "default");
    let _ = api.get(&key).await;
    let target = Target { key, subresource: "" };
    let _ = api.write(Write::Patch { target, patch: PatchKind::Merge, body: tree!({}) }, WriteOptions::default()).await;
    assert_eq!(number(&mut admin, count).await.unwrap() - before, 2.0);
}
