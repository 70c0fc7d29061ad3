//! Nodes: a new one gets no pods before it is ready, and an agent changes its own only.

use corten_kinds::id;
use corten_object::{ObjectKey, Status};
use corten_tree::{Tree, tree};

use crate::{Operation, Request};

/// A new node is tainted until the node lifecycle controller has seen it ready
/// (`plugin/pkg/admission/nodetaint/admission.go`).
pub(crate) fn taint(request: &Request<'_>, object: &mut Tree, _old: Option<&Tree>) -> Result<(), Status> {
    const KEY: &str = "node.kubernetes.io/not-ready";
    if request.operation != Operation::Create || !request.is(id::NODE) {
        return Ok(());
    }
    let there = object.list_at("spec.taints").iter().any(|t| t.str_at("key") == KEY);
    if !there {
        let taint = tree!({"key": KEY, "effect": "NoSchedule"});
        match object.path_mut("spec.taints").and_then(Tree::as_list_mut) {
            Some(list) => list.push(taint),
            None => object.set("spec.taints", Tree::List(vec![taint])),
        }
    }
    Ok(())
}

/// What an agent may write: its node, and pods on it (`plugin/pkg/admission/noderestriction/admission.go`, its main rules).
pub(crate) fn restrict(request: &Request<'_>, object: &mut Tree, old: Option<&Tree>) -> Result<(), Status> {
    let Some(node) = request.user.node_name() else { return Ok(()) };
    let denied = |why: String| Err(request.forbidden(why));
    if request.kind.id == id::NODE && request.name != node {
        return denied(format!("node {node:?} is not allowed to modify node {:?}", request.name));
    }
    if request.kind.id == id::POD {
        let on = old.map_or_else(|| object.str_at("spec.nodeName"), |o| o.str_at("spec.nodeName"));
        let (sub, operation) = (request.subresource, request.operation);
        if sub.is_empty()
            && operation == Operation::Create
            && object.at(&["metadata", "annotations", "kubernetes.io/config.mirror"]).is_none()
        {
            return denied(format!(
                "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
            ));
        }
        if on != node && matches!(operation, Operation::Create | Operation::Update) && matches!(sub, "" | "status") {
            return denied(format!(
                "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
            ));
        }
    }
    if request.kind.id == id::SERVICE_ACCOUNT && request.subresource == "token" {
        let bound = object.str_at("spec.boundObjectRef.name").to_owned();
        let pod = request.cluster.object(&ObjectKey::new(id::POD, request.namespace, &bound));
        let on = pod.map(|p| p.to_tree().str_at("spec.nodeName").to_owned());
        if on.as_deref() != Some(node) {
            return denied(format!("node requested token bound to a pod scheduled on a different node than {node:?}"));
        }
    }
    Ok(())
}

/// An agent deletes pods on its own node only.
pub(crate) fn restrict_delete(request: &Request<'_>, _object: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
    let (Some(node), Operation::Delete) = (request.user.node_name(), request.operation) else { return Ok(()) };
    if request.kind.id == id::POD && old.is_some_and(|o| o.str_at("spec.nodeName") != node) {
        let why = format!("node {node:?} can only delete pods with spec.nodeName set to itself");
        return Err(request.forbidden(why));
    }
    if request.kind.id == id::NODE {
        return Err(request.forbidden(format!("node {node:?} is not allowed to delete node {:?}", request.name)));
    }
    Ok(())
}
