//! In-place resize against the kernel's cgroups.

use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::Tree;

use crate::fake_api::FakeApi;
use crate::{Cluster, container_id};

const TWO: &str = r#""containers":[
    {"name":"c","image":"i","command":["sleep","1000"],"resources":{"requests":{"cpu":"100m","memory":"64Mi"},"limits":{"cpu":"200m","memory":"64Mi"}}},
    {"name":"r","image":"i","command":["sleep","1000"],"resources":{"requests":{"cpu":"100m","memory":"64Mi"},"limits":{"cpu":"200m","memory":"64Mi"}},
     "resizePolicy":[{"resourceName":"memory","restartPolicy":"RestartContainer"}]}]"#;

/// Writes other resources of a container into the pod, as the resize subresource does.
fn resize(cluster: &Cluster, container: usize, resources: &str) -> i64 {
    let key = Cluster::key("p");
    let mut pod = cluster.api.find(&key).unwrap().to_tree();
    let generation = pod.i64_at("metadata.generation").unwrap() + 1;
    pod.set("metadata.generation", generation);
    let Some(Tree::List(containers)) = pod.path_mut("spec.containers") else { panic!("no containers") };
    containers[container].insert("resources", corten_tree::json::parse(resources.as_bytes()).unwrap());
    cluster.api.put(&key, pod);
    generation
}

fn condition<'t>(pod: &'t Tree, kind: &str) -> Option<&'t Tree> {
    pod.list_at("status.conditions").iter().find(|c| c.str_at("type") == kind)
}

async fn settled(cluster: &Cluster, generation: i64) -> Tree {
    let over = |pod: &Tree| {
        pod.i64_at("status.observedGeneration") == Some(generation)
            && condition(pod, "PodResizePending").is_none()
            && condition(pod, "PodResizeInProgress").is_none()
            && condition(pod, "Ready").is_some_and(|c| c.str_at("status") == "True")
    };
    cluster.until("p", "resized", over).await
}

/// CPU quota in microseconds per 100 ms and the memory limit in bytes, as the container sees them.
async fn limits(cluster: &Cluster) -> String {
    let script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null \
        || cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max";
    let (_, out) = cluster.exec("p", &["sh", "-c", script], "").await;
    out.replace(" 100000", "")
}

pub async fn resize_in_place(mut cluster: Cluster) {
    cluster.create("p", TWO);
    cluster.running("p").await;
    let before = settled(&cluster, 1).await;
    assert_eq!(limits(&cluster).await, "20000\n67108864\n");
    let grown = r#"{"requests":{"cpu":"200m","memory":"96Mi"},"limits":{"cpu":"500m","memory":"128Mi"}}"#;
    let generation = resize(&cluster, 0, grown);
    let pod = settled(&cluster, generation).await;
    assert_eq!(limits(&cluster).await, "50000\n134217728\n");
    let status = &pod.list_at("status.containerStatuses")[0];
    let wanted = corten_tree::json::parse(grown.as_bytes()).unwrap();
    assert!(status.path("resources").unwrap().semantically_equal(&wanted), "{status}");
    assert_eq!(status.str_at("allocatedResources.cpu"), "200m");
    assert_eq!(status.i64_at("restartCount"), Some(0));
    assert_eq!(container_id(&pod), container_id(&before));

    // Memory is never taken below what is in use: the pod says so, and goes back when it is asked to.
    let tiny = r#"{"requests":{"cpu":"200m","memory":"10Ki"},"limits":{"cpu":"500m","memory":"10Ki"}}"#;
    resize(&cluster, 0, tiny);
    let failed = |pod: &Tree| condition(pod, "PodResizeInProgress").is_some_and(|c| c.str_at("reason") == "Error");
    let pod = cluster.until("p", "resize error", failed).await;
    let message = condition(&pod, "PodResizeInProgress").unwrap().str_at("message").to_owned();
    assert!(
        message.starts_with("cannot decrease memory limits: ")
            && message.contains("memory limit (10240) below current usage"),
        "{message}"
    );
    let told = |_: &FakeApi| cluster.events().contains_key("ResizeError").then_some(());
    cluster.api.until("the error's event", told).await;
    // A new agent knows what was promised and what was made of it.
    let old = cluster.stop_agent().await;
    drop(old);
    cluster.start_agent().await;
    let generation = resize(&cluster, 0, grown);
    settled(&cluster, generation).await;
    assert_eq!(limits(&cluster).await, "50000\n134217728\n");

    // A policy of RestartContainer restarts that container only.
    let generation =
        resize(&cluster, 1, r#"{"requests":{"cpu":"100m","memory":"32Mi"},"limits":{"cpu":"200m","memory":"32Mi"}}"#);
    let restarted = |pod: &Tree| pod.list_at("status.containerStatuses")[1].i64_at("restartCount") == Some(1);
    cluster.until("p", "restarted", restarted).await;
    let pod = settled(&cluster, generation).await;
    assert_eq!(pod.list_at("status.containerStatuses")[0].i64_at("restartCount"), Some(0));
    assert_eq!(pod.list_at("status.containerStatuses")[1].str_at("resources.limits.memory"), "32Mi");
    assert_eq!(cluster.first_event("ResizeError").await.split(':').next(), Some("Pod resize error"));

    // More than the node has is deferred until there is room.
    let much = r#"{"requests":{"cpu":"4000","memory":"96Mi"},"limits":{"cpu":"4000","memory":"128Mi"}}"#;
    resize(&cluster, 0, much);
    let pending = |pod: &Tree| condition(pod, "PodResizePending").is_some();
    let pod = cluster.until("p", "deferred", pending).await;
    assert_eq!(condition(&pod, "PodResizePending").unwrap().str_at("reason"), "Deferred");
    assert_eq!(limits(&cluster).await, "50000\n134217728\n");
    let generation = resize(&cluster, 0, grown);
    settled(&cluster, generation).await;
    assert!(cluster.api.find(&ObjectKey::new(id::NODE, "", "n1")).is_some());
    cluster.delete("p").await;
    cluster.end().await;
}
