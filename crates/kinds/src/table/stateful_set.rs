//! StatefulSet.

use super::deployment::ready;
use corten_tree::{Tree, tree};

use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::validate::{Spot, names, pod, quantity, workload};
use crate::{Column, Of, column, print, wide};
use crate::{Errors, warnings};
use crate::{beyond, defaults};

/// `apps/v1 StatefulSet`
pub(crate) const STATEFUL_SET: KindSpec = KindSpec {
    group: "apps",
    kind: "StatefulSet",
    plural: "statefulsets",
    short: &["sts"],
    categories: &["all"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::scale("spec.replicas", "status.replicas", "spec.selector"), Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Ready", &Of(ready)),
        Column::AGE,
        wide("Containers", &Of(|o, _| print::joined_field(o.list_at("spec.template.spec.containers"), "name"))),
        wide("Images", &Of(|o, _| print::joined_field(o.list_at("spec.template.spec.containers"), "image"))),
    ],
    name_check: names::dns_label,
    immutable: &["spec.selector", "spec.volumeClaimTemplates", "spec.serviceName", "spec.podManagementPolicy"],
    served_by: Some("controllers"),
    pod_spec: "spec.template.spec",
    hooks: Hooks {
        default: Some(default),
        validate: Some(validate),
        validate_status: Some(validate_status),
        freed: Some(claims_may_grow),
        warnings: Some(warnings),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

/// `SetDefaults_StatefulSet` in `pkg/apis/apps/v1/defaults.go`.
fn default(set: &mut Tree) {
    defaults::at(set, "spec", |spec| {
        defaults::text(spec, "podManagementPolicy", "OrderedReady");
        if spec.str_at("updateStrategy.type").is_empty() {
            spec.set("updateStrategy.type", "RollingUpdate");
            spec.set_default("updateStrategy.rollingUpdate", Tree::map());
        }
        if spec.str_at("updateStrategy.type") == "RollingUpdate" {
            defaults::at(spec, "updateStrategy.rollingUpdate", |rolling| {
                rolling.set_default("partition", 0);
                rolling.set_default("maxUnavailable", 1);
            });
        }
        defaults::text(spec, "persistentVolumeClaimRetentionPolicy.whenDeleted", "Retain");
        defaults::text(spec, "persistentVolumeClaimRetentionPolicy.whenScaled", "Retain");
        spec.set_default("replicas", 1);
        spec.set_default("revisionHistoryLimit", 10);
        defaults::at(spec, "template.spec", defaults::pod_spec);
        defaults::each(spec, "volumeClaimTemplates", |claim| {
            defaults::claim_spec(claim);
            defaults::text(claim, "status.phase", "Pending");
            defaults::text(claim, "apiVersion", "v1");
            defaults::text(claim, "kind", "PersistentVolumeClaim");
        });
    });
}

/// Where a claim template requests storage.
const STORAGE: &str = "spec.resources.requests.storage";

/// A set that asks for it may grow the storage of its claim templates (upstream's issue 68737).
fn claims_may_grow(set: &Tree, old: &Tree) -> Tree {
    let mut freed = old.clone();
    let annotations = set.map_at("metadata.annotations");
    if annotations.get(beyond::GROW_CLAIMS).and_then(Tree::as_str) != Some("true") {
        return freed;
    }
    let Some(Tree::List(templates)) = freed.path_mut("spec.volumeClaimTemplates") else { return freed };
    for (before, after) in templates.iter_mut().zip(set.list_at("spec.volumeClaimTemplates")) {
        let wanted = after.path(STORAGE).cloned().unwrap_or_default();
        let grows = quantity(&wanted) >= quantity(&before.path(STORAGE).cloned().unwrap_or_default());
        if before.str_at("metadata.name") == after.str_at("metadata.name") && grows && !wanted.is_null() {
            before.set(STORAGE, wanted);
        }
    }
    freed
}

fn warnings(set: &Tree, old: Option<&Tree>) -> Vec<String> {
    let mut out = warnings::template(set, old);
    for claim in Spot::of(set, "spec").items("volumeClaimTemplates") {
        // Upstream leaves the spec out of the path, or in by another name.
        let path = if old.is_none() { claim.path.clone() } else { claim.path.child("Spec") };
        warnings::claim_spec(&Spot::at(claim.child("spec").tree, path), &mut out);
    }
    if set.i64_at("spec.revisionHistoryLimit").is_some_and(|limit| limit < 0) {
        out.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .to_owned(),
        );
    }
    out
}

const WORKLOAD: workload::Workload = workload::Workload { selector_of: "statefulset", kind: "StatefulSet" };

/// `ValidateStatefulSetSpec`
fn validate(set: &Tree, errors: &mut Errors) {
    let spec = Spot::of(set, "spec");
    match spec.str("podManagementPolicy") {
        "" => spec.required("podManagementPolicy", "", errors),
        "OrderedReady" | "Parallel" => {}
        _ => spec.invalid("podManagementPolicy", "must be 'OrderedReady' or 'Parallel'", errors),
    }
    strategy(&spec, errors);
    if let Some(policy) = spec.some("persistentVolumeClaimRetentionPolicy") {
        for field in ["whenDeleted", "whenScaled"] {
            if !matches!(policy.str(field), "Retain" | "Delete") {
                policy.unsupported(field, &["Retain", "Delete"], errors);
            }
        }
    }
    for claim in spec.items("volumeClaimTemplates") {
        workload::claim_spec(&claim.child("spec"), false, errors);
    }
    spec.non_negative("replicas", errors);
    spec.non_negative("minReadySeconds", errors);
    spec.non_negative("ordinals.start", errors);
    let service = spec.str("serviceName");
    if !service.is_empty() {
        spec.each("serviceName", names::dns_label(service), errors);
    }
    workload::validate_workload_selector(&spec, &WORKLOAD, errors);
    let template = template_with_claims(&spec);
    let template = Spot::at(&template, spec.path.child("template"));
    if workload::validate_selected_labels(&spec, Some(""), errors) {
        pod::validate_template(&template, errors);
        // Upstream looks at these twice.
        pod::validate_template_meta(&template, errors);
    }
    workload::restarts_always(&template, &WORKLOAD, errors);
}

/// The template as its pods will be: with a volume per claim template, and without names that the controller sets.
fn template_with_claims(spec: &Spot<'_>) -> Tree {
    let mut template = spec.child("template").tree.clone();
    let claims: Vec<&str> = spec.list("volumeClaimTemplates").iter().map(|c| c.str_at("metadata.name")).collect();
    for field in ["spec.subdomain", "spec.hostname"] {
        template.remove(field);
    }
    if claims.is_empty() {
        return template;
    }
    let claim = |name: &&str| tree!({"name": (*name), "persistentVolumeClaim": {"claimName": (*name)}});
    let mut volumes: Vec<Tree> = claims.iter().map(claim).collect();
    let own = template.list_at("spec.volumes").iter().filter(|v| !claims.contains(&v.str_at("name")));
    volumes.extend(own.cloned());
    template.set("spec.volumes", Tree::List(volumes));
    template
}

fn strategy(spec: &Spot<'_>, errors: &mut Errors) {
    let strategy = spec.child("updateStrategy");
    let rolling = strategy.child("rollingUpdate");
    match strategy.str("type") {
        "" => spec.required("updateStrategy", "", errors),
        "OnDelete" if strategy.has("rollingUpdate") => {
            rolling.invalid("", "only allowed for updateStrategy 'RollingUpdate'", errors);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.non_negative("partition", errors);
            if rolling.has("maxUnavailable") {
                workload::int_or_percent(&rolling, "maxUnavailable", errors);
                if workload::int_or_percent_value(&rolling, "maxUnavailable") == 0 {
                    rolling.invalid("maxUnavailable", "cannot be 0", errors);
                }
                workload::at_most_100_percent(&rolling, "maxUnavailable", errors);
            }
        }
        _ => spec.invalid("updateStrategy", "must be 'RollingUpdate' or 'OnDelete'", errors),
    }
}

/// `ValidateStatefulSetStatusUpdate`
fn validate_status(new: &Tree, old: &Tree, errors: &mut Errors) {
    let status = Spot::of(new, "status");
    workload::validate_counts(
        &status,
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
        &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
        "status.readyReplicas",
        errors,
    );
    workload::collisions_only_grow(new, old, errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beyond::GROW_CLAIMS;

    #[test]
    fn grow_claims_frees_growing_storage_only() {
        let set = |annotation: &str, storage: &str, class: &str| {
            tree!({"metadata": {"annotations": {GROW_CLAIMS: (annotation)}}, "spec": {"volumeClaimTemplates": [
                {"metadata": {"name": "data"}, "spec": {"storageClassName": (class), "resources": {"requests": {"storage": (storage)}}}}]}})
        };
        let same = |new: &Tree, old: &Tree| {
            let freed = claims_may_grow(new, old);
            new.path("spec").unwrap().semantically_equal(freed.path("spec").unwrap())
        };
        let old = set("true", "1Gi", "a");
        assert!(same(&set("true", "2Gi", "a"), &old));
        assert!(!same(&set("true", "512Mi", "a"), &old), "no shrinking");
        assert!(!same(&set("true", "2Gi", "b"), &old), "nothing else");
        assert!(!same(&set("false", "2Gi", "a"), &old), "only who asks for it");
    }
}
