//! Volume sources that pods and PersistentVolumes share. (`validate*VolumeSource` in `pkg/apis/core/validation/validation.go`)

use super::volume::{local_descending_path, no_backsteps};
use super::{Spot, names};
use crate::Errors;

/// Whose source it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of<'t> {
    /// A pod's volume: its name.
    Pod(&'t str),
    /// A PersistentVolume: its name.
    PersistentVolume(&'t str),
}

/// A check of a source.
pub(crate) type Check = fn(&Spot<'_>, Of<'_>, &mut Errors);

/// Requires texts or lists.
pub(crate) fn required(source: &Spot<'_>, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        if source.str(field).is_empty() && source.list(field).is_empty() {
            source.required(field, "", errors);
        }
    }
}

/// A reference to a Secret, if there is one: its name, and its namespace where `fields` has that.
fn secret(source: &Spot<'_>, of: Of<'_>, errors: &mut Errors) {
    if let Some(reference) = source.some("secretRef") {
        let fields: &[&str] = if matches!(of, Of::Pod(_)) { &["name"] } else { &["name", "namespace"] };
        required(&reference, fields, errors);
    }
}

/// The check of the source of this name, if both sorts of volumes have it.
pub(crate) fn check_of(name: &str) -> Option<Check> {
    Some(match name {
        "hostPath" => |s, _, e| host_path(s, e),
        "gcePersistentDisk" => gce,
        "awsElasticBlockStore" => |s, _, e| {
            required(s, &["volumeID"], e);
            partition(s, e);
        },
        "nfs" => |s, _, e| {
            required(s, &["server", "path"], e);
            if !s.str("path").starts_with('/') {
                s.invalid_as("path", s.str("path"), "must be an absolute path", e);
            }
        },
        "iscsi" => iscsi,
        "glusterfs" => glusterfs,
        "flocker" => |s, _, e| flocker(s, e),
        "rbd" => |s, _, e| required(s, &["monitors", "image"], e),
        "cinder" => |s, of, e| {
            required(s, &["volumeID"], e);
            secret(s, of, e);
        },
        "cephfs" => |s, _, e| required(s, &["monitors"], e),
        "quobyte" => |s, _, e| quobyte(s, e),
        "fc" => |s, _, e| fibre_channel(s, e),
        "flexVolume" => |s, _, e| flex(s, e),
        "azureFile" => |s, of, e| {
            required(s, &["secretName", "shareName"], e);
            if matches!(of, Of::PersistentVolume(_)) && s.has("secretNamespace") {
                required(s, &["secretNamespace"], e);
            }
        },
        "vsphereVolume" => |s, _, e| required(s, &["volumePath"], e),
        "photonPersistentDisk" => |s, _, e| required(s, &["pdID"], e),
        "portworxVolume" => |s, _, e| required(s, &["volumeID"], e),
        "azureDisk" => |s, _, e| azure_disk(s, e),
        "storageos" => storage_os,
        "scaleIO" => |s, _, e| required(s, &["gateway", "system", "volumeName"], e),
        _ => return None,
    })
}

const PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

fn host_path(source: &Spot<'_>, errors: &mut Errors) {
    if source.str("path").is_empty() {
        source.required("path", "", errors);
        return;
    }
    no_backsteps(source, "path", errors);
    source.optional_one_of("type", PATH_TYPES, errors);
}

fn gce(source: &Spot<'_>, _: Of<'_>, errors: &mut Errors) {
    // Upstream calls the field by its first name.
    let parent = source.path.parent().unwrap_or(corten_tree::FieldPath::ROOT);
    let at = Spot::at(source.tree, parent.child("persistentDisk"));
    required(&at, &["pdName"], errors);
    partition(&at, errors);
}

fn partition(source: &Spot<'_>, errors: &mut Errors) {
    if source.int("partition").is_some_and(|p| !(0..=255).contains(&p)) {
        source.invalid("partition", names::range(1, 255), errors);
    }
}

/// The longest `<volume>:<portal>` with an initiator of one's own.
const PORTAL_MAX: usize = 64;

fn iscsi(source: &Spot<'_>, of: Of<'_>, errors: &mut Errors) {
    let (name, is_pod) = match of {
        Of::Pod(name) => (name, true),
        Of::PersistentVolume(name) => (name, false),
    };
    let wrong = if is_pod { "must be valid format starting with iqn, eui, or naa" } else { "must be valid format" };
    let portal = source.str("targetPortal");
    let long = source.has("initiatorName") && name.len() + 1 + portal.len() > PORTAL_MAX;
    let too_long = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
    required(source, &["targetPortal"], errors);
    if long && !is_pod {
        source.invalid_as("targetportal", portal, too_long, errors);
    }
    match source.str("iqn") {
        "" => source.required("iqn", "", errors),
        iqn => initiator(source, "iqn", iqn, wrong, errors),
    }
    let lun = source.int("lun").unwrap_or_default();
    if !(0..=255).contains(&lun) {
        source.invalid_as("lun", lun, names::range(0, 255), errors);
    }
    let authenticated = source.bool("chapAuthDiscovery") || source.bool("chapAuthSession");
    if authenticated && !source.has("secretRef") {
        source.required("secretRef", "", errors);
    }
    if !is_pod && let Some(secret) = source.some("secretRef") {
        required(&secret, &["name"], errors);
    }
    if source.has("initiatorName") {
        initiator(source, "initiatorname", source.str("initiatorName"), wrong, errors);
    }
    if long && is_pod {
        let parent = source.path.parent().unwrap_or(corten_tree::FieldPath::ROOT);
        Spot::at(source.tree, parent.child("name")).invalid_as("", name, too_long, errors);
    }
}

/// An iSCSI name: `iqn.`, `eui.` or `naa.`.
fn initiator(source: &Spot<'_>, field: &str, name: &str, wrong: &str, errors: &mut Errors) {
    let letters = |count: usize| {
        name.get(4..).is_some_and(|rest| rest.len() == count && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
    };
    let fits = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => letters(16),
        Some("naa") => letters(32),
        _ => {
            source.invalid_as(field, name, wrong, errors);
            return;
        }
    };
    if !fits {
        source.invalid_as(field, name, "must be valid format", errors);
    }
}

/// `iqn.YYYY-MM.domain:name`, where the domain is letters, digits, dots and dashes.
fn is_iqn(name: &str) -> bool {
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let Some((date, rest)) = name.strip_prefix("iqn.").and_then(|rest| rest.split_once('.')) else { return false };
    let dated = date.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2));
    let strange = |c: char| matches!(c, ',' | ';' | '*' | '&' | '$' | '|' | ' ' | '\t' | '\n' | '\r' | '\u{c}');
    dated
        && rest.split_once(':').is_some_and(|(domain, tail)| {
            let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
            !domain.is_empty() && domain.bytes().all(letter) && !tail.is_empty() && !tail.contains(strange)
        })
}

fn glusterfs(source: &Spot<'_>, of: Of<'_>, errors: &mut Errors) {
    required(source, &["endpoints", "path"], errors);
    if matches!(of, Of::PersistentVolume(_)) && source.has("endpointsNamespace") {
        match source.str("endpointsNamespace") {
            "" => {
                let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                source.invalid("endpointsNamespace", detail, errors);
            }
            name => source.each("endpointsNamespace", names::dns_label(name), errors),
        }
    }
}

fn flocker(source: &Spot<'_>, errors: &mut Errors) {
    let (name, uuid) = (source.str("datasetName"), source.str("datasetUUID"));
    match (name, uuid) {
        ("", "") => source.required("", "one of datasetName and datasetUUID is required", errors),
        ("", _) | (_, "") => {}
        _ => {
            let detail = "datasetName and datasetUUID can not be specified simultaneously";
            source.invalid_as("", "resource", detail, errors);
        }
    }
    if name.contains('/') {
        source.invalid("datasetName", "must not contain '/'", errors);
    }
}

fn quobyte(source: &Spot<'_>, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = source.str("registry");
    if registry.is_empty() {
        source.required("registry", PAIRS, errors);
    } else if source.str("tenant").len() > 64 {
        source.required("tenant", "must be a UUID and may not exceed a length of 64 characters", errors);
    } else {
        for _ in registry.split(',').filter(|pair| !is_host_port(pair)) {
            source.invalid("registry", PAIRS, errors);
        }
    }
    required(source, &["volume"], errors);
}

/// As Go's `net.SplitHostPort` has it.
fn is_host_port(pair: &str) -> bool {
    match pair.strip_prefix('[') {
        Some(rest) => {
            rest.split_once("]:").is_some_and(|(host, port)| !host.contains(']') && !port.contains([':', '[', ']']))
        }
        None => pair.matches(':').count() == 1 && !pair.contains(['[', ']']),
    }
}

fn fibre_channel(source: &Spot<'_>, errors: &mut Errors) {
    let (targets, ids) = (!source.list("targetWWNs").is_empty(), !source.list("wwids").is_empty());
    match (targets, ids) {
        (false, false) => {
            source.required("targetWWNs", "must specify either targetWWNs or wwids, but not both", errors);
        }
        (true, true) => {
            source.invalid("targetWWNs", "targetWWNs and wwids can not be specified simultaneously", errors);
        }
        _ => {}
    }
    if targets {
        match source.int("lun") {
            None => source.required("lun", "lun is required if targetWWNs is specified", errors),
            Some(_) => source.in_range("lun", 0, 255, errors),
        }
    }
}

fn flex(source: &Spot<'_>, errors: &mut Errors) {
    required(source, &["driver"], errors);
    let options = source.child("options");
    for (key, value) in options.map("").iter() {
        let domain = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let at = Spot::at(value, options.path.key(key));
            at.invalid_as("", key, "kubernetes.io and k8s.io namespaces are reserved", errors);
        }
    }
}

fn azure_disk(source: &Spot<'_>, errors: &mut Errors) {
    required(source, &["diskName", "diskURI"], errors);
    source.optional_one_of("cachingMode", &["None", "ReadOnly", "ReadWrite"], errors);
    source.optional_one_of("kind", &["Dedicated", "Managed", "Shared"], errors);
    let forms: (&str, &[&str]) = match source.some("kind") {
        None => return,
        Some(kind) if kind.str("") == "Managed" => (
            "/subscriptions/",
            &["/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"],
        ),
        Some(_) => ("https://", &["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"]),
    };
    if !source.str("diskURI").starts_with(forms.0) {
        source.unsupported("diskURI", forms.1, errors);
    }
}

fn storage_os(source: &Spot<'_>, of: Of<'_>, errors: &mut Errors) {
    match source.str("volumeName") {
        "" => source.required("volumeName", "", errors),
        name => source.each("volumeName", names::dns_label(name), errors),
    }
    if !source.str("volumeNamespace").is_empty() {
        source.each("volumeNamespace", names::dns_label(source.str("volumeNamespace")), errors);
    }
    secret(source, of, errors);
}

/// A gitRepo source; only pods have one.
pub(crate) fn git_repo(source: &Spot<'_>, errors: &mut Errors) {
    required(source, &["repository"], errors);
    local_descending_path(source, "directory", errors);
}

/// The CSI source of a PersistentVolume.
pub(crate) fn csi_volume(source: &Spot<'_>, errors: &mut Errors) {
    super::volume::csi_driver_name(source, "driver", errors);
    required(source, &["volumeHandle"], errors);
    for field in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        let Some(secret) = source.some(field) else { continue };
        match secret.str("name") {
            "" => secret.required("name", "", errors),
            name => secret.each("name", names::dns_subdomain(name), errors),
        }
        match secret.str("namespace") {
            "" => secret.required("namespace", "", errors),
            name => secret.each("namespace", names::dns_label(name), errors),
        }
    }
}
