//! Pods of manifests, with their mirrors in the API and without an API.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use corten_client::{Api, DeleteOptions, Write, WriteOptions};
use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::Tree;

use crate::fake_api::FakeApi;
use crate::watching::until_in;
use crate::{Cluster, container_id};

fn manifest(name: &str, script: &str) -> String {
    let script = Tree::from(script).to_json_string();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - {{name: c, image: i, command: [sh, -c, {script}]}}\n"
    )
}

/// Puts a file there as a whole, as careful people do.
fn put(dir: &Path, file: &str, text: &str) {
    let partial = dir.join(format!(".{file}.partial"));
    std::fs::write(&partial, text).unwrap();
    std::fs::rename(&partial, dir.join(file)).unwrap();
}

async fn told(cluster: &Cluster, what: &str) -> String {
    let found = cluster.api.until(what, |api| {
        let messages = api.all(id::EVENT).into_iter().map(|e| e.to_tree());
        let found = messages.filter(|e| e.str_at("reason") == "InvalidStaticPod");
        found.map(|e| e.str_at("message").to_owned()).find(|message| message.contains(what))
    });
    found.await
}

/// A manifest becomes a pod with a mirror; the mirror comes back when it is deleted, without an end of the pod; the manifest's change
/// is a new pod, its removal the end. A wrong manifest is told of and hinders no other.
pub async fn static_pods_and_mirrors(mut cluster: Cluster) {
    let dir = cluster.base.join("manifests");
    // There was no such directory when the agent began.
    std::fs::create_dir(&dir).unwrap();
    put(&dir, "web.yaml", &manifest("web", "echo first; while true; do sleep 0.1; done"));
    put(&dir, "bad.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: []}\n");
    let pod = cluster.running("web-n1").await;
    let meta =
        |pod: &Tree, path: &str| pod.at(&["metadata", "annotations", path]).and_then(Tree::as_str).map(str::to_owned);
    let hash = meta(&pod, "kubernetes.io/config.hash").unwrap();
    assert_eq!(meta(&pod, "kubernetes.io/config.mirror"), Some(hash.clone()));
    assert_eq!(meta(&pod, "kubernetes.io/config.source").as_deref(), Some("file"));
    assert!(meta(&pod, "kubernetes.io/config.seen").is_some());
    let node = cluster.api.find(&ObjectKey::new(id::NODE, "", "n1")).unwrap();
    let owner = &pod.list_at("metadata.ownerReferences")[0];
    assert_eq!((owner.str_at("kind"), owner.str_at("uid")), ("Node", node.head.uid.as_str()));
    assert_ne!(pod.str_at("metadata.uid"), hash);
    let message = told(&cluster, "bad.yaml").await;
    assert!(message.contains("spec.containers: Required value"), "{message}");
    let (_, out) = cluster.exec("web-n1", &["echo", "in", "it"], "").await;
    assert_eq!(out, "in it\n");

    // Whoever deletes the mirror deletes no pod.
    for grace_seconds in [Some(0), Some(30)] {
        let before = cluster.running("web-n1").await;
        let options = DeleteOptions { grace_seconds, ..DeleteOptions::default() };
        let write = Write::Delete { key: Cluster::key("web-n1"), options };
        cluster.api.write(write, WriteOptions::default()).await.unwrap();
        let uid = before.str_at("metadata.uid").to_owned();
        let again = cluster.until("web-n1", "a new mirror", |pod| {
            pod.str_at("metadata.uid") != uid && pod.str_at("status.phase") == "Running"
        });
        let again = again.await;
        assert_eq!(container_id(&again), container_id(&before));
        assert_eq!(again.list_at("status.containerStatuses")[0].i64_at("restartCount"), Some(0));
    }

    // A new agent takes the pod over.
    let before = container_id(&cluster.running("web-n1").await);
    drop(cluster.stop_agent().await);
    cluster.start_agent().await;
    put(&dir, "second.json", &manifest("second", "sleep 1000"));
    cluster.running("second-n1").await;
    assert_eq!(container_id(&cluster.running("web-n1").await), before);

    // A manifest that gets wrong keeps its pod for a while; one that says something else is another pod.
    put(&dir, "web.yaml", "kind: [");
    told(&cluster, "web.yaml").await;
    assert_eq!(container_id(&cluster.running("web-n1").await), before);
    cluster.api.until("the mirror goes", |api| api.find(&Cluster::key("web-n1")).is_none().then_some(())).await;
    cluster.running("second-n1").await;
    put(&dir, "web.yaml", &manifest("web", "echo second; while true; do sleep 0.1; done"));
    let changed = cluster.until("web-n1", "another pod", |pod| {
        meta(pod, "kubernetes.io/config.mirror").is_some_and(|h| h != hash) && pod.str_at("status.phase") == "Running"
    });
    assert_ne!(container_id(&changed.await), before);
    std::fs::remove_file(dir.join("web.yaml")).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    for name in ["web-n1", "second-n1"] {
        cluster.api.until("the mirror goes", |api| api.find(&Cluster::key(name)).is_none().then_some(())).await;
    }
    // Nothing runs when the mirrors have gone.
    let agent = cluster.stop_agent().await;
    assert_eq!(agent.running().unwrap(), 0);
    drop(agent);
    cluster.start_agent().await;
    cluster.end().await;
}

/// A manifest of a pod that makes a file of its name in a directory of this machine, and the directory.
fn marking(cluster: &Cluster, name: &str) -> (String, PathBuf) {
    let mark = cluster.base.join("mark");
    std::fs::create_dir_all(&mark).unwrap();
    let text = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, volumes: [{{name: m, \
         hostPath: {{path: {:?}}}}}], containers: [{{name: c, image: i, volumeMounts: [{{name: m, mountPath: /tmp}}], command: [sh, -c, \
         \"echo up > /tmp/{name}; sleep 1000\"]}}]}}}}",
        mark.display().to_string()
    );
    (text, mark)
}

/// Static pods run while nobody answers, and have their mirrors when somebody does.
pub async fn static_pods_without_the_api(mut cluster: Cluster) {
    drop(cluster.stop_agent().await);
    cluster.api.away.store(true, Ordering::SeqCst);
    let dir = cluster.base.join("manifests");
    std::fs::create_dir(&dir).unwrap();
    let (text, mark) = marking(&cluster, "alone");
    put(&dir, "alone.yaml", &text);
    cluster.start_agent().await;
    until_in(&[&mark], "the static pod runs", async || mark.join("alone").exists()).await;
    assert!(cluster.api.find(&Cluster::key("alone-n1")).is_none());
    cluster.api.away.store(false, Ordering::SeqCst);
    let pod = cluster.running("alone-n1").await;
    assert_eq!(pod.list_at("status.containerStatuses")[0].i64_at("restartCount"), Some(0));
    std::fs::remove_file(dir.join("alone.yaml")).unwrap();
    cluster.api.until("the mirror goes", |api| api.find(&Cluster::key("alone-n1")).is_none().then_some(())).await;
    cluster.end().await;
}

/// Before the API has the node's first status, static pods are admitted by what the status is going to say.
pub async fn static_pods_before_the_first_status(mut cluster: Cluster) {
    let node = ObjectKey::new(id::NODE, "", "n1");
    let has_status = |api: &FakeApi| api.find(&node)?.to_tree().path("status.allocatable").map(drop);
    cluster.api.until("the node is registered", has_status).await;
    drop(cluster.stop_agent().await);
    let mut fresh = cluster.api.find(&node).unwrap().to_tree();
    fresh.remove("status");
    cluster.api.put(&node, fresh);
    cluster.api.no_node_status.store(true, Ordering::SeqCst);
    let dir = cluster.base.join("manifests");
    std::fs::create_dir(&dir).unwrap();
    let (text, mark) = marking(&cluster, "fits");
    put(&dir, "fits.yaml", &text);
    let large = manifest("large", "sleep 1000").replace("image: i,", "image: i, resources: {requests: {cpu: 100k}},");
    put(&dir, "large.yaml", &large);
    cluster.start_agent().await;
    until_in(&[&mark], "the static pod runs", async || mark.join("fits").exists()).await;
    let found = cluster.api.find(&node).unwrap().to_tree();
    assert!(found.path("status.allocatable").is_none(), "{found}");
    cluster.api.no_node_status.store(false, Ordering::SeqCst);
    assert_eq!(cluster.running("fits-n1").await.list_at("status.containerStatuses")[0].i64_at("restartCount"), Some(0));
    let refused = cluster.until("large-n1", "refused", |pod| pod.str_at("status.phase") == "Failed").await;
    assert_eq!(refused.str_at("status.reason"), "OutOfcpu", "{refused}");
    std::fs::remove_dir_all(&dir).unwrap();
    for name in ["fits-n1", "large-n1"] {
        cluster.api.until("the mirror goes", |api| api.find(&Cluster::key(name)).is_none().then_some(())).await;
    }
    cluster.end().await;
}

/// Static pods are critical: for one that finds no room another pod ends.
pub async fn static_pod_preempts(cluster: Cluster) {
    let dir = cluster.base.join("manifests");
    std::fs::create_dir(&dir).unwrap();
    let cpus = |api: &FakeApi| -> Option<i64> {
        let node = api.find(&ObjectKey::new(id::NODE, "", "n1"))?.to_tree();
        node.str_at("status.allocatable.cpu").parse().ok()
    };
    let cpus = cluster.api.until("the node is registered", cpus).await;
    let half = format!("{}m", cpus * 600);
    let request = format!(r#""resources":{{"requests":{{"cpu":"{half}"}}}}"#);
    cluster.create("plain", &format!(r#""terminationGracePeriodSeconds":1,"containers":[{{"name":"c","image":"i","command":["sleep","1000"],{request}}}]"#));
    cluster.running("plain").await;
    let text = manifest("critical", "sleep 1000");
    put(
        &dir,
        "critical.yaml",
        &text.replace("image: i,", &format!("image: i, resources: {{requests: {{cpu: {half}}}}},")),
    );
    let ended = cluster.until("plain", "preempted", |pod| pod.str_at("status.phase") == "Failed").await;
    assert_eq!(ended.str_at("status.reason"), "Preempting", "{ended}");
    assert_eq!(ended.str_at("status.message"), "Preempted in order to admit critical pod");
    let of_disruption = |c: &&corten_tree::Tree| c.str_at("type") == "DisruptionTarget";
    let condition = ended.list_at("status.conditions").iter().find(of_disruption).unwrap();
    assert_eq!(condition.str_at("reason"), "TerminationByKubelet");
    assert_eq!(cluster.first_event("Preempting").await, "Preempted in order to admit critical pod");
    cluster.running("critical-n1").await;
    std::fs::remove_dir_all(&dir).unwrap();
    cluster.api.until("the mirror goes", |api| api.find(&Cluster::key("critical-n1")).is_none().then_some(())).await;
    cluster.delete("plain").await;
    cluster.end().await;
}
