//! What the node tells of itself.

use corten_kinds::id;
use corten_object::ObjectKey;

use crate::Cluster;

/// Conditions, being taken out of scheduling, and a new start of the machine.
pub(crate) async fn node_events(mut cluster: Cluster) {
    for reason in ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"] {
        assert_eq!(cluster.first_event(reason).await, format!("Node n1 status is now: {reason}"));
    }
    let key = ObjectKey::new(id::NODE, "", "n1");
    let change = |cluster: &Cluster, path: &str, value: corten_tree::Tree| {
        let mut node = cluster.api.find(&key).unwrap().to_tree();
        node.set(path, value);
        cluster.api.put(&key, node);
    };
    change(&cluster, "spec.unschedulable", true.into());
    assert_eq!(cluster.first_event("NodeNotSchedulable").await, "Node n1 status is now: NodeNotSchedulable");
    change(&cluster, "spec.unschedulable", false.into());
    assert_eq!(cluster.first_event("NodeSchedulable").await, "Node n1 status is now: NodeSchedulable");
    drop(cluster.stop_agent().await);
    assert!(!cluster.events().contains_key("Rebooted"));
    let boot = cluster.api.find(&key).unwrap().to_tree().str_at("status.nodeInfo.bootID").to_owned();
    change(&cluster, "status.nodeInfo.bootID", "another".into());
    cluster.start_agent().await;
    assert_eq!(cluster.first_event("Rebooted").await, format!("Node n1 has been rebooted, boot id: {boot}"));
    let uid = cluster.api.find(&key).unwrap().head.uid.to_string();
    let told = cluster.api.all(id::EVENT);
    let told = told.iter().map(|event| event.to_tree()).find(|event| event.str_at("reason") == "Rebooted");
    assert_eq!(told.map(|event| event.str_at("involvedObject.uid").to_owned()), Some(uid));
    cluster.end().await;
}
