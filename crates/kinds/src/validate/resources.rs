//! Requests and limits. (`validateResourceRequirements` and around in `pkg/apis/core/validation/validation.go`)

use std::collections::HashSet;

use corten_object::CauseKind;
use corten_schema::scalars::Quantity;
use corten_tree::Tree;

use super::{NEGATIVE, Spot, fault, names, quantity};
use crate::Errors;

/// Whether a resource's name is `hugepages-<size>`.
pub(crate) fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether Kubernetes itself defines a resource: no domain, or one of its own.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_container_resource(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name)
}

/// `helper.IsStandardResourceName`: what may stand in any resource list without a domain.
pub(crate) fn is_standard(name: &str) -> bool {
    is_container_resource(name)
        || is_quota_name(name)
        || matches!(name, "pods" | "services" | "resourcequotas" | "replicationcontrollers" | "secrets")
}

/// Names of quota resources without a domain (`standardQuotaResources`).
pub(crate) fn is_quota_name(name: &str) -> bool {
    matches!(
        name,
        "cpu"
            | "memory"
            | "ephemeral-storage"
            | "requests.cpu"
            | "requests.memory"
            | "requests.storage"
            | "requests.ephemeral-storage"
            | "limits.cpu"
            | "limits.memory"
            | "limits.ephemeral-storage"
            | "pods"
            | "services"
            | "replicationcontrollers"
            | "resourcequotas"
            | "secrets"
            | "persistentvolumeclaims"
            | "configmaps"
            | "services.nodeports"
            | "services.loadbalancers"
            | "storage"
    ) || name.starts_with("requests.hugepages-")
        || is_huge_pages(name)
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::label_key(&format!("requests.{name}")).is_empty()
}

fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// Which names a resource list may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// A container's.
    Container,
    /// A pod's own.
    Pod,
    /// A quota's.
    Quota,
    /// Any list's.
    Any,
}

/// Checks the name of a resource.
pub(crate) fn resource_name(names_of: Names, at: &Spot<'_>, name: &str, errors: &mut Errors) {
    let before = errors.len();
    for message in names::label_key(name) {
        at.invalid_as("", name, message, errors);
    }
    if errors.len() == before && !name.contains('/') && !is_standard(name) {
        at.invalid_as("", name, "must be a standard resource type or fully qualified", errors);
    }
    match names_of {
        Names::Container if !name.contains('/') => {
            if !is_container_resource(name) {
                at.invalid_as("", name, "must be a standard resource for containers", errors);
            }
        }
        Names::Container => {
            if !is_native(name) && !is_extended(name) {
                at.invalid_as("", name, "doesn't follow extended resource name standard", errors);
            }
        }
        Names::Quota => {
            if !name.contains('/') && !is_quota_name(name) {
                at.invalid_as("", name, "must be a standard resource for quota", errors);
            }
        }
        Names::Any => {}
        Names::Pod => {
            if errors.len() == before && !matches!(name, "cpu" | "memory") && !is_huge_pages(name) {
                let body =
                    format!("Unsupported value: {name:?}: supported values: \"cpu\", \"hugepages-\", \"memory\"");
                errors.push(fault(&at.path, CauseKind::NotSupported, body));
            }
        }
    }
}

/// `ValidateResourceQuantityValue`: not negative, and whole where a part makes no sense.
pub(crate) fn quantity_value(at: &Spot<'_>, name: &str, value: &Quantity, errors: &mut Errors) {
    if value.sign() < 0 {
        at.invalid_as("", value.to_string(), NEGATIVE, errors);
    }
    let counted = matches!(
        name,
        "pods"
            | "resourcequotas"
            | "replicationcontrollers"
            | "secrets"
            | "configmaps"
            | "services"
            | "services.nodeports"
            | "services.loadbalancers"
            | "persistentvolumeclaims"
    );
    if (counted || is_extended(name)) && !value.is_whole_at(0) {
        at.invalid_as("", at.tree.clone(), "must be an integer", errors);
    }
}

/// `validateBasicResource`: not negative.
pub(crate) fn basic(at: &Spot<'_>, errors: &mut Errors) {
    if let Some(value) = quantity(at.tree).filter(|q| q.value() < 0) {
        at.invalid_as("", Tree::Int(value.value()), "must be a valid resource quantity", errors);
    }
}

fn huge_page_fault(name: &str, value: &Quantity) -> Option<String> {
    let size: Quantity = name.strip_prefix("hugepages-")?.parse().ok()?;
    let fits = size.value() > 0 && value.value() % size.value() == 0;
    (!fits).then(|| format!("{value} is not positive integer multiple of {name}"))
}

/// Checks requests, limits and claims of a container or pod.
pub(crate) fn validate_requirements(
    resources: &Spot<'_>,
    names_of: Names,
    claims: &HashSet<&str>,
    errors: &mut Errors,
) {
    let mut compute = false;
    let mut huge = false;
    let (limits, requests) = (resources.child("limits"), resources.child("requests"));
    for (list, is_limit) in [(&limits, true), (&requests, false)] {
        for (name, tree) in list.map("").iter() {
            let at = Spot::at(tree, list.path.key(name));
            resource_name(names_of, &at, name, errors);
            let Some(value) = quantity(tree) else { continue };
            quantity_value(&at, name, &value, errors);
            if !is_limit {
                request_fits(name, &value, &limits, &requests, errors);
            }
            if is_huge_pages(name) {
                huge = true;
                if let Some(message) = huge_page_fault(name, &value) {
                    at.invalid_as("", value.to_string(), message, errors);
                }
            }
            compute |= matches!(name, "cpu" | "memory");
        }
    }
    if huge && !compute {
        resources.forbidden("", "HugePages require cpu or memory", errors);
    }
    claim_names(resources, claims, errors);
}

fn request_fits(name: &str, value: &Quantity, limits: &Spot<'_>, requests: &Spot<'_>, errors: &mut Errors) {
    match limits.map("").get(name).and_then(quantity) {
        Some(limit) if *value != limit && !overcommit_allowed(name) => {
            requests.invalid_as("", value.to_string(), format!("must be equal to {name} limit of {limit}"), errors);
        }
        Some(limit) if *value > limit => {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            requests.invalid_as("", value.to_string(), detail, errors);
        }
        None if !overcommit_allowed(name) => {
            limits.required("", "Limit must be set for non overcommitable resources", errors);
        }
        _ => {}
    }
}

fn claim_names(resources: &Spot<'_>, known: &HashSet<&str>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for claim in resources.items("claims") {
        let name = claim.str("name");
        if name.is_empty() {
            claim.required("", "", errors);
            continue;
        }
        let request = claim.str("request");
        let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
        claim.each("request", if request.is_empty() { Vec::new() } else { names::dns_label(request) }, errors);
        if seen.contains(name) || !seen.insert(key.clone()) {
            errors.push(corten_object::FieldError::duplicate(&claim.path, &Tree::from(key)));
        }
        if !known.contains(name) {
            let mut all: Vec<&str> = known.iter().copied().collect();
            all.sort_unstable();
            let rest = if all.is_empty() { " which is empty".to_owned() } else { format!(": {}", all.join(", ")) };
            let body = format!("Not found: {name:?}: must be one of the names in pod.spec.resourceClaims{rest}");
            errors.push(fault(&claim.path, CauseKind::NotFound, body));
        }
    }
}
