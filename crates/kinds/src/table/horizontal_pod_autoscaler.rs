//! HorizontalPodAutoscaler: `v2` is stored, `v1` converts.

use corten_tree::{Tree, tree};

use super::horizontal_pod_autoscaler_v1::{drop_annotations, from_v1, to_v1};
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
    served_by: Some("controllers"),
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

/// `pkg/apis/autoscaling/v2/defaults.go`: one replica, 80 % cpu, and full scaling rules once there is a behavior.
fn default(hpa: &mut Tree) {
    drop_annotations(hpa);
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
