//! Defaults that kinds share: pod specs, resource lists, ports, claims.
//!
//! From `pkg/apis/core/v1/defaults.go` and `zz_generated.defaults.go` beside it. A kind's own defaults are in its file.

use corten_schema::scalars::Quantity;
use corten_tree::{Map, Tree};

/// Calls `f` on each item of the list at a dotted path.
pub(crate) fn each(tree: &mut Tree, path: &str, mut f: impl FnMut(&mut Tree)) {
    if let Some(Tree::List(items)) = tree.path_mut(path) {
        items.iter_mut().for_each(&mut f);
    }
}

/// Calls `f` on the map at a dotted path, if there is one.
pub(crate) fn at(tree: &mut Tree, path: &str, f: impl FnOnce(&mut Tree)) {
    if let Some(found @ Tree::Map(_)) = tree.path_mut(path) {
        f(found);
    }
}

/// Sets the text at a dotted path if it is absent or empty.
pub(crate) fn text(tree: &mut Tree, path: &str, value: &str) {
    if tree.str_at(path).is_empty() {
        tree.set(path, value);
    }
}

/// Sets the value at a dotted path if it is absent or null.
pub(crate) fn value(tree: &mut Tree, path: &str, value: impl Into<Tree>) {
    tree.set_default(path, value);
}

/// Sets the number at a dotted path if it is absent or zero.
fn number(tree: &mut Tree, path: &str, value: i64) {
    if tree.i64_at(path).unwrap_or_default() == 0 {
        tree.set(path, value);
    }
}

/// Rounds the quantities of a resource map up to thousandths (`SetDefaults_ResourceList`).
pub(crate) fn resource_list(tree: &mut Tree, path: &str) {
    let Some(Tree::Map(resources)) = tree.path_mut(path) else { return };
    for (_, value) in resources.iter_mut() {
        let Some(quantity) = value.as_str().and_then(|t| t.parse::<Quantity>().ok()) else { continue };
        if !quantity.is_whole_at(-3) {
            *value = Tree::from(quantity.rounded_up(-3).to_string());
        }
    }
}

/// The defaults of `requests` and `limits`.
pub(crate) fn resource_requirements(tree: &mut Tree, path: &str) {
    at(tree, path, |resources| {
        resource_list(resources, "limits");
        resource_list(resources, "requests");
    });
}

/// The tag of an image reference: `latest` where neither tag nor digest is given; empty if it cannot be parsed.
/// (`pkg/util/parsers.ParseImageName`)
pub(crate) fn image_tag(image: &str) -> &str {
    let (name, digest) = image.split_once('@').map_or((image, ""), |(name, digest)| (name, digest));
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let (repository, tag) = match name[last..].find(':') {
        Some(colon) => (&name[..last + colon], &name[last + colon + 1..]),
        None => (name, ""),
    };
    let valid = !repository.is_empty() && !repository[last.min(repository.len())..].contains(char::is_uppercase);
    match (valid, tag, digest) {
        (false, ..) => "",
        (true, "", "") => "latest",
        (true, tag, _) => tag,
    }
}

/// The defaults of a pod template's (or pod's) spec, wherever it stands (`SetDefaults_PodSpec` and all below it).
pub fn pod_spec(spec: &mut Tree) {
    if spec.str_at("serviceAccountName").is_empty() && !spec.str_at("serviceAccount").is_empty() {
        let old = spec.str_at("serviceAccount").to_owned();
        spec.set("serviceAccountName", old);
    }
    match spec.str_at("serviceAccountName").to_owned() {
        empty if empty.is_empty() => drop(spec.remove("serviceAccount")),
        name => spec.set("serviceAccount", name),
    }
    text(spec, "dnsPolicy", "ClusterFirst");
    text(spec, "restartPolicy", "Always");
    spec.set_default("securityContext", Tree::map());
    spec.set_default("terminationGracePeriodSeconds", 30);
    text(spec, "schedulerName", "default-scheduler");
    each(spec, "volumes", volume);
    for containers in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, containers, container);
    }
    resource_list(spec, "overhead");
    resource_requirements(spec, "resources");
}

fn container(container: &mut Tree) {
    if container.str_at("imagePullPolicy").is_empty() {
        container.set("imagePullPolicy", pull_policy(container.str_at("image")));
    }
    text(container, "terminationMessagePath", "/dev/termination-log");
    text(container, "terminationMessagePolicy", "File");
    each(container, "ports", |port| text(port, "protocol", "TCP"));
    each(container, "env", |env| {
        at(env, "valueFrom.fieldRef", |field| text(field, "apiVersion", "v1"));
        at(env, "valueFrom.fileKeyRef", |file| value(file, "optional", false));
    });
    resource_requirements(container, "resources");
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        at(container, name, probe);
    }
    for hook in ["lifecycle.postStart.httpGet", "lifecycle.preStop.httpGet"] {
        at(container, hook, http_get);
    }
}

fn pull_policy(image: &str) -> &'static str {
    if image_tag(image) == "latest" { "Always" } else { "IfNotPresent" }
}

fn probe(probe: &mut Tree) {
    number(probe, "timeoutSeconds", 1);
    number(probe, "periodSeconds", 10);
    number(probe, "successThreshold", 1);
    number(probe, "failureThreshold", 3);
    at(probe, "httpGet", http_get);
    at(probe, "grpc", |grpc| value(grpc, "service", ""));
}

fn http_get(action: &mut Tree) {
    text(action, "path", "/");
    text(action, "scheme", "HTTP");
}

/// The mode of files in volumes of configuration: 0644.
const FILE_MODE: i64 = 0o644;

fn volume(volume: &mut Tree) {
    let has_source = volume.as_map().is_some_and(|m| m.iter().any(|(key, value)| key != "name" && !value.is_null()));
    if !has_source {
        volume.set("emptyDir", Tree::map());
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        at(volume, source, |source| value(source, "defaultMode", FILE_MODE));
    }
    each(volume, "downwardAPI.items", downward_item);
    each(volume, "projected.sources", |source| {
        at(source, "serviceAccountToken", |token| value(token, "expirationSeconds", 3600));
        each(source, "downwardAPI.items", downward_item);
    });
    at(volume, "hostPath", |path| value(path, "type", ""));
    declared(volume, "core.v1.VolumeSource");
    at(volume, "ephemeral.volumeClaimTemplate", claim_spec);
    at(volume, "image", |image| {
        if image.str_at("pullPolicy").is_empty() {
            image.set("pullPolicy", pull_policy(image.str_at("reference")));
        }
    });
}

/// The defaults that upstream's types declare for the structs in a struct, as `core.v1.VolumeSource` has them.
pub(crate) fn declared(tree: &mut Tree, ty: &str) {
    let schema = corten_schema::builtin();
    let Some(ty) = schema.type_by_name(ty) else { return };
    for member in schema.members(ty) {
        let Some(inner) = member.ty.as_struct() else { continue };
        let Some(value) = tree.get_mut(&member.name).filter(|value| value.as_map().is_some()) else { continue };
        for field in schema.members(inner).filter(|field| !field.default.is_empty()) {
            let given =
                value.get(&field.name).is_some_and(|v| !v.is_null() && (field.pointer || v.as_str() != Some("")));
            if let Ok(default) = corten_tree::json::parse(field.default.as_bytes())
                && !given
                && (field.pointer || default.as_str() != Some(""))
            {
                value.insert(field.name.clone(), default);
            }
        }
    }
}

fn downward_item(item: &mut Tree) {
    at(item, "fieldRef", |field| text(field, "apiVersion", "v1"));
}

/// The defaults of the `spec` of a claim or a claim template.
pub(crate) fn claim_spec(claim: &mut Tree) {
    if claim.path("spec").is_some() {
        claim.set_default("spec.volumeMode", "Filesystem");
        resource_requirements(claim, "spec.resources");
    }
}

/// Sets requests to limits where only limits are given: for pods, not for templates (`SetDefaults_Pod`).
pub(crate) fn requests_from_limits(resources: &mut Tree) {
    let Some(limits) = resources.path("limits").and_then(Tree::as_map).filter(|l| !l.is_empty()).cloned() else {
        return;
    };
    let requests = resources.make_map_at("requests");
    for (name, limit) in limits {
        requests.insert_if_absent(name, limit);
    }
    requests.sort_keys();
}

/// Copies a label map to a path unless something is there.
pub(crate) fn labels_from(object: &mut Tree, from: &str, to: &str) {
    let labels: Map = object.map_at(from).clone();
    if !labels.is_empty() && object.map_at(to).is_empty() {
        object.set(to, labels);
    }
}

#[cfg(test)]
mod tests {
    use super::image_tag;

    #[test]
    fn tags() {
        for (image, tag) in [
            ("nginx", "latest"),
            ("nginx:1.25", "1.25"),
            ("host:5000/nginx", "latest"),
            ("host:5000/a/nginx:latest", "latest"),
            ("nginx@sha256:abc", ""),
            ("nginx:1@sha256:abc", "1"),
            ("Nginx", ""),
            ("", ""),
        ] {
            assert_eq!(image_tag(image), tag, "{image}");
        }
    }
}
