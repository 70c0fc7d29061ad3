//! Hooks, the signal that ends a container, and a probe by connection, with real containers.

use corten_tree::Tree;

use crate::Cluster;

pub(crate) async fn hooks_and_stop_signal(cluster: Cluster) {
    cluster.create(
        "p",
        r#""containers":[{"name":"c","image":"i","command":["sh","-c","trap 'echo usr1; exit 0' USR1; trap 'echo term; exit 1' TERM; httpd -p 8080 -h /tmp; while true; do sleep 0.1; done"],
        "readinessProbe":{"tcpSocket":{"port":8080},"periodSeconds":1,"failureThreshold":1,"timeoutSeconds":1},
        "lifecycle":{"stopSignal":"SIGUSR1","postStart":{"exec":{"command":["sh","-c","echo post > /proc/1/fd/1"]}},
        "preStop":{"exec":{"command":["sh","-c","echo pre > /proc/1/fd/1"]}}}}]"#,
    );
    let ready = |pod: &Tree| pod.list_at("status.containerStatuses").first().is_some_and(|c| c.bool_at("ready"));
    cluster.until("p", "ready by tcpSocket", ready).await;
    let following = cluster.log("p", true);
    let (log, ()) = futures::future::join(following, cluster.delete("p")).await;
    assert_eq!(log, "post\npre\nusr1\n", "postStart, preStop, stopSignal");
    cluster.create(
        "bad",
        r#""containers":[{"name":"c","image":"i","command":["sleep","1000"],"lifecycle":{"postStart":{"exec":{"command":["false"]}}}}]"#,
    );
    cluster
        .until("bad", "killed by its hook", |pod| {
            pod.list_at("status.containerStatuses").first().is_some_and(|c| c.path("lastState.terminated").is_some())
        })
        .await;
    cluster.first_event("FailedPostStartHook").await;
    cluster.delete("bad").await;
    cluster.create(
        "quick",
        r#""containers":[{"name":"c","image":"i","command":["sleep","1000"],"lifecycle":{"preStop":{"sleep":{"seconds":0}}}}]"#,
    );
    cluster.running("quick").await;
    cluster.delete("quick").await;
    cluster.end().await;
}

/// Hooks that ask the container's own server, in plain text if it knows nothing else.
pub(crate) async fn http_get_hooks(cluster: Cluster) {
    let server = r#""name":"c","image":"i","command":["httpd","-f","-vv","-p","8080","-h","/tmp"],
        "readinessProbe":{"tcpSocket":{"port":"web"},"periodSeconds":1,"failureThreshold":1,"timeoutSeconds":1},
        "ports":[{"name":"web","containerPort":8080}]"#;
    let hook = r#""lifecycle":{"preStop":{"httpGet":{"path":"/bye","port":"web","scheme":"HTTPS"}}}"#;
    cluster.create("p", &format!(r#""containers":[{{{server},{hook}}}]"#));
    let ready = |pod: &Tree| pod.list_at("status.containerStatuses").first().is_some_and(|c| c.bool_at("ready"));
    cluster.until("p", "ready", ready).await;
    let following = cluster.log("p", true);
    let (log, ()) = futures::future::join(following, cluster.delete("p")).await;
    assert!(log.contains("url:/bye"), "{log}");
    // There is no such page, which is no failure of the hook; nor is it one that the server knows no TLS.
    let fallback = cluster.first_event("LifecycleHTTPFallback").await;
    assert!(fallback.ends_with(":8080 got HTTP response, retry with HTTP succeeded"), "{fallback}");
    cluster.end().await;
}
