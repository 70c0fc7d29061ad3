//! Volumes of a pod. (`ValidateVolumes` in `pkg/apis/core/validation/validation.go`)

use std::collections::{HashMap, HashSet};

use corten_tree::Tree;

use super::container::{object_field, resource_field};
use super::volume_source::{self, required};
use super::{Spot, certificates, meta, names, quantity};
use crate::Errors;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const MORE_THAN_ONE: &str = "may not specify more than 1 volume type";

/// The valid volumes of a pod by name.
pub(crate) type Volumes<'t> = HashMap<&'t str, &'t Tree>;

/// Checks all volumes and gives the valid ones. `pod` is the pod's name, where it is known (not in templates).
pub(crate) fn validate_volumes<'t>(spec: &Spot<'t>, pod: &str, errors: &mut Errors) -> Volumes<'t> {
    let volumes = spec.items("volumes");
    let created: Vec<String> = match pod {
        "" => Vec::new(),
        _ => volumes.iter().filter(|v| v.has("ephemeral")).map(|v| format!("{pod}-{}", v.str("name"))).collect(),
    };
    let mut valid = Volumes::new();
    for volume in &volumes {
        let before = errors.len();
        source(volume, pod, errors);
        let name = volume.str("name");
        if name.is_empty() {
            volume.required("name", "", errors);
        } else {
            volume.each("name", names::dns_label(name), errors);
        }
        if valid.contains_key(name) {
            volume.duplicate("name", errors);
        }
        if errors.len() == before {
            valid.insert(name, volume.tree);
        }
        let claim = volume.str("persistentVolumeClaim.claimName");
        if created.iter().any(|c| c == claim) {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            volume.invalid("persistentVolumeClaim.claimName", detail, errors);
        }
    }
    valid
}

/// Sources in upstream's order. Those that PersistentVolumes have, too, are checked by [`volume_source`].
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

fn check(name: &str, source: &Spot<'_>, volume: &str, errors: &mut Errors) {
    match name {
        "emptyDir" => empty_dir(source, errors),
        "gitRepo" => volume_source::git_repo(source, errors),
        "secret" => {
            required(source, &["secretName"], errors);
            key_files(source, errors);
        }
        "persistentVolumeClaim" => required(source, &["claimName"], errors),
        "downwardAPI" => downward_api(source, errors),
        "configMap" => {
            required(source, &["name"], errors);
            key_files(source, errors);
        }
        "projected" => projected(source, errors),
        "csi" => csi(source, errors),
        "ephemeral" => match source.some("volumeClaimTemplate") {
            None => source.required("volumeClaimTemplate", "", errors),
            Some(template) => super::workload::claim_template(&template, errors),
        },
        "image" => {
            required(source, &["reference"], errors);
            source.one_of("pullPolicy", &["Always", "IfNotPresent", "Never"], errors);
        }
        shared => {
            if let Some(check) = volume_source::check_of(shared) {
                check(source, volume_source::Of::Pod(volume), errors);
            }
        }
    }
}

fn source(volume: &Spot<'_>, pod: &str, errors: &mut Errors) {
    let mut found = false;
    for name in SOURCES {
        let Some(source) = volume.some(name) else { continue };
        if found {
            // Upstream's spelling of two of them is its own.
            let shown = match *name {
                "cephfs" => "cephFS",
                "downwardAPI" => "downwarAPI",
                name => name,
            };
            volume.forbidden(shown, MORE_THAN_ONE, errors);
            continue;
        }
        found = true;
        check(name, &source, volume.str("name"), errors);
        if *name == "ephemeral" && !pod.is_empty() && !volume.str("name").is_empty() {
            let claim = format!("{pod}-{}", volume.str("name"));
            for message in names::dns_subdomain(&claim) {
                volume.invalid("name", format!("PVC name {claim:?}: {message}"), errors);
            }
        }
    }
    if !found {
        volume.required("", "must specify a volume type", errors);
    }
}

fn empty_dir(source: &Spot<'_>, errors: &mut Errors) {
    if source.some("sizeLimit").and_then(|s| quantity(s.tree)).is_some_and(|q| q.sign() < 0) {
        source.forbidden("sizeLimit", "SizeLimit field must be a valid resource quantity", errors);
    }
}

fn csi(source: &Spot<'_>, errors: &mut Errors) {
    csi_driver_name(source, "driver", errors);
    if source.has("nodePublishSecretRef") {
        match source.str("nodePublishSecretRef.name") {
            "" => source.required("nodePublishSecretRef.name", "", errors),
            name => {
                for message in names::dns_subdomain(name) {
                    source.invalid_as("name", name, message, errors);
                }
            }
        }
    }
}

/// `ValidateCSIDriverName`
pub(crate) fn csi_driver_name(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    let name = spot.str(field);
    if name.is_empty() {
        spot.required(field, "", errors);
        return;
    }
    if name.len() > names::LABEL_MAX {
        spot.too_long(field, names::LABEL_MAX, errors);
    }
    spot.each(field, names::dns_subdomain(&name.to_lowercase()), errors);
}

fn mode(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    if spot.int(field).is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        spot.invalid(field, FILE_MODE, errors);
    }
}

/// The mode and items of a secret or config map volume.
fn key_files(source: &Spot<'_>, errors: &mut Errors) {
    mode(source, "defaultMode", errors);
    for item in source.items("items") {
        key_to_path(&item, errors);
    }
}

fn key_to_path(item: &Spot<'_>, errors: &mut Errors) {
    required(item, &["key", "path"], errors);
    local_non_reserved_path(item, "path", errors);
    mode(item, "mode", errors);
}

fn downward_api(source: &Spot<'_>, errors: &mut Errors) {
    mode(source, "defaultMode", errors);
    for item in source.items("items") {
        // Upstream reports faults of an item at the source's path.
        downward_file(&Spot::at(item.tree, source.path.clone()), errors);
    }
}

const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

fn downward_file(file: &Spot<'_>, errors: &mut Errors) {
    required(file, &["path"], errors);
    local_non_reserved_path(file, "path", errors);
    match (file.some("fieldRef"), file.some("resourceFieldRef")) {
        (Some(field), resource) => {
            object_field(&field, VOLUME_FIELDS, errors);
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                file.invalid_as("", "resource", detail, errors);
            }
        }
        (None, Some(resource)) => resource_field(&resource, true, errors),
        (None, None) => file.required("", "one of fieldRef and resourceFieldRef is required", errors),
    }
    mode(file, "mode", errors);
}

/// The least and the most seconds that a projected token lives.
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

fn projected(volume: &Spot<'_>, errors: &mut Errors) {
    mode(volume, "defaultMode", errors);
    let mut paths = HashSet::new();
    for source in volume.items("sources") {
        let kinds =
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
        let mut unique = |path: &'_ str, shown: &str, errors: &mut Errors| {
            if !path.is_empty() && !paths.insert(path.to_owned()) {
                volume.invalid_as("", shown, "conflicting duplicate paths", errors);
            }
        };
        for kind in ["secret", "configMap"] {
            let Some(projection) = source.some(kind) else { continue };
            required(&projection, &["name"], errors);
            for item in projection.items("items") {
                key_to_path(&item, errors);
                unique(item.str("path"), projection.str("name"), errors);
            }
        }
        if let Some(projection) = source.some("downwardAPI") {
            for item in projection.items("items") {
                downward_file(&Spot::at(item.tree, projection.path.clone()), errors);
                unique(item.str("path"), item.str("path"), errors);
            }
        }
        if let Some(token) = source.some("serviceAccountToken") {
            match token.int("expirationSeconds") {
                None => token.required("expirationSeconds", "", errors),
                Some(s) if s < TOKEN_SECONDS_MIN => {
                    token.invalid("expirationSeconds", "may not specify a duration less than 10 minutes", errors);
                }
                Some(s) if s > TOKEN_SECONDS_MAX => {
                    token.invalid("expirationSeconds", "may not specify a duration larger than 2^32 seconds", errors);
                }
                Some(_) => {}
            }
            // Upstream reports the token's path at the volume.
            let at_volume = Spot::at(token.tree, volume.path.clone());
            match token.str("path") {
                "" => at_volume.required("path", "", errors),
                _ => local_non_reserved_path(&at_volume, "path", errors),
            }
        }
        if let Some(bundle) = source.some("clusterTrustBundle") {
            trust_bundle(&bundle, errors);
            unique(bundle.str("path"), bundle.str("path"), errors);
        }
        if let Some(certificate) = source.some("podCertificate") {
            pod_certificate(&certificate, errors);
            for field in POD_CERTIFICATE_PATHS {
                unique(certificate.str(field), certificate.str(field), errors);
            }
        }
        if kinds.iter().filter(|kind| source.has(kind)).count() > 1 {
            source.forbidden("", "may not specify more than 1 volume type per source", errors);
        }
    }
}

fn trust_bundle(bundle: &Spot<'_>, errors: &mut Errors) {
    match (bundle.has("name"), bundle.has("signerName")) {
        (true, true) => bundle.invalid("", "only one of name and signerName may be used", errors),
        (true, false) => {
            let name = bundle.str("name");
            if name.is_empty() {
                bundle.required("name", "must be a valid object name", errors);
            }
            for fault in certificates::bundle_name(&certificates::signer_of_bundle_name(name), name) {
                bundle.invalid("name", format!("not a valid clustertrustbundlename: {fault}"), errors);
            }
            if bundle.has("labelSelector") {
                bundle.invalid("labelSelector", "labelSelector must be unset if name is specified", errors);
            }
        }
        (false, true) => {
            if bundle.str("signerName").is_empty() {
                bundle.required("signerName", "must be a valid signer name", errors);
            }
            certificates::signer_name(bundle, "signerName", errors);
            if let Some(selector) = bundle.some("labelSelector") {
                super::labels::validate_selector(&selector, errors);
            }
        }
        (false, false) => bundle.required("", "either name or signerName must be specified", errors),
    }
    required(bundle, &["path"], errors);
    local_non_reserved_path(bundle, "path", errors);
}

/// Where a pod's certificate may be written to.
const POD_CERTIFICATE_PATHS: [&str; 3] = ["credentialBundlePath", "keyPath", "certificateChainPath"];

fn pod_certificate(certificate: &Spot<'_>, errors: &mut Errors) {
    const KEYS: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    certificates::signer_name(certificate, "signerName", errors);
    certificates::user_annotations(certificate, "userAnnotations", errors);
    if !KEYS.contains(&certificate.str("keyType")) {
        certificate.unsupported("keyType", KEYS, errors);
    }
    if let Some(seconds) = certificate.int("maxExpirationSeconds") {
        let (min, max) = (certificates::POD_SECONDS_MIN, certificates::pod_seconds_max(certificate.str("signerName")));
        if seconds < min {
            let detail = format!("if provided, maxExpirationSeconds must be >= {min}");
            certificate.invalid("maxExpirationSeconds", detail, errors);
        }
        if seconds > max {
            let detail = format!("if provided, maxExpirationSeconds must be <= {max}");
            certificate.invalid("maxExpirationSeconds", detail, errors);
        }
    }
    let paths = POD_CERTIFICATE_PATHS.iter().filter(|field| !certificate.str(field).is_empty());
    if paths.clone().next().is_none() {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        certificate.required("", detail, errors);
    }
    for field in paths {
        local_non_reserved_path(certificate, field, errors);
    }
}

/// A relative path that does not lead upwards.
pub(crate) fn local_descending_path(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    if spot.str(field).starts_with('/') {
        spot.invalid(field, "must be a relative path", errors);
    }
    no_backsteps(spot, field, errors);
}

/// A path without `..`.
pub(crate) fn no_backsteps(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    if spot.str(field).split('/').any(|part| part == "..") {
        spot.invalid(field, "must not contain '..'", errors);
    }
}

fn local_non_reserved_path(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    local_descending_path(spot, field, errors);
    let path = spot.str(field);
    if path.starts_with("..") && !path.starts_with("../") {
        spot.invalid(field, "must not start with '..'", errors);
    }
}

/// Metadata of a claim template inside a pod: labels and annotations only.
pub(crate) fn template_meta(template: &Spot<'_>, errors: &mut Errors) {
    let meta_spot = template.child("metadata");
    meta::validate_annotations(&meta_spot.child("annotations"), errors);
    super::labels::validate_labels(&meta_spot.child("labels"), errors);
    for (key, value) in meta_spot.map("").iter() {
        if !matches!(key, "annotations" | "labels") && !value.is_null() && value.as_str() != Some("") {
            meta_spot.forbidden(key, "cannot be set", errors);
        }
    }
}
