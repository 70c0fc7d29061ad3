//! CronJob.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::{Column, Count, Of, RowContext, TextOr, column, print, wide};

/// `batch/v1 CronJob`
pub(crate) const CRON_JOB: KindSpec = KindSpec {
    group: "batch",
    kind: "CronJob",
    plural: "cronjobs",
    short: &["cj"],
    categories: &["all"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Schedule", &TextOr("spec.schedule", "")),
        column("Timezone", &TextOr("spec.timeZone", "<none>")),
        column("Suspend", &Of(suspend)).boolean(),
        column("Active", &Count("status.active")).integer(),
        column("Last Schedule", &Of(last_schedule)),
        Column::AGE,
        wide("Containers", &Of(|o, _| print::joined_field(containers(o), "name"))),
        wide("Images", &Of(|o, _| print::joined_field(containers(o), "image"))),
        wide("Selector", &Of(|o, _| print::selector(o.path("spec.jobTemplate.spec.selector")))),
    ],
    served_by: Some("controllers"),
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

fn containers(cron_job: &Tree) -> &[Tree] {
    cron_job.list_at("spec.jobTemplate.spec.template.spec.containers")
}

fn suspend(cron_job: &Tree, _: &RowContext) -> Tree {
    Tree::from(match cron_job.path("spec.suspend").and_then(Tree::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    })
}

fn last_schedule(cron_job: &Tree, context: &RowContext) -> Tree {
    Tree::from(match cron_job.path("status.lastScheduleTime") {
        Some(_) => print::since(cron_job, "status.lastScheduleTime", context),
        None => "<none>".to_owned(),
    })
}

/// `SetDefaults_CronJob` in `pkg/apis/batch/v1/defaults.go`; the job's own defaults wait until there is a Job.
fn default(cron_job: &mut Tree) {
    defaults::at(cron_job, "spec", |spec| {
        defaults::text(spec, "concurrencyPolicy", "Allow");
        spec.set_default("suspend", false);
        spec.set_default("successfulJobsHistoryLimit", 3);
        spec.set_default("failedJobsHistoryLimit", 1);
        defaults::at(spec, "jobTemplate.spec", super::job::template);
    });
}
