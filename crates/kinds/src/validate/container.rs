//! Containers: what init, main and ephemeral ones share. (`validateContainerCommon` and around)

use std::collections::HashSet;

use corten_tree::Tree;

use super::probe::PodFacts;
use super::volume::{Volumes, local_descending_path, no_backsteps};
use super::{Spot, names, resources, security};
use crate::Errors;

/// What a container's checks need to know of its pod.
pub(crate) struct Context<'p> {
    /// The pod's valid volumes.
    pub volumes: &'p Volumes<'p>,
    /// Names of `spec.resourceClaims`.
    pub claims: &'p HashSet<&'p str>,
    /// `spec.restartPolicy`
    pub restart_policy: &'p str,
    /// Whether the pod runs in the host's user namespace.
    pub host_users: bool,
    /// For handlers.
    pub facts: PodFacts<'p>,
}

/// Checks what all sorts of containers have.
pub(crate) fn validate_common(container: &Spot<'_>, context: &Context<'_>, errors: &mut Errors) {
    match container.str("name") {
        "" => container.required("name", "", errors),
        name => container.each("name", names::dns_label(name), errors),
    }
    if container.str("image").is_empty() {
        container.required("image", "", errors);
    }
    container.one_of("terminationMessagePolicy", &["File", "FallbackToLogsOnError"], errors);
    ports(container, errors);
    env(container, errors);
    env_from(container, errors);
    mounts(container, context.volumes, errors);
    devices(container, context.volumes, errors);
    container.one_of("imagePullPolicy", &["Always", "IfNotPresent", "Never"], errors);
    let requirements = container.child("resources");
    resources::validate_requirements(&requirements, resources::Names::Container, context.claims, errors);
    resize_policy(container, context.restart_policy, errors);
    security::validate_container(container, context.host_users, errors);
}

fn ports(container: &Spot<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for port in container.items("ports") {
        let name = port.str("name");
        if !name.is_empty() {
            let messages = names::port_name(name);
            if !messages.is_empty() {
                port.each("name", messages, errors);
            } else if seen.contains(&name) {
                port.duplicate("name", errors);
            } else {
                seen.push(name);
            }
        }
        match port.int("containerPort").unwrap_or_default() {
            0 => port.required("containerPort", "", errors),
            number => port.each("containerPort", names::port_number(number), errors),
        }
        match port.int("hostPort").unwrap_or_default() {
            0 => {}
            number => port.each("hostPort", names::port_number(number), errors),
        }
        port.one_of("protocol", &["SCTP", "TCP", "UDP"], errors);
    }
}

/// Finds host ports that two containers claim.
pub(crate) fn host_port_conflicts(containers: &[Spot<'_>], errors: &mut Errors) {
    let mut seen = HashSet::new();
    for container in containers {
        for port in container.items("ports") {
            let number = port.int("hostPort").unwrap_or_default();
            if number == 0 {
                continue;
            }
            let text = format!("{}/{}/{number}", port.str("protocol"), port.str("hostIP"));
            if !seen.insert(text.clone()) {
                let path = port.path.child("hostPort");
                errors.push(corten_object::FieldError::duplicate(&path, &Tree::from(text)));
            }
        }
    }
}

fn env(container: &Spot<'_>, errors: &mut Errors) {
    for variable in container.items("env") {
        match variable.str("name") {
            "" => variable.required("name", "", errors),
            name => variable.each("name", names::env_name(name), errors),
        }
        if let Some(from) = variable.some("valueFrom") {
            value_from(&from, variable.str("value"), errors);
        }
    }
}

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn value_from(from: &Spot<'_>, value: &str, errors: &mut Errors) {
    let mut sources = 0;
    if let Some(field) = from.some("fieldRef") {
        sources += 1;
        object_field(&field, ENV_FIELDS, errors);
    }
    if let Some(field) = from.some("resourceFieldRef") {
        sources += 1;
        resource_field(&field, false, errors);
    }
    for selector in ["configMapKeyRef", "secretKeyRef"] {
        let Some(selector) = from.some(selector) else { continue };
        sources += 1;
        for message in names::dns_subdomain(selector.str("name")) {
            selector.invalid_as("name", selector.str("name"), message, errors);
        }
        match selector.str("key") {
            "" => selector.required("key", "", errors),
            key => selector.each("key", names::config_key(key), errors),
        }
    }
    if let Some(file) = from.some("fileKeyRef") {
        sources += 1;
        file_key(&file, errors);
    }
    if sources == 0 {
        let detail =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        from.invalid_as("", "", detail, errors);
    } else if !value.is_empty() {
        from.invalid_as("", "", "may not be specified when `value` is not empty", errors);
    } else if sources > 1 {
        from.invalid_as("", "", "may not have more than one field specified at a time", errors);
    }
}

fn file_key(file: &Spot<'_>, errors: &mut Errors) {
    match file.str("key") {
        "" => file.required("key", "", errors),
        key => file.each("key", names::env_name(key), errors),
    }
    match file.str("volumeName") {
        "" => file.required("volumeName", "", errors),
        name => file.each("volumeName", names::dns_label(name), errors),
    }
    match file.str("path") {
        "" => file.required("path", "", errors),
        _ => no_backsteps(file, "path", errors),
    }
}

/// Fields of a pod that the downward API knows at all (`ConvertDownwardAPIFieldLabel`).
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// `validateObjectFieldSelector`; `allowed` is sorted.
pub(crate) fn object_field(field: &Spot<'_>, allowed: &[&str], errors: &mut Errors) {
    for required in ["apiVersion", "fieldPath"] {
        if field.str(required).is_empty() {
            field.required(required, "", errors);
            return;
        }
    }
    let given = field.str("fieldPath");
    if field.str("apiVersion") != "v1" {
        let detail = format!("error converting fieldPath: unsupported pod version: {}", field.str("apiVersion"));
        field.invalid("fieldPath", detail, errors);
        return;
    }
    let subscripted = given.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    let path = subscripted.map_or(given, |(path, _)| path);
    let path = if path == "spec.host" { "spec.nodeName" } else { path };
    let known = match subscripted {
        Some(_) => matches!(path, "metadata.annotations" | "metadata.labels"),
        None => KNOWN_FIELDS.contains(&path),
    };
    if !known {
        field.invalid("fieldPath", format!("error converting fieldPath: field label not supported: {given}"), errors);
        return;
    }
    match subscripted {
        Some((_, key)) => {
            let key = if path == "metadata.annotations" { key.to_lowercase() } else { key.to_owned() };
            for message in names::label_key(&key) {
                field.invalid_as("", key.as_str(), message, errors);
            }
        }
        None if !allowed.contains(&path) => field.unsupported("fieldPath", allowed, errors),
        None => {}
    }
}

const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const BYTE_DIVISORS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// `validateContainerResourceFieldSelector`
pub(crate) fn resource_field(field: &Spot<'_>, volume: bool, errors: &mut Errors) {
    let resource = field.str("resource");
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if volume && field.str("containerName").is_empty() {
        field.required("containerName", "", errors);
    } else if resource.is_empty() {
        field.required("resource", "", errors);
    } else if !RESOURCE_FIELDS.contains(&resource) && !huge {
        field.unsupported("resource", RESOURCE_FIELDS, errors);
    }
    let divisor = field.str("divisor");
    if matches!(divisor, "" | "0") {
        return;
    }
    let (fits, what) = match resource.split_once('.').map(|(_, name)| name) {
        Some("cpu") => (matches!(divisor, "1m" | "1"), "cpu"),
        Some("memory") => (BYTE_DIVISORS.contains(&divisor), "memory"),
        Some("ephemeral-storage") => (BYTE_DIVISORS.contains(&divisor), "local ephemeral storage"),
        _ if huge => (BYTE_DIVISORS.contains(&divisor), "hugepages"),
        _ => return,
    };
    if !fits {
        let allowed = if what == "cpu" { "1m and 1".to_owned() } else { BYTE_DIVISORS.join(", ") };
        let detail = format!("only divisor's values {allowed} are supported with the {what} resource");
        field.invalid_as("divisor", resource, detail, errors);
    }
}

fn env_from(container: &Spot<'_>, errors: &mut Errors) {
    for source in container.items("envFrom") {
        let prefix = source.str("prefix");
        if !prefix.is_empty() {
            source.each("prefix", names::env_name(prefix), errors);
        }
        let mut sources = 0;
        for reference in ["configMapRef", "secretRef"] {
            let Some(reference) = source.some(reference) else { continue };
            sources += 1;
            match reference.str("name") {
                "" => reference.required("name", "", errors),
                name => reference.each("name", names::with_suffix(names::dns_subdomain, name), errors),
            }
        }
        // Upstream reports these at the list.
        if sources == 0 {
            container.invalid_as("envFrom", "", "must specify one of: `configMapRef` or `secretRef`", errors);
        } else if sources > 1 {
            container.invalid_as("envFrom", "", "may not have more than one field specified at a time", errors);
        }
    }
}

fn mounts(container: &Spot<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let all = container.items("volumeMounts");
    let devices = container.list("volumeDevices");
    let list = container.child("volumeMounts");
    let mut seen = HashSet::new();
    for mount in &all {
        let (name, path) = (mount.str("name"), mount.str("mountPath"));
        if name.is_empty() {
            mount.required("name", "", errors);
        }
        if !volumes.contains_key(name) {
            errors.push(corten_object::FieldError::not_found(&mount.path.child("name"), &Tree::from(name)));
        }
        if path.is_empty() {
            mount.required("mountPath", "", errors);
        }
        if !seen.insert(path) {
            mount.invalid_as("mountPath", path, "must be unique", errors);
        }
        if devices.iter().any(|d| d.str_at("name") == name) {
            mount.invalid("name", "must not already exist in volumeDevices", errors);
        }
        if devices.iter().any(|d| d.str_at("devicePath") == path) {
            mount.invalid("mountPath", "must not already exist as a path in volumeDevices", errors);
        }
        // Upstream reports faults of these fields at the list, without the index.
        let at_list = Spot::at(mount.tree, list.path.clone());
        if !mount.str("subPath").is_empty() {
            local_descending_path(&at_list, "subPath", errors);
        }
        if !mount.str("subPathExpr").is_empty() {
            if !mount.str("subPath").is_empty() {
                mount.invalid("subPathExpr", "subPathExpr and subPath are mutually exclusive", errors);
            }
            local_descending_path(&at_list, "subPathExpr", errors);
        }
        propagation(container, &at_list, errors);
    }
}

fn propagation(container: &Spot<'_>, mount: &Spot<'_>, errors: &mut Errors) {
    let propagation = mount.str("mountPropagation");
    if mount.has("mountPropagation") {
        mount.optional_one_of("mountPropagation", &["Bidirectional", "HostToContainer", "None"], errors);
        if propagation == "Bidirectional" && !container.bool("securityContext.privileged") {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            mount.forbidden("mountPropagation", detail, errors);
        }
    }
    match mount.str("recursiveReadOnly") {
        "Enabled" | "IfPossible" => {
            if !mount.bool("readOnly") {
                mount.forbidden("recursiveReadOnly", "may only be specified when readOnly is true", errors);
            }
            if !matches!(propagation, "" | "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                mount.forbidden("recursiveReadOnly", detail, errors);
            }
        }
        _ => mount.optional_one_of("recursiveReadOnly", &["Disabled", "Enabled", "IfPossible"], errors),
    }
}

fn devices(container: &Spot<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mounts = container.list("volumeMounts");
    let (mut names_seen, mut paths_seen) = (HashSet::new(), HashSet::new());
    for device in container.items("volumeDevices") {
        let (name, path) = (device.str("name"), device.str("devicePath"));
        if name.is_empty() {
            device.required("name", "", errors);
        }
        if !name.is_empty() && !names_seen.insert(name) {
            device.invalid("name", "must be unique", errors);
        }
        match volumes.get(name) {
            None => errors.push(corten_object::FieldError::not_found(&device.path.child("name"), &Tree::from(name))),
            Some(v) if v.path("persistentVolumeClaim").is_none() && v.path("ephemeral").is_none() => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                device.invalid("name", detail, errors);
            }
            Some(_) => {}
        }
        if path.is_empty() {
            device.required("devicePath", "", errors);
        }
        if path.split('/').any(|part| part == "..") {
            device.invalid("devicePath", "can not contain backsteps ('..')", errors);
        } else if !paths_seen.insert(path) {
            device.invalid("devicePath", "must be unique", errors);
        }
        if mounts.iter().any(|m| m.str_at("name") == name) {
            device.invalid("name", "must not already exist in volumeMounts", errors);
        }
        if mounts.iter().any(|m| m.str_at("mountPath") == path) {
            device.invalid("devicePath", "must not already exist as a path in volumeMounts", errors);
        }
    }
}

fn resize_policy(container: &Spot<'_>, restart_policy: &str, errors: &mut Errors) {
    let list = container.child("resizePolicy");
    let mut seen = HashSet::new();
    for policy in container.items("resizePolicy") {
        let resource = policy.str("resourceName");
        if !seen.insert(resource) {
            errors.push(corten_object::FieldError::duplicate(&policy.path, &Tree::from(resource)));
        }
        // Upstream reports the rest at the list.
        for (value, supported) in
            [(resource, &["cpu", "memory"]), (policy.str("restartPolicy"), &["NotRequired", "RestartContainer"])]
        {
            if value.is_empty() {
                list.required("", "", errors);
            } else if !supported.contains(&value) {
                errors.push(corten_object::FieldError::not_supported(&list.path, value, supported));
            }
        }
        if restart_policy == "Never" && policy.str("restartPolicy") != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            list.invalid_as("", policy.str("restartPolicy"), detail, errors);
        }
    }
}

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// `validateContainerRestartPolicy`
pub(crate) fn validate_restart_policy(container: &Spot<'_>, errors: &mut Errors) {
    let rules = container.items("restartPolicyRules");
    if !container.has("restartPolicy") {
        if !rules.is_empty() {
            container.required("restartPolicy", "must specify restartPolicy when restart rules are used", errors);
        }
    } else if !matches!(container.str("restartPolicy"), "Always" | "Never" | "OnFailure") {
        container.unsupported("restartPolicy", &["Always", "Never", "OnFailure"], errors);
    }
    if rules.len() > RULES_MAX {
        container.too_many("restartPolicyRules", RULES_MAX, errors);
    }
    for rule in rules {
        if !matches!(rule.str("action"), "Restart" | "RestartAllContainers") {
            rule.unsupported("action", &["Restart", "RestartAllContainers"], errors);
        }
        let Some(codes) = rule.some("exitCodes") else {
            rule.required("exitCodes", "must be specified", errors);
            continue;
        };
        if !matches!(codes.str("operator"), "In" | "NotIn") {
            codes.unsupported("operator", &["In", "NotIn"], errors);
        }
        if codes.list("values").len() > EXIT_CODES_MAX {
            codes.too_many("values", EXIT_CODES_MAX, errors);
        }
    }
}

/// Faults that only matter in a pod, not in a template.
pub(crate) fn validate_image_text(container: &Spot<'_>, errors: &mut Errors) {
    let image = container.str("image");
    if image.trim() != image {
        container.invalid("image", "must not have leading or trailing whitespace", errors);
    }
}
