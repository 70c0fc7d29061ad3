//! `docs/checklist.md`: which test proves which feature. Each row's test must exist and say the row's word, so that the page
//! cannot rot; what has no test points to a row of `docs/compatibility.md`. `docs/security-regressions.md` likewise: each of its
//! tests must be there and run by default.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use corten_testkit::root;

const PAGE: &str = "docs/checklist.md";
const COMPATIBILITY: &str = "docs/compatibility.md";
/// How a cell says that there is no test: `missing: ROW`, where ROW begins a row of the compatibility page.
const MISSING: &str = "missing: ";

/// Checks every row of the page.
pub(crate) fn check(findings: &mut Vec<String>) -> Result<()> {
    let page = fs::read_to_string(root().join(PAGE)).context(PAGE)?;
    let compatibility = fs::read_to_string(root().join(COMPATIBILITY)).context(COMPATIBILITY)?;
    let mut files = HashMap::new();
    for (i, line) in page.lines().enumerate() {
        let Some(cells) = row(line) else { continue };
        let at = format!("{PAGE}:{}", i + 1);
        let [_, word, priority, proof] = cells.as_slice() else {
            findings.push(format!("{at}: a row has four cells: feature, word, priority, proof"));
            continue;
        };
        if !["0", "1", "0/1", "0/2"].contains(priority) {
            findings.push(format!("{at}: priority {priority}"));
        }
        if let Some(missing) = proof.strip_prefix(MISSING) {
            let listed = compatibility.lines().any(|l| row(l).is_some_and(|cells| cells[0].starts_with(missing)));
            if !listed {
                findings.push(format!("{at}: no row of {COMPATIBILITY} begins with {missing:?}"));
            }
            continue;
        }
        let tests: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        let word = word.trim_matches('`').to_lowercase();
        let mut said = tests.is_empty();
        if tests.is_empty() {
            findings.push(format!("{at}: neither a test nor `{MISSING}…`"));
        }
        for test in tests {
            match text_of(test, &mut files) {
                Ok(text) => said |= text.to_lowercase().contains(&word) || test.to_lowercase().contains(&word),
                Err(why) => findings.push(format!("{at}: {test}: {why}")),
            }
        }
        if !said {
            findings.push(format!("{at}: none of its tests says {word:?}"));
        }
    }
    Ok(())
}

const SECURITY: &str = "docs/security-regressions.md";
/// Weaknesses that the page names at least.
const WEAKNESSES_MIN: usize = 30;

/// Checks every row of the page of published weaknesses.
pub(crate) fn check_security(findings: &mut Vec<String>) -> Result<()> {
    let page = fs::read_to_string(root().join(SECURITY)).context(SECURITY)?;
    let mut files = HashMap::new();
    let mut proven = BTreeSet::new();
    for (i, line) in page.lines().enumerate() {
        let Some(cells) = row(line) else { continue };
        let [weaknesses, _, proof] = cells.as_slice() else { continue };
        let at = format!("{SECURITY}:{}", i + 1);
        let tests: Vec<String> = proof.split('`').skip(1).step_by(2).map(in_full).collect();
        if tests.is_empty() {
            findings.push(format!("{at}: no test"));
        }
        for test in &tests {
            if let Err(why) = text_of(test, &mut files) {
                findings.push(format!("{at}: {test}: {why}"));
            }
        }
        proven.extend(weaknesses.split(", ").filter(|word| word.starts_with("CVE-")).map(str::to_owned));
    }
    if proven.len() < WEAKNESSES_MIN {
        findings.push(format!("{SECURITY}: {} weaknesses with a test, not {WEAKNESSES_MIN}", proven.len()));
    }
    Ok(())
}

/// A test's path without the page's abbreviations.
fn in_full(test: &str) -> String {
    let short = [("R/", "crates/runtime/tests/containers/"), ("I/", "crates/images/tests/")];
    let long = short.iter().find_map(|(short, long)| test.strip_prefix(short).map(|rest| format!("{long}{rest}")));
    long.unwrap_or_else(|| test.to_owned())
}

/// The cells of a row of a table that is neither a head nor a rule.
fn row(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
    let cells: Vec<&str> = inner.split(" | ").map(str::trim).collect();
    let head = ["feature", "what", "CVE"].contains(cells.first()?) || cells[0].starts_with("--");
    (!head).then_some(cells)
}

/// The text of `PATH::NAME`: a test function, a scenario by its title, or a case of faults by what it says.
fn text_of(test: &str, files: &mut HashMap<String, String>) -> Result<String, String> {
    let (path, name) = test.split_once("::").ok_or("a test is PATH::NAME")?;
    if !files.contains_key(path) {
        let text = fs::read_to_string(root().join(path)).map_err(|e| e.to_string())?;
        files.insert(path.to_owned(), text);
    }
    let text = &files[path];
    match Path::new(path).extension().and_then(|e| e.to_str()) {
        Some("scenario") => scenario(text, name).ok_or_else(|| "no scenario of this title".into()),
        Some("faults") => {
            text.lines().find(|l| l.contains(name)).map(str::to_owned).ok_or_else(|| "no such case".into())
        }
        Some("rs") => {
            let function = function(text, name).ok_or("no such function")?;
            let listed = || listed_as_test(Path::new(path), name);
            (is_test(text, name) || listed()).then_some(function).ok_or_else(|| "the function is no test".into())
        }
        _ => Err("tests are in .rs, .scenario and .faults files".into()),
    }
}

fn scenario(text: &str, title: &str) -> Option<String> {
    let mut blocks = text.split("\n\n");
    blocks.find(|block| block.lines().any(|l| l.strip_prefix("# ") == Some(title))).map(str::to_owned)
}

/// A function's text with what its file says outside of functions: tables and manifests of tests are constants.
fn function(text: &str, name: &str) -> Option<String> {
    let (mut kept, mut found, mut skipping) = (String::new(), false, None);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if skipping.is_none() && is_function(line) {
            let this = is_function_of(line, name);
            found |= this;
            skipping = (!this && !line.ends_with('}')).then_some(indent);
        }
        match skipping {
            Some(at) if indent == at && line.trim_start().starts_with('}') => skipping = None,
            Some(_) => {}
            None => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    found.then_some(kept)
}

/// What a function is called, without what may stand before `fn`.
fn head(line: &str) -> Option<&str> {
    let words = ["pub(crate) ", "pub(super) ", "pub ", "async ", "const "];
    let mut head = line.trim_start();
    while let Some(rest) = words.iter().find_map(|w| head.strip_prefix(w)) {
        head = rest;
    }
    head.strip_prefix("fn ")
}

fn is_function(line: &str) -> bool {
    head(line).is_some()
}

fn is_function_of(line: &str, name: &str) -> bool {
    head(line).and_then(|h| h.strip_prefix(name)).is_some_and(|rest| rest.starts_with(['(', '<']))
}

/// Whether a function has a test's attribute.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let Some(at) = lines.iter().position(|l| is_function_of(l, name)) else { return false };
    let before = lines[..at].iter().rev().take_while(|l| {
        let line = l.trim_start();
        line.starts_with("#[") || line.starts_with("//")
    });
    before.into_iter().any(|l| ["#[test]", "#[tokio::test"].iter().any(|t| l.trim_start().starts_with(t)))
}

/// Whether a test program with a main of its own has the function in its list, as `("name", …name)` or in `tests![…]`.
fn listed_as_test(path: &Path, name: &str) -> bool {
    let here = root().join(path);
    let main = here.with_file_name("main.rs");
    let texts = [here, main].map(|p| fs::read_to_string(p).unwrap_or_default());
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    texts.iter().any(|text| {
        let in_pair = text.contains(&format!(", {name})")) || text.contains(&format!(", {stem}::{name})"));
        let list = text.split("tests![").nth(1).and_then(|t| t.split(']').next()).unwrap_or_default();
        in_pair || list.split(',').any(|n| n.trim() == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checklist_rows_find_their_tests() {
        let text = "const TABLE: &str = \"paused\";\n#[test]\nfn a() {\n    one();\n}\n\n#[tokio::test]\nasync fn b() {\n    two();\n}\nfn c() {}\n";
        let found = function(text, "b").unwrap();
        assert!(found.contains("two()") && found.contains("paused") && !found.contains("one()"), "{found}");
        assert_eq!(function(text, "d"), None);
        assert_eq!(["a", "b", "c"].map(|name| is_test(text, name)), [true, true, false]);
        assert_eq!(in_full("R/users.rs::x"), "crates/runtime/tests/containers/users.rs::x");
        assert_eq!(scenario("# x\nkey: 1\n\n# y\nkey: 2\n", "y"), Some("# y\nkey: 2\n".into()));
        assert_eq!(row("| a `x` | b | 0 | `c::d` |"), Some(vec!["a `x`", "b", "0", "`c::d`"]));
        assert_eq!((row("| feature | word | P | proof |"), row("|---|---|")), (None, None));
    }
}
