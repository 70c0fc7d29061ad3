//! CronJob.

use corten_tree::Tree;

use crate::Errors;
use crate::cron::{Schedule, time_zone};
use crate::defaults;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::validate::{Spot, job};
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
    pod_spec: "spec.jobTemplate.spec.template.spec",
    hooks: Hooks {
        default: Some(default),
        validate: Some(validate),
        validate_create: Some(validate_create),
        validate_update: Some(validate_update),
        warnings: Some(|new, old| crate::warnings::of_template(new, old, "spec.jobTemplate.spec.template")),
        ..Hooks::NONE
    },
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

/// `validateCronJobSpec` in `pkg/apis/batch/validation/validation.go`.
fn validate(cron_job: &Tree, errors: &mut Errors) {
    let spec = Spot::of(cron_job, "spec");
    let schedule = spec.str("schedule");
    if schedule.is_empty() {
        spec.required("schedule", "", errors);
    } else if let Err(fault) = Schedule::parse(schedule) {
        spec.invalid("schedule", fault, errors);
    }
    spec.non_negative("startingDeadlineSeconds", errors);
    spec.one_of("concurrencyPolicy", &["Allow", "Forbid", "Replace"], errors);
    let template = spec.child("jobTemplate.spec");
    let template = Spot::at(template.tree, spec.path.child("jobTemplate").child("spec"));
    job::validate_spec(&template, errors);
    if template.has("selector") {
        template.invalid("selector", "`selector` will be auto-generated", errors);
    }
    if template.bool("manualSelector") {
        errors.push(corten_object::FieldError::not_supported_value(
            &template.path.child("manualSelector"),
            &Tree::Bool(true),
            &["nil", "false"],
        ));
    }
    spec.non_negative("successfulJobsHistoryLimit", errors);
    spec.non_negative("failedJobsHistoryLimit", errors);
}

/// The longest name that leaves room for what the controller appends to it.
const NAME_MAX: usize = 52;

fn validate_create(cron_job: &Tree, errors: &mut Errors) {
    let spec = Spot::of(cron_job, "spec");
    if spec.str("schedule").contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        spec.invalid("schedule", detail, errors);
    }
    zone(&spec, errors);
    if cron_job.str_at("metadata.name").len() > NAME_MAX {
        let detail = format!("must be no more than {NAME_MAX} characters");
        Spot::of(cron_job, "metadata").invalid("name", detail, errors);
    }
}

/// A zone in the schedule stays allowed where it was.
fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let (spec, before) = (Spot::of(new, "spec"), Spot::of(old, "spec"));
    match (spec.str("schedule").contains("TZ"), before.str("schedule").contains("TZ")) {
        (true, true) if spec.has("timeZone") => {
            spec.invalid("schedule", "cannot use both timeZone field and TZ or CRON_TZ in schedule", errors);
        }
        (true, false) => {
            spec.invalid("schedule", "cannot use TZ or CRON_TZ in schedule, use timeZone field instead", errors);
        }
        _ => {}
    }
    if spec.child("timeZone").tree != before.child("timeZone").tree {
        zone(&spec, errors);
    }
}

/// The longest part of a zone's name.
const ZONE_PART_MAX: usize = 14;

fn zone(spec: &Spot<'_>, errors: &mut Errors) {
    if !spec.has("timeZone") {
        return;
    }
    let name = spec.str("timeZone");
    let fits = |part: &str| {
        let known = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b'+');
        (1..=ZONE_PART_MAX).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(known)
    };
    if name.is_empty() {
        spec.invalid("timeZone", "timeZone must be nil or non-empty string", errors);
    } else if !name.split('/').all(fits) {
        spec.invalid("timeZone", format!("unknown time zone {name}"), errors);
    } else if name.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        spec.invalid("timeZone", detail, errors);
        if name != "Local" {
            spec.invalid("timeZone", format!("unknown time zone {name}"), errors);
        }
    } else if time_zone(name).is_none() {
        spec.invalid("timeZone", format!("unknown time zone {name}"), errors);
    }
}
