//! What a pod gets from its runtime class: overhead and scheduling (`plugin/pkg/admission/runtimeclass/admission.go`).

use std::sync::Arc;

use corten_kinds::id;
use corten_kinds::quota::ResourceList;
use corten_object::{Object, Status};
use corten_tree::Tree;

use crate::{Operation, Request};

/// The pod's class; the 403 if there is no such one.
fn class_of(request: &Request<'_>, pod: &Tree) -> Result<Option<Arc<Object>>, Status> {
    let name = pod.str_at("spec.runtimeClassName");
    if name.is_empty() {
        return Ok(None);
    }
    let found = request.find(id::RUNTIME_CLASS, "", name);
    found.map(Some).ok_or_else(|| request.forbidden(format!("pod rejected: RuntimeClass {name:?} not found")))
}

fn concerns(request: &Request<'_>) -> bool {
    request.operation == Operation::Create && request.is(id::POD)
}

/// Adds the class's overhead, node selector and tolerations.
pub(crate) fn mutate(request: &Request<'_>, pod: &mut Tree, _old: Option<&Tree>) -> Result<(), Status> {
    if !concerns(request) {
        return Ok(());
    }
    let Some(class) = class_of(request, pod)? else { return Ok(()) };
    let class = class.to_tree();
    if let Some(overhead) = class.path("overhead.podFixed") {
        let given = ResourceList::of(pod.map_at("spec.overhead"));
        if !given.is_empty() && given != ResourceList::of(overhead.fields()) {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(request.forbidden(why));
        }
        pod.set("spec.overhead", overhead.clone());
    }
    for (key, value) in class.map_at("scheduling.nodeSelector").iter() {
        let wanted = value.as_str().unwrap_or_default();
        let selector = pod.make_map_at("spec.nodeSelector");
        match selector.get(key).and_then(Tree::as_str) {
            Some(own) if own != wanted => {
                return Err(request.forbidden(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
                )));
            }
            _ => {
                selector.insert(key.to_owned(), wanted);
            }
        }
    }
    let more = class.list_at("scheduling.tolerations");
    if !more.is_empty() {
        let merged = merge(pod.list_at("spec.tolerations"), more);
        pod.set("spec.tolerations", Tree::List(merged));
    }
    Ok(())
}

/// The overhead must be the class's after all other plugins, too.
pub(crate) fn validate(request: &Request<'_>, pod: Option<&Tree>, _old: Option<&Tree>) -> Result<(), Status> {
    let Some(pod) = pod.filter(|_| concerns(request)) else { return Ok(()) };
    let class = class_of(request, pod)?.map(|class| class.to_tree());
    let given = pod.path("spec.overhead");
    match class.as_ref().and_then(|class| class.path("overhead.podFixed")) {
        Some(overhead) => {
            let given = ResourceList::of(given.unwrap_or(&Tree::Null).fields());
            if given != ResourceList::of(overhead.fields()) {
                let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
                return Err(request.forbidden(why));
            }
            Ok(())
        }
        None if given.is_some() => {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            Err(request.forbidden(why))
        }
        None => Ok(()),
    }
}

/// Both lists, without what another toleration covers (`MergeTolerations` in `pkg/util/tolerations/tolerations.go`).
fn merge(first: &[Tree], second: &[Tree]) -> Vec<Tree> {
    let all: Vec<&Tree> = first.iter().chain(second).collect();
    let mut merged: Vec<Tree> = Vec::new();
    'next: for (i, toleration) in all.iter().enumerate() {
        for kept in &merged {
            if covers(kept, toleration) {
                continue 'next;
            }
        }
        // Of equals the first stays; a later one that covers more takes this one's place.
        if all[i + 1..].iter().any(|later| covers(later, toleration) && !later.semantically_equal(toleration)) {
            continue;
        }
        merged.push((*toleration).clone());
    }
    merged
}

/// Whether everything that `other` tolerates is tolerated by `toleration` (`isSuperset`).
fn covers(toleration: &Tree, other: &Tree) -> bool {
    if toleration.semantically_equal(other) {
        return true;
    }
    let text = |tree: &'_ Tree, key: &str| tree.str_at(key).to_owned();
    let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
    let exists = operator == "Exists";
    if key != other.str_at("key") && !(key.is_empty() && exists) {
        return false;
    }
    let effect = text(toleration, "effect");
    if !effect.is_empty() && effect != other.str_at("effect") {
        return false;
    }
    if effect == "NoExecute"
        && let Some(seconds) = toleration.i64_at("tolerationSeconds")
        && other.i64_at("tolerationSeconds").is_none_or(|own| own > seconds)
    {
        return false;
    }
    match operator.as_str() {
        "Exists" => true,
        "Equal" | "" => {
            matches!(other.str_at("operator"), "Equal" | "") && toleration.str_at("value") == other.str_at("value")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use corten_tree::tree;

    use super::*;

    #[test]
    fn runtime_class_tolerations_are_merged_without_what_is_covered() {
        let own = [tree!({"key": "a", "operator": "Exists", "effect": "NoSchedule"})];
        let more = [
            tree!({"key": "a", "operator": "Exists", "effect": "NoSchedule"}),
            tree!({"key": "b", "operator": "Equal", "value": "1"}),
        ];
        assert_eq!(merge(&own, &more).len(), 2);
        let all = [tree!({"operator": "Exists"})];
        assert_eq!(merge(&own, &all), all.to_vec(), "one that covers all takes the place of the others");
    }
}
