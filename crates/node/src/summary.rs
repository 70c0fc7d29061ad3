//! `/stats/summary` (`k8s.io/kubelet/pkg/apis/stats/v1alpha1 Summary`).

use std::sync::Arc;

use corten_object::{Object, time};
use corten_runtime::Stats;
use corten_tree::{Tree, tree};
use corten_views::Pod;

use crate::shared::Shared;
use crate::usage::{self, ANSWER_AGE_MAX, FsUse, Interface, Usage, Used};

/// Unix time in nanoseconds as the API writes it.
pub fn moment(nanoseconds: u64) -> String {
    corten_base::Timestamp::from_nanosecond(i128::from(nanoseconds)).map(time::format).unwrap_or_default()
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn cpu(shared: &Shared, key: &str, stats: &Stats) -> Tree {
    let rate = shared.samples.rate(key, stats);
    tree!({"time": (moment(stats.at)), "usageNanoCores": (number(rate)), "usageCoreNanoSeconds": (number(stats.cpu_usage))})
}

fn memory(stats: &Stats) -> Tree {
    tree!({"time": (moment(stats.at)), "usageBytes": (number(stats.memory_usage)),
        "workingSetBytes": (number(stats.memory_working_set)), "rssBytes": (number(stats.memory_rss)),
        "pageFaults": (number(stats.page_faults)), "majorPageFaults": (number(stats.major_page_faults))})
}

fn fs(at: u64, fs: &FsUse) -> Tree {
    tree!({"time": (moment(at)), "availableBytes": (number(fs.available)), "capacityBytes": (number(fs.capacity)),
        "usedBytes": (number(fs.used)), "inodesFree": (number(fs.inodes_free)), "inodes": (number(fs.inodes)),
        "inodesUsed": (number(fs.inodes_used))})
}

/// The interface with the pod's or node's address is upstream's default one; here it is the first.
fn network(at: u64, found: &[Interface]) -> Tree {
    let one = |i: &Interface| {
        tree!({"name": (i.name.as_str()), "rxBytes": (number(i.received[0])), "rxErrors": (number(i.received[1])),
            "txBytes": (number(i.sent[0])), "txErrors": (number(i.sent[1]))})
    };
    let all: Vec<Tree> = found.iter().map(one).collect();
    let mut out = all.first().cloned().unwrap_or_else(Tree::map);
    out.insert("time", moment(at));
    out.insert("interfaces", Tree::List(all));
    out
}

fn sum<'u>(of: impl Iterator<Item = &'u Used>) -> Stats {
    let mut whole = Stats::default();
    for used in of {
        whole.at = whole.at.max(used.stats.at);
        whole.cpu_usage += used.stats.cpu_usage;
        whole.memory_usage += used.stats.memory_usage;
        whole.memory_working_set += used.stats.memory_working_set;
        whole.memory_rss += used.stats.memory_rss;
        whole.page_faults += used.stats.page_faults;
        whole.major_page_faults += used.stats.major_page_faults;
        whole.pids += used.stats.pids;
    }
    whole
}

/// The whole answer. `only` cpu and memory: what upstream answers to `?only_cpu_and_memory=true`. Walks directories.
pub fn summary(shared: &Shared, usage: &Usage, pods: &[Arc<Object>], only: bool) -> Vec<u8> {
    let at = usage.node.at;
    let mut node = tree!({"nodeName": (shared.config.node_name.as_str()), "startTime": (time::format(shared.started)),
        "cpu": (cpu(shared, "/", &usage.node)), "memory": (memory(&usage.node))});
    let total = shared.facts.memory.max(0) as u64;
    node.set("memory.availableBytes", number(total.saturating_sub(usage.node.memory_working_set)));
    let all = sum(usage.containers.iter());
    let of_pods = tree!({"name": "pods", "startTime": (time::format(shared.started)), "cpu": (cpu(shared, "/pods", &all)),
        "memory": (memory(&all))});
    node.insert("systemContainers", Tree::List(vec![of_pods]));
    if !only {
        let root = usage::file_system(&shared.config.data_dir).unwrap_or_default();
        node.insert("network", network(at, &usage::interfaces(1)));
        node.insert("fs", fs(at, &root));
        node.insert("runtime", tree!({"imageFs": (fs(at, &root)), "containerFs": (fs(at, &root))}));
        let (count, limit) = usage::processes();
        node.insert("rlimit", tree!({"time": (moment(at)), "maxpid": (number(limit)), "curproc": (number(count))}));
    }
    let views: Vec<Arc<Pod>> = pods.iter().filter_map(|o| o.view::<Pod>().ok()).collect();
    let mut listed = Vec::new();
    for of_pod in usage.containers.chunk_by(|a, b| a.uid == b.uid) {
        let view = views.iter().find(|v| of_pod.first().is_some_and(|u| u.uid == v.metadata.uid));
        listed.extend(pod(shared, of_pod, view.map(|v| &**v).filter(|_| !only)));
    }
    tree!({"node": node, "pods": (Tree::List(listed))}).to_json()
}

/// One pod: its containers that run, and with `view` what is on disk.
fn pod(shared: &Shared, of_pod: &[Used], view: Option<&Pod>) -> Option<Tree> {
    let first = of_pod.first()?;
    let at = first.stats.at;
    let mut disk = FsUse { ..usage::file_system(&shared.config.data_dir).unwrap_or_default() };
    (disk.used, disk.inodes_used) = (0, 0);
    let mut add = |fs: &FsUse| {
        disk.used += fs.used;
        disk.inodes_used += fs.inodes_used;
    };
    let mut containers = Vec::new();
    for used in of_pod {
        let key = format!("{}/{}", used.uid, used.container);
        let mut container = tree!({"name": (used.container.as_str()), "startTime": (moment(used.started_at)),
            "cpu": (cpu(shared, &key, &used.stats)), "memory": (memory(&used.stats))});
        if let Some(view) = view {
            let (root, logs) = usage::container_disk(shared, view, &used.container, ANSWER_AGE_MAX);
            add(&root);
            add(&logs);
            container.insert("rootfs", fs(at, &root));
            container.insert("logs", fs(at, &logs));
        }
        containers.push(container);
    }
    let whole = sum(of_pod.iter());
    let started = of_pod.iter().map(|used| used.started_at).min().unwrap_or_default();
    let mut out = tree!({
        "podRef": {"name": (first.pod.as_str()), "namespace": (first.namespace.as_str()), "uid": (first.uid.as_str())},
        "startTime": (moment(started)), "containers": (Tree::List(containers)),
        "cpu": (cpu(shared, &first.uid, &whole)), "memory": (memory(&whole)),
        "process_stats": {"process_count": (number(whole.pids))}});
    if let Some(view) = view {
        if !view.spec.host_network {
            out.insert("network", network(at, &usage::interfaces(first.pid)));
        }
        let mut volumes = Vec::new();
        for (name, in_memory, used) in usage::volumes(shared, view, ANSWER_AGE_MAX) {
            if !in_memory {
                add(&used);
            }
            let mut volume = fs(at, &used);
            volume.insert("name", name);
            volumes.push(volume);
        }
        for claim in usage::claims(shared, view) {
            let mut volume = fs(at, &claim.fs);
            volume.insert("name", claim.volume);
            let (name, namespace) = (claim.claim.as_str(), first.namespace.as_str());
            volume.insert("pvcRef", tree!({"name": name, "namespace": namespace}));
            volumes.push(volume);
        }
        out.insert("volume", Tree::List(volumes));
        out.insert("ephemeral-storage", fs(at, &disk));
    }
    Some(out)
}
