//! From a manifest's text to a static pod (`pkg/kubelet/config/common.go`).

use std::sync::Arc;

use bytes::Bytes;
use corten_kinds::{Kind, references};
use corten_object::{Object, Revision};
use corten_schema::{Options, canonicalise};
use corten_tree::{Tree, tree};

/// Annotation: where the pod comes from.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// Annotation: the hash that is also the static pod's uid.
pub const HASH: &str = "kubernetes.io/config.hash";
/// Annotation of a mirror pod: the hash of its static pod.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation: when the pod was first seen.
pub const SEEN: &str = "kubernetes.io/config.seen";

/// What a manifest is read with.
pub struct Reading<'a> {
    /// The row of Pod.
    pub kind: &'a Kind,
    /// The node's name.
    pub node: &'a str,
    /// The file's path.
    pub file: &'a str,
    /// Now, as the annotation shows it.
    pub seen: &'a str,
}

/// A static pod, and what its manifest has that nobody knows.
#[derive(Debug)]
pub struct Read {
    /// The pod, ready to run.
    pub pod: Arc<Object>,
    /// Upstream ignores unknown fields; we tell of them.
    pub unknown: Vec<String>,
}

/// Reads one pod.
///
/// # Errors
/// What is wrong with it, naming the file.
pub fn read(text: &str, reading: &Reading<'_>) -> Result<Read, String> {
    let file = reading.file;
    let unfit = |why: String| format!("{file}: couldn't parse as pod({why}), please check config file");
    // The parser shows the place in further lines.
    let parsed = corten_client::config_file::yaml(text);
    let parsed = parsed.map_err(|error| unfit(error.lines().next().unwrap_or_default().to_owned()))?;
    let (version, kind) = (parsed.str_at("apiVersion"), parsed.str_at("kind"));
    if kind.is_empty() {
        return Err(unfit("Object 'Kind' is missing".into()));
    }
    if version != "v1" || kind != "Pod" {
        return Err(unfit(format!("{kind:?} of {version:?} is no Pod of v1")));
    }
    let ty = reading.kind.type_of("v1").ok_or_else(|| unfit("Pod has no type".into()))?;
    let decoded = canonicalise(&reading.kind.schema, ty, &parsed, Options::default());
    let decoded = decoded.map_err(|error| unfit(error.to_string()))?;
    let invalid = |why: String| format!("{file}: invalid pod: {why}");
    let mut pod = decoded.tree;
    if pod.str_at("metadata.name").is_empty() {
        return Err(invalid("name is needed for the pod".into()));
    }
    pod.remove("status");
    for field in ["resourceVersion", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if let Some(Tree::Map(meta)) = pod.get_mut("metadata") {
            meta.remove(field);
        }
    }
    reading.kind.fill_defaults(&mut pod);
    complete(&mut pod, reading);
    let errors = reading.kind.create_faults(reading.kind, &pod);
    if !errors.is_empty() {
        let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(invalid(list.join(", ")));
    }
    if let Some(resource) = references::api_reference(&pod) {
        return Err(format!("{file}: static pods may not reference {resource}"));
    }
    let object = Object::parse(reading.kind.id, Bytes::from(pod.to_json()), Revision::ZERO, &reading.kind.fact_paths);
    let pod = Arc::new(object.map_err(|error| invalid(error.to_string()))?);
    Ok(Read { pod, unknown: decoded.strict })
}

/// Name, namespace, uid, node and what keeps it there (`applyDefaults`).
fn complete(pod: &mut Tree, reading: &Reading<'_>) {
    let node = reading.node;
    let mut uid = pod.str_at("metadata.uid").to_owned();
    if uid.is_empty() {
        let mut hash = Fnv128::new();
        for part in [pod.to_json(), format!("host:{node}").into(), format!("file:{}", reading.file).into()] {
            hash.add(&part);
        }
        uid = hash.to_string();
    }
    pod.set("metadata.uid", uid.as_str());
    let name = format!("{}-{}", pod.str_at("metadata.name"), node.to_lowercase());
    pod.set("metadata.name", name);
    if pod.str_at("metadata.namespace").is_empty() {
        pod.set("metadata.namespace", "default");
    }
    pod.set("spec.nodeName", node);
    let annotations = pod.make_map_at("metadata.annotations");
    annotations.insert(HASH, uid);
    annotations.insert(SOURCE, "file");
    annotations.insert(SEEN, reading.seen);
    // The same key and effect are one toleration: ours takes the other's place (`AddOrUpdateTolerationInPod`).
    let mut tolerations = pod.list_at("spec.tolerations").to_vec();
    tolerations.retain(|t| !t.str_at("key").is_empty() || t.str_at("effect") != "NoExecute");
    tolerations.push(tree!({"operator": "Exists", "effect": "NoExecute"}));
    pod.set("spec.tolerations", Tree::List(tolerations));
}

/// The mirror of a static pod for the API, owned by its node.
pub fn mirror(pod: &Object, node: &str, node_uid: &str) -> Tree {
    let mut body = pod.to_tree();
    body.insert("apiVersion", "v1");
    body.insert("kind", "Pod");
    body.remove("status");
    if let Some(Tree::Map(meta)) = body.get_mut("metadata") {
        meta.remove("uid");
        meta.remove("resourceVersion");
    }
    body.make_map_at("metadata.annotations").insert(MIRROR, pod.head.uid.as_str());
    let owner = tree!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": true});
    body.set("metadata.ownerReferences", Tree::List(vec![owner]));
    body
}

/// The hash that a mirror pod names; `None` if the pod is none.
pub fn mirrored(pod: &Object) -> Option<String> {
    let tree = pod.to_tree();
    Some(tree.at(&["metadata", "annotations", MIRROR])?.as_str()?.to_owned())
}

/// FNV-1a of 128 bits, as upstream hashes static pods.
struct Fnv128(u128);

impl Fnv128 {
    fn new() -> Fnv128 {
        Fnv128(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
}

impl std::fmt::Display for Fnv128 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use corten_kinds::{Registry, id};
    use expect_test::expect;

    use super::*;

    fn parse(text: &str, file: &str, seen: &str) -> Result<Read, String> {
        let registry = Registry::builtin();
        read(text, &Reading { kind: registry.get(id::POD), node: "node-1", file, seen })
    }

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec:\n  containers:\n  - {name: c, image: i}\n";

    #[test]
    fn static_pod_gets_name_uid_node_and_annotations() {
        let pod = parse(WEB, "/m/web.yaml", "2026-01-02T03:04:05Z").unwrap().pod;
        assert_eq!((&*pod.head.name, &*pod.head.namespace), ("web-node-1", "default"));
        let tree = pod.to_tree();
        let uid = pod.head.uid.to_string();
        assert_eq!((uid.len(), uid.bytes().all(|b| b.is_ascii_hexdigit())), (32, true));
        let annotations = tree.path("metadata.annotations").map(ToString::to_string).unwrap();
        assert_eq!(
            annotations.replace(&uid, "UID"),
            r#"{"kubernetes.io/config.hash":"UID","kubernetes.io/config.source":"file","kubernetes.io/config.seen":"2026-01-02T03:04:05Z"}"#
        );
        assert_eq!(tree.str_at("spec.nodeName"), "node-1");
        assert_eq!(tree.list_at("spec.tolerations")[0].to_string(), r#"{"operator":"Exists","effect":"NoExecute"}"#);
        assert_eq!(tree.str_at("spec.restartPolicy"), "Always");
    }

    #[test]
    fn static_pod_uid_follows_what_the_manifest_says() {
        let uid = |text: &str, file: &str, seen: &str| parse(text, file, seen).unwrap().pod.head.uid.to_string();
        let first = uid(WEB, "/m/web.yaml", "a");
        assert_eq!(first, uid(&WEB.replace("app: web", "\"app\": web"), "/m/web.yaml", "b"), "the same in other words");
        assert_ne!(first, uid(&WEB.replace("image: i", "image: j"), "/m/web.yaml", "a"));
        assert_ne!(first, uid(WEB, "/m/other.yaml", "a"));
        let given = uid(&WEB.replace("name: web,", "name: web, uid: mine,"), "/m/web.yaml", "a");
        assert_eq!(given, "mine");
        let mut hash = Fnv128::new();
        hash.add(b"a");
        assert_eq!(hash.to_string(), "d228cb696f1a8caf78912b704e4a8964");
    }

    #[test]
    fn static_pod_manifests_that_cannot_run_say_why() {
        let why = |text: &str| parse(text, "/m/x.yaml", "").unwrap_err();
        let all: Vec<String> = [
            "a: [",
            "a: 1",
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}",
            "apiVersion: v1\nkind: Pod\nmetadata: {}\nspec: {containers: [{name: c, image: i}]}",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: []}",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: 1}",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {serviceAccountName: s, containers: [{name: c, image: i}]}",
        ]
        .iter()
        .map(|text| why(text))
        .collect();
        expect![[r#"
            /m/x.yaml: couldn't parse as pod(error: line 1 column 4: unclosed bracket '['), please check config file
            /m/x.yaml: couldn't parse as pod(Object 'Kind' is missing), please check config file
            /m/x.yaml: couldn't parse as pod("Service" of "v1" is no Pod of v1), please check config file
            /m/x.yaml: invalid pod: name is needed for the pod
            /m/x.yaml: invalid pod: spec.containers: Required value
            /m/x.yaml: couldn't parse as pod(json: cannot unmarshal number into Go struct field PodSpec.spec.containers of type []v1.Container), please check config file
            /m/x.yaml: static pods may not reference serviceaccounts"#]]
        .assert_eq(&all.join("\n"));
        let unknown = parse(&WEB.replace("image: i", "image: i, imagePolicy: x"), "/m/x.yaml", "").unwrap().unknown;
        assert_eq!(unknown, [r#"unknown field "spec.containers[0].imagePolicy""#]);
    }

    #[test]
    fn mirror_pod_is_the_static_pod_owned_by_the_node() {
        let pod = parse(WEB, "/m/web.yaml", "x").unwrap().pod;
        let mirror = mirror(&pod, "node-1", "node-uid");
        assert_eq!(mirror.at(&["metadata", "annotations", MIRROR]).and_then(Tree::as_str), Some(pod.head.uid.as_str()));
        assert_eq!(mirror.path("metadata.uid"), None);
        assert_eq!(
            mirror.list_at("metadata.ownerReferences")[0].to_string(),
            r#"{"apiVersion":"v1","kind":"Node","name":"node-1","uid":"node-uid","controller":true}"#
        );
    }
}
