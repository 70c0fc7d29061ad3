//! The little that a pod worker remembers between plans.

use std::collections::{HashMap, HashSet};

use corten_base::Timestamp;
use corten_tree::Tree;
use corten_views::Pod;
use jiff::SignedDuration;

use crate::Event;
use crate::probe::ProbeResults;
use crate::resize::Resizing;

const BACKOFF_FIRST: i64 = 10;
const BACKOFF_MAX: i64 = 300;
/// How long a failed pull shows its error before it shows the back-off.
const PULL_ERROR_SHOWN: i64 = 3;
/// Pause before a container is tried again whose configuration could not be had.
const CONFIG_RETRY: i64 = 5;

/// Where a pod stands on this node; it only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Lifecycle {
    /// It is made to run.
    #[default]
    Syncing,
    /// Its containers are being stopped.
    Terminating,
    /// Nothing runs; its things are taken away.
    Terminated,
    /// Nothing of it is left but logs.
    Cleaned,
}

/// Why a pod is being ended by the node, where that is not the API's wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// `status.reason`
    pub reason: String,
    /// `status.message`
    pub message: String,
    /// Seconds that it may take, whatever the pod asks for.
    pub grace_seconds: Option<i64>,
    /// What the condition `DisruptionTarget` says, if the pod gets it.
    pub disruption: Option<String>,
}

/// Why a container could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// Upstream's reason, as `ErrImagePull` or `CreateContainerConfigError`.
    pub reason: &'static str,
    /// The whole message.
    pub message: String,
    /// The image that could not be had; empty for other reasons.
    pub image: String,
}

#[derive(Debug, Clone)]
struct Waiting {
    failure: StartFailure,
    /// Whether the back-off's event has been told.
    told: bool,
    since: Timestamp,
    /// Not before this time again.
    retry_at: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Delay {
    seconds: i64,
    last: Timestamp,
}

/// What a pod worker remembers. Losing it loses back-offs and probe results, nothing else.
#[derive(Debug, Default)]
pub struct Memory {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) ending: Option<Ending>,
    /// When termination began, and the seconds it was given.
    pub(crate) terminating_since: Option<Timestamp>,
    waiting: HashMap<String, Waiting>,
    restarts: HashMap<String, Delay>,
    pulls: HashMap<String, Delay>,
    /// How far images have come that are being pulled.
    progress: HashMap<String, String>,
    /// Results by container id.
    pub(crate) probes: HashMap<String, ProbeResults>,
    pub(crate) sandbox_retry: Option<SandboxRetry>,
    /// Instances that were killed to be started again, whatever their exit code.
    pub(crate) restart_wanted: HashSet<String>,
    pub(crate) resizing: Resizing,
}

/// A failed sandbox: when to try again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SandboxRetry {
    pub retry_at: Timestamp,
    pub failures: u32,
}

impl Memory {
    /// Where the pod stands.
    pub fn lifecycle(&self) -> Lifecycle {
        self.lifecycle
    }

    /// Ends the pod for a reason of the node's (deadline, eviction, refusal). The first reason stays.
    pub fn end(&mut self, reason: &str, message: impl Into<String>) {
        let ending = Ending { reason: reason.into(), message: message.into(), grace_seconds: None, disruption: None };
        self.ending.get_or_insert(ending);
    }

    /// Ends the pod because the node needs what it uses. The first reason stays.
    pub fn evict(&mut self, eviction: &crate::eviction::Eviction) {
        self.ending.get_or_insert(Ending {
            reason: eviction.reason.into(),
            message: eviction.message.clone(),
            grace_seconds: Some(eviction.grace_seconds),
            disruption: eviction.disruption.clone(),
        });
    }

    /// Ends the pod because the machine goes down. The first reason stays.
    pub fn shut_down(&mut self, grace_seconds: i64) {
        self.ending.get_or_insert(Ending {
            reason: crate::shutdown::REASON.into(),
            message: crate::shutdown::MESSAGE.into(),
            grace_seconds: Some(grace_seconds),
            disruption: Some(crate::shutdown::MESSAGE.into()),
        });
    }

    /// Notes that a container could not be started.
    pub fn note_start_failure(&mut self, container: &str, failure: StartFailure, now: Timestamp) {
        let pause = match failure.reason {
            "ErrImagePull" => {
                let delay = grow(self.pulls.get(container).copied(), now);
                self.pulls.insert(container.into(), delay);
                delay.seconds
            }
            "InvalidImageName" | "ErrImageNeverPull" => BACKOFF_FIRST,
            // The container exists and has ended: the crash loop's back-off rules.
            "RunContainerError" => PULL_ERROR_SHOWN,
            _ => CONFIG_RETRY,
        };
        self.progress.remove(container);
        let waiting = Waiting { failure, told: false, since: now, retry_at: after(now, pause) };
        self.waiting.insert(container.into(), waiting);
    }

    /// Notes that a container was started.
    pub fn note_started(&mut self, container: &str) {
        self.waiting.remove(container);
        self.pulls.remove(container);
        self.progress.remove(container);
    }

    /// Forgets the back-offs of containers whose image or resources are others than before: their keys in the kubelet's back-offs
    /// have these in them (`GetBackoffKey`, `pullImage`).
    pub fn note_changed(&mut self, before: &Pod, now: &Pod) {
        let all = |pod: &'_ Pod| {
            let spec = &pod.spec;
            let all = spec.init_containers.iter().chain(&spec.containers).chain(&spec.ephemeral_containers);
            all.cloned().collect::<Vec<_>>()
        };
        for (old, new) in all(before).iter().zip(&all(now)) {
            let same = old.image == new.image && old.resources == new.resources;
            if old.name == new.name && !same {
                self.waiting.remove(&new.name);
                self.pulls.remove(&new.name);
                self.restarts.remove(&new.name);
            }
        }
    }

    /// Notes how far a container's image has come.
    pub fn note_progress(&mut self, container: &str, text: String) {
        self.progress.insert(container.into(), text);
    }

    /// How far a container's image has come; empty if it is not being pulled.
    pub(crate) fn progress(&self, container: &str) -> String {
        self.progress.get(container).cloned().unwrap_or_default()
    }

    /// The image whose pull a container waits to try again, once per wait: for its event.
    pub(crate) fn pull_back_off(&mut self, container: &str, now: Timestamp) -> Option<String> {
        let waiting = self.waiting.get_mut(container)?;
        let due = waiting.failure.reason == "ErrImagePull" && now >= after(waiting.since, PULL_ERROR_SHOWN);
        (due && !std::mem::replace(&mut waiting.told, true)).then(|| waiting.failure.image.clone())
    }

    /// Notes a probe's outcome for a container instance; true if its verdict changed.
    pub fn note_probe(
        &mut self,
        id: &str,
        kind: crate::ProbeKind,
        probe: &corten_views::container::Probe,
        ok: bool,
    ) -> bool {
        self.probes.entry(id.to_owned()).or_default().note(kind, probe, ok)
    }

    /// The node has taken the pod with the resources that it asks for.
    pub fn note_taken(&mut self, pod: &Pod) {
        self.resizing.begin(pod);
    }

    /// Whether the pod has been taken, by this agent or one before.
    pub fn is_taken(&self) -> bool {
        self.resizing.allocated.is_some()
    }

    /// Goes on from what [`Memory::to_save`] gave to an agent before.
    pub fn restore(&mut self, saved: &Tree, pod: &Pod) {
        self.resizing.restore(saved, pod);
    }

    /// What must outlive the agent, if it has changed since the last call.
    pub fn to_save(&mut self) -> Option<Tree> {
        self.resizing.saved()
    }

    /// The pod with the resources that it was promised, not those that it asks for.
    pub fn allocated(&self, pod: &Pod) -> Pod {
        self.resizing.allocated.as_ref().map_or_else(|| pod.clone(), |a| a.apply(pod))
    }

    /// Whether a pod asks for other resources than it was promised.
    pub fn asks_for_resize(&self, pod: &Pod) -> bool {
        self.resizing.allocated.as_ref().is_some_and(|a| !a.fits(pod))
    }

    /// Since when a resize has waited for room.
    pub fn resize_pending_since(&self) -> Option<Timestamp> {
        self.resizing.pending_since()
    }

    /// Notes that the pod is promised what it now asks for.
    pub fn note_resize_accepted(&mut self, pod: &Pod, now: Timestamp) -> Event {
        self.resizing.accept(pod, now)
    }

    /// Notes that there is no room for what the pod asks for; `infeasible`: there will never be.
    pub fn note_resize_refused(&mut self, pod: &Pod, infeasible: bool, message: &str, now: Timestamp) -> Option<Event> {
        self.resizing.refuse(pod, infeasible, message, now)
    }

    /// Notes that the pod asks for what it has.
    pub fn note_resize_reverted(&mut self) {
        self.resizing.revert();
    }

    /// Notes how many of the steps of [`crate::Action::Resize`] have succeeded, and what went wrong then.
    pub fn note_resized(&mut self, done: usize, error: Option<&str>, pod: &Pod, now: Timestamp) -> Option<Event> {
        self.resizing.finish(done, error, pod, now)
    }

    /// Notes that the sandbox could not be made.
    pub fn note_sandbox_failure(&mut self, now: Timestamp) {
        let failures = self.sandbox_retry.map_or(1, |d| d.failures + 1);
        let seconds = (1_i64 << failures.min(6)).min(60);
        self.sandbox_retry = Some(SandboxRetry { retry_at: after(now, seconds), failures });
    }

    /// Notes that the sandbox was made.
    pub fn note_sandbox_made(&mut self) {
        self.sandbox_retry = None;
    }

    /// Why a container waits, as its status shows it, and until when.
    pub(crate) fn waiting(&self, container: &str, now: Timestamp) -> Option<(String, String)> {
        let waiting = self.waiting.get(container)?;
        let shown = after(waiting.since, PULL_ERROR_SHOWN);
        if waiting.failure.reason == "ErrImagePull" && now >= shown && now < waiting.retry_at {
            let (image, error) = (&waiting.failure.image, &waiting.failure.message);
            let message = format!("Back-off pulling image {image:?}: ErrImagePull: {error}");
            return Some(("ImagePullBackOff".into(), message));
        }
        Some((waiting.failure.reason.into(), waiting.failure.message.clone()))
    }

    /// When a failed start may be tried again, if that is not yet; and the times between where its status changes.
    pub(crate) fn blocked_until(&self, container: &str, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let waiting = self.waiting.get(container).filter(|w| now < w.retry_at)?;
        let shown = after(waiting.since, PULL_ERROR_SHOWN);
        let look = if waiting.failure.reason == "ErrImagePull" && now < shown { shown } else { waiting.retry_at };
        Some((waiting.retry_at, look))
    }

    /// As `doBackOff` in `kuberuntime_manager.go`: whether a container that ended at `finished` must wait, and how long in all.
    /// Not waiting means that it is started now, which makes the next wait longer.
    pub(crate) fn back_off(
        &mut self,
        container: &str,
        finished: Timestamp,
        now: Timestamp,
    ) -> Option<(i64, Timestamp)> {
        let entry = self.restarts.get(container).copied();
        if let Some(delay) = entry.filter(|d| !expired(d, finished)) {
            let until = after(finished, delay.seconds);
            if now < until {
                return Some((delay.seconds, until));
            }
        }
        self.restarts.insert(container.into(), grow(entry.filter(|d| !expired(d, finished)), now));
        None
    }

    /// Notes a crash loop's wait as the reason why a container waits.
    pub(crate) fn note_crash_loop(&mut self, container: &str, message: String, now: Timestamp, until: Timestamp) {
        let failure = StartFailure { reason: "CrashLoopBackOff", message, image: String::new() };
        self.waiting.insert(container.into(), Waiting { failure, told: false, since: now, retry_at: until });
    }
}

fn grow(entry: Option<Delay>, now: Timestamp) -> Delay {
    let seconds = match entry {
        Some(delay) if !expired(&delay, now) => (delay.seconds * 2).min(BACKOFF_MAX),
        _ => BACKOFF_FIRST,
    };
    Delay { seconds, last: now }
}

fn expired(delay: &Delay, at: Timestamp) -> bool {
    at.duration_since(delay.last) > SignedDuration::from_secs(2 * BACKOFF_MAX)
}

/// `at` plus seconds, capped at the end of time.
pub(crate) fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_image_or_other_resources_end_the_back_off() {
        let pod = |image: &str, cpu: &str| -> Pod {
            let spec = serde_json::json!({"spec": {"containers": [
                {"name": "c", "image": image, "resources": {"requests": {"cpu": cpu}}}, {"name": "d", "image": "i"}]}});
            serde_json::from_value(spec).unwrap()
        };
        let start = Timestamp::UNIX_EPOCH;
        let failed = || {
            let mut memory = Memory::default();
            for container in ["c", "d"] {
                let failure = StartFailure { reason: "ErrImagePull", message: "no".into(), image: "i".into() };
                memory.note_start_failure(container, failure, start);
                memory.back_off(container, start, start);
            }
            memory
        };
        for (other, ends) in [(pod("i", "1"), false), (pod("j", "1"), true), (pod("i", "2"), true)] {
            let mut memory = failed();
            memory.note_changed(&pod("i", "1"), &other);
            assert_eq!(memory.blocked_until("c", start).is_none(), ends);
            assert_eq!(memory.back_off("c", start, start).is_none(), ends);
            assert!(memory.blocked_until("d", start).is_some());
        }
    }

    #[test]
    fn the_first_restart_is_at_once_and_then_waits_double() {
        let mut memory = Memory::default();
        let start = Timestamp::UNIX_EPOCH;
        assert_eq!(memory.back_off("c", start, start), None);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..6 {
            let (seconds, until) = memory.back_off("c", now, now).unwrap();
            waits.push(seconds);
            now = until;
            assert_eq!(memory.back_off("c", after(now, -seconds), now), None);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300]);
        // After ten good minutes it starts anew.
        let later = after(now, 601);
        assert_eq!(memory.back_off("c", later, later), None);
        assert_eq!(memory.back_off("c", later, later).unwrap().0, 10);
    }
}
