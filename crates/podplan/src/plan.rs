//! The plan: lifecycle, sandbox, which containers to start and to kill.

use corten_base::Timestamp;
use corten_tree::Tree;
use corten_views::container::Probe;
use corten_views::{Container, Pod, PodStatus};

use crate::memory::after;
use crate::{
    Lifecycle, Memory, Observed, ObservedContainer, ResizeStep, Run, asked, resize, restart, status, terminate,
};

/// What the plan must know of the node.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// The node's addresses; the first one is `hostIP`.
    pub host_ips: Vec<String>,
}

/// The sort of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerKind {
    /// Of `initContainers`, sidecars included.
    Init,
    /// Of `containers`.
    App,
    /// Of `ephemeralContainers`.
    Ephemeral,
}

/// One of a container's three probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Gates the others.
    Startup,
    /// Failing restarts the container.
    Liveness,
    /// Failing takes the pod out of its services.
    Readiness,
}

impl ProbeKind {
    /// As events name it.
    pub fn as_str(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }

    /// The probe in a container's spec.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// Why a container is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyKill {
    /// The pod ends.
    PodEnds,
    /// A probe failed.
    Probe(ProbeKind),
    /// Its image in the spec changed.
    Changed,
    /// Its resources changed, and its resize policy asks for a restart.
    Resized,
    /// Somebody asked for it (`corten restart`).
    Asked,
}

/// One thing to do. All but [`Action::Delete`] may run at the same time, and each is fine to be asked for again while it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make the sandbox, after the old one is taken away.
    CreateSandbox {
        /// How many there were before.
        attempt: u32,
        /// The sandbox to take away first.
        replaces: Option<String>,
    },
    /// Pull the image, make and start a container, run its postStart hook.
    Start {
        /// Its name.
        container: String,
        /// Its sort.
        kind: ContainerKind,
        /// How many instances there were before.
        attempt: u32,
    },
    /// Stop a container: preStop hook, its stop signal, and SIGKILL at the end of the grace. Asked for again with less grace, the
    /// shorter one holds.
    Kill {
        /// The instance.
        id: String,
        /// Its name.
        container: String,
        /// Seconds from now until SIGKILL.
        grace_seconds: i64,
        /// Whether to run the preStop hook.
        pre_stop: bool,
        /// The `Killing` event's message.
        message: String,
        /// Why.
        why: WhyKill,
    },
    /// Change cgroups of the running pod, one after the other; nothing if memory that shrinks is in use.
    Resize {
        /// The writes.
        steps: Vec<ResizeStep>,
    },
    /// Remove an ended container that is of no more use.
    RemoveContainer {
        /// The instance.
        id: String,
        /// Whether its log stays until the pod goes.
        keep_log: bool,
    },
    /// Take away sandbox, containers, network and volumes; logs stay.
    TearDown,
    /// Delete the pod's object with no grace, after its status is written.
    Delete,
}

/// An event about the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `Warning`, else `Normal`.
    pub warning: bool,
    /// Its reason.
    pub reason: &'static str,
    /// Its message.
    pub message: String,
    /// The container that it is about; empty: the pod.
    pub container: String,
}

/// A probe that should be running.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeWanted {
    /// The container instance.
    pub id: String,
    /// The container's name.
    pub container: String,
    /// Which probe.
    pub kind: ProbeKind,
    /// Not before this time.
    pub from: Timestamp,
}

/// What to do now.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// To do.
    pub actions: Vec<Action>,
    /// The pod's whole status.
    pub status: Tree,
    /// Events to record.
    pub events: Vec<Event>,
    /// Plan again at this time, if nothing happens before.
    pub wake_at: Option<Timestamp>,
    /// The probes that should be running; any other is stopped.
    pub probes: Vec<ProbeWanted>,
}

/// Plans one step. `previous` is the status that was last written (the object's own after a restart).
pub fn plan(
    pod: &Pod,
    observed: &Observed,
    previous: &PodStatus,
    memory: &mut Memory,
    facts: &NodeFacts,
    now: Timestamp,
) -> Plan {
    if memory.lifecycle == Lifecycle::Syncing {
        // A pod that is over by what was observed is not set up again, even if all its containers were lost (`SyncPod`).
        let phase = status::generate(pod, observed, previous, memory, facts, now);
        if matches!(phase.str_at("phase"), "Succeeded" | "Failed") {
            memory.lifecycle = Lifecycle::Terminating;
        }
    }
    let mut work = Work { pod, observed, previous, memory, now, out: Plan::default() };
    work.advance();
    if work.memory.lifecycle == Lifecycle::Syncing {
        resize::note_progress(&mut work);
        work.collect_garbage();
    }
    work.want_probes();
    let Work { mut out, memory, .. } = work;
    out.status = status::generate(pod, observed, previous, memory, facts, now);
    out
}

pub(crate) struct Work<'w> {
    pub pod: &'w Pod,
    pub observed: &'w Observed,
    pub previous: &'w PodStatus,
    pub memory: &'w mut Memory,
    pub now: Timestamp,
    pub out: Plan,
}

impl Work<'_> {
    fn advance(&mut self) {
        if self.memory.lifecycle == Lifecycle::Syncing {
            self.check_deadline();
            let ends = self.pod.is_terminating() || self.memory.ending.is_some() || self.pod.is_terminal();
            let kill = ends || self.sync();
            if kill {
                self.out.actions.clear();
                self.memory.lifecycle = Lifecycle::Terminating;
            }
        }
        if self.memory.lifecycle == Lifecycle::Terminating {
            let busy = !self.observed.starting.is_empty() || self.observed.sandbox_starting;
            if busy || self.observed.containers.iter().any(ObservedContainer::is_running) {
                terminate::kill_all(self);
            } else {
                self.memory.lifecycle = Lifecycle::Terminated;
            }
        }
        if self.memory.lifecycle == Lifecycle::Terminated {
            if self.observed.torn_down {
                self.memory.lifecycle = Lifecycle::Cleaned;
            } else {
                self.out.actions.push(Action::TearDown);
            }
        }
        if self.memory.lifecycle == Lifecycle::Cleaned && self.pod.is_terminating() {
            self.out.actions.push(Action::Delete);
        }
    }

    /// `activeDeadlineSeconds` (`pkg/kubelet/active_deadline.go`).
    fn check_deadline(&mut self) {
        let (Some(seconds), Some(start)) = (self.pod.spec.active_deadline_seconds, self.previous.start_time) else {
            return;
        };
        let deadline = after(start, seconds);
        if self.now >= deadline {
            self.memory.end("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");
        } else {
            self.wake(deadline);
        }
    }

    pub fn wake(&mut self, at: Timestamp) {
        self.out.wake_at = Some(self.out.wake_at.map_or(at, |w| w.min(at)));
    }

    /// As `computePodActions`; true: the pod is to be ended.
    fn sync(&mut self) -> bool {
        if let Some(end) = self.sync_sandbox() {
            return end;
        }
        if restart::reset(self) {
            return false;
        }
        resize::sync(self);
        for container in &self.pod.spec.ephemeral_containers {
            if self.observed.latest(&container.name).is_none() {
                self.try_start(container, ContainerKind::Ephemeral);
            }
        }
        match self.sync_init() {
            Progress::Failed => return true,
            Progress::Pending => return false,
            Progress::Done => {}
        }
        let mut alive = 0;
        for container in &self.pod.spec.containers {
            alive += usize::from(self.sync_app(container));
        }
        alive == 0
    }

    /// `Some`: nothing else can be done before the sandbox is there.
    fn sync_sandbox(&mut self) -> Option<bool> {
        if self.observed.sandbox_starting {
            return Some(false);
        }
        let sandbox = self.observed.sandbox.as_ref();
        if sandbox.is_some_and(|s| s.ready) {
            return None;
        }
        let pod = self.pod;
        let attempt = sandbox.map_or(0, |s| s.attempt + 1);
        if pod.spec.restart_policy == "Never" && attempt != 0 && !self.observed.containers.is_empty() {
            return Some(true);
        }
        let done = |c: &Container| {
            let policy = c.restart_policy.as_ref().unwrap_or(&pod.spec.restart_policy);
            policy == "OnFailure" && self.observed.latest(&c.name).and_then(|i| i.exit_code()) == Some(0)
        };
        if pod.spec.containers.iter().all(done) {
            return Some(true);
        }
        if let Some(retry) = self.memory.sandbox_retry.filter(|r| self.now < r.retry_at) {
            self.wake(retry.retry_at);
            return Some(false);
        }
        self.memory.resizing.note_sandbox(pod);
        self.out.actions.push(Action::CreateSandbox { attempt, replaces: sandbox.map(|s| s.id.clone()) });
        Some(false)
    }

    /// As `computeInitContainerActions`.
    fn sync_init(&mut self) -> Progress {
        let inits = &self.pod.spec.init_containers;
        if inits.is_empty() {
            return Progress::Done;
        }
        let app = |c: &&Container| self.observed.active(&c.name).is_some() || self.observed.is_starting(&c.name);
        let mut initialized = self.pod.spec.containers.iter().any(|c| app(&c));
        // Whether a later init container exists, so that this one has been passed.
        let mut passed = initialized;
        let mut starts = Vec::new();
        for (i, container) in inits.iter().enumerate().rev() {
            let starting = self.observed.is_starting(&container.name);
            let Some(found) = self.observed.active(&container.name).cloned() else {
                if passed && container.is_sidecar() {
                    starts.push(i);
                } else if starting {
                    passed = true;
                }
                continue;
            };
            if passed && !container.is_sidecar() {
                continue;
            }
            let next = (!passed).then_some(i + 1);
            match (&found.run, container.is_sidecar()) {
                _ if starting => {}
                (Run::Created, _) => starts.push(i),
                (Run::Running { .. }, false) => {}
                (Run::Running { .. }, true) => {
                    if self.sidecar_initialized(container, &found) {
                        match next {
                            Some(next) if next < inits.len() => starts.push(next),
                            _ => {}
                        }
                        initialized |= i + 1 == inits.len();
                    }
                    self.check_running(container, &found);
                }
                (Run::Exited { .. }, true) => starts.push(i),
                (Run::Exited { exit_code, .. }, false) if *exit_code != 0 => {
                    if !self.should_restart(container) {
                        return Progress::Failed;
                    }
                    starts.push(i);
                }
                (Run::Exited { .. }, false) => match next {
                    Some(next) if next < inits.len() => starts.push(next),
                    _ => initialized |= i + 1 == inits.len(),
                },
            }
            passed = true;
        }
        if !passed {
            starts.push(0);
        }
        starts.reverse();
        starts.dedup();
        for i in starts {
            self.try_start(&inits[i], ContainerKind::Init);
        }
        if initialized { Progress::Done } else { Progress::Pending }
    }

    fn sidecar_initialized(&self, container: &Container, found: &ObservedContainer) -> bool {
        container.startup_probe.is_none() || self.started(container, found)
    }

    /// Whether an instance's startup probe has succeeded, or there is none.
    pub fn started(&self, container: &Container, found: &ObservedContainer) -> bool {
        status::started(container, found, self.previous, self.memory)
    }

    /// One app container; true: it runs or will.
    fn sync_app(&mut self, container: &Container) -> bool {
        if self.observed.is_starting(&container.name) {
            return true;
        }
        match self.observed.latest(&container.name).cloned() {
            Some(found) if found.is_running() => {
                let killed = self.check_running(container, &found);
                !killed || self.memory.restart_wanted.contains(&found.id)
            }
            _ if self.should_restart(container) => {
                self.try_start(container, ContainerKind::App);
                true
            }
            _ => false,
        }
    }

    /// Kills a running container whose probe failed, whose image changed or that somebody wants restarted; true if so.
    fn check_running(&mut self, container: &Container, found: &ObservedContainer) -> bool {
        let failed = |kind| self.memory.probes.get(&found.id).and_then(|p| p.verdict(kind)) == Some(false);
        let init = self.pod.spec.init_containers.iter().any(|c| c.name == container.name);
        let subject = if init { "Init container" } else { "Container" };
        let (what, why): (String, WhyKill) = if found.spec_image != container.image {
            ("definition changed".into(), WhyKill::Changed)
        } else if failed(ProbeKind::Liveness) {
            ("failed liveness probe".into(), WhyKill::Probe(ProbeKind::Liveness))
        } else if failed(ProbeKind::Startup) {
            ("failed startup probe".into(), WhyKill::Probe(ProbeKind::Startup))
        } else if resize::needs_restart(self, container) {
            ("resize requires restart".into(), WhyKill::Resized)
        } else if let Some(asked) = self.asked_to_restart(container, found) {
            (asked, WhyKill::Asked)
        } else {
            return false;
        };
        let again = matches!(why, WhyKill::Changed | WhyKill::Resized) || self.should_restart_after_kill(container);
        let subject = if why == WhyKill::Resized { "Container" } else { subject };
        let tail = if again && !init && why != WhyKill::Resized { ", will be restarted" } else { "" };
        if again {
            self.memory.restart_wanted.insert(found.id.clone());
        }
        let message = format!("{subject} {} {what}{tail}", container.name);
        terminate::kill(self, container, found, message, why);
        true
    }

    /// What the event says if somebody wants a container restarted by now.
    fn asked_to_restart(&mut self, container: &Container, found: &ObservedContainer) -> Option<String> {
        let (at, what) = asked::asked(self.pod, found).filter(|_| self.should_restart_after_kill(container))?;
        if at > self.now {
            self.wake(at);
            return None;
        }
        Some(what)
    }

    fn should_restart_after_kill(&self, container: &Container) -> bool {
        container.restart_policy.as_ref().unwrap_or(&self.pod.spec.restart_policy) != "Never"
    }

    fn should_restart(&self, container: &Container) -> bool {
        should_restart(self.pod, container, self.observed, self.memory)
    }

    /// Starts a container unless it is being started or must wait.
    fn try_start(&mut self, container: &Container, kind: ContainerKind) {
        let name = container.name.as_str();
        if self.observed.is_starting(name) || self.memory.resizing.is_under_way() {
            return;
        }
        if let Some((_, look)) = self.memory.blocked_until(name, self.now) {
            if let Some(image) = self.memory.pull_back_off(name, self.now) {
                let about = |warning, reason, message| Event { warning, reason, message, container: name.to_owned() };
                self.out.events.push(about(false, "BackOff", format!("Back-off pulling image {image:?}")));
                self.out.events.push(about(true, "Failed", "Error: ImagePullBackOff".into()));
            }
            self.wake(look);
            return;
        }
        let latest = self.observed.latest(name);
        if let Some(Run::Exited { finished_at, .. }) = latest.map(|c| &c.run)
            && let Some((seconds, until)) = self.memory.back_off(name, *finished_at, self.now)
        {
            let pod = crate::format_pod(self.pod);
            let message = format!("back-off {} restarting failed container={name} pod={pod}", go_seconds(seconds));
            self.memory.note_crash_loop(name, message, self.now, until);
            self.out.events.push(Event {
                warning: true,
                reason: "BackOff",
                message: format!("Back-off restarting failed container {name} in pod {pod}"),
                container: name.to_owned(),
            });
            self.wake(until);
            return;
        }
        let attempt = latest.map_or_else(|| self.attempt_from_status(name), |c| c.attempt + 1);
        self.memory.resizing.note_start(name);
        self.out.actions.push(Action::Start { container: name.to_owned(), kind, attempt });
    }

    /// The runtime has forgotten all instances: the status knows how many there were.
    fn attempt_from_status(&self, name: &str) -> u32 {
        let s = self.previous;
        let mut all =
            s.container_statuses.iter().chain(&s.init_container_statuses).chain(&s.ephemeral_container_statuses);
        all.find(|c| c.name == name).map_or(0, |c| {
            let ran = !c.container_id.is_empty() && (c.state.running.is_some() || c.state.terminated.is_some());
            u32::try_from(c.restart_count).unwrap_or(0) + u32::from(ran)
        })
    }

    /// All but the newest two instances of each container are of no use, nor is what is remembered of those that are gone.
    fn collect_garbage(&mut self) {
        let known = |id: &String| self.observed.containers.iter().any(|c| c.id == *id);
        self.memory.probes.retain(|id, _| known(id));
        self.memory.restart_wanted.retain(|id| known(id));
        for container in &self.observed.containers {
            let newest = self.observed.latest(&container.name).map_or(0, |c| c.attempt);
            let ended = matches!(container.run, Run::Exited { .. } | Run::Created);
            if ended && container.attempt + 1 < newest {
                self.out.actions.push(Action::RemoveContainer { id: container.id.clone(), keep_log: false });
            }
        }
    }

    fn want_probes(&mut self) {
        if self.memory.lifecycle >= Lifecycle::Terminated {
            return;
        }
        let spec = &self.pod.spec;
        let ending = self.memory.lifecycle == Lifecycle::Terminating;
        let sidecars = spec.init_containers.iter().filter(|c| c.is_sidecar());
        for container in spec.containers.iter().chain(sidecars) {
            let Some(found) = self.observed.active(&container.name) else { continue };
            let Run::Running { started_at } = found.run else { continue };
            if self.observed.is_starting(&container.name) {
                continue;
            }
            let started = self.started(container, found);
            for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
                let Some(probe) = kind.of(container) else { continue };
                let verdict = self.memory.probes.get(&found.id).and_then(|p| p.verdict(kind));
                let wanted = match kind {
                    ProbeKind::Startup => !started && verdict.is_none() && !ending,
                    ProbeKind::Liveness => started && verdict != Some(false) && !ending,
                    ProbeKind::Readiness => started,
                };
                if wanted {
                    self.out.probes.push(ProbeWanted {
                        id: found.id.clone(),
                        container: container.name.clone(),
                        kind,
                        from: after(started_at, probe.initial_delay_seconds.into()),
                    });
                }
            }
        }
    }
}

enum Progress {
    Pending,
    Done,
    Failed,
}

/// As `ShouldContainerBeRestarted` and `ContainerShouldRestart`.
pub(crate) fn should_restart(pod: &Pod, container: &Container, observed: &Observed, memory: &Memory) -> bool {
    if pod.is_terminating() || memory.lifecycle != Lifecycle::Syncing {
        return false;
    }
    let Some(found) = observed.latest(&container.name) else { return true };
    match found.run {
        Run::Running { .. } => false,
        Run::Created => true,
        Run::Exited { exit_code, .. } => {
            memory.restart_wanted.contains(&found.id) || restart::restarts_after(pod, container, exit_code)
        }
    }
}

/// Seconds as Go prints a duration: `10s`, `1m20s`, `5m0s`.
fn go_seconds(seconds: i64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
