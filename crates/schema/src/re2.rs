//! Regular expressions as Go reads them (RE2), on the `regex` crate, which has the same engine and a slightly other syntax.
//!
//! What differs: Go's `\d`, `\w`, `\s` and `\b` know ASCII only; a `{` that begins no repetition stands for itself; and inside
//! a class `[`, `&&`, `--` and `~~` mean nothing special.

use std::fmt::Write;

pub use regex::Regex;
use regex::RegexBuilder;

/// Bytes that a compiled expression may take.
const COMPILED_MAX: usize = 16 << 20;
/// Go's bound of repetitions.
const REPEAT_MAX: u32 = 1000;

/// Compiles an expression in Go's syntax.
///
/// # Errors
/// A text of Go's form, without Go's exact words for every mistake.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let failed = |why: String| format!("error parsing regexp: {why}");
    let translated = translate(pattern).map_err(failed)?;
    RegexBuilder::new(&translated).size_limit(COMPILED_MAX).build().map_err(|error| failed(reason(pattern, &error)))
}

fn reason(pattern: &str, error: &regex::Error) -> String {
    let text = error.to_string();
    if text.contains("unclosed group") {
        return format!("missing closing ): `{pattern}`");
    }
    if text.contains("unopened group") {
        return format!("unexpected ): `{pattern}`");
    }
    if text.contains("unclosed character class") {
        let from = pattern.find('[').unwrap_or(0);
        return format!("missing closing ]: `{}`", &pattern[from..]);
    }
    if text.contains("repetition operator missing expression") {
        let at = pattern.find(['*', '+', '?']).unwrap_or(0);
        let end = at + pattern[at..].chars().next().map_or(0, char::len_utf8);
        return format!("missing argument to repetition operator: `{}`", &pattern[at..end]);
    }
    if text.contains("look-around") {
        let at = pattern.find("(?").unwrap_or(0);
        let end = pattern[at..].char_indices().nth(3).map_or(pattern.len(), |(i, _)| at + i);
        return format!("invalid or unsupported Perl syntax: `{}`", &pattern[at..end]);
    }
    format!("invalid expression: `{pattern}`")
}

fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            '\\' => rest = escape(after, in_class, &mut out)?,
            '[' if in_class => {
                let named = after.strip_prefix(':').and_then(|name| name.find(":]"));
                match named {
                    Some(end) => {
                        let whole = &rest[..1 + 1 + end + 2];
                        out.push_str(whole);
                        rest = &rest[whole.len()..];
                    }
                    None => {
                        out.push_str("\\[");
                        rest = after;
                    }
                }
            }
            '[' => {
                in_class = true;
                out.push('[');
                rest = after;
                if let Some(after) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = after;
                }
                // A bracket that comes first stands for itself.
                if let Some(after) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = after;
                }
            }
            ']' => {
                in_class = false;
                out.push(']');
                rest = after;
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
                rest = after;
            }
            '-' if in_class && after.starts_with('-') => {
                out.push_str("\\-");
                rest = after;
            }
            '{' if !in_class => rest = repetition(rest, &mut out)?,
            _ => {
                out.push(c);
                rest = after;
            }
        }
    }
    Ok(out)
}

/// What stands behind a backslash; the rest of the pattern.
fn escape<'p>(after: &'p str, in_class: bool, out: &mut String) -> Result<&'p str, String> {
    let Some(c) = after.chars().next() else { return Err("trailing backslash at end of expression: ``".into()) };
    let rest = &after[c.len_utf8()..];
    let ascii = match (c, in_class) {
        ('d', false) => Some("[0-9]"),
        ('D', _) => Some("[^0-9]"),
        ('w', false) => Some("[0-9A-Za-z_]"),
        ('W', _) => Some("[^0-9A-Za-z_]"),
        ('s', false) => Some("[\\t\\n\\f\\r ]"),
        ('S', _) => Some("[^\\t\\n\\f\\r ]"),
        ('d', true) => Some("0-9"),
        ('w', true) => Some("0-9A-Za-z_"),
        ('s', true) => Some("\\t\\n\\f\\r "),
        ('b', false) => Some("(?-u:\\b)"),
        ('B', false) => Some("(?-u:\\B)"),
        ('z', false) => Some("\\z"),
        ('C', false) => Some("(?s:.)"),
        _ => None,
    };
    match (c, ascii) {
        (_, Some(text)) => out.push_str(text),
        ('Q', None) => {
            let end = rest.find("\\E");
            out.push_str(&regex::escape(&rest[..end.unwrap_or(rest.len())]));
            return Ok(end.map_or("", |end| &rest[end + 2..]));
        }
        ('1'..='9' | 'Z' | 'k', None) => return Err(format!("invalid escape sequence: `\\{c}`")),
        // `\0` and octal numbers.
        ('0', None) => {
            let digits = rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
            let value = u32::from_str_radix(&format!("0{}", &rest[..digits]), 8).unwrap_or(0);
            let _ = write!(out, "\\x{{{value:x}}}");
            return Ok(&rest[digits..]);
        }
        (_, None) if c.is_ascii_punctuation() || c.is_ascii_alphanumeric() => {
            out.push('\\');
            out.push(c);
        }
        (_, None) => return Err(format!("invalid escape sequence: `\\{c}`")),
    }
    Ok(rest)
}

/// A brace outside of a class: `{n}`, `{n,}`, `{n,m}` repeat, anything else stands for itself.
fn repetition<'p>(from: &'p str, out: &mut String) -> Result<&'p str, String> {
    let body = from[1..].find('}').map(|end| &from[1..=end]);
    let counts = body.filter(|body| {
        let (low, high) = body.split_once(',').unwrap_or((body, ""));
        !low.is_empty() && low.bytes().all(|b| b.is_ascii_digit()) && high.bytes().all(|b| b.is_ascii_digit())
    });
    match counts {
        Some(body) => {
            let too_many = |n: &str| !n.is_empty() && n.parse::<u32>().map_or(true, |n| n > REPEAT_MAX);
            if body.split(',').any(too_many) {
                return Err(format!("invalid repeat count: `{{{body}}}`"));
            }
            let _ = write!(out, "{{{body}}}");
            Ok(&from[body.len() + 2..])
        }
        None => {
            out.push_str("\\{");
            Ok(&from[1..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_go() {
        for (pattern, text, fits) in [
            (r"^\d+$", "42", true),
            (r"^\d+$", "४२", false),
            (r"^\w+$", "é", false),
            (r"^[\w.-]+$", "a.b-c_9", true),
            (r"^[^\d]+$", "abc", true),
            (r"^a{2}$", "aa", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^{x}$", "{x}", true),
            (r"^[a&&b]+$", "&a", true),
            (r"^[[a]+$", "[a", true),
            (r"^[]a]+$", "]a", true),
            (r"^[[:alpha:]_]+$", "ab_", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"(?i)^abc$", "ABC", true),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "a-b", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^\/x$", "/x", true),
            (r"^.$", "é", true),
            (r"^\x41\101\p{Greek}$", "AAα", false),
        ] {
            match compile(pattern) {
                Ok(regex) => assert_eq!(regex.is_match(text), fits, "{pattern} on {text}"),
                Err(error) => assert!(!fits, "{pattern}: {error}"),
            }
        }
        assert_eq!(compile("(a").unwrap_err(), "error parsing regexp: missing closing ): `(a`");
        assert_eq!(compile("a{1001}").unwrap_err(), "error parsing regexp: invalid repeat count: `{1001}`");
        assert!(compile(r"(?=a)").is_err() && compile(r"(a)\1").is_err());
    }
}
