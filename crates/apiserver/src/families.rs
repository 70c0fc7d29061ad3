//! What the API server counts by label as it happens, under upstream's names (`apiserver/pkg/endpoints/{metrics,filters}`,
//! `authorization/metrics`, `component-base/metrics/prometheus/{slis,version}`).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use corten_base::metrics::{Family, Series};
use corten_federation::Authorizer;

/// A millisecond and its doubles, in seconds.
const DOUBLING: &[&str] = &[
    "0.001", "0.002", "0.004", "0.008", "0.016", "0.032", "0.064", "0.128", "0.256", "0.512", "1.024", "2.048",
    "4.096", "8.192", "16.384",
];

/// Requests that are made to last.
pub(crate) static LONG_RUNNING: Family = Family::gauge(
    "apiserver_longrunning_requests",
    &["component", "group", "resource", "scope", "subresource", "verb", "version"],
);
/// Kinds that are deprecated and were asked for.
pub(crate) static DEPRECATED: Family = Family::gauge(
    "apiserver_requested_deprecated_apis",
    &["group", "removed_release", "resource", "subresource", "version"],
);
/// Events that were sent to watchers.
pub(crate) static WATCH_EVENTS: Family =
    Family::counter("apiserver_watch_events_total", &["group", "resource", "version"]);
/// Their sizes in bytes.
pub(crate) static WATCH_EVENT_SIZES: Family = Family::histogram(
    "apiserver_watch_events_sizes",
    &["group", "resource", "version"],
    &["1024", "2048", "4096", "8192", "16384", "32768", "65536", "131072"],
);
/// How long it takes until a watch that begins with a list has sent that.
pub(crate) static WATCH_LISTS: Family = Family::histogram(
    "apiserver_watch_list_duration_seconds",
    &["group", "resource", "scope", "version"],
    &[
        "0.05", "0.1", "0.2", "0.4", "0.6", "0.8", "1", "1.25", "1.5", "2", "3", "4", "5", "6", "8", "10", "15", "20",
        "30", "45", "60",
    ],
);
static USERS: Family = Family::counter("authenticated_user_requests", &["username"]);
static AUTHENTICATIONS: Family = Family::counter("authentication_attempts", &["result"]);
static AUTHENTICATION_TIMES: Family = Family::histogram("authentication_duration_seconds", &["result"], DOUBLING);
static AUTHORIZATIONS: Family = Family::counter("authorization_attempts_total", &["result"]);
static AUTHORIZATION_TIMES: Family = Family::histogram("authorization_duration_seconds", &["result"], DOUBLING);
static DECISIONS: Family = Family::counter("apiserver_authorization_decisions_total", &["decision", "name", "type"]);
static BUILD: Family = Family::gauge(
    "kubernetes_build_info",
    &[
        "build_date",
        "compiler",
        "git_commit",
        "git_tree_state",
        "git_version",
        "go_version",
        "major",
        "minor",
        "platform",
    ],
);
static HEALTH: Family = Family::gauge("kubernetes_healthcheck", &["name", "type"]);
static HEALTH_CHECKS: Family = Family::counter("kubernetes_healthchecks_total", &["name", "status", "type"]);

/// A count and the times of what ends in one of a few ways: looked up once, as it happens with each request.
struct Outcomes<const N: usize>([(Arc<Series>, Arc<Series>); N]);

impl<const N: usize> Outcomes<N> {
    fn new(names: [&str; N], counts: &Family, times: &Family) -> Outcomes<N> {
        Outcomes(names.map(|name| (counts.with(&[name]), times.with(&[name]))))
    }

    fn count(&self, which: usize, took: Duration) {
        let (count, times) = &self.0[which];
        count.increment();
        times.took(took);
    }
}

/// How a caller was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identified {
    /// Somebody, maybe nobody in particular.
    Success,
    /// Nobody vouches for the caller.
    Failure,
    /// What the caller shows is no good.
    Error,
}

/// Counts a caller, by a sort of name.
pub(crate) fn authenticated(outcome: Identified, user: &str, took: Duration) {
    static ALL: LazyLock<Outcomes<3>> =
        LazyLock::new(|| Outcomes::new(["success", "failure", "error"], &AUTHENTICATIONS, &AUTHENTICATION_TIMES));
    static OTHER: LazyLock<Arc<Series>> = LazyLock::new(|| USERS.with(&["other"]));
    ALL.count(outcome as usize, took);
    match (outcome, user) {
        (
            Identified::Success,
            "admin" | "client" | "kube_proxy" | "kubelet" | "system:serviceaccount:kube-system:default",
        ) => {
            USERS.with(&[user]).increment();
        }
        (Identified::Success, user) if user.contains('@') => USERS.with(&["email_id"]).increment(),
        (Identified::Success, _) => OTHER.increment(),
        _ => {}
    }
}

/// Counts whether a request was allowed.
pub(crate) fn authorized(decision: &corten_auth::Decision, took: Duration) {
    static ALL: LazyLock<Outcomes<4>> = LazyLock::new(|| {
        Outcomes::new(["allowed", "error", "denied", "no-opinion"], &AUTHORIZATIONS, &AUTHORIZATION_TIMES)
    });
    let which = match decision {
        decision if decision.allowed => 0,
        decision if decision.error.is_some() => 1,
        decision if decision.denied => 2,
        _ => 3,
    };
    ALL.count(which, took);
}

/// Counts a decision by who made it.
pub(crate) fn decided(authorizer: &Authorizer, decision: &corten_auth::Decision) {
    // The roles' yes is what nearly all requests get.
    static ROLES: LazyLock<Arc<Series>> = LazyLock::new(|| DECISIONS.with(&["allowed", "rbac", "RBAC"]));
    let said = if decision.allowed { "allowed" } else { "denied" };
    match authorizer {
        Authorizer::Rbac if decision.allowed => ROLES.increment(),
        other => {
            let (sort, name) = other.names();
            DECISIONS.with(&[said, name, sort]).increment();
        }
    }
}

/// Counts a health check.
pub(crate) fn checked(name: &str, endpoint: &str, passed: bool) {
    HEALTH.with(&[name, endpoint]).set(u64::from(passed));
    HEALTH_CHECKS.with(&[name, if passed { "success" } else { "error" }, endpoint]).increment();
}

/// The text of `/metrics/slis`.
pub(crate) fn slis() -> String {
    let mut out = String::new();
    HEALTH.text(&mut out);
    HEALTH_CHECKS.text(&mut out);
    out
}

/// The text of all others.
pub(crate) fn text() -> String {
    let version = crate::bootstrap::version();
    let told =
        ["buildDate", "compiler", "gitCommit", "gitTreeState", "gitVersion", "goVersion", "major", "minor", "platform"];
    BUILD.with(&told.map(|field| version.str_at(field))).set(1);
    let mut out = String::new();
    for family in [
        &LONG_RUNNING,
        &DEPRECATED,
        &WATCH_EVENTS,
        &WATCH_EVENT_SIZES,
        &WATCH_LISTS,
        &USERS,
        &AUTHENTICATIONS,
        &AUTHENTICATION_TIMES,
        &AUTHORIZATIONS,
        &AUTHORIZATION_TIMES,
        &DECISIONS,
        &BUILD,
    ] {
        family.text(&mut out);
    }
    out
}
