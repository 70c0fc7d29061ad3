//! How often policies were checked, under upstream's names (`policy/{validating,mutating}/metrics/metrics.go`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// How many label sets are kept; what comes after is not counted.
const SERIES_MAX: usize = 2000;

/// Checks by policy, binding, kind of error and what followed.
#[derive(Default)]
pub(crate) struct Counts(Mutex<BTreeMap<Series, u64>>);

type Series = (String, String, &'static str, &'static str);

impl Counts {
    /// Counts a check; `action` is what followed (`allow`, `deny`, `audit`, `warn`).
    pub fn add(&self, policy: &str, binding: &str, error: &'static str, action: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = (policy.to_owned(), binding.to_owned(), error, action);
        if let Some(count) = counts.get_mut(&series) {
            *count += 1;
        } else if counts.len() < SERIES_MAX {
            counts.insert(series, 1);
        }
    }

    /// Prometheus' text of the counter of this name.
    pub fn text(&self, name: &str) -> String {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = format!("# TYPE {name} counter\n");
        for ((policy, binding, error, action), count) in counts.iter() {
            let _ = writeln!(
                out,
                "{name}{{enforcement_action=\"{action}\",error_type=\"{error}\",policy=\"{policy}\",policy_binding=\"{binding}\"}} \
                 {count}"
            );
        }
        out
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
    fn policy_checks_are_counted_by_their_labels() {
        let counts = Counts::default();
        counts.add("p", "b", "no_error", "allow");
        counts.add("p", "b", error_type("compilation error: x"), "deny");
        counts.add("p", "b", error_type("compilation error: y"), "deny");
        assert_eq!(
            counts.text("n"),
            "# TYPE n counter\n\
             n{enforcement_action=\"deny\",error_type=\"compile_error\",policy=\"p\",policy_binding=\"b\"} 2\n\
             n{enforcement_action=\"allow\",error_type=\"no_error\",policy=\"p\",policy_binding=\"b\"} 1\n"
        );
        assert_eq!(error_type("failed expression: x"), "invalid_error");
    }
}
