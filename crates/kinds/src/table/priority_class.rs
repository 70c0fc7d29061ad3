//! PriorityClass.

use corten_tree::Tree;

use crate::Errors;
use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec};
use crate::validate::Spot;
use crate::{Column, Number, Of, TextOr, column};

/// `scheduling.k8s.io/v1 PriorityClass`
pub(crate) const PRIORITY_CLASS: KindSpec = KindSpec {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    short: &["pc"],
    // Nothing of it may change but its metadata and description: generation stays 1.
    generation: Generation::OnChangeOf(&["value"]),
    columns: &[
        Column::NAME,
        column("Value", &Number("value")).integer(),
        column("Global-Default", &Of(|o, _| Tree::Bool(o.bool_at("globalDefault")))).boolean(),
        Column::AGE,
        column("PreemptionPolicy", &TextOr("preemptionPolicy", "")),
    ],
    immutable: &["preemptionPolicy"],
    served_by: Some("scheduler"),
    hooks: Hooks {
        default: Some(|class| defaults::value(class, "preemptionPolicy", "PreemptLowerPriority")),
        validate: Some(validate),
        validate_update: Some(validate_update),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

/// The highest value that is not the system's own.
const USER_MAX: i64 = 1_000_000_000;
/// The system's own classes.
const SYSTEM: &[(&str, i64)] =
    &[("system-node-critical", 2 * USER_MAX + 1000), ("system-cluster-critical", 2 * USER_MAX)];

/// `ValidatePriorityClass`
fn validate(class: &Tree, errors: &mut Errors) {
    let name = class.str_at("metadata.name");
    let value = class.i64_at("value").unwrap_or_default();
    if name.starts_with("system-") {
        let why = match SYSTEM.iter().find(|(system, _)| *system == name) {
            None => format!("{name} is not a known system priority class"),
            Some((_, expected)) if *expected != value => format!("value of {name} PriorityClass must be {expected}"),
            Some(_) if class.bool_at("globalDefault") => format!("globalDefault of {name} PriorityClass must be false"),
            Some(_) => String::new(),
        };
        if !why.is_empty() {
            let detail =
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}");
            Spot::of(class, "metadata").forbidden("name", detail, errors);
        }
    } else if value > USER_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_MAX}");
        Spot::of(class, "value").forbidden("", detail, errors);
    }
    let policy = Spot::of(class, "preemptionPolicy");
    if policy.has("") {
        policy.one_of("", &["PreemptLowerPriority", "Never"], errors);
    }
}

fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    if new.i64_at("value") != old.i64_at("value") {
        Spot::of(new, "value").forbidden("", "may not be changed in an update.", errors);
    }
}
