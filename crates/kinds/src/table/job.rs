//! Job.

use corten_object::time;
use corten_tree::Tree;

use crate::print;
use crate::spec::{Fact, Generation, KindSpec, Subresource};
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
