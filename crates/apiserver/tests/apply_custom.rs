//! Server-side apply of custom resources: their schema says how lists, maps and structs are merged, and may change.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::Fixture;
use common::caller::Caller;
use common::definitions::DEFINITIONS;
use corten_tree::{Tree, tree};
use hyper::Method;

const APPLY: &str = "application/apply-patch+yaml";

fn at(version: &str) -> String {
    format!("/apis/example.com/{version}/namespaces/default/widgets/w")
}

fn definition() -> Tree {
    let keyed = tree!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"],
        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"},
            "port": {"type": "integer", "default": 7}, "value": {"type": "string"}}}});
    let schema = tree!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "keyed": keyed, "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "list": {"type": "array", "items": {"type": "string"}}}},
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}}}}});
    let version = |name: &str, storage: bool| tree!({"name": name, "served": true, "storage": storage, "schema": (schema.clone()), "subresources": {"status": {}}});
    tree!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [(version("v1", true)), (version("v2", false))]}})
}

async fn start() -> (Fixture, Caller) {
    let fixture = Fixture::start().await;
    fixture.start_definitions();
    let mut caller = Caller::admin(&fixture).await;
    fixture.define(&mut caller, &definition()).await;
    (fixture, caller)
}

async fn apply(caller: &mut Caller, version: &str, query: &str, part: Tree) -> (u16, Tree) {
    let mut body = part;
    body.insert("apiVersion", format!("example.com/{version}"));
    body.insert("kind", "Widget");
    body.set("metadata.name", "w");
    let path = format!("{}?fieldManager={query}", at(version));
    let (code, _, tree) = caller.send(Method::PATCH, &path, APPLY, &body.to_string()).await;
    (code, tree)
}

fn fields(tree: &Tree, manager: &str) -> String {
    let entries = tree.list_at("metadata.managedFields");
    let mine: Vec<String> = entries
        .iter()
        .filter(|entry| entry.str_at("manager") == manager)
        .map(|entry| entry.path("fieldsV1").unwrap().to_string())
        .collect();
    mine.join(" ")
}

#[tokio::test]
async fn custom_apply_tells_items_by_keys_and_their_defaults() {
    let (_fixture, mut caller) = start().await;
    let (code, made) =
        apply(&mut caller, "v1", "a", tree!({"spec": {"keyed": [{"name": "x", "value": "1"}], "set": ["p"]}})).await;
    assert_eq!(code, 201, "{made}");
    let item = r#"k:{\"name\":\"x\",\"port\":7}"#;
    assert!(fields(&made, "a").contains(item), "{} {item}", fields(&made, "a"));
    let (code, both) =
        apply(&mut caller, "v2", "b", tree!({"spec": {"keyed": [{"name": "x", "port": 8}], "set": ["q"]}})).await;
    assert_eq!(code, 200, "{both}");
    assert_eq!(
        both.path("spec").unwrap().to_string(),
        r#"{"keyed":[{"name":"x","port":7,"value":"1"},{"name":"x","port":8}],"set":["p","q"]}"#
    );
    let (code, status) =
        apply(&mut caller, "v2", "b", tree!({"spec": {"keyed": [{"name": "x", "port": 7, "value": "2"}]}})).await;
    let message = r#"Apply failed with 1 conflict: conflict with "a": .spec.keyed[name="x",port=7].value"#;
    assert_eq!((code, status.str_at("message")), (409, message));
    let (code, left) = apply(&mut caller, "v1", "a", tree!({"spec": {"set": ["q"]}})).await;
    assert_eq!(code, 200);
    assert_eq!(left.path("spec").unwrap().to_string(), r#"{"keyed":[{"name":"x","port":8}],"set":["q"]}"#);
}

#[tokio::test]
async fn custom_apply_owns_a_list_as_a_whole_after_the_schema_says_so() {
    let (_fixture, mut caller) = start().await;
    let (code, made) = apply(&mut caller, "v1", "a", tree!({"spec": {"set": ["p"]}})).await;
    assert_eq!((code, fields(&made, "a").as_str()), (201, r#"{"f:spec":{"f:set":{"v:\"p\"":{}}}}"#));
    let (_, mut changed) = caller.get(&format!("{DEFINITIONS}/widgets.example.com")).await;
    for version in 0..2 {
        let versions = changed.path_mut("spec.versions").unwrap();
        let Tree::List(versions) = versions else { panic!("a list") };
        let set = "schema.openAPIV3Schema.properties.spec.properties.set.x-kubernetes-list-type";
        versions[version].set(set, "atomic");
    }
    let (code, answer) = caller.put(&format!("{DEFINITIONS}/widgets.example.com"), &changed).await;
    assert_eq!(code, 200, "{answer}");
    let (code, status) = apply(&mut caller, "v1", "b", tree!({"spec": {"set": ["q"]}})).await;
    let message = r#"Apply failed with 1 conflict: conflict with "a": .spec.set"#;
    assert_eq!((code, status.str_at("message")), (409, message));
}

#[tokio::test]
async fn custom_managed_fields_of_a_version_that_is_none_stop_applies() {
    let (_fixture, mut caller) = start().await;
    apply(&mut caller, "v1", "a", tree!({"spec": {"set": ["p"]}})).await;
    let (_, mut found) = caller.get(&at("v1")).await;
    let kept = found.path("metadata.managedFields").cloned();
    let strange = tree!([{"manager": "m", "operation": "Apply", "apiVersion": "v9", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:set": {}}}}]);
    found.set("metadata.managedFields", strange);
    found.set("spec.list", tree!(["x"]));
    let (code, left) = caller.put(&format!("{}?fieldManager=u", at("v1")), &found).await;
    assert_eq!(
        (code, left.path("metadata.managedFields")),
        (200, kept.as_ref()),
        "an update keeps what was there: {left}"
    );
    found.set("metadata.managedFields", Tree::List(Vec::new()));
    found.set("metadata.resourceVersion", left.str_at("metadata.resourceVersion"));
    let (_, left) = caller.put(&format!("{}?fieldManager=u", at("v1")), &found).await;
    assert_eq!(left.path("metadata.managedFields"), kept.as_ref(), "an empty list of a custom resource is none");
}

#[tokio::test]
async fn custom_status_writes_change_the_status_only() {
    let (_fixture, mut caller) = start().await;
    apply(&mut caller, "v1", "a", tree!({"spec": {"set": ["p"]}})).await;
    let patch = tree!({"metadata": {"labels": {"x": "1"}}, "spec": {"set": []}, "status": {"phase": "Done"}});
    let (code, left) = caller.merge(&format!("{}/status?fieldManager=u", at("v1")), &patch).await;
    assert_eq!((code, left.path("metadata.labels"), left.str_at("status.phase")), (200, None, "Done"), "{left}");
    assert_eq!(left.i64_at("metadata.generation"), Some(1));
    assert_eq!(fields(&left, "u"), r#"{"f:status":{".":{},"f:phase":{}}}"#);
}
