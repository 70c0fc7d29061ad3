//! `docs/conformance.md`: what passed, what failed and why, what did not run. The page is its own memory: a run of a part reads it,
//! replaces that part, and writes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use corten_testkit::text;
use serde_json::Value;

use super::suite::{Test, VERSION, test_of};

/// How long a reason may be, in characters.
const REASON_MAX: usize = 300;

/// How ginkgo says that the time of the whole run was up (`internal/suite.go`); a test's own limit reads otherwise.
const SUITE_TIMEOUT: &str = "A suite timeout occurred";

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    test: Test,
    /// None: it passed.
    failure: Option<String>,
}

impl Outcome {
    /// Of a spec that ran; None if it did not.
    pub(super) fn of(spec: &Value) -> Option<Outcome> {
        if spec["LeafNodeType"] != "It" {
            return None;
        }
        let failure = match spec["State"].as_str() {
            Some("passed") => None,
            // A test that skips itself was asked for and not run. So was one that the end of the run cut off.
            Some("skipped" | "pending" | "interrupted" | "aborted") | None => return None,
            Some("timedout") if reason(spec).starts_with(SUITE_TIMEOUT) => return None,
            Some(_) => Some(reason(spec)),
        };
        Some(Outcome { test: test_of(spec), failure })
    }

    pub(super) fn passed(&self) -> bool {
        self.failure.is_none()
    }
}

/// Why a spec failed, on one line.
pub(super) fn reason(spec: &Value) -> String {
    let message = spec["Failure"]["Message"].as_str().unwrap_or("no reason was given");
    let panic = spec["Failure"]["ForwardedPanic"].as_str().unwrap_or_default();
    one_line(&format!("{message} {panic}"))
}

fn one_line(message: &str) -> String {
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line: String = words.chars().take(REASON_MAX).collect();
    if line.len() < words.len() {
        line.push('…');
    }
    line
}

/// The state of all tests: `None` passed, `Some` failed for a reason.
type States = BTreeMap<String, Option<String>>;

const FAILED: &str = "## Failed";
const NOT_RUN: &str = "## Not run";
const PASSED: &str = "## Passed";

/// Writes the page: what it said, with the new results, of a binary of `commit`, in place of the old.
///
/// # Errors
/// If the page cannot be written.
pub(super) fn update(page: &Path, all: &[Test], results: &[Outcome], commit: &str) -> Result<()> {
    let before = fs::read_to_string(page).unwrap_or_default();
    let (mut states, mut runs) = (parse(&before), parse_runs(&before));
    states.retain(|name, _| all.iter().any(|t| t.name == *name));
    let date = text(Command::new("date").args(["-u", "+%F"]))?;
    for outcome in results {
        states.insert(outcome.test.name.clone(), outcome.failure.clone());
        runs.insert(outcome.test.sig.clone(), (date.trim().to_owned(), commit.to_owned()));
    }
    fs::write(page, render(all, &states, &runs)).with_context(|| page.display().to_string())
}

/// A page's states: the bullets of its lists, a failure's reason indented below its test.
fn parse(page: &str) -> States {
    let mut states = States::new();
    let mut section = "";
    let mut last = String::new();
    for line in page.lines() {
        if line.starts_with("## ") {
            section = [FAILED, PASSED].into_iter().find(|s| *s == line).unwrap_or_default();
        } else if let Some(name) = line.strip_prefix("- ").filter(|_| !section.is_empty()) {
            last = name.to_owned();
            states.insert(last.clone(), (section == FAILED).then(String::new));
        } else if let Some(reason) = line.strip_prefix("  ").filter(|_| section == FAILED)
            && let Some(state) = states.get_mut(&last)
        {
            *state = Some(unquote(reason));
        }
    }
    states
}

/// A reason is shown as code: it holds what Markdown would read as its own.
fn quote(reason: &str) -> String {
    format!("`{}`", reason.replace('`', "'"))
}

fn unquote(reason: &str) -> String {
    reason.trim().trim_matches('`').to_owned()
}

/// SIG → (date, commit) of the last run of any of its tests.
fn parse_runs(page: &str) -> BTreeMap<String, (String, String)> {
    let rows = page.lines().filter(|l| l.starts_with("| sig-"));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .filter_map(|cells| match cells[..] {
            [sig, _, _, _, _, date, commit] if !date.is_empty() => {
                Some((sig.trim_start_matches("sig-").to_owned(), (date.to_owned(), commit.to_owned())))
            }
            _ => None,
        })
        .collect()
}

fn render(all: &[Test], states: &States, runs: &BTreeMap<String, (String, String)>) -> String {
    let mut page = format!(
        "# Conformance\n\nUpstream's own `[Conformance]` tests ({VERSION}) on one node. Written by `cargo xtask conformance`; \
         not edited by hand.\n\n| SIG | tests | passed | failed | not run | last run | commit |\n|---|---|---|---|---|---|---|\n"
    );
    let count = |sig: Option<&str>| {
        let tests = all.iter().filter(|t| sig.is_none_or(|sig| t.sig == sig));
        let (mut total, mut passed, mut failed) = (0, 0, 0);
        for test in tests {
            total += 1;
            match states.get(&test.name) {
                Some(None) => passed += 1,
                Some(Some(_)) => failed += 1,
                None => {}
            }
        }
        format!("{total} | {passed} | {failed} | {}", total - passed - failed)
    };
    let mut sigs: Vec<&str> = all.iter().map(|t| t.sig.as_str()).collect();
    sigs.sort_unstable();
    sigs.dedup();
    // Writing to a String does not fail.
    for sig in sigs {
        let (date, commit) = runs.get(sig).cloned().unwrap_or_default();
        let _ = writeln!(page, "| sig-{sig} | {} | {date} | {commit} |", count(Some(sig)));
    }
    let _ = writeln!(page, "| all | {} | | |", count(None));
    let _ = writeln!(page, "\n{FAILED}\n");
    for (name, reason) in states.iter().filter_map(|(n, s)| Some((n, s.as_ref()?))) {
        let _ = writeln!(page, "- {name}\n  {}", quote(reason));
    }
    let _ = writeln!(page, "\n{NOT_RUN}\n");
    for test in all.iter().filter(|t| !states.contains_key(&t.name)) {
        let _ = writeln!(page, "- {}", test.name);
    }
    let _ = writeln!(page, "\n{PASSED}\n");
    for name in states.iter().filter(|(_, s)| s.is_none()).map(|(n, _)| n) {
        let _ = writeln!(page, "- {name}");
    }
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn test(name: &str, sig: &str) -> Test {
        Test { name: name.into(), sig: sig.into() }
    }

    #[test]
    fn a_page_is_read_as_it_was_written() {
        let all = [test("[sig-a] one", "a"), test("[sig-a] two", "a"), test("[sig-b] three", "b")];
        let mut states = States::from([("[sig-a] one".into(), None), ("[sig-a] two".into(), Some("no `luck`".into()))]);
        let runs = BTreeMap::from([("a".to_owned(), ("2026-01-02".to_owned(), "abc".to_owned()))]);
        let page = render(&all, &states, &runs);
        assert!(page.contains("| sig-a | 2 | 1 | 1 | 0 | 2026-01-02 | abc |"), "{page}");
        assert!(page.contains("| all | 3 | 1 | 1 | 1 |"), "{page}");
        states.insert("[sig-a] two".into(), Some("no 'luck'".into()));
        assert_eq!(parse(&page), states);
        assert_eq!(parse_runs(&page), runs);
        assert_eq!(render(&all, &parse(&page), &parse_runs(&page)), page);
    }

    #[test]
    fn outcomes_are_of_specs_that_ran() {
        let spec = |state: &str| json!({"LeafNodeType": "It", "State": state, "LeafNodeText": "x", "Failure": {"Message": "a\n  b"}});
        assert!(Outcome::of(&spec("passed")).unwrap().passed());
        assert_eq!(Outcome::of(&spec("timedout")).unwrap().failure.as_deref(), Some("a b"));
        let mut cut_off = spec("timedout");
        cut_off["Failure"]["Message"] = json!("A suite timeout occurred and the following goroutines were running");
        assert_eq!(Outcome::of(&cut_off), None, "the end of the run is not the test's fault");
        assert_eq!(Outcome::of(&spec("interrupted")), None);
        assert_eq!(Outcome::of(&spec("skipped")), None);
        assert_eq!(Outcome::of(&json!({"LeafNodeType": "BeforeSuite", "State": "failed"})), None);
    }
}
