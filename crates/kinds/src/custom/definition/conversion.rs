//! How versions are converted.

use corten_tree::Tree;

use crate::Errors;
use crate::print::condition_is;
use crate::validate::{Spot, names};

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const URL_FORM: &str = "; desired format: https://host[/path]";

pub(super) fn validate(spec: &Spot<'_>, old: Option<&Tree>, errors: &mut Errors) {
    let Some(conversion) = spec.some("conversion") else { return };
    conversion.one_of("strategy", &["None", "Webhook"], errors);
    let client = conversion.some("webhook.clientConfig");
    let shown = Spot::at(client.as_ref().map_or(&Tree::Null, |c| c.tree), conversion.path.child("webhookClientConfig"));
    let review = conversion.child("webhook.conversionReviewVersions");
    let review = Spot::at(review.tree, conversion.path.child("conversionReviewVersions"));
    if conversion.str("strategy") != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if client.is_some() {
            shown.forbidden("", why, errors);
        }
        if !review.list("").is_empty() {
            review.forbidden("", why, errors);
        }
        return;
    }
    match (shown.has(""), shown.tree.get("url").is_some(), shown.has("service")) {
        (false, ..) => shown.required("", "required when strategy is set to Webhook", errors),
        (_, url, service) if url == service => {
            shown.required("", "exactly one of url or service is required", errors);
        }
        (_, true, _) => url(&shown, errors),
        _ => service(&shown.child("service"), errors),
    }
    let bundle = shown.str("caBundle");
    let established = old.is_some_and(|old| condition_is(old, "status.conditions", "Established", "True"));
    let same = old.is_some_and(|old| old.str_at("spec.conversion.webhook.clientConfig.caBundle") == bundle);
    if established && !same && !bundle.is_empty() && !is_pem(bundle) {
        shown.invalid("caBundle", "unable to load root certificates: unable to parse bytes as PEM block", errors);
    }
    review_versions(&review, errors);
}

fn is_pem(bundle: &str) -> bool {
    let text = corten_schema::scalars::base64::decode(bundle).unwrap_or_default();
    String::from_utf8_lossy(&text).contains("-----BEGIN CERTIFICATE-----")
}

fn review_versions(review: &Spot<'_>, errors: &mut Errors) {
    let items = review.items("");
    if items.is_empty() {
        review.required("", "", errors);
        return;
    }
    let mut seen = Vec::new();
    for item in &items {
        let version = item.str("");
        if seen.contains(&version) {
            item.invalid("", "duplicate version", errors);
            continue;
        }
        seen.push(version);
        item.each("", names::dns_1035_label(version), errors);
    }
    if !seen.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        review.invalid("", format!("must include at least one of {}", REVIEW_VERSIONS.join(", ")), errors);
    }
}

/// (`apiserver/pkg/util/webhook/validation.go` `ValidateWebhookURL`)
fn url(client: &Spot<'_>, errors: &mut Errors) {
    let text = client.str("url");
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = if text.contains("://") { rest.split('/').next().unwrap_or_default() } else { "" };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        client.invalid_as("url", scheme, format!("'https' is the only allowed URL scheme{URL_FORM}"), errors);
    }
    if host.is_empty() {
        client.invalid_as("url", host, format!("host must be specified{URL_FORM}"), errors);
    }
    if let Some(user) = user {
        client.invalid_as("url", user, "user information is not permitted in the URL", errors);
    }
    if !fragment.is_empty() {
        client.invalid_as("url", fragment, "fragments are not permitted in the URL", errors);
    }
    if !query.is_empty() {
        client.invalid_as("url", query, "query parameters are not permitted in the URL", errors);
    }
}

/// (`ValidateWebhookService`, which is given name and namespace in each other's place)
fn service(service: &Spot<'_>, errors: &mut Errors) {
    for (value, said) in [("namespace", "name"), ("name", "namespace")] {
        if service.str(value).is_empty() {
            service.required(said, "", errors);
        }
    }
    let faults = names::port_number(service.int("port").unwrap_or_default());
    if !faults.is_empty() {
        service.invalid("port", format!("port is not valid: {}", faults.join(", ")), errors);
    }
    let path = service.str("path");
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
    let inner = path.get(1..).unwrap_or_default();
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    for (at, step) in inner.split('/').enumerate() {
        if step.is_empty() {
            service.invalid("path", format!("segment[{at}] may not be empty"), errors);
            continue;
        }
        for fault in names::dns_subdomain(step) {
            service.invalid("path", format!("segment[{at}]: {fault}"), errors);
        }
    }
}
