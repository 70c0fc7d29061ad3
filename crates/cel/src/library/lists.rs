//! Lists (`k8s.io/apiserver/pkg/cel/library/lists.go`, cel-go's `ext/lists.go` version 3).

use std::cmp::Ordering;

use crate::compare::{equal, order};
use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

/// The longest list that `lists.range` makes. Upstream has no bound; its cost would end the evaluation only afterwards.
const RANGE_MAX: i64 = 1_000_000;
/// The deepest that `flatten` goes: no document and no expression nests deeper.
const FLATTEN_DEPTH_MAX: i64 = 1_000;

pub(crate) const KUBERNETES: Library = Library {
    since: Version(1, 0),
    rows: &[
        Row("isSorted", "list_int_is_sorted_bool", "list(int).() -> bool", is_sorted),
        Row("isSorted", "list_uint_is_sorted_bool", "list(uint).() -> bool", is_sorted),
        Row("isSorted", "list_double_is_sorted_bool", "list(double).() -> bool", is_sorted),
        Row("isSorted", "list_bool_is_sorted_bool", "list(bool).() -> bool", is_sorted),
        Row("isSorted", "list_duration_is_sorted_bool", "list(duration).() -> bool", is_sorted),
        Row("isSorted", "list_timestamp_is_sorted_bool", "list(timestamp).() -> bool", is_sorted),
        Row("isSorted", "list_string_is_sorted_bool", "list(string).() -> bool", is_sorted),
        Row("isSorted", "list_bytes_is_sorted_bool", "list(bytes).() -> bool", is_sorted),
        Row("sum", "list_int_sum_int", "list(int).() -> int", sum_int),
        Row("sum", "list_uint_sum_uint", "list(uint).() -> uint", sum_uint),
        Row("sum", "list_double_sum_double", "list(double).() -> double", sum_double),
        Row("sum", "list_duration_sum_duration", "list(duration).() -> duration", sum_duration),
        Row("max", "list_int_max_int", "list(int).() -> int", max),
        Row("max", "list_uint_max_uint", "list(uint).() -> uint", max),
        Row("max", "list_double_max_double", "list(double).() -> double", max),
        Row("max", "list_bool_max_bool", "list(bool).() -> bool", max),
        Row("max", "list_duration_max_duration", "list(duration).() -> duration", max),
        Row("max", "list_timestamp_max_timestamp", "list(timestamp).() -> timestamp", max),
        Row("max", "list_string_max_string", "list(string).() -> string", max),
        Row("max", "list_bytes_max_bytes", "list(bytes).() -> bytes", max),
        Row("min", "list_int_min_int", "list(int).() -> int", min),
        Row("min", "list_uint_min_uint", "list(uint).() -> uint", min),
        Row("min", "list_double_min_double", "list(double).() -> double", min),
        Row("min", "list_bool_min_bool", "list(bool).() -> bool", min),
        Row("min", "list_duration_min_duration", "list(duration).() -> duration", min),
        Row("min", "list_timestamp_min_timestamp", "list(timestamp).() -> timestamp", min),
        Row("min", "list_string_min_string", "list(string).() -> string", min),
        Row("min", "list_bytes_min_bytes", "list(bytes).() -> bytes", min),
        Row("indexOf", "list_a_index_of_int", "list(A).(A) -> int", index_of),
        Row("lastIndexOf", "list_a_last_index_of_int", "list(A).(A) -> int", last_index_of),
    ],
};

pub(crate) const INCLUDES: Library =
    Library { since: Version(1, 37), rows: &[Row("includes", "list_includes_dyn_dyn", "dyn.(dyn) -> bool", includes)] };

pub(crate) const EXTENSION: Library = Library {
    since: Version(1, 34),
    rows: &[
        Row("slice", "list_slice", "list(T).(int, int) -> list(T)", slice),
        Row("flatten", "list_flatten", "list(list(T)).() -> list(T)", flatten),
        Row("flatten", "list_flatten_int", "list(dyn).(int) -> list(dyn)", flatten),
        Row("sort", "list_int_sort", "list(int).() -> list(int)", sort),
        Row("sort", "list_uint_sort", "list(uint).() -> list(uint)", sort),
        Row("sort", "list_double_sort", "list(double).() -> list(double)", sort),
        Row("sort", "list_bool_sort", "list(bool).() -> list(bool)", sort),
        Row("sort", "list_google.protobuf.Duration_sort", "list(duration).() -> list(duration)", sort),
        Row("sort", "list_google.protobuf.Timestamp_sort", "list(timestamp).() -> list(timestamp)", sort),
        Row("sort", "list_string_sort", "list(string).() -> list(string)", sort),
        Row("sort", "list_bytes_sort", "list(bytes).() -> list(bytes)", sort),
        Row("@sortByAssociatedKeys", "list_int_sortByAssociatedKeys", "list(T).(list(int)) -> list(T)", sort),
        Row("@sortByAssociatedKeys", "list_uint_sortByAssociatedKeys", "list(T).(list(uint)) -> list(T)", sort),
        Row("@sortByAssociatedKeys", "list_double_sortByAssociatedKeys", "list(T).(list(double)) -> list(T)", sort),
        Row("@sortByAssociatedKeys", "list_bool_sortByAssociatedKeys", "list(T).(list(bool)) -> list(T)", sort),
        Row(
            "@sortByAssociatedKeys",
            "list_google.protobuf.Duration_sortByAssociatedKeys",
            "list(T).(list(duration)) -> list(T)",
            sort,
        ),
        Row(
            "@sortByAssociatedKeys",
            "list_google.protobuf.Timestamp_sortByAssociatedKeys",
            "list(T).(list(timestamp)) -> list(T)",
            sort,
        ),
        Row("@sortByAssociatedKeys", "list_string_sortByAssociatedKeys", "list(T).(list(string)) -> list(T)", sort),
        Row("@sortByAssociatedKeys", "list_bytes_sortByAssociatedKeys", "list(T).(list(bytes)) -> list(T)", sort),
        Row("lists.range", "lists_range", "(int) -> list(int)", range),
        Row("reverse", "list_reverse", "list(T).() -> list(T)", reverse),
        Row("distinct", "list_distinct", "list(T).() -> list(T)", distinct),
    ],
};

fn items<'a>(args: &[Value<'a>]) -> Result<Vec<Value<'a>>, EvalError> {
    args.first().and_then(Value::as_list).ok_or_else(EvalError::no_such_overload)?.items()
}

fn is_sorted<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let items = items(args)?;
    Ok(Value::Bool(items.windows(2).all(|pair| order(&pair[0], &pair[1]) != Ok(Ordering::Greater))))
}

fn sum<'a>(args: &[Value<'a>], mut sum: Value<'a>) -> Answer<'a> {
    let overflow = |kind: &str| EvalError::new(format!("{kind} overflow"));
    for item in items(args)? {
        sum = match (sum, item) {
            (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(b).ok_or_else(|| overflow("integer"))?),
            (Value::Uint(a), Value::Uint(b)) => {
                Value::Uint(a.checked_add(b).ok_or_else(|| overflow("unsigned integer"))?)
            }
            (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
            (Value::Duration(a), Value::Duration(b)) => {
                Value::Duration(a.checked_add(b).ok_or_else(|| overflow("duration"))?)
            }
            _ => return Err(EvalError::no_such_overload()),
        };
    }
    Ok(sum)
}

fn sum_int<'a>(args: &[Value<'a>]) -> Answer<'a> {
    sum(args, Value::Int(0))
}

fn sum_uint<'a>(args: &[Value<'a>]) -> Answer<'a> {
    sum(args, Value::Uint(0))
}

fn sum_double<'a>(args: &[Value<'a>]) -> Answer<'a> {
    sum(args, Value::Double(0.0))
}

fn sum_duration<'a>(args: &[Value<'a>]) -> Answer<'a> {
    sum(args, Value::Duration(0))
}

fn extreme<'a>(args: &[Value<'a>], name: &str, better: Ordering) -> Answer<'a> {
    let mut items = items(args)?.into_iter();
    let mut best = items.next().ok_or_else(|| EvalError::new(format!("{name} called on empty list")))?;
    for item in items {
        if order(&item, &best) == Ok(better) {
            best = item;
        }
    }
    Ok(best)
}

fn max<'a>(args: &[Value<'a>]) -> Answer<'a> {
    extreme(args, "max", Ordering::Greater)
}

fn min<'a>(args: &[Value<'a>]) -> Answer<'a> {
    extreme(args, "min", Ordering::Less)
}

fn index_of<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let found = items(args)?.iter().position(|item| equal(item, &args[1]) == Ok(true));
    Ok(Value::Int(found.map_or(-1, |at| at as i64)))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let found = items(args)?.iter().rposition(|item| equal(item, &args[1]) == Ok(true));
    Ok(Value::Int(found.map_or(-1, |at| at as i64)))
}

fn includes<'a>(args: &[Value<'a>]) -> Answer<'a> {
    match args[0].as_list() {
        Some(list) => Ok(Value::Bool(list.items()?.iter().any(|item| equal(item, &args[1]) == Ok(true)))),
        None => Ok(Value::Bool(equal(&args[0], &args[1]) == Ok(true))),
    }
}

fn slice<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let [list, Value::Int(start), Value::Int(end)] = args else { return Err(EvalError::no_such_overload()) };
    let list = list.as_list().ok_or_else(EvalError::no_such_overload)?;
    let refuse = |why: String| Err(EvalError::new(format!("cannot slice({start}, {end}), {why}")));
    if *start < 0 || *end < 0 {
        return refuse("negative indexes not supported".into());
    }
    if start > end {
        return refuse("start index must be less than or equal to end index".into());
    }
    if *end > list.len() as i64 {
        return refuse(format!("list is length {}", list.len()));
    }
    let items: Result<Vec<Value<'a>>, EvalError> = (*start..*end).map(|at| list.get(at as usize)).collect();
    Ok(Value::list(items?))
}

fn flatten<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let depth = match args.get(1) {
        Some(Value::Int(depth)) if *depth < 0 => return Err(EvalError::new("level must be non-negative")),
        Some(Value::Int(depth)) => (*depth).min(FLATTEN_DEPTH_MAX),
        _ => 1,
    };
    let mut out = Vec::new();
    flatten_into(&args[0], depth, &mut out)?;
    Ok(Value::list(out))
}

fn flatten_into<'a>(list: &Value<'a>, depth: i64, out: &mut Vec<Value<'a>>) -> Result<(), EvalError> {
    for item in list.as_list().ok_or_else(EvalError::no_such_overload)?.items()? {
        if depth > 0 && item.as_list().is_some() {
            flatten_into(&item, depth - 1, out)?;
        } else {
            out.push(item);
        }
    }
    Ok(())
}

/// Sorts by the values themselves, or by the keys in a second list.
fn sort<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let list = items(args)?;
    let keys = match args.get(1) {
        Some(keys) => keys.as_list().ok_or_else(EvalError::no_such_overload)?.items()?,
        None => list.clone(),
    };
    if list.len() != keys.len() {
        let (n, k) = (list.len(), keys.len());
        let why = "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got";
        return Err(EvalError::new(format!("{why} {n} and {k} elements respectively")));
    }
    if let Some(first) = keys.first() {
        let ty = first.type_of();
        if order(first, first).is_err() && !matches!(first, Value::Double(_)) {
            return Err(EvalError::new("list elements must be comparable"));
        }
        if keys.iter().any(|key| key.type_of() != ty) {
            return Err(EvalError::new("list elements must have the same type"));
        }
    }
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = keys.into_iter().zip(list).collect();
    // NaN has no order: it stays where it is among its neighbours, whatever a sort makes of that.
    pairs.sort_by(|(a, _), (b, _)| match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.total_cmp(b),
        _ => order(a, b).unwrap_or(Ordering::Equal),
    });
    Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect()))
}

fn range<'a>(args: &[Value<'a>]) -> Answer<'a> {
    match args {
        [Value::Int(n)] if *n < 0 => Err(EvalError::new(format!("lists.range: size must be non-negative, got {n}"))),
        [Value::Int(n)] if *n > RANGE_MAX => {
            Err(EvalError::new(format!("lists.range: size {n} exceeds maximum allowed ({RANGE_MAX})")))
        }
        [Value::Int(n)] => Ok(Value::list((0..*n).map(Value::Int).collect())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn reverse<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let mut items = items(args)?;
    items.reverse();
    Ok(Value::list(items))
}

fn distinct<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let mut out: Vec<Value<'a>> = Vec::new();
    for item in items(args)? {
        if !out.iter().any(|have| equal(&item, have) == Ok(true)) {
            out.push(item);
        }
    }
    Ok(Value::list(out))
}
