//! The rules of the levels, by version (`k8s.io/pod-security-admission/policy/check_*.go`).

use std::collections::BTreeSet;

use corten_tree::Tree;

use super::policy::{Level, LevelVersion, Version};
use super::rules;

/// A pod, or the template of pods.
#[derive(Clone, Copy)]
pub(super) struct Pod<'a> {
    pub metadata: &'a Tree,
    pub spec: &'a Tree,
}

impl<'a> Pod<'a> {
    /// All containers: init, main, ephemeral.
    pub fn containers(&self) -> impl Iterator<Item = &'a Tree> {
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| self.spec.list_at(list))
    }

    /// Whether the pod has user ids of its own (`relaxPolicyForUserNamespacePod`).
    pub fn has_own_users(&self) -> bool {
        self.spec.path("hostUsers").and_then(Tree::as_bool) == Some(false)
    }

    /// Whether the pod is for Windows.
    pub fn is_windows(&self) -> bool {
        self.spec.str_at("os.name") == "windows"
    }
}

/// What is wrong, in short and at length.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub reason: &'static str,
    pub detail: String,
}

pub(super) type Rule = fn(&Pod<'_>) -> Option<Violation>;

/// One check: rules by the minor version that they came with.
struct Check {
    /// Upstream's id; checks are made in the order of their ids, those of the baseline first.
    id: &'static str,
    level: Level,
    versions: &'static [(u32, Rule)],
    /// The baseline's check that this one of the restricted level stands for.
    instead_of: &'static str,
}

const fn baseline(id: &'static str, versions: &'static [(u32, Rule)]) -> Check {
    Check { id, level: Level::Baseline, versions, instead_of: "" }
}

const fn restricted(id: &'static str, instead_of: &'static str, versions: &'static [(u32, Rule)]) -> Check {
    Check { id, level: Level::Restricted, versions, instead_of }
}

/// All checks, ordered as they are made.
static CHECKS: &[Check] = &[
    baseline("appArmorProfile", &[(0, rules::app_armor)]),
    baseline("capabilities_baseline", &[(0, rules::capabilities_baseline)]),
    baseline("hostNamespaces", &[(0, rules::host_namespaces)]),
    baseline("hostPathVolumes", &[(0, rules::host_path_volumes)]),
    baseline("hostPorts", &[(0, rules::host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, rules::host_probes)]),
    baseline("privileged", &[(0, rules::privileged)]),
    baseline("procMount", &[(0, rules::proc_mount), (35, |p| unless_own_users(p, rules::proc_mount))]),
    baseline("seLinuxOptions", &[(0, rules::selinux_0), (31, rules::selinux_31)]),
    baseline("seccompProfile_baseline", &[(0, rules::seccomp_annotations), (19, rules::seccomp_baseline)]),
    baseline(
        "sysctls",
        &[
            (0, |p| rules::sysctls(p, 5)),
            (27, |p| rules::sysctls(p, 6)),
            (29, |p| rules::sysctls(p, 10)),
            (32, |p| rules::sysctls(p, 12)),
            (37, |p| rules::sysctls(p, 14)),
        ],
    ),
    baseline("windowsHostProcess", &[(0, rules::windows_host_process)]),
    restricted(
        "allowPrivilegeEscalation",
        "",
        &[(8, rules::privilege_escalation), (25, |p| unless_windows(p, rules::privilege_escalation))],
    ),
    restricted(
        "capabilities_restricted",
        "capabilities_baseline",
        &[(22, rules::capabilities_restricted), (25, |p| unless_windows(p, rules::capabilities_restricted))],
    ),
    restricted("procMount_restricted", "procMount", &[(35, rules::proc_mount)]),
    restricted("restrictedVolumes", "hostPathVolumes", &[(0, rules::restricted_volumes)]),
    restricted(
        "runAsNonRoot",
        "",
        &[(0, rules::run_as_non_root), (35, |p| unless_own_users(p, rules::run_as_non_root))],
    ),
    restricted("runAsUser", "", &[(23, rules::run_as_user), (35, |p| unless_own_users(p, rules::run_as_user))]),
    restricted(
        "seccompProfile_restricted",
        "seccompProfile_baseline",
        &[(19, rules::seccomp_restricted), (25, |p| unless_windows(p, rules::seccomp_restricted))],
    ),
];

fn unless_own_users(pod: &Pod<'_>, rule: Rule) -> Option<Violation> {
    if pod.has_own_users() { None } else { rule(pod) }
}

fn unless_windows(pod: &Pod<'_>, rule: Rule) -> Option<Violation> {
    if pod.is_windows() { None } else { rule(pod) }
}

impl Check {
    /// The rule of a version.
    fn rule(&self, version: Version) -> Option<Rule> {
        let fits = |(since, _): &&(u32, Rule)| Version::Minor(*since) <= version;
        self.versions.iter().rev().find(fits).map(|(_, rule)| *rule)
    }
}

/// All violations of a level in a version (`checkRegistry.EvaluatePod`).
pub(super) fn violations(wanted: LevelVersion, pod: &Pod<'_>) -> Vec<Violation> {
    if wanted.level == Level::Privileged {
        return Vec::new();
    }
    let now = |check: &&Check| check.level <= wanted.level && check.rule(wanted.version).is_some();
    let replaced: BTreeSet<&str> = CHECKS.iter().filter(now).map(|check| check.instead_of).collect();
    let wanted_checks = CHECKS.iter().filter(now).filter(|check| !replaced.contains(check.id));
    wanted_checks.filter_map(|check| check.rule(wanted.version).and_then(|rule| rule(pod))).collect()
}

/// `host namespaces (hostNetwork=true), privileged (…)`
pub(super) fn details(violations: &[Violation]) -> String {
    let shown = |v: &Violation| match v.detail.as_str() {
        "" => v.reason.to_owned(),
        detail => format!("{} ({detail})", v.reason),
    };
    violations.iter().map(shown).collect::<Vec<String>>().join(", ")
}

/// `host namespaces, privileged`
pub(super) fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|v| v.reason).collect::<Vec<&str>>().join(", ")
}
