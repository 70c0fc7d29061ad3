//! How long admission takes, by step, plugin and webhook, under upstream's names (`apiserver/pkg/admission/metrics/metrics.go`).

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use corten_base::metrics::{Family, Series};
use corten_object::Status;

use crate::plugins::PLUGINS;
use crate::request::Operation;

const SECONDS: &[&str] = &["0.005", "0.025", "0.1", "0.5", "1", "2.5"];

static STEP: Family = Family::histogram(
    "apiserver_admission_step_admission_duration_seconds",
    &["operation", "rejected", "type"],
    SECONDS,
);
static CONTROLLER: Family = Family::histogram(
    "apiserver_admission_controller_admission_duration_seconds",
    &["name", "operation", "rejected", "type"],
    SECONDS,
);
static WEBHOOK: Family = Family::histogram(
    "apiserver_admission_webhook_admission_duration_seconds",
    &["name", "operation", "rejected", "type"],
    &["0.005", "0.025", "0.1", "0.5", "1", "2.5", "10", "25"],
);
static WEBHOOK_REQUESTS: Family =
    Family::counter("apiserver_admission_webhook_request_total", &["code", "name", "operation", "rejected", "type"]);
static WEBHOOK_REJECTIONS: Family = Family::counter(
    "apiserver_admission_webhook_rejection_count",
    &["error_type", "name", "operation", "rejection_code", "type"],
);
static WEBHOOK_FAIL_OPEN: Family = Family::counter("apiserver_admission_webhook_fail_open_count", &["name", "type"]);

/// Largest code that is told of a webhook's answer.
const CODE_MAX: u16 = 600;
/// What is told of one that could not be asked.
const UNREACHABLE: u16 = 503;

/// The two halves of admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Admit,
    Validate,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Step::Admit => "admit",
            Step::Validate => "validate",
        }
    }

    /// What a webhook of this half is called.
    fn of_webhooks(self) -> &'static str {
        match self {
            Step::Admit => "admit",
            Step::Validate => "validating",
        }
    }
}

fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// Takes the time of the parts of one half, each from where the last one ended.
pub(crate) struct Stopwatch {
    operation: Operation,
    step: Step,
    begun: Instant,
    last: Instant,
}

impl Stopwatch {
    pub fn start(operation: Operation, step: Step) -> Stopwatch {
        let now = Instant::now();
        Stopwatch { operation, step, begun: now, last: now }
    }

    /// A built-in plugin has decided.
    pub fn plugin<T>(&mut self, index: usize, outcome: &Result<T, Status>) {
        let rejected = outcome.is_err();
        static CELLS: OnceLock<Vec<OnceLock<Arc<Series>>>> = OnceLock::new();
        const EACH: usize = 16;
        let cells = CELLS.get_or_init(|| (0..PLUGINS.len() * EACH).map(|_| OnceLock::new()).collect());
        let cell = index * EACH + (self.operation as usize * 2 + self.step as usize) * 2 + usize::from(rejected);
        let series = cells[cell].get_or_init(|| self.series(PLUGINS[index].name, rejected));
        series.took(self.lap());
    }

    /// Policies or webhooks have decided.
    pub fn controller<T>(&mut self, name: &'static str, outcome: &Result<T, Status>) {
        let took = self.lap();
        self.series(name, outcome.is_err()).took(took);
    }

    /// All have decided.
    pub fn end(self, outcome: &Result<(), Status>) {
        let labels = [self.operation.as_str(), truth(outcome.is_err()), self.step.as_str()];
        STEP.with(&labels).took(self.begun.elapsed());
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let took = now - self.last;
        self.last = now;
        took
    }

    fn series(&self, name: &str, rejected: bool) -> Arc<Series> {
        CONTROLLER.with(&[name, self.operation.as_str(), truth(rejected), self.step.as_str()])
    }
}

/// How a webhook's call ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Called {
    /// It agrees.
    Yes,
    /// It refuses, with this code.
    No(u16),
    /// It could not be asked; whether the request goes on.
    Failed(bool),
    /// The server could not ask it.
    Internal,
}

/// Counts a webhook's call.
pub(crate) fn webhook(name: &str, operation: Operation, step: Step, called: Called, took: Duration) {
    let (operation, half) = (operation.as_str(), step.of_webhooks());
    let (code, rejected) = match called {
        Called::Yes => (200, false),
        Called::No(code) => (code.min(CODE_MAX), true),
        Called::Failed(open) => (UNREACHABLE, !open),
        Called::Internal => (0, true),
    };
    WEBHOOK.with(&[name, operation, truth(rejected), half]).took(took);
    WEBHOOK_REQUESTS.with(&[&code.to_string(), name, operation, truth(rejected), half]).increment();
    let (error, code) = match called {
        Called::No(code) => ("no_error", code.min(CODE_MAX)),
        Called::Failed(true) => {
            WEBHOOK_FAIL_OPEN.with(&[name, half]).increment();
            return;
        }
        Called::Failed(false) => ("calling_webhook_error", UNREACHABLE),
        Called::Internal => ("apiserver_internal_error", 0),
        Called::Yes => return,
    };
    WEBHOOK_REJECTIONS.with(&[error, name, operation, &code.to_string(), half]).increment();
}

/// Prometheus' text of all.
pub(crate) fn text() -> String {
    let mut out = String::new();
    let all = [&STEP, &CONTROLLER, &WEBHOOK, &WEBHOOK_REQUESTS, &WEBHOOK_REJECTIONS, &WEBHOOK_FAIL_OPEN];
    all.iter().for_each(|family| family.text(&mut out));
    out
}
