//! What the workload kinds share: selector and template, replica counts, integers or percentages, claim templates.

use corten_object::{LabelSelector, Labels};
use corten_tree::Tree;

use super::labels::{selects_something, validate_selector};
use super::{NEGATIVE, Spot, names, pod, resources, volume};
use crate::Errors;

/// The kind's name in messages, and how its selector faults read.
pub(crate) struct Workload {
    /// In `empty selector is invalid for …`.
    pub selector_of: &'static str,
    /// In `activeDeadlineSeconds in … is not Supported`.
    pub kind: &'static str,
}

/// Checks the selector of a workload (`spec.selector`), which must be there and select something.
pub(crate) fn validate_workload_selector(spec: &Spot<'_>, workload: &Workload, errors: &mut Errors) {
    match spec.some("selector") {
        None => spec.required("selector", "", errors),
        Some(selector) => {
            validate_selector(&selector, errors);
            if !selects_something(selector.tree) {
                let detail = format!("empty selector is invalid for {}", workload.selector_of);
                selector.invalid("", detail, errors);
            }
        }
    }
}

/// Checks that the selector selects the template's labels: no selector selects nothing, an empty one everything. One that cannot be
/// parsed is reported with the detail; false if it was.
pub(crate) fn validate_selected_labels(spec: &Spot<'_>, malformed: Option<&str>, errors: &mut Errors) -> bool {
    let mut faults = Errors::new();
    validate_selector(&spec.child("selector"), &mut faults);
    let parsed = LabelSelector::from_tree(spec.tree.path("selector")).ok().filter(|_| faults.is_empty());
    let Some(selector) = parsed else {
        if let Some(detail) = malformed {
            spec.invalid("selector", detail, errors);
        }
        return false;
    };
    let some = selects_something(spec.child("selector").tree);
    if spec.has("selector") && !some {
        return true;
    }
    let template = spec.child("template");
    let labels = template.map("metadata.labels");
    let pairs = labels.iter().map(|(k, v)| (k.into(), v.as_str().unwrap_or_default().into())).collect();
    if !some || !selector.matches(&Labels::new(pairs)) {
        let shown = if labels.is_empty() { Tree::Null } else { Tree::Map(labels.clone()) };
        template.invalid_as("metadata.labels", shown, "`selector` does not match template `labels`", errors);
    }
    true
}

/// Checks a template that must restart its pods for ever.
pub(crate) fn validate_restarting_template(spec: &Spot<'_>, workload: &Workload, errors: &mut Errors) {
    if !validate_selected_labels(spec, Some("invalid label selector"), errors) {
        return;
    }
    let template = spec.child("template");
    pod::validate_template(&template, errors);
    restarts_always(&template, workload, errors);
}

/// `restartPolicy: Always` and no deadline.
pub(crate) fn restarts_always(template: &Spot<'_>, workload: &Workload, errors: &mut Errors) {
    if template.str("spec.restartPolicy") != "Always" {
        template.unsupported("spec.restartPolicy", &["Always"], errors);
    }
    if template.has("spec.activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {} is not Supported", workload.kind);
        template.forbidden("spec.activeDeadlineSeconds", detail, errors);
    }
}

/// `ValidatePositiveIntOrPercent`
pub(crate) fn int_or_percent(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    match spot.child(field).tree {
        Tree::Null => {}
        Tree::Str(text) => spot.each(field, names::percent(text), errors),
        other if other.as_i64().is_some_and(|n| n < 0) => spot.invalid(field, NEGATIVE, errors),
        _ => {}
    }
}

/// The number of an integer or percentage, 0 if it is neither.
pub(crate) fn int_or_percent_value(spot: &Spot<'_>, field: &str) -> i64 {
    match spot.child(field).tree {
        Tree::Str(text) => text.strip_suffix('%').unwrap_or(text).parse().unwrap_or_default(),
        other => other.as_i64().unwrap_or_default(),
    }
}

/// `IsNotMoreThan100Percent`
pub(crate) fn at_most_100_percent(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    let is_percent = names::percent(spot.str(field)).is_empty();
    if is_percent && int_or_percent_value(spot, field) > 100 {
        spot.invalid(field, "must not be greater than 100%", errors);
    }
}

/// Checks counts of a status: none negative, none of `parts` above `replicas`, available not above ready.
pub(crate) fn validate_counts(status: &Spot<'_>, counts: &[&str], parts: &[&str], ready: &str, errors: &mut Errors) {
    for count in counts {
        status.non_negative(count, errors);
    }
    let number = |field: &str| status.int(field).unwrap_or_default();
    for part in parts {
        if number(part) > number("replicas") {
            status.invalid_as(part, number(part), "cannot be greater than status.replicas", errors);
        }
    }
    if number("availableReplicas") > number("readyReplicas") {
        status.invalid("availableReplicas", format!("cannot be greater than {ready}"), errors);
    }
}

/// `collisionCount` only grows.
pub(crate) fn collisions_only_grow(new: &Tree, old: &Tree, errors: &mut Errors) {
    let count = |tree: &Tree| tree.i64_at("status.collisionCount");
    if count(old).is_some_and(|before| count(new).unwrap_or_default() < before) {
        let value = count(new).unwrap_or_default();
        Spot::of(new, "status").invalid_as("collisionCount", value, "cannot be decremented", errors);
    }
}

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Checks the access modes of a volume.
pub(crate) fn access_modes(spec: &Spot<'_>, errors: &mut Errors) {
    if spec.list("accessModes").is_empty() {
        spec.required("accessModes", "", errors);
    }
    each_access_mode(spec, errors);
}

fn each_access_mode(spec: &Spot<'_>, errors: &mut Errors) {
    let modes: Vec<&str> = spec.list("accessModes").iter().filter_map(Tree::as_str).collect();
    // Upstream reports a bad mode at the list.
    for mode in modes.iter().filter(|m| !ACCESS_MODES.contains(m)) {
        let path = spec.path.child("accessModes");
        errors.push(corten_object::FieldError::not_supported(&path, mode, ACCESS_MODES));
    }
    let others = modes.iter().any(|m| *m != "ReadWriteOncePod" && ACCESS_MODES.contains(m));
    if modes.contains(&"ReadWriteOncePod") && others {
        spec.forbidden("accessModes", "may not use ReadWriteOncePod with other access modes", errors);
    }
}

/// `ValidatePersistentVolumeClaimSpec`. `any_group`: the groups of data sources are not checked.
pub(crate) fn claim_spec(spec: &Spot<'_>, any_group: bool, errors: &mut Errors) {
    if spec.list("accessModes").is_empty() {
        spec.required("accessModes", "at least 1 access mode is required", errors);
    }
    if let Some(selector) = spec.some("selector") {
        validate_selector(&selector, errors);
    }
    each_access_mode(spec, errors);
    let requests = spec.child("resources.requests");
    let place = spec.path.child("resources").key("storage");
    match requests.map("").get("storage") {
        None => Spot::at(requests.tree, place).required("", "", errors),
        Some(tree) => {
            let at = Spot::at(tree, place);
            match super::quantity(tree) {
                Some(value) if value.sign() <= 0 => {
                    at.invalid_as("", value.to_string(), super::NOT_POSITIVE, errors);
                }
                Some(value) => resources::quantity_value(&at, "storage", &value, errors),
                None => {}
            }
        }
    }
    let class = spec.str("storageClassName");
    if !class.is_empty() {
        spec.each("storageClassName", names::dns_subdomain(class), errors);
    }
    spec.optional_one_of("volumeMode", &["Block", "Filesystem"], errors);
    data_sources(spec, any_group, errors);
    let attributes = spec.str("volumeAttributesClassName");
    if !attributes.is_empty() {
        spec.each("volumeAttributesClassName", names::dns_subdomain(attributes), errors);
    }
}

/// `validateDataSource`, `validateDataSourceRef`
fn data_sources(spec: &Spot<'_>, any_group: bool, errors: &mut Errors) {
    for field in ["dataSource", "dataSourceRef"] {
        let Some(source) = spec.some(field) else { continue };
        for field in ["name", "kind"] {
            if source.str(field).is_empty() {
                source.required(field, "", errors);
            }
        }
        let (group, kind) = (source.str("apiGroup"), source.str("kind"));
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            source.invalid_as("", kind, detail, errors);
        }
        if !group.is_empty() && !any_group {
            source.each("apiGroup", names::dns_subdomain(group), errors);
        }
        if !source.str("namespace").is_empty() && field == "dataSourceRef" {
            source.each("namespace", names::dns_label(source.str("namespace")), errors);
        }
    }
    let (Some(source), Some(reference)) = (spec.some("dataSource"), spec.some("dataSourceRef")) else { return };
    let detail = if !reference.str("namespace").is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if ["apiGroup", "kind", "name"].iter().any(|field| source.child(field).tree != reference.child(field).tree) {
        "must match dataSourceRef"
    } else {
        return;
    };
    // Upstream shows a path where the value should be: an empty struct.
    errors.push(corten_object::FieldError::invalid(&spec.path, &Tree::map(), detail).as_shown());
}

/// A claim template inside a pod.
pub(crate) fn claim_template(template: &Spot<'_>, errors: &mut Errors) {
    volume::template_meta(template, errors);
    claim_spec(&template.child("spec"), false, errors);
}
