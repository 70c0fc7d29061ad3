//! What is counted of others' words, under upstream's names (`plugin/pkg/authorizer/webhook/metrics`,
//! `plugin/pkg/authenticator/token/oidc/metrics.go`, `pkg/server/options/{authentication,authorization}config/metrics`).

use std::fmt::Write as _;
use std::time::Duration;

use corten_base::metrics::Family;
use corten_webhook::CallError;
use ring::digest::{SHA256, digest};

static EVALUATIONS: Family = Family::counter("apiserver_authorization_webhook_evaluations_total", &["name", "result"]);
static EVALUATION_TIMES: Family = Family::histogram(
    "apiserver_authorization_webhook_duration_seconds",
    &["name", "result"],
    &["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10"],
);
static FAIL_OPEN: Family =
    Family::counter("apiserver_authorization_webhook_evaluations_fail_open_total", &["name", "result"]);
static TOKENS: Family = Family::histogram(
    "apiserver_authentication_jwt_authenticator_latency_seconds",
    &["jwt_issuer_hash", "result"],
    &["0.001", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10"],
);
static AUTHENTICATION_RELOADS: Family = Family::counter(
    "apiserver_authentication_config_controller_automatic_reloads_total",
    &["apiserver_id_hash", "status"],
);
static AUTHENTICATION_RELOADED: Family = Family::gauge(
    "apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds",
    &["apiserver_id_hash", "status"],
);
static AUTHORIZATION_RELOADS: Family = Family::counter(
    "apiserver_authorization_config_controller_automatic_reloads_total",
    &["apiserver_id_hash", "status"],
);
static AUTHORIZATION_RELOADED: Family = Family::gauge(
    "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds",
    &["apiserver_id_hash", "status"],
);

/// Counts one round trip to an authorization webhook; `open`: without an answer the others decide.
pub(crate) fn evaluated<T>(name: &str, answer: &Result<T, CallError>, open: bool, took: Duration) {
    let result = match answer {
        Ok(_) => "success",
        Err(error) if error.is_timeout() => "timeout",
        Err(_) => "error",
    };
    EVALUATIONS.with(&[name, result]).increment();
    EVALUATION_TIMES.with(&[name, result]).took(took);
    if open && answer.is_err() {
        FAIL_OPEN.with(&[name, result]).increment();
    }
}

/// Counts a token of an issuer.
pub(crate) fn token(issuer: &str, good: bool, took: Duration) {
    let mut hash = String::from("sha256:");
    for byte in digest(&SHA256, issuer.as_bytes()).as_ref() {
        let _ = write!(hash, "{byte:02x}");
    }
    TOKENS.with(&[&hash, if good { "success" } else { "failure" }]).took(took);
}

/// Whose configuration is read anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Configuration {
    Authentication,
    Authorization,
}

/// Counts that a configuration was read anew, at this time.
pub(crate) fn reloaded(which: Configuration, good: bool, at: corten_base::Timestamp) {
    let (count, last) = match which {
        Configuration::Authentication => (&AUTHENTICATION_RELOADS, &AUTHENTICATION_RELOADED),
        Configuration::Authorization => (&AUTHORIZATION_RELOADS, &AUTHORIZATION_RELOADED),
    };
    // There is one server and it has no identity of its own: upstream's hash of none is empty.
    let labels = ["", if good { "success" } else { "failure" }];
    count.with(&labels).increment();
    last.with(&labels).set(u64::try_from(at.as_second()).unwrap_or_default());
}

/// Prometheus' text of all.
pub fn metrics_text() -> String {
    let mut out = String::new();
    let all = [
        &EVALUATIONS,
        &EVALUATION_TIMES,
        &FAIL_OPEN,
        &TOKENS,
        &AUTHENTICATION_RELOADS,
        &AUTHENTICATION_RELOADED,
        &AUTHORIZATION_RELOADS,
        &AUTHORIZATION_RELOADED,
    ];
    all.iter().for_each(|family| family.text(&mut out));
    out
}
