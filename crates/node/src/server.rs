//! What the kubelet's HTTP server answers (`pkg/kubelet/server/server.go`): asked through `nodes/NAME/proxy`.

use std::fmt::Write as _;
use std::path::Path;

use corten_client::{LogRequest, NodeAnswer, NodeApi as _, NodeRequest, PodTarget};
use corten_object::Status;
use corten_tree::{Tree, tree};

use crate::Config;
use crate::metrics;
use crate::node_api::LocalNode;
use crate::shared::Shared;
use crate::usage::observe;

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
        ["metrics"] => {
            let (mut all, pods) = (metrics::kubelet(&observe(&node.shared).await?), node.pods.all());
            let of_claims = node.shared.blocking(move |s| metrics::volume_stats(s, &pods)).await;
            all.push_str(&of_claims.map_err(Status::internal)?);
            NodeAnswer::whole(200, METRICS, all)
        }
        ["metrics", "cadvisor"] => {
            let (usage, pods) = (observe(&node.shared).await?, node.pods.all());
            let made = node.shared.blocking(move |s| metrics::cadvisor(s, &usage, &pods)).await;
            NodeAnswer::whole(200, METRICS, made.map_err(Status::internal)?)
        }
        ["metrics", "resource"] => NodeAnswer::whole(200, METRICS, metrics::resource(&observe(&node.shared).await?)),
        ["metrics", "probes"] => NodeAnswer::whole(200, METRICS, node.shared.probes.text()),
        ["metrics", "slis"] => NodeAnswer::whole(200, METRICS, ""),
        ["stats", "summary"] => {
            let (usage, pods) = (observe(&node.shared).await?, node.pods.all());
            let only = matches!(parameter(&request.query, "only_cpu_and_memory"), Some("true" | "1"));
            let made = node.shared.blocking(move |s| crate::summary::summary(s, &usage, &pods, only)).await;
            NodeAnswer::whole(200, JSON, made.map_err(Status::internal)?)
        }
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
        "podCIDR": (format!("{}/{}", config.pod_cidr.0, config.pod_cidr.1)),
        "evictionHard": (thresholds(config, true)), "evictionSoft": (thresholds(config, false)),
        "evictionPressureTransitionPeriod": (format!("{}s", config.eviction.transition_seconds)),
        "evictionMaxPodGracePeriod": (config.eviction.pod_grace_seconds_max)}})
    .to_json()
}

/// Eviction thresholds by signal.
fn thresholds(config: &Config, hard: bool) -> Tree {
    let chosen = config.eviction.thresholds.iter().filter(|t| (t.grace_seconds == 0) == hard);
    Tree::Map(chosen.map(|t| (t.signal.name().into(), t.value.to_string().into())).collect())
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

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;

    use super::*;

    async fn text(answer: NodeAnswer) -> (u16, String) {
        let chunks: Vec<bytes::Bytes> = answer.body.try_collect().await.unwrap();
        (answer.code, String::from_utf8(chunks.concat()).unwrap())
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
