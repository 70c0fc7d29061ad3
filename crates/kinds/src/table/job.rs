//! Job.

use corten_object::time;
use corten_tree::Tree;

use crate::defaults;
use crate::print;
use crate::spec::{Fact, Generation, Hooks, KindSpec, Subresource};
use crate::validate::job::{validate_completions, validate_spec, validate_template_update};
use crate::validate::{Spot, job_status, labels, names, workload};
use crate::{Column, Of, RowContext, column, wide};
use crate::{Errors, WriteContext};

/// `batch/v1 Job`
pub(crate) const JOB: KindSpec = KindSpec {
    group: "batch",
    kind: "Job",
    plural: "jobs",
    categories: &["all"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Status", &Of(status)),
        column("Completions", &Of(completions)),
        column("Duration", &Of(duration)),
        Column::AGE,
        wide("Containers", &Of(|o, _| print::joined_field(o.list_at("spec.template.spec.containers"), "name"))),
        wide("Images", &Of(|o, _| print::joined_field(o.list_at("spec.template.spec.containers"), "image"))),
        wide("Selector", &Of(|o, _| print::selector(o.path("spec.selector")))),
    ],
    orphans_by_default: true,
    facts: &[Fact::selectable("status.succeeded").label("status.successful").zero("0")],
    served_by: Some("controllers"),
    pod_spec: "spec.template.spec",
    hooks: Hooks {
        default: Some(default),
        prepare_create: Some(prepare_create),
        validate_create: Some(validate_create),
        validate_update: Some(validate_update),
        validate_status: Some(job_status::validate),
        warnings: Some(warnings),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

fn status(job: &Tree, _: &RowContext) -> Tree {
    let has = |condition| print::condition_is(job, "status.conditions", condition, "True");
    Tree::from(if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if job.path("metadata.deletionTimestamp").is_some() {
        "Terminating"
    } else {
        ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|c| has(c)).unwrap_or("Running")
    })
}

fn completions(job: &Tree, _: &RowContext) -> Tree {
    let succeeded = job.i64_at("status.succeeded").unwrap_or_default();
    let parallelism = job.i64_at("spec.parallelism").unwrap_or_default();
    Tree::from(match job.i64_at("spec.completions") {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    })
}

fn duration(job: &Tree, context: &RowContext) -> Tree {
    let Some(start) = time::parse(job.str_at("status.startTime")) else { return Tree::from("") };
    let end = time::parse(job.str_at("status.completionTime")).unwrap_or(context.now);
    Tree::from(print::human_duration(end.duration_since(start).as_secs()))
}

/// `SetDefaults_Job` in `pkg/apis/batch/v1/defaults.go`.
fn default(job: &mut Tree) {
    // A new job waits for `prepare_create`: the labels that it gets there belong to what is copied.
    if job.bool_at("spec.manualSelector") || job.map_at("spec.template.metadata.labels").contains(UID_LABELS[1]) {
        defaults::labels_from(job, "spec.template.metadata.labels", "metadata.labels");
    }
    defaults::at(job, "spec", |spec| {
        if spec.path("completions").is_none() && spec.path("parallelism").is_none() {
            spec.set("completions", 1);
        }
        spec.set_default("parallelism", 1);
        let per_index = spec.path("backoffLimitPerIndex").is_some();
        spec.set_default("backoffLimit", if per_index { i32::MAX } else { 6 });
        spec.set_default("completionMode", "NonIndexed");
        spec.set_default("suspend", false);
        let failure_policy = spec.path("podFailurePolicy").is_some();
        spec.set_default("podReplacementPolicy", if failure_policy { "Failed" } else { "TerminatingOrFailed" });
        spec.set_default("manualSelector", false);
        template(spec);
    });
}

/// The defaults below a job's spec that a CronJob's job template has as well.
pub(super) fn template(spec: &mut Tree) {
    defaults::at(spec, "template.spec", defaults::pod_spec);
    defaults::each(spec, "podFailurePolicy.rules", |rule| {
        defaults::each(rule, "onPodConditions", |pattern| defaults::text(pattern, "status", "True"));
    });
}

/// Labels that a job's pods carry: its name and its uid, under the old and the new key.
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

/// Gives the job the selector and its template the labels that make them its own (`generateSelector`).
fn prepare_create(job: &mut Tree, _: &WriteContext) {
    if job.bool_at("spec.manualSelector") {
        return;
    }
    let (name, uid) = (job.str_at("metadata.name").to_owned(), job.str_at("metadata.uid").to_owned());
    let labels = job.make_map_at("spec.template.metadata.labels");
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
        for key in keys {
            labels.insert_if_absent(key, value.as_str());
        }
    }
    labels.sort_keys();
    let selector = job.make_map_at("spec.selector.matchLabels");
    selector.insert_if_absent(UID_LABELS[1], uid);
    selector.sort_keys();
    defaults::labels_from(job, "spec.template.metadata.labels", "metadata.labels");
}

fn validate(job: &Tree, errors: &mut Errors) {
    let spec = Spot::of(job, "spec");
    validate_spec(&spec, errors);
    match spec.some("selector") {
        None => spec.required("selector", "", errors),
        Some(selector) => labels::validate_selector(&selector, errors),
    }
    workload::validate_selected_labels(&spec, None, errors);
}

fn validate_create(job: &Tree, errors: &mut Errors) {
    // Upstream gives a job the labels that it makes for the template only when it is read: their faults are told there.
    let made = format!("Invalid value: {:?}:", job.str_at("metadata.name"));
    errors.retain(|e| e.path.to_string() != "metadata.labels" || !e.body.starts_with(&made));
    generated_selector(job, errors);
    validate(job, errors);
    let completions = job.i64_at("spec.completions").unwrap_or_default();
    if job.str_at("spec.completionMode") == "Indexed" && completions > 0 {
        let hostname = format!("{}-{}", job.str_at("metadata.name"), completions - 1);
        if !names::dns_label(&hostname).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {hostname}");
            Spot::of(job, "metadata").invalid("name", detail, errors);
        }
    }
}

/// `validateGeneratedSelector`
fn generated_selector(job: &Tree, errors: &mut Errors) {
    if job.bool_at("spec.manualSelector") || job.path("spec.selector").is_none() {
        return;
    }
    let meta = Spot::of(job, "spec.template.metadata");
    let labels = meta.map("labels");
    for (keys, value) in [(NAME_LABELS, job.str_at("metadata.name")), (UID_LABELS, job.str_at("metadata.uid"))] {
        for key in keys {
            let at = Spot::at(meta.tree, meta.path.child("labels").key(key));
            match labels.get(key).and_then(Tree::as_str) {
                None => {
                    let labels = Spot::at(meta.tree, meta.path.child("labels"));
                    let at = Spot::at(labels.tree, labels.path.key(key));
                    at.required("", format!("must be '{value}'"), errors);
                }
                Some(found) if found != value => {
                    at.invalid_as("", labels.clone(), format!("must be '{value}'"), errors)
                }
                Some(_) => {}
            }
        }
    }
    let spec = Spot::of(job, "spec");
    let (name, uid) = (job.str_at("metadata.name"), job.str_at("metadata.uid"));
    let own = |key: &str| {
        if NAME_LABELS.contains(&key) { Some(name) } else { UID_LABELS.contains(&key).then_some(uid) }
    };
    let selected = spec.map("selector.matchLabels").iter().all(|(key, value)| own(key) == value.as_str());
    if !selected || !spec.list("selector.matchExpressions").is_empty() {
        spec.invalid("selector", "`selector` not auto-generated", errors);
    }
}

fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    validate(new, errors);
    let (spec, before) = (Spot::of(new, "spec"), Spot::of(old, "spec"));
    validate_completions(&spec, &before, errors);
    spec.immutable(&before, "selector", errors);
    validate_template_update(new, old, errors);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        spec.immutable(&before, field, errors);
    }
}

/// From here on a job's failed indexes may not fit its status.
const COMPLETIONS_SOFT_MAX: i64 = 100_000;
const PARALLELISM_SOFT_MAX: i64 = 10_000;

fn warnings(job: &Tree, old: Option<&Tree>) -> Vec<String> {
    let mut out = Vec::new();
    let faults = names::dns_label(job.str_at("metadata.name"));
    if old.is_none() && !faults.is_empty() {
        out.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            faults.join(" ")
        ));
    }
    let number = |path: &str| job.i64_at(path).unwrap_or_default();
    let indexed = job.str_at("spec.completionMode") == "Indexed";
    if indexed && number("spec.completions") > COMPLETIONS_SOFT_MAX && number("spec.parallelism") > PARALLELISM_SOFT_MAX
    {
        out.push(
            "spec: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might \
             not be able to track completedIndexes when a big number of indexes fail"
                .to_owned(),
        );
    }
    out.extend(crate::warnings::template(job, old));
    out
}
