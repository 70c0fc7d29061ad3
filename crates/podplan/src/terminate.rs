//! Ending containers in order, within the grace period (`kuberuntime_container.go` `killContainer`,
//! `kuberuntime_termination_order.go`).

use corten_views::{Container, Pod};

use crate::memory::after;
use crate::plan::Work;
use crate::{Action, ObservedContainer, ProbeKind, WhyKill};

/// A container always has this long between its stop signal and SIGKILL.
const GRACE_MIN: i64 = 2;

/// Seconds that the pod's end may take.
fn pod_grace(pod: &Pod) -> i64 {
    pod.metadata.deletion_grace_period_seconds.or(pod.spec.termination_grace_period_seconds).unwrap_or(GRACE_MIN)
}

/// Kills what runs: app and init containers at once, each sidecar when what must go before it has gone, or at the end of the grace.
pub(crate) fn kill_all(work: &mut Work<'_>) {
    let began = *work.memory.terminating_since.get_or_insert(work.now);
    let ordered = work.memory.ending.as_ref().and_then(|e| e.grace_seconds);
    let deadline = after(began, ordered.unwrap_or_else(|| pod_grace(work.pod)).max(0));
    let left = deadline.duration_since(work.now).as_secs().max(0);
    let observed = work.observed;
    let spec = &work.pod.spec;
    let runs = |c: &&Container| observed.containers.iter().any(|o| o.name == c.name && o.is_running());
    let first = spec.containers.iter().chain(&spec.ephemeral_containers);
    let first: Vec<&Container> =
        first.chain(spec.init_containers.iter().filter(|c| !c.is_sidecar())).filter(runs).collect();
    let mut waits = spec.containers.iter().any(|c| runs(&c) || observed.is_starting(&c.name));
    let mut targets = first;
    for sidecar in spec.init_containers.iter().rev().filter(|c| c.is_sidecar()).filter(runs) {
        if !waits || left == 0 {
            targets.push(sidecar);
        }
        waits = true;
    }
    if waits && left > 0 {
        work.wake(deadline);
    }
    for container in targets {
        for found in observed.containers.iter().filter(|o| o.name == container.name && o.is_running()) {
            work.out.actions.push(Action::Kill {
                id: found.id.clone(),
                container: container.name.clone(),
                grace_seconds: left.max(GRACE_MIN),
                pre_stop: left > 0,
                message: format!("Stopping container {}", container.name),
                why: WhyKill::PodEnds,
            });
        }
    }
    // Containers that the pod no longer names cannot be there, but must not keep it from ending.
    for found in
        observed.containers.iter().filter(|o| o.is_running() && crate::container_of(work.pod, &o.name).is_none())
    {
        work.out.actions.push(Action::Kill {
            id: found.id.clone(),
            container: found.name.clone(),
            grace_seconds: GRACE_MIN,
            pre_stop: false,
            message: format!("Stopping container {}", found.name),
            why: WhyKill::PodEnds,
        });
    }
}

/// Kills one container of a pod that goes on.
pub(crate) fn kill(
    work: &mut Work<'_>,
    container: &Container,
    found: &ObservedContainer,
    message: String,
    why: WhyKill,
) {
    let probe = match why {
        WhyKill::Probe(ProbeKind::Liveness) => container.liveness_probe.as_ref(),
        WhyKill::Probe(ProbeKind::Startup) => container.startup_probe.as_ref(),
        _ => None,
    };
    let grace = probe.and_then(|p| p.termination_grace_period_seconds).unwrap_or_else(|| pod_grace(work.pod));
    work.out.actions.push(Action::Kill {
        id: found.id.clone(),
        container: container.name.clone(),
        grace_seconds: grace.max(GRACE_MIN),
        pre_stop: grace > 0,
        message,
        why,
    });
}
