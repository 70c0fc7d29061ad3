//! `==` and `<` of values of any types (cel-go's `common/types`, `pkg/cel/common/valuesunstructured.go`).

use std::cmp::Ordering;

use corten_tree::Tree;

use crate::collection::{ListView, MapView};
use crate::decl::{Decl, ListKind};
use crate::error::EvalError;
use crate::types::Type;
use crate::value::Value;

type Answer = Result<bool, EvalError>;

/// `==`.
pub(crate) fn equal<'a>(a: &Value<'a>, b: &Value<'a>) -> Answer {
    if matches!(a, Value::Null) || matches!(b, Value::Null) {
        return Ok(matches!((a, b), (Value::Null, Value::Null)));
    }
    if let Some(order) = number_order(a, b) {
        return Ok(order == Some(Ordering::Equal));
    }
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Str(a), Value::Str(b)) => Ok(**a == **b),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(a == b),
        (Value::Duration(a), Value::Duration(b)) => Ok(a == b),
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(a == b),
        (Value::Type(a), Value::Type(b)) => Ok(a.runtime_name() == b.runtime_name()),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b),
            (a, b) => Ok(a.is_none() && b.is_none()),
        },
        (Value::Struct(x), Value::Struct(y)) if x.ty != y.ty => Ok(false),
        (Value::Tree(x, Some(d)), Value::Tree(y, _)) if d.preserved => Ok(x.semantically_equal(y)),
        (Value::Quantity(a), Value::Quantity(b)) => Ok((**a).cmp(b).is_eq()),
        (Value::Url(a), Value::Url(b)) => Ok(a.to_string() == b.to_string()),
        (Value::Ip(a), Value::Ip(b)) => Ok(a == b),
        (Value::Cidr(a), Value::Cidr(b)) => Ok(a == b),
        (Value::Format(a), Value::Format(b)) => Ok(a.name == b.name),
        (Value::Semver(a), Value::Semver(b)) => Ok(a.cmp(b).is_eq()),
        // Libraries' types compare with their own kind only.
        (Value::Quantity(_) | Value::Url(_) | Value::Ip(_) | Value::Cidr(_), _)
        | (Value::Format(_) | Value::Semver(_) | Value::Authz(_), _) => Err(EvalError::no_such_overload()),
        _ => match (a.as_list(), b.as_list(), a.as_map(), b.as_map()) {
            (Some(x), Some(y), ..) => lists(a, x, y),
            (_, _, Some(x), Some(y)) => maps(x, y),
            (Some(_), ..) | (_, _, Some(_), _) if matches!(a, Value::Tree(_, Some(_))) => {
                Err(EvalError::no_such_overload())
            }
            _ => Ok(false),
        },
    }
}

fn list_decl<'a>(value: &Value<'a>) -> Option<&'a Decl> {
    match value {
        Value::Tree(Tree::List(_), decl) => *decl,
        _ => None,
    }
}

fn lists<'a>(of: &Value<'a>, a: ListView<'_, 'a>, b: ListView<'_, 'a>) -> Answer {
    if a.len() != b.len() {
        return Ok(false);
    }
    match list_decl(of).map(|decl| &decl.list) {
        Some(ListKind::Set) => {
            let (a, b) = (a.items()?, b.items()?);
            let among = |item: &Value<'a>, list: &[Value<'a>]| -> Answer {
                for other in list {
                    if equal(item, other)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            };
            for item in &b {
                if !among(item, &a)? {
                    return Ok(false);
                }
            }
            for item in &a {
                if !among(item, &b)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Some(ListKind::Map(keys)) => {
            let b = b.items()?;
            for item in a.items()? {
                let Some(other) = same_key(&item, &b, keys)? else { return Ok(false) };
                if !equal(&item, other)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => {
            for at in 0..a.len() {
                if !equal(&a.get(at)?, &b.get(at)?)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

/// The item with the same list-map keys.
pub(crate) fn same_key<'v, 'a>(
    item: &Value<'a>,
    among: &'v [Value<'a>],
    keys: &[String],
) -> Result<Option<&'v Value<'a>>, EvalError> {
    let part = |value: &Value<'a>, key: &String| match value {
        Value::Tree(tree, _) => tree.get(key).cloned(),
        other => {
            let found = other.as_map().and_then(|map| map.find(&Value::str(key.as_str())).ok().flatten());
            found.and_then(|value| value.to_tree().ok())
        }
    };
    Ok(among.iter().find(|other| keys.iter().all(|key| part(item, key) == part(other, key))))
}

fn maps<'a>(a: MapView<'_, 'a>, b: MapView<'_, 'a>) -> Answer {
    if a.len() != b.len() {
        return Ok(false);
    }
    if let (MapView::Tree(x, Some(decl)), MapView::Tree(y, _)) = (&a, &b)
        && let Type::Object(object) = &decl.ty
    {
        // Fields that are not declared are compared as they are.
        let known = |key: &str| object.fields.values().any(|field| field.key == key);
        for (key, value) in x.iter().filter(|(key, _)| !known(key)) {
            if y.get(key).is_some_and(|other| !value.semantically_equal(other)) {
                return Ok(false);
            }
        }
    }
    for key in a.keys() {
        match (a.find(&key)?, b.find(&key)?) {
            (Some(x), Some(y)) => {
                if !equal(&x, &y)? {
                    return Ok(false);
                }
            }
            (None, None) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The order of two numbers of any types: `None` if they are no numbers, `Some(None)` if one is NaN.
fn number_order(a: &Value<'_>, b: &Value<'_>) -> Option<Option<Ordering>> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    };
    let against = |double: f64, n: i128| {
        if double.is_nan() {
            return None;
        }
        if double < -(2f64.powi(63)) {
            return Some(Ordering::Less);
        }
        if double >= 2f64.powi(64) {
            return Some(Ordering::Greater);
        }
        double.partial_cmp(&(n as f64))
    };
    Some(match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => against(*a, whole(b)?),
        (a, Value::Double(b)) => against(*b, whole(a)?).map(Ordering::reverse),
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    })
}

/// `<` and its like.
pub(crate) fn order(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, EvalError> {
    if let Some(order) = number_order(a, b) {
        return order.ok_or_else(|| EvalError::new("NaN values cannot be ordered"));
    }
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::Str(a), Value::Str(b)) => Ok((**a).cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Ok(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(a.cmp(b)),
        _ => Err(EvalError::no_such_overload()),
    }
}
