//! Labels and label selectors. (`k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go`)

use corten_tree::Tree;

use super::Spot;
use super::names;
use crate::Errors;

/// Checks a map of labels.
pub fn validate_labels(labels: &Spot<'_>, errors: &mut Errors) {
    for (key, value) in labels.map("").iter() {
        for message in names::label_key(key) {
            labels.invalid_as("", key, message, errors);
        }
        for message in names::label_value(value.as_str().unwrap_or_default()) {
            labels.invalid_as("", value.clone(), message, errors);
        }
    }
}

/// Checks a label's key.
pub fn validate_label_name(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    spot.each(field, names::label_key(spot.str(field)), errors);
}

/// Checks a label selector, if there is one.
pub fn validate_selector(selector: &Spot<'_>, errors: &mut Errors) {
    validate_labels(&selector.child("matchLabels"), errors);
    for expression in selector.items("matchExpressions") {
        let values = expression.list("values");
        match expression.str("operator") {
            "In" | "NotIn" if values.is_empty() => {
                expression.required("values", "must be specified when `operator` is 'In' or 'NotIn'", errors);
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                expression.forbidden("values", detail, errors);
            }
            "Exists" | "DoesNotExist" => {}
            operator => expression.invalid_as("operator", operator, "not a valid selector operator", errors),
        }
        expression.each("key", names::label_key(expression.str("key")), errors);
        for value in expression.items("values") {
            value.each("", names::label_value(value.str("")), errors);
        }
    }
}

/// Whether a label selector is there and selects something (it is neither null nor `{}`).
pub(crate) fn selects_something(selector: &Tree) -> bool {
    !selector.map_at("matchLabels").is_empty() || !selector.list_at("matchExpressions").is_empty()
}
