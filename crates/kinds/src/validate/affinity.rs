//! Where a pod may run: node selectors, affinity, tolerations, topology spread.

use std::collections::HashSet;

use corten_tree::Tree;

use super::labels::{validate_label_name, validate_selector};
use super::{NOT_POSITIVE, Spot, names};
use crate::Errors;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// `validateAffinity`
pub(crate) fn validate_affinity(affinity: &Spot<'_>, errors: &mut Errors) {
    if let Some(node) = affinity.some("nodeAffinity") {
        if let Some(required) = node.some(REQUIRED) {
            validate_node_selector(&required, errors);
        }
        for term in node.items(PREFERRED) {
            weight(&term, errors);
            // Preferences were never checked for their label values.
            node_selector_term(&term.child("preference"), false, errors);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = affinity.some(kind) else { continue };
        for term in affinity.items(REQUIRED) {
            pod_affinity_term(&term, errors);
        }
        for term in affinity.items(PREFERRED) {
            weight(&term, errors);
            pod_affinity_term(&term.child("podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &Spot<'_>, errors: &mut Errors) {
    let weight = term.int("weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        term.invalid_as("weight", weight, "must be in the range 1-100", errors);
    }
}

/// `ValidateNodeSelector`
pub(crate) fn validate_node_selector(selector: &Spot<'_>, errors: &mut Errors) {
    let terms = selector.items("nodeSelectorTerms");
    if terms.is_empty() {
        selector.required("nodeSelectorTerms", "must have at least one node selector term", errors);
    }
    for term in terms {
        node_selector_term(&term, true, errors);
    }
}

fn node_selector_term(term: &Spot<'_>, check_values: bool, errors: &mut Errors) {
    for requirement in term.items("matchExpressions") {
        let values = requirement.list("values");
        match requirement.str("operator") {
            "In" | "NotIn" if values.is_empty() => {
                requirement.required("values", "must be specified when `operator` is 'In' or 'NotIn'", errors);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                requirement.forbidden("values", detail, errors);
            }
            "Gt" | "Lt" if values.len() != 1 => {
                requirement.required(
                    "values",
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                    errors,
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            operator => requirement.invalid_as("operator", operator, "not a valid selector operator", errors),
        }
        validate_label_name(&requirement, "key", errors);
        if check_values {
            for value in requirement.items("values") {
                value.each("", names::label_value(value.str("")), errors);
            }
        }
    }
    for requirement in term.items("matchFields") {
        match requirement.str("operator") {
            "In" | "NotIn" if requirement.list("values").len() != 1 => {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                requirement.required("values", detail, errors);
            }
            "In" | "NotIn" => {}
            operator => requirement.invalid_as("operator", operator, "not a valid selector operator", errors),
        }
        if requirement.str("key") != "metadata.name" {
            requirement.invalid_as("key", requirement.str("key"), "not a valid field selector key", errors);
            continue;
        }
        for value in requirement.items("values") {
            value.each("", names::dns_subdomain(value.str("")), errors);
        }
    }
}

fn pod_affinity_term(term: &Spot<'_>, errors: &mut Errors) {
    validate_selector(&term.child("labelSelector"), errors);
    validate_selector(&term.child("namespaceSelector"), errors);
    for namespace in term.list("namespaces").iter().filter_map(Tree::as_str) {
        for message in names::dns_label(namespace) {
            term.invalid_as("namespace", namespace, message, errors);
        }
    }
    match_label_keys(term, errors);
    if term.str("topologyKey").is_empty() {
        term.required("topologyKey", "can not be empty", errors);
    }
    for message in names::label_key(term.str("topologyKey")) {
        term.invalid_as("topologyKey", term.str("topologyKey"), message, errors);
    }
}

/// `ValidateMatchLabelKeysAndMismatchLabelKeys`
fn match_label_keys(term: &Spot<'_>, errors: &mut Errors) {
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        if term.list(field).is_empty() {
            continue;
        }
        if !term.has("labelSelector") {
            term.forbidden(field, "must not be specified when labelSelector is not set", errors);
            continue;
        }
        for key in term.items(field) {
            validate_label_name(&key, "", errors);
        }
    }
    let matching = term.list("matchLabelKeys");
    let mut seen: HashSet<&str> = term.map("labelSelector.matchLabels").keys().collect();
    for expression in term.list("labelSelector.matchExpressions") {
        let key = expression.str_at("key");
        if let Some(i) = matching.iter().position(|k| k.as_str() == Some(key))
            && seen.contains(key)
        {
            let at = Spot::at(&matching[i], term.path.index(i));
            at.invalid("", "exists in both matchLabelKeys and labelSelector", errors);
        }
        seen.insert(key);
    }
    for key in term.items("matchLabelKeys") {
        if term.list("mismatchLabelKeys").contains(key.tree) {
            key.invalid("", "exists in both matchLabelKeys and mismatchLabelKeys", errors);
        }
    }
}

/// `ValidateTolerations`
pub(crate) fn validate_tolerations(spec: &Spot<'_>, errors: &mut Errors) {
    for toleration in spec.items("tolerations") {
        let (key, operator, value) = (toleration.str("key"), toleration.str("operator"), toleration.str("value"));
        if !key.is_empty() {
            validate_label_name(&toleration, "key", errors);
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            toleration.invalid_as("operator", operator, detail, errors);
        }
        if toleration.has("tolerationSeconds") && toleration.str("effect") != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            toleration.invalid_as("effect", toleration.str("effect"), detail, errors);
        }
        match operator {
            "Equal" | "" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    toleration.invalid_as("operator", value, messages.join(";"), errors);
                }
            }
            "Exists" if !value.is_empty() => {
                toleration.invalid_as("operator", value, "value must be empty when `operator` is 'Exists'", errors);
            }
            "Exists" => {}
            // The comparison operators are alpha.
            "Lt" | "Gt" => toleration.unsupported("operator", &["Equal", "Exists", "Lt", "Gt"], errors),
            _ => toleration.unsupported("operator", &["Equal", "Exists"], errors),
        }
        if !toleration.str("effect").is_empty() {
            toleration.one_of("effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
        }
    }
}

/// `validateTopologySpreadConstraints`
pub(crate) fn validate_topology_spread(spec: &Spot<'_>, errors: &mut Errors) {
    let constraints = spec.items("topologySpreadConstraints");
    for (i, constraint) in constraints.iter().enumerate() {
        let skew = constraint.int("maxSkew").unwrap_or_default();
        if skew <= 0 {
            constraint.invalid_as("maxSkew", skew, NOT_POSITIVE, errors);
        }
        if constraint.str("topologyKey").is_empty() {
            constraint.required("topologyKey", "can not be empty", errors);
        }
        let action = constraint.str("whenUnsatisfiable");
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            constraint.unsupported("whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"], errors);
        }
        let same = |other: &Spot<'_>| {
            other.str("topologyKey") == constraint.str("topologyKey") && other.str("whenUnsatisfiable") == action
        };
        if constraints[i + 1..].iter().any(same) {
            let pair = format!("{{{}, {action}}}", constraint.str("topologyKey"));
            let path = constraint.path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(corten_object::FieldError::duplicate(&path, &Tree::from(pair)));
        }
        if let Some(domains) = constraint.int("minDomains") {
            if domains <= 0 {
                constraint.invalid("minDomains", NOT_POSITIVE, errors);
            }
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                constraint.invalid("minDomains", detail, errors);
            }
        }
        constraint.optional_one_of("nodeAffinityPolicy", &["Honor", "Ignore"], errors);
        constraint.optional_one_of("nodeTaintsPolicy", &["Honor", "Ignore"], errors);
        match_label_keys(constraint, errors);
        validate_selector(&constraint.child("labelSelector"), errors);
    }
}
