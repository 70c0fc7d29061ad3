//! Reading documents as values (`k8s.io/apiserver/pkg/cel/common/valuesunstructured.go`).

use corten_tree::Tree;

use crate::decl::{Decl, Format};
use crate::error::EvalError;
use crate::time::{Timestamp, parse_duration};
use crate::types::Type;
use crate::value::{Text, Value};

/// By JSON types.
pub(crate) fn dynamic(tree: &Tree) -> Value<'_> {
    match tree {
        Tree::Null => Value::Null,
        Tree::Bool(b) => Value::Bool(*b),
        Tree::Int(n) => Value::Int(*n),
        Tree::Float(n) => Value::Double(*n),
        Tree::Str(text) => Value::Str(Text::Borrowed(text)),
        Tree::List(_) | Tree::Map(_) | Tree::Raw(_) => Value::Tree(tree, None),
    }
}

/// As declared.
pub(crate) fn declared<'a>(tree: &'a Tree, decl: &'a Decl) -> Result<Value<'a>, EvalError> {
    if tree.is_null() {
        return match decl.nullable || (decl.ty == Type::Dyn && !decl.int_or_string) {
            true => Ok(Value::Null),
            false => Err(EvalError::new("invalid data, got null for schema with nullable=false")),
        };
    }
    if decl.int_or_string {
        return match tree {
            Tree::Str(_) | Tree::Int(_) => Ok(dynamic(tree)),
            _ => Err(EvalError::new("invalid data, expected XIntOrString value to be either a string or integer")),
        };
    }
    let wrong =
        |expected: &str| Err(EvalError::new(format!("invalid data, expected {expected}, got {}", go_type(tree))));
    match (&decl.ty, tree) {
        (Type::Object(_) | Type::Map(..), Tree::Map(_) | Tree::Raw(_)) | (Type::List(_), Tree::List(_)) => {
            Ok(Value::Tree(tree, Some(decl)))
        }
        (Type::Object(_) | Type::Map(..), _) => {
            Err(EvalError::new("invalid data, expected a map for the provided schema with type=object"))
        }
        (Type::List(_), _) => {
            Err(EvalError::new("invalid data, expected an array for the provided schema with type=array"))
        }
        (_, Tree::Str(text)) if decl.format != Format::Plain => formatted(text, decl.format),
        (Type::String, Tree::Str(text)) => Ok(Value::Str(Text::Borrowed(text))),
        (Type::String | Type::Bytes | Type::Duration | Type::Timestamp, _) => wrong("string"),
        (Type::Double, Tree::Int(n)) => Ok(Value::Double(*n as f64)),
        (Type::Double, Tree::Float(n)) => Ok(Value::Double(*n)),
        (Type::Double, _) => wrong("float"),
        (Type::Int, Tree::Int(n)) => Ok(Value::Int(*n)),
        (Type::Int, _) => wrong("int"),
        (Type::Bool, Tree::Bool(b)) => Ok(Value::Bool(*b)),
        (Type::Bool, _) => wrong("bool"),
        _ => Ok(dynamic(tree)),
    }
}

fn formatted(text: &str, format: Format) -> Result<Value<'_>, EvalError> {
    match format {
        Format::Byte => match corten_schema::scalars::base64::decode(text) {
            Ok(bytes) => Ok(Value::Bytes(bytes.into())),
            Err(why) => Err(EvalError::new(format!("Invalid byte formatted string {text}: {why}"))),
        },
        Format::Duration => match parse_duration(text) {
            Some(nanos) => Ok(Value::Duration(nanos)),
            None => Err(EvalError::new(format!("Invalid duration {text}: time: invalid duration \"{text}\""))),
        },
        Format::Date => match Timestamp::parse_date(text) {
            Some(time) => Ok(Value::Timestamp(time)),
            None => Err(EvalError::new(format!("Invalid date formatted string {text}"))),
        },
        Format::DateTime => match Timestamp::parse(text) {
            Some(time) => Ok(Value::Timestamp(time)),
            None => Err(EvalError::new(format!("Invalid date-time formatted string {text}"))),
        },
        Format::Plain => Ok(Value::Str(Text::Borrowed(text))),
    }
}

fn go_type(tree: &Tree) -> &'static str {
    match tree {
        Tree::Null => "<nil>",
        Tree::Bool(_) => "bool",
        Tree::Int(_) => "int64",
        Tree::Float(_) => "float64",
        Tree::Str(_) => "string",
        Tree::List(_) => "[]interface {}",
        Tree::Map(_) | Tree::Raw(_) => "map[string]interface {}",
    }
}
