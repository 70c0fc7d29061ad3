//! Pod specs, wherever they stand. (`ValidatePodSpec`, `ValidatePodCreate`)

use std::collections::HashSet;

use corten_tree::Tree;

use super::container::{self, Context};
use super::probe::{PodFacts, validate_probes};
use super::{Spot, affinity, labels, meta, names, os, profiles, resources, security, volume};
use crate::{Errors, pod_level};

/// Finds the faults of a pod, new or changed, apart from its metadata.
pub(crate) fn validate(pod: &Tree, errors: &mut Errors) {
    let annotations = Spot::of(pod, "metadata.annotations");
    let spec = Spot::of(pod, "spec");
    pod_annotations(&annotations, &spec, errors);
    validate_spec(&spec, pod.str_at("metadata.name"), true, errors);
    if spec.str("serviceAccountName").is_empty() {
        for volume in spec.items("volumes") {
            for source in volume.items("projected.sources") {
                if source.has("serviceAccountToken") {
                    let detail = "must not be specified when serviceAccountName is not set";
                    source.forbidden("serviceAccountToken", detail, errors);
                }
            }
        }
    }
    spec.non_negative("terminationGracePeriodSeconds", errors);
    for list in ["containers", "initContainers"] {
        for container in spec.items(list) {
            container::validate_image_text(&container, errors);
        }
    }
}

/// Finds the faults that only a new pod can have.
pub(crate) fn validate_create(pod: &Tree, errors: &mut Errors) {
    let spec = Spot::of(pod, "spec");
    if !spec.list("ephemeralContainers").is_empty() {
        spec.forbidden("ephemeralContainers", "cannot be set on create", errors);
    }
    if !spec.str("nodeName").is_empty() && !spec.list("schedulingGates").is_empty() {
        spec.forbidden("nodeName", "cannot be set until all schedulingGates have been cleared", errors);
    }
    profiles::validate_match(pod, errors);
}

/// The annotation that marks a static pod's mirror.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

fn pod_annotations(annotations: &Spot<'_>, spec: &Spot<'_>, errors: &mut Errors) {
    let map = annotations.map("");
    let at = |key: &str, tree| Spot::at(tree, annotations.path.key(key));
    if let Some(value) = map.get(MIRROR)
        && spec.str("nodeName").is_empty()
    {
        at(MIRROR, value).invalid("", "must set spec.nodeName if mirror pod annotation is set", errors);
    }
    if let Some(cost) = map.get(DELETION_COST) {
        let text = cost.as_str().unwrap_or_default();
        let canonical =
            text.parse::<i32>().is_ok() && !text.starts_with('+') && (text == "0" || !text.starts_with('0'));
        if !canonical {
            at(DELETION_COST, cost).invalid("", "must be a 32bit integer", errors);
        }
    }
    profiles::validate_annotations(annotations, spec, errors);
}

/// Finds the faults of a template's metadata and spec (`ValidatePodTemplateSpec`).
pub(crate) fn validate_template(template: &Spot<'_>, errors: &mut Errors) {
    validate_template_meta(template, errors);
    let spec = template.child("spec");
    validate_spec(&spec, "", false, errors);
    if !spec.list("ephemeralContainers").is_empty() {
        spec.forbidden("ephemeralContainers", "ephemeral containers not allowed in pod template", errors);
    }
}

/// Finds the faults of a template's labels and annotations.
pub(crate) fn validate_template_meta(template: &Spot<'_>, errors: &mut Errors) {
    // Upstream names these fields without `metadata`.
    for (field, check) in
        [("labels", labels::validate_labels as fn(&Spot<'_>, &mut Errors)), ("annotations", meta::validate_annotations)]
    {
        let tree = template.child("metadata").child(field).tree;
        check(&Spot::at(tree, template.path.child(field)), errors);
    }
    let spec = template.child("spec");
    let annotations = template.child("metadata.annotations");
    pod_annotations(&Spot::at(annotations.tree, template.path.child("annotations")), &spec, errors);
}

/// The largest `activeDeadlineSeconds`.
const DEADLINE_MAX: i64 = i32::MAX as i64;

/// `ValidatePodSpec`. `pod` is the pod's name, empty in templates.
pub(crate) fn validate_spec(spec: &Spot<'_>, pod: &str, is_pod: bool, errors: &mut Errors) {
    if !spec.has("terminationGracePeriodSeconds") {
        spec.required("terminationGracePeriodSeconds", "", errors);
    }
    let volumes = volume::validate_volumes(spec, pod, errors);
    let claims: HashSet<&str> =
        spec.list("resourceClaims").iter().map(|c| c.str_at("name")).filter(|n| !n.is_empty()).collect();
    resource_claims(spec, errors);
    let context = Context {
        volumes: &volumes,
        claims: &claims,
        restart_policy: spec.str("restartPolicy"),
        host_users: !spec.has("hostUsers") || spec.bool("hostUsers"),
        facts: PodFacts { grace_seconds: spec.int("terminationGracePeriodSeconds"), os: spec.str("os.name") },
    };
    containers(spec, &context, errors);
    init_containers(spec, &context, errors);
    ephemeral_containers(spec, &context, errors);
    pod_resources(spec, &claims, errors);
    if spec.bool("hostNetwork") {
        host_network_ports(spec, is_pod, errors);
    }
    spec.one_of("restartPolicy", &["Always", "OnFailure", "Never"], errors);
    spec.one_of("dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], errors);
    labels::validate_labels(&spec.child("nodeSelector"), errors);
    security::validate_pod(spec, errors);
    if spec.bool("hostPID") && spec.bool("shareProcessNamespace") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        spec.invalid("shareProcessNamespace", detail, errors);
    }
    affinity::validate_affinity(&spec.child("affinity"), errors);
    dns_config(spec, errors);
    for gate in spec.items("readinessGates") {
        gate.each("conditionType", names::label_key(gate.str("conditionType")), errors);
    }
    scheduling_gates(spec, errors);
    affinity::validate_topology_spread(spec, errors);
    os::host_process(spec, errors);
    host_users(spec, errors);
    hostname_override(spec, errors);
    names_and_numbers(spec, errors);
    affinity::validate_tolerations(spec, errors);
    for alias in spec.items("hostAliases") {
        alias.each("ip", names::ip(alias.str("ip")), errors);
        for host in alias.items("hostnames") {
            host.each("", names::dns_subdomain(host.str("")), errors);
        }
    }
    os::validate_os(spec, errors);
    file_key_volumes(spec, errors);
}

fn names_and_numbers(spec: &Spot<'_>, errors: &mut Errors) {
    let subdomain = names::dns_subdomain as names::NameCheck;
    let checks = [
        ("serviceAccountName", subdomain),
        ("nodeName", subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
        ("priorityClassName", subdomain),
        ("runtimeClassName", subdomain),
    ];
    for (field, check) in checks {
        let text = spec.str(field);
        if !text.is_empty() || (field == "runtimeClassName" && spec.has(field)) {
            spec.each(field, check(text), errors);
        }
        if field == "nodeName" && spec.int("activeDeadlineSeconds").is_some_and(|s| !(1..=DEADLINE_MAX).contains(&s)) {
            spec.invalid("activeDeadlineSeconds", names::range(1, DEADLINE_MAX), errors);
        }
    }
    if spec.has("preemptionPolicy") {
        spec.one_of("preemptionPolicy", &["PreemptLowerPriority", "Never"], errors);
    }
    if let Some(overhead) = spec.some("overhead") {
        let limits = Tree::Map([("limits".into(), overhead.tree.clone())].into_iter().collect());
        let at = Spot::at(&limits, overhead.path.clone());
        resources::validate_requirements(&at, resources::Names::Container, &HashSet::new(), errors);
    }
}

fn resource_claims(spec: &Spot<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for claim in spec.items("resourceClaims") {
        match claim.str("name") {
            "" => claim.required("name", "", errors),
            name if !seen.insert(name) => claim.duplicate("name", errors),
            name => claim.each("name", names::dns_label(name), errors),
        }
        let (claim_name, template) = (claim.has("resourceClaimName"), claim.has("resourceClaimTemplateName"));
        if claim_name && template {
            let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
            claim.invalid("", detail, errors);
        }
        if !claim_name && !template {
            claim.invalid("", "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`", errors);
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"] {
            if claim.has(field) {
                claim.each(field, names::dns_subdomain(claim.str(field)), errors);
            }
        }
    }
}

fn containers(spec: &Spot<'_>, context: &Context<'_>, errors: &mut Errors) {
    let all = spec.items("containers");
    if all.is_empty() {
        spec.required("containers", "", errors);
        return;
    }
    let mut seen = HashSet::new();
    for container in &all {
        container::validate_common(container, context, errors);
        if !seen.insert(container.str("name")) {
            container.duplicate("name", errors);
        }
        validate_probes(container, context.facts, errors);
        container::validate_restart_policy(container, errors);
    }
    container::host_port_conflicts(&all, errors);
}

fn init_containers(spec: &Spot<'_>, context: &Context<'_>, errors: &mut Errors) {
    let mut seen: HashSet<&str> = spec.list("containers").iter().map(|c| c.str_at("name")).collect();
    for container in spec.items("initContainers") {
        container::validate_common(&container, context, errors);
        container::validate_restart_policy(&container, errors);
        let name = container.str("name");
        if !name.is_empty() && !seen.insert(name) {
            container.duplicate("name", errors);
        }
        container::host_port_conflicts(std::slice::from_ref(&container), errors);
        let sidecar = container.str("restartPolicy") == "Always";
        if sidecar {
            validate_probes(&container, context.facts, errors);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.has(field) {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    container.forbidden(field, detail, errors);
                }
            }
            for policy in container.items("resizePolicy") {
                if policy.str("restartPolicy") == "RestartContainer" {
                    let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                    policy.invalid("restartPolicy", detail, errors);
                }
            }
        }
    }
}

fn ephemeral_containers(spec: &Spot<'_>, context: &Context<'_>, errors: &mut Errors) {
    const REFUSED: &str = "cannot be set for an Ephemeral Container";
    let others: HashSet<&str> =
        ["containers", "initContainers"].iter().flat_map(|l| spec.list(l)).map(|c| c.str_at("name")).collect();
    let mut seen = others.clone();
    for container in spec.items("ephemeralContainers") {
        container::validate_common(&container, context, errors);
        container::validate_image_text(&container, errors);
        if !seen.insert(container.str("name")) {
            container.duplicate("name", errors);
        }
        let target = container.str("targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            container.not_found("targetContainerName", errors);
        }
        for field in [
            "ports",
            "resources",
            "resizePolicy",
            "restartPolicy",
            "restartPolicyRules",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ] {
            if container.child(field).tree.as_str().is_some() || !container.child(field).tree.is_empty_value() {
                container.forbidden(field, REFUSED, errors);
            }
        }
        for mount in container.items("volumeMounts") {
            for field in ["subPath", "subPathExpr"] {
                if !mount.str(field).is_empty() {
                    mount.forbidden(field, REFUSED, errors);
                }
            }
        }
    }
}

fn pod_resources(spec: &Spot<'_>, claims: &HashSet<&str>, errors: &mut Errors) {
    let Some(own) = spec.some("resources") else { return };
    if spec.str("os.name") == "windows" {
        own.forbidden("", "may not be set for a windows pod", errors);
        return;
    }
    if own.has("claims") {
        own.forbidden("claims", "claims may not be set for Resources at pod-level", errors);
    }
    resources::validate_requirements(&own, resources::Names::Pod, claims, errors);
    pod_level::validate(spec, errors);
}

fn host_network_ports(spec: &Spot<'_>, is_pod: bool, errors: &mut Errors) {
    for container in spec.items("containers") {
        for port in container.items("ports") {
            let host = port.int("hostPort").unwrap_or_default();
            if (is_pod || host != 0) && Some(host) != port.int("containerPort") {
                port.invalid_as("hostPort", host, "must match `containerPort` when `hostNetwork` is true", errors);
            }
        }
    }
}

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARACTERS_MAX: usize = 2048;

fn dns_config(spec: &Spot<'_>, errors: &mut Errors) {
    let config = spec.child("dnsConfig");
    if spec.str("dnsPolicy") == "None" {
        if !spec.has("dnsConfig") {
            spec.required("dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None", errors);
            return;
        }
        if config.list("nameservers").is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            config.required("nameservers", detail, errors);
            return;
        }
    }
    if config.list("nameservers").len() > NAMESERVERS_MAX {
        config.invalid("nameservers", format!("must not have more than {NAMESERVERS_MAX} nameservers"), errors);
    }
    for server in config.items("nameservers") {
        server.each("", names::ip(server.str("")), errors);
    }
    let searches = config.list("searches");
    if searches.len() > SEARCHES_MAX {
        config.invalid("searches", format!("must not have more than {SEARCHES_MAX} search paths"), errors);
    }
    if crate::print::joined(searches, " ").len() > SEARCH_CHARACTERS_MAX {
        let detail =
            format!("must not have more than {SEARCH_CHARACTERS_MAX} characters (including spaces) in the search list");
        config.invalid("searches", detail, errors);
    }
    for search in config.items("searches") {
        let text = search.str("");
        if text != "." {
            let text = text.strip_suffix('.').unwrap_or(text);
            for message in names::dns_subdomain_with_underscore(text) {
                search.invalid_as("", text, message, errors);
            }
        }
    }
    for option in config.items("options") {
        if option.str("name").is_empty() {
            option.required("", "must not be empty", errors);
        }
    }
}

fn scheduling_gates(spec: &Spot<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for gate in spec.items("schedulingGates") {
        let name = gate.str("name");
        for message in names::label_key(name) {
            gate.invalid_as("", name, message, errors);
        }
        if !seen.insert(name) {
            errors.push(corten_object::FieldError::duplicate(&gate.path, &Tree::from(name)));
        }
    }
}

fn host_users(spec: &Spot<'_>, errors: &mut Errors) {
    if !spec.has("hostUsers") || spec.bool("hostUsers") {
        return;
    }
    const DETAIL: &str = "when `hostUsers` is false";
    // The capital letters are upstream's.
    for (field, name) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.bool(field) {
            spec.forbidden(name, DETAIL, errors);
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.items(list) {
            if !container.list("volumeDevices").is_empty() {
                container.forbidden("volumeDevices", DETAIL, errors);
            }
        }
    }
}

/// The longest host name that Linux takes.
const HOSTNAME_MAX: usize = 64;

fn hostname_override(spec: &Spot<'_>, errors: &mut Errors) {
    const FIELD: &str = "hostnameOverride";
    if !spec.has(FIELD) {
        return;
    }
    if spec.bool("setHostnameAsFQDN") {
        spec.forbidden(FIELD, "may not be specified when setHostnameAsFQDN is true", errors);
    }
    if spec.bool("hostNetwork") {
        spec.forbidden(FIELD, "may not be specified when hostNetwork is true", errors);
    }
    if spec.str(FIELD).len() > HOSTNAME_MAX {
        spec.too_long(FIELD, HOSTNAME_MAX, errors);
    }
    spec.each(FIELD, names::dns_subdomain(spec.str(FIELD)), errors);
}

fn file_key_volumes(spec: &Spot<'_>, errors: &mut Errors) {
    let volumes = spec.list("volumes");
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.items(list) {
            for variable in container.items("env") {
                let Some(reference) = variable.some("valueFrom.fileKeyRef") else { continue };
                let name = reference.str("volumeName");
                match volumes.iter().find(|v| v.str_at("name") == name) {
                    None => reference.not_found("volumeName", errors),
                    Some(v) if v.path("emptyDir").is_none() => {
                        reference.invalid("volumeName", "referenced volume must be of type emptyDir", errors);
                    }
                    Some(_) => {}
                }
            }
        }
    }
}
