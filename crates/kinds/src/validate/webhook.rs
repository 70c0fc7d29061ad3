//! Webhook configurations. (`validateWebhook` in `pkg/apis/admissionregistration/validation/validation.go`,
//! `apiserver/pkg/util/webhook/validation.go`)

use corten_tree::Tree;

use super::labels::validate_selector;
use super::{Spot, names};
use crate::Errors;

/// Versions of AdmissionReview that a server can speak.
const REVIEWS: &[&str] = &["v1", "v1beta1"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const STATIC_SUFFIX: &str = ".static.k8s.io";
const URL_FORM: &str = "; desired format: https://host[/path]";

/// Checks the webhooks of a configuration; `validate_webhooks` of the expressions does their match conditions.
pub(crate) fn validate(configuration: &Tree, errors: &mut Errors) {
    static_name(configuration, errors);
    let mut seen = Vec::new();
    for webhook in Spot::of(configuration, "webhooks").items("") {
        one(&webhook, errors);
        let versions = webhook.list("admissionReviewVersions");
        if versions.is_empty() {
            let detail = format!("must specify one of {}", REVIEWS.join(", "));
            webhook.required("admissionReviewVersions", detail, errors);
        } else {
            review_versions(&webhook, errors);
        }
        let name = webhook.str("name");
        if !name.is_empty() && seen.contains(&name) {
            webhook.duplicate("name", errors);
        }
        seen.push(name);
    }
}

/// Names that only files at the server's start may have (`ValidateStaticSuffix`).
pub(super) fn static_name(object: &Tree, errors: &mut Errors) {
    let metadata = Spot::of(object, "metadata");
    if metadata.str("name").ends_with(STATIC_SUFFIX) {
        let detail = format!(
            "names ending with {STATIC_SUFFIX:?} are reserved for static manifest-based configurations and cannot be managed \
             via the API"
        );
        metadata.invalid("name", detail, errors);
    }
}

fn review_versions(webhook: &Spot<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for version in webhook.items("admissionReviewVersions") {
        let text = version.str("");
        if seen.contains(&text) {
            version.invalid("", "duplicate version", errors);
            continue;
        }
        seen.push(text);
        version.each("", names::dns_1035_label(text), errors);
    }
    if !seen.iter().any(|version| REVIEWS.contains(version)) {
        let detail = format!("must include at least one of {}", REVIEWS.join(", "));
        webhook.invalid("admissionReviewVersions", detail, errors);
    }
}

fn one(webhook: &Spot<'_>, errors: &mut Errors) {
    qualified_name(webhook, errors);
    for rule in webhook.items("rules") {
        rule_with_operations(&rule, errors);
    }
    webhook.optional_one_of("failurePolicy", &["Fail", "Ignore"], errors);
    webhook.optional_one_of("matchPolicy", &["Equivalent", "Exact"], errors);
    match webhook.str("sideEffects") {
        "" => webhook.required("sideEffects", "must specify one of None, NoneOnDryRun", errors),
        "None" | "NoneOnDryRun" => {}
        _ => webhook.unsupported("sideEffects", &["None", "NoneOnDryRun"], errors),
    }
    if webhook.int("timeoutSeconds").is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        webhook.invalid("timeoutSeconds", "the timeout value must be between 1 and 30 seconds", errors);
    }
    validate_selector(&webhook.child("namespaceSelector"), errors);
    validate_selector(&webhook.child("objectSelector"), errors);
    let client = webhook.child("clientConfig");
    match (client.some("url"), client.some("service")) {
        (Some(_), None) => url(&client, errors),
        (None, Some(service)) => service_reference(&service, errors),
        _ => client.required("", "exactly one of url or service is required", errors),
    }
    webhook.optional_one_of("reinvocationPolicy", &["IfNeeded", "Never"], errors);
}

/// `IsFullyQualifiedName`
fn qualified_name(webhook: &Spot<'_>, errors: &mut Errors) {
    let name = webhook.str("name");
    if name.is_empty() {
        webhook.required("name", "", errors);
        return;
    }
    let messages = names::dns_subdomain(name);
    if messages.is_empty() && name.split('.').count() < 3 {
        webhook.invalid("name", "should be a domain with at least three segments separated by dots", errors);
    }
    webhook.each("name", messages, errors);
}

/// `ValidateWebhookURL`
fn url(client: &Spot<'_>, errors: &mut Errors) {
    let text = client.str("url");
    let (scheme, rest) = text.split_once("://").unwrap_or(("", ""));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{URL_FORM}");
        client.invalid_as("url", scheme, detail, errors);
    }
    if host.is_empty() {
        client.invalid_as("url", host, format!("host must be specified{URL_FORM}"), errors);
    }
    for (part, what) in [(user, "user information is"), (fragment, "fragments are"), (query, "query parameters are")] {
        if !part.is_empty() {
            client.invalid_as("url", part, format!("{what} not permitted in the URL"), errors);
        }
    }
}

/// `ValidateWebhookService`
fn service_reference(service: &Spot<'_>, errors: &mut Errors) {
    for field in ["name", "namespace"] {
        if service.str(field).is_empty() {
            service.required(field, "", errors);
        }
    }
    for message in names::port_number(service.int("port").unwrap_or_default()) {
        service.invalid("port", format!("port is not valid: {message}"), errors);
    }
    let path = service.str("path");
    // An empty path is the root, as no path is.
    if matches!(path, "" | "/") {
        return;
    }
    if path == "//" {
        service.invalid("path", "segment[0] may not be empty", errors);
        return;
    }
    if !path.starts_with('/') {
        service.invalid("path", "must start with a '/'", errors);
    }
    // As upstream, whatever the first letter is.
    let inner = path.char_indices().nth(1).map_or("", |(at, _)| &path[at..]);
    for (i, segment) in inner.strip_suffix('/').unwrap_or(inner).split('/').enumerate() {
        if segment.is_empty() {
            service.invalid("path", format!("segment[{i}] may not be empty"), errors);
            continue;
        }
        for message in names::dns_subdomain(segment) {
            service.invalid("path", format!("segment[{i}]: {message}"), errors);
        }
    }
}

/// `validateRuleWithOperations`
pub(super) fn rule_with_operations(rule: &Spot<'_>, errors: &mut Errors) {
    alone(rule, "operations", "operations", errors);
    for operation in rule.items("operations") {
        if !OPERATIONS.contains(&operation.str("")) {
            operation.unsupported("", OPERATIONS, errors);
        }
    }
    alone(rule, "apiGroups", "API groups", errors);
    alone(rule, "apiVersions", "API versions", errors);
    for version in rule.items("apiVersions").iter().filter(|v| v.str("").is_empty()) {
        version.required("", "", errors);
    }
    resources(rule, errors);
    rule.optional_one_of("scope", &["*", "Cluster", "Namespaced"], errors);
}

/// A list that is there, and in which a star stands alone.
fn alone(rule: &Spot<'_>, field: &str, what: &str, errors: &mut Errors) {
    let all = rule.list(field);
    if all.is_empty() {
        rule.required(field, "", errors);
    }
    if all.len() > 1 && all.iter().any(|value| value.as_str() == Some("*")) {
        rule.invalid(field, format!("if '*' is present, must not specify other {what}"), errors);
    }
}

/// `validateResources`
fn resources(rule: &Spot<'_>, errors: &mut Errors) {
    let all: Vec<&str> = rule.list("resources").iter().filter_map(Tree::as_str).collect();
    if all.is_empty() {
        rule.required("resources", "", errors);
    }
    // Only what stands before an entry speaks against it, and the last one without a part decides for all.
    let (mut whole, mut every, mut bare) = (Vec::new(), Vec::new(), false);
    for entry in rule.items("resources") {
        let text = entry.tree.as_str().unwrap_or_default();
        if text.is_empty() {
            entry.required("", "", errors);
            continue;
        }
        let Some((resource, sub)) = text.split_once('/') else {
            bare = text != "*";
            continue;
        };
        if whole.contains(&resource) {
            entry.invalid("", format!("if '{resource}/*' is present, must not specify {text}"), errors);
        }
        if every.contains(&sub) {
            entry.invalid("", format!("if '*/{sub}' is present, must not specify {text}"), errors);
        }
        if sub == "*" {
            whole.push(resource);
        }
        if resource == "*" {
            every.push(sub);
        }
    }
    if all.len() > 1 && all.contains(&"*/*") {
        rule.invalid("resources", "if '*/*' is present, must not specify other resources", errors);
    }
    if bare && all.contains(&"*") {
        let detail = "if '*' is present, must not specify other resources without subresources";
        rule.invalid("resources", detail, errors);
    }
}
