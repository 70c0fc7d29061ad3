//! `<`, `<=`, `>` and `>=`.

use std::cmp::Ordering;

use crate::compare::order;
use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::value::Value;

pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 0),
    rows: &[
        Row("_<_", "less_bool", "(bool, bool) -> bool", less),
        Row("_<_", "less_int64", "(int, int) -> bool", less),
        Row("_<_", "less_int64_double", "(int, double) -> bool", less),
        Row("_<_", "less_int64_uint64", "(int, uint) -> bool", less),
        Row("_<_", "less_uint64", "(uint, uint) -> bool", less),
        Row("_<_", "less_uint64_double", "(uint, double) -> bool", less),
        Row("_<_", "less_uint64_int64", "(uint, int) -> bool", less),
        Row("_<_", "less_double", "(double, double) -> bool", less),
        Row("_<_", "less_double_int64", "(double, int) -> bool", less),
        Row("_<_", "less_double_uint64", "(double, uint) -> bool", less),
        Row("_<_", "less_string", "(string, string) -> bool", less),
        Row("_<_", "less_bytes", "(bytes, bytes) -> bool", less),
        Row("_<_", "less_timestamp", "(timestamp, timestamp) -> bool", less),
        Row("_<_", "less_duration", "(duration, duration) -> bool", less),
        Row("_<=_", "less_equals_bool", "(bool, bool) -> bool", less_equals),
        Row("_<=_", "less_equals_int64", "(int, int) -> bool", less_equals),
        Row("_<=_", "less_equals_int64_double", "(int, double) -> bool", less_equals),
        Row("_<=_", "less_equals_int64_uint64", "(int, uint) -> bool", less_equals),
        Row("_<=_", "less_equals_uint64", "(uint, uint) -> bool", less_equals),
        Row("_<=_", "less_equals_uint64_double", "(uint, double) -> bool", less_equals),
        Row("_<=_", "less_equals_uint64_int64", "(uint, int) -> bool", less_equals),
        Row("_<=_", "less_equals_double", "(double, double) -> bool", less_equals),
        Row("_<=_", "less_equals_double_int64", "(double, int) -> bool", less_equals),
        Row("_<=_", "less_equals_double_uint64", "(double, uint) -> bool", less_equals),
        Row("_<=_", "less_equals_string", "(string, string) -> bool", less_equals),
        Row("_<=_", "less_equals_bytes", "(bytes, bytes) -> bool", less_equals),
        Row("_<=_", "less_equals_timestamp", "(timestamp, timestamp) -> bool", less_equals),
        Row("_<=_", "less_equals_duration", "(duration, duration) -> bool", less_equals),
        Row("_>_", "greater_bool", "(bool, bool) -> bool", greater),
        Row("_>_", "greater_int64", "(int, int) -> bool", greater),
        Row("_>_", "greater_int64_double", "(int, double) -> bool", greater),
        Row("_>_", "greater_int64_uint64", "(int, uint) -> bool", greater),
        Row("_>_", "greater_uint64", "(uint, uint) -> bool", greater),
        Row("_>_", "greater_uint64_double", "(uint, double) -> bool", greater),
        Row("_>_", "greater_uint64_int64", "(uint, int) -> bool", greater),
        Row("_>_", "greater_double", "(double, double) -> bool", greater),
        Row("_>_", "greater_double_int64", "(double, int) -> bool", greater),
        Row("_>_", "greater_double_uint64", "(double, uint) -> bool", greater),
        Row("_>_", "greater_string", "(string, string) -> bool", greater),
        Row("_>_", "greater_bytes", "(bytes, bytes) -> bool", greater),
        Row("_>_", "greater_timestamp", "(timestamp, timestamp) -> bool", greater),
        Row("_>_", "greater_duration", "(duration, duration) -> bool", greater),
        Row("_>=_", "greater_equals_bool", "(bool, bool) -> bool", greater_equals),
        Row("_>=_", "greater_equals_int64", "(int, int) -> bool", greater_equals),
        Row("_>=_", "greater_equals_int64_double", "(int, double) -> bool", greater_equals),
        Row("_>=_", "greater_equals_int64_uint64", "(int, uint) -> bool", greater_equals),
        Row("_>=_", "greater_equals_uint64", "(uint, uint) -> bool", greater_equals),
        Row("_>=_", "greater_equals_uint64_double", "(uint, double) -> bool", greater_equals),
        Row("_>=_", "greater_equals_uint64_int64", "(uint, int) -> bool", greater_equals),
        Row("_>=_", "greater_equals_double", "(double, double) -> bool", greater_equals),
        Row("_>=_", "greater_equals_double_int64", "(double, int) -> bool", greater_equals),
        Row("_>=_", "greater_equals_double_uint64", "(double, uint) -> bool", greater_equals),
        Row("_>=_", "greater_equals_string", "(string, string) -> bool", greater_equals),
        Row("_>=_", "greater_equals_bytes", "(bytes, bytes) -> bool", greater_equals),
        Row("_>=_", "greater_equals_timestamp", "(timestamp, timestamp) -> bool", greater_equals),
        Row("_>=_", "greater_equals_duration", "(duration, duration) -> bool", greater_equals),
    ],
};

fn compare<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Result<Value<'a>, EvalError> {
    let [a, b] = args else { return Err(EvalError::no_such_overload()) };
    Ok(Value::Bool(holds(order(a, b)?)))
}

fn less<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    compare(args, Ordering::is_lt)
}

fn less_equals<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    compare(args, Ordering::is_le)
}

fn greater<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    compare(args, Ordering::is_gt)
}

fn greater_equals<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    compare(args, Ordering::is_ge)
}
