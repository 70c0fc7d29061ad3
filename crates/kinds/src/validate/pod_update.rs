//! What may change in a pod: by update, through `ephemeralcontainers`, through `resize`, in its status.

use corten_tree::Tree;

use super::pod::MIRROR;
use super::{Spot, names, pod};
use crate::Errors;

/// Takes a field's value from another tree: what was there, or nothing.
fn restore(into: &mut Tree, from: &Tree, field: &str) {
    match from.path(field) {
        Some(value) => into.set(field, value.clone()),
        None => drop(into.remove(field)),
    }
}

/// What differs between two trees, one `path: old -> new` per line.
pub(crate) fn difference(old: &Tree, new: &Tree) -> String {
    let mut lines = Vec::new();
    collect(old, new, String::new(), &mut lines);
    lines.join("\n")
}

fn collect(old: &Tree, new: &Tree, path: String, lines: &mut Vec<String>) {
    if old.semantically_equal(new) {
        return;
    }
    let null = Tree::Null;
    match (old, new) {
        (Tree::Map(a), Tree::Map(b)) => {
            for (key, value) in a.iter() {
                collect(value, b.get(key).unwrap_or(&null), format!("{path}.{key}"), lines);
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains(key)) {
                collect(&null, value, format!("{path}.{key}"), lines);
            }
        }
        (Tree::List(a), Tree::List(b)) if a.len() == b.len() => {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                collect(x, y, format!("{path}[{i}]"), lines);
            }
        }
        _ => lines.push(format!("  {}: {} -> {}", path.trim_start_matches('.'), old, new)),
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
        let detail =
            format!("pod updates may not change fields other than {UPDATABLE}\n{}", difference(before.tree, &munged));
        spec.forbidden("", detail, errors);
    }
}

/// A gated pod may narrow where it runs.
fn gated(munged: &mut Tree, spec: &Spot<'_>, before: &Spot<'_>, errors: &mut Errors) {
    let kept = before.map("nodeSelector").iter().all(|(k, v)| spec.map("nodeSelector").get(k) == Some(v));
    if !kept {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        spec.invalid("nodeSelector", detail, errors);
    }
    restore(munged, before.tree, "nodeSelector");
    restore(munged, before.tree, "affinity.nodeAffinity");
}

fn annotations(new: &Tree, old: &Tree, errors: &mut Errors) {
    let (new, old) = (Spot::of(new, "metadata.annotations"), Spot::of(old, "metadata.annotations"));
    let at = |key: &str| Spot::at(new.tree, new.path.key(key));
    match (old.map("").get(MIRROR), new.map("").get(MIRROR)) {
        (Some(before), after) if after != Some(before) => {
            at(MIRROR).forbidden("", "may not remove or update mirror pod annotation", errors);
        }
        (None, Some(_)) => at(MIRROR).forbidden("", "may not add mirror pod annotation", errors),
        _ => {}
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
                let detail =
                    format!("existing ephemeral containers {name:?} may not be changed\n{}", difference(before, after));
                spec.forbidden("ephemeralContainers", detail, errors);
            }
            Some(_) => {}
        }
    }
}

/// `ValidatePodResize`: cpu and memory of containers and of the pod, without a change of QoS class.
pub(crate) fn validate_resize(new: &Tree, old: &Tree, errors: &mut Errors) {
    pod::validate(new, errors);
    if old.map_at("metadata.annotations").contains(MIRROR) {
        errors.clear();
        Spot::of(new, "").forbidden("", "static pods cannot be resized", errors);
        return;
    }
    let (spec, before) = (Spot::of(new, "spec"), Spot::of(old, "spec"));
    let class = old.str_at("status.qosClass");
    if !class.is_empty() && class != crate::qos::qos_class(new) {
        spec.invalid_as("", class, "Pod QOS Class may not change as a result of resizing", errors);
    }
    let mut munged = spec.tree.clone();
    for list in ["initContainers", "containers"] {
        if spec.list(list).len() != before.list(list).len() {
            spec.forbidden(list, format!("{list} may not be added or removed on resize"), errors);
            return;
        }
        for (container, old) in spec.items(list).iter().zip(before.list(list)) {
            for (part, detail) in
                [("requests", "resource requests cannot be removed"), ("limits", "resource limits cannot be removed")]
            {
                let path = format!("resources.{part}");
                if old.map_at(&path).keys().any(|name| !container.map(&path).contains(name)) {
                    container.forbidden(&path, detail, errors);
                }
            }
        }
        if let Some(Tree::List(containers)) = munged.path_mut(list) {
            for (container, old) in containers.iter_mut().zip(before.list(list)) {
                restore_compute(container, old);
            }
        }
    }
    restore_compute(&mut munged, before.tree);
    if errors.is_empty() && !munged.semantically_equal(before.tree) {
        spec.forbidden("", "only cpu and memory resources are mutable", errors);
    }
}

/// Takes cpu and memory of `resources` from the old container (or pod).
fn restore_compute(container: &mut Tree, old: &Tree) {
    for part in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            restore(container, old, &format!("resources.{part}.{name}"));
        }
    }
}

/// `ValidatePodStatusUpdate`: addresses agree, terminated containers stay so, the node is fixed.
pub(crate) fn validate_status(new: &Tree, old: &Tree, errors: &mut Errors) {
    let status = Spot::of(new, "status");
    let nominated = status.str("nominatedNodeName");
    if !nominated.is_empty() {
        status.each("nominatedNodeName", names::dns_subdomain(nominated), errors);
    }
    if new.str_at("spec.nodeName") != old.str_at("spec.nodeName") {
        Spot::of(new, "spec").forbidden("nodeName", "may not be changed directly", errors);
    }
    for ip in status.items("podIPs") {
        // Upstream leaves the field `ip` out of the path.
        for message in names::ip(ip.str("ip")) {
            ip.invalid_as("", ip.str("ip"), message, errors);
        }
    }
    let (ip, ips) = (status.str("podIP"), status.list("podIPs"));
    if ip.is_empty() != ips.is_empty() {
        status.invalid("podIPs", "podIP and podIPs must either both be set or both be unset", errors);
    } else if ips.first().is_some_and(|first| first.str_at("ip") != ip) {
        status.items("podIPs")[0].invalid("ip", "must be equal to `podIP`", errors);
    }
    let restart = new.str_at("spec.restartPolicy");
    for (list, containers) in
        [("containerStatuses", "spec.containers"), ("initContainerStatuses", "spec.initContainers")]
    {
        transitions(&status, old, list, (containers, restart), errors);
    }
}

/// A container that is over stays over, unless its restart policy starts it again.
fn transitions(status: &Spot<'_>, old: &Tree, list: &str, (containers, restart): (&str, &str), errors: &mut Errors) {
    let place = status.child(list);
    for (i, before) in old.list_at(&format!("status.{list}")).iter().enumerate() {
        let Some(terminated) = before.path("state.terminated") else { continue };
        let name = before.str_at("name");
        let Some(after) = place.list("").iter().find(|s| s.str_at("name") == name) else { continue };
        if after.path("state.terminated").is_some() {
            continue;
        }
        let container = old.list_at(containers).iter().find(|c| c.str_at("name") == name);
        let own = container.map_or("", |c| c.str_at("restartPolicy"));
        let policy = if own.is_empty() { restart } else { own };
        let failed = terminated.i64_at("exitCode").unwrap_or_default() != 0;
        let rules = container.is_some_and(|c| !c.list_at("restartPolicyRules").is_empty());
        let again = match policy {
            "Always" => true,
            "OnFailure" => failed,
            _ => rules,
        };
        if !again {
            let at = Spot::at(place.tree, place.path.index(i).child("state"));
            at.forbidden("", "may not be transitioned to non-terminated state", errors);
        }
    }
}
