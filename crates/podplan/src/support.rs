//! Which fields of a pod this node honours. A pod that sets another one is refused with the field's path.

use corten_tree::Tree;

/// A field that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its path, as `spec.containers[0].volumeDevices`.
    pub path: String,
    /// Why.
    pub why: &'static str,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

/// Everything in a container that is honoured; a path also stands for all below it.
const CONTAINER: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "ports",
    "envFrom",
    "env.name",
    "env.value",
    "env.valueFrom.fieldRef",
    "env.valueFrom.resourceFieldRef",
    "env.valueFrom.configMapKeyRef",
    "env.valueFrom.secretKeyRef",
    "env.valueFrom.fileKeyRef",
    "resources.limits",
    "resources.requests",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "volumeMounts.name",
    "volumeMounts.readOnly",
    "volumeMounts.recursiveReadOnly",
    "volumeMounts.mountPath",
    "volumeMounts.subPath",
    "volumeMounts.subPathExpr",
    "volumeMounts.mountPropagation",
    "volumeDevices",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle.postStart",
    "lifecycle.preStop",
    "lifecycle.stopSignal",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext.capabilities",
    "securityContext.privileged",
    "securityContext.runAsUser",
    "securityContext.runAsGroup",
    "securityContext.runAsNonRoot",
    "securityContext.readOnlyRootFilesystem",
    "securityContext.allowPrivilegeEscalation",
    "securityContext.procMount",
    "securityContext.seccompProfile",
    // Refused earlier where the kernel has no AppArmor.
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

/// Everything in a pod's spec that is honoured, or is others' business (scheduling, admission).
const SPEC: &[&str] = &[
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "activeDeadlineSeconds",
    "dnsPolicy",
    "dnsConfig",
    "nodeSelector",
    "serviceAccountName",
    "serviceAccount",
    "automountServiceAccountToken",
    "nodeName",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "hostUsers",
    "shareProcessNamespace",
    "imagePullSecrets",
    "hostname",
    "subdomain",
    "affinity",
    "schedulerName",
    "tolerations",
    "hostAliases",
    "priorityClassName",
    "priority",
    "preemptionPolicy",
    "readinessGates",
    "enableServiceLinks",
    "overhead",
    // What its handler must be, the sandbox tells.
    "runtimeClassName",
    "topologySpreadConstraints",
    "setHostnameAsFQDN",
    "os.name",
    "schedulingGates",
    "resources.limits",
    "resources.requests",
    "hostnameOverride",
    "securityContext.runAsUser",
    "securityContext.runAsGroup",
    "securityContext.runAsNonRoot",
    "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy",
    "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy",
    "securityContext.sysctls",
    "securityContext.seccompProfile",
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "securityContext.seLinuxChangePolicy",
    "volumes.name",
    "volumes.emptyDir.medium",
    "volumes.emptyDir.sizeLimit",
    "volumes.hostPath",
    "volumes.configMap",
    "volumes.secret",
    "volumes.downwardAPI",
    "volumes.projected.defaultMode",
    "volumes.projected.sources.secret",
    "volumes.projected.sources.configMap",
    "volumes.projected.sources.downwardAPI",
    "volumes.projected.sources.serviceAccountToken",
    "volumes.projected.sources.clusterTrustBundle",
    "volumes.projected.sources.podCertificate",
    "volumes.persistentVolumeClaim",
    "volumes.ephemeral",
    // Refused later, in the kubelet's words: no driver can register.
    "volumes.csi",
    "volumes.image",
];

/// Reasons for fields that are known and not honoured. Any other unknown field gets a general one.
const REASONS: &[(&str, &str)] = &[
    ("resourceClaims", "dynamic resource allocation is not implemented"),
    ("schedulingGroup", "gang scheduling is not implemented"),
    ("securityContext.windowsOptions", "this node runs Linux"),
    ("containers.resources.claims", "dynamic resource allocation is not implemented"),
    ("volumes.nfs", "NFS volumes are not implemented"),
    ("volumes.gitRepo", "this source was removed from Kubernetes"),
    ("volumes.flexVolume", "this source was removed from Kubernetes"),
];

const ACTIONS: [&str; 2] = ["Restart", "RestartAllContainers"];

/// Paths that ask for SELinux labels. Where the kernel does not enforce them, runtimes ignore them; where it does, they must be set.
const SELINUX: [&str; 4] = [
    "securityContext.seLinuxOptions",
    "containers.securityContext.seLinuxOptions",
    "initContainers.securityContext.seLinuxOptions",
    "ephemeralContainers.securityContext.seLinuxOptions",
];

/// All fields of a pod (as a whole object) that this node does not honour. `selinux`: its kernel enforces SELinux.
pub fn refusals(pod: &Tree, selinux: bool) -> Vec<Refusal> {
    let mut out = Vec::new();
    let Some(spec) = pod.get("spec") else { return out };
    walk(spec, "", "spec", &mut out);
    for path in SELINUX.iter().filter(|_| selinux) {
        check_absent(spec, path, "SELinux labels are not implemented", "spec", &mut out);
    }
    for (path, values, why) in [
        ("os.name", &["linux"][..], "this node runs Linux"),
        ("containers.restartPolicyRules.action", &ACTIONS[..], "this action is not implemented"),
        ("initContainers.restartPolicyRules.action", &ACTIONS[..], "this action is not implemented"),
    ] {
        check_values(spec, path, values, why, "spec", &mut out);
    }
    out
}

/// Refuses every value at a path that asks for something.
fn check_absent(tree: &Tree, path: &str, why: &'static str, at: &str, out: &mut Vec<Refusal>) {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    match tree.get(first) {
        Some(value) if rest.is_empty() && !value.is_empty_value() => {
            out.push(Refusal { path: format!("{at}.{first}"), why });
        }
        Some(Tree::List(items)) => {
            for (i, item) in items.iter().enumerate() {
                check_absent(item, rest, why, &format!("{at}.{first}[{i}]"), out);
            }
        }
        Some(child) if !rest.is_empty() => check_absent(child, rest, why, &format!("{at}.{first}"), out),
        _ => {}
    }
}

fn check_values(tree: &Tree, path: &str, values: &[&str], why: &'static str, at: &str, out: &mut Vec<Refusal>) {
    let Some((first, rest)) = path.split_once('.') else {
        if let Some(text) = tree.get(path).and_then(Tree::as_str).filter(|t| !values.contains(t)) {
            let _ = text;
            out.push(Refusal { path: format!("{at}.{path}"), why });
        }
        return;
    };
    match tree.get(first) {
        Some(Tree::List(items)) => {
            for (i, item) in items.iter().enumerate() {
                check_values(item, rest, values, why, &format!("{at}.{first}[{i}]"), out);
            }
        }
        Some(child) => check_values(child, rest, values, why, &format!("{at}.{first}"), out),
        None => {}
    }
}

/// Visits all fields that are set. `plain` is the path without indices, below `spec`.
fn walk(tree: &Tree, plain: &str, shown: &str, out: &mut Vec<Refusal>) {
    match tree {
        Tree::List(items) => {
            for (i, item) in items.iter().enumerate() {
                walk(item, plain, &format!("{shown}[{i}]"), out);
            }
        }
        Tree::Map(map) => {
            for (key, value) in map.iter() {
                let plain = if plain.is_empty() { key.to_owned() } else { format!("{plain}.{key}") };
                let shown = format!("{shown}.{key}");
                match standing(&plain) {
                    Standing::Honoured => {}
                    Standing::Above => walk(value, &plain, &shown, out),
                    Standing::Unknown if harmless(value) => {}
                    Standing::Unknown => out.push(Refusal { path: shown, why: reason(&plain) }),
                }
            }
        }
        _ => {}
    }
}

/// Values that ask for nothing.
fn harmless(value: &Tree) -> bool {
    value.is_null() || value.is_empty_value()
}

enum Standing {
    Honoured,
    /// Some fields below are honoured.
    Above,
    Unknown,
}

fn standing(plain: &str) -> Standing {
    let (table, path) = match plain.split_once('.') {
        None if is_container_list(plain) => return Standing::Above,
        Some((list, rest)) if is_container_list(list) => (CONTAINER, rest),
        _ => (SPEC, plain),
    };
    let below = |known: &&str, path: &str| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
    if table.contains(&path) {
        Standing::Honoured
    } else if table.iter().any(|known| below(known, path)) {
        Standing::Above
    } else {
        Standing::Unknown
    }
}

fn is_container_list(name: &str) -> bool {
    matches!(name, "containers" | "initContainers" | "ephemeralContainers")
}

fn reason(plain: &str) -> &'static str {
    let general = match plain.split_once('.') {
        Some((list, rest)) if is_container_list(list) => format!("containers.{rest}"),
        _ => plain.to_owned(),
    };
    let found = REASONS.iter().find(|(path, _)| *path == general);
    found.map_or("this field is not implemented by this node", |(_, why)| why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn unknown_fields_are_refused_with_their_path() {
        let pod = corten_tree::json::parse(
            br#"{"spec":{"runtimeClassName":"kata","affinity":{"any":{"thing":1}},"os":{"name":"windows"},
            "containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1"}},"restartPolicyRules":[
            {"action":"Reboot"}],"env":[{"name":"a","valueFrom":{"fileKeyRef":{"key":"k"}}}],"securityContext":{"appArmorProfile":{"type":"Unconfined"}},"newField":true}],
            "volumes":[{"name":"v"},{"name":"w","nfs":{"server":"s"}},{"name":"g","gitRepo":{"repository":"r"}},{"name":"e","emptyDir":{}}]}}"#,
        )
        .unwrap();
        let text: Vec<String> = refusals(&pod, false).iter().map(ToString::to_string).collect();
        expect![[r#"
            spec.containers[0].newField: this field is not implemented by this node
            spec.volumes[1].nfs: NFS volumes are not implemented
            spec.volumes[2].gitRepo: this source was removed from Kubernetes
            spec.os.name: this node runs Linux
            spec.containers[0].restartPolicyRules[0].action: this action is not implemented"#]]
        .assert_eq(&text.join("\n"));
    }

    #[test]
    fn se_linux_options_are_ignored_without_selinux_and_refused_with_it() {
        let pod = corten_tree::json::parse(
            br#"{"spec":{"securityContext":{"seLinuxOptions":{"level":"s0:c0,c1"},"seLinuxChangePolicy":"Recursive"},
            "containers":[{"name":"a","image":"i"},{"name":"b","image":"i","securityContext":{"seLinuxOptions":{"type":"t"}}}]}}"#,
        )
        .unwrap();
        assert_eq!(refusals(&pod, false), []);
        let text: Vec<String> = refusals(&pod, true).iter().map(ToString::to_string).collect();
        expect![[r#"
            spec.securityContext.seLinuxOptions: SELinux labels are not implemented
            spec.containers[1].securityContext.seLinuxOptions: SELinux labels are not implemented"#]]
        .assert_eq(&text.join("\n"));
    }
}
