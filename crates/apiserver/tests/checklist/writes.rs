//! Dry runs and field validation of every verb.

use corten_tree::{Tree, tree};
use hyper::Method;

use super::MAPS;
use crate::common::Fixture;
use crate::common::caller::Caller;

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

#[tokio::test]
async fn dry_run_of_every_verb_changes_nothing() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let one = |value: &str| tree!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"k": value}});
    assert_eq!(admin.post(MAPS, &one("v")).await.0, 201);
    let at = format!("{MAPS}/one");
    let (_, before) = admin.get(&at).await;
    let revision = fixture.store.current_revision().await.unwrap();
    for (method, path, kind, body, code, shown) in [
        (Method::POST, MAPS, JSON, tree!({"metadata": {"name": "two"}, "data": {"k": "new"}}), 201, "new"),
        (Method::PUT, &at, JSON, one("put"), 200, "put"),
        (Method::PATCH, &at, MERGE, tree!({"data": {"k": "merge"}}), 200, "merge"),
        (Method::PATCH, &at, STRATEGIC, tree!({"data": {"k": "strategic"}}), 200, "strategic"),
        (Method::PATCH, &at, JSON_PATCH, tree!([{"op": "replace", "path": "/data/k", "value": "json"}]), 200, "json"),
        (Method::PATCH, &at, APPLY, one("applied"), 200, "applied"),
        (Method::DELETE, &at, "", Tree::Null, 200, ""),
        (Method::DELETE, MAPS, "", Tree::Null, 200, ""),
    ] {
        let query = if kind == APPLY { "&fieldManager=m&force=true" } else { "" };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (found, _, answer) = admin.send(method.clone(), &format!("{path}?dryRun=All{query}"), kind, &body).await;
        assert_eq!((found, answer.str_at("data.k")), (code, shown), "{method} {kind}: {answer}");
    }
    assert_eq!(admin.get(&at).await.1, before);
    assert_eq!(fixture.store.current_revision().await.unwrap(), revision, "no revision was taken");
}

#[tokio::test]
async fn field_validation_strict_refuses_warn_tells_and_ignore_is_silent() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    assert_eq!(admin.post(MAPS, &tree!({"metadata": {"name": "one"}})).await.0, 201);
    let at = format!("{MAPS}/one");
    let odd =
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"one"},"data":{"k":"a","k":"b"},"nothing":1}"#;
    let told = [r#"299 - "duplicate field \"data.k\"""#, r#"299 - "unknown field \"nothing\"""#];
    for (method, path, kind) in [
        (Method::POST, format!("{MAPS}?dryRun=All&"), JSON),
        (Method::PUT, format!("{at}?"), JSON),
        (Method::PATCH, format!("{at}?"), MERGE),
        (Method::PATCH, format!("{at}?"), STRATEGIC),
        (Method::PATCH, format!("{at}?fieldManager=m&force=true&"), APPLY),
    ] {
        let body = if method == Method::POST { odd.replace("\"one\"", "\"two\"") } else { odd.to_owned() };
        for mode in ["Strict", "Warn", "", "Ignore"] {
            let path = format!("{path}fieldValidation={mode}");
            let (code, headers, answer) = admin.send(method.clone(), &path, kind, &body).await;
            let mut warnings: Vec<_> = headers.get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
            warnings.sort_unstable();
            match mode {
                // What is no field cannot be owned, however the body is to be read: that is said first, by upstream, too.
                _ if kind == APPLY => {
                    let message = answer.str_at("message");
                    assert!(
                        code == 500 && message.ends_with(".nothing: field not declared in schema"),
                        "{path}: {answer}"
                    );
                }
                "Strict" => {
                    let message = answer.str_at("message");
                    let (duplicate, unknown) =
                        (message.contains("duplicate field \"data.k\""), message.contains("unknown field \"nothing\""));
                    let both = (duplicate, unknown);
                    assert!([400, 422].contains(&code) && both == (true, true), "{path} {kind}: {answer}");
                }
                "Ignore" => assert_eq!((code / 100, warnings.len()), (2, 0), "{path} {kind}: {answer}"),
                _ => assert_eq!((code / 100, &*warnings), (2, &told[..]), "{path} {kind}: {answer}"),
            }
        }
    }
}
