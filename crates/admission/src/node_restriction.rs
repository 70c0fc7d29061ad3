//! What the agent of a node may write (`plugin/pkg/admission/noderestriction/admission.go`): its own node, lease and CSI node,
//! the status of its pods, and tokens and certificates for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use corten_auth::Attributes;
use corten_kinds::id;
use corten_kinds::x509::{CertificateRequest, pem_blocks};
use corten_object::{Object, Status};
use corten_schema::scalars::base64;
use corten_tree::Tree;

use crate::{Operation, Request};

const LEASES: &str = "kube-node-lease";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Creates and updates by the agent of a node.
pub(crate) fn restrict(request: &Request<'_>, object: &mut Tree, old: Option<&Tree>) -> Result<(), Status> {
    let Some(node) = request.user.node_name() else { return Ok(()) };
    let denied = |why: String| request.forbidden(why);
    let sub = request.subresource;
    match request.kind.id {
        id::POD => match sub {
            "" => pod(request, node, object).map_err(denied),
            "status" => pod_status(request, node, object, old).map_err(denied),
            "eviction" => {
                let pod = find(request, id::POD, request.namespace, request.name)?;
                match pod.to_tree().str_at("spec.nodeName") == node {
                    true => Ok(()),
                    false => Err(denied(format!("node {node} can only evict pods with spec.nodeName set to itself"))),
                }
            }
            _ => Err(denied(format!("unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed"))),
        },
        id::NODE => own_node(request, node, object, old).map_err(denied),
        id::PERSISTENT_VOLUME_CLAIM => claim_status(request, node, object, old).map_err(denied),
        id::SERVICE_ACCOUNT if sub == "token" && request.operation == Operation::Create => token(request, node, object),
        id::POD_CERTIFICATE_REQUEST => pod_certificate(request, node, object),
        id::LEASE if request.namespace != LEASES => {
            Err(denied(format!("can only access leases in the {LEASES:?} system namespace")))
        }
        id::LEASE if object.str_at("metadata.name") != node => {
            Err(denied("can only access node lease with the same name as the requesting node".into()))
        }
        id::CSI_NODE if object.str_at("metadata.name") != node => {
            Err(denied("can only access CSINode with the same name as the requesting node".into()))
        }
        id::RESOURCE_SLICE if request.operation == Operation::Create && object.str_at("spec.nodeName") != node => {
            Err(denied("can only create ResourceSlice with the same NodeName as the requesting node".into()))
        }
        id::CERTIFICATE_SIGNING_REQUEST if request.operation == Operation::Create => {
            signing_request(node, object).map_err(denied)
        }
        _ => Ok(()),
    }
}

/// Deletes by the agent of a node.
pub(crate) fn restrict_delete(request: &Request<'_>, _object: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
    let (Some(node), Operation::Delete) = (request.user.node_name(), request.operation) else { return Ok(()) };
    let on = |path: &str| old.is_none_or(|o| o.str_at(path) == node);
    let why = match request.kind.id {
        id::POD if !on("spec.nodeName") => {
            format!("node {node:?} can only delete pods with spec.nodeName set to itself")
        }
        id::NODE if request.name != node => {
            format!("node {node:?} is not allowed to modify node {:?}", request.name)
        }
        id::PERSISTENT_VOLUME_CLAIM => "may only update PVC status".to_owned(),
        id::POD_CERTIFICATE_REQUEST => "unexpected operation DELETE".to_owned(),
        id::LEASE if request.name != node => {
            "can only access node lease with the same name as the requesting node".to_owned()
        }
        id::CSI_NODE if request.name != node => {
            "can only access CSINode with the same name as the requesting node".to_owned()
        }
        id::RESOURCE_SLICE if !on("spec.nodeName") => {
            "can only delete ResourceSlice with the same NodeName as the requesting node".to_owned()
        }
        _ => return Ok(()),
    };
    Err(request.forbidden(why))
}

/// An object that the request depends on; 404 if it is not there.
fn find(
    request: &Request<'_>,
    kind: corten_object::KindId,
    namespace: &str,
    name: &str,
) -> Result<Arc<Object>, Status> {
    request.find(kind, namespace, name).ok_or_else(|| {
        let registry = request.cluster.registry();
        let kind = registry.get(kind);
        Status::not_found(&kind.group, &kind.plural, name)
    })
}

/// Agents make mirror pods only, owned by their node.
fn pod(request: &Request<'_>, node: &str, pod: &Tree) -> Result<(), String> {
    if request.operation != Operation::Create {
        let operation = request.operation.as_str();
        return Err(format!(
            "unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"
        ));
    }
    if pod.at(&["metadata", "annotations", MIRROR]).is_none() {
        return Err(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if pod.str_at("spec.nodeName") != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let [owner] = pod.list_at("metadata.ownerReferences") else {
        let single = if pod.list_at("metadata.ownerReferences").is_empty() { "an" } else { "a single" };
        return Err(format!("node {node:?} can only create pods with {single} owner reference set to itself"));
    };
    if owner.str_at("apiVersion") != "v1" || owner.str_at("kind") != "Node" || owner.str_at("name") != node {
        return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if !owner.bool_at("controller") {
        return Err(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner.bool_at("blockOwnerDeletion") {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let uid = request.find(id::NODE, "", node).map(|n| n.head.uid.to_string()).unwrap_or_default();
    let named = owner.str_at("uid");
    if named != uid {
        return Err(format!("node {node} UID mismatch: expected {named} got {uid}"));
    }
    match corten_kinds::references::api_reference(pod) {
        Some(resource) => Err(format!("node {node:?} can not create pods that reference {resource}")),
        None => Ok(()),
    }
}

fn same(new: &Tree, old: &Tree, path: &str) -> bool {
    let of = |tree: &Tree| tree.path(path).cloned().unwrap_or_default();
    of(new).semantically_equal(&of(old))
}

fn pod_status(request: &Request<'_>, node: &str, new: &Tree, old: Option<&Tree>) -> Result<(), String> {
    let Some(old) = old else { return Err(format!("unexpected operation {:?}", request.operation.as_str())) };
    if old.str_at("spec.nodeName") != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    for (path, what) in [
        ("metadata.labels", "labels through pod status"),
        ("status.resourceClaimStatuses", "resource claim statues"),
        ("status.extendedResourceClaimStatus", "extended resource claim status"),
        ("status.nodeAllocatableResourceClaimStatuses", "node allocatable resource claim statuses"),
    ] {
        if !same(new, old, path) {
            return Err(format!("node {node:?} cannot update {what}"));
        }
    }
    Ok(())
}

fn own_node(request: &Request<'_>, node: &str, new: &Tree, old: Option<&Tree>) -> Result<(), String> {
    let name = if request.name.is_empty() { new.str_at("metadata.name") } else { request.name };
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let source = new.path("spec.configSource");
    let Some(old) = old else {
        if source.is_some() {
            return Err(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
        }
        return match forbidden_labels(new, None) {
            labels if labels.is_empty() => Ok(()),
            labels => Err(format!("node {node:?} is not allowed to set the following labels: {labels}")),
        };
    };
    if source.is_some() && !same(new, old, "spec.configSource") {
        return Err(format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"));
    }
    if !same(new, old, "spec.taints") {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    if !same(new, old, "metadata.ownerReferences") {
        return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    match forbidden_labels(new, Some(old)) {
        labels if labels.is_empty() => Ok(()),
        labels => Err(format!("is not allowed to modify labels: {labels}")),
    }
}

/// The changed labels that agents may not change, in order.
fn forbidden_labels(new: &Tree, old: Option<&Tree>) -> String {
    let labels = |tree: &Tree| -> BTreeSet<(String, String)> {
        let map = tree.map_at("metadata.labels");
        map.iter().map(|(k, v)| (k.to_owned(), v.as_str().unwrap_or_default().to_owned())).collect()
    };
    let (new, old) = (labels(new), old.map(labels).unwrap_or_default());
    let changed: BTreeSet<&str> = new.symmetric_difference(&old).map(|(key, _)| key.as_str()).collect();
    changed.into_iter().filter(|key| !agent_may_label(key)).collect::<Vec<_>>().join(", ")
}

fn agent_may_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|d| d.ends_with('.'));
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    // `pkg/kubelet/apis/well_known_labels.go`
    const KNOWN: &[&str] = &[
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/instance-type",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
    ];
    KNOWN.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}

/// Of a claim's status: what is there of it, and its conditions.
fn claim_status(request: &Request<'_>, node: &str, new: &Tree, old: Option<&Tree>) -> Result<(), String> {
    if request.subresource != "status" {
        return Err("may only update PVC status".into());
    }
    let Some(old) = old else { return Err(format!("unexpected operation {:?}", request.operation.as_str())) };
    let rest = |tree: &Tree| {
        let mut tree = tree.clone();
        for path in [
            "metadata.resourceVersion",
            "metadata.managedFields",
            "status.capacity",
            "status.conditions",
            "status.allocatedResourceStatuses",
            "status.allocatedResources",
        ] {
            tree.remove(path);
        }
        tree
    };
    match rest(new).semantically_equal(&rest(old)) {
        true => Ok(()),
        false => Err(format!(
            "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
        )),
    }
}

/// A token must be for a pod of the node, and for those whom the pod's volumes name.
fn token(request: &Request<'_>, node: &str, body: &Tree) -> Result<(), Status> {
    let denied = |why: &str| request.forbidden(why);
    let bound = body.path("spec.boundObjectRef").unwrap_or(&Tree::Null);
    let (name, uid) = (bound.str_at("name"), bound.str_at("uid"));
    if bound.str_at("apiVersion") != "v1" || bound.str_at("kind") != "Pod" || name.is_empty() {
        return Err(denied("node requested token not bound to a pod"));
    }
    if uid.is_empty() {
        return Err(denied("node requested token with a pod binding without a uid"));
    }
    let pod = find(request, id::POD, request.namespace, name)?;
    if pod.head.uid != uid {
        return Err(request.forbidden(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted \
             and then recreated"
        )));
    }
    let tree = pod.to_tree();
    if tree.str_at("spec.nodeName") != node {
        return Err(denied("node requested token bound to a pod scheduled on a different node"));
    }
    let audience = match body.list_at("spec.audiences") {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Err(denied("node may only request 0 or 1 audiences")),
    };
    if wants_audience(request, &tree, audience) {
        return Ok(());
    }
    let verb = "request-serviceaccounts-token-audience";
    match may(request, verb, audience, request.name) {
        true => Ok(()),
        false => {
            let user = &request.user.name;
            Err(request.forbidden(format!("{user} is not authorized to request tokens for audience {audience:?}")))
        }
    }
}

fn may(request: &Request<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let attributes = Attributes {
        group: &request.kind.group,
        resource,
        namespace: request.namespace,
        name,
        ..Attributes::resource(request.user, verb)
    };
    request.cluster.decide(&attributes).allowed
}

/// Whether a pod's volumes name an audience, themselves or through their CSI driver.
fn wants_audience(request: &Request<'_>, pod: &Tree, audience: &str) -> bool {
    let namespace = request.namespace;
    pod.list_at("spec.volumes").iter().any(|volume| {
        let projected = volume.list_at("projected.sources").iter();
        let named = projected.filter_map(|s| s.path("serviceAccountToken")).any(|t| t.str_at("audience") == audience);
        let claim = match volume.path("ephemeral.volumeClaimTemplate") {
            Some(_) => format!("{}-{}", pod.str_at("metadata.name"), volume.str_at("name")),
            None => volume.str_at("persistentVolumeClaim.claimName").to_owned(),
        };
        let of_claim = || {
            let claim = request.find(id::PERSISTENT_VOLUME_CLAIM, namespace, &claim)?.to_tree();
            let bound = request.find(id::PERSISTENT_VOLUME, "", claim.str_at("spec.volumeName"))?.to_tree();
            Some(bound.str_at("spec.csi.driver").to_owned())
        };
        let driver = match volume.str_at("csi.driver") {
            "" if !claim.is_empty() => of_claim().unwrap_or_default(),
            driver => driver.to_owned(),
        };
        let by_driver = || {
            let driver = request.find(id::CSI_DRIVER, "", &driver).map(|d| d.to_tree());
            let requests = driver.as_ref().map(|d| d.list_at("spec.tokenRequests")).unwrap_or_default();
            requests.iter().any(|r| r.str_at("audience") == audience)
        };
        named || (!driver.is_empty() && by_driver())
    })
}

/// A pod's certificate must be for a pod of the node that mounts one of the signer.
fn pod_certificate(request: &Request<'_>, node: &str, object: &Tree) -> Result<(), Status> {
    let denied = |why: String| request.forbidden(why);
    if request.operation != Operation::Create {
        return Err(denied(format!("unexpected operation {}", request.operation.as_str())));
    }
    if !request.subresource.is_empty() {
        return Err(denied(format!("unexpected subresource {}", request.subresource)));
    }
    let spec = object.get("spec").unwrap_or(&Tree::Null);
    let text = |field: &str| spec.str_at(field);
    if text("nodeName") != node {
        let why = "which is not the requesting node";
        return Err(denied(format!("PodCertificateRequest.Spec.NodeName={:?}, {why} {node:?}", text("nodeName"))));
    }
    let shown = format!("{:?}", format!("{}/{}", request.namespace, text("podName")));
    // What may be a matter of moments is no refusal: the agent tries again.
    let inconsistent = |what: String| Status::internal(what);
    let own = find(request, id::NODE, "", node)?;
    if own.head.uid != text("nodeUID") {
        let (claimed, uid) = (text("nodeUID"), &own.head.uid);
        let why = format!("names node UID {claimed:?}, inconsistent with the running node ({:?})", uid.as_str());
        return Err(inconsistent(format!("PodCertificateRequest for pod {shown} {why}")));
    }
    let pod = find(request, id::POD, request.namespace, text("podName"))?;
    if pod.head.uid != text("podUID") {
        let (claimed, uid) = (text("podUID"), &pod.head.uid);
        let why = format!("contains pod UID ({claimed:?}) which differs from running pod {:?}", uid.as_str());
        return Err(inconsistent(format!("PodCertificateRequest for pod {shown} {why}")));
    }
    let tree = pod.to_tree();
    if tree.str_at("spec.nodeName") != node {
        return Err(denied(format!("pod {shown} is not running on node {node:?} named in the PodCertificateRequest")));
    }
    if tree.at(&["metadata", "annotations", MIRROR]).is_some() {
        return Err(denied(format!("pod {shown} is a mirror pod")));
    }
    let (account, running) = (text("serviceAccountName"), tree.str_at("spec.serviceAccountName"));
    if account != running {
        let why = format!("contains serviceAccountName ({account:?}) that differs from running pod ({running:?})");
        return Err(denied(format!("PodCertificateRequest for pod {shown} {why}")));
    }
    let found = find(request, id::SERVICE_ACCOUNT, request.namespace, account)?;
    if found.head.uid != text("serviceAccountUID") {
        let (claimed, uid) = (text("serviceAccountUID"), &found.head.uid);
        let why = format!(
            "names service account UID {claimed:?}, which differs from the running service account ({:?})",
            uid.as_str()
        );
        return Err(inconsistent(format!("PodCertificateRequest for pod {shown} {why}")));
    }
    let signer = text("signerName");
    let sources = tree.list_at("spec.volumes").iter().flat_map(|v| v.list_at("projected.sources"));
    let mounted = sources.into_iter().any(|s| s.str_at("podCertificate.signerName") == signer);
    let verb = "request-serviceaccounts-podcertificate-signer";
    if mounted || may(request, verb, &signer.replace('/', ":"), account) {
        return Ok(());
    }
    Err(denied(format!("pod {shown} does not mount a podCertificate projected volume for signer {signer:?}")))
}

/// A certificate of a node must be for the node that asks.
fn signing_request(node: &str, object: &Tree) -> Result<(), String> {
    const SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
    if !SIGNERS.contains(&object.str_at("spec.signerName")) {
        return Ok(());
    }
    let text = base64::decode(object.str_at("spec.request")).unwrap_or_default();
    let block = pem_blocks(&String::from_utf8_lossy(&text)).into_iter().next();
    let der = block.filter(|b| b.label == "CERTIFICATE REQUEST").map(|b| b.der);
    let parsed = der.ok_or_else(|| "PEM block type must be CERTIFICATE REQUEST".to_owned());
    let parsed = parsed.and_then(|der| CertificateRequest::parse_unverified(&der));
    let request = parsed.map_err(|why| format!("unable to parse csr: {why}"))?;
    match request.common_name == format!("system:node:{node}") {
        true => Ok(()),
        false => Err(format!("can only create a node CSR with CN=system:node:{node}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    #[test]
    fn node_restriction_labels() {
        for (key, may) in [
            ("app", true),
            ("example.com/x", true),
            ("kubernetes.io/hostname", true),
            ("node.kubernetes.io/anything", true),
            ("sub.kubelet.kubernetes.io/x", true),
            ("node-role.kubernetes.io/control-plane", false),
            ("node-restriction.kubernetes.io/x", false),
            ("a.node-restriction.kubernetes.io/x", false),
            ("x.k8s.io/y", false),
            ("notkubernetes.io/y", true),
        ] {
            assert_eq!(agent_may_label(key), may, "{key}");
        }
        let old = tree!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
        let new = tree!({"metadata": {"labels": {"a": "b"}}});
        assert_eq!(forbidden_labels(&new, Some(&old)), "node-role.kubernetes.io/control-plane");
        assert_eq!(forbidden_labels(&old, Some(&old)), "");
    }
}
