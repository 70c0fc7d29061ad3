//! Job specs, of Jobs and of CronJobs' templates. (`pkg/apis/batch/validation/validation.go`)

use std::collections::HashSet;

use corten_object::CauseKind;
use corten_tree::Tree;

use super::{Spot, fault, names, pod};
use crate::Errors;

const PARALLELISM_MAX: i64 = 100_000;
const COMPLETIONS_SOFT_MAX: i64 = 100_000;
const HIGH_COMPLETIONS_MAX: i64 = 10_000;
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const MANAGED_BY_MAX: usize = 63;

/// `validateJobSpec`
pub(crate) fn validate_spec(spec: &Spot<'_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.non_negative(field, errors);
    }
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        spec.required("backoffLimitPerIndex", "when maxFailedIndexes is specified", errors);
    }
    if spec.has("managedBy") {
        managed_by(spec, errors);
    }
    spec.optional_one_of("completionMode", &["NonIndexed", "Indexed"], errors);
    if spec.str("completionMode") == "Indexed" {
        indexed(spec, errors);
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if spec.has(field) && matches!(spec.str("completionMode"), "" | "NonIndexed") {
                spec.invalid(field, "requires indexed completion mode", errors);
            }
        }
    }
    if let Some(policy) = spec.some("podFailurePolicy") {
        failure_policy(spec, &policy, errors);
    }
    if let Some(policy) = spec.some("successPolicy") {
        success_policy(spec, &policy, errors);
    }
    if spec.has("podReplacementPolicy") {
        let supported: &[&str] =
            if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        spec.optional_one_of("podReplacementPolicy", supported, errors);
    }
    let template = spec.child("template");
    pod::validate_template(&template, errors);
    match template.str("spec.restartPolicy") {
        "" | "Always" => {
            template.required("spec.restartPolicy", "valid values: \"OnFailure\", \"Never\"", errors);
        }
        "OnFailure" if spec.has("podFailurePolicy") => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            template.invalid("spec.restartPolicy", detail, errors);
        }
        "OnFailure" | "Never" => {}
        _ => template.unsupported("spec.restartPolicy", &["OnFailure", "Never"], errors),
    }
}

fn managed_by(spec: &Spot<'_>, errors: &mut Errors) {
    let text = spec.str("managedBy");
    match text.split_once('/') {
        _ if text.is_empty() => spec.required("managedBy", "", errors),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            for message in names::dns_subdomain(host) {
                spec.invalid_as("managedBy", host, message, errors);
            }
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            spec.invalid("managedBy", detail, errors);
        }
    }
    if text.len() > MANAGED_BY_MAX {
        spec.too_long("managedBy", MANAGED_BY_MAX, errors);
    }
}

fn indexed(spec: &Spot<'_>, errors: &mut Errors) {
    let (completions, parallelism) = (spec.int("completions"), spec.int("parallelism"));
    let failed = spec.int("maxFailedIndexes");
    if completions.is_none() {
        spec.required("completions", "when completion mode is Indexed", errors);
    }
    if parallelism.is_some_and(|p| p > PARALLELISM_MAX) {
        let detail = format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed");
        spec.invalid("parallelism", detail, errors);
    }
    if failed > completions && completions.is_some() {
        spec.invalid("maxFailedIndexes", "must be less than or equal to completions", errors);
    }
    if failed.is_some_and(|f| f > COMPLETIONS_SOFT_MAX) {
        spec.invalid("maxFailedIndexes", format!("must be less than or equal to {COMPLETIONS_SOFT_MAX}"), errors);
    }
    if completions.is_some_and(|c| c > COMPLETIONS_SOFT_MAX) && spec.has("backoffLimitPerIndex") {
        if failed.is_none() {
            let detail = format!("must be specified when completions is above {COMPLETIONS_SOFT_MAX}");
            spec.required("maxFailedIndexes", detail, errors);
        }
        for field in ["parallelism", "maxFailedIndexes"] {
            if spec.int(field).is_some_and(|n| n > HIGH_COMPLETIONS_MAX) {
                let detail = format!(
                    "must be less than or equal to {HIGH_COMPLETIONS_MAX} when completions are above \
                     {COMPLETIONS_SOFT_MAX} and used with backoff limit per index"
                );
                spec.invalid(field, detail, errors);
            }
        }
    }
}

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];

fn failure_policy(spec: &Spot<'_>, policy: &Spot<'_>, errors: &mut Errors) {
    let rules = policy.items("rules");
    if rules.len() > RULES_MAX {
        policy.too_many("rules", RULES_MAX, errors);
    }
    let containers: HashSet<&str> = ["template.spec.containers", "template.spec.initContainers"]
        .iter()
        .flat_map(|list| spec.list(list))
        .map(|c| c.str_at("name"))
        .collect();
    for rule in rules {
        match rule.str("action") {
            "" => rule.required("action", format!("valid values: {}", quoted(ACTIONS)), errors),
            "FailIndex" if !spec.has("backoffLimitPerIndex") => {
                rule.invalid("action", "requires the backoffLimitPerIndex to be set", errors);
            }
            action if ACTIONS.contains(&action) => {}
            _ => rule.unsupported("action", ACTIONS, errors),
        }
        if let Some(codes) = rule.some("onExitCodes") {
            exit_codes(&codes, &containers, errors);
        }
        let conditions = rule.items("onPodConditions");
        for condition in &conditions {
            condition.each("type", names::label_key(condition.str("type")), errors);
            condition.one_of("status", &["False", "True", "Unknown"], errors);
        }
        let detail = match (rule.has("onExitCodes"), conditions.is_empty()) {
            (true, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        errors.push(fault(&rule.path, CauseKind::Invalid, format!("Invalid value: {detail}")));
    }
}

/// `["A" "B"]`, as Go's `%q` prints a slice.
fn quoted(texts: &[&str]) -> String {
    format!("[{}]", texts.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" "))
}

fn exit_codes(codes: &Spot<'_>, containers: &HashSet<&str>, errors: &mut Errors) {
    match codes.str("operator") {
        "" => codes.required("operator", format!("valid values: {}", quoted(&["In", "NotIn"])), errors),
        "In" | "NotIn" => {}
        _ => codes.unsupported("operator", &["In", "NotIn"], errors),
    }
    if codes.has("containerName") && !containers.contains(codes.str("containerName")) {
        let detail = "must be one of the container or initContainer names in the pod template";
        codes.invalid("containerName", detail, errors);
    }
    let values = codes.items("values");
    if values.is_empty() {
        codes.invalid("values", "at least one value is required", errors);
    } else if values.len() > EXIT_CODES_MAX {
        codes.too_many("values", EXIT_CODES_MAX, errors);
    }
    let mut seen = HashSet::new();
    let mut last = i64::MIN;
    let mut ordered = true;
    for value in &values {
        let number = value.int("").unwrap_or_default();
        if codes.str("operator") == "In" && number == 0 {
            value.invalid("", "must not be 0 for the In operator", errors);
        }
        if !seen.insert(number) {
            value.duplicate("", errors);
        }
        ordered &= number >= last;
        last = number;
    }
    if !ordered {
        codes.invalid("values", "must be ordered", errors);
    }
}

fn success_policy(spec: &Spot<'_>, policy: &Spot<'_>, errors: &mut Errors) {
    if spec.str("completionMode") != "Indexed" {
        policy.invalid("", "requires indexed completion mode", errors);
        return;
    }
    let rules = policy.items("rules");
    if rules.is_empty() {
        policy.required("rules", "at least one rules must be specified when the successPolicy is specified", errors);
    }
    if rules.len() > RULES_MAX {
        policy.too_many("rules", RULES_MAX, errors);
    }
    let completions = spec.int("completions").unwrap_or_default();
    for rule in rules {
        if !rule.has("succeededCount") && !rule.has("succeededIndexes") {
            rule.required("", "at least one of succeededCount or succeededIndexes must be specified", errors);
        }
        let mut total = None;
        if rule.has("succeededIndexes") {
            match count_indexes(rule.str("succeededIndexes"), completions) {
                Ok(count) => total = Some(count),
                Err(fault) => {
                    rule.invalid("succeededIndexes", format!("error parsing succeededIndexes: {fault}"), errors);
                    total = Some(0);
                }
            }
        }
        rule.non_negative("succeededCount", errors);
        let Some(count) = rule.int("succeededCount") else { continue };
        if count > completions {
            let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
            rule.invalid("succeededCount", detail, errors);
        }
        if let Some(total) = total.filter(|total| count > *total) {
            let detail = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            rule.invalid("succeededCount", detail, errors);
        }
    }
}

/// How many indexes a text like `1,3-5,7` names (`validateIndexesFormat`).
pub(crate) fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut last, mut total) = (None, 0);
    if text.is_empty() {
        return Ok(0);
    }
    for interval in text.split(',') {
        let ends: Vec<&str> = interval.split('-').collect();
        if ends.len() > 2 {
            return Err(format!(
                "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let number = |text: &str| {
            let value: i64 =
                text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
            if value >= completions { Err(format!("too large index: {text:?}")) } else { Ok(value) }
        };
        let start = number(ends[0])?;
        if last.is_some_and(|last| last >= start) {
            return Err(format!("non-increasing order, previous: {}, current: {start}", last.unwrap_or_default()));
        }
        let end = ends.get(1).map_or(Ok(start), |end| number(end))?;
        if ends.len() == 2 && end <= start {
            return Err(format!("non-increasing order, previous: {start}, current: {end}"));
        }
        total += end - start + 1;
        last = Some(end);
    }
    Ok(total)
}

/// `completions` may change together with `parallelism` in an indexed job, else not.
pub(crate) fn validate_completions(spec: &Spot<'_>, old: &Spot<'_>, errors: &mut Errors) {
    if spec.int("completions") == old.int("completions") {
        return;
    }
    let elastic = old.str("completionMode") == "Indexed" && spec.has("completions") && old.has("completions");
    if !elastic {
        spec.immutable(old, "completions", errors);
    } else if spec.int("completions") != spec.int("parallelism") {
        let parallelism = spec.int("parallelism").unwrap_or_default();
        let detail = format!("can only be modified in tandem with parallelism (.spec.parallelism={parallelism})");
        spec.invalid("completions", detail, errors);
    }
}

/// The template stays, but for scheduling directives and resources of a job that is suspended and has no pods.
pub(crate) fn validate_template_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let suspended = old.bool_at("spec.suspend")
        && old.i64_at("status.active").unwrap_or_default() == 0
        && (old.path("status.startTime").is_none()
            || crate::print::condition_is(old, "status.conditions", "Suspended", "True"));
    let template = Spot::of(new, "spec.template");
    let mut before = old.path("spec.template").cloned().unwrap_or_default();
    if suspended {
        for field in [
            "metadata.annotations",
            "metadata.labels",
            "spec.nodeSelector",
            "spec.tolerations",
            "spec.schedulingGates",
            "spec.affinity.nodeAffinity",
        ] {
            take(&mut before, template.tree, field);
        }
        for list in ["spec.containers", "spec.initContainers"] {
            let now = template.list(list);
            if let Some(Tree::List(containers)) = before.path_mut(list)
                && containers.len() == now.len()
            {
                for (container, now) in containers.iter_mut().zip(now) {
                    if container.str_at("name") == now.str_at("name") {
                        take(container, now, "resources");
                    }
                }
            }
        }
    }
    let before = Spot::at(&before, template.path.clone());
    // Of a suspended job, upstream looks at the template's spec only.
    template.immutable(&before, if suspended { "spec" } else { "" }, errors);
}

fn take(into: &mut Tree, from: &Tree, field: &str) {
    match from.path(field) {
        Some(value) => into.set(field, value.clone()),
        None => drop(into.remove(field)),
    }
}
