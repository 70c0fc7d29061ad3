//! Job.

use corten_object::time;
use corten_tree::Tree;

use crate::defaults;
use crate::print;
use crate::spec::{Fact, Generation, Hooks, KindSpec, Subresource};
use crate::{Column, Of, RowContext, column, wide};

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
    facts: &[Fact::selectable("status.succeeded").label("status.successful").zero("0")],
    served_by: Some("controllers"),
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
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
    defaults::labels_from(job, "spec.template.metadata.labels", "metadata.labels");
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
