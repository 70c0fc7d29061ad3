//! The node's metrics in Prometheus' text form, under the names of the kubelet's and cAdvisor's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use corten_object::Object;
use corten_podplan::ProbeKind;
use corten_views::Pod;

use crate::shared::Shared;
use crate::usage::{self, ANSWER_AGE_MAX, FsUse, Usage, Used};

/// Results that are counted; those of further containers are not.
const PROBES_MAX: usize = 16_384;

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// `/metrics`
pub fn kubelet(usage: &Usage) -> String {
    format!(
        "# TYPE kubelet_running_pods gauge\nkubelet_running_pods {}\n# TYPE kubelet_running_containers gauge\n\
         kubelet_running_containers{{container_state=\"running\"}} {}\n",
        usage.sandboxes,
        usage.containers.len()
    )
}

/// What `/metrics` says of claims' volumes, each once however many pods use it (`volume_stats.go`).
pub fn volume_stats(shared: &Shared, pods: &[Arc<Object>]) -> String {
    let mut claims = BTreeMap::new();
    for pod in pods.iter().filter_map(|o| o.view::<Pod>().ok()) {
        let namespace = &pod.metadata.namespace;
        claims.extend(usage::claims(shared, &pod).into_iter().map(|c| ((namespace.clone(), c.claim), c.fs)));
    }
    let values: [(&str, fn(&FsUse) -> u64); 6] = [
        ("capacity_bytes", |fs| fs.capacity),
        ("available_bytes", |fs| fs.available),
        ("used_bytes", |fs| fs.used),
        ("inodes", |fs| fs.inodes),
        ("inodes_free", |fs| fs.inodes_free),
        ("inodes_used", |fs| fs.inodes_used),
    ];
    let mut out = String::new();
    for (name, value) in values.into_iter().filter(|_| !claims.is_empty()) {
        let _ = writeln!(out, "# TYPE kubelet_volume_stats_{name} gauge");
        for ((namespace, claim), fs) in &claims {
            let labels = format!("namespace=\"{namespace}\",persistentvolumeclaim=\"{claim}\"");
            let _ = writeln!(out, "kubelet_volume_stats_{name}{{{labels}}} {}", value(fs));
        }
    }
    out
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

/// `/metrics/cadvisor`. Walks directories.
pub fn cadvisor(shared: &Shared, usage: &Usage, pods: &[Arc<Object>]) -> String {
    let mut out = String::new();
    for (name, value) in [("machine_cpu_cores", shared.facts.cpus), ("machine_memory_bytes", shared.facts.memory)] {
        let _ = writeln!(out, "# TYPE {name} gauge\n{name} {value}");
    }
    processes(&mut out, usage);
    let views: Vec<Arc<Pod>> = pods.iter().filter_map(|o| o.view::<Pod>().ok()).collect();
    let disk = |used: &Used| {
        let view = views.iter().find(|v| v.metadata.uid == used.uid);
        view.map_or(0.0, |v| usage::container_disk(shared, v, &used.container, ANSWER_AGE_MAX).0.used as f64)
    };
    each(&mut out, "container_fs_usage_bytes", "gauge", usage, disk);
    let network: [(&str, fn(&usage::Interface) -> u64); 4] = [
        ("container_network_receive_bytes_total", |i| i.received[0]),
        ("container_network_receive_errors_total", |i| i.received[1]),
        ("container_network_transmit_bytes_total", |i| i.sent[0]),
        ("container_network_transmit_errors_total", |i| i.sent[1]),
    ];
    // A pod has one network: that of its first container.
    let own_network = |uid: &str| views.iter().any(|v| v.metadata.uid == uid && !v.spec.host_network);
    let firsts = usage.containers.chunk_by(|a, b| a.uid == b.uid).filter_map(|all| all.first());
    let seen: Vec<(&Used, Vec<usage::Interface>)> =
        firsts.filter(|u| own_network(&u.uid)).map(|u| (u, usage::interfaces(u.pid))).collect();
    for (name, value) in network {
        let _ = writeln!(out, "# TYPE {name} counter");
        for (used, interfaces) in &seen {
            for interface in interfaces {
                let (namespace, pod, at) = (&used.namespace, &used.pod, used.stats.at / 1_000_000);
                let (device, value) = (&interface.name, value(interface));
                let _ = writeln!(
                    out,
                    "{name}{{interface=\"{device}\",namespace=\"{namespace}\",pod=\"{pod}\"}} {value} {at}"
                );
            }
        }
    }
    out
}

fn processes(out: &mut String, usage: &Usage) {
    each(out, "container_cpu_usage_seconds_total", "counter", usage, |u| seconds(u.stats.cpu_usage));
    each(out, "container_memory_usage_bytes", "gauge", usage, |u| u.stats.memory_usage as f64);
    each(out, "container_memory_working_set_bytes", "gauge", usage, |u| u.stats.memory_working_set as f64);
    each(out, "container_memory_rss", "gauge", usage, |u| u.stats.memory_rss as f64);
    each(out, "container_start_time_seconds", "gauge", usage, |u| seconds(u.started_at).floor());
    each(out, "container_processes", "gauge", usage, |u| u.stats.pids as f64);
}

/// `/metrics/resource`: what a metrics server reads.
pub fn resource(usage: &Usage) -> String {
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
    let of_pods: [(&str, &str, fn(&Used) -> f64); 2] = [
        ("pod_cpu_usage_seconds_total", "counter", |u| seconds(u.stats.cpu_usage)),
        ("pod_memory_working_set_bytes", "gauge", |u| u.stats.memory_working_set as f64),
    ];
    for (name, kind, value) in of_pods {
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for all in usage.containers.chunk_by(|a, b| a.uid == b.uid) {
            let Some(first) = all.first() else { continue };
            let (namespace, pod, at) = (&first.namespace, &first.pod, first.stats.at / 1_000_000);
            let sum: f64 = all.iter().map(value).sum();
            let _ = writeln!(out, "{name}{{namespace=\"{namespace}\",pod=\"{pod}\"}} {sum} {at}");
        }
    }
    out.push_str("# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n");
    out
}

/// Whose probe, and how it went: uid, the labels, and the result.
type ProbeKey = (String, String, &'static str);

/// Counts the results of probes (`pkg/kubelet/prober/prober_manager.go` `ProberResults`).
#[derive(Default)]
pub struct ProbeCounts(Mutex<BTreeMap<ProbeKey, u64>>);

impl ProbeCounts {
    /// Counts one result.
    pub fn note(&self, pod: &Pod, container: &str, kind: ProbeKind, ok: bool) {
        let (meta, result) = (&pod.metadata, if ok { "successful" } else { "failed" });
        let labels = format!(
            "container=\"{container}\",namespace=\"{}\",pod=\"{}\",pod_uid=\"{}\",probe_type=\"{}\"",
            meta.namespace,
            meta.name,
            meta.uid,
            kind.as_str()
        );
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (meta.uid.clone(), labels, result);
        if counts.len() < PROBES_MAX || counts.contains_key(&key) {
            *counts.entry(key).or_default() += 1;
        }
    }

    /// Forgets a pod.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, ..), _| of != uid);
    }

    /// `/metrics/probes`
    pub fn text(&self) -> String {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::from("# TYPE prober_probe_total counter\n");
        for ((_, labels, result), count) in counts.iter() {
            let _ = writeln!(out, "prober_probe_total{{{labels},result=\"{result}\"}} {count}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use corten_runtime::Stats;

    use super::*;

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
            pid: 1,
            stats,
        };
        Usage { node: stats, containers: vec![used("a", "x"), used("a", "y"), used("b", "x")], sandboxes: 2 }
    }

    #[test]
    fn nodes_proxy_metrics_have_upstreams_names() {
        let line = "container_cpu_usage_seconds_total{container=\"y\",namespace=\"n\",pod=\"a\"} 1.5 1767323045000\n";
        let mut all = String::new();
        processes(&mut all, &usage());
        assert!(all.contains(line) && resource(&usage()).contains(line));
        assert!(resource(&usage()).contains("node_memory_working_set_bytes 4096 1767323045000\n"));
        assert!(
            resource(&usage()).contains("pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"a\"} 3 1767323045000\n")
        );
        assert!(kubelet(&usage()).contains("kubelet_running_pods 2\n"));
    }

    #[test]
    fn probes_metrics_count_results_of_pods_that_are_there() {
        let pod: Pod = serde_json::from_str(r#"{"metadata":{"name":"p","namespace":"n","uid":"u"}}"#).unwrap();
        let counts = ProbeCounts::default();
        for ok in [true, true, false] {
            counts.note(&pod, "c", ProbeKind::Readiness, ok);
        }
        let labels = "container=\"c\",namespace=\"n\",pod=\"p\",pod_uid=\"u\",probe_type=\"Readiness\"";
        let text = counts.text();
        assert!(text.contains(&format!("prober_probe_total{{{labels},result=\"failed\"}} 1\n")), "{text}");
        assert!(text.contains(&format!("prober_probe_total{{{labels},result=\"successful\"}} 2\n")), "{text}");
        counts.forget("u");
        assert_eq!(counts.text().lines().count(), 1);
    }
}
