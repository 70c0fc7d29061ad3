//! Values to texts, numbers and documents.

use corten_tree::{Key, Map, Tree};

use crate::error::EvalError;
use crate::time::{Timestamp, duration_text, parse_duration};
use crate::value::Value;

/// A number as Go's `%g` prints it.
pub(crate) fn go_g(n: f64) -> String {
    if !n.is_finite() {
        return special(n).to_owned();
    }
    let text = format!("{n:e}");
    let (mantissa, exponent) = text.split_once('e').expect("this format has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    if (-4..6).contains(&exponent) || n == 0.0 {
        return format!("{n}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// NaN and the infinities in Go's words.
pub(crate) fn special(n: f64) -> &'static str {
    match n {
        n if n.is_nan() => "NaN",
        n if n > 0.0 => "+Inf",
        _ => "-Inf",
    }
}

/// `string(x)`.
pub(crate) fn to_string(value: &Value<'_>) -> Result<String, EvalError> {
    Ok(match value {
        Value::Str(text) => text.to_string(),
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) => value.to_string(),
        Value::Duration(_) | Value::Timestamp(_) | Value::Ip(_) | Value::Cidr(_) => value.to_string(),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return Err(EvalError::new("invalid UTF-8 in bytes, cannot convert to string")),
        },
        other => return Err(failed(other, "string")),
    })
}

fn failed(value: &Value<'_>, to: &str) -> EvalError {
    EvalError::conversion(value.type_of().runtime_name(), to)
}

/// `int(x)`.
pub(crate) fn to_int(value: &Value<'_>) -> Result<i64, EvalError> {
    let overflow = || EvalError::new("integer overflow");
    match value {
        Value::Int(n) => Ok(*n),
        Value::Uint(n) => i64::try_from(*n).map_err(|_| overflow()),
        Value::Double(n) => match n.is_finite() && *n > -(2f64.powi(63)) && *n < 2f64.powi(63) {
            true => Ok(*n as i64),
            false => Err(overflow()),
        },
        Value::Str(text) => parse_int(text).ok_or_else(|| failed(value, "int")),
        Value::Timestamp(t) => Ok(t.seconds()),
        Value::Duration(n) => Ok(*n),
        other => Err(failed(other, "int")),
    }
}

/// As Go's `strconv.ParseInt(text, 10, 64)`.
fn parse_int(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// `uint(x)`.
pub(crate) fn to_uint(value: &Value<'_>) -> Result<u64, EvalError> {
    let overflow = || EvalError::new("unsigned integer overflow");
    match value {
        Value::Uint(n) => Ok(*n),
        Value::Int(n) => u64::try_from(*n).map_err(|_| overflow()),
        Value::Double(n) => match n.is_finite() && *n >= 0.0 && *n < 2f64.powi(64) {
            true => Ok(*n as u64),
            false => Err(overflow()),
        },
        Value::Str(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().map_err(|_| failed(value, "uint"))
        }
        other => Err(failed(other, "uint")),
    }
}

/// `double(x)`.
pub(crate) fn to_double(value: &Value<'_>) -> Result<f64, EvalError> {
    match value {
        Value::Double(n) => Ok(*n),
        Value::Int(n) => Ok(*n as f64),
        Value::Uint(n) => Ok(*n as f64),
        Value::Str(text) => {
            let ok = !text.is_empty() && !text.starts_with(char::is_whitespace) && !text.ends_with(char::is_whitespace);
            let parsed = if ok { text.parse::<f64>().ok() } else { None };
            // Go calls a number out of range an error.
            let spelled = text.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_alphabetic());
            parsed.filter(|n| n.is_finite() || spelled).ok_or_else(|| failed(value, "double"))
        }
        other => Err(failed(other, "double")),
    }
}

/// `bool(x)`.
pub(crate) fn to_bool(value: &Value<'_>) -> Result<bool, EvalError> {
    match value {
        Value::Bool(b) => Ok(*b),
        Value::Str(text) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(failed(value, "bool")),
        },
        other => Err(failed(other, "bool")),
    }
}

/// `duration(x)`.
pub(crate) fn to_duration(value: &Value<'_>) -> Result<i64, EvalError> {
    match value {
        Value::Duration(n) => Ok(*n),
        Value::Str(text) => parse_duration(text).ok_or_else(|| failed(value, "google.protobuf.Duration")),
        other => Err(failed(other, "google.protobuf.Duration")),
    }
}

/// `timestamp(x)`.
pub(crate) fn to_timestamp(value: &Value<'_>) -> Result<Timestamp, EvalError> {
    match value {
        Value::Timestamp(t) => Ok(*t),
        Value::Int(n) => Timestamp::new(*n, 0).ok_or_else(|| EvalError::new("timestamp overflow")),
        Value::Str(text) => Timestamp::parse(text).ok_or_else(|| failed(value, "google.protobuf.Timestamp")),
        other => Err(failed(other, "google.protobuf.Timestamp")),
    }
}

/// The value as a document: bytes as base64, times as texts, sets of optional fields that are there.
pub(crate) fn to_tree(value: &Value<'_>) -> Result<Tree, EvalError> {
    Ok(match value {
        Value::Null => Tree::Null,
        Value::Bool(b) => Tree::Bool(*b),
        Value::Int(n) => Tree::Int(*n),
        Value::Uint(n) => i64::try_from(*n).map_or(Tree::Float(*n as f64), Tree::Int),
        Value::Double(n) if n.is_finite() => Tree::Float(*n),
        Value::Str(text) => Tree::Str(text.to_string()),
        Value::Bytes(bytes) => Tree::Str(corten_schema::scalars::base64::encode(bytes)),
        Value::Duration(n) => Tree::Str(duration_text(*n)),
        Value::Timestamp(t) => Tree::Str(t.to_string()),
        Value::Tree(tree, _) => (*tree).clone(),
        Value::Optional(Some(inner)) => to_tree(inner)?,
        Value::Optional(None) => Tree::Null,
        Value::Quantity(_) | Value::Ip(_) | Value::Cidr(_) | Value::Semver(_) | Value::Url(_) => {
            Tree::Str(value.to_string())
        }
        other => {
            if let Some(list) = other.as_list() {
                let items: Result<Vec<Tree>, EvalError> = list.items()?.iter().map(to_tree).collect();
                return Ok(Tree::List(items?));
            }
            let Some(map) = other.as_map() else {
                let name = other.type_of();
                return Err(EvalError::new(format!("a value of type {} has no JSON", name.runtime_name())));
            };
            let mut out = Map::new();
            for key in map.keys() {
                let Some(name) = key.as_str() else {
                    return Err(EvalError::new(format!(
                        "map key {key} is of type {}, not string",
                        key.type_of().runtime_name()
                    )));
                };
                if let Some(value) = map.find(&key)? {
                    out.push_unchecked(Key::from(name.to_owned()), to_tree(&value)?);
                }
            }
            Tree::Map(out)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_go_prints_them() {
        for (n, shown) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (123456.0, "123456"),
            (1234567.0, "1.234567e+06"),
            (1e21, "1e+21"),
            (0.00001, "1e-05"),
            (0.0001, "0.0001"),
            (-2.5, "-2.5"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(go_g(n), shown);
        }
    }
}
