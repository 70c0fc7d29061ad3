//! `'…'.format([…])` (cel-go's `ext/formatting.go`, with its fixed locale en_US).

use crate::convert::{special, to_string};
use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::value::Value;

pub(crate) const LIBRARY: Library =
    Library { since: Version(1, 29), rows: &[Row("format", "string_format", "string.(list(dyn)) -> string", format)] };

const PRECISION: usize = 6;
/// More places than a double has; Go prints zeros beyond.
const PRECISION_MAX: usize = 1000;

/// One part of a format.
pub(crate) enum Part<'f> {
    /// As it is.
    Text(&'f str),
    /// An argument's place.
    Clause(Clause),
}

/// How an argument is printed.
#[derive(Clone, Copy)]
pub(crate) enum Clause {
    Text,
    Decimal,
    Fixed(usize),
    Scientific(usize),
    Binary,
    Hex(bool),
    Octal,
}

/// The parts of a format; an error in the words of `parseFormattingClause`.
pub(crate) fn parts(format: &str, args: usize) -> Result<Vec<Part<'_>>, String> {
    let mut out = Vec::new();
    let mut rest = format;
    let mut used = 0;
    while let Some(at) = rest.find('%') {
        if at > 0 {
            out.push(Part::Text(&rest[..at]));
        }
        let after = &rest[at + 1..];
        if let Some(literal) = after.strip_prefix('%') {
            out.push(Part::Text("%"));
            rest = literal;
            continue;
        }
        if used >= args {
            return Err(format!("index {used} out of range"));
        }
        if after.is_empty() {
            return Err("unexpected end of string".into());
        }
        used += 1;
        let (clause, length) = clause(after).map_err(|why| format!("could not parse formatting clause: {why}"))?;
        out.push(Part::Clause(clause));
        rest = &after[length..];
    }
    if !rest.is_empty() {
        out.push(Part::Text(rest));
    }
    Ok(out)
}

fn clause(text: &str) -> Result<(Clause, usize), String> {
    let in_precision = "error while parsing precision: ";
    let mut precision = PRECISION;
    let mut at = 0;
    if let Some(after) = text.strip_prefix('.') {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        at = 1 + digits;
        if at == text.len() {
            return Err(format!("{in_precision}could not find end of precision specifier"));
        }
        let number = &text[1..at];
        precision = number.parse::<usize>().ok().filter(|n| *n <= PRECISION_MAX).ok_or_else(|| {
            let why = if number.is_empty() { "invalid syntax" } else { "value out of range" };
            format!(
                "{in_precision}error while converting precision to integer: strconv.Atoi: parsing {number:?}: {why}"
            )
        })?;
    }
    let letter = text[at..].chars().next().unwrap_or_default();
    let clause = match letter {
        's' => Clause::Text,
        'd' => Clause::Decimal,
        'f' => Clause::Fixed(precision),
        'e' => Clause::Scientific(precision),
        'b' => Clause::Binary,
        'x' => Clause::Hex(false),
        'X' => Clause::Hex(true),
        'o' => Clause::Octal,
        other => return Err(format!("unrecognized formatting clause \"{other}\"")),
    };
    Ok((clause, at + letter.len_utf8()))
}

fn format<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let [Value::Str(text), list] = args else { return Err(EvalError::no_such_overload()) };
    let list = list.as_list().ok_or_else(EvalError::no_such_overload)?;
    let mut out = String::new();
    let mut next = 0;
    for part in parts(text, list.len()).map_err(EvalError::new)? {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Clause(clause) => {
                let shown = clause.show(&list.get(next)?);
                out.push_str(&shown.map_err(|why| EvalError::new(format!("error during formatting: {why}")))?);
                next += 1;
            }
        }
    }
    Ok(Value::str(out))
}

impl Clause {
    /// The message for a value or type that it cannot print.
    pub(crate) fn refusal(self, given: &str) -> String {
        let what = match self {
            Clause::Text => {
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
            }
            Clause::Decimal => "decimal clause can only be used on integers",
            Clause::Fixed(_) => "fixed-point clause can only be used on doubles",
            Clause::Scientific(_) => "scientific clause can only be used on doubles",
            Clause::Binary => "only integers and bools can be formatted as binary",
            Clause::Hex(_) => "only integers, byte buffers, and strings can be formatted as hex",
            Clause::Octal => "octal clause can only be used on integers",
        };
        format!("{what}, was given {given}")
    }

    fn show(self, value: &Value<'_>) -> Result<String, String> {
        let refuse = || Err(self.refusal(value.type_of().runtime_name()));
        let signed = |n: i64, digits: String| if n < 0 { format!("-{digits}") } else { digits };
        match (self, value) {
            (Clause::Text, value) => text(value).ok_or_else(|| self.refusal(value.type_of().runtime_name())),
            (Clause::Decimal, Value::Int(_) | Value::Uint(_)) => Ok(value.to_string()),
            (Clause::Fixed(_) | Clause::Scientific(_), value) => match number(value) {
                Some(n) => Ok(self.double(n)),
                None => refuse(),
            },
            (Clause::Binary, Value::Int(n)) => Ok(signed(*n, format!("{:b}", n.unsigned_abs()))),
            (Clause::Binary, Value::Uint(n)) => Ok(format!("{n:b}")),
            (Clause::Binary, Value::Bool(b)) => Ok(if *b { "1" } else { "0" }.into()),
            (Clause::Octal, Value::Int(n)) => Ok(signed(*n, format!("{:o}", n.unsigned_abs()))),
            (Clause::Octal, Value::Uint(n)) => Ok(format!("{n:o}")),
            (Clause::Hex(upper), value) => {
                let bytes = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
                let shown = match value {
                    Value::Int(n) => signed(*n, format!("{:x}", n.unsigned_abs())),
                    Value::Uint(n) => format!("{n:x}"),
                    Value::Str(text) => bytes(text.as_bytes()),
                    Value::Bytes(data) => bytes(data),
                    _ => return refuse(),
                };
                Ok(if upper { shown.to_uppercase() } else { shown })
            }
            _ => refuse(),
        }
    }

    fn double(self, n: f64) -> String {
        if !n.is_finite() {
            return special(n).replace("+Inf", "∞").replace("-Inf", "-∞");
        }
        match self {
            Clause::Scientific(precision) => {
                let shown = format!("{n:.precision$e}");
                let (mantissa, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
                let exponent: i32 = exponent.parse().unwrap_or_default();
                let digits = format!("{:02}", exponent.abs());
                let raised: String = digits.chars().map(superscript).collect();
                let sign = if exponent < 0 { "⁻" } else { "" };
                format!("{mantissa}×10{sign}{raised}")
            }
            Clause::Fixed(precision) => group(&format!("{n:.precision$}")),
            _ => n.to_string(),
        }
    }
}

fn superscript(digit: char) -> char {
    ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][digit.to_digit(10).unwrap_or_default() as usize]
}

/// Commas between thousands.
fn group(number: &str) -> String {
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, fraction)| (whole, Some(fraction)));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut out = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(n) => Some(*n),
        Value::Str(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// `%s`.
fn text(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Null => Some("null".into()),
        Value::Type(of) => Some(of.runtime_name().to_owned()),
        Value::Ip(_) | Value::Cidr(_) => None,
        other => match (other.as_list(), other.as_map()) {
            (Some(list), _) => {
                let items: Option<Vec<String>> = list.items().ok()?.iter().map(nested).collect();
                Some(format!("[{}]", items?.join(", ")))
            }
            (_, Some(map)) if !map.is_message() => {
                let mut pairs = Vec::new();
                for key in map.keys() {
                    pairs.push((nested(&key)?, nested(&map.find(&key).ok()??)?));
                }
                pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
                let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                Some(format!("{{{}}}", pairs.join(", ")))
            }
            _ => to_string(other).ok(),
        },
    }
}

/// A value within a list or map.
fn nested(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Str(text) => format!("{:?}", &**text),
        Value::Bytes(bytes) => format!("b{:?}", String::from_utf8_lossy(bytes)),
        Value::Timestamp(_) => format!("timestamp(\"{value}\")"),
        Value::Duration(_) => format!("duration(\"{value}\")"),
        Value::Double(n) if !n.is_finite() => format!("{:?}", special(*n)),
        Value::Double(n) => format!("{n:.PRECISION$}"),
        other => text(other)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(group("1234567.50"), "1,234,567.50");
        assert_eq!(group("-123.5"), "-123.5");
        assert_eq!(Clause::Scientific(6).double(1052.032911275), "1.052033×10⁰³");
    }

    #[test]
    fn formats_are_refused_in_upstreams_words() {
        let why = |format: &str, args: usize| parts(format, args).err().unwrap_or_default();
        assert_eq!(why("%s", 0), "index 0 out of range");
        assert_eq!(why("%", 1), "unexpected end of string");
        assert_eq!(why("%z", 1), "could not parse formatting clause: unrecognized formatting clause \"z\"");
    }
}
