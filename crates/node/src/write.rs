//! Writes through the API, in the shapes that the node needs.

use std::sync::Arc;

use corten_client::{Api, DeleteOptions, Failure, PatchKind, Target, Write, WriteOptions, Written};
use corten_object::ObjectKey;
use corten_tree::Tree;

fn options() -> WriteOptions {
    WriteOptions { field_manager: String::from("kubelet"), ..WriteOptions::default() }
}

/// Creates an object.
pub async fn create(api: &Arc<dyn Api>, key: ObjectKey, body: Tree) -> Result<Written, Failure> {
    api.write(Write::Create { target: Target::object(key), body }, options()).await
}

/// Merges a patch (RFC 7386) into an object.
pub async fn merge(api: &Arc<dyn Api>, key: ObjectKey, body: Tree) -> Result<Written, Failure> {
    api.write(Write::Patch { target: Target::object(key), patch: PatchKind::Merge, body }, options()).await
}

/// Merges a patch (RFC 7386) into an object's status.
pub async fn merge_status(api: &Arc<dyn Api>, key: ObjectKey, body: Tree) -> Result<Written, Failure> {
    api.write(Write::Patch { target: Target::status(key), patch: PatchKind::Merge, body }, options()).await
}

/// Deletes the object of this uid at once.
pub async fn delete_now(api: &Arc<dyn Api>, key: ObjectKey, uid: &str) -> Result<Written, Failure> {
    let delete = DeleteOptions { grace_seconds: Some(0), uid: Some(uid.to_owned()), ..DeleteOptions::default() };
    api.write(Write::Delete { key, options: delete }, options()).await
}

/// Acts on a subresource with a body.
pub async fn act(
    api: &Arc<dyn Api>,
    key: ObjectKey,
    subresource: &'static str,
    body: Tree,
) -> Result<Written, Failure> {
    api.write(Write::Create { target: Target { key, subresource }, body }, options()).await
}
