//! `metav1.Condition` (`apimachinery/pkg/apis/meta/v1/validation/validation.go`, `ValidateCondition`).

use super::{Spot, names};
use crate::Errors;

const REASON_BYTES_MAX: usize = 1 << 10;
const MESSAGE_BYTES_MAX: usize = 32 << 10;

/// Finds the faults of a list of conditions, of which there may be this many. (`ValidateConditions`)
pub(crate) fn validate_all(spot: &Spot<'_>, field: &str, max: usize, errors: &mut Errors) {
    if spot.list(field).len() > max {
        spot.too_many(field, max, errors);
    }
    let all = spot.items(field);
    for (i, condition) in all.iter().enumerate() {
        let kind = condition.str("type");
        if all[..i].iter().any(|other| other.str("type") == kind) {
            errors.push(corten_object::FieldError::duplicate(&condition.path, &kind.into()));
        }
        validate(condition, errors);
    }
}

/// Finds the faults of one condition.
pub(crate) fn validate(condition: &Spot<'_>, errors: &mut Errors) {
    match condition.str("type") {
        "" => condition.required("type", "is required", errors),
        kind => condition.each("type", names::label_key(kind), errors),
    }
    condition.one_of("status", &["False", "True", "Unknown"], errors);
    if condition.int("observedGeneration").is_some_and(|g| g < 0) {
        condition.invalid("observedGeneration", "must be greater than or equal to zero", errors);
    }
    if condition.str("lastTransitionTime").is_empty() {
        condition.required("lastTransitionTime", "", errors);
    }
    let reason = condition.str("reason");
    if reason.is_empty() {
        condition.required("reason", "", errors);
    } else {
        self::reason(condition, "reason", errors);
        if reason.len() > REASON_BYTES_MAX {
            condition.too_long("reason", REASON_BYTES_MAX, errors);
        }
    }
    if condition.str("message").len() > MESSAGE_BYTES_MAX {
        condition.too_long("message", MESSAGE_BYTES_MAX, errors);
    }
}

/// `IsValidConditionReason`
pub(crate) fn reason(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    if !is_reason(spot.str(field)) {
        let detail = "a condition reason must start with alphabetic character, optionally followed by a string of \
             alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or \
             'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
             '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
        spot.invalid(field, detail, errors);
    }
}

fn is_reason(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    let edges = bytes.first().is_some_and(u8::is_ascii_alphabetic) && bytes.last().copied().is_some_and(word);
    edges && bytes.iter().all(|b| word(*b) || matches!(b, b',' | b':'))
}
