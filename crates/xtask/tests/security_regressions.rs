//! `docs/security-regressions.md` names tests: each must be there.

#![allow(clippy::unwrap_used, reason = "in tests")]

use std::collections::BTreeSet;

#[test]
fn every_named_test_exists() {
    let root = corten_testkit::root();
    let text = std::fs::read_to_string(root.join("docs/security-regressions.md")).unwrap();
    let short = [("R/", "crates/runtime/tests/containers/"), ("I/", "crates/images/tests/")];
    let mut named = 0;
    for word in text.split('`').filter(|word| word.contains(".rs::")) {
        let (file, test) = word.split_once("::").unwrap();
        let file = short.iter().fold(file.to_owned(), |file, (short, long)| match file.strip_prefix(short) {
            Some(rest) => format!("{long}{rest}"),
            None => file,
        });
        let source = std::fs::read_to_string(root.join(&file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(source.contains(&format!("fn {test}(")), "{file} has no {test}");
        named += 1;
    }
    let weaknesses: BTreeSet<&str> =
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).filter(|w| w.starts_with("CVE-")).collect();
    assert!(named >= 30 && weaknesses.len() >= 30, "{named} tests, {} weaknesses", weaknesses.len());
}
