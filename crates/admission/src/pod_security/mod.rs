//! PodSecurity: what pods of a namespace may ask of their node (`k8s.io/pod-security-admission/admission/admission.go`).
//!
//! The defaults are upstream's: without labels everything is allowed, and nobody is exempt.

mod checks;
mod policy;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use corten_kinds::id;
use corten_object::{FieldError, KindId, Object, Status};
use corten_tree::Tree;

use crate::{Operation, Request};
use checks::{Pod, details, reasons, violations};
use policy::{Level, LevelVersion, Policy};

/// Audit annotations.
const ANNOTATION: &str = "pod-security.kubernetes.io/";
/// How many existing pods are looked at when a namespace's level changes.
const PODS_MAX: usize = 3000;
/// Subresources of a pod that do not change what it may do.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// Where kinds that make pods keep the template.
const TEMPLATES: [(KindId, &str); 8] = [
    (id::POD_TEMPLATE, "template"),
    (id::REPLICATION_CONTROLLER, "spec.template"),
    (id::REPLICA_SET, "spec.template"),
    (id::DEPLOYMENT, "spec.template"),
    (id::STATEFUL_SET, "spec.template"),
    (id::DAEMON_SET, "spec.template"),
    (id::JOB, "spec.template"),
    (id::CRON_JOB, "spec.jobTemplate.spec.template"),
];

/// Looks at namespaces, pods, and templates of pods.
pub(crate) fn validate(request: &Request<'_>, object: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
    let Some(object) = object.filter(|_| request.writes()) else { return Ok(()) };
    if request.is(id::NAMESPACE) {
        return namespace(request, object, old);
    }
    if request.kind.id == id::POD {
        let minor = old.is_some_and(|old| request.operation == Operation::Update && !is_significant(object, old));
        if IGNORED.contains(&request.subresource) || minor {
            return Ok(());
        }
        return evaluate(request, object, true);
    }
    let template = TEMPLATES.iter().find(|(kind, _)| request.is(*kind)).and_then(|(_, path)| object.path(path));
    template.map_or(Ok(()), |template| evaluate(request, template, false))
}

/// `ValidateNamespace`
fn namespace(request: &Request<'_>, object: &Tree, old: Option<&Tree>) -> Result<(), Status> {
    let (new, errors) = policy::of_namespace(object);
    let before = old.map(policy::of_namespace);
    let texts = |errors: &[FieldError]| errors.iter().map(ToString::to_string).collect::<Vec<String>>();
    let known = before.as_ref().is_some_and(|(_, before)| texts(before) == texts(&errors));
    if !errors.is_empty() && !known {
        return Err(Status::invalid("", "Namespace", request.name, &errors));
    }
    let Some((before, _)) = before else { return Ok(()) };
    let relaxed = new.enforce.version == before.enforce.version && new.enforce.level <= before.enforce.level;
    if new.enforce == before.enforce || new.enforce.level == Level::Privileged || relaxed {
        return Ok(());
    }
    for warning in existing_pods(request, object.str_at("metadata.name"), new.enforce) {
        request.notes.warn(warning);
    }
    Ok(())
}

/// What existing pods would not be allowed (`EvaluatePodsInNamespace`).
fn existing_pods(request: &Request<'_>, namespace: &str, enforce: LevelVersion) -> Vec<String> {
    let pods = prioritized(request.cluster.objects_in(id::POD, namespace));
    let checked = pods.len().min(PODS_MAX);
    // By what is wrong with them: the first pod's name, and how many there are.
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in &pods[..checked] {
        let tree = pod.to_tree();
        let (Some(metadata), Some(spec)) = (tree.path("metadata"), tree.path("spec")) else { continue };
        let wrong = violations(enforce, &Pod { metadata, spec });
        if wrong.is_empty() {
            continue;
        }
        let name = pod.head.name.to_string();
        let entry = found.entry(reasons(&wrong)).or_insert_with(|| (name.clone(), 0));
        entry.0 = std::mem::take(&mut entry.0).min(name);
        entry.1 += 1;
    }
    let mut warnings = Vec::new();
    if checked < pods.len() {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {} existing pods",
            pods.len()
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""
        ));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(why, (name, count))| match count {
            1 => format!("{name}: {why}"),
            2 => format!("{name} (and 1 other pod): {why}"),
            n => format!("{name} (and {} other pods): {why}", n - 1),
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}

/// One pod of each controller first (`prioritizePods`).
fn prioritized(pods: Vec<Arc<Object>>) -> Vec<Arc<Object>> {
    let mut seen = BTreeSet::new();
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for pod in pods {
        let is_new = pod.head.controller().is_none_or(|owner| seen.insert(owner.uid.clone()));
        if is_new { first.push(pod) } else { later.push(pod) }
    }
    first.extend(later);
    first
}

/// Whether an update changes images or adds containers (`isSignificantPodUpdate`).
fn is_significant(new: &Tree, old: &Tree) -> bool {
    for list in ["spec.containers", "spec.initContainers"] {
        let (new, old) = (new.list_at(list), old.list_at(list));
        if new.len() != old.len() || new.iter().zip(old).any(|(n, o)| n.str_at("image") != o.str_at("image")) {
            return true;
        }
    }
    let before = old.list_at("spec.ephemeralContainers");
    new.list_at("spec.ephemeralContainers").iter().any(|container| {
        let found = before.iter().find(|o| o.str_at("name") == container.str_at("name"));
        found.is_none_or(|o| o.str_at("image") != container.str_at("image"))
    })
}

/// Compares a pod or a template with the namespace's policy; only pods are refused (`EvaluatePod`).
fn evaluate(request: &Request<'_>, pod: &Tree, enforce: bool) -> Result<(), Status> {
    let note = |key: &str, value: String| request.notes.annotate(format!("{ANNOTATION}{key}"), value);
    let Some(namespace) = request.find(id::NAMESPACE, "", request.namespace) else {
        if !enforce {
            return Ok(());
        }
        return Err(Status::internal(format!("failed to lookup namespace {:?}", request.namespace)));
    };
    let (policy, errors) = policy::of_labels(|key| namespace.head.labels.get(key));
    let Policy { enforce: enforced, audit, warn } = policy;
    if errors.is_empty() && policy.is_privileged() {
        if enforce {
            note("enforce-policy", enforced.to_string());
        }
        return Ok(());
    }
    if !errors.is_empty() {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        note("error", format!("Failed to parse policy: {}", texts.join(", ")));
    }
    let nothing = Tree::map();
    let pod = Pod { metadata: pod.path("metadata").unwrap_or(&nothing), spec: pod.path("spec").unwrap_or(&nothing) };
    let refused = if enforce {
        note("enforce-policy", enforced.to_string());
        violations(enforced, &pod)
    } else {
        Vec::new()
    };
    let audited = violations(audit, &pod);
    if !audited.is_empty() {
        note("audit-violations", format!("would violate PodSecurity \"{audit}\": {}", details(&audited)));
    }
    if !refused.is_empty() {
        return Err(request.forbidden(format!("violates PodSecurity \"{enforced}\": {}", details(&refused))));
    }
    let warned = violations(warn, &pod);
    if !warned.is_empty() {
        request.notes.warn(format!("would violate PodSecurity \"{warn}\": {}", details(&warned)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;
    use policy::Version;

    /// What a level says of a pod's spec.
    fn said(level: Level, version: Version, spec: &Tree) -> String {
        let metadata = tree!({"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}});
        let pod = Pod { metadata: &metadata, spec };
        details(&violations(LevelVersion { level, version }, &pod))
    }

    #[test]
    fn pod_security_baseline_names_everything_at_once() {
        let spec = tree!({
            "hostNetwork": true,
            "hostPID": true,
            "volumes": [{"name": "h", "hostPath": {"path": "/"}}],
            "securityContext": {
                "sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}],
                "seLinuxOptions": {"type": "x", "user": "u"},
                "seccompProfile": {"type": "Unconfined"},
                "windowsOptions": {"hostProcess": true}
            },
            "containers": [
                {"name": "a", "ports": [{"hostPort": 80}], "securityContext": {"privileged": true, "procMount": "Unmasked",
                    "capabilities": {"add": ["NET_ADMIN", "CHOWN"]}},
                    "livenessProbe": {"httpGet": {"host": "h"}}},
                {"name": "b", "ports": [{"hostPort": 443}], "securityContext": {"privileged": true}}
            ]
        });
        assert_eq!(
            said(Level::Baseline, Version::Latest, &spec),
            "forbidden AppArmor profile (annotation must not set AppArmor profile type to \
             \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\"), non-default capabilities (container \"a\" must \
             not include \"NET_ADMIN\" in securityContext.capabilities.add), host namespaces (hostNetwork=true, hostPID=true), \
             hostPath volumes (volume \"h\"), hostPort (containers \"a\", \"b\" use hostPorts 443, 80), probe or lifecycle host \
             (container \"a\" uses probe or lifecycle host \"h\"), privileged (containers \"a\", \"b\" must not set \
             securityContext.privileged=true), procMount (container \"a\" must not set securityContext.procMount to \
             \"Unmasked\"), seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set), \
             seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\"), forbidden sysctls \
             (kernel.msgmax), hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)"
        );
    }

    #[test]
    fn pod_security_restricted_wants_things_set() {
        let spec = tree!({"containers": [{"name": "a"}], "volumes": [{"name": "n", "nfs": {}}]});
        let metadata = Tree::map();
        let of = |level, version| {
            details(&violations(LevelVersion { level, version }, &Pod { metadata: &metadata, spec: &spec }))
        };
        assert_eq!(
            of(Level::Restricted, Version::Latest),
            "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
             unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), restricted volume \
             types (volume \"n\" uses restricted volume type \"nfs\"), runAsNonRoot != true (pod or container \"a\" must set \
             securityContext.runAsNonRoot=true), seccompProfile (pod or container \"a\" must set \
             securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
        assert_eq!(of(Level::Baseline, Version::Latest), "");
        assert_eq!(of(Level::Privileged, Version::Latest), "");
        // Before 1.8 there was less to set.
        let old = of(Level::Restricted, Version::Minor(7));
        assert!(old.starts_with("restricted volume types"), "{old}");
    }

    #[test]
    fn pod_security_versions_change_the_rules() {
        let sysctl = tree!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}, "containers": []});
        let metadata = Tree::map();
        let of = |spec: &Tree, level, minor| {
            let wanted = LevelVersion { level, version: Version::Minor(minor) };
            violations(wanted, &Pod { metadata: &metadata, spec }).len()
        };
        assert_eq!((of(&sysctl, Level::Baseline, 31), of(&sysctl, Level::Baseline, 32)), (1, 0));
        let users = tree!({"hostUsers": false, "securityContext": {"runAsNonRoot": false},
            "containers": [{"name": "a", "securityContext": {"procMount": "Unmasked"}}]});
        assert_eq!((of(&users, Level::Baseline, 34), of(&users, Level::Baseline, 35)), (1, 0));
        let before = of(&users, Level::Restricted, 34);
        assert_eq!(of(&users, Level::Restricted, 35), before - 1, "runAsNonRoot is relaxed, procMount is not");
    }
}
