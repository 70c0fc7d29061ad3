//! The old annotations for seccomp and AppArmor, beside the fields that replaced them.

use corten_tree::{FieldPath, Tree, tree};

use super::volume::local_descending_path;
use super::{Spot, security};
use crate::{Errors, defaults};

pub(crate) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
pub(crate) const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub(crate) const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// `ValidateSeccompPodAnnotations`, `ValidateAppArmorPodAnnotations`
pub(crate) fn validate_annotations(annotations: &Spot<'_>, spec: &Spot<'_>, errors: &mut Errors) {
    let all = annotations.map("");
    let pod = all.get(SECCOMP_POD).into_iter().map(|value| (SECCOMP_POD, value));
    for (key, value) in pod.chain(all.iter().filter(|(key, _)| key.starts_with(SECCOMP))) {
        // Upstream writes these keys as fields.
        seccomp(&Spot::at(value, annotations.path.child(key)), errors);
    }
    for (key, value) in all.iter() {
        let Some(container) = key.strip_prefix(APP_ARMOR) else { continue };
        let at = Spot::at(value, annotations.path.key(key));
        if !CONTAINERS.iter().flat_map(|list| spec.list(list)).any(|c| c.str_at("name") == container) {
            at.invalid_as("", container, "container not found", errors);
        }
        let profile = at.str("");
        if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with("localhost/") {
            at.invalid("", format!("invalid AppArmor profile name: {profile:?}"), errors);
        }
    }
}

fn seccomp(at: &Spot<'_>, errors: &mut Errors) {
    match at.str("") {
        "runtime/default" | "docker/default" | "unconfined" => {}
        profile => match profile.strip_prefix("localhost/") {
            Some(path) => {
                let path = Tree::from(path);
                local_descending_path(&Spot::at(&path, at.path.clone()), "", errors);
            }
            None => at.invalid("", "must be a valid seccomp profile", errors),
        },
    }
}

/// What an annotation and a field that mean the same must agree on, in a new pod.
/// (`validateSeccompAnnotationsAndFields`, `validateAppArmorAnnotationsAndFieldsMatchOnCreate`)
pub(crate) fn validate_match(pod: &Tree, errors: &mut Errors) {
    let annotations = pod.map_at("metadata.annotations");
    let spec = Spot::of(pod, "spec");
    let of_pod = spec.child("securityContext");
    let annotation = |key: &str| annotations.get(key).and_then(Tree::as_str);
    if let Some(annotation) = annotation(SECCOMP_POD) {
        agree(annotation, "seccomp", &of_pod.child("seccompProfile"), &of_pod.path.child("seccompProfile"), errors);
    }
    let containers: Vec<Spot<'_>> = CONTAINERS.iter().flat_map(|list| spec.items(list)).collect();
    for container in &containers {
        if let Some(annotation) = annotation(&format!("{SECCOMP}{}", container.str("name"))) {
            let profile = container.child("securityContext.seccompProfile");
            let path = container.path.child("securityContext.seccompProfile");
            agree(annotation, "seccomp", &profile, &path, errors);
        }
    }
    if spec.str("os.name") == "windows" {
        return;
    }
    for container in &containers {
        if let Some(annotation) = annotation(&format!("{APP_ARMOR}{}", container.str("name"))) {
            let own = container.some("securityContext.appArmorProfile");
            let profile = own.unwrap_or_else(|| of_pod.child("appArmorProfile"));
            let path = container.path.child("securityContext.appArmorProfile");
            agree(annotation, "apparmor", &profile, &path, errors);
        }
    }
}

fn agree(annotation: &str, what: &str, profile: &Spot<'_>, path: &FieldPath, errors: &mut Errors) {
    let at = Spot::at(profile.tree, path.clone());
    let type_fits = match profile.str("type") {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => annotation == "runtime/default" || (what == "seccomp" && annotation == "docker/default"),
        "Localhost" => match annotation.strip_prefix("localhost/") {
            Some(name) => {
                if !profile.has("localhostProfile") || name != profile.str("localhostProfile") {
                    let detail = format!("{what} profile in annotation and field must match");
                    at.forbidden("localhostProfile", detail, errors);
                }
                true
            }
            None => false,
        },
        _ => true,
    };
    if !type_fits {
        at.forbidden("type", format!("{what} type in annotation and field must match"), errors);
    }
}

/// The AppArmor profile that an annotation means (`ApparmorFieldForAnnotation`).
pub(crate) fn app_armor_of(annotation: &str) -> Option<Tree> {
    match annotation {
        "unconfined" => Some(tree!({"type": "Unconfined"})),
        "runtime/default" => Some(tree!({"type": "RuntimeDefault"})),
        other => {
            let name = other.strip_prefix("localhost/").filter(|name| !name.is_empty())?;
            Some(tree!({"type": "Localhost", "localhostProfile": name}))
        }
    }
}

/// Gives containers of a new pod the AppArmor profiles of its annotations. (`applyAppArmorVersionSkew`)
pub(crate) fn fill_app_armor(pod: &mut Tree) {
    if pod.str_at("spec.os.name") == "windows" {
        return;
    }
    let annotations = pod.map_at("metadata.annotations").clone();
    let of_pod = pod.path("spec.securityContext.appArmorProfile").cloned();
    for list in CONTAINERS {
        defaults::each(pod, &format!("spec.{list}"), |container| {
            let key = format!("{APP_ARMOR}{}", container.str_at("name"));
            let Some(annotation) = annotations.get(&key).and_then(Tree::as_str) else { return };
            if container.path("securityContext.appArmorProfile").is_some() {
                return;
            }
            let valid = |profile: &Tree| {
                let mut errors = Errors::new();
                security::app_armor_profile(&Spot::at(profile, FieldPath::ROOT), &mut errors);
                errors.is_empty()
            };
            let profile = app_armor_of(annotation).filter(valid).filter(|p| Some(p) != of_pod.as_ref());
            if let Some(profile) = profile {
                container.set("securityContext.appArmorProfile", profile);
            }
        });
    }
}
