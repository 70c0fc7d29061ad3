//! HorizontalPodAutoscaler: `v2` is stored, `v1` converts.

use corten_tree::{Tree, tree};

use crate::print;
use crate::spec::{Generation, Hooks, KindSpec, Subresource, Version};
use crate::validate::hpa;
use crate::{Column, Number, Of, RowContext, column};

/// `autoscaling/v2 HorizontalPodAutoscaler`
pub(crate) const HORIZONTAL_POD_AUTOSCALER: KindSpec = KindSpec {
    group: "autoscaling",
    versions: &[Version::named("v2"), Version::converted("v1", to_v1, from_v1)],
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    short: &["hpa"],
    categories: &["all"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Reference", &Of(reference)),
        column("Targets", &Of(targets)),
        column("MinPods", &Of(min_pods)),
        column("MaxPods", &Number("spec.maxReplicas")),
        column("Replicas", &Number("status.currentReplicas")),
        Column::AGE,
    ],
    hooks: Hooks {
        default: Some(default),
        validate: Some(hpa::validate),
        validate_status: Some(hpa::validate_status),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

fn reference(hpa: &Tree, _: &RowContext) -> Tree {
    Tree::from(format!("{}/{}", hpa.str_at("spec.scaleTargetRef.kind"), hpa.str_at("spec.scaleTargetRef.name")))
}

fn min_pods(hpa: &Tree, _: &RowContext) -> Tree {
    Tree::from(hpa.i64_at("spec.minReplicas").map_or_else(|| "<unset>".to_owned(), |n| n.to_string()))
}

/// How many metrics show.
const SHOWN: usize = 2;

fn targets(hpa: &Tree, _: &RowContext) -> Tree {
    let specs = hpa.list_at("spec.metrics");
    if specs.is_empty() {
        return Tree::from("<none>");
    }
    let statuses = hpa.list_at("status.currentMetrics");
    let all: Vec<String> = specs.iter().enumerate().map(|(i, spec)| target(spec, statuses.get(i))).collect();
    Tree::from(match all.len() {
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(", "), n - SHOWN),
        _ => all.join(", "),
    })
}

/// One metric as `current/target` (`formatHPAMetrics`).
fn target(spec: &Tree, status: Option<&Tree>) -> String {
    let field = match spec.str_at("type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let source = spec.path(field).cloned().unwrap_or_default();
    let current = status.and_then(|s| s.path(field)).and_then(|s| s.path("current"));
    let now = |name: &str| {
        current.and_then(|c| c.get(name)).filter(|v| !v.is_null()).map_or_else(|| "<unknown>".to_owned(), print::plain)
    };
    let wanted =
        |name: &str| source.path("target").and_then(|t| t.get(name)).filter(|v| !v.is_null()).map(print::plain);
    let percent = |text: String| if text == "<unknown>" { text } else { format!("{text}%") };
    let resource = matches!(field, "resource" | "containerResource");
    match (resource, wanted("averageValue")) {
        (true, Some(value)) => format!("{}: {}/{value}", source.str_at("name"), now("averageValue")),
        (true, None) => {
            let value = wanted("averageUtilization").map_or_else(|| "<auto>".to_owned(), |v| format!("{v}%"));
            format!("{}: {}/{value}", source.str_at("name"), percent(now("averageUtilization")))
        }
        (false, Some(value)) if field == "pods" => format!("{}/{value}", now("averageValue")),
        (false, Some(value)) => format!("{}/{value} (avg)", now("averageValue")),
        (false, None) => format!("{}/{}", now("value"), wanted("value").unwrap_or_default()),
    }
}

/// Where `v1` keeps what it has no fields for.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// Whether a metric is what `v1` has a field for: average utilisation of cpu.
fn is_cpu(metric: &Tree) -> bool {
    metric.str_at("type") == "Resource" && metric.str_at("resource.name") == "cpu"
}

/// `v2` as `v1` (`pkg/apis/autoscaling/v1/conversion.go`): the cpu target becomes a field, the rest annotations.
fn to_v1(hpa: &mut Tree) {
    let annotate = |hpa: &mut Tree, key: &'static str, value: &Tree| {
        let annotations = hpa.make_map_at("metadata.annotations");
        annotations.insert(key, value.to_json_string());
        annotations.sort_keys();
    };
    let mut metrics = take_list(hpa, "spec.metrics");
    let cpu = metrics.iter().position(|m| is_cpu(m) && m.i64_at("resource.target.averageUtilization").is_some());
    if let Some(at) = cpu {
        let metric = metrics.remove(at);
        hpa.set("spec.targetCPUUtilizationPercentage", metric.path("resource.target.averageUtilization").cloned());
    }
    if !metrics.is_empty() {
        annotate(hpa, METRICS, &Tree::List(metrics));
    }
    if let Some(behavior) = hpa.remove("spec.behavior").filter(|b| !b.is_null()) {
        annotate(hpa, BEHAVIOR, &behavior);
    }
    let mut current = take_list(hpa, "status.currentMetrics");
    let cpu = current.iter().position(|m| is_cpu(m) && m.i64_at("resource.current.averageUtilization").is_some());
    if let Some(at) = cpu {
        let percentage = current[at].path("resource.current.averageUtilization").cloned();
        hpa.set("status.currentCPUUtilizationPercentage", percentage);
        current.remove(at);
    }
    if !current.is_empty() {
        annotate(hpa, CURRENT, &Tree::List(current));
    }
    let conditions = take_list(hpa, "status.conditions");
    if !conditions.is_empty() {
        annotate(hpa, CONDITIONS, &Tree::List(conditions));
    }
}

fn take_list(hpa: &mut Tree, path: &str) -> Vec<Tree> {
    match hpa.remove(path) {
        Some(Tree::List(items)) => items,
        _ => Vec::new(),
    }
}

/// `v1` as `v2`.
fn from_v1(hpa: &mut Tree) {
    let mut metrics = Vec::new();
    if let Some(Tree::Int(percentage)) = hpa.remove("spec.targetCPUUtilizationPercentage") {
        metrics.push(tree!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": percentage}}}));
    }
    let mut current = Vec::new();
    if let Some(Tree::Int(percentage)) = hpa.remove("status.currentCPUUtilizationPercentage") {
        current.push(tree!({"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": percentage}}}));
    }
    let mut take = |key: &str| {
        let annotations = hpa.path_mut("metadata.annotations")?.as_map_mut()?;
        let text = annotations.remove(key)?;
        corten_tree::json::parse(text.as_str()?.as_bytes()).ok()
    };
    let (more, behavior, more_current, conditions) = (take(METRICS), take(BEHAVIOR), take(CURRENT), take(CONDITIONS));
    for (list, extra) in [(&mut metrics, more), (&mut current, more_current)] {
        if let Some(Tree::List(items)) = extra {
            list.extend(items);
        }
    }
    if !metrics.is_empty() {
        hpa.set("spec.metrics", Tree::List(metrics));
    }
    if let Some(behavior) = behavior {
        hpa.set("spec.behavior", behavior);
    }
    if !current.is_empty() {
        hpa.set("status.currentMetrics", Tree::List(current));
    }
    if let Some(conditions) = conditions {
        hpa.set("status.conditions", conditions);
    }
}

/// `pkg/apis/autoscaling/v2/defaults.go`: one replica, 80 % cpu, and full scaling rules once there is a behavior.
fn default(hpa: &mut Tree) {
    hpa.set_default("spec.minReplicas", 1);
    if hpa.list_at("spec.metrics").is_empty() {
        hpa.set(
            "spec.metrics",
            tree!([{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}]),
        );
    }
    if hpa.path("spec.behavior").is_none() {
        return;
    }
    hpa.set_default("spec.behavior.scaleUp.stabilizationWindowSeconds", 0);
    for (rules, policies) in [
        (
            "scaleUp",
            tree!([{"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15}]),
        ),
        ("scaleDown", tree!([{"type": "Percent", "value": 100, "periodSeconds": 15}])),
    ] {
        hpa.set_default(&format!("spec.behavior.{rules}.selectPolicy"), "Max");
        hpa.set_default(&format!("spec.behavior.{rules}.policies"), policies);
    }
}
