//! Probes and lifecycle hooks of a container.

use corten_tree::Tree;

use super::{Spot, names};
use crate::Errors;

/// What handlers need to know of their pod.
#[derive(Clone, Copy)]
pub(crate) struct PodFacts<'t> {
    /// `spec.terminationGracePeriodSeconds`
    pub grace_seconds: Option<i64>,
    /// `spec.os.name`
    pub os: &'t str,
}

/// Checks the three probes and the lifecycle hooks.
pub(crate) fn validate_probes(container: &Spot<'_>, pod: PodFacts<'_>, errors: &mut Errors) {
    if let Some(lifecycle) = container.some("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.some(hook) {
                handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], pod, errors);
            }
        }
        if lifecycle.has("stopSignal") {
            stop_signal(&lifecycle, pod.os, errors);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.some(name) else { continue };
        validate_probe(&probe, pod, errors);
        if name == "readinessProbe" {
            if probe.has("terminationGracePeriodSeconds") {
                probe.invalid("terminationGracePeriodSeconds", "must not be set for readinessProbes", errors);
            }
        } else if probe.int("successThreshold").unwrap_or_default() != 1 {
            let value = probe.int("successThreshold").unwrap_or_default();
            probe.invalid_as("successThreshold", value, "must be 1", errors);
        }
    }
}

fn validate_probe(probe: &Spot<'_>, pod: PodFacts<'_>, errors: &mut Errors) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], pod, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        probe.non_negative(field, errors);
    }
    if probe.int("terminationGracePeriodSeconds").is_some_and(|s| s <= 0) {
        probe.invalid("terminationGracePeriodSeconds", "must be greater than 0", errors);
    }
}

fn handler(spot: &Spot<'_>, kinds: &[&str], pod: PodFacts<'_>, errors: &mut Errors) {
    let mut found = false;
    for kind in kinds {
        let Some(action) = spot.some(kind) else { continue };
        if found {
            spot.forbidden(kind, "may not specify more than 1 handler type", errors);
            continue;
        }
        found = true;
        match *kind {
            "exec" if action.list("command").is_empty() => action.required("command", "", errors),
            "httpGet" => http_get(&action, errors),
            "tcpSocket" => port_or_name(&action, "port", errors),
            "grpc" => {
                let port = action.int("port").unwrap_or_default();
                for message in names::port_number(port) {
                    action.invalid_as("port", port, message, errors);
                }
            }
            "sleep" => sleep(&action, pod.grace_seconds, errors),
            _ => {}
        }
    }
    if !found {
        spot.required("", "must specify a handler type", errors);
    }
}

fn http_get(action: &Spot<'_>, errors: &mut Errors) {
    if action.str("path").is_empty() {
        action.required("path", "", errors);
    }
    port_or_name(action, "port", errors);
    if !matches!(action.str("scheme"), "HTTP" | "HTTPS") {
        action.unsupported("scheme", &["HTTP", "HTTPS"], errors);
    }
    for header in action.list("httpHeaders") {
        for message in names::http_header(header.str_at("name")) {
            action.invalid_as("httpHeaders", header.str_at("name"), message, errors);
        }
    }
}

/// `ValidatePortNumOrName`
pub(crate) fn port_or_name(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    let port = spot.child(field);
    match port.tree {
        Tree::Str(name) => port.each("", names::port_name(name), errors),
        other => {
            let number = other.as_i64().unwrap_or_default();
            for message in names::port_number(number) {
                port.invalid_as("", number, message, errors);
            }
        }
    }
}

fn sleep(action: &Spot<'_>, grace_seconds: Option<i64>, errors: &mut Errors) {
    let Some(grace) = grace_seconds else { return };
    let seconds = action.int("seconds").unwrap_or_default();
    if seconds < 0 || seconds > grace {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        action.invalid_as("", seconds, detail, errors);
    }
}

/// Signals that Linux knows, sorted as upstream prints them; the real-time ones besides SIGRTMIN and SIGRTMAX by number.
const SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn stop_signal(lifecycle: &Spot<'_>, os: &str, errors: &mut Errors) {
    match os {
        "" => lifecycle.forbidden("stopSignal", "may not be set for containers with empty `spec.os.name`", errors),
        "windows" => lifecycle.one_of("stopSignal", &["SIGKILL", "SIGTERM"], errors),
        _ => lifecycle.one_of("stopSignal", SIGNALS, errors),
    }
}
