//! Scenarios: a pod, a pretended runtime, and what the plans say step by step.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod fields;

use corten_base::Timestamp;
use corten_podplan::{
    Action, ContainerKind, Lifecycle, Memory, NodeFacts, Observed, ObservedContainer, ObservedSandbox, ProbeKind, Run,
    StartFailure, plan,
};
use corten_tree::Tree;
use corten_views::container::ResourceRequirements;
use corten_views::{Pod, PodStatus};
use expect_test::{Expect, expect};
use jiff::SignedDuration;

struct Sim {
    pod: Pod,
    observed: Observed,
    memory: Memory,
    previous: PodStatus,
    now: Timestamp,
    log: String,
    deleted: bool,
    resize_fails: Option<String>,
}

impl Sim {
    fn new(spec: &str) -> Sim {
        let json = format!(
            r#"{{"metadata":{{"name":"p","namespace":"d","uid":"u","generation":1}},"spec":{{"restartPolicy":"Always","terminationGracePeriodSeconds":30,{spec}}}}}"#
        );
        let pod: Pod = serde_json::from_str(&json).unwrap();
        let mut memory = Memory::default();
        memory.note_taken(&pod);
        Sim {
            pod,
            observed: Observed::default(),
            memory,
            previous: PodStatus::default(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            log: String::new(),
            deleted: false,
            resize_fails: None,
        }
    }

    fn say(&mut self, text: impl AsRef<str>) {
        self.log.push_str(text.as_ref());
        self.log.push('\n');
    }

    fn pass(&mut self, seconds: i64) -> &mut Sim {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        self
    }

    /// Plans and executes until nothing changes.
    fn settle(&mut self) -> &mut Sim {
        for _ in 0..20 {
            let facts = NodeFacts { host_ips: vec!["192.168.0.1".into()] };
            let plan = plan(&self.pod, &self.observed, &self.previous, &mut self.memory, &facts, self.now);
            let line = summary(&plan.status);
            self.previous = serde_json::from_slice(&plan.status.to_json()).unwrap();
            self.pod.status = self.previous.clone();
            if !self.log.ends_with(&format!("{line}\n")) {
                self.say(&line);
            }
            for event in &plan.events {
                self.say(format!("  event {}: {}", event.reason, event.message));
            }
            let actions: Vec<Action> =
                plan.actions.into_iter().filter(|a| !matches!(a, Action::Delete) || !self.deleted).collect();
            if actions.is_empty() {
                if let Some(at) = plan.wake_at {
                    self.say(format!("  wake in {}s", at.duration_since(self.now).as_secs()));
                }
                return self;
            }
            let mut waiting = true;
            for action in actions {
                waiting &= matches!(&action, Action::Kill { .. });
                self.execute(action);
            }
            if waiting {
                return self;
            }
        }
        panic!("does not settle:\n{}", self.log);
    }

    fn execute(&mut self, action: Action) {
        match action {
            Action::CreateSandbox { attempt, .. } => {
                self.say(format!("  sandbox {attempt}"));
                let id = format!("s{attempt}");
                self.observed.sandbox =
                    Some(ObservedSandbox { id, attempt, ready: true, ips: vec!["10.0.0.2".into()] });
            }
            Action::Start { container, kind, attempt } => {
                let sort = if kind == ContainerKind::Init { " (init)" } else { "" };
                self.say(format!("  start {container}{sort} {attempt}"));
                let spec_image = corten_podplan::container_of(&self.pod, &container).unwrap().image.clone();
                self.observed.containers.push(ObservedContainer {
                    id: format!("{container}{attempt}"),
                    name: container.clone(),
                    attempt,
                    sandbox: self.observed.sandbox.as_ref().unwrap().id.clone(),
                    run: Run::Running { started_at: self.now },
                    created_at: self.now,
                    image: "i".into(),
                    image_id: "sha256:1".into(),
                    spec_image,
                    message: String::new(),
                    user: None,
                });
                self.memory.note_started(&container);
            }
            Action::Kill { container, grace_seconds, message, .. } => {
                self.say(format!("  kill {container} grace {grace_seconds}: {message}"));
            }
            Action::Resize { steps } => {
                for step in &steps {
                    let target = step.container.as_ref().map_or("pod", |(id, _)| id);
                    let v = step.values.clone();
                    let number = |name: &str, n: Option<i64>| n.map_or(String::new(), |n| format!(" {name}={n}"));
                    let shares = v.cpu_shares.and_then(|n| i64::try_from(n).ok());
                    let all = [number("shares", shares), number("quota", v.cpu_quota), number("memory", v.memory_max)];
                    self.say(format!(
                        "  write {target}{}{}",
                        all.concat(),
                        if step.shrinks_memory { " (less)" } else { "" }
                    ));
                }
                let error = self.resize_fails.as_deref();
                let done = if error.is_some() { 0 } else { steps.len() };
                let event = self.memory.note_resized(done, error, &self.pod, self.now);
                if let Some(event) = event {
                    self.say(format!("  event {}: {}", event.reason, event.message));
                }
            }
            Action::RemoveContainer { id, keep_log } => {
                self.say(format!("  remove {id}{}", if keep_log { ", not its log" } else { "" }));
                self.observed.containers.retain(|c| c.id != id);
            }
            Action::TearDown => {
                self.say("  tear down");
                self.observed = Observed { torn_down: true, ..Observed::default() };
            }
            Action::Delete => {
                self.say("  delete");
                self.deleted = true;
            }
        }
    }

    fn exit(&mut self, name: &str, exit_code: i32) -> &mut Sim {
        self.say(format!("{name} exits {exit_code}"));
        let finished_at = self.now;
        let instance =
            self.observed.containers.iter_mut().filter(|c| c.name == name).max_by_key(|c| c.attempt).unwrap();
        let Run::Running { started_at } = instance.run else { panic!("{name} does not run") };
        let started_at = Some(started_at);
        instance.run = Run::Exited { exit_code, signal: 0, oom_killed: false, started_at, finished_at };
        self
    }

    fn probe(&mut self, id: &str, name: &str, kind: ProbeKind, ok: bool) -> &mut Sim {
        let probe = kind.of(corten_podplan::container_of(&self.pod, name).unwrap()).unwrap().clone();
        let changed = self.memory.note_probe(id, kind, &probe, ok);
        self.say(format!("{} probe of {id}: {ok}, changed {changed}", kind.as_str()));
        self
    }

    fn delete(&mut self, grace: i64) -> &mut Sim {
        self.say(format!("delete with grace {grace}"));
        self.pod.metadata.deletion_timestamp = Some(self.now);
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self
    }

    /// Changes the specification as the resize subresource does; the node has room for it or not.
    fn resize(&mut self, container: &str, resources: &str, room: bool) -> &mut Sim {
        self.say(format!("resize {container} to {resources}"));
        let resources: ResourceRequirements = serde_json::from_str(resources).unwrap();
        let mut wanted = self.pod.clone();
        wanted.metadata.generation += 1;
        let all = wanted.spec.init_containers.iter_mut().chain(&mut wanted.spec.containers);
        all.filter(|c| c.name == container).for_each(|c| c.resources = resources.clone());
        assert!(self.memory.asks_for_resize(&wanted));
        let event = match room {
            true => Some(self.memory.note_resize_accepted(&wanted, self.now)),
            false => self.memory.note_resize_refused(&wanted, false, "no room", self.now),
        };
        if let Some(event) = event {
            self.say(format!("  event {}: {}", event.reason, event.message));
        }
        let status = std::mem::take(&mut self.pod.status);
        self.pod = self.memory.allocated(&wanted);
        self.pod.status = status;
        self
    }

    fn check(&self, expected: Expect) {
        expected.assert_eq(&self.log);
    }
}

fn summary(status: &Tree) -> String {
    let mut out = status.str_at("phase").to_owned();
    if !status.str_at("reason").is_empty() {
        out += &format!(" ({})", status.str_at("reason"));
    }
    for c in status.list_at("conditions").iter().filter(|c| c.str_at("type") == "Ready") {
        out += &format!(" Ready={} {}", c.str_at("status"), c.str_at("reason"));
    }
    for c in status.list_at("conditions").iter().filter(|c| c.str_at("type").starts_with("PodResize")) {
        out += &format!(" {}={} {}", c.str_at("type"), c.str_at("reason"), c.str_at("message"));
    }
    for key in ["initContainerStatuses", "containerStatuses"] {
        for c in status.list_at(key) {
            out += &format!(" | {}", c.str_at("name"));
            for (state, short) in [("waiting", "W"), ("running", "R"), ("terminated", "T")] {
                if let Some(s) = c.path("state").and_then(|s| s.get(state)) {
                    let text = s.str_at("reason");
                    out += &format!(" {short} {text}");
                    let message = s.str_at("message");
                    if !message.is_empty() {
                        out += &format!(" <{message}>");
                    }
                }
            }
            out += &format!(" n={}", c.i64_at("restartCount").unwrap());
            if let Some(resources) = c.get("resources").filter(|r| !r.is_empty_value()) {
                out += &format!(" {}", resources.to_json_string());
            }
            if c.path("lastState").is_some_and(|l| l.get("terminated").is_some()) {
                out += " last";
            }
        }
    }
    out.replace("  ", " ").trim_end().to_owned()
}

const APP: &str = r#""containers":[{"name":"c","image":"i"}]"#;

#[test]
fn a_pod_runs_and_is_deleted() {
    let mut sim = Sim::new(APP);
    sim.settle().delete(30).settle().exit("c", 0).settle();
    sim.check(expect![[r#"
        Pending Ready=False ContainersNotReady | c W ContainerCreating n=0
          sandbox 0
        Pending Ready=False ContainersNotReady | c W ContainerCreating n=0
          start c 0
        Running Ready=True | c R n=0
        delete with grace 30
        Running Ready=True | c R n=0
          kill c grace 30: Stopping container c
        c exits 0
        Succeeded Ready=False PodCompleted | c T Completed n=0
          tear down
        Succeeded Ready=False PodCompleted | c T Completed n=0
          delete
        Succeeded Ready=False PodCompleted | c T Completed n=0
    "#]]);
    assert_eq!(sim.memory.lifecycle(), Lifecycle::Cleaned);
}

#[test]
fn a_crash_loop() {
    let mut sim = Sim::new(APP);
    sim.settle().exit("c", 1).settle().pass(1).exit("c", 1).settle().pass(10).settle().exit("c", 2).settle();
    sim.check(expect![[r#"
        Pending Ready=False ContainersNotReady | c W ContainerCreating n=0
          sandbox 0
        Pending Ready=False ContainersNotReady | c W ContainerCreating n=0
          start c 0
        Running Ready=True | c R n=0
        c exits 1
        Running Ready=False ContainersNotReady | c T Error n=0
          start c 1
        Running Ready=True | c R n=1 last
        c exits 1
        Running Ready=False ContainersNotReady | c W CrashLoopBackOff <back-off 10s restarting failed container=c pod=p_d(u)> n=1 last
          event BackOff: Back-off restarting failed container c in pod p_d(u)
          wake in 10s
        Running Ready=False ContainersNotReady | c W CrashLoopBackOff <back-off 10s restarting failed container=c pod=p_d(u)> n=1 last
          start c 2
        Running Ready=True | c R n=2 last
          remove c0
        Running Ready=True | c R n=2 last
        c exits 2
        Running Ready=False ContainersNotReady | c W CrashLoopBackOff <back-off 20s restarting failed container=c pod=p_d(u)> n=2 last
          event BackOff: Back-off restarting failed container c in pod p_d(u)
          wake in 20s
    "#]]);
}

#[test]
fn init_containers_and_a_sidecar() {
    let mut sim = Sim::new(
        r#""initContainers":[{"name":"a","image":"i"},{"name":"s","image":"i","restartPolicy":"Always","startupProbe":{"failureThreshold":3}},
        {"name":"b","image":"i"}],"containers":[{"name":"c","image":"i"}]"#,
    );
    sim.settle().exit("a", 0).settle().probe("s0", "s", ProbeKind::Startup, true).settle().exit("b", 0).settle();
    sim.exit("s", 1).settle().delete(30).settle().exit("c", 0).settle().exit("s", 0).settle();
    sim.check(expect![[r#"
        Pending Ready=False ContainersNotReady | a W PodInitializing n=0 | s W PodInitializing n=0 | b W PodInitializing n=0 | c W PodInitializing n=0
          sandbox 0
        Pending Ready=False ContainersNotReady | a W PodInitializing n=0 | s W PodInitializing n=0 | b W PodInitializing n=0 | c W PodInitializing n=0
          start a (init) 0
        Pending Ready=False ContainersNotReady | a R n=0 | s W PodInitializing n=0 | b W PodInitializing n=0 | c W PodInitializing n=0
        a exits 0
        Pending Ready=False ContainersNotReady | a T Completed n=0 | s W PodInitializing n=0 | b W PodInitializing n=0 | c W PodInitializing n=0
          start s (init) 0
        Pending Ready=False ContainersNotReady | a T Completed n=0 | s R n=0 | b W PodInitializing n=0 | c W PodInitializing n=0
        Startup probe of s0: true, changed true
        Pending Ready=False ContainersNotReady | a T Completed n=0 | s R n=0 | b W PodInitializing n=0 | c W PodInitializing n=0
          start b (init) 0
        Pending Ready=False ContainersNotReady | a T Completed n=0 | s R n=0 | b R n=0 | c W PodInitializing n=0
        b exits 0
        Pending Ready=False ContainersNotReady | a T Completed n=0 | s R n=0 | b T Completed n=0 | c W PodInitializing n=0
          start c 0
        Running Ready=True | a T Completed n=0 | s R n=0 | b T Completed n=0 | c R n=0
        s exits 1
        Running Ready=False ContainersNotReady | a T Completed n=0 | s T Error n=0 | b T Completed n=0 | c R n=0
          start s (init) 1
        Running Ready=False ContainersNotReady | a T Completed n=0 | s R n=1 last | b T Completed n=0 | c R n=0
        delete with grace 30
        Running Ready=False ContainersNotReady | a T Completed n=0 | s R n=1 last | b T Completed n=0 | c R n=0
          kill c grace 30: Stopping container c
        c exits 0
        Running Ready=False ContainersNotReady | a T Completed n=0 | s R n=1 last | b T Completed n=0 | c T Completed n=0
          kill s grace 30: Stopping container s
        s exits 0
        Succeeded Ready=False PodCompleted | a T Completed n=0 | s T Completed n=1 last | b T Completed n=0 | c T Completed n=0
          tear down
        Succeeded Ready=False PodCompleted | a T Completed n=0 | s T Completed n=1 last | b T Completed n=0 | c T Completed n=0
          delete
        Succeeded Ready=False PodCompleted | a T Completed n=0 | s T Completed n=1 last | b T Completed n=0 | c T Completed n=0
    "#]]);
}

#[test]
fn a_job_pod_with_a_sidecar_completes() {
    let mut sim = Sim::new(
        r#""initContainers":[{"name":"s","image":"i","restartPolicy":"Always"}],"containers":[{"name":"c","image":"i"}]"#,
    );
    sim.pod.spec.restart_policy = "Never".into();
    sim.settle().exit("c", 0).settle().exit("s", 143).settle();
    sim.check(expect![[r#"
        Pending Ready=False ContainersNotReady | s W PodInitializing n=0 | c W PodInitializing n=0
          sandbox 0
        Pending Ready=False ContainersNotReady | s W PodInitializing n=0 | c W PodInitializing n=0
          start s (init) 0
        Pending Ready=False ContainersNotReady | s R n=0 | c W PodInitializing n=0
          start c 0
        Running Ready=True | s R n=0 | c R n=0
        c exits 0
        Running Ready=False ContainersNotReady | s R n=0 | c T Completed n=0
          kill s grace 30: Stopping container s
        s exits 143
        Succeeded Ready=False PodCompleted | s T Error n=0 | c T Completed n=0
          tear down
        Succeeded Ready=False PodCompleted | s T Error n=0 | c T Completed n=0
    "#]]);
}

#[test]
fn a_failing_init_container_with_restart_policy_never() {
    let mut sim = Sim::new(r#""initContainers":[{"name":"a","image":"i"}],"containers":[{"name":"c","image":"i"}]"#);
    sim.pod.spec.restart_policy = "Never".into();
    sim.settle().exit("a", 3).settle();
    sim.check(expect![[r#"
        Pending Ready=False ContainersNotReady | a W PodInitializing n=0 | c W PodInitializing n=0
          sandbox 0
        Pending Ready=False ContainersNotReady | a W PodInitializing n=0 | c W PodInitializing n=0
          start a (init) 0
        Pending Ready=False ContainersNotReady | a R n=0 | c W PodInitializing n=0
        a exits 3
        Failed Ready=False PodFailed | a T Error n=0 | c W PodInitializing n=0
          tear down
        Failed Ready=False PodFailed | a T Error n=0 | c W PodInitializing n=0
    "#]]);
}

#[test]
fn liveness_and_readiness() {
    let mut sim = Sim::new(
        r#""containers":[{"name":"c","image":"i","livenessProbe":{"failureThreshold":2,"terminationGracePeriodSeconds":5},
        "readinessProbe":{"failureThreshold":1}}]"#,
    );
    sim.settle().probe("c0", "c", ProbeKind::Readiness, true).settle();
    sim.probe("c0", "c", ProbeKind::Liveness, false).settle().probe("c0", "c", ProbeKind::Liveness, false).settle();
    sim.exit("c", 0).settle();
    sim.check(expect![[r#"
        Pending Ready=False ContainersNotReady | c W ContainerCreating n=0
          sandbox 0
        Pending Ready=False ContainersNotReady | c W ContainerCreating n=0
          start c 0
        Running Ready=False ContainersNotReady | c R n=0
        Readiness probe of c0: true, changed true
        Running Ready=True | c R n=0
        Liveness probe of c0: false, changed false
        Running Ready=True | c R n=0
        Liveness probe of c0: false, changed true
        Running Ready=True | c R n=0
          kill c grace 5: Container c failed liveness probe, will be restarted
        c exits 0
        Running Ready=False ContainersNotReady | c T Completed n=0
          start c 1
        Running Ready=False ContainersNotReady | c R n=1 last
    "#]]);
}

/// `corten.dev/restart`: the instance that ran when it was asked for is restarted, and only that one; not where the policy is
/// Never.
#[test]
fn restart_of_one_container() {
    let ask = |sim: &mut Sim, container: &str| {
        let at = corten_object::time::format(sim.now);
        let request = format!(r#"{{"container":"{container}","at":"{at}","by":"alice","why":"stuck"}}"#);
        sim.pod.metadata.annotations.insert("corten.dev/restart".into(), request);
    };
    let mut sim = Sim::new(APP);
    sim.settle().pass(5);
    ask(&mut sim, "other");
    sim.settle();
    ask(&mut sim, "c");
    sim.settle();
    let kill = "kill c grace 30: Container c was asked to restart by alice (stuck), will be restarted";
    assert!(sim.log.contains(kill), "{}", sim.log);
    let kills = sim.log.matches("kill c").count();
    sim.pass(1).exit("c", 0).settle().pass(1).settle();
    assert!(sim.log.contains("start c 1"), "{}", sim.log);
    assert_eq!(sim.log.matches("kill c").count(), kills, "the next instance stays: {}", sim.log);
    let mut never = Sim::new(APP);
    never.pod.spec.restart_policy = "Never".into();
    never.settle().pass(5);
    ask(&mut never, "c");
    never.settle();
    assert!(!never.log.contains("kill"), "{}", never.log);
}

#[test]
fn an_image_that_cannot_be_pulled() {
    let mut sim = Sim::new(APP);
    sim.observed.sandbox =
        Some(ObservedSandbox { id: "s0".into(), attempt: 0, ready: true, ips: vec!["10.0.0.2".into()] });
    let failure = StartFailure { reason: "ErrImagePull", message: "i: not found".into(), image: "i".into() };
    sim.memory.note_start_failure("c", failure, sim.now);
    sim.settle().pass(4).settle().pass(6).settle();
    sim.check(expect![[r#"
        Pending Ready=False ContainersNotReady | c W ErrImagePull <i: not found> n=0
          wake in 3s
        Pending Ready=False ContainersNotReady | c W ImagePullBackOff <Back-off pulling image "i": ErrImagePull: i: not found> n=0
          event BackOff: Back-off pulling image "i"
          event Failed: Error: ImagePullBackOff
          wake in 6s
        Pending Ready=False ContainersNotReady | c W ErrImagePull <i: not found> n=0
          start c 0
        Running Ready=True | c R n=0
    "#]]);
}

#[test]
fn the_deadline_ends_a_pod() {
    let mut sim = Sim::new(&format!(r#""activeDeadlineSeconds":60,{APP}"#));
    sim.settle().pass(60).settle().exit("c", 143).settle();
    sim.check(expect![[r#"
        Pending Ready=False ContainersNotReady | c W ContainerCreating n=0
          sandbox 0
        Pending Ready=False ContainersNotReady | c W ContainerCreating n=0
          start c 0
        Running Ready=True | c R n=0
          wake in 60s
        Running Ready=True | c R n=0
          kill c grace 30: Stopping container c
        c exits 143
        Failed (DeadlineExceeded) Ready=False PodFailed | c T Error n=0
          tear down
        Failed (DeadlineExceeded) Ready=False PodFailed | c T Error n=0
    "#]]);
}

#[test]
fn a_refused_pod_fails_at_once() {
    let mut sim = Sim::new(APP);
    sim.memory.end("FieldNotSupported", "Pod was rejected: spec.x: no");
    sim.settle();
    sim.check(expect![[r#"
        Failed (FieldNotSupported) Ready=False PodFailed | c W ContainerCreating n=0
          tear down
        Failed (FieldNotSupported) Ready=False PodFailed | c W ContainerCreating n=0
    "#]]);
}

#[test]
fn adoption_after_a_restart_of_the_server() {
    let mut sim = Sim::new(APP);
    sim.settle();
    sim.memory = Memory::default();
    sim.say("server restarts");
    sim.settle();
    sim.say("machine restarts");
    sim.memory = Memory::default();
    sim.observed.containers.clear();
    sim.observed.sandbox.as_mut().unwrap().ready = false;
    sim.settle();
    sim.check(expect![[r#"
        Pending Ready=False ContainersNotReady | c W ContainerCreating n=0
          sandbox 0
        Pending Ready=False ContainersNotReady | c W ContainerCreating n=0
          start c 0
        Running Ready=True | c R n=0
        server restarts
        Running Ready=True | c R n=0
        machine restarts
        Running Ready=False ContainersNotReady | c W ContainerCreating n=1 last
          sandbox 1
        Running Ready=False ContainersNotReady | c W ContainerCreating n=1 last
          start c 1
        Running Ready=True | c R n=1 last
    "#]]);
}

#[test]
fn a_pod_that_never_restarts_is_over_when_its_containers_are_lost() {
    let mut sim = Sim::new(APP);
    sim.pod.spec.restart_policy = "Never".into();
    sim.settle();
    sim.say("the runtime loses everything");
    sim.memory = Memory::default();
    sim.observed = Observed::default();
    sim.settle();
    sim.check(expect![[r#"
        Pending Ready=False ContainersNotReady | c W ContainerCreating n=0
          sandbox 0
        Pending Ready=False ContainersNotReady | c W ContainerCreating n=0
          start c 0
        Running Ready=True | c R n=0
        the runtime loses everything
        Failed Ready=False PodFailed | c T ContainerStatusUnknown <The container could not be located when the pod was terminated> n=1 last
          tear down
        Failed Ready=False PodFailed | c T ContainerStatusUnknown <The container could not be located when the pod was terminated> n=1 last
    "#]]);
}

const TWO: &str = r#""containers":[
    {"name":"a","image":"i","resources":{"requests":{"cpu":"100m","memory":"100Mi"},"limits":{"cpu":"200m","memory":"200Mi"}}},
    {"name":"b","image":"i","resources":{"requests":{"cpu":"100m","memory":"100Mi"},"limits":{"cpu":"200m","memory":"200Mi"}},
     "resizePolicy":[{"resourceName":"memory","restartPolicy":"RestartContainer"},{"resourceName":"cpu","restartPolicy":"NotRequired"}]}]"#;

#[test]
fn resize_in_place_grows_the_pod_first_and_shrinks_it_last() {
    let mut sim = Sim::new(TWO);
    sim.settle();
    sim.log.clear();
    let larger = r#"{"requests":{"cpu":"200m","memory":"150Mi"},"limits":{"cpu":"400m","memory":"300Mi"}}"#;
    let smaller = r#"{"requests":{"cpu":"50m","memory":"50Mi"},"limits":{"cpu":"100m","memory":"100Mi"}}"#;
    sim.resize("a", larger, true).settle().resize("a", smaller, true).settle();
    sim.check(expect![[r#"
        resize a to {"requests":{"cpu":"200m","memory":"150Mi"},"limits":{"cpu":"400m","memory":"300Mi"}}
          event ResizeStarted: Pod resize started: {"containers":[{"name":"a","resources":{"limits":{"cpu":"400m","memory":"300Mi"},"requests":{"cpu":"200m","memory":"150Mi"}}},{"name":"b","resources":{"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}}],"generation":2}
        Running Ready=True PodResizeInProgress= | a R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}} | b R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}
          write pod memory=524288000
          write a0 memory=314572800
          write pod shares=307 quota=60000
          write a0 shares=204 quota=40000
        Running Ready=True | a R n=0 {"limits":{"cpu":"400m","memory":"300Mi"},"requests":{"cpu":"200m","memory":"150Mi"}} | b R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}
          event ResizeCompleted: Pod resize completed: {"containers":[{"name":"a","resources":{"limits":{"cpu":"400m","memory":"300Mi"},"requests":{"cpu":"200m","memory":"150Mi"}}},{"name":"b","resources":{"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}}],"generation":2}
        resize a to {"requests":{"cpu":"50m","memory":"50Mi"},"limits":{"cpu":"100m","memory":"100Mi"}}
          event ResizeStarted: Pod resize started: {"containers":[{"name":"a","resources":{"limits":{"cpu":"100m","memory":"100Mi"},"requests":{"cpu":"50m","memory":"50Mi"}}},{"name":"b","resources":{"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}}],"generation":3}
        Running Ready=True PodResizeInProgress= | a R n=0 {"limits":{"cpu":"400m","memory":"300Mi"},"requests":{"cpu":"200m","memory":"150Mi"}} | b R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}
          write a0 memory=104857600 (less)
          write pod memory=314572800 (less)
          write a0 shares=51 quota=10000
          write pod shares=153 quota=30000
        Running Ready=True | a R n=0 {"limits":{"cpu":"100m","memory":"100Mi"},"requests":{"cpu":"50m","memory":"50Mi"}} | b R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}
          event ResizeCompleted: Pod resize completed: {"containers":[{"name":"a","resources":{"limits":{"cpu":"100m","memory":"100Mi"},"requests":{"cpu":"50m","memory":"50Mi"}}},{"name":"b","resources":{"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}}],"generation":3}
    "#]]);
}

#[test]
fn resize_policy_restart_container_kills_and_starts_it_with_its_new_resources() {
    let mut sim = Sim::new(TWO);
    sim.settle();
    sim.log.clear();
    let less = r#"{"requests":{"cpu":"100m","memory":"50Mi"},"limits":{"cpu":"200m","memory":"100Mi"}}"#;
    sim.resize("b", less, true).settle().exit("b", 137).settle();
    sim.check(expect![[r#"
        resize b to {"requests":{"cpu":"100m","memory":"50Mi"},"limits":{"cpu":"200m","memory":"100Mi"}}
          event ResizeStarted: Pod resize started: {"containers":[{"name":"a","resources":{"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}},{"name":"b","resources":{"limits":{"cpu":"200m","memory":"100Mi"},"requests":{"cpu":"100m","memory":"50Mi"}}}],"generation":2}
        Running Ready=True PodResizeInProgress= | a R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}} | b R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}
          kill b grace 30: Container b resize requires restart
        b exits 137
        Running Ready=False ContainersNotReady PodResizeInProgress= | a R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}} | b T Error n=0 {"limits":{"cpu":"200m","memory":"100Mi"},"requests":{"cpu":"100m","memory":"50Mi"}}
          write pod memory=314572800 (less)
        Running Ready=False ContainersNotReady | a R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}} | b T Error n=0 {"limits":{"cpu":"200m","memory":"100Mi"},"requests":{"cpu":"100m","memory":"50Mi"}}
          event ResizeCompleted: Pod resize completed: {"containers":[{"name":"a","resources":{"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}},{"name":"b","resources":{"limits":{"cpu":"200m","memory":"100Mi"},"requests":{"cpu":"100m","memory":"50Mi"}}}],"generation":2}
          start b 1
        Running Ready=True | a R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}} | b R n=1 {"limits":{"cpu":"200m","memory":"100Mi"},"requests":{"cpu":"100m","memory":"50Mi"}} last
    "#]]);
}

#[test]
fn resize_that_has_no_room_is_deferred_and_one_that_fails_says_why() {
    let mut sim = Sim::new(TWO);
    sim.settle();
    sim.log.clear();
    let larger = r#"{"requests":{"cpu":"200m","memory":"150Mi"},"limits":{"cpu":"400m","memory":"300Mi"}}"#;
    sim.resize("a", larger, false).settle();
    sim.resize_fails = Some("cannot".into());
    sim.resize("a", larger, true).settle();
    sim.resize_fails = None;
    sim.pass(10).settle();
    sim.check(expect![[r#"
        resize a to {"requests":{"cpu":"200m","memory":"150Mi"},"limits":{"cpu":"400m","memory":"300Mi"}}
          event ResizeDeferred: Pod resize Deferred: {"containers":[{"name":"a","resources":{"limits":{"cpu":"400m","memory":"300Mi"},"requests":{"cpu":"200m","memory":"150Mi"}}},{"name":"b","resources":{"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}}],"generation":2,"error":"no room"}
        Running Ready=True PodResizePending=Deferred no room | a R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}} | b R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}
        resize a to {"requests":{"cpu":"200m","memory":"150Mi"},"limits":{"cpu":"400m","memory":"300Mi"}}
          event ResizeStarted: Pod resize started: {"containers":[{"name":"a","resources":{"limits":{"cpu":"400m","memory":"300Mi"},"requests":{"cpu":"200m","memory":"150Mi"}}},{"name":"b","resources":{"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}}],"generation":3}
        Running Ready=True PodResizeInProgress= | a R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}} | b R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}
          write pod memory=524288000
          write a0 memory=314572800
          write pod shares=307 quota=60000
          write a0 shares=204 quota=40000
          event ResizeError: Pod resize error: {"containers":[{"name":"a","resources":{"limits":{"cpu":"400m","memory":"300Mi"},"requests":{"cpu":"200m","memory":"150Mi"}}},{"name":"b","resources":{"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}}],"generation":3,"error":"cannot"}
        Running Ready=True PodResizeInProgress=Error cannot | a R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}} | b R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}
          wake in 10s
        Running Ready=True PodResizeInProgress=Error cannot | a R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}} | b R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}
          write pod memory=524288000
          write a0 memory=314572800
          write pod shares=307 quota=60000
          write a0 shares=204 quota=40000
        Running Ready=True | a R n=0 {"limits":{"cpu":"400m","memory":"300Mi"},"requests":{"cpu":"200m","memory":"150Mi"}} | b R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}
          event ResizeCompleted: Pod resize completed: {"containers":[{"name":"a","resources":{"limits":{"cpu":"400m","memory":"300Mi"},"requests":{"cpu":"200m","memory":"150Mi"}}},{"name":"b","resources":{"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}}],"generation":3}
    "#]]);
}

#[test]
fn resize_state_survives_the_agent() {
    let mut sim = Sim::new(TWO);
    sim.settle();
    let larger = r#"{"requests":{"cpu":"200m","memory":"150Mi"},"limits":{"cpu":"400m","memory":"300Mi"}}"#;
    sim.resize_fails = Some("cannot".into());
    sim.resize("a", larger, true).settle();
    let saved = sim.memory.to_save().unwrap();
    assert!(sim.memory.to_save().is_none());
    let mut next = Memory::default();
    next.restore(&corten_tree::json::parse(&saved.to_json()).unwrap(), &sim.pod);
    sim.memory = next;
    sim.resize_fails = None;
    sim.log.clear();
    sim.settle();
    sim.check(expect![[r#"
        Running Ready=True PodResizeInProgress=Error cannot | a R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}} | b R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}
          write pod memory=524288000
          write a0 memory=314572800
          write pod shares=307 quota=60000
          write a0 shares=204 quota=40000
        Running Ready=True | a R n=0 {"limits":{"cpu":"400m","memory":"300Mi"},"requests":{"cpu":"200m","memory":"150Mi"}} | b R n=0 {"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}
          event ResizeCompleted: Pod resize completed: {"containers":[{"name":"a","resources":{"limits":{"cpu":"400m","memory":"300Mi"},"requests":{"cpu":"200m","memory":"150Mi"}}},{"name":"b","resources":{"limits":{"cpu":"200m","memory":"200Mi"},"requests":{"cpu":"100m","memory":"100Mi"}}}],"generation":2}
    "#]]);
}

#[test]
fn restart_rule_restart_all_containers_removes_and_starts_them_all() {
    let mut sim = Sim::new(
        r#""initContainers":[{"name":"i","image":"i"}],"containers":[{"name":"c","image":"i"},{"name":"w","image":"i",
        "restartPolicy":"Never","restartPolicyRules":[{"action":"RestartAllContainers","exitCodes":{"operator":"In","values":[42]}}]}]"#,
    );
    sim.pod.spec.restart_policy = "Never".into();
    sim.settle().exit("i", 0).settle();
    sim.log.clear();
    sim.exit("w", 42).settle().exit("c", 137).settle().exit("i", 0).settle();
    assert!(sim.previous.conditions.iter().any(|c| c.r#type == "AllContainersRestarting" && c.status == "False"));
    sim.exit("w", 1).settle();
    sim.check(expect![[r#"
        w exits 42
        Running Ready=False ContainersNotReady | i T Completed n=0 | c R n=0 | w T Error n=0
          kill c grace 2: killing
        c exits 137
        Running Ready=False ContainersNotReady | i T Completed n=0 | c T Error n=0 | w T Error n=0
          remove i0, not its log
          remove c0, not its log
        Running Ready=False ContainersNotReady | i W RestartingAllContainers <The container is removed because RestartAllContainers in place> n=1 last | c W RestartingAllContainers <The container is removed because RestartAllContainers in place> n=1 last | w T Error n=0
          remove w0, not its log
        Running Ready=False ContainersNotReady | i W PodInitializing n=1 last | c W PodInitializing n=1 last | w W RestartingAllContainers <The container is removed because RestartAllContainers in place> n=1 last
          start i (init) 1
        Pending Ready=False ContainersNotReady | i R n=1 last | c W PodInitializing n=1 last | w W PodInitializing n=1 last
        i exits 0
        Running Ready=False ContainersNotReady | i T Completed n=1 last | c W PodInitializing n=1 last | w W PodInitializing n=1 last
          start c 1
          start w 1
        Running Ready=True | i T Completed n=1 last | c R n=1 last | w R n=1 last
        w exits 1
        Running Ready=False ContainersNotReady | i T Completed n=1 last | c R n=1 last | w T Error n=1 last
    "#]]);
}
