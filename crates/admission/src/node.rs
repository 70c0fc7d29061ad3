//! Nodes: a new one gets no pods before it is ready.

use corten_kinds::id;
use corten_object::Status;
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
