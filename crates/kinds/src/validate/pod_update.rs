//! What may change in a pod: by update, through `ephemeralcontainers`, through `resize`, in its status.

use corten_tree::Tree;

use super::pod::MIRROR;
use super::{Spot, names, pod, profiles};
use crate::{Errors, difference};

/// Takes a field's value from another tree: what was there, or nothing.
fn restore(into: &mut Tree, from: &Tree, field: &str) {
    match from.path(field) {
        Some(value) => into.set(field, value.clone()),
        None => drop(into.remove(field)),
    }
}

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// `ValidatePodUpdate`, besides what holds of any pod.
pub(crate) fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let (spec, before) = (Spot::of(new, "spec"), Spot::of(old, "spec"));
    annotations(new, old, errors);
    for list in ["containers", "initContainers"] {
        if spec.list(list).len() != before.list(list).len() {
            spec.forbidden(list, "pod updates may not add or remove containers", errors);
            return;
        }
        for container in spec.items(list) {
            super::container::validate_image_text(&container, errors);
        }
    }
    if !deadline(&spec, &before, errors) {
        return;
    }
    only_added_tolerations(&spec, &before, errors);
    only_deleted_gates(&spec, &before, errors);
    if spec.tree.semantically_equal(before.tree) {
        return;
    }
    let mut munged = spec.tree.clone();
    for list in ["containers", "initContainers"] {
        if let Some(Tree::List(containers)) = munged.path_mut(list) {
            for (container, old) in containers.iter_mut().zip(before.list(list)) {
                restore(container, old, "image");
            }
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        restore(&mut munged, before.tree, field);
    }
    if before.int("terminationGracePeriodSeconds").is_some_and(|s| s < 0)
        && munged.i64_at("terminationGracePeriodSeconds") == Some(1)
    {
        restore(&mut munged, before.tree, "terminationGracePeriodSeconds");
    }
    if !before.list("schedulingGates").is_empty() {
        gated(&mut munged, &spec, &before, errors);
    }
    if !munged.semantically_equal(before.tree) {
        let detail = format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            difference::between("core.v1.PodSpec", before.tree, &munged)
        );
        spec.forbidden("", detail, errors);
    }
}

/// A gated pod may narrow where it runs. (`validateNodeSelectorMutation`, `validateNodeAffinityMutation`)
fn gated(munged: &mut Tree, spec: &Spot<'_>, before: &Spot<'_>, errors: &mut Errors) {
    let kept = before.map("nodeSelector").iter().all(|(k, v)| spec.map("nodeSelector").get(k) == Some(v));
    if !kept {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        spec.invalid("nodeSelector", detail, errors);
    }
    restore(munged, before.tree, "nodeSelector");
    const TERMS: &str = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let (now, was) = (spec.items(TERMS), before.list(TERMS));
    if !was.is_empty() && now.len() != was.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        spec.invalid(TERMS, detail, errors);
    } else {
        for (term, old) in now.iter().zip(was) {
            if !only_additions(term.tree, old) {
                term.invalid("", "only additions are allowed (no mutations or deletions)", errors);
            }
        }
    }
    if !before.has("affinity")
        && munged.path("affinity").is_some_and(|a| a.fields().keys().all(|k| k == "nodeAffinity"))
    {
        munged.remove("affinity");
    } else {
        restore(munged, before.tree, "affinity.nodeAffinity");
    }
}

/// `validateNodeSelectorTermHasOnlyAdditions`
fn only_additions(new: &Tree, old: &Tree) -> bool {
    let lists = ["matchExpressions", "matchFields"];
    if lists.iter().all(|list| old.list_at(list).is_empty()) {
        return lists.iter().all(|list| new.list_at(list).is_empty());
    }
    lists.iter().all(|list| {
        let (new, old) = (new.list_at(list), old.list_at(list));
        new.len() >= old.len() && new.iter().zip(old).all(|(new, old)| new.semantically_equal(old))
    })
}

/// `ValidatePodSpecificAnnotationUpdates`, besides what holds of the new annotations alone.
pub(crate) fn annotations(new: &Tree, old: &Tree, errors: &mut Errors) {
    let (new, old) = (Spot::of(new, "metadata.annotations"), Spot::of(old, "metadata.annotations"));
    let kept = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        key if key.starts_with(profiles::APP_ARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    let at = |key: &str| Spot::at(new.tree, new.path.key(key));
    for (key, _) in old.map("").iter().filter(|(key, before)| new.map("").get(key) != Some(before)) {
        if let Some(what) = kept(key) {
            at(key).forbidden("", format!("may not remove or update {what}"), errors);
        }
    }
    for key in new.map("").keys().filter(|key| !old.map("").contains(key)) {
        if let Some(what) = kept(key) {
            at(key).forbidden("", format!("may not add {what}"), errors);
        }
    }
}

/// Checks a change of `activeDeadlineSeconds`; false if upstream stops here.
fn deadline(spec: &Spot<'_>, before: &Spot<'_>, errors: &mut Errors) -> bool {
    const FIELD: &str = "activeDeadlineSeconds";
    match (spec.int(FIELD), before.int(FIELD)) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            spec.invalid(FIELD, names::range(0, i64::from(i32::MAX)), errors);
            false
        }
        (Some(new), Some(old)) if old < new => {
            spec.invalid(FIELD, "must be less than or equal to previous value", errors);
            false
        }
        (None, Some(_)) => {
            spec.invalid(FIELD, "must not update from a positive integer to nil value", errors);
            true
        }
        _ => true,
    }
}

fn only_added_tolerations(spec: &Spot<'_>, before: &Spot<'_>, errors: &mut Errors) {
    let without_seconds = |toleration: &Tree| {
        let mut toleration = toleration.clone();
        toleration.remove("tolerationSeconds");
        toleration
    };
    let new: Vec<Tree> = spec.list("tolerations").iter().map(without_seconds).collect();
    if !before.list("tolerations").iter().all(|old| new.contains(&without_seconds(old))) {
        spec.forbidden("tolerations", "existing toleration can not be modified except its tolerationSeconds", errors);
    }
}

fn only_deleted_gates(spec: &Spot<'_>, before: &Spot<'_>, errors: &mut Errors) {
    for gate in spec.items("schedulingGates") {
        let name = gate.str("name");
        if !before.list("schedulingGates").iter().any(|old| old.str_at("name") == name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            gate.forbidden("name", detail, errors);
        }
    }
}

/// `ValidatePodEphemeralContainersUpdate`
pub(crate) fn validate_ephemeral_containers(new: &Tree, old: &Tree, errors: &mut Errors) {
    pod::validate(new, errors);
    if old.map_at("metadata.annotations").contains(MIRROR) {
        errors.clear();
        Spot::of(new, "").forbidden("", "static pods do not support ephemeral containers", errors);
        return;
    }
    let spec = Spot::of(new, "spec");
    for before in old.list_at("spec.ephemeralContainers") {
        let name = before.str_at("name");
        match spec.list("ephemeralContainers").iter().find(|c| c.str_at("name") == name) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                spec.forbidden("ephemeralContainers", detail, errors);
            }
            Some(after) if !after.semantically_equal(before) => {
                let text = difference::between("core.v1.EphemeralContainer", before, after);
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n{text}");
                spec.forbidden("ephemeralContainers", detail, errors);
            }
            Some(_) => {}
        }
    }
}

/// `ValidatePodResize`: cpu and memory of containers and of the pod, without a change of QoS class.
pub(crate) fn validate_resize(new: &Tree, old: &Tree, errors: &mut Errors) {
    pod::validate(new, errors);
    let refused = if old.map_at("metadata.annotations").contains(MIRROR) {
        "static pods cannot be resized"
    } else if old.str_at("spec.os.name") == "windows" {
        "windows pods cannot be resized"
    } else {
        ""
    };
    if !refused.is_empty() {
        errors.clear();
        Spot::of(new, "").forbidden("", refused, errors);
        return;
    }
    let (spec, before) = (Spot::of(new, "spec"), Spot::of(old, "spec"));
    let class = match old.str_at("status.qosClass") {
        "" => crate::qos::qos_class(old),
        class => class,
    };
    if class != crate::qos::qos_class(new) {
        let shown = new.str_at("status.qosClass");
        spec.invalid_as("", shown, "Pod QOS Class may not change as a result of resizing", errors);
    }
    let running = old.list_at("status.containerStatuses").iter().find(|c| c.path("state.running").is_some());
    if running.is_some_and(|c| c.path("resources").is_none()) {
        spec.forbidden("", "Pod running on node without support for resize", errors);
    }
    let mut munged = spec.tree.clone();
    if !pod_level_resize(&spec, &before, &mut munged, errors) || !same_containers(&spec, &before, errors) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (container, old) in spec.items(list).iter().zip(before.list(list)) {
            removed(container, old, ("resource requests", "resource limits"), errors);
        }
    }
    for list in ["containers", "initContainers"] {
        let Some(Tree::List(containers)) = munged.path_mut(list) else { continue };
        for ((container, old), at) in containers.iter_mut().zip(before.list(list)).zip(spec.items(list)) {
            restore_compute(container, old);
            if container.semantically_equal(old) {
                continue;
            }
            if list == "containers" {
                spec.forbidden("", "only cpu and memory resources are mutable", errors);
            } else {
                at.forbidden("", "only cpu and memory resources for init or sidecar containers are mutable", errors);
            }
        }
    }
    if errors.is_empty() && !munged.semantically_equal(before.tree) {
        spec.forbidden("", "only cpu and memory resources are mutable", errors);
    }
}

/// `resourcesRemoved`, of requests and of limits.
fn removed(container: &Spot<'_>, old: &Tree, (requests, limits): (&str, &str), errors: &mut Errors) {
    for (part, what) in [("resources.requests", requests), ("resources.limits", limits)] {
        if old.map_at(part).keys().any(|name| !container.map(part).contains(name)) {
            container.forbidden(part, format!("{what} cannot be removed"), errors);
        }
    }
}

/// Checks a change of the pod's own resources; false if upstream stops here. (`validatePodLevelResourcesResize`)
fn pod_level_resize(spec: &Spot<'_>, before: &Spot<'_>, munged: &mut Tree, errors: &mut Errors) -> bool {
    if !spec.has("resources") && !before.has("resources") {
        return true;
    }
    if before.has("resources") && !spec.has("resources") {
        spec.forbidden("resources", "pod-level resources cannot be removed", errors);
        return true;
    }
    removed(spec, before.tree, ("pod-level resource requests", "pod-level resource limits"), errors);
    restore_compute(munged, before.tree);
    let empty = |tree: &Tree| {
        ["requests", "limits", "claims"].iter().all(|field| tree.path(field).is_none_or(Tree::is_empty_value))
    };
    if !before.has("resources") && munged.path("resources").is_some_and(empty) {
        munged.remove("resources");
    }
    let (now, was) = (munged.path("resources"), before.tree.path("resources"));
    let same = match (now, was) {
        (Some(now), Some(was)) => now.semantically_equal(was),
        (now, was) => now.is_none() && was.is_none(),
    };
    if !same {
        spec.forbidden("", "only cpu and memory resources are mutable at pod-level", errors);
    }
    true
}

/// `validatePodResizeContainerOrdering`
fn same_containers(spec: &Spot<'_>, before: &Spot<'_>, errors: &mut Errors) -> bool {
    let found = errors.len();
    for list in ["containers", "initContainers"] {
        if spec.list(list).len() != before.list(list).len() {
            spec.forbidden(list, format!("{list} may not be added or removed on resize"), errors);
            continue;
        }
        for (container, old) in spec.items(list).iter().zip(before.list(list)) {
            if container.str("name") != old.str_at("name") {
                container.forbidden("name", format!("{list} may not be renamed or reordered on resize"), errors);
            }
        }
    }
    errors.len() == found
}

/// Takes cpu and memory of `resources` from the old container (or pod).
fn restore_compute(container: &mut Tree, old: &Tree) {
    for part in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            restore(container, old, &format!("resources.{part}.{name}"));
        }
    }
}
