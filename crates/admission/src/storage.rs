//! Claims get a class, and claims and volumes stay while they are used.

use corten_kinds::id;
use corten_object::Status;
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
    let defaults = classes.iter().filter(|class| {
        let tree = class.to_tree();
        [DEFAULT_CLASS, DEFAULT_CLASS_BETA]
            .iter()
            .any(|key| tree.at(&["metadata", "annotations", key]).and_then(Tree::as_str) == Some("true"))
    });
    // The newest default; of equally new ones the first by name.
    let newest = defaults.max_by(|a, b| {
        let by_time = a.head.created.cmp(&b.head.created);
        by_time.then_with(|| b.head.name.cmp(&a.head.name))
    });
    if let Some(class) = newest {
        object.set("spec.storageClassName", class.head.name.as_str());
    }
    Ok(())
}
