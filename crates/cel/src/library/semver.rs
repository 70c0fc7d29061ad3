//! Semantic versions (`k8s.io/apiserver/pkg/cel/library/semverlib.go`), read as blang/semver v4 reads them.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::env::Version as Since;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::library::take;
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub(crate) const LIBRARY: Library = Library {
    since: Since(1, 33),
    rows: &[
        Row("semver", "string_to_semver", "(string) -> kubernetes.Semver", semver),
        Row("semver", "string_bool_to_semver", "(string, bool) -> kubernetes.Semver", semver),
        Row("isSemver", "is_semver_string", "(string) -> bool", is_semver),
        Row("isSemver", "is_semver_string_bool", "(string, bool) -> bool", is_semver),
        Row("isGreaterThan", "semver_is_greater_than", "kubernetes.Semver.(kubernetes.Semver) -> bool", greater),
        Row("isLessThan", "semver_is_less_than", "kubernetes.Semver.(kubernetes.Semver) -> bool", less),
        Row("compareTo", "semver_compare_to", "kubernetes.Semver.(kubernetes.Semver) -> int", compare),
        Row("major", "semver_major", "kubernetes.Semver.() -> int", major),
        Row("minor", "semver_minor", "kubernetes.Semver.() -> int", minor),
        Row("patch", "semver_patch", "kubernetes.Semver.() -> int", patch),
    ],
};

/// A semantic version. Build metadata does not count when comparing.
#[derive(Debug, Clone)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<Part>,
    build: Vec<String>,
}

/// A part of a pre-release: numbers come before words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        for (at, part) in self.pre.iter().enumerate() {
            f.write_str(if at == 0 { "-" } else { "." })?;
            match part {
                Part::Number(n) => write!(f, "{n}")?,
                Part::Word(word) => f.write_str(word)?,
            }
        }
        for (at, part) in self.build.iter().enumerate() {
            write!(f, "{}{part}", if at == 0 { "+" } else { "." })?;
        }
        Ok(())
    }
}

impl Semver {
    pub(crate) fn cmp(&self, other: &Semver) -> Ordering {
        let released = |version: &Semver| version.pre.is_empty();
        self.numbers.cmp(&other.numbers).then_with(|| match (released(self), released(other)) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        })
    }

    /// Reads a version by semver 2.0.0; the error is the library's text.
    pub fn parse(text: &str) -> Result<Semver, String> {
        if text.is_empty() {
            return Err("Version string empty".into());
        }
        let parts: Vec<&str> = text.splitn(3, '.').collect();
        let [major, minor, rest] = parts[..] else { return Err("No Major.Minor.Patch elements found".into()) };
        let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
        let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
        let numbers = [number(major, "Major")?, number(minor, "Minor")?, number(patch, "Patch")?];
        let pre: Result<Vec<Part>, String> = pre.iter().flat_map(|pre| pre.split('.')).map(part).collect();
        let mut metadata = Vec::new();
        let pre = pre?;
        for word in build.iter().flat_map(|build| build.split('.')) {
            if word.is_empty() {
                return Err("Build meta data is empty".into());
            }
            if !is_word(word) {
                return Err(format!("Invalid character(s) found in build meta data {word:?}"));
            }
            metadata.push(word.to_owned());
        }
        Ok(Semver { numbers, pre, build: metadata })
    }

    /// Reads a version that may have a leading `v`, leading zeros and fewer numbers (`normalizeAndParse`).
    fn parse_lenient(text: &str) -> Result<Semver, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text
            .splitn(3, '.')
            .map(|part| {
                if part.len() < 2 {
                    return part.to_owned();
                }
                let trimmed = part.trim_start_matches('0');
                if trimmed.starts_with(|c: char| c.is_ascii_digit()) {
                    trimmed.to_owned()
                } else {
                    format!("0{trimmed}")
                }
            })
            .collect();
        if parts.len() < 3 {
            if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
                return Err("short version cannot contain PreRelease/Build meta data".into());
            }
            parts.resize(3, "0".into());
        }
        Semver::parse(&parts.join("."))
    }
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn number(text: &str, which: &str) -> Result<u64, String> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {} number {text:?}", which.to_lowercase()));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{which} number must not contain leading zeroes {text:?}"));
    }
    let why = if text.is_empty() { "invalid syntax" } else { "value out of range" };
    text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: {why}"))
}

fn part(text: &str) -> Result<Part, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".into());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        if text.len() > 1 && text.starts_with('0') {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {text:?}"));
        }
        let range = |_| format!("strconv.ParseUint: parsing {text:?}: value out of range");
        return text.parse().map(Part::Number).map_err(range);
    }
    match is_word(text) {
        true => Ok(Part::Word(text.to_owned())),
        false => Err(format!("Invalid character(s) found in prerelease {text:?}")),
    }
}

fn parse(args: &[Value<'_>]) -> Result<Result<Semver, String>, EvalError> {
    match args {
        [Value::Str(text)] | [Value::Str(text), Value::Bool(false)] => Ok(Semver::parse(text)),
        [Value::Str(text), Value::Bool(true)] => Ok(Semver::parse_lenient(text)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn semver<'a>(args: &[Value<'a>]) -> Answer<'a> {
    parse(args)?.map(|version| Value::Semver(Arc::new(version))).map_err(EvalError::new)
}

fn is_semver<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Bool(parse(args)?.is_ok()))
}

fn greater<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Semver(a), Semver(b));
    Ok(Value::Bool((**a).cmp(b).is_gt()))
}

fn less<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Semver(a), Semver(b));
    Ok(Value::Bool((**a).cmp(b).is_lt()))
}

fn compare<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Semver(a), Semver(b));
    Ok(Value::Int((**a).cmp(b) as i64))
}

fn part_of<'a>(args: &[Value<'a>], at: usize) -> Answer<'a> {
    take!(args => Semver(version));
    Ok(Value::Int(version.numbers[at] as i64))
}

fn major<'a>(args: &[Value<'a>]) -> Answer<'a> {
    part_of(args, 0)
}

fn minor<'a>(args: &[Value<'a>]) -> Answer<'a> {
    part_of(args, 1)
}

fn patch<'a>(args: &[Value<'a>]) -> Answer<'a> {
    part_of(args, 2)
}
