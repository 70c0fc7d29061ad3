//! Types as the checker knows them, their names in messages, and a small notation for declaring functions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::decl::Decl;

/// A type of the language. Objects compare by name, as in cel-go (`common/types/types.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Any type: what the checker does not know is found out at run time.
    Dyn,
    /// The type of an expression that has an error already.
    Error,
    /// `null`.
    Null,
    /// `bool`.
    Bool,
    /// `int`, 64 bits with sign.
    Int,
    /// `uint`, 64 bits without sign.
    Uint,
    /// `double`.
    Double,
    /// `string`: Unicode code points.
    String,
    /// `bytes`.
    Bytes,
    /// A point in time.
    Timestamp,
    /// A length of time.
    Duration,
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// A list.
    List(Arc<Type>),
    /// A map of keys to values.
    Map(Arc<Type>, Arc<Type>),
    /// A message with named fields.
    Object(Arc<Object>),
    /// A type of a library, known by its name only, such as `net.IP`.
    Opaque(&'static str),
    /// `optional_type(T)`.
    Optional(Arc<Type>),
    /// A type variable of a function's declaration.
    Param(Arc<str>),
    /// A type variable that the checker made.
    Var(u32),
}

/// A message type: a name and fields.
#[derive(Debug, Default)]
pub struct Object {
    /// The name that messages show and that equality goes by.
    pub name: String,
    /// The fields by the name that an expression uses (escaped where the plain name is no identifier).
    pub fields: BTreeMap<String, Field>,
    /// Whether every field is accepted, with any type: the `Object{…}` types of mutations, where `Object.spec` and the like
    /// are types, too (`k8s.io/apiserver/pkg/cel/mutation/typeresolver.go`).
    pub open: bool,
}

/// A field of a message.
#[derive(Debug, Clone)]
pub struct Field {
    /// The key in the document.
    pub key: String,
    /// Type and sizes.
    pub decl: Decl,
}

impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        self.name == other.name
    }
}
impl Eq for Object {}

impl Type {
    /// `list(item)`.
    pub fn list(item: Type) -> Type {
        Type::List(Arc::new(item))
    }

    /// `map(key, value)`.
    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    /// `optional_type(value)`.
    pub fn optional(value: Type) -> Type {
        Type::Optional(Arc::new(value))
    }

    /// A message type.
    pub fn object(name: impl Into<String>, fields: BTreeMap<String, Field>) -> Type {
        Type::Object(Arc::new(Object { name: name.into(), fields, open: false }))
    }

    pub(crate) fn of_type(of: Type) -> Type {
        Type::Type(Some(Arc::new(of)))
    }

    pub(crate) fn param(name: &str) -> Type {
        Type::Param(name.into())
    }

    /// Whether anything goes.
    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn)
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// The type inside an optional, and whether it was one.
    pub(crate) fn unwrap_optional(&self) -> (Type, bool) {
        match self {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        }
    }

    /// The name that `type(x)` prints and run-time messages use.
    pub fn runtime_name(&self) -> &str {
        match self {
            Type::Dyn => "dyn",
            Type::Error => "error",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::Duration => "google.protobuf.Duration",
            Type::Type(_) => "type",
            Type::List(_) => "list",
            Type::Map(..) => "map",
            Type::Object(object) => &object.name,
            Type::Opaque(name) => name,
            Type::Optional(_) => "optional_type",
            Type::Param(name) => name,
            Type::Var(_) => "type_param",
        }
    }

    /// What the name of a type in an expression stands for.
    pub(crate) fn named(name: &str) -> Option<Type> {
        Some(match name {
            "null_type" => Type::Null,
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "google.protobuf.Timestamp" => Type::Timestamp,
            "google.protobuf.Duration" => Type::Duration,
            "type" => Type::Type(None),
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "optional_type" => Type::optional(Type::Dyn),
            "net.IP" => Type::Opaque("net.IP"),
            "net.CIDR" => Type::Opaque("net.CIDR"),
            _ => return None,
        })
    }

    /// Parses the notation of the function tables: `list(A)`, `map(K, V)`, `optional(list(string))`, upper-case letters are
    /// type variables, everything unknown is a library's type.
    pub(crate) fn parse(text: &'static str) -> Type {
        let text = text.trim();
        if let Some((head, rest)) = text.split_once('(') {
            let rest = rest.strip_suffix(')').expect("the tables close their parentheses");
            let mut args = split_args(rest).into_iter().map(Type::parse);
            let mut next = || args.next().unwrap_or(Type::Dyn);
            return match head {
                "list" => Type::list(next()),
                "map" => {
                    let key = next();
                    Type::map(key, next())
                }
                "optional" => Type::optional(next()),
                _ => Type::of_type(next()),
            };
        }
        match text {
            "dyn" => Type::Dyn,
            "null" => Type::Null,
            "timestamp" => Type::Timestamp,
            "duration" => Type::Duration,
            "bool" | "int" | "uint" | "double" | "string" | "bytes" => Type::named(text).expect("named above"),
            "A" | "B" | "K" | "V" | "T" | "U" => Type::param(text),
            opaque => Type::Opaque(opaque),
        }
    }
}

/// Splits at the commas outside of parentheses.
pub(crate) fn split_args(text: &'static str) -> Vec<&'static str> {
    let (mut depth, mut start, mut out) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        out.push(text[start..].trim());
    }
    out
}

/// Prints the name as the checker's messages show it (`checker/format.go`, FormatCELType).
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Error => f.write_str("!error!"),
            Type::Null => f.write_str("null"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::List(item) => write!(f, "list({item})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            Type::Optional(value) => write!(f, "optional_type({value})"),
            Type::Type(Some(of)) => write!(f, "type({of})"),
            Type::Var(number) => write!(f, "_var{number}"),
            other => f.write_str(other.runtime_name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_print_as_messages_show_them() {
        for (text, shown) in [
            ("list(A)", "list(A)"),
            ("map(string, list(string))", "map(string, list(string))"),
            ("optional(kubernetes.NamedFormat)", "optional_type(kubernetes.NamedFormat)"),
            ("timestamp", "timestamp"),
            ("type(A)", "type(A)"),
        ] {
            assert_eq!(Type::parse(text).to_string(), shown);
        }
    }
}
