//! What holds of pods for one operating system. (`validateOS`, `validateLinux`, `validateWindows` and around in
//! `pkg/apis/core/validation/validation.go`)

use super::{Spot, names};
use crate::Errors;

/// The lists of containers, in the order in which upstream visits them.
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

const ON_WINDOWS: &str = "cannot be set for a windows pod";
const ON_LINUX: &str = "windows options cannot be set for a linux pod";

/// Checks `os` and what it excludes.
pub(crate) fn validate_os(spec: &Spot<'_>, errors: &mut Errors) {
    let Some(os) = spec.some("os") else { return };
    match os.str("name") {
        "" => os.required("name", "", errors),
        "linux" => linux(spec, errors),
        "windows" => windows(spec, errors),
        name => errors.push(corten_object::FieldError::not_supported(&os.path, name, &["linux", "windows"])),
    }
}

fn linux(spec: &Spot<'_>, errors: &mut Errors) {
    let contexts = std::iter::once(spec.child("securityContext")).chain(container_contexts(spec));
    for context in contexts.filter(|context| context.has("windowsOptions")) {
        context.forbidden("windowsOptions", ON_LINUX, errors);
    }
}

fn container_contexts<'t>(spec: &Spot<'t>) -> impl Iterator<Item = Spot<'t>> {
    let all: Vec<Spot<'t>> = CONTAINERS.iter().flat_map(|list| spec.items(list)).collect();
    all.into_iter().map(|container| container.child("securityContext"))
}

/// What a pod's and a container's security context on Windows may not have; lists count when they are not empty.
const POD_FIELDS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
const CONTAINER_FIELDS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

fn windows(spec: &Spot<'_>, errors: &mut Errors) {
    let refuse = |spot: &Spot<'_>, fields: &[&str], errors: &mut Errors| {
        for field in fields.iter().filter(|field| spot.has(field)) {
            spot.forbidden(field, ON_WINDOWS, errors);
        }
    };
    refuse(&spec.child("securityContext"), POD_FIELDS, errors);
    refuse(spec, &["hostUsers"], errors);
    for field in ["hostPID", "hostIPC"] {
        if spec.bool(field) {
            spec.forbidden(field, ON_WINDOWS, errors);
        }
    }
    refuse(spec, &["shareProcessNamespace"], errors);
    for context in container_contexts(spec) {
        refuse(&context, CONTAINER_FIELDS, errors);
    }
}

/// The longest GMSA credential spec in KiB, domain and user.
const CREDENTIALS_KIB_MAX: usize = 64;
const DOMAIN_BYTES_MAX: usize = 256;
const USER_BYTES_MAX: usize = 104;

/// `validateWindowsSecurityContextOptions`
pub(crate) fn windows_options(context: &Spot<'_>, errors: &mut Errors) {
    let Some(options) = context.some("windowsOptions") else { return };
    if options.has("gmsaCredentialSpecName") {
        options.each("gmsaCredentialSpecName", names::dns_subdomain(options.str("gmsaCredentialSpecName")), errors);
    }
    const SPEC: &str = "gmsaCredentialSpec";
    match options.str(SPEC).len() {
        _ if !options.has(SPEC) => {}
        0 => options.invalid(SPEC, "gmsaCredentialSpec cannot be an empty string", errors),
        length if length > CREDENTIALS_KIB_MAX << 10 => {
            options.invalid(SPEC, format!("gmsaCredentialSpec size must be under {CREDENTIALS_KIB_MAX} KiB"), errors);
        }
        _ => {}
    }
    if options.has("runAsUserName") {
        user_name(&options, errors);
    }
}

fn user_name(options: &Spot<'_>, errors: &mut Errors) {
    const FIELD: &str = "runAsUserName";
    let name = options.str(FIELD);
    let whole = match name.split('\\').count() {
        _ if name.is_empty() => "runAsUserName cannot be an empty string",
        _ if name.bytes().any(|b| b.is_ascii_control()) => "runAsUserName cannot contain control characters",
        parts if parts > 2 => "runAsUserName cannot contain more than one backslash",
        _ => "",
    };
    if !whole.is_empty() {
        options.invalid(FIELD, whole, errors);
        return;
    }
    let (domain, user) = name.split_once('\\').map_or((None, name), |(domain, user)| (Some(domain), user));
    if domain.is_some_and(|domain| domain.len() >= DOMAIN_BYTES_MAX) {
        let detail = format!("runAsUserName's Domain length must be under {DOMAIN_BYTES_MAX} characters");
        options.invalid(FIELD, detail, errors);
    }
    if domain.is_some_and(|domain| !is_net_bios(domain) && !is_dns(domain)) {
        options.invalid(FIELD, "runAsUserName's Domain doesn't match the NetBios nor the DNS format", errors);
    }
    if user.is_empty() {
        options.invalid(FIELD, "runAsUserName's User cannot be empty", errors);
    } else if user.len() > USER_BYTES_MAX {
        let detail = format!("runAsUserName's User length must not be longer than {USER_BYTES_MAX} characters");
        options.invalid(FIELD, detail, errors);
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        options.invalid(FIELD, "runAsUserName's User cannot contain only periods or spaces", errors);
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        let detail = "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]";
        options.invalid(FIELD, detail, errors);
    }
}

fn is_net_bios(domain: &str) -> bool {
    let length = domain.chars().count();
    (1..=15).contains(&length)
        && !domain.starts_with('.')
        && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|'])
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| names::dns_label(&label.to_ascii_lowercase()).is_empty())
}

/// `validateWindowsHostProcessPod`
pub(crate) fn host_process(spec: &Spot<'_>, errors: &mut Errors) {
    let of = |context: &Spot<'_>| context.child("windowsOptions.hostProcess").tree.as_bool();
    let pod = of(&spec.child("securityContext"));
    let (mut all, mut host) = (0, 0);
    for context in container_contexts(spec) {
        all += 1;
        let own = of(&context);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            context.invalid("windowsOptions.hostProcess", detail, errors);
        }
        host += usize::from(own.or(pod) == Some(true));
    }
    if host == 0 {
        return;
    }
    if host != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        spec.invalid_as("", "", detail, errors);
    }
    if !spec.bool("hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        spec.invalid_as("hostNetwork", false, detail, errors);
    }
}
