//! The kinds of `flowcontrol.apiserver.k8s.io`.

use corten_tree::Tree;

use crate::Errors;
use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::validate::{Spot, names};
use crate::{Column, Number, Of, TextOr, column};

/// `flowcontrol.apiserver.k8s.io/v1 FlowSchema`
pub(crate) const FLOW_SCHEMA: KindSpec = KindSpec {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "FlowSchema",
    plural: "flowschemas",
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
    columns: &[
        Column::NAME,
        column("PriorityLevel", &TextOr("spec.priorityLevelConfiguration.name", "")),
        column("MatchingPrecedence", &Number("spec.matchingPrecedence")),
        column("DistinguisherMethod", &TextOr("spec.distinguisherMethod.type", "<none>")),
        Column::AGE,
        column(
            "MissingPL",
            &Of(|o, _| {
                let dangling = o.list_at("status.conditions").iter().find(|c| c.str_at("type") == "Dangling");
                Tree::from(dangling.map_or("?", |c| c.str_at("status")))
            }),
        ),
    ],
    hooks: Hooks { default: Some(schema_default), validate: Some(schema_validate), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

/// `flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration`
pub(crate) const PRIORITY_LEVEL_CONFIGURATION: KindSpec = KindSpec {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
    columns: &[
        Column::NAME,
        column("Type", &TextOr("spec.type", "")),
        column("NominalConcurrencyShares", &Of(|o, _| number(o, "spec.limited.nominalConcurrencyShares"))),
        column("Queues", &Of(|o, _| number(o, "spec.limited.limitResponse.queuing.queues"))),
        column("HandSize", &Of(|o, _| number(o, "spec.limited.limitResponse.queuing.handSize"))),
        column("QueueLengthLimit", &Of(|o, _| number(o, "spec.limited.limitResponse.queuing.queueLengthLimit"))),
        Column::AGE,
    ],
    hooks: Hooks {
        default: Some(level_default),
        validate: Some(level_validate),
        validate_status: Some(level_validate_status),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

fn number(object: &Tree, path: &str) -> Tree {
    object.path(path).cloned().unwrap_or_else(|| Tree::from("<none>"))
}

fn schema_default(schema: &mut Tree) {
    if schema.i64_at("spec.matchingPrecedence").unwrap_or_default() == 0 {
        schema.set("spec.matchingPrecedence", 1000);
    }
}

fn level_default(level: &mut Tree) {
    for (part, shares) in [("spec.exempt", 0), ("spec.limited", 30)] {
        defaults::at(level, part, |part| {
            part.set_default("nominalConcurrencyShares", shares);
            part.set_default("lendablePercent", 0);
            defaults::at(part, "limitResponse.queuing", |queuing| {
                for (field, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                    if queuing.i64_at(field).unwrap_or_default() == 0 {
                        queuing.set(field, value);
                    }
                }
            });
        });
    }
}

/// `ValidatePriorityLevelConfigurationStatus`
fn level_validate_status(level: &Tree, _: &Tree, errors: &mut Errors) {
    let conditions = Spot::of(level, "status").items("conditions");
    for (i, condition) in conditions.iter().enumerate() {
        let kind = condition.str("type");
        if conditions[..i].iter().any(|before| before.str("type") == kind) {
            condition.duplicate("type", errors);
        }
        if kind.is_empty() {
            condition.required("type", "", errors);
        }
    }
}

/// The least urgent matching precedence.
const PRECEDENCE_MAX: i64 = 10_000;
const VERBS: &[&str] =
    &["*", "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// `ValidateFlowSchemaSpec` (`pkg/apis/flowcontrol/validation/validation.go`)
fn schema_validate(schema: &Tree, errors: &mut Errors) {
    let spec = Spot::of(schema, "spec");
    let precedence = spec.int("matchingPrecedence").unwrap_or_default();
    if precedence <= 0 {
        spec.invalid("matchingPrecedence", "must be a positive value", errors);
    }
    if precedence > PRECEDENCE_MAX {
        spec.invalid("matchingPrecedence", format!("must not be greater than {PRECEDENCE_MAX}"), errors);
    }
    if precedence == 1 && schema.str_at("metadata.name") != "exempt" {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        spec.invalid("matchingPrecedence", detail, errors);
    }
    if let Some(method) = spec.some("distinguisherMethod") {
        let name = method.str("type");
        if !matches!(name, "ByUser" | "ByNamespace") {
            let mut shown = Tree::map();
            shown.insert("Type", name);
            let path = method.path.child("type");
            let supported = ["ByNamespace", "ByUser"];
            errors.push(corten_object::FieldError::not_supported_value(&path, &shown, &supported));
        }
    }
    let level = spec.child("priorityLevelConfiguration");
    match level.str("name") {
        "" => level.required("name", "must reference a priority level", errors),
        name => level.each("name", names::dns_subdomain(name), errors),
    }
    for rule in spec.items("rules") {
        rule_validate(&rule, errors);
    }
    super::flow_mandatory::validate_schema(schema, errors);
}

fn rule_validate(rule: &Spot<'_>, errors: &mut Errors) {
    if rule.list("subjects").is_empty() {
        rule.required("subjects", "subjects must contain at least one value", errors);
    }
    for subject in rule.items("subjects") {
        subject_validate(&subject, errors);
    }
    if rule.list("resourceRules").is_empty() && rule.list("nonResourceRules").is_empty() {
        rule.required("", "at least one of resourceRules and nonResourceRules has to be non-empty", errors);
    }
    for resource in rule.items("resourceRules") {
        verbs(&resource, errors);
        wildcard(&resource, "apiGroups", "resource rules must supply at least one api group", "api groups", errors);
        wildcard(&resource, "resources", "resource rules must supply at least one resource", "resources", errors);
        if resource.list("namespaces").is_empty() && !resource.bool("clusterScope") {
            let detail = "resource rules that are not cluster scoped must supply at least one namespace";
            resource.required("namespaces", detail, errors);
        } else if resource.list("namespaces").len() > 1 && has_star(&resource, "namespaces") {
            resource.invalid("namespaces", "if '*' is present, must not specify other namespaces", errors);
        } else {
            for namespace in resource.items("namespaces").iter().filter(|n| n.str("") != "*") {
                for message in names::dns_label(namespace.str("")) {
                    let detail = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                    namespace.invalid("", detail, errors);
                }
            }
        }
    }
    for urls in rule.items("nonResourceRules") {
        verbs(&urls, errors);
        if urls.list("nonResourceURLs").is_empty() {
            urls.required("nonResourceURLs", "nonResourceURLs must contain at least one value", errors);
        } else if urls.list("nonResourceURLs").len() > 1 && has_star(&urls, "nonResourceURLs") {
            let detail = "if '*' is present, must not specify other non-resource URLs";
            urls.invalid("nonResourceURLs", detail, errors);
        }
        for url in urls.items("nonResourceURLs").iter().filter(|u| u.str("") != "*") {
            url_validate(url, errors);
        }
    }
}

/// `ValidateNonResourceURLPath`
fn url_validate(url: &Spot<'_>, errors: &mut Errors) {
    let text = url.str("");
    if text.is_empty() {
        url.invalid("", "must not be empty", errors);
    } else if text == "/" {
    } else if !text.starts_with('/') {
        url.invalid("", "must start with slash", errors);
    } else if text.contains(' ') {
        url.invalid("", "must not contain white-space", errors);
    } else if text.contains("//") {
        url.invalid("", "must not contain double slash", errors);
    } else if text.strip_suffix("/*").unwrap_or(text).contains('*') {
        url.invalid("", "wildcard can only do suffix matching", errors);
    }
}

fn has_star(rule: &Spot<'_>, field: &str) -> bool {
    rule.list(field).iter().any(|value| value.as_str() == Some("*"))
}

fn wildcard(rule: &Spot<'_>, field: &str, missing: &str, what: &str, errors: &mut Errors) {
    if rule.list(field).is_empty() {
        rule.required(field, missing, errors);
    } else if rule.list(field).len() > 1 && has_star(rule, field) {
        rule.invalid(field, format!("if '*' is present, must not specify other {what}"), errors);
    }
}

fn verbs(rule: &Spot<'_>, errors: &mut Errors) {
    wildcard(rule, "verbs", "verbs must contain at least one value", "verbs", errors);
    let all = rule.list("verbs");
    if !(all.len() > 1 && has_star(rule, "verbs"))
        && all.iter().any(|verb| !VERBS.contains(&verb.as_str().unwrap_or_default()))
    {
        let path = rule.path.child("verbs");
        let shown = Tree::List(all.to_vec());
        errors.push(corten_object::FieldError::not_supported_value(&path, &shown, VERBS));
    }
}

fn subject_validate(subject: &Spot<'_>, errors: &mut Errors) {
    let kind = subject.str("kind");
    const PARTS: &[(&str, &str)] = &[("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    if !PARTS.iter().any(|(name, _)| *name == kind) {
        subject.unsupported("kind", &["Group", "ServiceAccount", "User"], errors);
        return;
    }
    for (name, field) in PARTS {
        match (subject.some(field), *name == kind) {
            (None, true) => {
                subject.required(field, format!("{field} is required when subject kind is '{name}'"), errors);
            }
            (Some(part), true) if *field == "serviceAccount" => {
                match part.str("name") {
                    "" => part.required("name", "", errors),
                    "*" => {}
                    name => part.each("name", names::dns_subdomain(name), errors),
                }
                match part.str("namespace") {
                    "" => part.required("namespace", "must specify namespace for service account", errors),
                    namespace => part.each("namespace", names::dns_label(namespace), errors),
                }
            }
            (Some(part), true) if part.str("name").is_empty() => part.required("name", "", errors),
            (Some(_), false) => {
                let detail = format!("{field} is forbidden when subject kind is not '{name}'");
                subject.forbidden(field, detail, errors);
            }
            _ => {}
        }
    }
}

/// The most queues of a level, and the most bits that a shuffle may need.
const QUEUES_MAX: i64 = 10_000_000;
const ENTROPY_BITS_MAX: i64 = 60;

/// `ValidatePriorityLevelConfiguration`; what the types declare comes from the schema table.
fn level_validate(level: &Tree, errors: &mut Errors) {
    let spec = Spot::of(level, "spec");
    let kind = spec.str("type");
    if (level.str_at("metadata.name") == "exempt") != (kind == "Exempt") && matches!(kind, "Exempt" | "Limited") {
        spec.invalid("type", "must be 'Exempt' if and only if `name` is 'exempt'", errors);
    }
    if !matches!(kind, "" | "Exempt" | "Limited") {
        spec.unsupported("type", &["Exempt", "Limited"], errors);
    }
    for (field, owner) in [("exempt", "Exempt"), ("limited", "Limited")] {
        match spec.some(field) {
            Some(_) if kind != owner => spec.forbidden(field, "", errors),
            Some(part) => part_validate(&part, errors),
            None => {}
        }
    }
    super::flow_mandatory::validate_level(level, errors);
}

fn part_validate(part: &Spot<'_>, errors: &mut Errors) {
    if part.int("nominalConcurrencyShares").is_some_and(|n| n < 0) {
        part.invalid("nominalConcurrencyShares", "must be a non-negative integer", errors);
    }
    part.in_range("lendablePercent", 0, 100, errors);
    if part.int("borrowingLimitPercent").is_some_and(|n| n < 0) {
        part.invalid("borrowingLimitPercent", "if specified, must be a non-negative integer", errors);
    }
    let Some(response) = part.some("limitResponse") else { return };
    match (response.str("type"), response.some("queuing")) {
        ("Reject", Some(_)) => response.forbidden("queuing", "", errors),
        ("Queue", Some(queuing)) => queuing_validate(&queuing, errors),
        ("" | "Reject" | "Queue", _) => {}
        _ => response.unsupported("type", &["Queue", "Reject"], errors),
    }
}

fn queuing_validate(queuing: &Spot<'_>, errors: &mut Errors) {
    let int = |field| queuing.int(field).unwrap_or_default();
    for field in ["queueLengthLimit", "queues"] {
        if int(field) <= 0 {
            queuing.invalid(field, "must be positive", errors);
        }
    }
    let (queues, hand) = (int("queues"), int("handSize"));
    if queues > QUEUES_MAX {
        queuing.invalid("queues", format!("must not be greater than {QUEUES_MAX}"), errors);
    }
    if hand <= 0 {
        queuing.invalid("handSize", "must be positive", errors);
    } else if hand > queues {
        queuing.invalid("handSize", format!("should not be greater than queues ({queues})"), errors);
    } else if entropy_bits(queues, hand) > ENTROPY_BITS_MAX {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {ENTROPY_BITS_MAX}"
        );
        queuing.invalid("handSize", detail, errors);
    }
}

/// `shufflesharding.RequiredEntropyBits`
fn entropy_bits(queues: i64, hand: i64) -> i64 {
    ((queues as f64).log2() * hand as f64).ceil() as i64
}
