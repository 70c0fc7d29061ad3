//! What a status of a pod may say. (`ValidatePodStatusUpdate`)

use std::collections::HashSet;
use std::net::IpAddr;

use corten_tree::Tree;

use super::{IMMUTABLE, Spot, names, pod_update, security};
use crate::Errors;

const LISTS: [&str; 3] = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];

/// Finds the faults of a changed status, besides those of its metadata.
pub(crate) fn validate(new: &Tree, old: &Tree, errors: &mut Errors) {
    let (status, before) = (Spot::of(new, "status"), Spot::of(old, "status"));
    pod_update::annotations(new, old, errors);
    conditions(&status, errors);
    nominated_node(&status, &before, old, errors);
    if status.int("observedGeneration").is_some_and(|g| g < 0) {
        status.invalid("observedGeneration", "must be a non-negative integer", errors);
    }
    if status.str("qosClass") != before.str("qosClass") {
        status.invalid_as("qosClass", status.str("qosClass"), IMMUTABLE, errors);
    }
    transitions(&status, old, errors);
    claims(&status, new, errors);
    extended_resources(&status, new, errors);
    addresses(&status, &before, errors);
    host_addresses(&status, &before, errors);
    for list in LISTS {
        users(&status, list, new.str_at("spec.os.name"), errors);
    }
    resources(&status, "containerStatuses", new.list_at("spec.containers"), errors);
    resources(&status, "initContainerStatuses", new.list_at("spec.initContainers"), errors);
    for container in status.items("ephemeralContainerStatuses") {
        if !container.list("allocatedResourcesStatus").is_empty() {
            container.forbidden("allocatedResourcesStatus", "must not be specified in container status", errors);
        }
    }
    for list in LISTS {
        images(&status, list, errors);
    }
}

fn conditions(status: &Spot<'_>, errors: &mut Errors) {
    for condition in status.items("conditions") {
        if condition.int("observedGeneration").is_some_and(|g| g < 0) {
            condition.invalid("observedGeneration", "must be a non-negative integer", errors);
        }
        let kind = condition.str("type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            // The capital letter is upstream's.
            for message in names::label_key(kind) {
                condition.invalid_as("Type", kind, message, errors);
            }
        }
    }
}

fn nominated_node(status: &Spot<'_>, before: &Spot<'_>, old: &Tree, errors: &mut Errors) {
    const FIELD: &str = "nominatedNodeName";
    let name = status.str(FIELD);
    if name.is_empty() || name == before.str(FIELD) {
        return;
    }
    status.each(FIELD, names::dns_subdomain(name), errors);
    if !old.str_at("spec.nodeName").is_empty() {
        status.forbidden(FIELD, "may not be set on pods that are already bound to a node", errors);
    }
}

/// A container that is over stays over, unless a restart policy or rule starts it again.
fn transitions(status: &Spot<'_>, old: &Tree, errors: &mut Errors) {
    let all_again = ["spec.initContainers", "spec.containers"]
        .iter()
        .flat_map(|list| old.list_at(list))
        .any(|c| c.list_at("restartPolicyRules").iter().any(|rule| rule.str_at("action") == "RestartAllContainers"));
    let pod = old.str_at("spec.restartPolicy");
    let containers = ["spec.containers", "spec.initContainers", ""];
    for (list, containers) in LISTS.iter().zip(containers) {
        if all_again && !containers.is_empty() {
            continue;
        }
        let place = status.child(list);
        for (i, before) in old.list_at(&format!("status.{list}")).iter().enumerate() {
            let Some(terminated) = before.path("state.terminated") else { continue };
            let name = before.str_at("name");
            let over = |s: &&Tree| s.str_at("name") == name && s.path("state.terminated").is_none();
            if !place.list("").iter().any(|s| over(&s)) {
                continue;
            }
            let code = terminated.i64_at("exitCode").unwrap_or_default();
            let container = old.list_at(containers).iter().find(|c| c.str_at("name") == name);
            if !container.is_some_and(|c| starts_again(c, pod, code)) {
                let at = Spot::at(place.tree, place.path.index(i).child("state"));
                at.forbidden("", "may not be transitioned to non-terminated state", errors);
            }
        }
    }
}

/// `ContainerShouldRestart`
fn starts_again(container: &Tree, pod: &str, code: i64) -> bool {
    let own = container.str_at("restartPolicy");
    let matches = |rule: &&Tree| {
        let listed = rule.list_at("exitCodes.values").iter().any(|v| v.as_i64() == Some(code));
        match rule.str_at("exitCodes.operator") {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    let ruled = !own.is_empty()
        && container
            .list_at("restartPolicyRules")
            .iter()
            .find(matches)
            .is_some_and(|rule| matches!(rule.str_at("action"), "Restart" | "RestartAllContainers"));
    let policy = if own.is_empty() { pod } else { own };
    ruled
        || match policy {
            "Never" => false,
            "OnFailure" => code != 0,
            _ => true,
        }
}

fn claims(status: &Spot<'_>, pod: &Tree, errors: &mut Errors) {
    let known: HashSet<&str> = pod.list_at("spec.resourceClaims").iter().map(|c| c.str_at("name")).collect();
    let mut seen = HashSet::new();
    for claim in status.items("resourceClaimStatuses") {
        let name = claim.str("name");
        if !known.contains(name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            claim.invalid_as("name", name, detail, errors);
        }
        if !seen.insert(name) {
            claim.duplicate("name", errors);
        }
        if claim.has("resourceClaimName") {
            claim.each("resourceClaimName", names::dns_subdomain(claim.str("resourceClaimName")), errors);
        }
    }
}

fn extended_resources(status: &Spot<'_>, pod: &Tree, errors: &mut Errors) {
    let Some(extended) = status.some("extendedResourceClaimStatus") else { return };
    let containers = ["spec.containers", "spec.initContainers"];
    let of = |name: &str| containers.iter().flat_map(|l| pod.list_at(l)).find(|c| c.str_at("name") == name);
    let mappings = extended.items("requestMappings");
    if mappings.is_empty() {
        extended.required("requestMappings", "at least one request mapping is required", errors);
    }
    let mut seen = HashSet::new();
    for mapping in mappings {
        let (container, resource) = (mapping.str("containerName"), mapping.str("resourceName"));
        match of(container) {
            Some(c) if c.map_at("resources.requests").contains(resource) => {}
            Some(_) => {
                let detail = "must match the extended resource name of an entry in spec.initContainers.resources.requests or \
                     spec.containers.resources.requests";
                mapping.invalid_as("resourceName", resource, detail, errors);
            }
            None => {
                let detail = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                mapping.invalid_as("containerName", container, detail, errors);
            }
        }
        let request = mapping.str("requestName");
        for message in names::dns_label(request) {
            extended.invalid_as("requestName", request, message, errors);
        }
        if !seen.insert((container, resource, request)) {
            for field in ["containerName", "resourceName", "requestName"] {
                mapping.duplicate(field, errors);
            }
        }
    }
    match extended.str("resourceClaimName") {
        "" => extended.required("resourceClaimName", "", errors),
        name => extended.each("resourceClaimName", names::dns_subdomain(name), errors),
    }
}

/// Addresses in a list; a malformed one that was there before may stay. Upstream leaves the field `ip` out of the path.
fn each_address(status: &Spot<'_>, before: &Spot<'_>, list: &str, errors: &mut Errors) {
    for ip in status.items(list) {
        if !before.list(list).iter().any(|old| old.str_at("ip") == ip.str("ip")) {
            for message in names::ip(ip.str("ip")) {
                ip.invalid_as("", ip.str("ip"), message, errors);
            }
        }
    }
    let all = status.list(list);
    if all.len() > 1 {
        let parsed: Vec<Option<IpAddr>> = all.iter().map(|ip| ip.str_at("ip").parse().ok()).collect();
        let both = parsed.iter().flatten().any(IpAddr::is_ipv4) && parsed.iter().flatten().any(IpAddr::is_ipv6);
        if let Some(bad) = parsed.iter().position(Option::is_none) {
            let text = all[bad].str_at("ip");
            let body = format!("Internal error: failed to check for dual stack with error:invalid IP: {bad}={text}");
            errors.push(super::fault(&status.path.child(list), corten_object::CauseKind::InternalError, body));
        }
        if !both || all.len() > 2 {
            status.invalid(list, "may specify no more than one IP for each IP family", errors);
        }
    }
}

fn addresses(status: &Spot<'_>, before: &Spot<'_>, errors: &mut Errors) {
    each_address(status, before, "podIPs", errors);
    let (ip, ips) = (status.str("podIP"), status.list("podIPs"));
    if ip.is_empty() != ips.is_empty() {
        status.invalid("podIPs", "podIP and podIPs must either both be set or both be unset", errors);
    } else if ips.first().is_some_and(|first| first.str_at("ip") != ip) {
        status.items("podIPs")[0].invalid("ip", "must be equal to `podIP`", errors);
    }
}

fn host_addresses(status: &Spot<'_>, before: &Spot<'_>, errors: &mut Errors) {
    if let Some(first) = status.items("hostIPs").first()
        && first.str("ip") != status.str("hostIP")
    {
        first.invalid_as("ip", first.str("ip"), "must be equal to `hostIP`", errors);
    }
    each_address(status, before, "hostIPs", errors);
}

/// The largest user id that a runtime may report.
const UID_MAX: i64 = u32::MAX as i64;

fn users(status: &Spot<'_>, list: &str, os: &str, errors: &mut Errors) {
    for container in status.items(list) {
        let Some(user) = container.some("user.linux") else { continue };
        if os == "windows" {
            container.forbidden("user.linux", "cannot be set for a windows pod", errors);
            continue;
        }
        user.in_range("uid", 0, UID_MAX, errors);
        user.in_range("gid", 0, security::ID_MAX, errors);
        for group in user.items("supplementalGroups") {
            group.in_range("", 0, security::ID_MAX, errors);
        }
    }
}

/// The longest message about a device's health.
const MESSAGE_BYTES_MAX: usize = 1024;
/// The longest reference of an image volume.
const IMAGE_BYTES_MAX: usize = 256;

fn resources(status: &Spot<'_>, list: &str, containers: &[Tree], errors: &mut Errors) {
    for container in status.items(list) {
        let spec = containers.iter().find(|c| c.str_at("name") == container.str("name"));
        for resource in container.items("allocatedResourcesStatus") {
            if let Some(spec) = spec {
                allocated(&resource, spec, status, errors);
            }
            let mut seen = HashSet::new();
            for device in resource.items("resources") {
                if !matches!(device.str("health"), "Healthy" | "Unhealthy" | "Unknown") {
                    device.unsupported("health", &["Healthy", "Unhealthy", "Unknown"], errors);
                }
                match device.some("message").map(|m| m.str("").len()) {
                    Some(0) => device.required("message", "must be non-empty if specified", errors),
                    Some(length) if length > MESSAGE_BYTES_MAX => {
                        device.too_long("message", MESSAGE_BYTES_MAX, errors);
                    }
                    _ => {}
                }
                if !seen.insert(device.str("resourceID")) {
                    device.duplicate("resourceID", errors);
                }
            }
        }
    }
}

fn allocated(resource: &Spot<'_>, spec: &Tree, status: &Spot<'_>, errors: &mut Errors) {
    let name = resource.str("name");
    let Some(claim) = name.strip_prefix("claim:") else {
        if !spec.map_at("resources.requests").contains(name) {
            resource.invalid_as("name", name, "must match one of the container's resource requests", errors);
        }
        return;
    };
    let known = spec.list_at("resources.claims").iter().any(|c| match c.str_at("request") {
        "" => claim == c.str_at("name"),
        request => claim == format!("{}/{request}", c.str_at("name")),
    });
    let (of, request) = claim.split_once('/').unwrap_or((claim, ""));
    let extended = status.child("extendedResourceClaimStatus");
    let mapped = of == extended.str("resourceClaimName")
        && extended
            .list("requestMappings")
            .iter()
            .any(|m| m.str_at("containerName") == spec.str_at("name") && m.str_at("requestName") == request);
    if !known && !mapped {
        let detail = "must match one of the container's resource claims as 'claim:<claimName>/<requestName>' when \
             container.resources.claims[*].request is set or 'claim:<claimName>' when it is empty";
        resource.invalid_as("name", name, detail, errors);
    }
}

fn images(status: &Spot<'_>, list: &str, errors: &mut Errors) {
    for mount in status.items(list).iter().flat_map(|container| container.items("volumeMounts")) {
        let Some(image) = mount.some("volumeStatus.image") else { continue };
        let at = Spot::at(image.tree, mount.path.child("volumeStatus.imageVolumeStatus"));
        match at.str("imageRef").len() {
            0 => at.required("imageRef", "imageRef must not be empty", errors),
            length if length > IMAGE_BYTES_MAX => at.too_long("imageRef", IMAGE_BYTES_MAX, errors),
            _ => {}
        }
    }
}
