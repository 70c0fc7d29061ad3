//! What the kubelet's HTTP server answers (`pkg/kubelet/server/server.go`): asked through `nodes/NAME/proxy`.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use corten_client::{LogRequest, NodeAnswer, NodeApi as _, NodeRequest, PodTarget};
use corten_object::{Status, time};
use corten_runtime::{Container, ContainerStatus, Stats};
use corten_tree::{Tree, tree};

use crate::labels;
use crate::node_api::LocalNode;
use crate::shared::Shared;

/// The host's logs.
const LOGS: &str = "/var/log";
/// Largest file of them that is answered, in bytes.
const LOG_BYTES_MAX: u64 = 64 << 20;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn not_found() -> NodeAnswer {
    NodeAnswer::whole(404, TEXT, "404 page not found\n")
}

/// Answers one request.
pub async fn answer(node: &LocalNode, request: NodeRequest) -> Result<NodeAnswer, Status> {
    if request.node != node.shared.config.node_name {
        return Err(Status::not_found("", "nodes", &request.node));
    }
    let path = request.path.trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return Ok(NodeAnswer::whole(405, TEXT, "405: Method Not Allowed\n"));
    }
    Ok(match parts.as_slice() {
        ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => NodeAnswer::whole(200, TEXT, "ok"),
        ["pods"] => NodeAnswer::whole(200, JSON, pods(node, false)),
        ["runningpods"] => NodeAnswer::whole(200, JSON, pods(node, true)),
        ["configz"] => NodeAnswer::whole(200, JSON, configz(&node.shared)),
        ["metrics"] => NodeAnswer::whole(200, METRICS, metrics(&observe(&node.shared).await?)),
        ["metrics", "cadvisor"] => NodeAnswer::whole(200, METRICS, cadvisor(&observe(&node.shared).await?)),
        ["metrics", "resource"] => NodeAnswer::whole(200, METRICS, resource(&observe(&node.shared).await?)),
        ["metrics", "probes" | "slis"] => NodeAnswer::whole(200, METRICS, ""),
        ["stats", "summary"] => NodeAnswer::whole(200, JSON, summary(&node.shared, &observe(&node.shared).await?)),
        ["containerLogs", namespace, pod, container] => {
            let target =
                PodTarget { namespace: (*namespace).into(), pod: (*pod).into(), container: (*container).into() };
            let flag = |name: &str| matches!(parameter(&request.query, name), Some("true" | "1"));
            let number = |name: &str| parameter(&request.query, name).and_then(|n| n.parse().ok());
            let log = LogRequest {
                target,
                follow: flag("follow"),
                previous: flag("previous"),
                timestamps: flag("timestamps"),
                tail_lines: number("tailLines"),
                limit_bytes: number("limitBytes"),
                ..LogRequest::default()
            };
            NodeAnswer { code: 200, content_type: "text/plain".into(), body: node.logs(log).await? }
        }
        ["logs", rest @ ..] => {
            let (wanted, slash) = (rest.join("/"), request.path.ends_with('/'));
            let read = tokio::task::spawn_blocking(move || host_logs(Path::new(LOGS), &wanted, slash)).await;
            read.map_err(Status::internal)?
        }
        _ => not_found(),
    })
}

fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

/// The node's pods as a list; only those that run, if wanted.
fn pods(node: &LocalNode, running: bool) -> Vec<u8> {
    let mut items: Vec<Tree> = node.pods.all().iter().map(|pod| pod.to_tree()).collect();
    items.retain(|pod| !running || pod.str_at("status.phase") == "Running");
    tree!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": (Tree::List(items))}).to_json()
}

/// What of the kubelet's configuration means something here.
fn configz(shared: &Shared) -> Vec<u8> {
    let config = &shared.config;
    let dns: Vec<Tree> = config.cluster_dns.iter().map(|ip| ip.to_string().into()).collect();
    tree!({"kubeletconfig": {"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "clusterDomain": (config.cluster_domain.as_str()), "clusterDNS": (Tree::List(dns)),
        "maxPods": (i64::from(config.pods_max)), "cgroupsPerQOS": true, "enableServer": true,
        "podCIDR": (format!("{}/{}", config.pod_cidr.0, config.pod_cidr.1))}})
    .to_json()
}

/// A directory of the host's logs as a page, or a file of them. What links lead out of it is not there.
fn host_logs(root: &Path, wanted: &str, slash: bool) -> NodeAnswer {
    let (Ok(root), Ok(path)) = (root.canonicalize(), root.join(wanted).canonicalize()) else { return not_found() };
    let Some(meta) = path.metadata().ok().filter(|_| path.starts_with(&root)) else { return not_found() };
    if meta.is_file() && meta.len() <= LOG_BYTES_MAX && !slash {
        return match std::fs::read(&path) {
            Ok(bytes) => NodeAnswer::whole(200, TEXT, bytes),
            Err(_) => not_found(),
        };
    }
    if !meta.is_dir() {
        return not_found();
    }
    let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
    let name = |entry: std::fs::DirEntry| {
        let end = if entry.path().is_dir() { "/" } else { "" };
        Some(format!("{}{end}", entry.file_name().to_str()?))
    };
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort_unstable();
    let mut page = String::from("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n");
    for name in names {
        let shown = name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
        let _ = writeln!(page, "<a href=\"{shown}\">{shown}</a>");
    }
    page.push_str("</pre>\n");
    NodeAnswer::whole(200, "text/html; charset=utf-8", page)
}

/// A container that runs, and what it uses.
struct Used {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    started_at: u64,
    stats: Stats,
}

/// What runs, and what it uses.
struct Usage {
    node: Stats,
    containers: Vec<Used>,
    sandboxes: usize,
}

async fn observe(shared: &Arc<Shared>) -> Result<Usage, Status> {
    let read = shared.blocking(|shared| {
        let runtime = &shared.runtime;
        let used = |container: Container| {
            let ContainerStatus::Running { started_at, .. } = container.status else { return None };
            let label = |key| labels::get(&container.labels, key).to_owned();
            Some(Used {
                namespace: label(labels::POD_NAMESPACE),
                pod: label(labels::POD_NAME),
                uid: label(labels::POD_UID),
                container: label(labels::CONTAINER),
                started_at,
                // It may have ended since.
                stats: runtime.container_stats(&container.id).ok()?,
            })
        };
        let mut containers: Vec<Used> = runtime.list_containers()?.into_iter().filter_map(used).collect();
        containers.sort_by(|a, b| (&a.namespace, &a.pod, &a.container).cmp(&(&b.namespace, &b.pod, &b.container)));
        let sandboxes = runtime.list_sandboxes()?.iter().filter(|s| s.ready).count();
        Ok::<_, corten_runtime::Error>(Usage { node: runtime.cgroup_stats("")?, containers, sandboxes })
    });
    read.await.map_err(Status::internal)?.map_err(Status::internal)
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// `/metrics`
fn metrics(usage: &Usage) -> String {
    format!(
        "# TYPE kubelet_running_pods gauge\nkubelet_running_pods {}\n# TYPE kubelet_running_containers gauge\n\
         kubelet_running_containers{{container_state=\"running\"}} {}\n",
        usage.sandboxes,
        usage.containers.len()
    )
}

/// One metric with a value for each container.
fn each(out: &mut String, name: &str, kind: &str, usage: &Usage, value: impl Fn(&Used) -> f64) {
    let _ = writeln!(out, "# TYPE {name} {kind}");
    for used in &usage.containers {
        let (container, namespace, pod) = (&used.container, &used.namespace, &used.pod);
        let _ = writeln!(
            out,
            "{name}{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\"}} {} {}",
            value(used),
            used.stats.at / 1_000_000
        );
    }
}

/// `/metrics/cadvisor`
fn cadvisor(usage: &Usage) -> String {
    let mut out = String::new();
    each(&mut out, "container_cpu_usage_seconds_total", "counter", usage, |u| seconds(u.stats.cpu_usage));
    each(&mut out, "container_memory_usage_bytes", "gauge", usage, |u| u.stats.memory_usage as f64);
    each(&mut out, "container_memory_working_set_bytes", "gauge", usage, |u| u.stats.memory_working_set as f64);
    each(&mut out, "container_memory_rss", "gauge", usage, |u| u.stats.memory_rss as f64);
    each(&mut out, "container_start_time_seconds", "gauge", usage, |u| seconds(u.started_at).floor());
    each(&mut out, "container_processes", "gauge", usage, |u| u.stats.pids as f64);
    out
}

/// `/metrics/resource`: what a metrics server reads.
fn resource(usage: &Usage) -> String {
    let at = usage.node.at / 1_000_000;
    let mut out = format!(
        "# TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total {} {at}\n\
         # TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes {} {at}\n",
        seconds(usage.node.cpu_usage),
        usage.node.memory_working_set
    );
    each(&mut out, "container_cpu_usage_seconds_total", "counter", usage, |u| seconds(u.stats.cpu_usage));
    each(&mut out, "container_memory_working_set_bytes", "gauge", usage, |u| u.stats.memory_working_set as f64);
    each(&mut out, "container_start_time_seconds", "gauge", usage, |u| seconds(u.started_at));
    out
}

fn moment(nanoseconds: u64) -> String {
    corten_base::Timestamp::from_nanosecond(i128::from(nanoseconds)).map(time::format).unwrap_or_default()
}

fn cpu_and_memory(stats: &Stats) -> (Tree, Tree) {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let cpu = tree!({"time": (moment(stats.at)), "usageCoreNanoSeconds": (number(stats.cpu_usage))});
    let memory = tree!({"time": (moment(stats.at)), "usageBytes": (number(stats.memory_usage)),
        "workingSetBytes": (number(stats.memory_working_set)), "rssBytes": (number(stats.memory_rss)),
        "pageFaults": (number(stats.page_faults)), "majorPageFaults": (number(stats.major_page_faults))});
    (cpu, memory)
}

/// `/stats/summary` (`k8s.io/kubelet/pkg/apis/stats/v1alpha1 Summary`).
fn summary(shared: &Shared, usage: &Usage) -> Vec<u8> {
    let (cpu, memory) = cpu_and_memory(&usage.node);
    let node = tree!({"nodeName": (shared.config.node_name.as_str()), "cpu": cpu, "memory": memory});
    let mut pods: Vec<Tree> = Vec::new();
    for of_pod in usage.containers.chunk_by(|a, b| a.uid == b.uid) {
        let Some(first) = of_pod.first() else { continue };
        let container = |used: &Used| {
            let (cpu, memory) = cpu_and_memory(&used.stats);
            tree!({"name": (used.container.as_str()), "startTime": (moment(used.started_at)), "cpu": cpu, "memory": memory})
        };
        let mut whole = Stats { at: first.stats.at, ..Stats::default() };
        for used in of_pod {
            whole.cpu_usage += used.stats.cpu_usage;
            whole.memory_usage += used.stats.memory_usage;
            whole.memory_working_set += used.stats.memory_working_set;
            whole.memory_rss += used.stats.memory_rss;
            whole.page_faults += used.stats.page_faults;
            whole.major_page_faults += used.stats.major_page_faults;
        }
        let (cpu, memory) = cpu_and_memory(&whole);
        let started = of_pod.iter().map(|used| used.started_at).min().unwrap_or_default();
        pods.push(tree!({
            "podRef": {"name": (first.pod.as_str()), "namespace": (first.namespace.as_str()), "uid": (first.uid.as_str())},
            "startTime": (moment(started)), "containers": (of_pod.iter().map(container).collect::<Vec<_>>()),
            "cpu": cpu, "memory": memory}));
    }
    tree!({"node": node, "pods": (Tree::List(pods))}).to_json()
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;

    use super::*;

    async fn text(answer: NodeAnswer) -> (u16, String) {
        let chunks: Vec<bytes::Bytes> = answer.body.try_collect().await.unwrap();
        (answer.code, String::from_utf8(chunks.concat()).unwrap())
    }

    fn usage() -> Usage {
        let stats = Stats {
            at: 1_767_323_045_000_000_000,
            cpu_usage: 1_500_000_000,
            memory_working_set: 4096,
            ..Stats::default()
        };
        let used = |pod: &str, container: &str| Used {
            namespace: "n".into(),
            pod: pod.into(),
            uid: format!("uid-{pod}"),
            container: container.into(),
            started_at: 1_767_323_000_000_000_000,
            stats,
        };
        Usage { node: stats, containers: vec![used("a", "x"), used("a", "y"), used("b", "x")], sandboxes: 2 }
    }

    #[test]
    fn nodes_proxy_metrics_have_upstreams_names() {
        let line = "container_cpu_usage_seconds_total{container=\"y\",namespace=\"n\",pod=\"a\"} 1.5 1767323045000\n";
        assert!(cadvisor(&usage()).contains(line) && resource(&usage()).contains(line));
        assert!(resource(&usage()).contains("node_memory_working_set_bytes 4096 1767323045000\n"));
        assert!(metrics(&usage()).contains("kubelet_running_pods 2\n"));
    }

    #[tokio::test]
    async fn nodes_proxy_logs_stay_in_their_directory() {
        let root = tempdir();
        std::fs::create_dir(root.join("apt")).unwrap();
        std::fs::write(root.join("sys.log"), "line\n").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", root.join("out")).unwrap();
        let (code, page) = text(host_logs(&root, "", true)).await;
        assert!(code == 200 && page.contains("<a href=\"apt/\">apt/</a>\n") && page.contains("sys.log"), "{page}");
        assert_eq!(text(host_logs(&root, "sys.log", false)).await, (200, "line\n".into()));
        for outside in ["../../etc/hostname", "out", "none"] {
            assert_eq!(host_logs(&root, outside, false).code, 404, "{outside}");
        }
        std::fs::remove_dir_all(&root).unwrap();
    }

    fn tempdir() -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("corten-node-logs-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}
