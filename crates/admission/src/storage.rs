//! Claims and Ingresses get a class, and claims and volumes stay while they are used.

use std::sync::Arc;

use corten_kinds::id;
use corten_kinds::quota::ResourceList;
use corten_object::{Object, Status};
use corten_tree::Tree;

use crate::{Operation, Request};

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_CLASS_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";

/// Adds the protection finalizers (`plugin/pkg/admission/storage/storageobjectinuseprotection/admission.go`).
pub(crate) fn protect(request: &Request<'_>, object: &mut Tree, _old: Option<&Tree>) -> Result<(), Status> {
    let finalizer = match () {
        () if request.operation != Operation::Create => return Ok(()),
        () if request.is(id::PERSISTENT_VOLUME_CLAIM) => "kubernetes.io/pvc-protection",
        () if request.is(id::PERSISTENT_VOLUME) => "kubernetes.io/pv-protection",
        () if request.is(id::VOLUME_ATTRIBUTES_CLASS) => "kubernetes.io/vac-protection",
        () => return Ok(()),
    };
    match object.path_mut("metadata.finalizers").and_then(Tree::as_list_mut) {
        Some(list) if list.iter().any(|f| f.as_str() == Some(finalizer)) => {}
        Some(list) => list.push(finalizer.into()),
        None => object.set("metadata.finalizers", Tree::List(vec![finalizer.into()])),
    }
    Ok(())
}

/// Fills in the default class (`plugin/pkg/admission/storage/storageclass/setdefault/admission.go`).
pub(crate) fn default_class(request: &Request<'_>, object: &mut Tree, _old: Option<&Tree>) -> Result<(), Status> {
    let concerns = request.operation == Operation::Create && request.is(id::PERSISTENT_VOLUME_CLAIM);
    let named = object.path("spec.storageClassName").is_some()
        || object.at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]).is_some();
    if !concerns || named {
        return Ok(());
    }
    let classes = request.cluster.objects(id::STORAGE_CLASS);
    if let Some(class) = newest_default(&classes, &[DEFAULT_CLASS, DEFAULT_CLASS_BETA]) {
        object.set("spec.storageClassName", class.head.name.as_str());
    }
    Ok(())
}

/// Only a bound claim of a class that allows it grows
/// (`plugin/pkg/admission/storage/persistentvolume/resize/admission.go`).
pub(crate) fn resize(request: &Request<'_>, object: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
    let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
    if request.operation != Operation::Update || !request.is(id::PERSISTENT_VOLUME_CLAIM) {
        return Ok(());
    }
    let size = |claim: &Tree| {
        ResourceList::of(claim.map_at("spec.resources.requests")).get("storage").cloned().unwrap_or_default()
    };
    if size(new) <= size(old) {
        return Ok(());
    }
    if old.str_at("status.phase") != "Bound" {
        return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let class = class_of(new);
    let allowed = !class.is_empty()
        && class == class_of(old)
        && request
            .find(id::STORAGE_CLASS, "", class)
            .is_some_and(|class| class.to_tree().bool_at("allowVolumeExpansion"));
    if allowed {
        return Ok(());
    }
    Err(request.forbidden(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    ))
}

/// A claim's class, by the old annotation or the field.
fn class_of(claim: &Tree) -> &str {
    let annotation = claim.at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]);
    annotation.and_then(Tree::as_str).unwrap_or_else(|| claim.str_at("spec.storageClassName"))
}

/// A default among classes: the newest; of equally new ones the first by name.
fn newest_default(classes: &[Arc<Object>], annotations: &[&str]) -> Option<Arc<Object>> {
    let marked = classes.iter().filter(|class| {
        let tree = class.to_tree();
        let is = |key: &&str| tree.at(&["metadata", "annotations", key]).and_then(Tree::as_str) == Some("true");
        annotations.iter().any(is)
    });
    let newest = marked.max_by(|a, b| {
        let by_time = a.head.created.cmp(&b.head.created);
        by_time.then_with(|| b.head.name.cmp(&a.head.name))
    });
    newest.cloned()
}

/// An Ingress without a class gets the default one (`plugin/pkg/admission/network/defaultingressclass/admission.go`).
pub(crate) fn default_ingress_class(
    request: &Request<'_>,
    object: &mut Tree,
    _old: Option<&Tree>,
) -> Result<(), Status> {
    let concerns = request.operation == Operation::Create && request.is(id::INGRESS);
    let named = object.path("spec.ingressClassName").is_some()
        || object.at(&["metadata", "annotations", "kubernetes.io/ingress.class"]).is_some();
    if !concerns || named {
        return Ok(());
    }
    let classes = request.cluster.objects(id::INGRESS_CLASS);
    if let Some(class) = newest_default(&classes, &["ingressclass.kubernetes.io/is-default-class"]) {
        object.set("spec.ingressClassName", class.head.name.as_str());
    }
    Ok(())
}
