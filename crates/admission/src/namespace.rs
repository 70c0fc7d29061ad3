//! Nothing is made in a namespace that is not there or is going
//! (`apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go`).

use corten_kinds::id;
use corten_object::{Cause, ObjectKey, Status};
use corten_tree::Tree;

use crate::{Operation, Request};

/// Namespaces that cannot be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// Writes need a namespace, creates one that is not going.
pub(crate) fn lifecycle(request: &Request<'_>, _object: &mut Tree, _old: Option<&Tree>) -> Result<(), Status> {
    let concerns = matches!(request.operation, Operation::Create | Operation::Update);
    if !concerns || request.namespace.is_empty() || request.kind.id == id::NAMESPACE {
        return Ok(());
    }
    // Access reviews about a namespace do not need it.
    if request.kind.group.starts_with("authorization.") || request.kind.group.starts_with("authentication.") {
        return Ok(());
    }
    let key = ObjectKey::new(id::NAMESPACE, "", request.namespace);
    let namespace =
        request.cluster.object(&key).ok_or_else(|| Status::not_found("", "namespaces", request.namespace))?;
    if request.operation != Operation::Create || !namespace.head.is_deleting() {
        return Ok(());
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
pub(crate) fn immortal(request: &Request<'_>, _object: Option<&Tree>, _old: Option<&Tree>) -> Result<(), Status> {
    if request.operation == Operation::Delete && request.is(id::NAMESPACE) && IMMORTAL.contains(&request.name) {
        return Err(request.forbidden("this namespace may not be deleted"));
    }
    Ok(())
}
