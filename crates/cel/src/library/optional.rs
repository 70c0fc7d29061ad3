//! Optional values (cel-go's `cel/library.go`, OptionalTypes).

use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 28),
    rows: &[
        Row("optional.of", "optional_of", "(V) -> optional(V)", of),
        Row("optional.ofNonZeroValue", "optional_ofNonZeroValue", "(V) -> optional(V)", of_non_zero),
        Row("optional.none", "optional_none", "() -> optional(V)", none),
        Row("value", "optional_value", "optional(V).() -> V", value),
        Row("hasValue", "optional_hasValue", "optional(V).() -> bool", has_value),
        Row("or", "optional_or_optional", "optional(V).(optional(V)) -> optional(V)", or),
        Row("orValue", "optional_orValue_value", "optional(V).(V) -> V", or_value),
        Row("_?._", "select_optional_field", "(dyn, string) -> optional(V)", unplanned),
        Row("_[?_]", "list_optindex_optional_int", "(list(V), int) -> optional(V)", unplanned),
        Row("_[?_]", "optional_list_optindex_optional_int", "(optional(list(V)), int) -> optional(V)", unplanned),
        Row("_[?_]", "map_optindex_optional_value", "(map(K, V), K) -> optional(V)", unplanned),
        Row("_[?_]", "optional_map_optindex_optional_value", "(optional(map(K, V)), K) -> optional(V)", unplanned),
        Row("_[_]", "optional_list_index_int", "(optional(list(V)), int) -> optional(V)", unplanned),
        Row("_[_]", "optional_map_index_value", "(optional(map(K, V)), K) -> optional(V)", unplanned),
        Row("last", "list_last", "list(V).() -> optional(V)", last),
        Row("first", "list_first", "list(V).() -> optional(V)", first),
        Row("optional.unwrap", "optional_unwrap", "(list(optional(V))) -> list(V)", unwrap),
        Row("unwrapOpt", "optional_unwrapOpt", "list(optional(V)).() -> list(V)", unwrap),
    ],
};

/// The planner makes steps of their own for these.
fn unplanned<'a>(_: &[Value<'a>]) -> Answer<'a> {
    Err(EvalError::no_such_overload())
}

fn of<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::some(args[0].clone()))
}

fn of_non_zero<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(if args[0].is_zero() { Value::Optional(None) } else { Value::some(args[0].clone()) })
}

fn none<'a>(_: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Optional(None))
}

fn value<'a>(args: &[Value<'a>]) -> Answer<'a> {
    match &args[0] {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        _ => Err(EvalError::new("optional.none() dereference")),
    }
}

fn has_value<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Bool(matches!(args[0], Value::Optional(Some(_)))))
}

fn or<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(if matches!(args[0], Value::Optional(Some(_))) { args[0].clone() } else { args[1].clone() })
}

fn or_value<'a>(args: &[Value<'a>]) -> Answer<'a> {
    match &args[0] {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        _ => Ok(args[1].clone()),
    }
}

fn at_end<'a>(args: &[Value<'a>], last: bool) -> Answer<'a> {
    let list = args[0].as_list().ok_or_else(EvalError::no_such_overload)?;
    match list.len() {
        0 => Ok(Value::Optional(None)),
        count => list.get(if last { count - 1 } else { 0 }).map(Value::some),
    }
}

fn last<'a>(args: &[Value<'a>]) -> Answer<'a> {
    at_end(args, true)
}

fn first<'a>(args: &[Value<'a>]) -> Answer<'a> {
    at_end(args, false)
}

fn unwrap<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let mut out = Vec::new();
    for item in args[0].as_list().ok_or_else(EvalError::no_such_overload)?.items()? {
        match item {
            Value::Optional(Some(value)) => out.push((*value).clone()),
            Value::Optional(None) => {}
            other => return Err(EvalError::new(format!("value {other} is not optional"))),
        }
    }
    Ok(Value::list(out))
}
