//! Quantities (`k8s.io/apiserver/pkg/cel/library/quantity.go`).

use std::sync::Arc;

use corten_schema::scalars::{Quantity, QuantityFormat};

use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::library::take;
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 28),
    rows: &[
        Row("quantity", "string_to_quantity", "(string) -> kubernetes.Quantity", quantity),
        Row("isQuantity", "is_quantity_string", "(string) -> bool", is_quantity),
        Row("sign", "quantity_sign", "(kubernetes.Quantity) -> int", sign),
        Row("isGreaterThan", "quantity_is_greater_than", "kubernetes.Quantity.(kubernetes.Quantity) -> bool", greater),
        Row("isLessThan", "quantity_is_less_than", "kubernetes.Quantity.(kubernetes.Quantity) -> bool", less),
        Row("compareTo", "quantity_compare_to", "kubernetes.Quantity.(kubernetes.Quantity) -> int", compare),
        Row("asApproximateFloat", "quantity_get_float", "kubernetes.Quantity.() -> double", as_float),
        Row("asInteger", "quantity_get_int", "kubernetes.Quantity.() -> int", as_integer),
        Row("isInteger", "quantity_is_integer", "kubernetes.Quantity.() -> bool", is_integer),
        Row("add", "quantity_add", "kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity", add),
        Row("add", "quantity_add_int", "kubernetes.Quantity.(int) -> kubernetes.Quantity", add),
        Row("sub", "quantity_sub", "kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity", sub),
        Row("sub", "quantity_sub_int", "kubernetes.Quantity.(int) -> kubernetes.Quantity", sub),
    ],
};

fn quantity<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text));
    match text.parse::<Quantity>() {
        Ok(quantity) => Ok(Value::Quantity(Arc::new(quantity))),
        Err(error) => Err(EvalError::new(error.to_string())),
    }
}

fn is_quantity<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text));
    Ok(Value::Bool(text.parse::<Quantity>().is_ok()))
}

fn sign<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Quantity(q));
    Ok(Value::Int(q.sign().into()))
}

fn greater<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Quantity(a), Quantity(b));
    Ok(Value::Bool(a > b))
}

fn less<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Quantity(a), Quantity(b));
    Ok(Value::Bool(a < b))
}

fn compare<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Quantity(a), Quantity(b));
    Ok(Value::Int(a.cmp(b) as i64))
}

fn as_float<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Quantity(q));
    Ok(Value::Double(q.to_f64()))
}

/// The amount, if it is whole and fits (`AsInt64`).
fn whole(q: &Quantity) -> Option<i64> {
    let value = q.value();
    let same = Quantity::from_int(value, QuantityFormat::DecimalSi) == *q;
    (q.is_whole_at(0) && same).then_some(value)
}

fn as_integer<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Quantity(q));
    whole(q).map(Value::Int).ok_or_else(|| EvalError::new("cannot convert value to integer"))
}

fn is_integer<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Quantity(q));
    Ok(Value::Bool(whole(q).is_some()))
}

fn operand(value: &Value<'_>) -> Result<Quantity, EvalError> {
    match value {
        Value::Quantity(q) => Ok((**q).clone()),
        Value::Int(n) => Ok(Quantity::from_int(*n, QuantityFormat::DecimalExponent)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn add<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Quantity(Arc::new(operand(&args[0])?.plus(&operand(&args[1])?))))
}

fn sub<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Quantity(Arc::new(operand(&args[0])?.minus(&operand(&args[1])?))))
}
