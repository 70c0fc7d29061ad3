//! The language's own functions: arithmetic, logic, membership, sizes (cel-go's `common/stdlib/standard.go`).

use std::sync::Arc;

use corten_tree::Tree;

use crate::collection::MapValue;
use crate::compare::{equal, same_key};
use crate::decl::ListKind;
use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::library::take;
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 0),
    rows: &[
        Row("_?_:_", "conditional", "(bool, A, A) -> A", unplanned),
        Row("_&&_", "logical_and", "(bool, bool) -> bool", unplanned),
        Row("_||_", "logical_or", "(bool, bool) -> bool", unplanned),
        Row("!_", "logical_not", "(bool) -> bool", not),
        Row("@not_strictly_false", "not_strictly_false", "(bool) -> bool", same),
        Row("_==_", "equals", "(A, A) -> bool", unplanned),
        Row("_!=_", "not_equals", "(A, A) -> bool", unplanned),
        Row("_+_", "add_bytes", "(bytes, bytes) -> bytes", add),
        Row("_+_", "add_double", "(double, double) -> double", add),
        Row("_+_", "add_duration_duration", "(duration, duration) -> duration", add),
        Row("_+_", "add_duration_timestamp", "(duration, timestamp) -> timestamp", add),
        Row("_+_", "add_timestamp_duration", "(timestamp, duration) -> timestamp", add),
        Row("_+_", "add_int64", "(int, int) -> int", add),
        Row("_+_", "add_list", "(list(A), list(A)) -> list(A)", add),
        Row("_+_", "add_string", "(string, string) -> string", add),
        Row("_+_", "add_uint64", "(uint, uint) -> uint", add),
        Row("_/_", "divide_double", "(double, double) -> double", divide),
        Row("_/_", "divide_int64", "(int, int) -> int", divide),
        Row("_/_", "divide_uint64", "(uint, uint) -> uint", divide),
        Row("_%_", "modulo_int64", "(int, int) -> int", modulo),
        Row("_%_", "modulo_uint64", "(uint, uint) -> uint", modulo),
        Row("_*_", "multiply_double", "(double, double) -> double", multiply),
        Row("_*_", "multiply_int64", "(int, int) -> int", multiply),
        Row("_*_", "multiply_uint64", "(uint, uint) -> uint", multiply),
        Row("-_", "negate_double", "(double) -> double", negate),
        Row("-_", "negate_int64", "(int) -> int", negate),
        Row("_-_", "subtract_double", "(double, double) -> double", subtract),
        Row("_-_", "subtract_duration_duration", "(duration, duration) -> duration", subtract),
        Row("_-_", "subtract_int64", "(int, int) -> int", subtract),
        Row("_-_", "subtract_timestamp_duration", "(timestamp, duration) -> timestamp", subtract),
        Row("_-_", "subtract_timestamp_timestamp", "(timestamp, timestamp) -> duration", subtract),
        Row("_-_", "subtract_uint64", "(uint, uint) -> uint", subtract),
        Row("_[_]", "index_list", "(list(A), int) -> A", unplanned),
        Row("_[_]", "index_map", "(map(A, B), A) -> B", unplanned),
        Row("@in", "in_list", "(A, list(A)) -> bool", within),
        Row("@in", "in_map", "(A, map(A, B)) -> bool", within),
        Row("size", "size_bytes", "(bytes) -> int", size),
        Row("size", "bytes_size", "bytes.() -> int", size),
        Row("size", "size_list", "(list(A)) -> int", size),
        Row("size", "list_size", "list(A).() -> int", size),
        Row("size", "size_map", "(map(A, B)) -> int", size),
        Row("size", "map_size", "map(A, B).() -> int", size),
        Row("size", "size_string", "(string) -> int", size),
        Row("size", "string_size", "string.() -> int", size),
        Row("contains", "contains_string", "string.(string) -> bool", contains),
        Row("endsWith", "ends_with_string", "string.(string) -> bool", ends_with),
        Row("startsWith", "starts_with_string", "string.(string) -> bool", starts_with),
    ],
};

pub(crate) const TWO_VARIABLES: Library = Library {
    since: Version(1, 32),
    rows: &[
        Row("cel.@mapInsert", "@mapInsert_map_key_value", "(map(K, V), K, V) -> map(K, V)", insert),
        Row("cel.@mapInsert", "@mapInsert_map_map", "(map(K, V), map(K, V)) -> map(K, V)", insert),
    ],
};

/// The planner makes steps of their own for these.
fn unplanned<'a>(_: &[Value<'a>]) -> Answer<'a> {
    Err(EvalError::no_such_overload())
}

fn same<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(args[0].clone())
}

fn not<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Bool(b));
    Ok(Value::Bool(!b))
}

fn overflow(kind: &str) -> EvalError {
    EvalError::new(format!("{kind} overflow"))
}

fn int<'a>(n: Option<i64>) -> Answer<'a> {
    n.map(Value::Int).ok_or_else(|| overflow("integer"))
}

fn uint<'a>(n: Option<u64>) -> Answer<'a> {
    n.map(Value::Uint).ok_or_else(|| overflow("unsigned integer"))
}

fn duration<'a>(n: Option<i64>) -> Answer<'a> {
    n.map(Value::Duration).ok_or_else(|| overflow("duration"))
}

fn add<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let [a, b] = args else { return Err(EvalError::no_such_overload()) };
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_add(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_add(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::Str(a), Value::Str(b)) => Ok(Value::str([&**a, &**b].concat())),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&**a, &**b].concat().into())),
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_add(*b)),
        (Value::Timestamp(t), Value::Duration(d)) | (Value::Duration(d), Value::Timestamp(t)) => {
            t.plus(*d).map(Value::Timestamp).ok_or_else(|| overflow("timestamp"))
        }
        _ => add_lists(a, b),
    }
}

/// Lists one after the other; declared sets and list maps merge (`addToSetList`, `addToMapList`).
fn add_lists<'a>(a: &Value<'a>, b: &Value<'a>) -> Answer<'a> {
    let (Some(x), Some(y)) = (a.as_list(), b.as_list()) else { return Err(EvalError::no_such_overload()) };
    let kind = match a {
        Value::Tree(Tree::List(_), Some(decl)) => &decl.list,
        _ => &ListKind::Atomic,
    };
    let mut items = x.items()?;
    let more = y.items()?;
    match kind {
        ListKind::Atomic => items.extend(more),
        ListKind::Set => {
            for item in more {
                if !among(&item, &items)? {
                    items.push(item);
                }
            }
        }
        ListKind::Map(keys) => {
            for item in more {
                let at = match same_key(&item, &items, keys)? {
                    Some(found) => items.iter().position(|have| std::ptr::eq(have, found)),
                    None => None,
                };
                match at {
                    Some(at) => items[at] = item,
                    None => items.push(item),
                }
            }
        }
    }
    Ok(Value::list(items))
}

fn among<'a>(item: &Value<'a>, list: &[Value<'a>]) -> Result<bool, EvalError> {
    for have in list {
        if equal(have, item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn subtract<'a>(args: &[Value<'a>]) -> Answer<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => duration(a.checked_sub(*b)),
        [Value::Timestamp(t), Value::Duration(d)] => {
            let earlier = d.checked_neg().and_then(|d| t.plus(d));
            earlier.map(Value::Timestamp).ok_or_else(|| overflow("timestamp"))
        }
        [Value::Timestamp(a), Value::Timestamp(b)] => duration(a.since(*b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn multiply<'a>(args: &[Value<'a>]) -> Answer<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn divide<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let by_zero = || Err(EvalError::new("division by zero"));
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => by_zero(),
        [Value::Int(a), Value::Int(b)] => int(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_div(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn modulo<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let by_zero = || Err(EvalError::new("modulus by zero"));
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => by_zero(),
        [Value::Int(a), Value::Int(b)] => int(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_rem(*b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn negate<'a>(args: &[Value<'a>]) -> Answer<'a> {
    match args {
        [Value::Int(n)] => int(n.checked_neg()),
        [Value::Double(n)] => Ok(Value::Double(-n)),
        [Value::Duration(n)] => duration(n.checked_neg()),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn within<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let [item, container] = args else { return Err(EvalError::no_such_overload()) };
    if container.as_list().is_some() {
        return in_list(item, container).map(Value::Bool);
    }
    let map = container.as_map().ok_or_else(EvalError::no_such_overload)?;
    Ok(Value::Bool(map.find(item)?.is_some()))
}

/// Whether a list has an item equal to this one. An error of a comparison counts only if no item is.
pub(crate) fn in_list<'a>(item: &Value<'a>, list: &Value<'a>) -> Result<bool, EvalError> {
    let list = list.as_list().ok_or_else(EvalError::no_such_overload)?;
    let mut failed = None;
    for at in 0..list.len() {
        match list.get(at).and_then(|have| equal(&have, item)) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(false), Err)
}

fn size<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let count = args[0].size().ok_or_else(EvalError::no_such_overload)?;
    Ok(Value::Int(count as i64))
}

fn contains<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text), Str(part));
    Ok(Value::Bool(text.contains(&**part)))
}

fn ends_with<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text), Str(part));
    Ok(Value::Bool(text.ends_with(&**part)))
}

fn starts_with<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text), Str(part));
    Ok(Value::Bool(text.starts_with(&**part)))
}

fn insert<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let Some(Value::Map(map)) = args.first() else { return Err(EvalError::no_such_overload()) };
    let mut map = (**map).clone();
    match &args[1..] {
        [key, value] => map_insert(&mut map, key.clone(), value.clone())?,
        [more] => map_insert_all(&mut map, more)?,
        _ => return Err(EvalError::no_such_overload()),
    }
    Ok(Value::Map(Arc::new(map)))
}

/// Adds an entry; an error if its key is there.
pub(crate) fn map_insert<'a>(map: &mut MapValue<'a>, key: Value<'a>, value: Value<'a>) -> Result<(), EvalError> {
    if map.get(&key).is_some() {
        return Err(EvalError::new(format!("insert failed: key {key} already exists")));
    }
    map.insert(key, value);
    Ok(())
}

/// Adds all entries of another map; an error if a key is there.
pub(crate) fn map_insert_all<'a>(map: &mut MapValue<'a>, more: &Value<'a>) -> Result<(), EvalError> {
    let more = more.as_map().ok_or_else(EvalError::no_such_overload)?;
    for key in more.keys() {
        if let Some(value) = more.find(&key)? {
            map_insert(map, key, value)?;
        }
    }
    Ok(())
}
