//! A pod's phase from its containers' states (`pkg/kubelet/kubelet_pods.go` `getPhase`).

use corten_views::{Container, Pod};

use crate::restart;
use crate::status::{ContainerReport, State, Terminated};

/// The phase. `terminal`: no container will be started any more.
pub(crate) fn phase(pod: &Pod, reports: &[&ContainerReport], terminal: bool, initialized: bool) -> &'static str {
    let find = |name: &str| reports.iter().find(|r| r.name == name);
    let (mut pending_init, mut pending_sidecars) = (0, 0);
    let (mut running, mut waiting, mut unknown) = (0, 0, 0);
    let (mut stopped, mut final_stops, mut succeeded) = (0, 0, 0);
    for container in &pod.spec.init_containers {
        let report = find(&container.name);
        if container.is_sidecar() {
            match report.map(|r| (&r.state, &r.last)) {
                None => unknown += 1,
                Some((State::Running { .. }, _)) => {
                    pending_sidecars += usize::from(report.and_then(|r| r.started) != Some(true));
                    running += 1;
                }
                Some((State::Waiting { .. }, None)) => {
                    pending_sidecars += 1;
                    waiting += 1;
                }
                Some(_) => {}
            }
            continue;
        }
        let end = match report.map(|r| (&r.state, &r.last)) {
            None | Some((State::Running { .. }, _)) | Some((State::Waiting { .. }, None)) => {
                pending_init += 1;
                continue;
            }
            Some((State::Terminated(end), _)) | Some((State::Waiting { .. }, Some(end))) => end,
        };
        if end.exit_code != 0 && !restarts(pod, container, end) {
            return "Failed";
        }
    }
    for container in &pod.spec.containers {
        let end = match find(&container.name).map(|r| (&r.state, &r.last)) {
            None => {
                unknown += 1;
                continue;
            }
            Some((State::Running { .. }, _)) => {
                running += 1;
                continue;
            }
            Some((State::Waiting { .. }, None)) => {
                waiting += 1;
                continue;
            }
            Some((State::Terminated(end), _)) => {
                succeeded += usize::from(end.exit_code == 0);
                end
            }
            Some((State::Waiting { .. }, Some(end))) => end,
        };
        stopped += 1;
        final_stops += usize::from(!restarts(pod, container, end));
    }
    let result = if stopped == succeeded { "Succeeded" } else { "Failed" };
    if pending_init > 0 || (pending_sidecars > 0 && !initialized) || waiting > 0 {
        "Pending"
    } else if running > 0 && unknown == 0 {
        "Running"
    } else if running == 0 && stopped > 0 && unknown == 0 {
        match terminal || stopped == final_stops {
            true => result,
            false => "Running",
        }
    } else {
        "Pending"
    }
}

/// Whether a container is started again after an end; one that was removed for a restart of all is.
fn restarts(pod: &Pod, container: &Container, end: &Terminated) -> bool {
    end.reason == restart::REASON || restart::restarts_after(pod, container, end.exit_code)
}
