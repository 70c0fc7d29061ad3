//! The machine goes down.

use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::Tree;

use crate::Cluster;

/// Ordinary pods end before critical ones, each with upstream's words; the node is not ready and takes no pod until the shutdown is
/// called off.
pub async fn shutdown_ends_pods_by_priority(cluster: Cluster) {
    let container = r#""containers":[{"name":"c","image":"i","command":["sh","-c","trap 'exit 0' TERM; while true; do sleep 0.1; done"]}]"#;
    cluster.create("plain", container);
    cluster.create("critical", &format!(r#""priority":2000000000,{container}"#));
    for name in ["plain", "critical"] {
        cluster.running(name).await;
    }
    let agent = &cluster.running.as_ref().unwrap().0;
    agent.shut_down().await;
    let mut ends = Vec::new();
    for name in ["plain", "critical"] {
        let pod = cluster.api.find(&Cluster::key(name)).unwrap().to_tree();
        assert_eq!((pod.str_at("status.phase"), pod.str_at("status.reason")), ("Failed", "Terminated"));
        let message = "Pod was terminated in response to imminent node shutdown.";
        assert_eq!(pod.str_at("status.message"), message);
        let conditions = pod.list_at("status.conditions");
        let target = conditions.iter().find(|c| c.str_at("type") == "DisruptionTarget").unwrap();
        let of = |field| target.str_at(field);
        assert_eq!((of("status"), of("reason"), of("message")), ("True", "TerminationByKubelet", message));
        let state = pod.list_at("status.containerStatuses")[0].clone();
        assert_eq!(state.i64_at("state.terminated.exitCode"), Some(0), "it had time to end by itself");
        ends.push(cluster.api.find(&Cluster::key(name)).unwrap().head.revision);
    }
    assert!(ends[0] < ends[1], "{ends:?}");
    let ready = |cluster: &Cluster| -> (String, String) {
        let node = cluster.api.find(&ObjectKey::new(id::NODE, "", "n1")).unwrap().to_tree();
        let ready = node.list_at("status.conditions").iter().find(|c| c.str_at("type") == "Ready").cloned();
        let ready = ready.unwrap_or_default();
        (ready.str_at("status").to_owned(), ready.str_at("message").to_owned())
    };
    assert_eq!(ready(&cluster), ("False".to_owned(), "node is shutting down".to_owned()));
    cluster.create("late", container);
    let late = cluster.until("late", "rejected", |pod: &Tree| pod.str_at("status.phase") == "Failed").await;
    assert_eq!(late.str_at("status.reason"), "NodeShutdown");
    assert_eq!(late.str_at("status.message"), "Pod was rejected: Pod was rejected as the node is shutting down.");
    // Whoever would not have been taken anyhow hears that.
    let asks = container.replace(r#""image":"i","#, r#""image":"i","resources":{"requests":{"cpu":"100k"}},"#);
    cluster.create("large", &asks);
    let large = cluster.until("large", "rejected", |pod: &Tree| pod.str_at("status.phase") == "Failed").await;
    assert_eq!(large.str_at("status.reason"), "OutOfcpu");
    cluster.running.as_ref().unwrap().0.cancel_shutdown().await;
    assert_eq!(ready(&cluster).0, "True");
    cluster.create("later", container);
    cluster.running("later").await;
    for name in ["plain", "critical", "late", "large", "later"] {
        cluster.delete(name).await;
    }
    cluster.end().await;
}
