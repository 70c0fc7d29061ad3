//! HorizontalPodAutoscalers. (`pkg/apis/autoscaling/validation/validation.go`)

use corten_tree::Tree;

use super::{Spot, names, quantity};
use crate::Errors;

const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;

/// Finds the faults of an autoscaler.
pub(crate) fn validate(hpa: &Tree, errors: &mut Errors) {
    let spec = Spot::of(hpa, "spec");
    let (min, max) = (spec.int("minReplicas"), spec.int("maxReplicas").unwrap_or_default());
    if min.is_some_and(|n| n < 0) {
        spec.invalid("minReplicas", "must be greater than or equal to 0", errors);
    }
    match max {
        0 => spec.required("maxReplicas", "", errors),
        n if n < 0 => spec.invalid("maxReplicas", "must be greater than or equal to 1", errors),
        _ => {}
    }
    if min.is_some_and(|min| max < min) {
        spec.invalid_as("maxReplicas", max, "must be greater than or equal to `minReplicas`", errors);
    }
    reference(&spec.child("scaleTargetRef"), false, errors);
    let metrics = spec.items("metrics");
    metrics.iter().for_each(|metric| validate_metric(metric, errors));
    let outside = metrics.iter().any(|m| matches!(m.str("type"), "Object" | "External"));
    if min == Some(0) && !outside {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        spec.forbidden("metrics", detail, errors);
    }
    for rules in ["behavior.scaleUp", "behavior.scaleDown"] {
        if let Some(rules) = spec.some(rules) {
            scaling_rules(&rules, errors);
        }
    }
}

/// `ValidateCrossVersionObjectReference`
fn reference(reference: &Spot<'_>, core: bool, errors: &mut Errors) {
    for field in ["kind", "name"] {
        match reference.str(field) {
            "" => reference.required(field, "", errors),
            text => reference.each(field, names::path_segment(text), errors),
        }
    }
    let version = reference.str("apiVersion");
    let detail = match version.matches('/').count() {
        0 if !core => "apiVersion must specify API group".to_owned(),
        0 | 1 => return,
        _ => format!("unexpected GroupVersion string: {version}"),
    };
    reference.invalid_as("apiVersion", version, detail, errors);
}

/// `ValidateHorizontalPodAutoscalerStatusUpdate`
pub(crate) fn validate_status(new: &Tree, _: &Tree, errors: &mut Errors) {
    let status = Spot::of(new, "status");
    for condition in status.items("conditions") {
        condition.non_negative("observedGeneration", errors);
    }
    status.non_negative("currentReplicas", errors);
    status.non_negative("desiredReplicas", errors);
}

fn scaling_rules(rules: &Spot<'_>, errors: &mut Errors) {
    const WINDOW: &str = "stabilizationWindowSeconds";
    match rules.int(WINDOW) {
        Some(s) if s < 0 => rules.invalid(WINDOW, "must be greater than or equal to zero", errors),
        Some(s) if s > WINDOW_SECONDS_MAX => {
            rules.invalid(WINDOW, format!("must be less than or equal to {WINDOW_SECONDS_MAX}"), errors);
        }
        _ => {}
    }
    rules.optional_one_of("selectPolicy", &["Disabled", "Max", "Min"], errors);
    if rules.list("policies").is_empty() {
        rules.required("policies", "must specify at least one Policy", errors);
    }
    for policy in rules.items("policies") {
        if !matches!(policy.str("type"), "Pods" | "Percent") {
            policy.unsupported("type", &["Percent", "Pods"], errors);
        }
        for field in ["value", "periodSeconds"] {
            let value = policy.int(field).unwrap_or_default();
            if value <= 0 {
                policy.invalid_as(field, value, "must be greater than zero", errors);
            }
        }
        if policy.int("periodSeconds").is_some_and(|s| s > PERIOD_SECONDS_MAX) {
            policy.invalid("periodSeconds", format!("must be less than or equal to {PERIOD_SECONDS_MAX}"), errors);
        }
    }
    if let Some(tolerance) = rules.some("tolerance").and_then(|t| quantity(t.tree)).filter(|t| t.sign() < 0) {
        rules.invalid_as("tolerance", tolerance.to_string(), super::NEGATIVE, errors);
    }
}

/// Metric types and the fields that hold their sources, in upstream's order.
const SOURCES: &[(&str, &str)] = &[
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

fn validate_metric(metric: &Spot<'_>, errors: &mut Errors) {
    let kind = metric.str("type");
    if kind.is_empty() {
        metric.required("type", "must specify a metric source type", errors);
    }
    let Some((_, expected)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        let supported = &["ContainerResource", "External", "Object", "Pods", "Resource"];
        metric.unsupported("type", supported, errors);
        return;
    };
    match metric.some(expected) {
        None => metric.required(expected, "must populate information for the given metric source", errors),
        Some(source) => validate_source(&source, kind, errors),
    }
    for (_, other) in SOURCES.iter().filter(|(_, field)| field != expected) {
        if metric.has(other) {
            metric.forbidden(other, "must populate the given metric source only", errors);
        }
    }
}

fn validate_source(source: &Spot<'_>, kind: &str, errors: &mut Errors) {
    let target = source.child("target");
    if kind == "Object" {
        reference(&source.child("describedObject"), true, errors);
    }
    if matches!(kind, "Resource" | "ContainerResource") {
        if source.str("name").is_empty() {
            source.required("name", "must specify a resource name", errors);
        }
        if kind == "ContainerResource" {
            match source.str("container") {
                "" => source.required("container", "must specify a container", errors),
                name => source.each("container", names::dns_label(name), errors),
            }
        }
    } else {
        match source.str("metric.name") {
            "" => source.required("metric.name", "must specify a metric name", errors),
            name => source.each("metric.name", names::path_segment(name), errors),
        }
    }
    validate_target(&target, errors);
    let (value, average) = (target.has("value"), target.has("averageValue"));
    let utilization = target.has("averageUtilization");
    match kind {
        "Object" if !value && !average => {
            target.required("averageValue", "must set either a target value or averageValue", errors);
        }
        "External" if !value && !average => {
            let detail = "must set either a target value for metric or a per-pod target";
            target.required("averageValue", detail, errors);
        }
        "External" if value && average => {
            target.forbidden("value", "may not set both a target value for metric and a per-pod target", errors);
        }
        "Pods" if !average => {
            target.required("averageValue", "must specify a positive target averageValue", errors);
        }
        "Resource" | "ContainerResource" if !utilization && !average => {
            let detail = "must set either a target raw value or a target utilization";
            target.required("averageUtilization", detail, errors);
        }
        "Resource" | "ContainerResource" if utilization && average => {
            target.forbidden("averageValue", "may not set both a target raw value and a target utilization", errors);
        }
        _ => {}
    }
}

fn validate_target(target: &Spot<'_>, errors: &mut Errors) {
    let kind = target.str("type");
    if kind.is_empty() {
        target.required("type", "must specify a metric target type", errors);
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        target.invalid_as("type", kind, "must be either Utilization, Value, or AverageValue", errors);
    }
    for field in ["value", "averageValue"] {
        if target.some(field).and_then(|v| quantity(v.tree)).is_some_and(|q| q.sign() <= 0) {
            target.invalid(field, "must be positive", errors);
        }
    }
    if target.int("averageUtilization").is_some_and(|n| n < 1) {
        target.invalid("averageUtilization", "must be greater than 0", errors);
    }
}
