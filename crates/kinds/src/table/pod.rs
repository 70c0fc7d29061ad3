//! Pod.

use corten_object::managed::Ownable;
use corten_object::time;
use corten_tree::{Tree, tree};

use crate::defaults;
use crate::pod_level;
use crate::print;
use crate::qos::qos_class;
use crate::spec::{Fact, Generation, Hooks, KindSpec, PROXY, STREAM, Subresource, SubresourceKind};
use crate::validate::{pod, pod_status, pod_update, profiles};
use crate::warnings;
use crate::{Column, Of, RowContext, TextOr, column, wide};
use crate::{DeleteRequest, Errors, Graceful, WriteContext};

/// `v1 Pod`
pub(crate) const POD: KindSpec = KindSpec {
    kind: "Pod",
    returns_deleted: true,
    adopted: true,
    plural: "pods",
    short: &["po"],
    categories: &["all"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[
        Subresource::connect("attach", "PodAttachOptions", STREAM),
        Subresource::action("binding", ("", "v1", "Binding")),
        Subresource::update("ephemeralcontainers").owning(Ownable::Only(&["spec.ephemeralContainers"])),
        Subresource::action("eviction", ("policy", "v1", "Eviction")),
        Subresource::connect("exec", "PodExecOptions", STREAM),
        Subresource::of("log", SubresourceKind::Connect, &["get"]),
        Subresource::connect("portforward", "PodPortForwardOptions", STREAM),
        Subresource::connect("proxy", "PodProxyOptions", PROXY),
        Subresource::update("resize").owning(Ownable::Only(&[
            "spec.containers.*.resources",
            "spec.containers.*.resizePolicy",
            "spec.initContainers.*.resources",
            "spec.initContainers.*.resizePolicy",
        ])),
        Subresource::STATUS.owning(Ownable::Except(&[
            "spec",
            "metadata.deletionTimestamp",
            "metadata.ownerReferences",
        ])),
    ],
    columns: &[
        Column::NAME,
        column("Ready", &Of(|pod, _| Tree::from(summary(pod).ready))),
        column("Status", &Of(|pod, _| Tree::from(summary(pod).reason))),
        column("Restarts", &Of(restarts)),
        Column::AGE,
        wide("IP", &Of(ip)),
        wide("Node", &TextOr("spec.nodeName", "<none>")),
        wide("Nominated Node", &TextOr("status.nominatedNodeName", "<none>")),
        wide("Readiness Gates", &Of(readiness_gates)),
    ],
    columns_read: &[
        "metadata.name",
        "metadata.creationTimestamp",
        "metadata.deletionTimestamp",
        "spec.nodeName",
        "spec.readinessGates",
        "spec.initContainers.name",
        "spec.initContainers.restartPolicy",
        "spec.containers.name",
        "status",
    ],
    facts: &[
        Fact::indexed("spec.nodeName"),
        Fact::selectable("status.phase"),
        Fact::selectable("spec.restartPolicy"),
        Fact::selectable("spec.schedulerName"),
        Fact::selectable("spec.serviceAccountName"),
        Fact::selectable("spec.hostNetwork").zero("false"),
        Fact::selectable("status.podIP"),
        Fact::selectable("status.nominatedNodeName"),
    ],
    // status.podIPs is a list: upstream selects by its first item, which is status.podIP.
    label_aliases: &[("spec.host", "spec.nodeName"), ("status.podIPs", "status.podIP")],
    counting: crate::quota::Counting::Evaluated(&crate::quota::PODS),
    served_by: Some("node"),
    pod_spec: "spec",
    hooks: Hooks {
        default: Some(default),
        prepare_create: Some(prepare_create),
        prepare_update: Some(prepare_update),
        validate: Some(pod::validate),
        validate_create: Some(pod::validate_create),
        validate_update: Some(pod_update::validate_update),
        validate_status: Some(pod_status::validate),
        prepare_status: Some(prepare_status),
        subresource: Some(subresource),
        warnings: Some(warnings::pod),
        graceful: Some(graceful),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

/// What `kubectl get pods` shows of a pod's containers.
struct Summary {
    ready: String,
    reason: String,
    restarts: i64,
    last_restart: Option<corten_base::Timestamp>,
}

/// Counts of containers seen so far.
#[derive(Default)]
struct Counts {
    restarts: i64,
    last_restart: Option<corten_base::Timestamp>,
}

impl Counts {
    fn add(&mut self, status: &Tree) {
        self.restarts += status.i64_at("restartCount").unwrap_or_default();
        self.last_restart = self.last_restart.max(time::parse(status.str_at("lastState.terminated.finishedAt")));
    }
}

/// `printPod` in `pkg/printers/internalversion/printers.go`.
fn summary(pod: &Tree) -> Summary {
    let phase = pod.str_at("status.phase");
    let status_reason = pod.str_at("status.reason");
    let mut reason = if status_reason.is_empty() { phase } else { status_reason }.to_owned();
    let conditions = pod.list_at("status.conditions");
    if conditions.iter().any(|c| c.str_at("type") == "PodScheduled" && c.str_at("reason") == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let sidecars: Vec<&str> = pod.list_at("spec.initContainers").iter().filter(|c| is_sidecar(c)).map(name).collect();
    let total = pod.list_at("spec.containers").len() + sidecars.len();
    let mut ready = 0;
    let (mut counts, mut sidecar_counts) = (Counts::default(), Counts::default());
    let mut initializing = false;
    for (i, status) in pod.list_at("status.initContainerStatuses").iter().enumerate() {
        let sidecar = sidecars.contains(&name(status));
        counts.add(status);
        if sidecar {
            sidecar_counts.add(status);
        }
        if status.i64_at("state.terminated.exitCode") == Some(0) {
            continue;
        }
        if sidecar && status.bool_at("started") {
            ready += usize::from(status.bool_at("ready"));
            continue;
        }
        reason = init_reason(status, i, pod.list_at("spec.initContainers").len());
        initializing = true;
        break;
    }
    if !initializing || print::condition_is(pod, "status.conditions", "Initialized", "True") {
        counts = sidecar_counts;
        ready += running(pod, &mut reason, &mut counts);
    }
    if pod.path("metadata.deletionTimestamp").is_some() {
        if status_reason == "NodeLost" {
            reason = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".into();
        }
    }
    let Counts { restarts, last_restart } = counts;
    Summary { ready: format!("{ready}/{total}"), reason, restarts, last_restart }
}

fn name(tree: &Tree) -> &str {
    tree.str_at("name")
}

fn is_sidecar(container: &Tree) -> bool {
    container.str_at("restartPolicy") == "Always"
}

/// Why the first init container that is not done is not done.
fn init_reason(status: &Tree, index: usize, total: usize) -> String {
    if let Some(terminated) = status.path("state.terminated") {
        return format!("Init:{}", terminated_reason(terminated));
    }
    match status.str_at("state.waiting.reason") {
        "" | "PodInitializing" => format!("Init:{index}/{total}"),
        waiting => format!("Init:{waiting}"),
    }
}

fn terminated_reason(terminated: &Tree) -> String {
    match (terminated.str_at("reason"), terminated.i64_at("signal").unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", terminated.i64_at("exitCode").unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Looks at the main containers of an initialized pod; returns how many are ready.
fn running(pod: &Tree, reason: &mut String, counts: &mut Counts) -> usize {
    let (mut ready, mut has_running, mut error_reason) = (0, false, String::new());
    for status in pod.list_at("status.containerStatuses").iter().rev() {
        counts.add(status);
        let waiting = status.str_at("state.waiting.reason");
        if !waiting.is_empty() {
            *reason = waiting.to_owned();
        } else if let Some(terminated) = status.path("state.terminated") {
            *reason = terminated_reason(terminated);
            if terminated.i64_at("exitCode").unwrap_or_default() != 0 {
                error_reason.clone_from(reason);
            }
        } else if status.bool_at("ready") && status.path("state.running").is_some() {
            has_running = true;
            ready += 1;
        }
    }
    if reason == "Completed" {
        if has_running && print::condition_is(pod, "status.conditions", "Ready", "True") {
            *reason = "Running".into();
        } else if !error_reason.is_empty() {
            *reason = error_reason;
        } else if has_running {
            *reason = "NotReady".into();
        }
    }
    ready
}

fn restarts(pod: &Tree, context: &RowContext) -> Tree {
    let Summary { restarts, last_restart, .. } = summary(pod);
    Tree::from(match last_restart {
        Some(_) if restarts != 0 => format!("{restarts} ({} ago)", print::age(last_restart, context.now)),
        _ => restarts.to_string(),
    })
}

fn ip(pod: &Tree, _: &RowContext) -> Tree {
    match pod.list_at("status.podIPs").first() {
        Some(first) => print::text_or(first, "ip", "<none>"),
        None => Tree::from("<none>"),
    }
}

fn readiness_gates(pod: &Tree, _: &RowContext) -> Tree {
    let gates = pod.list_at("spec.readinessGates");
    if gates.is_empty() {
        return Tree::from("<none>");
    }
    let holds = |gate: &&Tree| print::condition_is(pod, "status.conditions", gate.str_at("conditionType"), "True");
    Tree::from(format!("{}/{}", gates.iter().filter(holds).count(), gates.len()))
}

/// `SetDefaults_Pod`, `SetDefaults_PodSpec`, `SetDefaults_PodStatus`.
fn default(pod: &mut Tree) {
    defaults::at(pod, "spec", |spec| {
        defaults::pod_spec(spec);
        if spec.i64_at("terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
            spec.set("terminationGracePeriodSeconds", 1);
        }
        spec.set_default("enableServiceLinks", true);
        let host_network = spec.bool_at("hostNetwork");
        for containers in ["initContainers", "containers"] {
            defaults::each(spec, containers, |container| {
                defaults::at(container, "resources", defaults::requests_from_limits);
                if host_network {
                    defaults::each(container, "ports", host_port);
                }
            });
        }
    });
    defaults::at(pod, "status", |status| {
        let first = status.list_at("podIPs").first().map(|ip| ip.str_at("ip").to_owned()).unwrap_or_default();
        match status.str_at("podIP").to_owned() {
            ip if ip.is_empty() && !first.is_empty() => status.set("podIP", first),
            ip if !ip.is_empty() && ip != first => status.set("podIPs", tree!([{"ip": ip}])),
            _ => {}
        }
    });
}

fn host_port(port: &mut Tree) {
    if port.i64_at("hostPort").unwrap_or_default() == 0 {
        port.set("hostPort", port.i64_at("containerPort"));
    }
}

/// A new pod is pending, whatever its maker says. (`podStrategy.PrepareForCreate`)
fn prepare_create(pod: &mut Tree, context: &WriteContext) {
    pod.set("status", tree!({"phase": "Pending"}));
    if !pod.list_at("spec.schedulingGates").is_empty() {
        let condition = tree!({"type": "PodScheduled", "status": "False", "lastProbeTime": null,
            "lastTransitionTime": (time::format(context.now)), "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates"});
        pod.set("status.conditions", Tree::List(vec![condition]));
    }
    for terms in ["podAffinity", "podAntiAffinity"] {
        merge_label_keys(pod, &format!("spec.affinity.{terms}.requiredDuringSchedulingIgnoredDuringExecution"), "");
        let preferred = format!("spec.affinity.{terms}.preferredDuringSchedulingIgnoredDuringExecution");
        merge_label_keys(pod, &preferred, "podAffinityTerm");
    }
    merge_label_keys(pod, "spec.topologySpreadConstraints", "");
    profiles::fill_app_armor(pod);
    pod_level::default(pod);
    let class = qos_class(pod);
    pod.set("status.qosClass", class);
}

/// Turns `matchLabelKeys` and `mismatchLabelKeys` into expressions on the pod's own labels (`mutatePodAffinity`).
fn merge_label_keys(pod: &mut Tree, list: &str, below: &str) {
    let labels = pod.map_at("metadata.labels").clone();
    defaults::each(pod, list, |term| {
        let term = if below.is_empty() { Some(term) } else { term.path_mut(below) };
        let Some(term) = term.filter(|t| t.path("labelSelector").is_some()) else { return };
        for (keys, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
            for key in term.list_at(keys).to_vec() {
                let Some(value) = key.as_str().and_then(|k| labels.get(k)) else { continue };
                let expression = tree!({"key": (key.clone()), "operator": operator, "values": [(value.clone())]});
                let selector = term.make_map_at("labelSelector");
                match selector.get_mut("matchExpressions") {
                    Some(Tree::List(expressions)) => expressions.push(expression),
                    _ => drop(selector.insert("matchExpressions", Tree::List(vec![expression]))),
                }
            }
        }
    });
}

/// Clients that do not know pod-level resources must not drop them.
fn prepare_update(pod: &mut Tree, old: &Tree, _: &WriteContext) {
    if let Some(resources) = old.path("spec.resources") {
        pod.set_default("spec.resources", resources.clone());
    }
}

/// The QoS class and owners stay, and what an old kubelet does not know. (`podStatusStrategy.PrepareForUpdate`)
fn prepare_status(pod: &mut Tree, old: &Tree, _: &WriteContext) {
    defaults::text(pod, "status.qosClass", old.str_at("status.qosClass"));
    match old.path("metadata.ownerReferences") {
        Some(owners) => pod.set("metadata.ownerReferences", owners.clone()),
        None => drop(pod.remove("metadata.ownerReferences")),
    }
    for kept in [
        "status.resourceClaimStatuses",
        "status.extendedResourceClaimStatus",
        "status.nodeAllocatableResourceClaimStatuses",
    ] {
        if let Some(value) = old.path(kept) {
            pod.set_default(kept, value.clone());
        }
    }
    keep_generation(pod, old, "status.observedGeneration");
    // A type of condition may occur more than once: the nth of the new ones continues the nth of the old ones.
    let before: Vec<Tree> = old.list_at("status.conditions").to_vec();
    let mut seen: Vec<String> = Vec::new();
    defaults::each(pod, "status.conditions", |condition| {
        let kind = condition.str_at("type").to_owned();
        let nth = seen.iter().filter(|k| **k == kind).count();
        if let Some(old) = before.iter().filter(|c| c.str_at("type") == kind).nth(nth) {
            keep_generation(condition, old, "observedGeneration");
        }
        seen.push(kind);
    });
}

/// A generation that a client leaves out stays. (`preserveOldObservedGeneration`)
fn keep_generation(new: &mut Tree, old: &Tree, path: &str) {
    let kept = old.i64_at(path).unwrap_or_default();
    if new.i64_at(path).unwrap_or_default() == 0 && kept != 0 {
        new.set(path, kept);
    }
}

/// `ephemeralcontainers` and `resize`: all but their own part of the spec stays as it was.
fn subresource(name: &str, new: &mut Tree, old: &Tree, errors: &mut Errors) {
    let mut merged = old.clone();
    if let Some(version) = new.path("metadata.resourceVersion").cloned() {
        merged.set("metadata.resourceVersion", version);
    }
    match name {
        "ephemeralcontainers" => {
            match new.path("spec.ephemeralContainers").cloned() {
                Some(containers) => merged.set("spec.ephemeralContainers", containers),
                None => drop(merged.remove("spec.ephemeralContainers")),
            }
            default(&mut merged);
            pod_update::validate_ephemeral_containers(&merged, old, errors);
        }
        "resize" => {
            resized(&mut merged, new);
            default(&mut merged);
            pod_level::default(&mut merged);
            pod_update::validate_resize(&merged, old, errors);
        }
        _ => {}
    }
    *new = merged;
}

/// Takes from a request what a resize may change; a request that moves containers is taken whole, and refused.
/// (`dropNonResizeUpdates`)
fn resized(merged: &mut Tree, new: &Tree) {
    let names = |pod: &Tree, list: &str| -> Vec<String> {
        pod.list_at(&format!("spec.{list}")).iter().map(|c| name(c).to_owned()).collect()
    };
    let lists = ["containers", "initContainers"];
    if lists.iter().any(|list| names(merged, list).len() != names(new, list).len()) {
        merged.set("spec", new.path("spec").cloned());
        return;
    }
    for list in lists {
        let path = format!("spec.{list}");
        if names(merged, list) != names(new, list) {
            merged.set(&path, new.path(&path).cloned());
            continue;
        }
        let mut containers = new.list_at(&path).iter();
        defaults::each(merged, &path, |container| {
            let Some(new) = containers.next() else { return };
            for field in ["resources", "resizePolicy"] {
                match new.path(field) {
                    Some(value) => container.set(field, value.clone()),
                    None => drop(container.remove(field)),
                }
            }
        });
    }
    if let Some(resources) = new.path("spec.resources") {
        merged.set("spec.resources", resources.clone());
    }
}

/// `podStrategy.CheckGracefulDelete`
fn graceful(pod: &Tree, request: &DeleteRequest) -> Graceful {
    let own = || pod.i64_at("spec.terminationGracePeriodSeconds").unwrap_or_default();
    let seconds = request.grace_seconds.unwrap_or_else(own);
    let unscheduled = pod.str_at("spec.nodeName").is_empty();
    let over = matches!(pod.str_at("status.phase"), "Failed" | "Succeeded");
    match seconds {
        _ if unscheduled || over => Graceful::Now,
        0 => Graceful::Now,
        s if s < 0 => Graceful::After(1),
        s => Graceful::After(s),
    }
}
