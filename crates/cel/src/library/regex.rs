//! Regular expressions: RE2's syntax as Go reads it, on the `regex` crate, which has the same guarantees.

use regex::{Regex, RegexBuilder};

use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 0),
    rows: &[
        Row("matches", "matches", "(string, string) -> bool", matches),
        Row("matches", "matches_string", "string.(string) -> bool", matches),
        Row("find", "string_find_string", "string.(string) -> string", find),
        Row("findAll", "string_find_all_string", "string.(string) -> list(string)", find_all),
        Row("findAll", "string_find_all_string_int", "string.(string, int) -> list(string)", find_all),
    ],
};

/// The largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4 << 20;

/// Compiles a pattern.
pub(crate) fn compile(pattern: &str) -> Result<Regex, EvalError> {
    RegexBuilder::new(&translate(pattern)).octal(true).size_limit(PATTERN_BYTES_MAX).build().map_err(|error| {
        let why = error.to_string();
        let last = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
        EvalError::new(format!("error parsing regexp: {last}: `{pattern}`"))
    })
}

/// Go's syntax in the words of the `regex` crate: Perl classes are ASCII, brackets within brackets are characters,
/// `\Q…\E` quotes.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    let mut class_start = false;
    while let Some(c) = chars.next() {
        let first = std::mem::take(&mut class_start);
        match c {
            '\\' => {
                let Some(escaped) = chars.next() else {
                    out.push('\\');
                    break;
                };
                let ascii = match escaped {
                    'd' => Some(("0-9", false)),
                    'D' => Some(("0-9", true)),
                    'w' => Some(("0-9A-Za-z_", false)),
                    'W' => Some(("0-9A-Za-z_", true)),
                    's' => Some(("\\t\\n\\f\\r ", false)),
                    'S' => Some(("\\t\\n\\f\\r ", true)),
                    _ => None,
                };
                match (escaped, ascii) {
                    (_, Some((set, negated))) => {
                        out.push_str(if negated { "[^" } else { "[" });
                        out.push_str(set);
                        out.push(']');
                    }
                    ('b', _) if !in_class => out.push_str("(?-u:\\b)"),
                    ('B', _) if !in_class => out.push_str("(?-u:\\B)"),
                    ('Q', _) if !in_class => {
                        let rest: String = chars.clone().collect();
                        let quoted = rest.split("\\E").next().unwrap_or_default();
                        out.push_str(&regex::escape(quoted));
                        let skip = quoted.chars().count() + if quoted.len() < rest.len() { 2 } else { 0 };
                        chars.by_ref().take(skip).for_each(drop);
                    }
                    (other, _) => {
                        out.push('\\');
                        out.push(other);
                    }
                }
            }
            '[' if !in_class => {
                in_class = true;
                class_start = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
            }
            '[' if chars.peek() == Some(&':') => out.push('['),
            ':' if in_class && out.ends_with('[') => {
                // A POSIX class: `[:alpha:]`, up to its own bracket.
                out.push(':');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '[' => out.push_str("\\["),
            ']' if in_class && first => out.push_str("\\]"),
            ']' => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '-' if in_class && first => out.push_str("\\-"),
            '-' if in_class && chars.peek() == Some(&'-') => {
                chars.next();
                out.push_str("-\\-");
            }
            other => out.push(other),
        }
    }
    out
}

fn illegal(error: EvalError) -> EvalError {
    EvalError::new(format!("Illegal regex: {error}"))
}

fn pattern(args: &[Value<'_>]) -> Result<Regex, EvalError> {
    compile(args.get(1).and_then(Value::as_str).ok_or_else(EvalError::no_such_overload)?)
}

fn matches<'a>(args: &[Value<'a>]) -> Answer<'a> {
    run("matches", &pattern(args)?, args)
}

fn find<'a>(args: &[Value<'a>]) -> Answer<'a> {
    run("find", &pattern(args).map_err(illegal)?, args)
}

fn find_all<'a>(args: &[Value<'a>]) -> Answer<'a> {
    run("findAll", &pattern(args).map_err(illegal)?, args)
}

/// One of the functions with a compiled pattern.
pub(crate) fn run<'a>(function: &str, pattern: &Regex, args: &[Value<'a>]) -> Answer<'a> {
    let text = args.first().and_then(Value::as_str).ok_or_else(EvalError::no_such_overload)?;
    Ok(match function {
        "matches" => Value::Bool(pattern.is_match(text)),
        "find" => Value::str(pattern.find(text).map_or("", |found| found.as_str())),
        _ => {
            let limit = match args.get(2) {
                Some(Value::Int(n)) => usize::try_from(*n).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            Value::list(pattern.find_iter(text).take(limit).map(|found| Value::str(found.as_str())).collect())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_syntax_is_understood() {
        for (pattern, text, found) in [
            (r"^\d+$", "٣", false),
            (r"^\d+$", "123", true),
            (r"^[\w-]+$", "a-b_1", true),
            (r"^[^\W_]+$", "ab1", true),
            (r"^[^\W_]+$", "a_b", false),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^[a[]+$", "a[", true),
            (r"^[]a]+$", "a]", true),
            (r"^[a&&b]+$", "&", true),
            (r"\Qa.b\E+", "a.bb", true),
            (r"\Qa.b\E", "axb", false),
            (r"\bfoo\b", "a foo b", true),
            (r"a\Bb", "ab", true),
            (r"^[+--]+$", "+,-", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), found, "{pattern} on {text}");
        }
        assert!(compile("a(?=b)").is_err());
        assert!(compile("(").is_err());
    }
}
