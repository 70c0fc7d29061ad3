//! The cases, against what upstream's kube-apiserver said when `cargo xtask faults --record` ran.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::collections::{HashMap, VecDeque};

use corten_faults::ask::Asker;
use corten_faults::{case, golden_dir, recorded, server};

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
