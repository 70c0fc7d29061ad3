//! Texts (cel-go's `ext/strings.go`, version 2): indexes count code points.

use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::library::take;
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 0),
    rows: &[
        Row("charAt", "string_char_at_int", "string.(int) -> string", char_at),
        Row("indexOf", "string_index_of_string", "string.(string) -> int", index_of),
        Row("indexOf", "string_index_of_string_int", "string.(string, int) -> int", index_of),
        Row("lastIndexOf", "string_last_index_of_string", "string.(string) -> int", last_index_of),
        Row("lastIndexOf", "string_last_index_of_string_int", "string.(string, int) -> int", last_index_of),
        Row("lowerAscii", "string_lower_ascii", "string.() -> string", lower_ascii),
        Row("replace", "string_replace_string_string", "string.(string, string) -> string", replace),
        Row("replace", "string_replace_string_string_int", "string.(string, string, int) -> string", replace),
        Row("split", "string_split_string", "string.(string) -> list(string)", split),
        Row("split", "string_split_string_int", "string.(string, int) -> list(string)", split),
        Row("substring", "string_substring_int", "string.(int) -> string", substring),
        Row("substring", "string_substring_int_int", "string.(int, int) -> string", substring),
        Row("trim", "string_trim", "string.() -> string", trim),
        Row("upperAscii", "string_upper_ascii", "string.() -> string", upper_ascii),
        Row("strings.quote", "strings_quote", "(string) -> string", quote),
        Row("join", "list_join", "list(string).() -> string", join),
        Row("join", "list_join_string", "list(string).(string) -> string", join),
    ],
};

fn out_of_range(at: i64) -> EvalError {
    EvalError::new(format!("index out of range: {at}"))
}

fn chars(text: &str) -> Vec<char> {
    text.chars().collect()
}

fn char_at<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text), Int(at));
    let length = text.chars().count();
    match usize::try_from(*at).ok().filter(|at| *at <= length) {
        Some(at) => Ok(Value::str(text.chars().nth(at).map(String::from).unwrap_or_default())),
        None => Err(out_of_range(*at)),
    }
}

fn search<'a>(args: &[Value<'a>]) -> Result<(Vec<char>, Vec<char>, Option<i64>), EvalError> {
    match args {
        [Value::Str(text), Value::Str(part)] => Ok((chars(text), chars(part), None)),
        [Value::Str(_), Value::Str(_), Value::Int(at)] if *at < 0 => Err(out_of_range(*at)),
        [Value::Str(text), Value::Str(part), Value::Int(at)] => Ok((chars(text), chars(part), Some(*at))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn index_of<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let (text, part, offset) = search(args)?;
    let offset = offset.unwrap_or(0);
    if part.is_empty() {
        return Ok(Value::Int(offset.min(text.len() as i64)));
    }
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    let found = text[from..].windows(part.len()).position(|window| window == part);
    Ok(Value::Int(found.map_or(-1, |at| (from + at) as i64)))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let (text, part, offset) = search(args)?;
    if part.is_empty() {
        return Ok(Value::Int(offset.unwrap_or(i64::MAX).min(text.len() as i64)));
    }
    let until = match offset {
        Some(offset) if offset >= text.len() as i64 => return Ok(Value::Int(-1)),
        Some(offset) => offset as usize,
        None => text.len(),
    };
    if part.len() > text.len() {
        return Ok(Value::Int(-1));
    }
    let last = until.min(text.len() - part.len());
    let found = (0..=last).rev().find(|at| text[*at..*at + part.len()] == part);
    Ok(Value::Int(found.map_or(-1, |at| at as i64)))
}

fn lower_ascii<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text));
    Ok(Value::str(text.to_ascii_lowercase()))
}

fn upper_ascii<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text));
    Ok(Value::str(text.to_ascii_uppercase()))
}

fn replace<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let (text, old, new, count) = match args {
        [Value::Str(text), Value::Str(old), Value::Str(new)] => (text, old, new, -1),
        [Value::Str(text), Value::Str(old), Value::Str(new), Value::Int(count)] => (text, old, new, *count),
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::str(match usize::try_from(count) {
        Ok(count) => text.replacen(&**old, new, count),
        Err(_) => text.replace(&**old, new),
    }))
}

/// Go's `strings.SplitN`: an empty separator splits into code points; a negative count is no limit.
fn split<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let (text, separator, count) = match args {
        [Value::Str(text), Value::Str(separator)] => (text, separator, -1),
        [Value::Str(text), Value::Str(separator), Value::Int(count)] => (text, separator, *count),
        _ => return Err(EvalError::no_such_overload()),
    };
    let limit = usize::try_from(count).unwrap_or(usize::MAX);
    let mut parts: Vec<Value<'a>> = Vec::new();
    if limit == 0 {
        return Ok(Value::list(parts));
    }
    if separator.is_empty() {
        let mut rest: &str = text;
        while let Some(c) = rest.chars().next() {
            if parts.len() + 1 == limit {
                parts.push(Value::str(rest));
                break;
            }
            let (head, tail) = rest.split_at(c.len_utf8());
            parts.push(Value::str(head));
            rest = tail;
        }
    } else {
        parts.extend(text.splitn(limit, &**separator).map(Value::str));
    }
    Ok(Value::list(parts))
}

fn substring<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let (text, start, end) = match args {
        [Value::Str(text), Value::Int(start)] => (text, *start, None),
        [Value::Str(text), Value::Int(start), Value::Int(end)] => (text, *start, Some(*end)),
        _ => return Err(EvalError::no_such_overload()),
    };
    let length = text.chars().count() as i64;
    if let Some(end) = end.filter(|end| start > *end) {
        return Err(EvalError::new(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let end = end.unwrap_or(length);
    for at in [start, end] {
        if !(0..=length).contains(&at) {
            return Err(out_of_range(at));
        }
    }
    let part: String = text.chars().skip(start as usize).take((end - start) as usize).collect();
    Ok(Value::str(part))
}

fn trim<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text));
    Ok(Value::str(text.trim()))
}

fn quote<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text));
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    Ok(Value::str(out))
}

fn join<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let separator = args.get(1).and_then(Value::as_str).unwrap_or_default();
    let mut out = String::new();
    for (at, item) in args[0].as_list().ok_or_else(EvalError::no_such_overload)?.items()?.iter().enumerate() {
        if at > 0 {
            out.push_str(separator);
        }
        match item {
            Value::Str(text) => out.push_str(text),
            other => return Err(EvalError::new(format!("join: invalid input: {other}"))),
        }
    }
    Ok(Value::str(out))
}
