//! The cases, against what upstream's kube-apiserver said when `cargo xtask faults --record` ran.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::collections::{BTreeSet, HashMap, VecDeque};

use corten_faults::ask::Asker;
use corten_faults::{case, golden_dir, recorded, server};
use corten_kinds::{Registry, Verbs};
use hyper::Method;
use serde_json::json;

#[tokio::test]
async fn faults_are_told_as_upstream_tells_them() {
    let dir = tempfile::tempdir().unwrap();
    let material = server::material(dir.path()).unwrap();
    let alone = server::start(material.clone()).await.unwrap();
    let mut asker = Asker::connect(alone.address, &material).await.unwrap();
    asker.prepare().await.unwrap();
    let exceptions = recorded::exceptions().unwrap();
    let mut differences = Vec::new();
    let mut compared = 0;
    for (stem, path) in recorded::case_files().unwrap() {
        let golden = std::fs::read_to_string(golden_dir().join(format!("{stem}.txt"))).unwrap_or_default();
        // A request may come twice, before and after something was given: its answers are in order.
        let mut answers: HashMap<String, VecDeque<String>> = HashMap::new();
        for (id, answer) in recorded::read(&golden) {
            answers.entry(id).or_default().push_back(answer);
        }
        for base in case::parse(&std::fs::read_to_string(path).unwrap()).unwrap() {
            for (id, answer) in asker.ask(&base, &|_| true).await.unwrap() {
                compared += 1;
                match answers.get_mut(&id).and_then(VecDeque::pop_front) {
                    Some(expected) if expected == answer || exceptions.contains_key(&id) => {}
                    Some(expected) => differences.push(format!("{id}\n  upstream: {expected}\n  Corten:   {answer}")),
                    None => differences.push(format!("{id}: not recorded; run `cargo xtask faults --record`")),
                }
            }
        }
    }
    assert!(compared >= 300, "only {compared} cases");
    assert!(differences.is_empty(), "{} of {compared} differ:\n{}", differences.len(), differences.join("\n"));
}

/// Create, get, list, patch, update, deletecollection, for the first manifest of every kind that has these verbs.
#[tokio::test]
async fn every_kind_is_created_read_listed_patched_updated_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let material = server::material(dir.path()).unwrap();
    let alone = server::start(material.clone()).await.unwrap();
    let mut asker = Asker::connect(alone.address, &material).await.unwrap();
    asker.prepare().await.unwrap();
    let registry = Registry::builtin();
    let storing = registry.iter().filter(|kind| kind.verbs.stored() && kind.served_versions().next().is_some());
    let mut untried: BTreeSet<String> = storing.map(|kind| kind.qualified()).collect();
    assert!(untried.len() > 50, "{untried:?}");
    let mut refused = Vec::new();
    for (_, path) in recorded::case_files().unwrap() {
        for base in case::parse(&std::fs::read_to_string(path).unwrap()).unwrap() {
            let Some(kind) = registry.gvk(&base.api_version, &base.kind).filter(|_| base.path.is_empty()) else {
                continue;
            };
            if !untried.contains(&kind.qualified()) {
                continue;
            }
            let (collection, object) = asker.paths(&base).await.unwrap();
            let about = format!("{} {}", base.api_version, base.kind);
            let mut ask = async |method: Method, path: &str, kind: &str, body: String| {
                let answer = asker.send(method.clone(), path, kind, body.into()).await.unwrap();
                (answer.code, answer.body)
            };
            let json = "application/json";
            let (code, made) = ask(Method::POST, &collection, json, base.object.to_string()).await;
            if code != 201 {
                refused.push(format!("{about}: {made}"));
                continue;
            }
            untried.remove(&kind.qualified());
            let (code, again) = ask(Method::POST, &collection, json, base.object.to_string()).await;
            assert_eq!((code, &again["reason"]), (409, &json!("AlreadyExists")), "{about}: {again}");
            let (code, read) = ask(Method::GET, &object, "", String::new()).await;
            assert_eq!((code, &read["metadata"]["uid"]), (200, &made["metadata"]["uid"]), "{about}");
            let label = json!({"metadata": {"labels": {"checklist": "yes"}}}).to_string();
            let (code, patched) = ask(Method::PATCH, &object, "application/merge-patch+json", label).await;
            assert_eq!((code, &patched["metadata"]["labels"]["checklist"]), (200, &json!("yes")), "{about}: {patched}");
            let selected = format!("{collection}?labelSelector=checklist");
            let (code, list) = ask(Method::GET, &selected, "", String::new()).await;
            assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(1)), "{about}: {list}");
            let mut next = patched.clone();
            next["metadata"]["annotations"]["checklist"] = json!("put");
            let (code, put) = ask(Method::PUT, &object, json, next.to_string()).await;
            assert_eq!((code, &put["metadata"]["annotations"]["checklist"]), (200, &json!("put")), "{about}: {put}");
            let (code, stale) = ask(Method::PUT, &object, json, next.to_string()).await;
            assert_eq!((code, &stale["reason"]), (409, &json!("Conflict")), "{about}: {stale}");
            let whole = kind.verbs == Verbs::All;
            let (code, gone) = ask(Method::DELETE, if whole { &selected } else { &object }, "", String::new()).await;
            assert_eq!(code, 200, "{about}: {gone}");
            let (code, left) = ask(Method::GET, &object, "", String::new()).await;
            assert!(code == 404 || left["metadata"]["deletionTimestamp"].is_string(), "{about}: {left}");
        }
    }
    // Requests for certificates hold what only a program makes: crates/apiserver/tests/certificates.rs makes and deletes them.
    untried.retain(|kind| !kind.ends_with(".certificates.k8s.io"));
    assert!(untried.is_empty(), "no manifest of {untried:?}, refused were {refused:#?}");
}
