//! Nothing is made in a namespace that is not there or is going
//! (`apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go`).

use corten_kinds::id;
use corten_object::{Cause, ObjectKey, Status};
use corten_tree::Tree;

use crate::{Operation, Request};

/// Namespaces that cannot be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// Creates need a living namespace.
pub(crate) fn lifecycle(request: &Request<'_>, _object: &mut Tree, _old: Option<&Tree>) -> Result<Vec<String>, Status> {
    if request.operation != Operation::Create || request.namespace.is_empty() {
        return Ok(Vec::new());
    }
    // Access reviews about a namespace do not need it.
    if request.kind.group.starts_with("authorization.") || request.kind.group.starts_with("authentication.") {
        return Ok(Vec::new());
    }
    let key = ObjectKey::new(id::NAMESPACE, "", request.namespace);
    let namespace =
        request.source.object(&key).ok_or_else(|| Status::not_found("", "namespaces", request.namespace))?;
    if !namespace.head.is_deleting() {
        return Ok(Vec::new());
    }
    let why = format!("unable to create new content in namespace {} because it is being terminated", request.namespace);
    let mut status = request.forbidden(why);
    status.causes.push(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {} is being terminated", request.namespace),
        field: "metadata.namespace".into(),
    });
    Err(status)
}

/// The namespaces that everything stands on stay.
pub(crate) fn immortal(
    request: &Request<'_>,
    _object: Option<&Tree>,
    _old: Option<&Tree>,
) -> Result<Vec<String>, Status> {
    if request.operation == Operation::Delete && request.is(id::NAMESPACE) && IMMORTAL.contains(&request.name) {
        return Err(request.forbidden("this namespace may not be deleted"));
    }
    Ok(Vec::new())
}
