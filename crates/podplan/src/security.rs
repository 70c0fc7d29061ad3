//! Who a container runs as and what it may do: the pod's security context under the container's
//! (`pkg/securitycontext/util.go` `DetermineEffectiveSecurityContext`, `kuberuntime/security_context.go`).

use corten_views::container::LocalProfile;
use corten_views::{Container, Pod};

/// A container's security settings, merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// User id, or the image's user.
    pub user: Option<i64>,
    /// Group id, or the user's group in the image.
    pub group: Option<i64>,
    /// Refuse root.
    pub non_root: bool,
    /// `supplementalGroups` and `fsGroup`.
    pub extra_groups: Vec<i64>,
    /// Whether groups of the image's user count (`supplementalGroupsPolicy` is not `Strict`).
    pub image_groups: bool,
    /// Owner group of volumes.
    pub fs_group: Option<i64>,
    /// Change volumes' ownership only when their root differs.
    pub fs_group_on_root_mismatch: bool,
    /// Everything of the host.
    pub privileged: bool,
    /// Capabilities added.
    pub caps_add: Vec<String>,
    /// Capabilities dropped.
    pub caps_drop: Vec<String>,
    /// Whether a process may gain more than its parent has.
    pub escalation: bool,
    /// The root file system is read-only.
    pub read_only_root: bool,
    /// `/proc` without hidden and read-only paths.
    pub unmasked_proc: bool,
    /// System call filter.
    pub seccomp: SeccompProfile,
    /// AppArmor's profile.
    pub app_armor: AppArmor,
}

/// A profile of AppArmor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AppArmor {
    /// None is asked for, or none is wanted.
    #[default]
    Unconfined,
    /// The runtime's default.
    RuntimeDefault,
    /// One that is loaded on the node, by name.
    Localhost(String),
}

/// A system call filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SeccompProfile {
    /// None.
    #[default]
    Unconfined,
    /// The runtime's default.
    RuntimeDefault,
    /// A file below the node's seccomp directory.
    Localhost(String),
}

/// Merges the pod's and the container's security contexts.
pub fn security(pod: &Pod, container: &Container) -> Security {
    let of_pod = pod.spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let capabilities = own.capabilities.unwrap_or_default();
    let adds_admin = capabilities.add.iter().any(|c| matches!(c.as_str(), "SYS_ADMIN" | "CAP_SYS_ADMIN"));
    let profile = own.seccomp_profile.or(of_pod.seccomp_profile);
    Security {
        user: own.run_as_user.or(of_pod.run_as_user),
        group: own.run_as_group.or(of_pod.run_as_group),
        non_root: own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false),
        extra_groups: of_pod.supplemental_groups.iter().copied().chain(of_pod.fs_group).collect(),
        image_groups: of_pod.supplemental_groups_policy.as_deref() != Some("Strict"),
        fs_group: of_pod.fs_group,
        fs_group_on_root_mismatch: of_pod.fs_group_change_policy.as_deref() == Some("OnRootMismatch"),
        privileged,
        caps_add: capabilities.add,
        caps_drop: capabilities.drop,
        escalation: own.allow_privilege_escalation.unwrap_or(true) || privileged || adds_admin,
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        unmasked_proc: privileged || own.proc_mount.as_deref() == Some("Unmasked"),
        seccomp: if privileged { SeccompProfile::Unconfined } else { seccomp(profile.as_ref()) },
        app_armor: app_armor(own.app_armor_profile.or(of_pod.app_armor_profile).as_ref()),
    }
}

fn app_armor(profile: Option<&LocalProfile>) -> AppArmor {
    match profile.map(|p| p.r#type.as_str()) {
        None | Some("Unconfined") => AppArmor::Unconfined,
        Some("Localhost") => AppArmor::Localhost(profile.and_then(|p| p.localhost_profile.clone()).unwrap_or_default()),
        // A type of the future must not become less than it asks for.
        Some(_) => AppArmor::RuntimeDefault,
    }
}

/// Why a pod with profiles of AppArmor is not taken; `enabled`: the kernel has it (`pkg/security/apparmor/validate.go`).
pub fn app_armor_refusal(pod: &Pod, enabled: bool) -> Option<String> {
    let of_pod = pod.spec.security_context.iter().filter_map(|s| s.app_armor_profile.as_ref());
    let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers).chain(&pod.spec.ephemeral_containers);
    let own = containers.filter_map(|c| c.security_context.as_ref()?.app_armor_profile.as_ref());
    let required = of_pod.chain(own).any(|profile| app_armor(Some(profile)) != AppArmor::Unconfined);
    (required && !enabled).then(|| "Cannot enforce AppArmor: AppArmor is not enabled on the host".into())
}

fn seccomp(profile: Option<&LocalProfile>) -> SeccompProfile {
    match profile.map(|p| p.r#type.as_str()) {
        Some("RuntimeDefault") => SeccompProfile::RuntimeDefault,
        Some("Localhost") => {
            SeccompProfile::Localhost(profile.and_then(|p| p.localhost_profile.clone()).unwrap_or_default())
        }
        _ => SeccompProfile::Unconfined,
    }
}

/// Whether `runAsNonRoot` holds (`verifyRunAsNonRoot`); `image_user` is the image's user before the first colon, and
/// `image_uid` what it is as a number, if it is one.
pub fn check_non_root(
    pod: &Pod,
    container: &Container,
    security: &Security,
    image_uid: Option<i64>,
    image_user: &str,
) -> Result<(), String> {
    if !security.non_root {
        return Ok(());
    }
    let tail = format!("(pod: {:?}, container: {})", crate::format_pod(pod), container.name);
    match (security.user, image_uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {tail}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {tail}")),
        (None, Some(_)) => Ok(()),
        (None, None) if image_user.is_empty() => {
            Err(format!("container has runAsNonRoot and image will run as root {tail}"))
        }
        (None, None) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root {tail}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_armor_is_refused_where_the_kernel_has_none() {
        let pod = |of_pod: &str, own: &str| -> Pod {
            serde_json::from_str(&format!(
                r#"{{"metadata":{{"name":"p"}},"spec":{{"securityContext":{{{of_pod}}},"containers":[
                {{"name":"a"}},{{"name":"b","securityContext":{{{own}}}}}]}}}}"#
            ))
            .unwrap()
        };
        let profile = |of: &str| format!(r#""appArmorProfile":{{"type":"{of}","localhostProfile":"mine"}}"#);
        let why = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        for (of_pod, own, refused) in [
            ("", "", false),
            ("Unconfined", "", false),
            ("", "Unconfined", false),
            ("RuntimeDefault", "", true),
            ("", "RuntimeDefault", true),
            ("Unconfined", "Localhost", true),
        ] {
            let text = |of: &str| if of.is_empty() { String::new() } else { profile(of) };
            let pod = pod(&text(of_pod), &text(own));
            assert_eq!(app_armor_refusal(&pod, false).as_deref(), refused.then_some(why), "{of_pod} {own}");
            assert_eq!(app_armor_refusal(&pod, true), None);
        }
        let pod = pod(&profile("RuntimeDefault"), &profile("Localhost"));
        let of = |n: usize| security(&pod, &pod.spec.containers[n]).app_armor;
        assert_eq!((of(0), of(1)), (AppArmor::RuntimeDefault, AppArmor::Localhost("mine".into())));
    }

    #[test]
    fn the_container_overrides_the_pod() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"p","namespace":"d","uid":"u"},"spec":{"securityContext":{"runAsUser":1000,"runAsNonRoot":true,
            "fsGroup":7,"supplementalGroups":[5],"seccompProfile":{"type":"RuntimeDefault"}},"containers":[{"name":"c","securityContext":
            {"runAsUser":0,"capabilities":{"drop":["ALL"]},"allowPrivilegeEscalation":false}}]}}"#,
        )
        .unwrap();
        let container = &pod.spec.containers[0];
        let s = security(&pod, container);
        assert_eq!((s.user, &s.extra_groups[..], s.escalation), (Some(0), &[5, 7][..], false));
        assert_eq!(s.seccomp, SeccompProfile::RuntimeDefault);
        assert_eq!(
            check_non_root(&pod, container, &s, None, "").unwrap_err(),
            r#"container's runAsUser breaks non-root policy (pod: "p_d(u)", container: c)"#
        );
    }
}
