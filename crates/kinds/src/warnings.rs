//! What is allowed but dubious in a pod or a template: sent as Warning headers. (`pkg/api/pod/warnings.go`)

use std::collections::HashMap;

use corten_tree::{FieldPath, Tree};

use crate::validate::{Spot, quantity};

/// Warnings of a pod.
pub(crate) fn pod(pod: &Tree, _: Option<&Tree>) -> Vec<String> {
    of_spec(&Spot::of(pod, "spec"), &Spot::of(pod, "metadata"))
}

/// Warnings of a kind whose template is `spec.template`; nothing is said again about a template that did not change.
pub(crate) fn template(object: &Tree, old: Option<&Tree>) -> Vec<String> {
    of_template(object, old, "spec.template")
}

/// Warnings of the template at a dotted path.
pub(crate) fn of_template(object: &Tree, old: Option<&Tree>, path: &str) -> Vec<String> {
    let template = Spot::of(object, path);
    if old.and_then(|old| old.path(path)).is_some_and(|old| old.semantically_equal(template.tree)) {
        return Vec::new();
    }
    of_spec(&template.child("spec"), &template.child("metadata"))
}

/// Node labels that have a successor.
const OLD_NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];

/// Annotations that stopped working.
const DEAD_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// Volume sources that stopped working.
const DEAD_VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

fn of_spec(spec: &Spot<'_>, meta: &Spot<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let selector = spec.map("nodeSelector");
    for (label, message) in OLD_NODE_LABELS {
        if selector.contains(label) {
            out.push(format!("{}: {message}", spec.path.child("nodeSelector").key(label)));
        }
    }
    for constraint in spec.items("topologySpreadConstraints") {
        if !constraint.has("labelSelector") {
            out.push(no_selector(&constraint.path));
        }
    }
    for (annotation, message) in DEAD_ANNOTATIONS {
        if meta.map("annotations").contains(annotation) {
            out.push(format!("{}: {message}", meta.path.child("annotations").key(annotation)));
        }
    }
    for volume in spec.items("volumes") {
        for (source, message) in DEAD_VOLUMES {
            if volume.has(source) {
                let shown = if *source == "storageos" { "storageOS" } else { source };
                out.push(format!("{}: {message}", volume.path.child(shown)));
            }
        }
    }
    duplicates(spec, "hostAliases", "ip", &mut out);
    duplicates(spec, "imagePullSecrets", "name", &mut out);
    for secret in spec.items("imagePullSecrets") {
        if secret.str("name").is_empty() {
            out.push(format!("{}: invalid empty name \"\"", secret.path.child("name")));
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        spec.items(list).iter().for_each(|container| of_container(container, &mut out));
    }
    ports(spec, &mut out);
    if spec.int("terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        let path = spec.path.child("terminationGracePeriodSeconds");
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for kind in ["affinity.podAffinity", "affinity.podAntiAffinity"] {
        for term in spec.items(&format!("{kind}.requiredDuringSchedulingIgnoredDuringExecution")) {
            if !term.has("labelSelector") {
                out.push(no_selector(&term.path));
            }
        }
        for term in spec.items(&format!("{kind}.preferredDuringSchedulingIgnoredDuringExecution")) {
            if !term.has("podAffinityTerm.labelSelector") {
                out.push(no_selector(&term.path.child("podAffinityTerm")));
            }
        }
    }
    out
}

fn no_selector(path: &FieldPath) -> String {
    format!("{}: a null labelSelector results in matching no pod", path.child("labelSelector"))
}

fn duplicates(spec: &Spot<'_>, list: &str, field: &str, out: &mut Vec<String>) {
    let mut seen = Vec::new();
    for item in spec.items(list) {
        let value = item.str(field);
        if seen.contains(&value) {
            out.push(format!("{}: duplicate {field} {value:?}", item.path.child(field)));
        }
        seen.push(value);
    }
}

fn of_container(container: &Spot<'_>, out: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        for list in ["resources.limits", "resources.requests"] {
            let Some(value) = container.map(list).get(name).and_then(quantity) else { continue };
            if !value.is_whole_at(0) {
                let path = container.path.child(list).key(name);
                out.push(format!(
                    "{path}: fractional byte value {:?} is invalid, must be an integer",
                    value.to_string()
                ));
            }
        }
    }
    let mut seen = Vec::new();
    for variable in container.items("env") {
        let name = variable.str("name");
        let reference = format!("$({name})");
        let value = variable.str("value");
        let hides = variable.has("valueFrom") || value == reference || !value.contains(&reference);
        if seen.contains(&name) && hides {
            out.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                variable.path
            ));
        }
        seen.push(name);
    }
}

fn ports(spec: &Spot<'_>, out: &mut Vec<String>) {
    let mut by_number: HashMap<(i64, &str), Vec<Spot<'_>>> = HashMap::new();
    let mut by_name: HashMap<&str, FieldPath> = HashMap::new();
    let mut names = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for port in spec.items(list).iter().flat_map(|container| container.items("ports")) {
            let (ip, host) = (port.str("hostIP"), port.int("hostPort").unwrap_or_default());
            let key = (port.int("containerPort").unwrap_or_default(), port.str("protocol"));
            let others = by_number.entry(key).or_default();
            for other in others.iter() {
                let (other_ip, other_host) = (other.str("hostIP"), other.int("hostPort").unwrap_or_default());
                let what = if ip == other_ip && host == other_host {
                    "duplicate"
                } else if host == 0 || other_host == 0 {
                    "overlapping"
                } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                out.push(format!("{}: {what} port definition with {}", port.path, other.path));
            }
            let name = port.str("name");
            if let Some(other) = by_name.get(name) {
                names.push(format!(
                    "{}: duplicate port name {name:?} with {other}, services and probes that select ports by name will use {other}",
                    port.path
                ));
            } else if !name.is_empty() {
                by_name.insert(name, port.path.clone());
            }
            others.push(port);
        }
    }
    out.append(&mut names);
}
