//! What a pod gets from the cluster: priority, tolerations, overhead of its runtime class.

use corten_kinds::id;
use corten_object::{ObjectKey, Status};
use corten_tree::{Tree, tree};

use crate::{Operation, Request};

/// How long pods stay on a node that is gone, in seconds (`--default-not-ready-toleration-seconds`).
const TOLERATION_SECONDS: i64 = 300;

fn creates_pod(request: &Request<'_>) -> bool {
    request.operation == Operation::Create && request.is(id::POD)
}

/// Resolves the priority class into a number (`plugin/pkg/admission/priority/admission.go`).
pub(crate) fn priority(request: &Request<'_>, object: &mut Tree, old: Option<&Tree>) -> Result<(), Status> {
    if request.is(id::POD) && request.operation == Operation::Update {
        for key in ["spec.priority", "spec.preemptionPolicy"] {
            let kept = old.and_then(|o| o.path(key)).cloned();
            if let Some(kept) = kept.filter(|_| object.path(key).is_none()) {
                object.set(key, kept);
            }
        }
    }
    if !creates_pod(request) {
        return Ok(());
    }
    let name = object.str_at("spec.priorityClassName").to_owned();
    let class = if name.is_empty() {
        default_priority_class(request)
    } else {
        let key = ObjectKey::new(id::PRIORITY_CLASS, "", &name);
        let found = request.cluster.object(&key).map(|o| o.to_tree());
        Some(found.ok_or_else(|| request.forbidden(format!("no PriorityClass with name {name} was found")))?)
    };
    let (value, policy) = match &class {
        None => (0, "PreemptLowerPriority".to_owned()),
        Some(class) => {
            if name.is_empty() {
                object.set("spec.priorityClassName", class.str_at("metadata.name"));
            }
            let policy = class.str_at("preemptionPolicy");
            let policy = if policy.is_empty() { "PreemptLowerPriority" } else { policy };
            (class.i64_at("value").unwrap_or(0), policy.to_owned())
        }
    };
    if object.i64_at("spec.priority").is_some_and(|p| p != value) {
        let given = object.i64_at("spec.priority").unwrap_or(0);
        return Err(request.forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed \
             {value} from the given PriorityClass name"
        )));
    }
    object.set("spec.priority", value);
    let given = object.str_at("spec.preemptionPolicy").to_owned();
    if !given.is_empty() && given != policy {
        return Err(request.forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller \
             computed {policy} from the given PriorityClass name"
        )));
    }
    object.set("spec.preemptionPolicy", policy);
    Ok(())
}

/// The class that is marked as the default; the lowest of several.
fn default_priority_class(request: &Request<'_>) -> Option<Tree> {
    let classes = request.cluster.objects(id::PRIORITY_CLASS);
    let trees = classes.iter().map(|c| c.to_tree()).filter(|c| c.bool_at("globalDefault"));
    trees.min_by_key(|c| c.i64_at("value"))
}

/// Pods tolerate a lost node for a while (`plugin/pkg/admission/defaulttolerationseconds/admission.go`).
pub(crate) fn default_tolerations(request: &Request<'_>, object: &mut Tree, _old: Option<&Tree>) -> Result<(), Status> {
    if !request.is(id::POD) || !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = object.list_at("spec.tolerations").iter().any(|t| {
            let (k, effect) = (t.str_at("key"), t.str_at("effect"));
            (k == key || k.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            let toleration = tree!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS});
            match object.path_mut("spec.tolerations").and_then(Tree::as_list_mut) {
                Some(list) => list.push(toleration),
                None => object.set("spec.tolerations", Tree::List(vec![toleration])),
            }
        }
    }
    Ok(())
}

/// Adds the overhead and the scheduling of a runtime class (`plugin/pkg/admission/runtimeclass/admission.go`).
pub(crate) fn runtime_class(request: &Request<'_>, object: &mut Tree, _old: Option<&Tree>) -> Result<(), Status> {
    if !creates_pod(request) {
        return Ok(());
    }
    let name = object.str_at("spec.runtimeClassName").to_owned();
    if name.is_empty() {
        if !object.map_at("spec.overhead").is_empty() {
            return Err(
                request.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
            );
        }
        return Ok(());
    }
    let key = ObjectKey::new(id::RUNTIME_CLASS, "", &name);
    let class = request.cluster.object(&key);
    let class = class.ok_or_else(|| request.forbidden(format!("pod rejected: RuntimeClass {name:?} not found")))?;
    let class = class.to_tree();
    if let Some(overhead) = class.path("overhead.podFixed") {
        object.set("spec.overhead", overhead.clone());
    }
    for (key, value) in class.map_at("scheduling.nodeSelector").iter() {
        let selector = object.make_map_at("spec.nodeSelector");
        match selector.get(key) {
            Some(own) if own != value => {
                let why = "pod rejected: conflict: cannot merge scheduling terms of the pod and its RuntimeClass";
                return Err(request.forbidden(why));
            }
            _ => {
                selector.insert(key.to_owned(), value.clone());
            }
        }
    }
    for toleration in class.list_at("scheduling.tolerations") {
        match object.path_mut("spec.tolerations").and_then(Tree::as_list_mut) {
            Some(list) if list.contains(toleration) => {}
            Some(list) => list.push(toleration.clone()),
            None => object.set("spec.tolerations", Tree::List(vec![toleration.clone()])),
        }
    }
    Ok(())
}
