//! APIService.

use corten_object::time;
use corten_tree::{Tree, tree};

use crate::Errors;
use crate::defaults;
use crate::spec::{Hooks, KindSpec, Subresource};
use crate::validate::{Spot, names};
use crate::{Column, Of, RowContext, WriteContext, column};

/// `apiregistration.k8s.io/v1 APIService`
pub(crate) const API_SERVICE: KindSpec = KindSpec {
    group: "apiregistration.k8s.io",
    kind: "APIService",
    unconditional_update: false,
    plural: "apiservices",
    categories: &["api-extensions"],
    served_by: Some("apiserver"),
    name_check: crate::validate::names::path_segment,
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
    columns: &[Column::NAME, column("Service", &Of(service)), column("Available", &Of(available)), Column::AGE],
    hooks: Hooks {
        default: Some(|o| defaults::at(o, "spec.service", |s| defaults::value(s, "port", 443))),
        prepare_create: Some(prepare_create),
        validate: Some(validate),
        validate_status: Some(validate_status),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

/// What this server serves itself is available from the beginning (`apiServerStrategy.PrepareForCreate`).
fn prepare_create(object: &mut Tree, context: &WriteContext) {
    object.remove("status");
    if object.path("spec.service").is_none() {
        let condition = tree!({"type": "Available", "status": "True", "lastTransitionTime": (time::format(context.now)),
            "reason": "Local", "message": "Local APIServices are always available"});
        object.set("status.conditions", vec![condition]);
    }
}

fn service(object: &Tree, _: &RowContext) -> Tree {
    Tree::from(match object.path("spec.service") {
        Some(service) => format!("{}/{}", service.str_at("namespace"), service.str_at("name")),
        None => "Local".to_owned(),
    })
}

/// The Available condition's status, with its reason unless it is True.
fn available(object: &Tree, _: &RowContext) -> Tree {
    let found = object.list_at("status.conditions").iter().find(|c| c.str_at("type") == "Available");
    Tree::from(match found.map(|c| (c.str_at("status"), c.str_at("reason"))) {
        None => "Unknown".to_owned(),
        Some(("True", _)) => "True".to_owned(),
        Some((status, reason)) => format!("{status} ({reason})"),
    })
}

/// `ValidateAPIServiceStatus`
fn validate_status(object: &Tree, _: &Tree, errors: &mut Errors) {
    for condition in Spot::of(object, "status").items("conditions") {
        let status = condition.str("status");
        if !matches!(status, "True" | "False" | "Unknown") {
            let path = condition.path.child("status");
            errors.push(corten_object::FieldError::not_supported(&path, status, &["True", "False", "Unknown"]));
        }
    }
}

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1_000;

/// `ValidateAPIService` (`k8s.io/kube-aggregator/pkg/apis/apiregistration/validation/validation.go`)
fn validate(object: &Tree, errors: &mut Errors) {
    let (meta, spec) = (Spot::of(object, "metadata"), Spot::of(object, "spec"));
    let (group, version) = (spec.str("group"), spec.str("version"));
    let name = format!("{version}.{group}");
    if meta.str("name") != name {
        meta.invalid("name", format!("must be `spec.version+\".\"+spec.group`: {name:?}"), errors);
    }
    if !group.is_empty() {
        spec.each("group", names::dns_subdomain(group), errors);
    }
    for message in names::dns_1035_label(version) {
        spec.invalid_as("version", version, message, errors);
    }
    for (field, max) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
        let priority = spec.int(field).unwrap_or_default();
        if !(1..=max).contains(&priority) {
            spec.invalid_as(field, priority, format!("must be positive and less than {max}"), errors);
        }
    }
    let bundle = spec.str("caBundle");
    match spec.some("service") {
        None => {
            if !bundle.is_empty() {
                let bytes = bundle.len() / 4 * 3 - bundle.bytes().filter(|b| *b == b'=').count();
                let shown = format!("{bytes} bytes");
                spec.invalid_as("caBundle", shown, "local APIServices may not have a caBundle", errors);
            }
            if spec.bool("insecureSkipTLSVerify") {
                let detail = "local APIServices may not have insecureSkipTLSVerify";
                spec.invalid("insecureSkipTLSVerify", detail, errors);
            }
            return;
        }
        Some(service) => {
            for field in ["namespace", "name"] {
                if service.str(field).is_empty() {
                    service.required(field, "", errors);
                }
            }
            for message in names::port_number(service.int("port").unwrap_or_default()) {
                service.invalid("port", format!("port is not valid: {message}"), errors);
            }
        }
    }
    if spec.bool("insecureSkipTLSVerify") && !bundle.is_empty() {
        spec.invalid("insecureSkipTLSVerify", "may not be true if caBundle is present", errors);
    }
}
