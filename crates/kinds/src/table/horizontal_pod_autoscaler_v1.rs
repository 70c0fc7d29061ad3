//! HorizontalPodAutoscaler at `v1`: what it has no fields for stands in annotations, in forms of their own.
//!
//! Upstream: `pkg/apis/autoscaling/v1/conversion.go`. The metrics there are `v1`'s types, which are served nowhere; the behavior is
//! the type in memory, by Go's names.

use corten_schema::internal;
use corten_tree::{Map, Tree, tree};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// The annotations are conversion's own: no object keeps them. (`DropRoundTripHorizontalPodAutoscalerAnnotations`)
pub(super) fn drop_annotations(hpa: &mut Tree) {
    let Some(annotations) = hpa.path_mut("metadata.annotations").and_then(Tree::as_map_mut) else { return };
    for key in [METRICS, BEHAVIOR, CURRENT, CONDITIONS] {
        annotations.remove(key);
    }
}

/// Whether a metric is what `v1` has a field for: average utilisation of cpu.
fn cpu<'m>(metric: &'m Tree, value: &str) -> Option<&'m Tree> {
    let is_cpu = metric.str_at("type") == "Resource" && metric.str_at("resource.name") == "cpu";
    metric.path(&format!("resource.{value}.averageUtilization")).filter(|found| is_cpu && !found.is_null())
}

/// `v2` as `v1`.
pub(super) fn to_v1(hpa: &mut Tree) {
    drop_annotations(hpa);
    let metrics = take_list(hpa, "spec.metrics");
    if let Some(target) = metrics.iter().find_map(|metric| cpu(metric, "target")) {
        hpa.set("spec.targetCPUUtilizationPercentage", target.clone());
    }
    let current = take_list(hpa, "status.currentMetrics");
    if let Some(percentage) = current.iter().rev().find_map(|metric| cpu(metric, "current")) {
        hpa.set("status.currentCPUUtilizationPercentage", percentage.clone());
    }
    let others = metrics.iter().filter(|metric| cpu(metric, "target").is_none());
    let others: Vec<Tree> = others.map(|metric| metric_to_v1(metric, "target")).collect();
    let current: Vec<Tree> = current.iter().map(|metric| metric_to_v1(metric, "current")).collect();
    let conditions = take_list(hpa, "status.conditions");
    let behavior = hpa.remove("spec.behavior").filter(|behavior| !behavior.is_null()).map(|behavior| {
        internal::shown_as(corten_schema::builtin(), "autoscaling.v2.HorizontalPodAutoscalerBehavior", &behavior)
    });
    let list =
        |items: Vec<Tree>| Some(Tree::List(items)).filter(|list| !list.as_list().is_some_and(<[Tree]>::is_empty));
    for (key, value) in
        [(METRICS, list(others)), (CURRENT, list(current)), (BEHAVIOR, behavior), (CONDITIONS, list(conditions))]
    {
        if let Some(value) = value {
            let annotations = hpa.make_map_at("metadata.annotations");
            annotations.insert(key, value.to_json_string());
            annotations.sort_keys();
        }
    }
}

fn take_list(hpa: &mut Tree, path: &str) -> Vec<Tree> {
    match hpa.remove(path) {
        Some(Tree::List(items)) => items,
        _ => Vec::new(),
    }
}

/// `v1` as `v2`.
pub(super) fn from_v1(hpa: &mut Tree) {
    let annotation = |key: &str| {
        let text = hpa.map_at("metadata.annotations").get(key)?.as_str()?.to_owned();
        corten_tree::json::parse(text.as_bytes()).ok()
    };
    let lists = [METRICS, CURRENT, CONDITIONS].map(|key| match annotation(key) {
        Some(Tree::List(items)) => Some(items),
        _ => None,
    });
    let behavior = annotation(BEHAVIOR).map(|behavior| by_json_names(&behavior));
    let [others, current, conditions] = lists;
    drop_annotations(hpa);
    let mut metrics: Vec<Tree> =
        others.unwrap_or_default().iter().map(|metric| metric_from_v1(metric, "target")).collect();
    if let Some(Tree::Int(percentage)) = hpa.remove("spec.targetCPUUtilizationPercentage") {
        metrics.push(tree!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": percentage}}}));
    }
    if !metrics.is_empty() {
        hpa.set("spec.metrics", Tree::List(metrics));
    }
    if let Some(behavior) = behavior.filter(|behavior| !behavior.semantically_equal(&Tree::map())) {
        hpa.set("spec.behavior", behavior);
    }
    let percentage = hpa.remove("status.currentCPUUtilizationPercentage");
    match (current, percentage) {
        // The annotation knows more.
        (Some(items), _) => {
            let items: Vec<Tree> = items.iter().map(|metric| metric_from_v1(metric, "current")).collect();
            hpa.set("status.currentMetrics", Tree::List(items));
        }
        (None, Some(Tree::Int(percentage))) => {
            let current = tree!([{"type": "Resource", "resource": {"name": "cpu",
                "current": {"averageUtilization": percentage}}}]);
            hpa.set("status.currentMetrics", current);
        }
        _ => {}
    }
    if let Some(items) = conditions {
        hpa.set("status.conditions", Tree::List(items));
    }
}

/// A value by the JSON names of its fields, whatever the case of their first letter: Go reads names in any case.
fn by_json_names(value: &Tree) -> Tree {
    let lower = |key: &str| {
        let mut chars = key.chars();
        chars.next().map(|first| first.to_lowercase().chain(chars).collect::<String>()).unwrap_or_default()
    };
    match value {
        Tree::Map(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Tree::Map(kept.map(|(key, value)| (lower(key).into(), by_json_names(value))).collect())
        }
        Tree::List(items) => Tree::List(items.iter().map(by_json_names).collect()),
        other => other.clone(),
    }
}

/// The sorts of metrics.
const SORTS: [&str; 5] = ["object", "pods", "resource", "containerResource", "external"];

/// `target` or `current` as a prefix of `v1`'s names: `targetAverageValue`, `currentAverageValue`.
fn prefixed(value: &str, name: &str) -> String {
    format!("{value}{name}")
}

/// A metric or its status (`value`: `target`, `current`) in `v1`'s form.
fn metric_to_v1(metric: &Tree, value: &str) -> Tree {
    let mut out = tree!({"type": (metric.str_at("type"))});
    for sort in SORTS {
        let Some(source) = metric.get(sort).filter(|source| !source.is_null()) else { continue };
        let of = |path: &str| source.path(path).filter(|found| !found.is_null()).cloned();
        let amount = |name: &str| of(&format!("{value}.{name}"));
        let zero = || Tree::from("0");
        let status = value == "current";
        let mut v1 = Map::new();
        let mut put = |name: String, found: Option<Tree>| {
            if let Some(found) = found {
                v1.insert(name, found);
            }
        };
        match sort {
            "object" => {
                put("target".into(), of("describedObject"));
                put("metricName".into(), of("metric.name"));
                put(prefixed(value, "Value"), Some(amount("value").unwrap_or_else(zero)));
                put("selector".into(), of("metric.selector"));
                put("averageValue".into(), amount("averageValue"));
            }
            "pods" => {
                put("metricName".into(), of("metric.name"));
                put(prefixed(value, "AverageValue"), Some(amount("averageValue").unwrap_or_else(zero)));
                put("selector".into(), of("metric.selector"));
            }
            "external" => {
                put("metricName".into(), of("metric.name"));
                put("metricSelector".into(), of("metric.selector"));
                put(prefixed(value, "Value"), amount("value").or_else(|| status.then(zero)));
                put(prefixed(value, "AverageValue"), amount("averageValue"));
            }
            _ => {
                put("name".into(), of("name"));
                put(prefixed(value, "AverageUtilization"), amount("averageUtilization"));
                put(prefixed(value, "AverageValue"), amount("averageValue").or_else(|| status.then(zero)));
                if sort == "containerResource" {
                    put("container".into(), of("container"));
                }
            }
        }
        out.insert(sort, Tree::Map(v1));
    }
    out
}

/// The way back.
fn metric_from_v1(metric: &Tree, value: &str) -> Tree {
    let mut out = tree!({"type": (metric.str_at("type"))});
    for sort in SORTS {
        let Some(source) = metric.get(sort).filter(|source| !source.is_null()) else { continue };
        let of = |name: &str| source.get(name).filter(|found| !found.is_null()).cloned();
        let status = value == "current";
        let (whole, average) = (of(&prefixed(value, "Value")), of(&prefixed(value, "AverageValue")));
        let zero = || Some(Tree::from("0"));
        let (mut amount, mut v2) = (Tree::map(), Tree::map());
        let mut put = |kind: &str, parts: [(&'static str, Option<Tree>); 3]| {
            if !status {
                amount.insert("type", kind);
            }
            for (name, found) in parts {
                if let Some(found) = found {
                    amount.insert(name, found);
                }
            }
        };
        let mut identifier = tree!({"name": (source.str_at("metricName"))});
        let selector = if sort == "external" { "metricSelector" } else { "selector" };
        if let Some(selector) = of(selector) {
            identifier.insert("selector", selector);
        }
        match sort {
            "object" => {
                v2.insert("describedObject", of("target").unwrap_or_else(Tree::map));
                let average = of("averageValue");
                let kind = if average.is_some() { "AverageValue" } else { "Value" };
                // `v1` cannot leave the value out.
                let is_zero = whole.as_ref().is_none_or(|whole| whole.as_str() == Some("0"));
                let whole = if !status && average.is_some() && is_zero { None } else { whole.or_else(zero) };
                put(kind, [("value", whole), ("averageValue", average), ("averageUtilization", None)]);
            }
            "pods" => {
                put(
                    "AverageValue",
                    [("averageValue", average.or_else(zero)), ("value", None), ("averageUtilization", None)],
                );
            }
            "external" => {
                let kind = if whole.is_some() { "Value" } else { "AverageValue" };
                let whole = whole.or_else(|| zero().filter(|_| status));
                put(kind, [("value", whole), ("averageValue", average), ("averageUtilization", None)]);
            }
            _ => {
                v2.insert("name", source.str_at("name"));
                if sort == "containerResource" {
                    v2.insert("container", source.str_at("container"));
                }
                let utilization = of(&prefixed(value, "AverageUtilization"));
                let kind = if utilization.is_some() { "Utilization" } else { "AverageValue" };
                let average = average.or_else(|| zero().filter(|_| status));
                put(kind, [("averageValue", average), ("averageUtilization", utilization), ("value", None)]);
            }
        }
        if !sort.ends_with("esource") {
            v2.insert("metric", identifier);
        }
        v2.insert(value.to_owned(), amount);
        out.insert(sort, v2);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every sort of metric there and back, by upstream's text.
    #[test]
    fn hpa_v1_annotations_have_upstreams_form() {
        let v2 = tree!({"metadata": {"annotations": {METRICS: "mine", "other": "kept"}}, "spec": {"metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
            {"type": "Pods", "pods": {"metric": {"name": "p"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
            {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s", "apiVersion": "v1"},
                "metric": {"name": "o"}, "target": {"type": "Value", "value": "2k"}}},
            {"type": "External", "external": {"metric": {"name": "e", "selector": {"matchLabels": {"a": "b"}}},
                "target": {"type": "AverageValue", "averageValue": "3"}}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                "target": {"type": "Utilization", "averageUtilization": 7}}}],
            "behavior": {"scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 2}]}}},
            "status": {"currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                "current": {"averageUtilization": 50, "averageValue": "100m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}]}});
        let mut v1 = v2.clone();
        to_v1(&mut v1);
        assert_eq!(v1.i64_at("spec.targetCPUUtilizationPercentage"), Some(60));
        assert_eq!(v1.i64_at("status.currentCPUUtilizationPercentage"), Some(50));
        let annotation = |key: &str| v1.map_at("metadata.annotations").get(key).unwrap().as_str().unwrap().to_owned();
        assert_eq!(
            annotation(METRICS),
            concat!(
                r#"[{"type":"Resource","resource":{"name":"memory","targetAverageValue":"1Gi"}},"#,
                r#"{"type":"Pods","pods":{"metricName":"p","targetAverageValue":"5"}},"#,
                r#"{"type":"Object","object":{"target":{"kind":"Service","name":"s","apiVersion":"v1"},"metricName":"o","#,
                r#""targetValue":"2k"}},"#,
                r#"{"type":"External","external":{"metricName":"e","metricSelector":{"matchLabels":{"a":"b"}},"#,
                r#""targetAverageValue":"3"}},"#,
                r#"{"type":"ContainerResource","containerResource":{"name":"cpu","targetAverageUtilization":7,"container":"c"}}]"#
            )
        );
        assert_eq!(
            annotation(BEHAVIOR),
            concat!(
                r#"{"ScaleUp":null,"ScaleDown":{"StabilizationWindowSeconds":null,"SelectPolicy":"Max","#,
                r#""Policies":[{"Type":"Pods","Value":1,"PeriodSeconds":2}],"Tolerance":null}}"#
            )
        );
        let current = r#"[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":50,"currentAverageValue":"100m"}}]"#;
        assert_eq!(annotation(CURRENT), current);
        let mut back = v1;
        from_v1(&mut back);
        let mut wanted = v2;
        drop_annotations(&mut wanted);
        let mut metrics = take_list(&mut wanted, "spec.metrics");
        // The one that has a field comes last.
        metrics.rotate_left(1);
        wanted.set("spec.metrics", metrics);
        assert!(back.semantically_equal(&wanted), "{back}\n{wanted}");
    }

    #[test]
    fn hpa_v1_behavior_may_be_written_in_any_case_and_an_empty_one_is_none() {
        for (text, behavior) in [
            ("{}", None),
            (r#"{"scaleUp":{"selectPolicy":"Min"}}"#, Some(r#"{"scaleUp":{"selectPolicy":"Min"}}"#)),
            (r#"{"ScaleUp":{"SelectPolicy":"Min"}}"#, Some(r#"{"scaleUp":{"selectPolicy":"Min"}}"#)),
        ] {
            let mut hpa = tree!({"metadata": {"annotations": {BEHAVIOR: text}}, "spec": {}});
            from_v1(&mut hpa);
            assert_eq!(hpa.path("spec.behavior").map(Tree::to_json_string).as_deref(), behavior);
            assert!(hpa.map_at("metadata.annotations").is_empty());
        }
    }
}
