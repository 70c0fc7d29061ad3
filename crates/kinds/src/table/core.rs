//! The small kinds of the core group.

use corten_tree::Tree;

use crate::quota::Counting;
use crate::spec::{Generation, Hooks, KindSpec, Subresource, Verbs};
use crate::validate::{Spot, pod, quota};
use crate::{Column, Of, RowContext, column};
use crate::{defaults, print};

/// `v1 Binding`
pub(crate) const BINDING: KindSpec = KindSpec {
    kind: "Binding",
    plural: "bindings",
    verbs: Verbs::CreateOnly,
    served_by: Some("api"),
    ..KindSpec::NAMESPACED
};

/// `v1 ComponentStatus`
pub(crate) const COMPONENT_STATUS: KindSpec = KindSpec {
    kind: "ComponentStatus",
    plural: "componentstatuses",
    short: &["cs"],
    verbs: Verbs::ReadOnly,
    columns: &[
        Column::NAME,
        column("Status", &Of(|o, _| Tree::from(component(o).0))),
        column("Message", &Of(|o, _| Tree::from(component(o).1))),
        column("Error", &Of(|o, _| Tree::from(component(o).2))),
    ],
    served_by: Some("api"),
    ..KindSpec::CLUSTER
};

/// `v1 LimitRange`
pub(crate) const LIMIT_RANGE: KindSpec = KindSpec {
    kind: "LimitRange",
    plural: "limitranges",
    short: &["limits"],
    served_by: Some("api"),
    create_on_update: true,
    columns: &[Column::NAME, Column::CREATED_AT],
    hooks: Hooks { default: Some(limit_range_default), validate: Some(quota::validate_limit_range), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

/// `v1 PodTemplate`
pub(crate) const POD_TEMPLATE: KindSpec = KindSpec {
    kind: "PodTemplate",
    returns_deleted: true,
    plural: "podtemplates",
    pod_spec: "template.spec",
    generation: Generation::OnChangeOf(&["template"]),
    columns: &[
        Column::NAME,
        column("Containers", &Of(|o, _| print::joined_field(o.list_at("template.spec.containers"), "name"))),
        column("Images", &Of(|o, _| print::joined_field(o.list_at("template.spec.containers"), "image"))),
        column("Pod Labels", &Of(|o, _| print::labels(o.map_at("template.metadata.labels")))),
    ],
    hooks: Hooks {
        default: Some(|o| defaults::at(o, "template.spec", defaults::pod_spec)),
        validate: Some(|o, errors| pod::validate_template(&Spot::of(o, "template"), errors)),
        warnings: Some(|o, old| crate::warnings::of_template(o, old, "template")),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

/// `v1 ResourceQuota`
pub(crate) const RESOURCE_QUOTA: KindSpec = KindSpec {
    kind: "ResourceQuota",
    returns_deleted: true,
    plural: "resourcequotas",
    short: &["quota"],
    counting: Counting::ObjectsAndPlural,
    served_by: Some("controllers"),
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Request", &Of(|o, c| quota(o, c, false))),
        column("Limit", &Of(|o, c| quota(o, c, true))),
        Column::AGE,
    ],
    hooks: Hooks {
        validate: Some(quota::validate),
        validate_update: Some(quota::validate_update),
        validate_status: Some(quota::validate_status),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

fn component(status: &Tree) -> (&str, &str, &str) {
    match status.list_at("conditions").iter().find(|c| c.str_at("type") == "Healthy") {
        None => ("Unknown", "", ""),
        Some(c) => {
            let text = if c.str_at("status") == "True" { "Healthy" } else { "Unhealthy" };
            (text, c.str_at("message"), c.str_at("error"))
        }
    }
}

/// `used/hard` of the resources that start with `limits.`, or of the others.
fn quota(object: &Tree, _: &RowContext, limits: bool) -> Tree {
    let used = object.map_at("status.used");
    let mut all: Vec<String> = object
        .map_at("status.hard")
        .iter()
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| {
            let used = used.get(name).map_or_else(|| "0".to_owned(), print::plain);
            format!("{name}: {used}/{}", print::plain(hard))
        })
        .collect();
    all.sort();
    Tree::from(all.join(", "))
}

/// `SetDefaults_LimitRangeItem`: limits from max, requests from limits, then from min.
fn limit_range_default(range: &mut Tree) {
    defaults::each(range, "spec.limits", |item| {
        for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            defaults::resource_list(item, list);
        }
        if item.str_at("type") != "Container" {
            return;
        }
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let source = item.map_at(from).clone();
            if source.is_empty() {
                continue;
            }
            let target = item.make_map_at(to);
            for (name, value) in source {
                target.insert_if_absent(name, value);
            }
            target.sort_keys();
        }
    });
}
