//! One function per rule; words are upstream's.

use std::collections::BTreeSet;

use corten_tree::Tree;

use super::checks::{Pod, Violation};

fn plural(singular: &'static str, many: &'static str, n: usize) -> &'static str {
    if n == 1 { singular } else { many }
}

fn quoted<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<String> = items.into_iter().map(|i| format!("\"{i}\"")).collect();
    items.join(", ")
}

fn name(container: &Tree) -> &str {
    container.str_at("name")
}

/// `containers "a", "b"`
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names.iter().copied()))
}

/// `pod and containers "a", "b"`; `None` if nobody sets anything.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let mut out = Vec::new();
    out.extend(pod.then(|| "pod".to_owned()));
    out.extend((!names.is_empty()).then(|| containers(names)));
    (!out.is_empty()).then(|| out.join(" and "))
}

fn violation(reason: &'static str, detail: String) -> Option<Violation> {
    Some(Violation { reason, detail })
}

fn bool_at(tree: &Tree, path: &str) -> Option<bool> {
    tree.path(path).and_then(Tree::as_bool)
}

/// Containers that a test finds bad, by name.
fn bad<'a>(pod: &Pod<'a>, is_bad: impl FnMut(&&'a Tree) -> bool) -> Vec<&'a str> {
    pod.containers().filter(is_bad).map(name).collect()
}

/// Which part of a value somebody has set to something bad: whether the pod has, and which containers have.
fn bad_values<'a>(pod: &Pod<'a>, path: &str, fine: impl Fn(&str) -> bool) -> (bool, Vec<&'a str>, BTreeSet<&'a str>) {
    let mut values = BTreeSet::new();
    let parent = path.rsplit_once('.').map_or(path, |(parent, _)| parent);
    let mut is_bad = |tree: &'a Tree| {
        let value = tree.str_at(path);
        let bad = tree.path(parent).is_some() && !fine(value);
        if bad {
            values.insert(value);
        }
        bad
    };
    let pod_bad = is_bad(pod.spec);
    let names = pod.containers().filter(|c| is_bad(c)).map(name).collect();
    (pod_bad, names, values)
}

pub(super) fn privilege_escalation(pod: &Pod<'_>) -> Option<Violation> {
    let names = bad(pod, |c| bool_at(c, "securityContext.allowPrivilegeEscalation") != Some(false));
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    violation(
        "allowPrivilegeEscalation != false",
        format!("{who} must set securityContext.allowPrivilegeEscalation=false"),
    )
}

pub(super) fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let fine = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let (pod_bad, names, values) = bad_values(pod, "securityContext.appArmorProfile.type", fine);
    let mut annotations: Vec<String> = pod
        .metadata
        .map_at("annotations")
        .iter()
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, value)| {
            let fine = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(ANNOTATION) && !fine
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    let mut who: Vec<String> = setters(pod_bad, &names).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).into());
    }
    if who.is_empty() {
        return None;
    }
    let all: Vec<&str> = values.into_iter().chain(annotations.iter().map(String::as_str)).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", all.len());
    violation(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(all)))
}

/// What `securityContext.capabilities.add` may not hold: the containers, and the capabilities.
fn added<'a>(pod: &Pod<'a>, fine: impl Fn(&str) -> bool) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let mut found = BTreeSet::new();
    let names = bad(pod, |c| {
        let list = c.list_at("securityContext.capabilities.add").iter().filter_map(Tree::as_str);
        let before: Vec<&str> = list.filter(|cap| !fine(cap)).collect();
        found.extend(before.iter().copied());
        !before.is_empty()
    });
    (names, found)
}

pub(super) fn capabilities_baseline(pod: &Pod<'_>) -> Option<Violation> {
    const ALLOWED: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let (names, found) = added(pod, |cap| ALLOWED.contains(&cap));
    if names.is_empty() {
        return None;
    }
    let (who, what) = (containers(&names), quoted(found));
    violation("non-default capabilities", format!("{who} must not include {what} in securityContext.capabilities.add"))
}

pub(super) fn capabilities_restricted(pod: &Pod<'_>) -> Option<Violation> {
    let drops_all =
        |c: &Tree| c.list_at("securityContext.capabilities.drop").iter().any(|cap| cap.as_str() == Some("ALL"));
    let missing = bad(pod, |c| !drops_all(c));
    let (names, found) = added(pod, |cap| cap == "NET_BIND_SERVICE");
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&missing)));
    }
    if !names.is_empty() {
        let (who, what) = (containers(&names), quoted(found));
        details.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    if details.is_empty() {
        return None;
    }
    violation("unrestricted capabilities", details.join("; "))
}

pub(super) fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let set = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|key| pod.spec.bool_at(key));
    let set: Vec<String> = set.map(|key| format!("{key}=true")).collect();
    if set.is_empty() { None } else { violation("host namespaces", set.join(", ")) }
}

pub(super) fn host_path_volumes(pod: &Pod<'_>) -> Option<Violation> {
    let volumes = pod.spec.list_at("volumes").iter().filter(|v| v.path("hostPath").is_some());
    let names: Vec<&str> = volumes.map(name).collect();
    if names.is_empty() {
        return None;
    }
    let word = plural("volume", "volumes", names.len());
    violation("hostPath volumes", format!("{word} {}", quoted(names)))
}

pub(super) fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let names = bad(pod, |c| {
        let used = c.list_at("ports").iter().filter_map(|p| p.i64_at("hostPort")).filter(|p| *p != 0);
        let used: Vec<String> = used.map(|p| p.to_string()).collect();
        let any = !used.is_empty();
        ports.extend(used);
        any
    });
    if names.is_empty() {
        return None;
    }
    let list = ports.iter().map(String::as_str).collect::<Vec<&str>>().join(", ");
    let (uses, word) = (plural("uses", "use", names.len()), plural("hostPort", "hostPorts", ports.len()));
    violation("hostPort", format!("{} {uses} {word} {list}", containers(&names)))
}

pub(super) fn host_probes(pod: &Pod<'_>) -> Option<Violation> {
    const PLACES: [&str; 5] =
        ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop"];
    let mut hosts = BTreeSet::new();
    let mut names = BTreeSet::new();
    for container in pod.containers() {
        for place in PLACES {
            for action in ["httpGet", "tcpSocket"] {
                let host = container.str_at(&format!("{place}.{action}.host"));
                if !host.is_empty() {
                    hosts.insert(host);
                    names.insert(name(container));
                }
            }
        }
    }
    if names.is_empty() {
        return None;
    }
    let names: Vec<&str> = names.into_iter().collect();
    let uses = plural("uses", "use", names.len());
    let word = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    violation("probe or lifecycle host", format!("{} {uses} {word} {}", containers(&names), quoted(hosts)))
}

pub(super) fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let names = bad(pod, |c| c.bool_at("securityContext.privileged"));
    if names.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", containers(&names)))
}

pub(super) fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let mut found = BTreeSet::new();
    let names = bad(pod, |c| {
        let mount = c.path("securityContext.procMount").and_then(Tree::as_str).filter(|m| *m != "Default");
        found.extend(mount);
        mount.is_some()
    });
    if names.is_empty() {
        return None;
    }
    let (who, what) = (containers(&names), quoted(found));
    violation("procMount", format!("{who} must not set securityContext.procMount to {what}"))
}

pub(super) fn restricted_volumes(pod: &Pod<'_>) -> Option<Violation> {
    const FINE: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    const KNOWN: [&str; 21] = [
        "hostPath",
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "gitRepo",
        "nfs",
        "iscsi",
        "glusterfs",
        "rbd",
        "flexVolume",
        "cinder",
        "cephfs",
        "flocker",
        "fc",
        "azureFile",
        "vsphereVolume",
        "quobyte",
        "azureDisk",
        "photonPersistentDisk",
        "portworxVolume",
        "scaleIO",
        "storageos",
    ];
    let mut kinds = BTreeSet::new();
    let volumes = pod.spec.list_at("volumes").iter().filter(|v| !FINE.iter().any(|kind| v.path(kind).is_some()));
    let names: Vec<&str> = volumes
        .map(|v| {
            kinds.insert(KNOWN.into_iter().find(|kind| v.path(kind).is_some()).unwrap_or("unknown"));
            name(v)
        })
        .collect();
    if names.is_empty() {
        return None;
    }
    let (word, uses) = (plural("volume", "volumes", names.len()), plural("uses", "use", names.len()));
    let kinds_word = plural("restricted volume type", "restricted volume types", kinds.len());
    violation("restricted volume types", format!("{word} {} {uses} {kinds_word} {}", quoted(names), quoted(kinds)))
}

pub(super) fn run_as_non_root(pod: &Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let of = |tree: &Tree| bool_at(tree, "securityContext.runAsNonRoot");
    let explicit = bad(pod, |c| of(c) == Some(false));
    if let Some(who) = setters(of(pod.spec) == Some(false), &explicit) {
        return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    if of(pod.spec) == Some(true) {
        return None;
    }
    let implicit = bad(pod, |c| of(c).is_none());
    if implicit.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit)))
}

pub(super) fn run_as_user(pod: &Pod<'_>) -> Option<Violation> {
    let root = |tree: &Tree| tree.i64_at("securityContext.runAsUser") == Some(0);
    let who = setters(root(pod.spec), &bad(pod, |c| root(c)))?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

pub(super) fn selinux_0(pod: &Pod<'_>) -> Option<Violation> {
    selinux(pod, &["", "container_t", "container_init_t", "container_kvm_t"])
}

pub(super) fn selinux_31(pod: &Pod<'_>) -> Option<Violation> {
    selinux(pod, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn selinux(pod: &Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_bad = |tree: &Tree| {
        let Some(options) = tree.path("securityContext.seLinuxOptions") else { return false };
        let kind = options.str_at("type");
        let (bad_type, has_user, has_role) =
            (!allowed.contains(&kind), !options.str_at("user").is_empty(), !options.str_at("role").is_empty());
        if bad_type {
            types.insert(kind.to_owned());
        }
        user |= has_user;
        role |= has_role;
        bad_type || has_user || has_role
    };
    let pod_bad = is_bad(pod.spec);
    let names = bad(pod, |c| is_bad(c));
    let who = setters(pod_bad, &names)?;
    let mut details = Vec::new();
    if !types.is_empty() {
        let word = plural("type", "types", types.len());
        details.push(format!("{word} {}", quoted(types.iter().map(String::as_str))));
    }
    details.extend(user.then(|| "user may not be set".to_owned()));
    details.extend(role.then(|| "role may not be set".to_owned()));
    violation("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", details.join("; ")))
}

fn seccomp_is_fine(kind: &str) -> bool {
    matches!(kind, "Localhost" | "RuntimeDefault")
}

pub(super) fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let fine = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let keys = pod.containers().map(|c| format!("{CONTAINER}{}", name(c))).chain([POD.to_owned()]);
    let annotations = pod.metadata.map_at("annotations");
    let found: BTreeSet<String> = keys
        .filter_map(|key| {
            let value = annotations.get(&key)?.as_str()?;
            (!fine(value)).then(|| format!("{key}={value:?}"))
        })
        .collect();
    if found.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", found.len());
    let list: Vec<&str> = found.iter().map(String::as_str).collect();
    violation("seccompProfile", format!("forbidden {word} {}", list.join(", ")))
}

pub(super) fn seccomp_baseline(pod: &Pod<'_>) -> Option<Violation> {
    let (pod_bad, names, values) = bad_values(pod, "securityContext.seccompProfile.type", seccomp_is_fine);
    let who = setters(pod_bad, &names)?;
    let what = quoted(values);
    violation("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {what}"))
}

pub(super) fn seccomp_restricted(pod: &Pod<'_>) -> Option<Violation> {
    if let Some(violation) = seccomp_baseline(pod) {
        return Some(violation);
    }
    if pod.spec.path("securityContext.seccompProfile").is_some() {
        return None;
    }
    let implicit = bad(pod, |c| c.path("securityContext.seccompProfile").is_none());
    if implicit.is_empty() {
        return None;
    }
    let who = containers(&implicit);
    violation(
        "seccompProfile",
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""),
    )
}

/// Names in the order in which versions have allowed them.
const SYSCTLS: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_notsent_lowat",
];

/// The first `allowed` names of [`SYSCTLS`] are allowed.
pub(super) fn sysctls(pod: &Pod<'_>, allowed: usize) -> Option<Violation> {
    let names = pod.spec.list_at("securityContext.sysctls").iter().map(name);
    let found: Vec<&str> = names.filter(|n| !SYSCTLS[..allowed].contains(n)).collect();
    if found.is_empty() { None } else { violation("forbidden sysctls", found.join(", ")) }
}

pub(super) fn windows_host_process(pod: &Pod<'_>) -> Option<Violation> {
    let host = |tree: &Tree| tree.bool_at("securityContext.windowsOptions.hostProcess");
    let who = setters(host(pod.spec), &bad(pod, |c| host(c)))?;
    violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
