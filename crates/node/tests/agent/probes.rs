//! When probes are asked, what is made of those that cannot be, and how restarts are told, with real containers.

use corten_tree::Tree;

use crate::Cluster;

fn is_ready(pod: &Tree) -> bool {
    pod.list_at("status.containerStatuses").first().is_some_and(|c| c.bool_at("ready"))
}

/// Who starts slowly is ready soon after, not at the next probe.
pub(crate) async fn ready_before_the_next_probe(cluster: Cluster) {
    cluster.create(
        "slow",
        r#""containers":[{"name":"c","image":"i","command":["sh","-c","sleep 1; httpd -p 8080 -h /tmp; sleep 1000"],
        "readinessProbe":{"tcpSocket":{"port":8080},"periodSeconds":600,"failureThreshold":1,"timeoutSeconds":1}}]"#,
    );
    let pod = cluster.until("slow", "ready", is_ready).await;
    let refused =
        format!("Readiness probe failed: dial tcp {}:8080: connect: connection refused", pod.str_at("status.podIP"));
    cluster.event("slow", "Warning", "Unhealthy", "spec.containers{c}", &refused).await;
    cluster.delete("slow").await;
    cluster.end().await;
}

/// A probe that cannot be asked says nothing of its container: it is told, and that is all.
pub(crate) async fn probes_that_cannot_be_asked(cluster: Cluster) {
    cluster.create(
        "p",
        r#""containers":[{"name":"c","image":"i","command":["sleep","1000"],"env":[{"name":"FILE","value":"/tmp/alive"}],
        "startupProbe":{"exec":{"command":["sh","-c","touch $(FILE)"]},"periodSeconds":1,"failureThreshold":3,"timeoutSeconds":5},
        "livenessProbe":{"exec":{"command":["missing"]},"periodSeconds":1,"failureThreshold":1,"timeoutSeconds":1},
        "readinessProbe":{"tcpSocket":{"port":"nowhere"},"periodSeconds":1,"failureThreshold":1,"timeoutSeconds":1}}]"#,
    );
    let unknown = |kind: &str, why: &str| format!("{kind} probe errored and resulted in unknown state: {why}");
    let port = unknown("Readiness", "port \"nowhere\" not found");
    cluster.event("p", "Warning", "Unhealthy", "spec.containers{c}", &port).await;
    let command = unknown("Liveness", "exec: \"missing\": executable file not found in $PATH");
    cluster.event("p", "Warning", "Unhealthy", "spec.containers{c}", &command).await;
    cluster.exec("p", &["test", "-e", "/tmp/alive"], "").await;
    let pod = cluster.running("p").await;
    assert!(!is_ready(&pod) && pod.list_at("status.containerStatuses")[0].i64_at("restartCount") == Some(0), "{pod}");
    cluster.delete("p").await;
    cluster.end().await;
}

/// A container that the node replaces is never told as not ready; one that ends by itself is.
pub(crate) async fn replacing_is_one_change(cluster: Cluster) {
    cluster.create("p", r#""containers":[{"name":"c","image":"i","command":["sh","-c","trap 'exit 0' TERM; while true; do sleep 0.05; done"]}]"#);
    cluster.until("p", "ready", is_ready).await;
    let restarted = |count: i64| {
        move |pod: &Tree| {
            is_ready(pod) && pod.list_at("status.containerStatuses")[0].i64_at("restartCount") == Some(count)
        }
    };
    let mut changes = cluster.api.feed.subscribe();
    let mut told = || -> Vec<bool> {
        let pods = std::iter::from_fn(|| changes.try_recv().ok()).map(|(_, object)| object);
        pods.filter(|object| object.key() == Cluster::key("p")).map(|pod| is_ready(&pod.to_tree())).collect()
    };
    let key = Cluster::key("p");
    let mut pod = cluster.api.find(&key).unwrap().to_tree();
    let mut container = pod.list_at("spec.containers")[0].clone();
    container.set("image", "j");
    pod.set("spec.containers", Tree::List(vec![container]));
    pod.set("metadata.generation", 2_i64);
    cluster.api.put(&key, pod);
    let pod = cluster.until("p", "replaced", restarted(1)).await;
    assert!(told().into_iter().all(|ready| ready), "{pod}");
    assert_eq!(pod.list_at("status.containerStatuses")[0].i64_at("lastState.terminated.exitCode"), Some(0), "{pod}");
    cluster.exec("p", &["busybox", "kill", "-TERM", "1"], "").await;
    cluster.until("p", "restarted", restarted(2)).await;
    assert!(told().contains(&false));
    cluster.delete("p").await;
    cluster.end().await;
}
