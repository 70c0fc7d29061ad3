//! The node's own objects: Node with its status, and its Lease.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use corten_base::Timestamp;
use corten_client::Failure;
use corten_kinds::id;
use corten_object::{ObjectKey, time};
use corten_tree::{Tree, tree};
use corten_views::Node;
use jiff::SignedDuration;

use crate::eviction::{CONDITIONS, Condition};
use crate::shared::Shared;
use crate::watcher::{Change, Watcher, only};
use crate::{KUBELET_VERSION, write};

/// What of upstream's newer features this node has: admission and the scheduler ask (`component-helpers/nodedeclaredfeatures`).
const DECLARED_FEATURES: [&str; 3] = [
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
];

/// How often the lease is renewed; it lasts 40 s.
const RENEW: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i64 = 40;
/// How often the status is written though nothing has changed.
const REPORT: SignedDuration = SignedDuration::from_mins(5);
/// Without a renewal for so long, the node may count as lost.
const GAP: SignedDuration = SignedDuration::from_secs(25);
const LEASE_NAMESPACE: &str = "kube-node-lease";

const READY: Condition = (
    "Ready",
    ["KubeletReady", "kubelet is posting ready status"],
    ["KubeletNotReady", "node is shutting down"],
    ["NodeReady", "NodeNotReady"],
);

/// Creates or completes the Node object.
pub async fn register(shared: &Arc<Shared>) -> Result<(), String> {
    let key = ObjectKey::new(id::NODE, "", &shared.config.node_name);
    let mut body = Tree::map();
    body.insert("apiVersion", "v1");
    body.insert("kind", "Node");
    body.set("metadata.name", &shared.config.node_name);
    let mut labels = Tree::map();
    for (name, value) in node_labels(shared) {
        labels.insert(name, value);
    }
    body.set("metadata.labels", labels.clone());
    let (cidr, bits) = shared.config.pod_cidr;
    let cidr = format!("{cidr}/{bits}");
    body.set("spec.podCIDR", cidr.as_str());
    body.set("spec.podCIDRs", Tree::List(vec![cidr.as_str().into()]));
    let written = match write::create(&shared.api, key.clone(), body).await {
        Err(failure) if failure.status.is_already_exists() => {
            let mut patch = Tree::map();
            patch.set("metadata.labels", labels);
            write::merge(&shared.api, key, patch).await
        }
        created => created,
    };
    if let Some(node) = written.map_err(text)?.object {
        shared.events.know_node(&node.head.uid);
    }
    Ok(())
}

/// Tells when somebody takes the node out of scheduling, or puts it back (`recordNodeSchedulableEvent`).
pub async fn follow(shared: Arc<Shared>) {
    let name = shared.config.node_name.clone();
    let mut watcher = Watcher::new(shared.api.clone(), shared.clock.clone(), id::NODE, only("metadata.name", &name));
    let mut cordoned = false;
    loop {
        let node = match watcher.next().await {
            Change::Set(node) => node,
            Change::Reset(nodes) if !nodes.is_empty() => nodes[0].clone(),
            Change::Reset(_) | Change::Gone(_) => continue,
        };
        shared.events.know_node(&node.head.uid);
        let now = node.to_tree().bool_at("spec.unschedulable");
        if now != cordoned {
            cordoned = now;
            let reason = if now { "NodeNotSchedulable" } else { "NodeSchedulable" };
            shared.events.node(false, reason, is_now(&name, reason));
        }
    }
}

fn is_now(name: &str, reason: &str) -> String {
    format!("Node {name} status is now: {reason}")
}

fn text(failure: Failure) -> String {
    failure.status.to_string()
}

fn node_labels(shared: &Shared) -> Vec<(String, String)> {
    let arch = shared.facts.architecture;
    let fixed = [
        ("beta.kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("kubernetes.io/hostname", shared.config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
    ];
    let fixed = fixed.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
    fixed.chain(shared.config.labels.iter().cloned()).collect()
}

/// Writes the node's status, and tells what is new in it.
pub async fn write_status(shared: &Arc<Shared>) -> Result<(), String> {
    let key = ObjectKey::new(id::NODE, "", &shared.config.node_name);
    let before = shared.api.get(&key).await.map_err(|s| s.to_string())?;
    let before = before.to_tree();
    let now = shared.clock.now();
    let mut status = Tree::map();
    status.insert("capacity", amounts(shared));
    status.insert("allocatable", allocatable(shared));
    let (conditions, told) =
        conditions(before.list_at("status.conditions"), !shared.shutdown.is_going(), &shared.conditions.get(), now);
    status.insert("conditions", conditions);
    let address = |kind: &str, address: String| {
        let mut tree = Tree::map();
        tree.insert("type", kind);
        tree.insert("address", address);
        tree
    };
    status.insert(
        "addresses",
        Tree::List(vec![
            address("InternalIP", shared.config.node_ip.to_string()),
            address("Hostname", shared.config.node_name.clone()),
        ]),
    );
    status.set("daemonEndpoints.kubeletEndpoint.Port", 10250_i64);
    status.insert("nodeInfo", node_info(shared));
    status.insert("images", images(shared).await);
    status.insert("runtimeHandlers", runtime_handlers(shared));
    status.insert("declaredFeatures", DECLARED_FEATURES.map(Tree::from).to_vec());
    let mut body = Tree::map();
    body.insert("status", status);
    write::merge_status(&shared.api, key, body).await.map_err(text)?;
    let (name, boot) = (&shared.config.node_name, &shared.facts.boot_id);
    for reason in told {
        shared.events.node(false, reason, is_now(name, reason));
    }
    let before = before.str_at("status.nodeInfo.bootID");
    if !before.is_empty() && *before != **boot {
        shared.events.node(true, "Rebooted", format!("Node {name} has been rebooted, boot id: {boot}"));
    }
    Ok(())
}

/// What pods may have of the node's capacity.
fn allocatable(shared: &Shared) -> Tree {
    let mut allocatable = amounts(shared);
    allocatable.insert("memory", format!("{}Ki", shared.allocatable_memory().max(0) / 1024));
    allocatable.insert("ephemeral-storage", shared.allocatable_storage().max(0).to_string());
    allocatable
}

/// The node as pods are admitted to it. Before its first status is in the API, static pods may begin: what it is going to say
/// counts then.
pub async fn admitting(shared: &Shared) -> Result<Arc<Node>, String> {
    let key = ObjectKey::new(id::NODE, "", &shared.config.node_name);
    let object = shared.api.get(&key).await.map_err(|status| status.to_string())?;
    let told = object.view::<Node>().map_err(|error| error.to_string())?;
    if !told.status.allocatable.is_empty() {
        return Ok(told);
    }
    let mut tree = object.to_tree();
    tree.set("status.allocatable", allocatable(shared));
    serde_json::from_str(&tree.to_json_string()).map(Arc::new).map_err(|error| error.to_string())
}

async fn images(shared: &Arc<Shared>) -> Tree {
    let mut listed = shared.images.list().await;
    // The 50 largest, as upstream's nodeStatusMaxImages.
    listed.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    listed.truncate(50);
    let one = |(names, size): (Vec<String>, i64)| {
        let mut tree = Tree::map();
        tree.insert("names", names);
        tree.insert("sizeBytes", size);
        tree
    };
    Tree::List(listed.into_iter().map(one).collect())
}

/// What the handlers of RuntimeClasses can do; the one without a name is what pods without a class get.
fn runtime_handlers(shared: &Shared) -> Tree {
    let users = shared.facts.user_namespaces;
    let one =
        |name: &str| tree!({"name": name, "features": {"recursiveReadOnlyMounts": true, "userNamespaces": users}});
    Tree::List(std::iter::once("").chain(corten_podplan::runtime_class::HANDLERS).map(one).collect())
}

fn amounts(shared: &Shared) -> Tree {
    let facts = &shared.facts;
    let mut out = Tree::map();
    out.insert("cpu", facts.cpus.to_string());
    out.insert("ephemeral-storage", format!("{}Ki", facts.storage / 1024));
    for (page, bytes) in &facts.huge_pages {
        out.insert(format!("hugepages-{}", binary(*page)), binary(*bytes));
    }
    out.insert("memory", format!("{}Ki", facts.memory / 1024));
    out.insert("pods", shared.config.pods_max.to_string());
    out
}

/// Bytes with the largest binary suffix that leaves no rest, as Go writes such quantities.
fn binary(bytes: u64) -> String {
    let suffixes = [("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let fits = suffixes.iter().find(|(_, bits)| bytes > 0 && bytes.is_multiple_of(1 << bits));
    fits.map_or_else(|| bytes.to_string(), |(suffix, bits)| format!("{}{suffix}", bytes >> bits))
}

/// The node's conditions, and the reasons of the events that tell what has changed.
fn conditions(before: &[Tree], ready: bool, short: &BTreeSet<&str>, now: Timestamp) -> (Tree, Vec<&'static str>) {
    let rows: Vec<Condition> = CONDITIONS.into_iter().chain([READY]).collect();
    let mut out: Vec<Tree> = before.iter().filter(|c| !rows.iter().any(|r| r.0 == c.str_at("type"))).cloned().collect();
    let mut told = Vec::new();
    for (kind, yes, no, events) in rows {
        let holds = if kind == READY.0 { ready } else { short.contains(kind) };
        let (status, [reason, message], event) =
            if holds { ("True", yes, events[0]) } else { ("False", no, events[1]) };
        let same = before.iter().find(|c| c.str_at("type") == kind && c.str_at("status") == status);
        if same.is_none() {
            told.push(event);
        }
        let since = same.map(|c| c.str_at("lastTransitionTime").to_owned()).filter(|t| !t.is_empty());
        let mut tree = Tree::map();
        tree.insert("type", kind);
        tree.insert("status", status);
        tree.insert("lastHeartbeatTime", time::format(now));
        tree.insert("lastTransitionTime", since.unwrap_or_else(|| time::format(now)));
        tree.insert("reason", reason);
        tree.insert("message", message);
        out.push(tree);
    }
    (Tree::List(out), told)
}

fn node_info(shared: &Shared) -> Tree {
    let facts = &shared.facts;
    let mut out = Tree::map();
    out.insert("machineID", &facts.machine_id);
    out.insert("systemUUID", &facts.system_uuid);
    out.insert("bootID", &facts.boot_id);
    out.insert("kernelVersion", &facts.kernel);
    out.insert("osImage", &facts.os_image);
    out.insert("containerRuntimeVersion", format!("corten://{}", env!("CARGO_PKG_VERSION")));
    out.insert("kubeletVersion", KUBELET_VERSION);
    out.insert("kubeProxyVersion", "");
    out.insert("operatingSystem", "linux");
    out.insert("architecture", facts.architecture);
    if facts.swap > 0 {
        out.set("swap.capacity", facts.swap);
    }
    out
}

/// Renews the node's lease until it is dropped, and writes the status anew now and then. After a gap (the machine slept, the
/// API was away) the control plane may hold the node for lost: then the status is written with the next few renewals.
pub async fn renew_lease(shared: Arc<Shared>) -> Result<(), String> {
    let name = &shared.config.node_name;
    let key = ObjectKey::new(id::LEASE, LEASE_NAMESPACE, name);
    let mut renewed_at = shared.clock.now();
    let mut reported_at = renewed_at;
    let mut reports_due = 0;
    loop {
        let at = shared.clock.now();
        let now = time::format_micro(at);
        let mut patch = Tree::map();
        patch.set("spec.renewTime", now.as_str());
        patch.set("spec.holderIdentity", name);
        patch.set("spec.leaseDurationSeconds", LEASE_SECONDS);
        let renewed = match write::merge(&shared.api, key.clone(), patch.clone()).await {
            Err(failure) if failure.status.is_not_found() => {
                let mut body = patch;
                body.insert("apiVersion", "coordination.k8s.io/v1");
                body.insert("kind", "Lease");
                body.set("metadata.name", name);
                body.set("metadata.namespace", LEASE_NAMESPACE);
                write::create(&shared.api, key.clone(), body).await
            }
            other => other,
        };
        match renewed {
            Ok(_) => {
                if at.duration_since(renewed_at) > GAP {
                    reports_due = 3;
                } else if at.duration_since(reported_at) > REPORT {
                    reports_due = 1;
                }
                renewed_at = at;
            }
            Err(failure) => tracing::debug!(error = %failure.status, "the node's lease was not renewed"),
        }
        if reports_due > 0 {
            match write_status(&shared).await {
                Ok(()) => (reports_due, reported_at) = (reports_due - 1, at),
                Err(error) => tracing::debug!(error, "the node's status was not written"),
            }
        }
        shared.clock.sleep(RENEW).await;
    }
}
