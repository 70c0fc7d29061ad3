//! The scheduler beside the API server.

use std::sync::Arc;

use corten_base::{SystemClock, SystemEntropy};
use corten_kinds::id;
use corten_manager::Manager;
use corten_object::ObjectKey;
use corten_tree::{Tree, tree};

use crate::common::Fixture;
use crate::common::caller::Caller;

#[tokio::test]
async fn scheduler_name_of_another_scheduler_is_left_alone() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(admin.post(accounts, &tree!({"metadata": {"name": "default"}})).await.0, 201);
    assert_eq!(admin.post("/api/v1/nodes", &tree!({"metadata": {"name": "n1"}})).await.0, 201);
    // There is no controller that would take the new node's taint away.
    let ready = tree!({"spec": {"taints": null}});
    assert_eq!(admin.merge("/api/v1/nodes/n1", &ready).await.0, 200);
    let room = tree!({"status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "9"}}});
    assert_eq!(admin.merge("/api/v1/nodes/n1/status", &room).await.0, 200);
    for (name, scheduler) in [("theirs", "acme-scheduler"), ("ours", "default-scheduler")] {
        let pod = tree!({"metadata": {"name": name}, "spec": {"schedulerName": scheduler, "containers": [{"name": "c", "image": "i"}]}});
        assert_eq!(admin.post("/api/v1/namespaces/default/pods", &pod).await.0, 201);
    }
    let api = fixture.admin();
    let manager = Manager {
        cache: fixture.cache.clone(),
        api: Arc::new(move |_: &str| api.clone()),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
    };
    manager.start_scheduler(&fixture.tasks);
    let pod = |fixture: &Fixture, name: &str| -> Tree {
        fixture.cache.get(&ObjectKey::new(id::POD, "default", name)).unwrap().to_tree()
    };
    fixture.until_cache(|fixture| pod(fixture, "ours").str_at("spec.nodeName") == "n1").await;
    let theirs = pod(&fixture, "theirs");
    assert_eq!((theirs.str_at("spec.nodeName"), theirs.list_at("status.conditions").len()), ("", 0), "{theirs}");
}
