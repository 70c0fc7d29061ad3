//! What follows a container's end: restart policies, restart rules, and the restart of all containers in place
//! (`pkg/api/v1/pod/util.go` `ContainerShouldRestart`, `pkg/kubelet/container/helpers.go` `ShouldAllContainersRestart`).

use corten_views::{Container, Pod, PodStatus};

use crate::plan::Work;
use crate::{Action, Observed, ObservedContainer, WhyKill};

const ALL: &str = "RestartAllContainers";
/// The reason of containers that were removed to be started again.
pub(crate) const REASON: &str = "RestartingAllContainers";
/// Its message.
pub(crate) const MESSAGE: &str = "The container is removed because RestartAllContainers in place";
pub(crate) const CONDITION: &str = "AllContainersRestarting";
/// A container always has this long between its stop signal and SIGKILL.
const GRACE_MIN: i64 = 2;

/// The action of the first rule that an exit code matches (`FindMatchingContainerRestartRule`).
fn rule(container: &Container, exit_code: i32) -> Option<&str> {
    container.restart_policy.as_ref()?;
    let matches = |operator: &str, values: &[i32]| match operator {
        "In" => values.contains(&exit_code),
        "NotIn" => !values.contains(&exit_code),
        _ => false,
    };
    let mut rules = container.restart_policy_rules.iter();
    let found = rules.find(|r| r.exit_codes.as_ref().is_some_and(|c| matches(&c.operator, &c.values)))?;
    Some(&found.action)
}

/// What the restart policies and rules say after an exit code.
pub(crate) fn restarts_after(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    if matches!(rule(container, exit_code), Some("Restart" | ALL)) {
        return true;
    }
    match container.restart_policy.as_deref().unwrap_or(&pod.spec.restart_policy) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// The containers that a restart of all is about.
fn concerned(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.init_containers.iter().chain(&pod.spec.containers)
}

fn triggers(pod: &Pod, found: &ObservedContainer) -> bool {
    let container = concerned(pod).find(|c| c.name == found.name);
    container.zip(found.exit_code()).is_some_and(|(c, code)| rule(c, code) == Some(ALL))
}

fn instances<'o>(pod: &'o Pod, observed: &'o Observed) -> impl Iterator<Item = &'o ObservedContainer> {
    observed.containers.iter().filter(|found| concerned(pod).any(|c| c.name == found.name))
}

/// Whether a container's end asks for a restart of all containers, or such a restart has begun.
pub(crate) fn all_restart(pod: &Pod, observed: &Observed, previous: &PodStatus) -> bool {
    let begun = corten_views::meta::is_true(&previous.conditions, CONDITION);
    begun || concerned(pod).any(|c| observed.latest(&c.name).is_some_and(|found| triggers(pod, found)))
}

/// Kills and removes all containers, those whose end asked for it last; true while there is something left to do.
pub(crate) fn reset(work: &mut Work<'_>) -> bool {
    let (pod, observed) = (work.pod, work.observed);
    if !all_restart(pod, observed, work.previous) {
        return false;
    }
    let all: Vec<&ObservedContainer> = instances(pod, observed).collect();
    if all.is_empty() {
        return false;
    }
    for found in all.iter().filter(|c| c.is_running()) {
        work.out.actions.push(Action::Kill {
            id: found.id.clone(),
            container: found.name.clone(),
            grace_seconds: GRACE_MIN,
            pre_stop: false,
            message: "killing".into(),
            why: WhyKill::Changed,
        });
    }
    let busy = all.iter().any(|c| c.is_running()) || all.iter().any(|c| observed.is_starting(&c.name));
    if !busy {
        let victims = all.iter().any(|c| !triggers(pod, c));
        for found in all.iter().filter(|c| !victims || !triggers(pod, c)) {
            work.out.actions.push(Action::RemoveContainer { id: found.id.clone(), keep_log: true });
        }
    }
    true
}

/// `AllContainersRestarting` for pods that have a rule for it: whether it holds, its reason and message
/// (`GenerateAllContainersRestartingCondition`).
pub(crate) fn condition(
    pod: &Pod,
    observed: &Observed,
    previous: &PodStatus,
    phase: &str,
) -> Option<(bool, &'static str, &'static str)> {
    concerned(pod).any(|c| c.restart_policy_rules.iter().any(|r| r.action == ALL)).then_some(())?;
    let restarts = all_restart(pod, observed, previous) && instances(pod, observed).next().is_some();
    Some(match phase {
        "Succeeded" => (false, "PodCompleted", ""),
        "Failed" => (false, "PodFailed", ""),
        _ if restarts => (true, "RestartAllContainersStarted", "container exited with restart policy rule"),
        _ => (false, "", ""),
    })
}
