//! A pod's status from what was observed (`pkg/kubelet/kubelet_pods.go` `generateAPIPodStatus`,
//! `convertToAPIContainerStatuses`).

use corten_base::Timestamp;
use corten_object::time;
use corten_tree::Tree;
use corten_views::container::{ContainerStateTerminated, ContainerStatus, ResourceRequirements};
use corten_views::{Container, Pod, PodStatus};

use crate::allotment::{list_tree, requirements_tree};
use crate::plan::should_restart;
use crate::resources::QosClass;
use crate::{
    Lifecycle, Memory, NodeFacts, Observed, ObservedContainer, ProbeKind, Run, conditions, level, phase, restart,
};

/// Prefix of container ids in the API.
const RUNTIME: &str = "corten://";
const LOST: &str = "ContainerStatusUnknown";

/// A container's status before it becomes JSON.
#[derive(Debug, Clone)]
pub(crate) struct ContainerReport {
    pub name: String,
    pub image: String,
    pub image_id: String,
    pub container_id: String,
    pub restart_count: i64,
    pub state: State,
    pub last: Option<Terminated>,
    pub ready: bool,
    pub started: Option<bool>,
    user: Option<(u32, u32, Vec<u32>)>,
}

#[derive(Debug, Clone)]
pub(crate) enum State {
    Waiting { reason: String, message: String },
    Running { started_at: Option<Timestamp> },
    Terminated(Terminated),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Terminated {
    pub exit_code: i32,
    signal: i32,
    pub reason: String,
    message: String,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    container_id: String,
}

/// The whole status.
pub(crate) fn generate(
    pod: &Pod,
    observed: &Observed,
    previous: &PodStatus,
    memory: &Memory,
    facts: &NodeFacts,
    now: Timestamp,
) -> Tree {
    let inputs = Inputs { pod, observed, previous, memory, now };
    let spec = &pod.spec;
    let mut init = inputs.reports(&spec.init_containers, &previous.init_container_statuses, Sort::Init);
    let mut app = inputs.reports(&spec.containers, &previous.container_statuses, Sort::App);
    let ephemeral = inputs.reports(&spec.ephemeral_containers, &previous.ephemeral_container_statuses, Sort::Ephemeral);
    let done = memory.lifecycle >= Lifecycle::Terminated;
    let initialized = spec.containers.iter().any(|c| observed.active(&c.name).is_some());
    if done {
        account_for_lost(&mut init, &mut app, previous);
    }
    let both: Vec<&ContainerReport> = app.iter().chain(&init).collect();
    let computed = phase::phase(pod, &both, done, initialized);
    let (phase, reason, message) = inputs.settle_phase(computed);
    let in_order: Vec<&ContainerReport> = init.iter().chain(&app).collect();

    let mut out = Tree::map();
    if pod.metadata.generation != 0 {
        out.insert("observedGeneration", pod.metadata.generation);
    }
    out.insert("phase", phase);
    out.insert("conditions", conditions::generate(pod, observed, &in_order, phase, previous, memory, now));
    for (key, text) in [("message", message), ("reason", reason)] {
        if !text.is_empty() {
            out.insert(key, text);
        }
    }
    inputs.addresses(&mut out, facts);
    out.insert("startTime", time::format(previous.start_time.unwrap_or(now)));
    let lists = [
        ("initContainerStatuses", &spec.init_containers, &init),
        ("containerStatuses", &spec.containers, &app),
        ("ephemeralContainerStatuses", &spec.ephemeral_containers, &ephemeral),
    ];
    for (key, containers, reports) in lists {
        if !reports.is_empty() {
            let one = |r: &ContainerReport| tree(r, containers.iter().find(|c| c.name == r.name), memory);
            out.insert(key, Tree::List(reports.iter().map(one).collect()));
        }
    }
    level::insert(&mut out, pod, memory.resizing.pod_values());
    let class = &pod.status.qos_class;
    out.insert("qosClass", if class.is_empty() { QosClass::of(pod).as_str() } else { class });
    out
}

#[derive(Clone, Copy, PartialEq)]
enum Sort {
    Init,
    App,
    Ephemeral,
}

struct Inputs<'i> {
    pod: &'i Pod,
    observed: &'i Observed,
    previous: &'i PodStatus,
    memory: &'i Memory,
    now: Timestamp,
}

impl Inputs<'_> {
    fn reports(&self, containers: &[Container], before: &[ContainerStatus], sort: Sort) -> Vec<ContainerReport> {
        let find = |name: &str| before.iter().find(|b| b.name == name);
        let mut out: Vec<ContainerReport> = containers.iter().map(|c| self.report(c, find(&c.name), sort)).collect();
        if sort != Sort::Init {
            out.sort_by(|a, b| a.name.cmp(&b.name));
        }
        out
    }

    fn report(&self, container: &Container, before: Option<&ContainerStatus>, sort: Sort) -> ContainerReport {
        let creating = self.creating();
        let mut report = ContainerReport {
            name: container.name.clone(),
            image: container.image.clone(),
            image_id: String::new(),
            container_id: String::new(),
            restart_count: before.map_or(0, |b| b.restart_count.into()),
            state: State::Waiting { reason: creating.into(), message: self.memory.progress(&container.name) },
            last: before.and_then(|b| b.last_state.terminated.as_ref()).map(terminated),
            ready: false,
            started: None,
            user: None,
        };
        let starting = self.observed.is_starting(&container.name);
        match self.observed.latest(&container.name) {
            // While the postStart hook runs, the container is not yet there for the API.
            Some(found) if starting && found.is_running() => self.fill(&mut report, found, before),
            Some(found) => self.fill(&mut report, found, before),
            None => self.fill_unseen(&mut report, before, sort),
        }
        if starting && matches!(report.state, State::Running { .. }) {
            report.state = State::Waiting { reason: creating.into(), message: String::new() };
        }
        self.show_waiting(&mut report, container, sort);
        let found = self.observed.latest(&container.name);
        self.judge(&mut report, container, found, before, sort);
        report
    }

    /// Why a container waits of which nothing else is known (`defaultWaitingState`).
    fn creating(&self) -> &'static str {
        if self.pod.spec.init_containers.is_empty() { "ContainerCreating" } else { "PodInitializing" }
    }

    fn fill(&self, report: &mut ContainerReport, found: &ObservedContainer, before: Option<&ContainerStatus>) {
        report.image.clone_from(&found.image);
        report.image_id.clone_from(&found.image_id);
        report.container_id = format!("{RUNTIME}{}", found.id);
        report.restart_count = report.restart_count.max(found.attempt.into());
        report.user.clone_from(&found.user);
        let older = self.observed.containers.iter().filter(|c| c.name == found.name && c.attempt < found.attempt);
        if let Some(end) = older.max_by_key(|c| c.attempt).and_then(end_of) {
            report.last = Some(end);
        } else if let Some(old) = before.filter(|b| b.container_id != report.container_id)
            && let Some(end) = &old.state.terminated
        {
            report.last = Some(terminated(end));
        }
        report.state = match &found.run {
            Run::Created => State::Waiting { reason: self.creating().into(), message: String::new() },
            Run::Running { started_at } => State::Running { started_at: Some(*started_at) },
            Run::Exited { .. } => State::Terminated(end_of(found).unwrap_or_default()),
        };
    }

    /// The runtime knows nothing of the container.
    fn fill_unseen(&self, report: &mut ContainerReport, before: Option<&ContainerStatus>, sort: Sort) {
        let Some(before) = before else { return };
        let all_restart = sort != Sort::Ephemeral && restart::all_restart(self.pod, self.observed, self.previous);
        if all_restart && before.state.waiting.is_some() {
            return;
        }
        if all_restart {
            let (reason, message) = (restart::REASON.to_owned(), restart::MESSAGE.to_owned());
            report.state = State::Waiting { reason: reason.clone(), message: message.clone() };
            report.last = Some(Terminated { exit_code: 137, reason, message, ..Terminated::default() });
            report.restart_count += 1;
            return;
        }
        if let Some(end) = &before.state.terminated {
            report.image_id.clone_from(&before.image_id);
            report.image.clone_from(&before.image);
            report.container_id.clone_from(&before.container_id);
            report.state = State::Terminated(terminated(end));
        } else if before.state.running.is_some() {
            let lost = Terminated {
                exit_code: 137,
                reason: LOST.into(),
                message:
                    "The container could not be located when the pod was deleted.  The container used to be Running"
                        .into(),
                ..Terminated::default()
            };
            report.last.get_or_insert(lost);
            if !self.pod.is_terminating() {
                report.restart_count += 1;
            }
        }
        let initialized = self.pod.spec.containers.iter().any(|c| self.observed.latest(&c.name).is_some());
        let sidecar = self.pod.spec.init_containers.iter().any(|c| c.name == report.name && c.is_sidecar());
        if sort == Sort::Init && initialized && !sidecar && matches!(report.state, State::Waiting { .. }) {
            report.state = State::Terminated(Terminated {
                reason: "Completed".into(),
                message: "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally".into(),
                ..Terminated::default()
            });
        }
    }

    /// A container that will be started shows why it has not been yet.
    fn show_waiting(&self, report: &mut ContainerReport, container: &Container, sort: Sort) {
        let found = self.observed.latest(&container.name);
        if sort == Sort::Init && found.and_then(|f| f.exit_code()) == Some(0) && !container.is_sidecar() {
            return;
        }
        let restarts = match sort {
            Sort::Ephemeral => found.is_none(),
            _ => should_restart(self.pod, container, self.observed, self.memory),
        };
        if !restarts || self.observed.is_starting(&container.name) && !self.waits(&container.name) {
            return;
        }
        let Some((reason, message)) = self.memory.waiting(&container.name, self.now) else { return };
        if let State::Terminated(end) = &report.state {
            report.last = Some(end.clone());
        }
        report.state = State::Waiting { reason, message };
    }

    fn waits(&self, name: &str) -> bool {
        self.memory.blocked_until(name, self.now).is_some()
    }

    /// Started and ready (`prober_manager.go` `UpdatePodStatus`).
    fn judge(
        &self,
        report: &mut ContainerReport,
        container: &Container,
        found: Option<&ObservedContainer>,
        before: Option<&ContainerStatus>,
        sort: Sort,
    ) {
        if sort == Sort::Ephemeral {
            return;
        }
        let running = matches!(report.state, State::Running { .. });
        let instance = found.filter(|_| running);
        let is_started = instance.is_some_and(|f| started(container, f, self.previous, self.memory));
        report.started = Some(is_started);
        if sort == Sort::Init && !container.is_sidecar() {
            report.ready = matches!(&report.state, State::Terminated(end) if end.exit_code == 0);
            return;
        }
        let verdict =
            instance.and_then(|f| self.memory.probes.get(&f.id)).and_then(|p| p.verdict(ProbeKind::Readiness));
        let same = before.is_some_and(|b| b.container_id == report.container_id && b.ready);
        report.ready = is_started && (container.readiness_probe.is_none() || verdict.unwrap_or(same));
    }

    /// The phase may not leave a terminal one, and not become terminal while something runs.
    fn settle_phase<'s>(&'s self, computed: &'s str) -> (&'s str, &'s str, &'s str) {
        let terminal = |phase: &str| matches!(phase, "Succeeded" | "Failed");
        let done = self.memory.lifecycle >= Lifecycle::Terminated;
        let phase = if terminal(&self.pod.status.phase) {
            self.pod.status.phase.as_str()
        } else if terminal(&self.previous.phase) {
            self.previous.phase.as_str()
        } else if done && (self.memory.ending.is_some() || !terminal(computed)) {
            "Failed"
        } else if terminal(computed) && !done {
            // Sidecars still have to go.
            let runs = self.observed.containers.iter().any(ObservedContainer::is_running);
            if runs { "Running" } else { computed }
        } else {
            computed
        };
        match &self.memory.ending {
            Some(ending) if phase == "Failed" => (phase, &ending.reason, &ending.message),
            _ if phase == self.previous.phase => (phase, &self.previous.reason, &self.previous.message),
            _ => (phase, "", ""),
        }
    }

    fn addresses(&self, out: &mut Tree, facts: &NodeFacts) {
        let list = |ips: &[String]| {
            let one = |ip: &String| {
                let mut tree = Tree::map();
                tree.insert("ip", ip);
                tree
            };
            Tree::List(ips.iter().map(one).collect())
        };
        if let Some(first) = facts.host_ips.first() {
            out.insert("hostIP", first);
            out.insert("hostIPs", list(&facts.host_ips));
        }
        let sandbox = self.observed.sandbox.as_ref();
        let ending = self.memory.lifecycle >= Lifecycle::Terminating;
        let ips = match sandbox {
            _ if self.pod.spec.host_network && sandbox.is_some() => facts.host_ips.clone(),
            Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.clone(),
            _ if ending => self.previous.pod_ips.iter().map(|ip| ip.ip.clone()).collect(),
            _ => Vec::new(),
        };
        if let Some(first) = ips.first() {
            out.insert("podIP", first);
            out.insert("podIPs", list(&ips));
        }
    }
}

/// Whether an instance's startup probe has succeeded, or there is none; what the API had of the same instance holds until the
/// probe has spoken.
pub(crate) fn started(container: &Container, found: &ObservedContainer, previous: &PodStatus, memory: &Memory) -> bool {
    if !found.is_running() {
        return false;
    }
    if container.startup_probe.is_none() {
        return true;
    }
    let verdict = memory.probes.get(&found.id).and_then(|p| p.verdict(ProbeKind::Startup));
    let id = format!("{RUNTIME}{}", found.id);
    let mut before = previous.container_statuses.iter().chain(&previous.init_container_statuses);
    verdict.unwrap_or_else(|| before.any(|b| b.container_id == id && b.started == Some(true)))
}

/// Containers of an ended pod of which nothing is known any more (`status_manager.go` `TerminatePod`).
fn account_for_lost(init: &mut [ContainerReport], app: &mut [ContainerReport], previous: &PodStatus) {
    let was_initialized = corten_views::meta::is_true(&previous.conditions, "Initialized")
        && previous.container_statuses.iter().any(|c| c.state.waiting.is_none() || c.last_state.terminated.is_some());
    let lost = || {
        State::Terminated(Terminated {
            exit_code: 137,
            reason: LOST.into(),
            message: "The container could not be located when the pod was terminated".into(),
            ..Terminated::default()
        })
    };
    for report in app.iter_mut().filter(|_| was_initialized) {
        if !matches!(report.state, State::Terminated(_)) {
            report.state = lost();
            report.ready = false;
            report.started = Some(false);
        }
    }
    for report in init.iter_mut().filter(|r| matches!(r.state, State::Running { .. })) {
        report.state = lost();
    }
}

fn end_of(found: &ObservedContainer) -> Option<Terminated> {
    let Run::Exited { exit_code, signal, oom_killed, started_at, finished_at } = &found.run else { return None };
    let reason = match (oom_killed, exit_code, started_at) {
        (true, ..) => "OOMKilled",
        (_, 0, _) => "Completed",
        (_, 128, None) => "StartError",
        _ => "Error",
    };
    Some(Terminated {
        exit_code: *exit_code,
        signal: if *exit_code > 128 { 0 } else { *signal },
        reason: reason.into(),
        message: found.message.clone(),
        started_at: started_at.or(Some(Timestamp::UNIX_EPOCH)),
        finished_at: Some(*finished_at),
        container_id: format!("{RUNTIME}{}", found.id),
    })
}

fn terminated(view: &ContainerStateTerminated) -> Terminated {
    Terminated {
        exit_code: view.exit_code,
        signal: view.signal,
        reason: view.reason.clone(),
        message: view.message.clone(),
        started_at: view.started_at,
        finished_at: view.finished_at,
        container_id: view.container_id.clone(),
    }
}

fn tree(report: &ContainerReport, container: Option<&Container>, memory: &Memory) -> Tree {
    let mut out = Tree::map();
    out.insert("name", &report.name);
    out.insert("state", state_tree(&report.state));
    let last = report.last.as_ref().map_or_else(Tree::map, |end| state_tree(&State::Terminated(end.clone())));
    out.insert("lastState", last);
    out.insert("ready", report.ready);
    out.insert("restartCount", report.restart_count);
    out.insert("image", &report.image);
    out.insert("imageID", &report.image_id);
    if !report.container_id.is_empty() {
        out.insert("containerID", &report.container_id);
    }
    if let Some(started) = report.started {
        out.insert("started", started);
    }
    let Some(container) = container else { return out };
    if !report.container_id.is_empty() {
        let promised = &container.resources;
        if !promised.requests.is_empty() {
            out.insert("allocatedResources", list_tree(&promised.requests));
        }
        let runs = matches!(report.state, State::Running { .. });
        let actual =
            if runs { actual_resources(promised, memory.resizing.actual(container)) } else { promised.clone() };
        out.insert("resources", requirements_tree(&actual));
    }
    let mounts: Vec<Tree> = container.volume_mounts.iter().map(mount_tree).collect();
    if !mounts.is_empty() {
        out.insert("volumeMounts", Tree::List(mounts));
    }
    if let Some((uid, gid, groups)) = &report.user {
        let groups = groups.iter().map(|g| Tree::Int((*g).into())).collect();
        out.set("user.linux.uid", i64::from(*uid));
        out.set("user.linux.gid", i64::from(*gid));
        out.set("user.linux.supplementalGroups", Tree::List(groups));
    }
    out
}

fn mount_tree(mount: &corten_views::container::VolumeMount) -> Tree {
    let mut out = Tree::map();
    out.insert("name", &mount.name);
    out.insert("mountPath", &mount.mount_path);
    if mount.read_only {
        out.insert("readOnly", true);
        let recursive = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
        out.insert("recursiveReadOnly", if recursive { "Enabled" } else { "Disabled" });
    }
    out
}

/// What a container was promised, with CPU and memory as its cgroup has them (`convertContainerStatusResources`).
fn actual_resources(promised: &ResourceRequirements, actual: &ResourceRequirements) -> ResourceRequirements {
    let mut out = promised.clone();
    for (out, actual) in [(&mut out.limits, &actual.limits), (&mut out.requests, &actual.requests)] {
        if out.is_empty() {
            continue;
        }
        for name in ["cpu", "memory"] {
            match actual.get(name) {
                Some(quantity) => drop(out.insert(name.to_owned(), quantity.clone())),
                None => drop(out.remove(name)),
            }
        }
    }
    out
}

fn state_tree(state: &State) -> Tree {
    let mut out = Tree::map();
    let inner = |out: &mut Tree, key: &'static str, fields: Vec<(&'static str, Tree)>| {
        let mut tree = Tree::map();
        for (name, value) in fields.into_iter().filter(|(_, v)| !v.is_null() && v.as_str() != Some("")) {
            tree.insert(name, value);
        }
        out.insert(key, tree);
    };
    let at = |t: &Option<Timestamp>| Tree::from(t.map(time::format));
    match state {
        State::Waiting { reason, message } => {
            inner(&mut out, "waiting", vec![("reason", reason.into()), ("message", message.into())]);
        }
        State::Running { started_at } => inner(&mut out, "running", vec![("startedAt", at(started_at))]),
        State::Terminated(end) => {
            let signal = if end.signal == 0 { Tree::Null } else { Tree::from(end.signal) };
            let fields = vec![
                ("exitCode", end.exit_code.into()),
                ("signal", signal),
                ("reason", (&end.reason).into()),
                ("message", (&end.message).into()),
                ("startedAt", at(&end.started_at)),
                ("finishedAt", at(&end.finished_at)),
                ("containerID", (&end.container_id).into()),
            ];
            inner(&mut out, "terminated", fields);
        }
    }
    out
}
