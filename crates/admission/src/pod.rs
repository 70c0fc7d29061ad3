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

/// There is one default priority class (`validatePriorityClass`).
pub(crate) fn one_default_priority(
    request: &Request<'_>,
    object: Option<&Tree>,
    _old: Option<&Tree>,
) -> Result<(), Status> {
    let Some(class) = object.filter(|_| request.writes() && request.is(id::PRIORITY_CLASS)) else { return Ok(()) };
    if !class.bool_at("globalDefault") {
        return Ok(());
    }
    let Some(default) = default_priority_class(request) else { return Ok(()) };
    let name = default.str_at("metadata.name");
    if request.operation == Operation::Update && name == class.str_at("metadata.name") {
        return Ok(());
    }
    let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
    Err(request.forbidden(why))
}

/// Copies the node's zone and region to the pod that is put on it, through the Binding or directly
/// (`plugin/pkg/admission/podtopologylabels/admission.go`).
pub(crate) fn topology_labels(request: &Request<'_>, object: &mut Tree, _old: Option<&Tree>) -> Result<(), Status> {
    const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];
    if request.operation != Operation::Create {
        return Ok(());
    }
    let binding = request.subresource == "binding" || request.is(id::BINDING);
    let node = match binding {
        true if object.str_at("target.kind") == "Node" => object.str_at("target.name"),
        false if request.is(id::POD) => object.str_at("spec.nodeName"),
        _ => "",
    };
    let Some(node) = Some(node).filter(|n| !n.is_empty()).and_then(|n| request.find(id::NODE, "", n)) else {
        return Ok(());
    };
    for label in LABELS {
        if let Some(value) = node.head.labels.get(label) {
            object.make_map_at("metadata.labels").insert(label, value);
        }
    }
    Ok(())
}
