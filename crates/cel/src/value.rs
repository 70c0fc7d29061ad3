//! Values. Documents are not copied: a value borrows the [`Tree`] it was found in and reads on when asked.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use corten_schema::scalars::Quantity;
use corten_tree::Tree;

use crate::authz::Authz;
use crate::collection::{ListView, MapValue, MapView};
use crate::decl::Decl;
use crate::error::EvalError;
use crate::library::net::Cidr;
use crate::library::{named_format::NamedFormat, semver::Semver, url::Url};
use crate::read;
use crate::time::Timestamp;
use crate::types::Type;

/// A value that a source spells out.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `null`
    Null,
    /// `true`
    Bool(bool),
    /// `1`
    Int(i64),
    /// `1u`
    Uint(u64),
    /// `1.0`
    Double(f64),
    /// `'text'`
    Str(Arc<str>),
    /// `b'text'`
    Bytes(Arc<[u8]>),
}

/// Text: of a document, or made.
#[derive(Clone)]
pub enum Text<'a> {
    /// Part of a document.
    Borrowed(&'a str),
    /// Made by an expression.
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// A variable whose fields are computed when asked for, such as a policy's `variables` ([`crate::Vars::field`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lazy {
    /// The variable's name.
    pub variable: String,
    /// The name of its type.
    pub type_name: String,
}

/// A message that an expression made: `Name{field: value}`.
#[derive(Debug, Clone)]
pub struct StructValue<'a> {
    /// The type.
    pub ty: Type,
    /// The fields that are set, in order.
    pub fields: Vec<(String, Value<'a>)>,
}

/// A value of the language.
#[derive(Clone)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `uint`
    Uint(u64),
    /// `double`
    Double(f64),
    /// `string`
    Str(Text<'a>),
    /// `bytes`
    Bytes(Arc<[u8]>),
    /// `google.protobuf.Duration`, in nanoseconds
    Duration(i64),
    /// `google.protobuf.Timestamp`
    Timestamp(Timestamp),
    /// A list that an expression made.
    List(Arc<Vec<Value<'a>>>),
    /// A map that an expression made.
    Map(Arc<MapValue<'a>>),
    /// A list or map of a document; read as declared, or by its JSON types.
    Tree(&'a Tree, Option<&'a Decl>),
    /// A message that an expression made.
    Struct(Arc<StructValue<'a>>),
    /// Fields on demand.
    Lazy(Arc<Lazy>),
    /// `optional_type`
    Optional(Option<Arc<Value<'a>>>),
    /// `type`
    Type(Type),
    /// `kubernetes.Quantity`
    Quantity(Arc<Quantity>),
    /// `kubernetes.URL`
    Url(Arc<Url>),
    /// `net.IP`
    Ip(std::net::IpAddr),
    /// `net.CIDR`
    Cidr(Cidr),
    /// `kubernetes.NamedFormat`
    Format(&'static NamedFormat),
    /// `kubernetes.Semver`
    Semver(Arc<Semver>),
    /// `kubernetes.authorization.…`
    Authz(Arc<Authz<'a>>),
}

impl<'a> Value<'a> {
    /// Text that is made.
    pub fn str(text: impl Into<Arc<str>>) -> Value<'a> {
        Value::Str(Text::Shared(text.into()))
    }

    /// A list of values.
    pub fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(Arc::new(items))
    }

    /// An optional that has a value.
    pub fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Arc::new(value)))
    }

    /// A document's value by its JSON types: integers are `int`, other numbers `double`.
    pub fn of_tree(tree: &'a Tree) -> Value<'a> {
        read::dynamic(tree)
    }

    /// A document's value as declared (`pkg/cel/common/valuesunstructured.go`, UnstructuredToVal).
    pub fn declared(tree: &'a Tree, decl: &'a Decl) -> Result<Value<'a>, EvalError> {
        read::declared(tree, decl)
    }

    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The type at run time; lists and maps have no type of their items.
    pub fn type_of(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::Str(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Duration(_) => Type::Duration,
            Value::Timestamp(_) => Type::Timestamp,
            Value::List(_) | Value::Tree(Tree::List(_), _) => Type::list(Type::Dyn),
            Value::Map(_) | Value::Tree(..) => Type::map(Type::Dyn, Type::Dyn),
            Value::Struct(of) => of.ty.clone(),
            Value::Lazy(of) => Type::object(of.type_name.as_str(), Default::default()),
            Value::Optional(_) => Type::optional(Type::Dyn),
            Value::Type(_) => Type::Type(None),
            Value::Quantity(_) => Type::Opaque("kubernetes.Quantity"),
            Value::Url(_) => Type::Opaque("kubernetes.URL"),
            Value::Ip(_) => Type::Opaque("net.IP"),
            Value::Cidr(_) => Type::Opaque("net.CIDR"),
            Value::Format(_) => Type::Opaque("kubernetes.NamedFormat"),
            Value::Semver(_) => Type::Opaque("kubernetes.Semver"),
            Value::Authz(of) => Type::Opaque(of.type_name()),
        }
    }

    /// A list's items.
    pub fn as_list(&self) -> Option<ListView<'_, 'a>> {
        match self {
            Value::List(items) => Some(ListView::Made(items)),
            Value::Tree(Tree::List(items), decl) => Some(ListView::Tree(items, decl.and_then(|d| d.elem.as_deref()))),
            _ => None,
        }
    }

    /// A map's or message's entries.
    pub fn as_map(&self) -> Option<MapView<'_, 'a>> {
        match self {
            Value::Map(map) => Some(MapView::Made(map)),
            Value::Tree(Tree::Map(map), decl) => Some(MapView::Tree(map, *decl)),
            Value::Struct(of) => Some(MapView::Struct(of)),
            _ => None,
        }
    }

    /// What `size()` gives, where it is defined: characters, bytes, items, entries.
    pub fn size(&self) -> Option<u64> {
        Some(match self {
            Value::Str(text) if text.is_ascii() => text.len() as u64,
            Value::Str(text) => text.chars().count() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::Struct(_) | Value::Lazy(_) => return None,
            other => match (other.as_list(), other.as_map()) {
                (Some(list), _) => list.len() as u64,
                (_, Some(map)) => map.len() as u64,
                _ => return None,
            },
        })
    }

    /// Whether it is the zero value of its type, an empty container or `null`.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(b) => !b,
            Value::Int(n) => *n == 0,
            Value::Uint(n) => *n == 0,
            Value::Double(n) => *n == 0.0,
            Value::Duration(n) => *n == 0,
            Value::Timestamp(t) => *t == Timestamp::MIN,
            Value::Optional(of) => of.as_ref().is_none_or(|of| of.is_zero()),
            Value::Struct(of) => of.fields.is_empty(),
            Value::Lazy(_) => false,
            other => other.size() == Some(0),
        }
    }

    /// `==`. An error where upstream's comparison of a declared list or of a library's value has one.
    pub fn equals(&self, other: &Value<'a>) -> Result<bool, EvalError> {
        crate::compare::equal(self, other)
    }

    /// The order of two values that have one.
    pub fn compare(&self, other: &Value<'a>) -> Result<Ordering, EvalError> {
        crate::compare::order(self, other)
    }

    /// The value as a document.
    pub fn to_tree(&self) -> Result<Tree, EvalError> {
        crate::convert::to_tree(self)
    }
}

impl From<&Literal> for Value<'_> {
    fn from(literal: &Literal) -> Self {
        match literal {
            Literal::Null => Value::Null,
            Literal::Bool(b) => Value::Bool(*b),
            Literal::Int(n) => Value::Int(*n),
            Literal::Uint(n) => Value::Uint(*n),
            Literal::Double(n) => Value::Double(*n),
            Literal::Str(text) => Value::Str(Text::Shared(text.clone())),
            Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Str(text) => fmt::Debug::fmt(text, f),
            Value::Bytes(bytes) => write!(f, "b\"{}\"", bytes.escape_ascii()),
            other => fmt::Display::fmt(other, f),
        }
    }
}

/// Prints as Go's `%v` does in upstream's messages.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(n) => write!(f, "{n}"),
            Value::Uint(n) => write!(f, "{n}"),
            Value::Double(n) => f.write_str(&crate::convert::go_g(*n)),
            Value::Str(text) => f.write_str(text),
            Value::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Value::Duration(n) => f.write_str(&crate::time::duration_text(*n)),
            Value::Timestamp(t) => write!(f, "{t}"),
            Value::Optional(None) => f.write_str("optional.none()"),
            Value::Optional(Some(value)) => write!(f, "optional({value})"),
            Value::Type(of) => f.write_str(of.runtime_name()),
            Value::Quantity(q) => write!(f, "{q}"),
            Value::Url(url) => write!(f, "{url}"),
            Value::Ip(ip) => write!(f, "{ip}"),
            Value::Cidr(cidr) => write!(f, "{cidr}"),
            Value::Semver(v) => write!(f, "{v}"),
            Value::Format(of) => f.write_str(of.name),
            Value::Authz(of) => f.write_str(of.type_name()),
            other => {
                if let Some(list) = other.as_list() {
                    f.write_str("[")?;
                    for at in 0..list.len() {
                        let comma = if at > 0 { ", " } else { "" };
                        match list.get(at) {
                            Ok(item) => write!(f, "{comma}{item}")?,
                            Err(error) => write!(f, "{comma}{error}")?,
                        }
                    }
                    return f.write_str("]");
                }
                let Some(map) = other.as_map() else { return f.write_str(self.type_of().runtime_name()) };
                f.write_str("{")?;
                for (at, key) in map.keys().into_iter().enumerate() {
                    let comma = if at > 0 { ", " } else { "" };
                    match map.find(&key) {
                        Ok(Some(value)) => write!(f, "{comma}{key}: {value}")?,
                        Ok(None) => {}
                        Err(error) => write!(f, "{comma}{key}: {error}")?,
                    }
                }
                f.write_str("}")
            }
        }
    }
}
