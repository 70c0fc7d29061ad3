//! Security contexts of pods and containers.

use super::volume::local_descending_path;
use super::{Spot, names, os};
use crate::Errors;

/// The largest user or group id.
pub(crate) const ID_MAX: i64 = i32::MAX as i64;

/// `validatePodSpecSecurityContext`
pub(crate) fn validate_pod(spec: &Spot<'_>, errors: &mut Errors) {
    let Some(context) = spec.some("securityContext") else { return };
    for id in ["fsGroup", "runAsUser", "runAsGroup"] {
        context.in_range(id, 0, ID_MAX, errors);
    }
    for group in context.items("supplementalGroups") {
        group.in_range("", 0, ID_MAX, errors);
    }
    sysctls(spec, &context, errors);
    context.optional_one_of("fsGroupChangePolicy", &["Always", "OnRootMismatch"], errors);
    seccomp(&context, errors);
    os::windows_options(&context, errors);
    app_armor(&context, errors);
    context.optional_one_of("supplementalGroupsPolicy", &["Merge", "Strict"], errors);
    context.optional_one_of("seLinuxChangePolicy", &["MountOption", "Recursive"], errors);
}

/// `ValidateSecurityContext`
pub(crate) fn validate_container(container: &Spot<'_>, host_users: bool, errors: &mut Errors) {
    let Some(context) = container.some("securityContext") else { return };
    context.in_range("runAsUser", 0, ID_MAX, errors);
    context.in_range("runAsGroup", 0, ID_MAX, errors);
    if context.has("procMount") {
        context.optional_one_of("procMount", &["Default", "Unmasked"], errors);
        if host_users && context.str("procMount") == "Unmasked" {
            context.invalid("procMount", "`hostUsers` must be false to use `Unmasked`", errors);
        }
    }
    seccomp(&context, errors);
    if context.has("allowPrivilegeEscalation") && !context.bool("allowPrivilegeEscalation") {
        if context.bool("privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            context.invalid("", detail, errors);
        }
        if context.list("capabilities.add").iter().any(|c| c.as_str() == Some("CAP_SYS_ADMIN")) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            context.invalid("", detail, errors);
        }
    }
    os::windows_options(&context, errors);
    app_armor(&context, errors);
}

const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

fn seccomp(context: &Spot<'_>, errors: &mut Errors) {
    let Some(profile) = context.some("seccompProfile") else { return };
    match profile.str("type") {
        "" => profile.required("type", "type is required when seccompProfile is set", errors),
        kind if PROFILE_TYPES.contains(&kind) => {}
        _ => profile.unsupported("type", PROFILE_TYPES, errors),
    }
    if profile.str("type") == "Localhost" {
        match profile.some("localhostProfile") {
            None => profile.required("localhostProfile", "must be set when seccomp type is Localhost", errors),
            Some(path) => local_descending_path(&path, "", errors),
        }
    } else if profile.has("localhostProfile") {
        let detail = "can only be set when seccomp type is Localhost";
        profile.invalid_as("localhostProfile", profile.tree.clone(), detail, errors);
    }
}

/// The longest path (PATH_MAX without its end).
const PATH_MAX: usize = 4095;

fn app_armor(context: &Spot<'_>, errors: &mut Errors) {
    if let Some(profile) = context.some("appArmorProfile") {
        app_armor_profile(&profile, errors);
    }
}

/// `ValidateAppArmorProfileField`
pub(crate) fn app_armor_profile(profile: &Spot<'_>, errors: &mut Errors) {
    match profile.str("type") {
        "Localhost" => {
            let path = profile.str("localhostProfile");
            if path.trim() != path {
                profile.invalid("localhostProfile", "must not be padded with whitespace", errors);
            } else if path.is_empty() {
                profile.required("localhostProfile", "must be set when AppArmor type is Localhost", errors);
            }
            if path.len() > PATH_MAX {
                profile.too_long("localhostProfile", PATH_MAX, errors);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if profile.has("localhostProfile") {
                profile.invalid("localhostProfile", "can only be set when AppArmor type is Localhost", errors);
            }
        }
        "" => profile.required("type", "type is required when appArmorProfile is set", errors),
        _ => profile.unsupported("type", PROFILE_TYPES, errors),
    }
}

/// The longest sysctl name.
const SYSCTL_MAX: usize = 253;

fn sysctls(spec: &Spot<'_>, context: &Spot<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for sysctl in context.items("sysctls") {
        let name = sysctl.str("name");
        if name.is_empty() {
            sysctl.required("name", "", errors);
        } else if !is_sysctl(name) {
            let detail = format!(
                "must have at most {SYSCTL_MAX} characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            sysctl.invalid("name", detail, errors);
        } else if seen.contains(&name) {
            sysctl.duplicate("name", errors);
        }
        let dotted = name.replace('/', ".");
        if spec.bool("hostNetwork") && dotted.starts_with("net.") {
            sysctl.invalid("name", "may not be specified when 'hostNetwork' is true", errors);
        }
        let ipc =
            ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| dotted.starts_with(p)) || dotted == "kernel.sem";
        if spec.bool("hostIPC") && ipc {
            sysctl.invalid("name", "may not be specified when 'hostIPC' is true", errors);
        }
        seen.push(name);
    }
}

fn is_sysctl(name: &str) -> bool {
    let segment =
        |s: &str| names::dns_label(&s.replace('_', "-")).is_empty() && !s.starts_with('_') && !s.ends_with('_');
    name.len() <= SYSCTL_MAX && name.split(['.', '/']).all(segment)
}
