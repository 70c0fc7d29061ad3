//! What the agent of a node may do (`plugin/pkg/auth/authorizer/node`).
//!
//! Upstream keeps a graph of what hangs together with which node. Here the graph is the cache itself: the pods of a node are
//! an index, and what they name is looked up when it is asked for.

use std::sync::{Arc, LazyLock};

use corten_kinds::id;
use corten_kinds::references::references;
use corten_object::{KindId, Object, ObjectKey};
use corten_tree::Tree;

use crate::rbac::{Attributes, Decision, Rule};
use crate::{Source, bootstrap};

/// What is not divided by node. The agent is service proxy and DNS as well: it has what upstream gives to kube-proxy, and sees
/// namespaces.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let mut rules = bootstrap::rules_of("system:node");
    rules.extend(bootstrap::rules_of("system:node-proxier"));
    rules.extend(bootstrap::rules_of("corten:cluster-dns"));
    rules
});

const LEASES: &str = "kube-node-lease";

/// Whether the agent of `node` may do this.
pub fn authorize(source: &dyn Source, node: &str, a: &Attributes<'_>) -> Decision {
    let no = Decision::no_opinion;
    if !a.path.is_empty() {
        return by_rules(a);
    }
    match (a.group, a.resource) {
        ("", "secrets" | "configmaps") => read_one(source, node, a),
        ("", "persistentvolumeclaims") if a.subresource == "status" => match a.verb {
            "update" | "patch" => related(source, node, a),
            _ => no("can only get/update/patch this type"),
        },
        ("", "persistentvolumeclaims" | "persistentvolumes")
        | ("resource.k8s.io", "resourceclaims")
        | ("storage.k8s.io", "volumeattachments") => get_one(source, node, a),
        ("", "serviceaccounts") => service_account(source, node, a),
        ("coordination.k8s.io", "leases") => lease(node, a),
        ("storage.k8s.io", "csinodes") => own_csi_node(node, a),
        ("resource.k8s.io", "resourceslices") => resource_slice(source, node, a),
        ("", "nodes") => own_node(node, a),
        ("", "pods") => pod(source, node, a),
        ("certificates.k8s.io", "podcertificaterequests") => pod_certificate(source, node, a),
        _ => by_rules(a),
    }
}

fn by_rules(a: &Attributes<'_>) -> Decision {
    Decision { allowed: RULES.iter().any(|rule| rule.allows(a)), ..Decision::default() }
}

fn read_one(source: &dyn Source, node: &str, a: &Attributes<'_>) -> Decision {
    let no = Decision::no_opinion;
    match a.verb {
        "get" | "list" | "watch" if !a.subresource.is_empty() => no("cannot read subresource"),
        "get" | "list" | "watch" if a.namespace.is_empty() => no("can only read namespaced object of this type"),
        "get" | "list" | "watch" => related(source, node, a),
        _ => no("can only read resources of this type"),
    }
}

fn get_one(source: &dyn Source, node: &str, a: &Attributes<'_>) -> Decision {
    match a.verb {
        "get" if !a.subresource.is_empty() => Decision::no_opinion("cannot get subresource"),
        "get" => related(source, node, a),
        _ => Decision::no_opinion("can only get individual resources of this type"),
    }
}

fn related(source: &dyn Source, node: &str, a: &Attributes<'_>) -> Decision {
    if a.name.is_empty() {
        return Decision::no_opinion("No Object name found");
    }
    match is_related(source, node, a) {
        true => Decision::allow(""),
        false => Decision::no_opinion(format!("no relationship found between node '{node}' and this object")),
    }
}

fn service_account(source: &dyn Source, node: &str, a: &Attributes<'_>) -> Decision {
    match (a.verb, a.subresource) {
        ("get", "") => read_one(source, node, a),
        ("create", _) if a.name.is_empty() => {
            Decision::no_opinion("can only create tokens for individual service accounts")
        }
        ("create", "token") => related(source, node, a),
        ("create", _) => Decision::no_opinion("can only create token subresource of serviceaccount"),
        _ => Decision::no_opinion("can only create tokens for individual service accounts"),
    }
}

fn lease(node: &str, a: &Attributes<'_>) -> Decision {
    let no = Decision::no_opinion;
    match a.verb {
        "get" | "create" | "update" | "patch" | "delete" => {}
        _ => return no("can only get, create, update, patch, or delete a node lease"),
    }
    if a.namespace != LEASES {
        return no("can only access leases in the \"kube-node-lease\" system namespace");
    }
    match a.verb == "create" || a.name == node {
        true => Decision::allow(""),
        false => no("can only access node lease with the same name as the requesting node"),
    }
}

fn own_csi_node(node: &str, a: &Attributes<'_>) -> Decision {
    let no = Decision::no_opinion;
    match (a.subresource, a.verb) {
        ("", "get" | "create" | "update" | "patch" | "delete") => {}
        ("", _) => return no("can only get, create, update, patch, or delete a CSINode"),
        ("status", _) => return no("CSINode status access requires CSIVolumeHealth feature"),
        _ => return no("cannot authorize CSINode subresources"),
    }
    match a.verb == "create" || a.name == node {
        true => Decision::allow(""),
        false => no("can only access CSINode with the same name as the requesting node"),
    }
}

/// Whether the request is about objects of this node only.
fn selects(a: &Attributes<'_>, field: &str, node: &str) -> bool {
    a.fields.iter().any(|term| term.path == field && term.equal && term.value == node)
}

fn resource_slice(source: &dyn Source, node: &str, a: &Attributes<'_>) -> Decision {
    let no = Decision::no_opinion;
    if !a.subresource.is_empty() {
        return no("cannot authorize ResourceSlice subresources");
    }
    match a.verb {
        // The admission plugin NodeRestriction looks into the object.
        "create" => Decision::allow(""),
        "get" | "update" | "patch" | "delete" => related(source, node, a),
        "watch" | "list" | "deletecollection" if selects(a, "spec.nodeName", node) => Decision::allow(""),
        "watch" | "list" | "deletecollection" => {
            no("can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        _ => no(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, \
                 deletecollection",
        ),
    }
}

fn own_node(node: &str, a: &Attributes<'_>) -> Decision {
    match (a.subresource, a.verb) {
        // The admission plugin NodeRestriction sees to it that it is its own.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Decision::allow(""),
        ("", "get" | "list" | "watch") => match a.name {
            name if name == node => Decision::allow(""),
            "" => Decision::no_opinion(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => Decision::no_opinion(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => Decision::default(),
    }
}

fn pod(source: &dyn Source, node: &str, a: &Attributes<'_>) -> Decision {
    match (a.subresource, a.verb) {
        ("", "get") => get_one(source, node, a),
        ("", "list" | "watch") if selects(a, "spec.nodeName", node) => Decision::allow(""),
        ("", "list" | "watch") if !a.name.is_empty() => related(source, node, a),
        ("", "list" | "watch") => Decision::no_opinion("can only list/watch pods with spec.nodeName field selector"),
        // The admission plugin NodeRestriction limits these to the node's own pods.
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Decision::allow(""),
        _ => Decision::default(),
    }
}

fn pod_certificate(source: &dyn Source, node: &str, a: &Attributes<'_>) -> Decision {
    let no = Decision::no_opinion;
    if !a.subresource.is_empty() {
        return no("nodes may not access the status subresource of PodCertificateRequests");
    }
    match a.verb {
        "create" => Decision::allow(""),
        "get" => related(source, node, a),
        "list" | "watch" if selects(a, "spec.nodeName", node) => Decision::allow(""),
        "list" | "watch" => no("can only list/watch podcertificaterequests with nodeName field selector"),
        verb => no(&format!("nodes may not {verb} podcertificaterequests")),
    }
}

/// Whether there is a way from the object to the node.
fn is_related(source: &dyn Source, node: &str, a: &Attributes<'_>) -> bool {
    let on_node = |kind: KindId, namespace: &str, path: &str| {
        source.object(&ObjectKey::new(kind, namespace, a.name)).is_some_and(|o| o.to_tree().str_at(path) == node)
    };
    let (namespace, name) = (a.namespace, a.name);
    match a.resource {
        "pods" => on_node(id::POD, namespace, "spec.nodeName"),
        "podcertificaterequests" => on_node(id::POD_CERTIFICATE_REQUEST, namespace, "spec.nodeName"),
        "resourceslices" => on_node(id::RESOURCE_SLICE, "", "spec.nodeName"),
        "volumeattachments" => on_node(id::VOLUME_ATTACHMENT, "", "spec.nodeName"),
        "persistentvolumes" => pods(source, node, None).any(|pod| pod.uses_volume(source, name)),
        resource => {
            let mut there = pods(source, node, Some(namespace));
            let of_pod = there.any(|pod| pod.names(resource, name));
            // A volume's driver may need a Secret of another namespace.
            of_pod
                || (resource == "secrets"
                    && pods(source, node, None).any(|pod| pod.volumes_need_secret(source, namespace, name)))
        }
    }
}

/// A pod of the node.
struct OnNode {
    object: Arc<Object>,
    tree: Tree,
}

/// The pods of a node that may still need something: not those that have ended and are going (`graph_populator.go`, `updatePod`).
/// Each is read when it is asked for: on a full node most questions are answered by the first of hundreds.
fn pods(source: &dyn Source, node: &str, namespace: Option<&str>) -> impl Iterator<Item = OnNode> + use<> {
    let mut found = source.with_fact(id::POD, "spec.nodeName", node);
    found.retain(|pod| namespace.is_none_or(|namespace| &*pod.head.namespace == namespace));
    found.into_iter().map(OnNode::read)
}

impl OnNode {
    fn read(object: Arc<Object>) -> OnNode {
        OnNode { tree: object.to_tree(), object }
    }

    fn namespace(&self) -> &str {
        &self.object.head.namespace
    }

    /// Whether the pod's spec names this object of its namespace (`pkg/api/v1/pod/util.go`, `VisitPodSecretNames` and others).
    fn names(&self, resource: &str, name: &str) -> bool {
        if self.tree.at(&["metadata", "annotations", "kubernetes.io/config.mirror"]).is_some() {
            return false;
        }
        let spec = self.tree.get("spec").unwrap_or(&Tree::Null);
        match resource {
            "serviceaccounts" => match spec.str_at("serviceAccountName") {
                "" => name == "default",
                account => account == name,
            },
            "persistentvolumeclaims" => self.claims().any(|claim| claim == name),
            "resourceclaims" => {
                let direct = spec.list_at("resourceClaims").iter().any(|c| c.str_at("resourceClaimName") == name);
                let made = self.tree.list_at("status.resourceClaimStatuses");
                let extended = self.tree.str_at("status.extendedResourceClaimStatus.resourceClaimName");
                direct || extended == name || made.iter().any(|c| c.str_at("resourceClaimName") == name)
            }
            "secrets" => references(spec).iter().any(|r| r.kind == id::SECRET && r.name == name),
            "configmaps" => references(spec).iter().any(|r| r.kind == id::CONFIG_MAP && r.name == name),
            _ => false,
        }
    }

    /// Names of the pod's claims, made for it or not.
    fn claims(&self) -> impl Iterator<Item = String> + '_ {
        self.tree.list_at("spec.volumes").iter().filter_map(|v| match v.str_at("persistentVolumeClaim.claimName") {
            "" if v.get("ephemeral").is_some() => Some(format!("{}-{}", self.object.head.name, v.str_at("name"))),
            "" => None,
            claim => Some(claim.to_owned()),
        })
    }

    /// Names of the volumes that the pod's claims are bound to.
    fn bound_volumes(&self, source: &dyn Source) -> Vec<String> {
        let claim = |name: String| {
            let key = ObjectKey::new(id::PERSISTENT_VOLUME_CLAIM, self.namespace(), &name);
            source.object(&key).map(|c| c.to_tree().str_at("spec.volumeName").to_owned())
        };
        self.claims().filter_map(claim).filter(|name| !name.is_empty()).collect()
    }

    fn uses_volume(&self, source: &dyn Source, name: &str) -> bool {
        self.bound_volumes(source).iter().any(|v| v == name)
    }

    fn volumes_need_secret(&self, source: &dyn Source, namespace: &str, name: &str) -> bool {
        self.bound_volumes(source).iter().any(|volume| {
            let volume = source.object(&ObjectKey::new(id::PERSISTENT_VOLUME, "", volume));
            let Some(volume) = volume.map(|v| v.to_tree()) else { return false };
            let claim_namespace = volume.str_at("spec.claimRef.namespace").to_owned();
            let csi =
                ["nodeStageSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef", "controllerPublishSecretRef"];
            let named = csi.iter().map(|r| format!("spec.csi.{r}"));
            let others = ["azureFile", "cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"];
            let others = others.iter().map(|k| format!("spec.{k}.secretRef"));
            named.chain(others).any(|path| {
                let Some(found) = volume.path(&path) else { return false };
                let of = Some(found.str_at("namespace")).filter(|n| !n.is_empty()).unwrap_or(&claim_namespace);
                found.str_at("name") == name && of == namespace
            })
        })
    }
}
