//! What is allowed but dubious in a pod or a template: sent as Warning headers. (`pkg/api/pod/warnings.go`)

use std::collections::HashMap;

use corten_tree::{FieldPath, Tree};

use crate::validate::{Spot, names, profiles, quantity};

/// Warnings of a new pod; of a changed one nothing is said, as upstream does.
pub(crate) fn pod(pod: &Tree, old: Option<&Tree>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let mut out = Vec::new();
    let faults = names::dns_label(pod.str_at("metadata.name"));
    if !faults.is_empty() {
        out.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            faults.join(" ")
        ));
    }
    out.extend(of_spec(&Spot::of(pod, "spec"), &Spot::of(pod, "metadata"), true));
    out
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
    of_spec(&template.child("spec"), &template.child("metadata"), false)
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

fn of_spec(spec: &Spot<'_>, meta: &Spot<'_>, is_pod: bool) -> Vec<String> {
    let mut out = Vec::new();
    let selector = spec.map("nodeSelector");
    for (label, message) in OLD_NODE_LABELS {
        if selector.contains(label) {
            out.push(format!("{}: {message}", spec.path.child("nodeSelector").key(label)));
        }
    }
    for term in spec.items("affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms") {
        node_selector_term(&term, false, &mut out);
    }
    for term in spec.items("affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution") {
        node_selector_term(&term.child("preference"), true, &mut out);
    }
    for constraint in spec.items("topologySpreadConstraints") {
        let key = constraint.str("topologyKey");
        if let Some((_, message)) = OLD_NODE_LABELS.iter().find(|(label, _)| *label == key) {
            out.push(format!("{}: {key} is {message}", constraint.path.child("topologyKey")));
        }
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
        if let Some(claim) = volume.some("ephemeral.volumeClaimTemplate.spec") {
            claim_spec(&claim, &mut out);
        }
    }
    virtual_paths(spec, &mut out);
    duplicates(spec, "hostAliases", "ip", &mut out);
    duplicates(spec, "imagePullSecrets", "name", &mut out);
    for secret in spec.items("imagePullSecrets") {
        if secret.str("name").is_empty() {
            out.push(format!("{}: invalid empty name \"\"", secret.path.child("name")));
        }
    }
    fractional(&spec.child("overhead"), &mut out);
    profile_annotations(spec, meta, is_pod, &mut out);
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
    for server in spec.items("dnsConfig.nameservers") {
        address(&server.path, server.str(""), &mut out);
    }
    for alias in spec.items("hostAliases") {
        address(&alias.path.child("ip"), alias.str("ip"), &mut out);
    }
    out
}

/// Says what is dubious about an address.
pub(crate) fn address(path: &FieldPath, ip: &str, out: &mut Vec<String>) {
    out.extend(names::ip_warning(ip).map(|warning| format!("{path}: {warning}")));
}

/// Says what is dubious about a range.
pub(crate) fn range(path: &FieldPath, cidr: &str, out: &mut Vec<String>) {
    out.extend(names::cidr_warnings(cidr).into_iter().map(|warning| format!("{path}: {warning}")));
}

/// `GetWarningsForNodeSelectorTerm`
pub(crate) fn node_selector_term(term: &Spot<'_>, check_values: bool, out: &mut Vec<String>) {
    for expression in term.items("matchExpressions") {
        let key = expression.str("key");
        if let Some((_, message)) = OLD_NODE_LABELS.iter().find(|(label, _)| *label == key) {
            out.push(format!("{}: {key} is {message}", expression.path.child("key")));
        }
        for value in expression.items("values").iter().filter(|_| check_values) {
            for fault in names::label_value(value.str("")) {
                out.push(format!("{}: {} is invalid, {fault}", value.path, value.str("")));
            }
        }
    }
}

/// `GetWarningsForPersistentVolumeClaimSpec`
pub(crate) fn claim_spec(spec: &Spot<'_>, out: &mut Vec<String>) {
    for list in ["resources.requests", "resources.limits"] {
        fraction_of(&spec.child(list), "storage", out);
    }
}

/// An amount of bytes that is not whole.
fn fraction_of(list: &Spot<'_>, name: &str, out: &mut Vec<String>) {
    let Some(value) = list.map("").get(name).and_then(quantity) else { return };
    if !value.is_whole_at(0) {
        let (path, value) = (list.path.key(name), value.to_string());
        out.push(format!("{path}: fractional byte value {value:?} is invalid, must be an integer"));
    }
}

fn fractional(list: &Spot<'_>, out: &mut Vec<String>) {
    fraction_of(list, "memory", out);
    fraction_of(list, "ephemeral-storage", out);
}

/// Annotations for seccomp and AppArmor where the fields should be.
fn profile_annotations(spec: &Spot<'_>, meta: &Spot<'_>, is_pod: bool, out: &mut Vec<String>) {
    let annotations = meta.map("annotations");
    let path = |key: &str| meta.path.child("annotations").key(key);
    let dead = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    if annotations.contains(profiles::SECCOMP_POD) && !spec.has("securityContext.seccompProfile") {
        out.push(format!("{}: {dead}", path(profiles::SECCOMP_POD)));
    }
    let of_pod = spec.child("securityContext.appArmorProfile").tree;
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.items(list) {
            let key = format!("{}{}", profiles::SECCOMP, container.str("name"));
            if annotations.contains(&key) && !container.has("securityContext.seccompProfile") {
                out.push(format!("{}: {dead}", path(&key)));
            }
            let key = format!("{}{}", profiles::APP_ARMOR, container.str("name"));
            let Some(annotation) = annotations.get(&key).and_then(Tree::as_str) else { continue };
            let meant = profiles::app_armor_of(annotation);
            let own = container.child("securityContext.appArmorProfile").tree;
            // A new pod's containers have got their profiles from the annotations already.
            let told = match (is_pod, own.is_null()) {
                (true, true) => meant.is_none(),
                (true, false) => meant.as_ref() == Some(own) && own != of_pod,
                (false, true) => of_pod.is_null() || meant.as_ref() != Some(of_pod),
                (false, false) => false,
            };
            if told {
                out.push(format!("{}: deprecated since v1.30; use the \"appArmorProfile\" field instead", path(&key)));
            }
        }
    }
}

/// A file of a volume: its path, and what it is from where a volume has several sources.
type File = (String, String);

/// Files of one volume that hide each other. (`warningsForOverlappingVirtualPaths`)
fn virtual_paths(spec: &Spot<'_>, out: &mut Vec<String>) {
    for volume in spec.items("volumes") {
        let name = volume.str("name");
        let told = |what: &str, files: Vec<File>, out: &mut Vec<String>| {
            let found = overlaps(&files);
            out.extend(found.iter().map(|o| format!("volume {name:?} ({what}): overlapping paths: {o}")));
        };
        if let Some(source) = volume.some("configMap") {
            told(&format!("ConfigMap {:?}", source.str("name")), items(&source, ""), out);
        }
        if let Some(source) = volume.some("secret") {
            told(&format!("Secret {:?}", source.str("secretName")), items(&source, ""), out);
        }
        if let Some(source) = volume.some("downwardAPI") {
            told("DownwardAPI", items(&source, ""), out);
        }
        let mut files = Vec::new();
        for source in volume.items("projected.sources") {
            if source.tree.fields().is_empty() {
                out.push(format!("volume {name:?} (Projected) has no sources provided"));
            }
            files.extend(projected_files(&source));
        }
        told("Projected", files, out);
    }
}

fn items(source: &Spot<'_>, of: &str) -> Vec<File> {
    source.list("items").iter().map(|item| (item.str_at("path").to_owned(), of.to_owned())).collect()
}

/// Each file that lies where an earlier one or its folder lies.
fn overlaps(files: &[File]) -> Vec<String> {
    let shown = |(path, of): &File| match of.as_str() {
        "" => format!("{:?}", path.trim_end_matches('/')),
        of => format!("{:?} ({of})", path.trim_end_matches('/')),
    };
    let below = |a: &str, b: &str| format!("{a}/").starts_with(&format!("{b}/"));
    let mut out = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let path = file.0.trim_end_matches('/');
        for other in files[..i].iter().filter(|_| !path.is_empty()) {
            let before = other.0.trim_end_matches('/');
            if !before.is_empty() && (below(before, path) || below(path, before)) {
                out.push(format!("{} with {}", shown(file), shown(other)));
            }
        }
    }
    out
}

/// The files of a projection.
fn projected_files(source: &Spot<'_>) -> Vec<File> {
    if let Some(map) = source.some("configMap") {
        return items(&map, &format!("ConfigMap {:?}", map.str("name")));
    }
    if let Some(secret) = source.some("secret") {
        return items(&secret, &format!("Secret {:?}", secret.str("name")));
    }
    if let Some(downward) = source.some("downwardAPI") {
        return items(&downward, "DownwardAPI");
    }
    if let Some(token) = source.some("serviceAccountToken") {
        return vec![(token.str("path").to_owned(), "ServiceAccountToken".to_owned())];
    }
    if let Some(bundle) = source.some("clusterTrustBundle") {
        let name = if bundle.has("name") { bundle.str("name") } else { bundle.str("signerName") };
        return vec![(bundle.str("path").to_owned(), format!("ClusterTrustBundle {name:?}"))];
    }
    let Some(certificate) = source.some("podCertificate") else { return Vec::new() };
    let fields = [
        ("certificateChainPath", "PodCertificate chain"),
        ("keyPath", "PodCertificate key"),
        ("credentialBundlePath", "PodCertificate credential bundle"),
    ];
    let set = fields.iter().filter(|(field, _)| !certificate.str(field).is_empty());
    set.map(|(field, of)| (certificate.str(field).to_owned(), (*of).to_owned())).collect()
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
            fraction_of(&container.child(list), name, out);
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
            if !ip.is_empty() && host == 0 {
                out.push(format!(
                    "{}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{ip}}}",
                    port.path,
                    port.str("name"),
                    key.0,
                    key.1
                ));
            }
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
