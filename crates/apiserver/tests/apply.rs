//! Server-side apply and managed fields over HTTP: who owns what after a write, and who is told of a conflict.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::Fixture;
use common::caller::Caller;
use corten_tree::{Tree, json, tree};
use hyper::Method;

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/d";
const MAP: &str = "/api/v1/namespaces/default/configmaps/c";
const APPLY: &str = "application/apply-patch+yaml";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

async fn start() -> (Fixture, Caller) {
    let fixture = Fixture::start().await;
    let caller = Caller::admin(&fixture).await;
    (fixture, caller)
}

/// Applies as a manager, whose name may be followed by more of the query.
async fn apply(caller: &mut Caller, path: &str, manager: &str, body: &Tree) -> (u16, Tree) {
    let path = format!("{path}?fieldManager={manager}");
    let (code, _, tree) = caller.send(Method::PATCH, &path, APPLY, &body.to_string()).await;
    (code, tree)
}

/// Applies as a manager, which works.
async fn applied(caller: &mut Caller, path: &str, manager: &str, body: &Tree) -> Tree {
    let (code, tree) = apply(caller, path, manager, body).await;
    assert!(code == 200 || code == 201, "{manager} applies {body}: {code} {tree}");
    tree
}

/// Merges as a manager, which works.
async fn merged(caller: &mut Caller, path: &str, manager: &str, body: Tree) -> Tree {
    let (code, tree) = caller.merge(&format!("{path}?fieldManager={manager}"), &body).await;
    assert_eq!(code, 200, "{manager} merges {body}: {tree}");
    tree
}

/// The owners as `manager operation apiVersion subresource fields`, one a line.
fn owners(tree: &Tree) -> Vec<String> {
    let entries = tree.path("metadata.managedFields").and_then(Tree::as_list).unwrap_or_default();
    let line = |entry: &Tree| {
        assert_eq!(entry.str_at("fieldsType"), "FieldsV1");
        let words = ["manager", "operation", "apiVersion", "subresource"].map(|key| entry.str_at(key));
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        format!("{} {}", words.join(" "), entry.path("fieldsV1").unwrap())
    };
    entries.iter().map(line).collect()
}

/// The times of the entries; empty for one that has none.
fn times(tree: &Tree) -> Vec<&str> {
    let entries = tree.path("metadata.managedFields").and_then(Tree::as_list).unwrap_or_default();
    entries.iter().map(|entry| entry.str_at("time")).collect()
}

/// The fields of one manager; empty if it has none.
fn fields(tree: &Tree, manager: &str) -> String {
    let start = format!("{manager} ");
    let lines = owners(tree);
    let line = lines.iter().find(|line| line.starts_with(&start));
    line.map_or(String::new(), |line| line[line.find('{').unwrap()..].to_owned())
}

/// A 409 with this message, and a cause for each field.
fn assert_conflict(answer: (u16, Tree), message: &str, causes: &[(&str, &str)]) {
    let (code, status) = answer;
    assert_eq!((code, status.str_at("reason")), (409, "Conflict"), "{status}");
    assert_eq!(status.str_at("message"), message);
    let found = status.path("details.causes").and_then(Tree::as_list).unwrap_or_default();
    let found: Vec<_> = found.iter().map(|c| ["reason", "message", "field"].map(|key| c.str_at(key))).collect();
    let expected: Vec<_> = causes.iter().map(|(message, field)| ["FieldManagerConflict", message, field]).collect();
    assert_eq!(found, expected);
}

fn config(data: Tree) -> Tree {
    tree!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

/// A Deployment without replicas.
fn deployment() -> Tree {
    tree!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "x", "image": "i", "ports": [{"containerPort": 80}]}]}
        }
    }})
}

fn with_replicas(n: i64) -> Tree {
    let mut body = deployment();
    body.set("spec.replicas", n);
    body
}

/// Only the replicas.
fn replicas(n: i64) -> Tree {
    tree!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": n}})
}

#[tokio::test]
async fn apply_creates_and_owns_what_it_applies() {
    let (_fixture, mut caller) = start().await;
    let (code, made) = apply(&mut caller, MAP, "a", &config(tree!({"k": "1"}))).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(owners(&made), [r#"a Apply v1 {"f:data":{"f:k":{}}}"#]);
    assert_eq!(times(&made), [made.str_at("metadata.creationTimestamp")]);
    let made = applied(&mut caller, DEPLOYMENT, "a", &with_replicas(2)).await;
    let owned = concat!(
        r#"a Apply apps/v1 {"f:spec":{"f:replicas":{},"f:selector":{},"f:template":{"f:metadata":{"f:labels":{"f:a":{}}},"#,
        r#""f:spec":{"f:containers":{"k:{\"name\":\"x\"}":{".":{},"f:image":{},"f:name":{},"f:ports":"#,
        r#"{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}}}"#
    );
    assert_eq!(owners(&made), [owned]);
    assert_eq!(made.str_at("spec.strategy.type"), "RollingUpdate", "what is not applied has its default");
}

#[tokio::test]
async fn apply_of_another_managers_field_conflicts_until_it_is_forced() {
    let (_fixture, mut caller) = start().await;
    applied(&mut caller, DEPLOYMENT, "a", &with_replicas(2)).await;
    let one = r#"conflict with "a""#;
    let message = r#"Apply failed with 1 conflict: conflict with "a": .spec.replicas"#;
    let answer = apply(&mut caller, DEPLOYMENT, "b", &replicas(3)).await;
    assert_conflict(answer, message, &[(one, ".spec.replicas")]);
    let (_, kept) = caller.get(DEPLOYMENT).await;
    assert_eq!((kept.i64_at("spec.replicas"), owners(&kept).len()), (Some(2), 1));

    let forced = applied(&mut caller, DEPLOYMENT, "b&force=true", &replicas(3)).await;
    assert_eq!(forced.i64_at("spec.replicas"), Some(3));
    assert_eq!(fields(&forced, "b"), r#"{"f:spec":{"f:replicas":{}}}"#);
    assert!(!fields(&forced, "a").contains("f:replicas"), "{forced}");

    let mut two = with_replicas(4);
    two.set("spec.minReadySeconds", 1);
    let message = r#"Apply failed with 1 conflict: conflict with "b": .spec.replicas"#;
    assert_conflict(
        apply(&mut caller, DEPLOYMENT, "a", &two).await,
        message,
        &[(r#"conflict with "b""#, ".spec.replicas")],
    );
}

#[tokio::test]
async fn conflicts_of_several_fields_are_listed_by_manager() {
    let (_fixture, mut caller) = start().await;
    applied(&mut caller, MAP, "b", &config(tree!({"k": "1", "l": "1"}))).await;
    merged(&mut caller, MAP, "a", tree!({"data": {"m": "1"}})).await;
    let answer = apply(&mut caller, MAP, "c", &config(tree!({"k": "2", "l": "2", "m": "2"}))).await;
    let (a, b) = (r#"conflict with "a" using v1"#, r#"conflict with "b""#);
    let message = concat!(
        "Apply failed with 3 conflicts: conflicts with \"a\" using v1:\n- .data.m\n",
        "conflicts with \"b\":\n- .data.k\n- .data.l"
    );
    assert_conflict(answer, message, &[(a, ".data.m"), (b, ".data.k"), (b, ".data.l")]);
}

#[tokio::test]
async fn apply_after_an_update_conflicts_with_its_version() {
    let (_fixture, mut caller) = start().await;
    applied(&mut caller, DEPLOYMENT, "a", &with_replicas(2)).await;
    let changed = merged(&mut caller, DEPLOYMENT, "x", tree!({"spec": {"replicas": 5}})).await;
    assert_eq!(owners(&changed)[1], r#"x Update apps/v1 {"f:spec":{"f:replicas":{}}}"#);
    assert!(!fields(&changed, "a").contains("f:replicas"), "an update takes without a conflict: {changed}");
    let who = r#"conflict with "x" using apps/v1"#;
    let message = r#"Apply failed with 1 conflict: conflict with "x" using apps/v1: .spec.replicas"#;
    assert_conflict(apply(&mut caller, DEPLOYMENT, "a", &with_replicas(2)).await, message, &[(who, ".spec.replicas")]);

    let mut put = changed.clone();
    put.set("spec.replicas", 6);
    let (code, put) = caller.put(&format!("{DEPLOYMENT}?fieldManager=y"), &put).await;
    assert_eq!(code, 200, "{put}");
    assert_eq!((fields(&put, "x").as_str(), fields(&put, "y").as_str()), ("", r#"{"f:spec":{"f:replicas":{}}}"#));
}

#[tokio::test]
async fn a_field_that_is_no_longer_applied_goes_unless_another_owns_it() {
    let (_fixture, mut caller) = start().await;
    applied(&mut caller, MAP, "a", &config(tree!({"both": "1", "mine": "1"}))).await;
    let shared = applied(&mut caller, MAP, "b", &config(tree!({"both": "1"}))).await;
    assert_eq!(
        owners(&shared),
        [r#"b Apply v1 {"f:data":{"f:both":{}}}"#, r#"a Apply v1 {"f:data":{"f:both":{},"f:mine":{}}}"#],
        "equal values are owned by both"
    );
    assert_eq!(times(&shared)[0], "", "an apply that changes no field has no time of its own");
    let left = applied(&mut caller, MAP, "a", &config(tree!({"new": "1"}))).await;
    assert_eq!(left.path("data").unwrap().to_string(), r#"{"both":"1","new":"1"}"#);
    assert_eq!(fields(&left, "a"), r#"{"f:data":{"f:new":{}}}"#);
    let none = tree!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let left = applied(&mut caller, MAP, "a", &none).await;
    assert_eq!(owners(&left), [r#"b Apply v1 {"f:data":{"f:both":{}}}"#]);
    let left = applied(&mut caller, MAP, "b", &none).await;
    assert_eq!((left.path("data"), owners(&left).len()), (None, 0), "{left}");
}

#[tokio::test]
async fn lists_are_merged_by_key_as_sets_or_whole() {
    let (_fixture, mut caller) = start().await;
    let mut first = deployment();
    first.set("metadata.finalizers", tree!(["e.com/a"]));
    first.set(
        "spec.template.spec.containers",
        tree!([{"name": "x", "image": "i", "command": ["a", "b"],
        "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]}]),
    );
    applied(&mut caller, DEPLOYMENT, "a", &first).await;
    let second = tree!({"apiVersion": "apps/v1", "kind": "Deployment",
    "metadata": {"name": "d", "finalizers": ["e.com/b"]},
    "spec": {"template": {"spec": {"containers": [
        {"name": "y", "image": "j"},
        {"name": "x", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "web"}, {"containerPort": 53}]}
    ]}}}});
    let both = applied(&mut caller, DEPLOYMENT, "b", &second).await;
    assert_eq!(both.path("metadata.finalizers").unwrap().to_string(), r#"["e.com/a","e.com/b"]"#);
    let list = |tree: &Tree, path: &str| tree.path(path).and_then(Tree::as_list).unwrap_or_default().to_vec();
    let containers = list(&both, "spec.template.spec.containers");
    assert_eq!(containers.iter().map(|c| c.str_at("name")).collect::<Vec<_>>(), ["y", "x"]);
    let ports: Vec<_> = list(&containers[1], "ports");
    let mut ports: Vec<_> = ports
        .iter()
        .map(|p| format!("{}/{}/{}", p.i64_at("containerPort").unwrap(), p.str_at("protocol"), p.str_at("name")))
        .collect();
    ports.sort();
    assert_eq!(ports, ["53/TCP/", "53/UDP/", "80/TCP/web"]);
    let owned = concat!(
        r#"{"f:metadata":{"f:finalizers":{"v:\"e.com/b\"":{}}},"f:spec":{"f:template":{"f:spec":{"f:containers":{"#,
        r#""k:{\"name\":\"x\"}":{".":{},"f:name":{},"f:ports":{"#,
        r#""k:{\"containerPort\":53,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}},"#,
        r#""k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:name":{},"f:protocol":{}}}},"#,
        r#""k:{\"name\":\"y\"}":{".":{},"f:image":{},"f:name":{}}}}}}}"#
    );
    assert_eq!(fields(&both, "b"), owned);

    let mut whole = second.clone();
    whole.set("spec.template.spec.containers", tree!([{"name": "y", "image": "j"}, {"name": "x", "command": ["c"]}]));
    let field = r#".spec.template.spec.containers[name="x"].command"#;
    let message = format!("Apply failed with 1 conflict: conflict with \"a\": {field}");
    let answer = apply(&mut caller, DEPLOYMENT, "b", &whole).await;
    assert_conflict(answer, &message, &[(r#"conflict with "a""#, field)]);

    let bare = tree!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
    let left = applied(&mut caller, DEPLOYMENT, "b", &bare).await;
    assert_eq!(left.path("metadata.finalizers").unwrap().to_string(), r#"["e.com/a"]"#);
    let containers = list(&left, "spec.template.spec.containers");
    assert_eq!(containers.len(), 1);
    assert_eq!(list(&containers[0], "ports").len(), 2);
}

#[tokio::test]
async fn status_has_its_own_entry() {
    let (_fixture, mut caller) = start().await;
    applied(&mut caller, DEPLOYMENT, "a", &with_replicas(2)).await;
    let path = format!("{DEPLOYMENT}/status");
    let status = tree!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 9}, "status": {"observedGeneration": 1}});
    let changed = applied(&mut caller, &path, "s", &status).await;
    assert_eq!((changed.i64_at("spec.replicas"), changed.i64_at("status.observedGeneration")), (Some(2), Some(1)));
    assert_eq!(owners(&changed)[1], r#"s Apply apps/v1 status {"f:status":{"f:observedGeneration":{}}}"#);
    let changed = merged(&mut caller, &path, "u", tree!({"status": {"observedGeneration": 2}})).await;
    assert_eq!(fields(&changed, "s"), "");
    assert_eq!(owners(&changed)[1], r#"u Update apps/v1 status {"f:status":{"f:observedGeneration":{}}}"#);
    let who = r#"conflict with "u" with subresource "status" using apps/v1"#;
    let message = format!("Apply failed with 1 conflict: {who}: .status.observedGeneration");
    let answer = apply(&mut caller, &path, "s", &status).await;
    assert_conflict(answer, &message, &[(who, ".status.observedGeneration")]);
}

#[tokio::test]
async fn scale_owns_the_objects_replicas() {
    let (_fixture, mut caller) = start().await;
    applied(&mut caller, DEPLOYMENT, "a", &with_replicas(2)).await;
    let path = format!("{DEPLOYMENT}/scale");
    let scale = |n: i64| {
        tree!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d", "namespace": "default"},
            "spec": {"replicas": n}})
    };
    let message = r#"Apply failed with 1 conflict: conflict with "a": .spec.replicas"#;
    let answer = apply(&mut caller, &path, "s", &scale(4)).await;
    assert_conflict(answer, message, &[(r#"conflict with "a""#, ".spec.replicas")]);
    merged(&mut caller, &path, "u", tree!({"spec": {"replicas": 4}})).await;
    let (_, found) = caller.get(DEPLOYMENT).await;
    assert_eq!(found.i64_at("spec.replicas"), Some(4));
    assert_eq!(fields(&found, "u"), r#"{"f:spec":{"f:replicas":{}}}"#);
    assert!(owners(&found).iter().any(|line| line.starts_with("u Update apps/v1 scale ")), "{found}");
    assert!(!fields(&found, "a").contains("f:replicas"), "{found}");
    applied(&mut caller, &path, "s&force=true", &scale(5)).await;
    let (_, found) = caller.get(DEPLOYMENT).await;
    assert_eq!((found.i64_at("spec.replicas"), fields(&found, "u").as_str()), (Some(5), ""));
    assert!(owners(&found).iter().any(|line| line.starts_with("s Apply apps/v1 scale ")), "{found}");
}

#[tokio::test]
async fn kubectl_takes_over_what_client_side_apply_set_last() {
    let (_fixture, mut caller) = start().await;
    let last = config(tree!({"k": "1", "l": "1"})).to_string();
    let mut body = config(tree!({"k": "1", "l": "1"}));
    body.set("metadata.annotations", Tree::map());
    body.path_mut("metadata.annotations").unwrap().insert(LAST_APPLIED, last);
    let maps = "/api/v1/namespaces/default/configmaps?fieldManager=kubectl-client-side-apply";
    let (code, made) = caller.post(maps, &body).await;
    assert_eq!(code, 201, "{made}");
    let wanted = config(tree!({"k": "2", "l": "1"}));
    let who = r#"conflict with "kubectl-client-side-apply" using v1"#;
    let message = format!("Apply failed with 1 conflict: {who}: .data.k");
    assert_conflict(apply(&mut caller, MAP, "other", &wanted).await, &message, &[(who, ".data.k")]);
    let changed = applied(&mut caller, MAP, "kubectl", &wanted).await;
    assert_eq!((changed.str_at("data.k"), changed.str_at("data.l")), ("2", "1"));
    assert_eq!(fields(&changed, "kubectl"), r#"{"f:data":{"f:k":{},"f:l":{}}}"#);
    let noted = changed.at(&["metadata", "annotations", LAST_APPLIED]).and_then(Tree::as_str).unwrap();
    assert_eq!(json::parse(noted.as_bytes()).unwrap().path("data.k"), Some(&Tree::from("2")), "it stays in line");

    merged(&mut caller, MAP, "x", tree!({"data": {"k": "3"}})).await;
    let answer = apply(&mut caller, MAP, "kubectl", &wanted).await;
    let message = r#"Apply failed with 1 conflict: conflict with "x" using v1: .data.k"#;
    assert_conflict(answer, message, &[(r#"conflict with "x" using v1"#, ".data.k")]);
}

#[tokio::test]
async fn the_same_apply_again_changes_neither_revision_nor_time() {
    let (fixture, mut caller) = start().await;
    let cases = [(MAP, config(tree!({"k": "1"}))), (DEPLOYMENT, with_replicas(1))];
    let mut before = Vec::new();
    for (path, body) in &cases {
        before.push(applied(&mut caller, path, "a", body).await.to_string());
    }
    // Times are whole seconds: only a later second would show.
    fixture.clock.advance(2);
    for ((path, body), before) in cases.iter().zip(before) {
        let (code, again) = apply(&mut caller, path, "a", body).await;
        assert_eq!((code, again.to_string()), (200, before));
    }
}

#[tokio::test]
async fn refused_applies() {
    let (_fixture, mut caller) = start().await;
    let secret = tree!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c"}});
    let (code, status) = apply(&mut caller, MAP, "a", &secret).await;
    assert_eq!((code, status.str_at("message")), (400, "invalid object type: /v1, Kind=Secret"));

    let mut managed = config(tree!({"k": "1"}));
    managed.set("metadata.managedFields", tree!([{"manager": "a"}]));
    let (code, status) = apply(&mut caller, MAP, "a", &managed).await;
    assert_eq!((code, status.str_at("message")), (400, "metadata.managedFields must be nil"));

    let body = config(tree!({"k": "1"})).to_string();
    let (code, _, status) = caller.send(Method::PATCH, MAP, APPLY, &body).await;
    let message =
        r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#;
    assert_eq!((code, status.str_at("message")), (422, message));

    let forced = format!("{MAP}?force=true&fieldManager=a");
    let (code, status) = caller.merge(&forced, &tree!({"data": {"k": "1"}})).await;
    let message =
        r#"PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#;
    assert_eq!((code, status.str_at("message")), (422, message));

    let (code, status) = apply(&mut caller, MAP, "a", &config(tree!({"k": 1}))).await;
    assert_eq!(code, 500, "{status}");
    let message = concat!(
        "failed to create typed patch object (/c; /v1, Kind=ConfigMap): .data.k: expected string, got ",
        "&value.valueUnstructured{Value:1}"
    );
    assert_eq!(status.str_at("message"), message);
}

#[tokio::test]
async fn managed_fields_are_reset_by_an_empty_list_or_entry() {
    let (_fixture, mut caller) = start().await;
    for reset in [tree!([{}]), tree!([])] {
        applied(&mut caller, MAP, "a", &config(tree!({"k": "1"}))).await;
        let left = merged(&mut caller, MAP, "x", tree!({"metadata": {"managedFields": (reset.clone())}})).await;
        assert_eq!(left.path("metadata.managedFields"), None, "{reset}");
        assert_eq!(left.str_at("data.k"), "1");
    }
    for reset in ["[]", "[{}]"] {
        applied(&mut caller, MAP, "a&force=true", &config(tree!({"k": "1"}))).await;
        let (_, mut found) = caller.get(MAP).await;
        found.set("metadata.managedFields", json::parse(reset.as_bytes()).unwrap());
        let (code, left) = caller.put(&format!("{MAP}?fieldManager=x"), &found).await;
        assert_eq!((code, left.path("metadata.managedFields")), (200, None), "{reset}");
    }
    let untracked = merged(&mut caller, MAP, "x", tree!({"data": {"k": "2"}})).await;
    assert_eq!(owners(&untracked).len(), 0, "an update does not track again: {untracked}");
    let who = r#"conflict with "before-first-apply" using v1"#;
    let message = format!("Apply failed with 1 conflict: {who}: .data.k");
    assert_conflict(apply(&mut caller, MAP, "a", &config(tree!({"k": "3"}))).await, &message, &[(who, ".data.k")]);
}

#[tokio::test]
async fn the_oldest_of_more_than_ten_updaters_are_merged() {
    let (_fixture, mut caller) = start().await;
    let mut last = applied(&mut caller, MAP, "a", &config(tree!({"k": "1"}))).await;
    for i in 0..12 {
        let mut data = Tree::map();
        data.insert(format!("k{i:02}"), "1");
        last = merged(&mut caller, MAP, &format!("u{i:02}"), tree!({"data": data})).await;
    }
    let lines = owners(&last);
    let count = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
    assert_eq!((count(" Update "), count(" Apply ")), (10, 1), "{lines:?}");
    assert_eq!(fields(&last, "ancient-changes"), r#"{"f:data":{"f:k00":{},"f:k01":{},"f:k02":{}}}"#);
    assert_eq!((fields(&last, "u02").as_str(), fields(&last, "u11").as_str()), ("", r#"{"f:data":{"f:k11":{}}}"#));
}

#[tokio::test]
async fn yaml_duplicate_keys_of_an_apply_are_refused_or_warned_of() {
    let (_fixture, mut caller) = start().await;
    let body = "\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  k: one\n  k: two\n";
    let path = |validation: &str| format!("{MAP}?fieldManager=a&fieldValidation={validation}");
    let (code, _, status) = caller.send(Method::PATCH, &path("Strict"), APPLY, body).await;
    let message = "error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:\n  line 8: key \"k\" \
                   already set in map";
    assert_eq!((code, status.str_at("message")), (400, message));
    for (validation, expected) in [("Warn", Some(r#"299 - "line 8: key \"k\" already set in map""#)), ("Ignore", None)]
    {
        let (code, headers, made) = caller.send(Method::PATCH, &path(validation), APPLY, body).await;
        assert_eq!((code / 100, made.str_at("data.k")), (2, "two"), "{made}");
        assert_eq!(headers.get("warning").map(|text| text.to_str().unwrap()), expected);
    }
    let maps = "/api/v1/namespaces/default/configmaps?fieldValidation=Strict";
    let (code, _, status) = caller.send(Method::POST, maps, "application/yaml", body).await;
    let message = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal \
                   errors:\n  line 8: key \"k\" already set in map";
    assert_eq!((code, status.str_at("message")), (400, message));
}

#[tokio::test]
async fn a_scale_update_takes_the_replicas_into_an_entry_of_its_own() {
    let (_fixture, mut caller) = start().await;
    applied(&mut caller, DEPLOYMENT, "a", &with_replicas(2)).await;
    merged(&mut caller, DEPLOYMENT, "u", tree!({"spec": {"replicas": 3, "paused": true}})).await;
    let path = format!("{DEPLOYMENT}/scale?fieldManager=v");
    let (_, mut scale) = caller.get(&path).await;
    scale.set("spec.replicas", 3);
    assert_eq!(caller.put(&path, &scale).await.0, 200);
    let (_, found) = caller.get(DEPLOYMENT).await;
    let mine: Vec<String> = owners(&found).into_iter().filter(|line| line.starts_with("u ")).collect();
    let expected =
        [r#"u Update apps/v1 {"f:spec":{"f:replicas":{}}}"#, r#"u Update apps/v1 {"f:spec":{"f:paused":{}}}"#];
    assert!(mine.len() == 2 && expected.iter().all(|line| mine.iter().any(|have| have == line)), "{mine:?}");
}

#[tokio::test]
async fn cross_version_apply_keeps_what_the_other_version_owns() {
    let (_fixture, mut caller) = start().await;
    let at = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers/h");
    let body = |version: &str, spec: Tree| {
        tree!({"apiVersion": (format!("autoscaling/{version}")), "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h"}, "spec": spec})
    };
    let target = tree!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let whole = body("v1", tree!({"scaleTargetRef": (target), "maxReplicas": 5, "targetCPUUtilizationPercentage": 70}));
    applied(&mut caller, &at("v1"), "a", &whole).await;
    let metrics = |percentage: i64| {
        tree!([{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": percentage}}}])
    };
    // The same field under another name: a conflict is told of in the version of its owner.
    let other = body("v2", tree!({"metrics": (metrics(50))}));
    let answer = apply(&mut caller, &at("v2"), "b", &other).await;
    let message = r#"Apply failed with 1 conflict: conflict with "a": .spec.targetCPUUtilizationPercentage"#;
    assert_conflict(answer, message, &[(r#"conflict with "a""#, ".spec.targetCPUUtilizationPercentage")]);
    let changed = applied(&mut caller, &at("v2"), "b&force=true", &other).await;
    assert_eq!(changed.list_at("spec.metrics")[0].i64_at("resource.target.averageUtilization"), Some(50));
    assert!(!fields(&changed, "a").contains("targetCPU") && fields(&changed, "a").contains("f:maxReplicas"));
    assert_eq!(fields(&changed, "b"), r#"{"f:spec":{"f:metrics":{}}}"#);
}

#[tokio::test]
async fn bodies_without_the_name_are_refused() {
    let (_fixture, mut caller) = start().await;
    applied(&mut caller, MAP, "a", &config(tree!({"k": "1"}))).await;
    let message = "the name of the object (c based on URL) was undeterminable: name must be provided";
    let (code, status) = caller.merge(MAP, &tree!({"metadata": {"name": null}})).await;
    assert_eq!((code, status.str_at("message")), (400, message));
    let (code, status) = caller.put(MAP, &tree!({"data": {"k": "2"}})).await;
    assert_eq!((code, status.str_at("message")), (400, message));
    let (code, status) = caller.put(MAP, &tree!({"metadata": {"name": "c", "namespace": "other"}})).await;
    let message = "the namespace of the provided object does not match the namespace sent on the request";
    assert_eq!((code, status.str_at("message")), (400, message));
}

#[tokio::test]
async fn status_writes_keep_a_deployments_labels_and_generation() {
    let (_fixture, mut caller) = start().await;
    applied(&mut caller, DEPLOYMENT, "a", &with_replicas(2)).await;
    let patch = tree!({"metadata": {"labels": {"x": "1"}, "annotations": {"y": "1"}}});
    let left = merged(&mut caller, &format!("{DEPLOYMENT}/status"), "u", patch.clone()).await;
    assert_eq!((left.path("metadata.labels"), left.str_at("metadata.annotations.y")), (None, "1"));
    assert_eq!(left.i64_at("metadata.generation"), Some(1));
    let annotated = merged(&mut caller, DEPLOYMENT, "u", tree!({"metadata": {"annotations": {"z": "1"}}})).await;
    assert_eq!(annotated.i64_at("metadata.generation"), Some(2), "annotations of a Deployment count");
}

#[tokio::test]
async fn apply_field_validation_tells_conflicts_before_repeated_fields() {
    let (_fixture, mut caller) = start().await;
    applied(&mut caller, MAP, "a", &config(tree!({"k": "1"}))).await;
    let body = "apiVersion: v1\nkind: ConfigMap\ndata:\n  k: \"2\"\n  k: \"3\"\n";
    let path = format!("{MAP}?fieldManager=b&fieldValidation=Strict");
    let (code, _, told) = caller.send(Method::PATCH, &path, APPLY, body).await;
    assert_eq!((code, told.str_at("reason")), (409, "Conflict"), "{told}");
    let (code, _, told) = caller.send(Method::PATCH, &format!("{path}&force=true"), APPLY, body).await;
    assert_eq!(code, 400, "{told}");
    assert!(told.str_at("message").starts_with("error strict decoding patch: "), "{told}");
}
