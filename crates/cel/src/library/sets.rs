//! Lists as sets (cel-go's `ext/sets.go`).

use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::library::standard::in_list;
use crate::value::Value;

pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 29),
    rows: &[
        Row("sets.contains", "list_sets_contains_list", "(list(T), list(T)) -> bool", contains),
        Row("sets.equivalent", "list_sets_equivalent_list", "(list(T), list(T)) -> bool", equivalent),
        Row("sets.intersects", "list_sets_intersects_list", "(list(T), list(T)) -> bool", intersects),
    ],
};

fn has_all<'a>(list: &Value<'a>, part: &Value<'a>) -> Result<bool, EvalError> {
    for item in part.as_list().ok_or_else(EvalError::no_such_overload)?.items()? {
        if !in_list(&item, list)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn contains<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    has_all(&args[0], &args[1]).map(Value::Bool)
}

fn equivalent<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(has_all(&args[0], &args[1])? && has_all(&args[1], &args[0])?))
}

fn intersects<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    for item in args[0].as_list().ok_or_else(EvalError::no_such_overload)?.items()? {
        if in_list(&item, &args[1]) == Ok(true) {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}
