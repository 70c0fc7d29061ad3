//! Pod.

use corten_object::time;
use corten_tree::{Tree, tree};

use crate::defaults;
use crate::print;
use crate::spec::{Fact, Generation, Hooks, KindSpec, PROXY, STREAM, Subresource, SubresourceKind};
use crate::{Column, Of, RowContext, TextOr, column, wide};

/// `v1 Pod`
pub(crate) const POD: KindSpec = KindSpec {
    kind: "Pod",
    plural: "pods",
    short: &["po"],
    categories: &["all"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[
        Subresource::connect("attach", "PodAttachOptions", STREAM),
        Subresource::action("binding", ("", "v1", "Binding")),
        Subresource::update("ephemeralcontainers"),
        Subresource::action("eviction", ("policy", "v1", "Eviction")),
        Subresource::connect("exec", "PodExecOptions", STREAM),
        Subresource::of("log", SubresourceKind::Connect, &["get"]),
        Subresource::connect("portforward", "PodPortForwardOptions", STREAM),
        Subresource::connect("proxy", "PodProxyOptions", PROXY),
        Subresource::update("resize"),
        Subresource::STATUS,
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
    served_by: Some("node"),
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
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
