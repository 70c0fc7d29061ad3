//! How often policies were checked, under upstream's names (`policy/{validating,mutating}/metrics/metrics.go`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many label sets are kept; what comes after is not counted.
const SERIES_MAX: usize = 2000;

/// Upper bounds of the durations in seconds.
const BOUNDS: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];

/// Checks by policy, binding, kind of error and what followed.
#[derive(Default)]
pub(crate) struct Counts(Mutex<BTreeMap<Series, Durations>>);

type Series = (String, String, &'static str, &'static str);

/// How long the checks of one series took.
#[derive(Default, Clone, Copy)]
struct Durations {
    /// By bound, not added up.
    within: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

impl Counts {
    /// Counts a check that took so long; `action` is what followed (`allow`, `deny`, `audit`, `warn`; empty: it is not told).
    pub fn add(&self, policy: &str, binding: &str, error: &'static str, action: &'static str, took: Duration) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = (policy.to_owned(), binding.to_owned(), error, action);
        if counts.len() >= SERIES_MAX && !counts.contains_key(&series) {
            return;
        }
        let durations = counts.entry(series).or_default();
        durations.count += 1;
        durations.seconds += took.as_secs_f64();
        if let Some(at) = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound) {
            durations.within[at] += 1;
        }
    }

    /// Prometheus' text: `PREFIX_check_total` and `PREFIX_check_duration_seconds`.
    pub fn text(&self, prefix: &str) -> String {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, duration) = (format!("{prefix}_check_total"), format!("{prefix}_check_duration_seconds"));
        let mut totals = format!("# TYPE {total} counter\n");
        let mut durations = format!("# TYPE {duration} histogram\n");
        for ((policy, binding, error, action), took) in counts.iter() {
            let action = if action.is_empty() { String::new() } else { format!("enforcement_action=\"{action}\",") };
            let labels = format!("{action}error_type=\"{error}\",policy=\"{policy}\",policy_binding=\"{binding}\"");
            let _ = writeln!(totals, "{total}{{{labels}}} {}", took.count);
            let mut below = 0;
            for (bound, within) in BOUNDS.iter().zip(took.within) {
                below += within;
                let bound = if *bound < 1e-6 { "5e-07".to_owned() } else { bound.to_string() };
                let _ = writeln!(durations, "{duration}_bucket{{{labels},le=\"{bound}\"}} {below}");
            }
            let _ = writeln!(durations, "{duration}_bucket{{{labels},le=\"+Inf\"}} {}", took.count);
            let _ = writeln!(durations, "{duration}_sum{{{labels}}} {}", took.seconds);
            let _ = writeln!(durations, "{duration}_count{{{labels}}} {}", took.count);
        }
        totals + &durations
    }
}

/// Which kind of error a refusal's text tells of (`ErrorType`).
pub(crate) fn error_type(message: &str) -> &'static str {
    if message.starts_with("compilation") {
        "compile_error"
    } else if message.starts_with("validation failed due to running out of cost budget") {
        "out_of_budget"
    } else {
        "invalid_error"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_checks_are_counted_and_timed_by_their_labels() {
        let counts = Counts::default();
        let (short, long) = (Duration::from_millis(1), Duration::from_secs(2));
        counts.add("p", "b", "no_error", "", short);
        counts.add("p", "b", error_type("compilation error: x"), "deny", short);
        counts.add("p", "b", error_type("compilation error: y"), "deny", long);
        let text = counts.text("n");
        let labels = "enforcement_action=\"deny\",error_type=\"compile_error\",policy=\"p\",policy_binding=\"b\"";
        for line in [
            format!("n_check_total{{{labels}}} 2\n"),
            format!("n_check_duration_seconds_bucket{{{labels},le=\"5e-07\"}} 0\n"),
            format!("n_check_duration_seconds_bucket{{{labels},le=\"0.001\"}} 1\n"),
            format!("n_check_duration_seconds_bucket{{{labels},le=\"1\"}} 1\n"),
            format!("n_check_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 2\n"),
            format!("n_check_duration_seconds_sum{{{labels}}} 2.001\n"),
            "n_check_total{error_type=\"no_error\",policy=\"p\",policy_binding=\"b\"} 1\n".to_owned(),
        ] {
            assert!(text.contains(&line), "{line}{text}");
        }
        assert_eq!(error_type("failed expression: x"), "invalid_error");
    }
}
