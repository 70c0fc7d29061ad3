//! ResourceQuotas and LimitRanges. (`ValidateResourceQuota`, `ValidateLimitRange` in `pkg/apis/core/validation/validation.go`)

use std::collections::BTreeSet;

use corten_schema::scalars::Quantity;
use corten_tree::Tree;

use super::resources::{Names, quantity_value, resource_name};
use super::{Spot, quantity};
use crate::Errors;

/// Finds the faults of a quota.
pub(crate) fn validate(quota: &Tree, errors: &mut Errors) {
    let spec = Spot::of(quota, "spec");
    resources(&spec.child("hard"), errors);
    let scopes: Vec<&str> = spec.list("scopes").iter().filter_map(Tree::as_str).collect();
    let hard: BTreeSet<&str> = spec.map("hard").keys().collect();
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            spec.invalid("scopes", "unsupported scope", errors);
        }
        for _ in hard.iter().filter(|name| !applies(scope, name)) {
            spec.invalid("scopes", "unsupported scope applied to resource", errors);
        }
    }
    conflicts(&spec, &scopes, errors);
    let Some(selector) = spec.some("scopeSelector") else { return };
    let requirements = selector.items("matchExpressions");
    // Upstream reports these at the list.
    let list = selector.path.child("matchExpressions");
    for requirement in &requirements {
        let at = Spot::at(requirement.tree, list.clone());
        let (scope, operator) = (at.str("scopeName"), at.str("operator"));
        if !SCOPES.contains(&scope) {
            at.invalid("scopeName", "unsupported scope", errors);
        }
        for _ in hard.iter().filter(|name| !applies(scope, name)) {
            let whole = Spot::at(selector.tree, list.clone());
            let shown =
                corten_schema::internal::shown_as(corten_schema::builtin(), "core.v1.ScopeSelector", selector.tree);
            errors.push(
                corten_object::FieldError::invalid(&whole.path, &shown, "unsupported scope applied to resource")
                    .as_shown(),
            );
        }
        let fixed = SCOPES.contains(&scope) && !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if fixed && operator != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                ResourceQuotaScopeCrossNamespacePodAffinity";
            at.invalid("operator", detail, errors);
        }
        match (operator, at.list("values").is_empty()) {
            ("In" | "NotIn", true) => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                at.required("values", detail, errors);
            }
            ("Exists" | "DoesNotExist", false) => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                at.invalid("values", detail, errors);
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            _ => at.invalid("operator", "not a valid selector operator", errors),
        }
    }
    let selected: Vec<&str> = requirements.iter().map(|r| r.str("scopeName")).collect();
    conflicts(&spec, &selected, errors);
}

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

/// Whether a scope can narrow a resource. (`IsResourceQuotaScopeValidForResource`)
fn applies(scope: &str, resource: &str) -> bool {
    let compute =
        matches!(resource, "cpu" | "memory" | "limits.cpu" | "limits.memory" | "requests.cpu" | "requests.memory");
    match scope {
        _ if !super::resources::is_quota_name(resource) => true,
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            resource == "pods" || compute
        }
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn conflicts(spec: &Spot<'_>, scopes: &[&str], errors: &mut Errors) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            spec.invalid("scopes", "conflicting scopes", errors);
        }
    }
}

fn resources(list: &Spot<'_>, errors: &mut Errors) {
    for (name, tree) in list.map("").iter() {
        let at = Spot::at(tree, list.path.key(name));
        resource_name(Names::Quota, &at, name, errors);
        if let Some(value) = quantity(tree) {
            quantity_value(&at, name, &value, errors);
        }
    }
}

/// The scopes of a quota stay.
pub(crate) fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let scopes =
        |tree: &Tree| -> BTreeSet<String> { tree.list_at("spec.scopes").iter().map(ToString::to_string).collect() };
    if scopes(new) != scopes(old) {
        Spot::of(new, "spec").invalid("scopes", super::IMMUTABLE, errors);
    }
}

/// Finds the faults of a quota's status.
pub(crate) fn validate_status(new: &Tree, _: &Tree, errors: &mut Errors) {
    let status = Spot::of(new, "status");
    resources(&status.child("hard"), errors);
    resources(&status.child("used"), errors);
}

const LIMIT_TYPES: &[&str] = &["Pod", "Container", "PersistentVolumeClaim"];

/// Finds the faults of a limit range.
pub(crate) fn validate_limit_range(range: &Tree, errors: &mut Errors) {
    let mut seen = Vec::new();
    for limit in Spot::of(range, "spec").items("limits") {
        let kind = limit.str("type");
        limit.each("type", super::names::label_key(kind), errors);
        if !kind.is_empty() && !kind.contains('/') && !LIMIT_TYPES.contains(&kind) {
            limit.invalid("type", "must be a standard limit type or fully qualified", errors);
        }
        if seen.contains(&kind) {
            limit.duplicate("type", errors);
        }
        seen.push(kind);
        let names_of = if matches!(kind, "Pod" | "Container") { Names::Container } else { Names::Any };
        let mut keys = BTreeSet::new();
        for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            if kind == "Pod" && matches!(list, "default" | "defaultRequest") {
                if !limit.map(list).is_empty() {
                    limit.forbidden(list, "may not be specified when `type` is 'Pod'", errors);
                }
                continue;
            }
            for (name, tree) in limit.map(list).iter() {
                resource_name(names_of, &Spot::at(tree, limit.path.child(list).key(name)), name, errors);
                keys.insert(name);
            }
        }
        if kind == "PersistentVolumeClaim" && !["min", "max"].iter().any(|list| limit.map(list).contains("storage")) {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            limit.required("limits", detail, errors);
        }
        keys.into_iter().for_each(|name| bounds(&limit, name, errors));
    }
}

/// Checks that the bounds of one resource are in order.
fn bounds(limit: &Spot<'_>, name: &str, errors: &mut Errors) {
    let value = |list: &str| limit.map(list).get(name).and_then(quantity);
    // The smaller list, the larger, the list that the fault is shown at, and how both are called.
    let order = [
        ("min", "max", "min", "min value", "max value"),
        ("min", "defaultRequest", "defaultRequest", "min value", "default request value"),
        ("defaultRequest", "max", "defaultRequest", "default request value", "max value"),
        ("defaultRequest", "default", "defaultRequest", "default request value", "default limit value"),
        ("min", "default", "default", "min value", "default value"),
        ("default", "max", "default", "default value", "max value"),
    ];
    for (low, high, shown_at, low_name, high_name) in order {
        let (Some(small), Some(large)) = (value(low), value(high)) else { continue };
        if small <= large {
            continue;
        }
        let shown = if shown_at == "default" && low == "default" { &large } else { &small };
        let shown: &Quantity = if shown_at == "defaultRequest" && low == "min" { &large } else { shown };
        let at = Spot::at(limit.tree, limit.path.child(shown_at).key(name));
        at.invalid_as("", shown.to_string(), format!("{low_name} {small} is greater than {high_name} {large}"), errors);
    }
    if let Some(ratio) = value("maxLimitRequestRatio")
        && ratio.milli_value() < 1000
    {
        let at = Spot::at(limit.tree, limit.path.child("maxLimitRequestRatio").key(name));
        at.invalid_as("", ratio.to_string(), format!("ratio {ratio} is less than 1"), errors);
    }
    let ratio = value("maxLimitRequestRatio");
    if let (Some(ratio), Some(min), Some(max)) = (ratio, value("min"), value("max")) {
        // Whole units are compared where thousandths would not fit.
        let fits = [&ratio, &min, &max].iter().all(|q| q.value() < i64::MAX / 1000);
        let amount = |q: &Quantity| if fits { q.milli_value() } else { q.value() } as f64;
        let most = amount(&max) / amount(&min);
        let given = if fits { ratio.milli_value() as f64 / 1000.0 } else { ratio.value() as f64 };
        if given > most {
            let at = Spot::at(limit.tree, limit.path.child("maxLimitRequestRatio").key(name));
            at.invalid_as("", ratio.to_string(), format!("ratio {ratio} is greater than max/min = {most:.6}"), errors);
        }
    }
    let overcommitted = super::resources::is_native(name) && !super::resources::is_huge_pages(name);
    if let (false, Some(default), Some(request)) = (overcommitted, value("default"), value("defaultRequest"))
        && default != request
    {
        let at = Spot::at(limit.tree, limit.path.child("defaultRequest").key(name));
        let detail = format!("default value {default} must equal to defaultRequest value {request} in {name}");
        at.invalid_as("", request.to_string(), detail, errors);
    }
}
