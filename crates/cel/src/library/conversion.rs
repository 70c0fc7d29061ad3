//! Conversions between types (cel-go's `common/stdlib/standard.go`).

use crate::convert;
use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 0),
    rows: &[
        Row("type", "type", "(A) -> type(A)", type_of),
        Row("bool", "bool_to_bool", "(bool) -> bool", to_bool),
        Row("bool", "string_to_bool", "(string) -> bool", to_bool),
        Row("bytes", "bytes_to_bytes", "(bytes) -> bytes", to_bytes),
        Row("bytes", "string_to_bytes", "(string) -> bytes", to_bytes),
        Row("double", "double_to_double", "(double) -> double", to_double),
        Row("double", "int64_to_double", "(int) -> double", to_double),
        Row("double", "string_to_double", "(string) -> double", to_double),
        Row("double", "uint64_to_double", "(uint) -> double", to_double),
        Row("duration", "duration_to_duration", "(duration) -> duration", to_duration),
        Row("duration", "string_to_duration", "(string) -> duration", to_duration),
        Row("dyn", "to_dyn", "(A) -> dyn", to_dyn),
        Row("int", "int64_to_int64", "(int) -> int", to_int),
        Row("int", "double_to_int64", "(double) -> int", to_int),
        Row("int", "duration_to_int64", "(duration) -> int", to_int),
        Row("int", "string_to_int64", "(string) -> int", to_int),
        Row("int", "timestamp_to_int64", "(timestamp) -> int", to_int),
        Row("int", "uint64_to_int64", "(uint) -> int", to_int),
        Row("string", "string_to_string", "(string) -> string", to_string),
        Row("string", "bool_to_string", "(bool) -> string", to_string),
        Row("string", "bytes_to_string", "(bytes) -> string", to_string),
        Row("string", "double_to_string", "(double) -> string", to_string),
        Row("string", "duration_to_string", "(duration) -> string", to_string),
        Row("string", "int64_to_string", "(int) -> string", to_string),
        Row("string", "timestamp_to_string", "(timestamp) -> string", to_string),
        Row("string", "uint64_to_string", "(uint) -> string", to_string),
        Row("timestamp", "timestamp_to_timestamp", "(timestamp) -> timestamp", to_timestamp),
        Row("timestamp", "int64_to_timestamp", "(int) -> timestamp", to_timestamp),
        Row("timestamp", "string_to_timestamp", "(string) -> timestamp", to_timestamp),
        Row("uint", "uint64_to_uint64", "(uint) -> uint", to_uint),
        Row("uint", "double_to_uint64", "(double) -> uint", to_uint),
        Row("uint", "int64_to_uint64", "(int) -> uint", to_uint),
        Row("uint", "string_to_uint64", "(string) -> uint", to_uint),
    ],
};

fn type_of<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Type(args[0].type_of()))
}

fn to_bool<'a>(args: &[Value<'a>]) -> Answer<'a> {
    convert::to_bool(&args[0]).map(Value::Bool)
}

fn to_bytes<'a>(args: &[Value<'a>]) -> Answer<'a> {
    match &args[0] {
        Value::Str(text) => Ok(Value::Bytes(text.as_bytes().into())),
        Value::Bytes(bytes) => Ok(Value::Bytes(bytes.clone())),
        other => Err(EvalError::conversion(other.type_of().runtime_name(), "bytes")),
    }
}

fn to_double<'a>(args: &[Value<'a>]) -> Answer<'a> {
    convert::to_double(&args[0]).map(Value::Double)
}

fn to_duration<'a>(args: &[Value<'a>]) -> Answer<'a> {
    convert::to_duration(&args[0]).map(Value::Duration)
}

fn to_dyn<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(args[0].clone())
}

fn to_int<'a>(args: &[Value<'a>]) -> Answer<'a> {
    convert::to_int(&args[0]).map(Value::Int)
}

/// `string(x)`, of libraries' types, too.
pub(crate) fn to_string<'a>(args: &[Value<'a>]) -> Answer<'a> {
    match &args[0] {
        Value::Str(text) => Ok(Value::Str(text.clone())),
        other => convert::to_string(other).map(Value::str),
    }
}

fn to_timestamp<'a>(args: &[Value<'a>]) -> Answer<'a> {
    convert::to_timestamp(&args[0]).map(Value::Timestamp)
}

fn to_uint<'a>(args: &[Value<'a>]) -> Answer<'a> {
    convert::to_uint(&args[0]).map(Value::Uint)
}
