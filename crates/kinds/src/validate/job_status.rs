//! What a status of a job may say. (`ValidateJobUpdateStatus` in `pkg/apis/batch/validation/validation.go`, `getStatusValidationOptions`
//! in `pkg/registry/batch/job/strategy.go`)
//!
//! Most rules apply only where what they are about changes: a status that a change of the spec made wrong can still be written.

use std::collections::HashSet;

use corten_object::CauseKind;
use corten_tree::Tree;

use super::job::count_indexes;
use super::{IMMUTABLE, Spot, fault};
use crate::{Errors, print};

/// A job's old and new status.
struct Change<'t> {
    new: &'t Tree,
    old: &'t Tree,
    status: Spot<'t>,
}

impl Change<'_> {
    fn has(&self, kind: &str) -> bool {
        print::condition_is(self.new, "status.conditions", kind, "True")
    }

    fn had(&self, kind: &str) -> bool {
        print::condition_is(self.old, "status.conditions", kind, "True")
    }

    fn finished(&self) -> bool {
        self.has("Complete") || self.has("Failed")
    }

    /// Whether the job has ended, or goes on, with this write.
    fn finish_moves(&self) -> bool {
        self.finished() != (self.had("Complete") || self.had("Failed"))
    }

    fn condition_moves(&self, kinds: &[&str]) -> bool {
        kinds.iter().any(|kind| self.has(kind) != self.had(kind))
    }

    /// Whether a field of the status changes; an absent count is 0.
    fn moves(&self, fields: &[&str]) -> bool {
        fields.iter().any(|field| {
            let old = Spot::of(self.old, "status").child(field);
            let new = self.status.child(field);
            !new.tree.semantically_equal(old.tree)
        })
    }

    fn conditions(&self, detail: &str, errors: &mut Errors) {
        let path = self.status.path.child("conditions");
        errors.push(fault(&path, CauseKind::Invalid, format!("Invalid value: {detail}")));
    }
}

/// Finds the faults of a changed status.
pub(crate) fn validate(new: &Tree, old: &Tree, errors: &mut Errors) {
    let change = Change { new, old, status: Spot::of(new, "status") };
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        change.status.non_negative(field, errors);
    }
    uncounted(&change.status, errors);
    endings(&change, errors);
    finished(&change, errors);
    indexes(&change, errors);
    pods(&change, errors);
    success(&change, errors);
    transitions(&change, errors);
}

fn uncounted(status: &Spot<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for list in ["uncountedTerminatedPods.succeeded", "uncountedTerminatedPods.failed"] {
        for uid in status.items(list) {
            if uid.str("").is_empty() {
                uid.invalid("", "must not be empty", errors);
            } else if !seen.insert(uid.str("")) {
                uid.duplicate("", errors);
            }
        }
    }
}

fn endings(change: &Change<'_>, errors: &mut Errors) {
    let (status, complete) = (&change.status, change.has("Complete"));
    if complete && change.has("Failed") && change.condition_moves(&["Complete", "Failed"]) {
        change.conditions("cannot set Complete=True and Failed=true conditions", errors);
    }
    if complete && change.has("FailureTarget") && change.condition_moves(&["Complete", "FailureTarget"]) {
        change.conditions("cannot set Complete=True and FailureTarget=true conditions", errors);
    }
    let ends = change.condition_moves(&["Complete"]) || change.moves(&["completionTime"]);
    if ends && status.has("completionTime") && !complete {
        status.invalid("completionTime", "cannot set completionTime when there is no Complete=True condition", errors);
    }
    if ends && !status.has("completionTime") && complete {
        status.required("completionTime", "completionTime is required for Complete jobs", errors);
    }
    let time = |field: &str| corten_object::time::parse(status.str(field));
    if let (Some(start), Some(end)) = (time("startTime"), time("completionTime"))
        && end < start
        && change.moves(&["startTime", "completionTime"])
    {
        status.invalid("completionTime", "must be equal to or after `startTime`", errors);
    }
    if change.has("Failed")
        && !change.has("FailureTarget")
        && (change.condition_moves(&["Failed"]) || change.moves(&["failedIndexes"]))
    {
        change.conditions("cannot set Failed=True condition without the FailureTarget=true condition", errors);
    }
    if complete && !change.has("SuccessCriteriaMet") && change.condition_moves(&["Complete", "SuccessCriteriaMet"]) {
        change.conditions("cannot set Complete=True condition without the SuccessCriteriaMet=true condition", errors);
    }
}

fn finished(change: &Change<'_>, errors: &mut Errors) {
    let status = &change.status;
    if !change.finished() {
        return;
    }
    if status.int("active").unwrap_or_default() > 0 && (change.finish_moves() || change.moves(&["active"])) {
        status.invalid("active", "active>0 is invalid for finished job", errors);
    }
    let idle = change.new.bool_at("spec.suspend") && change.new.i64_at("spec.completions") == Some(0);
    if !status.has("startTime") && (change.finish_moves() || change.moves(&["startTime"])) && !idle {
        status.required("startTime", "startTime is required for finished job", errors);
    }
    const UNCOUNTED: &str = "uncountedTerminatedPods";
    let lists = ["succeeded", "failed"].map(|list| status.list(&format!("{UNCOUNTED}.{list}")).len());
    if lists.iter().sum::<usize>() > 0 && (change.finish_moves() || change.moves(&[UNCOUNTED])) {
        status.invalid(UNCOUNTED, "must be empty for finished job", errors);
    }
}

fn indexes(change: &Change<'_>, errors: &mut Errors) {
    const COMPLETED: &str = "completedIndexes";
    const FAILED: &str = "failedIndexes";
    let status = &change.status;
    let (completed, failed) = (change.moves(&[COMPLETED]), change.moves(&[FAILED]));
    let completions = change.new.i64_at("spec.completions");
    let per_index = change.new.path("spec.backoffLimitPerIndex").is_some();
    if let Some(completions) = completions.filter(|_| completed)
        && let Err(why) = count_indexes(status.str(COMPLETED), completions)
    {
        status.invalid(COMPLETED, format!("error parsing completedIndexes: {why}"), errors);
    }
    if let Some(completions) = completions.filter(|_| failed && per_index && status.has(FAILED))
        && let Err(why) = count_indexes(status.str(FAILED), completions)
    {
        status.invalid(FAILED, format!("error parsing failedIndexes: {why}"), errors);
    }
    if completed && !status.str(COMPLETED).is_empty() && change.new.str_at("spec.completionMode") != "Indexed" {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        status.invalid(COMPLETED, detail, errors);
    }
    if failed && !per_index && status.has(FAILED) {
        status.invalid(FAILED, "cannot set non-null failedIndexes when backoffLimitPerIndex is null", errors);
    }
    if (completed || failed)
        && completions.is_some()
        && status.has(FAILED)
        && let Some(index) = common(status.str(COMPLETED), status.str(FAILED))
    {
        status.invalid(FAILED, format!("failedIndexes and completedIndexes overlap at index: {index}"), errors);
    }
}

/// The first index that two texts of intervals share.
fn common(one: &str, other: &str) -> Option<i64> {
    let intervals = |text: &str| -> Vec<(i64, i64)> {
        let interval = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        text.split(',').filter_map(interval).collect()
    };
    let others = intervals(other);
    let overlaps = intervals(one).into_iter().flat_map(|(a, b)| {
        let shared = move |(c, d): &(i64, i64)| (a.max(*c) <= b.min(*d)).then(|| a.max(*c));
        others.iter().filter_map(shared).collect::<Vec<i64>>()
    });
    overlaps.min()
}

fn pods(change: &Change<'_>, errors: &mut Errors) {
    let status = &change.status;
    let ending = change.finish_moves() || change.moves(&["terminating"]);
    if status.int("terminating").is_some_and(|n| n > 0) && change.finished() && ending {
        status.invalid("terminating", "terminating>0 is invalid for finished job", errors);
    }
    let active = status.int("active").unwrap_or_default();
    if status.int("ready").is_some_and(|ready| ready > active) && change.moves(&["ready", "active"]) {
        status.invalid("ready", "cannot set more ready pods than active", errors);
    }
}

fn success(change: &Change<'_>, errors: &mut Errors) {
    let met = change.has("SuccessCriteriaMet");
    for (kind, shown) in [("Failed", "Failed"), ("FailureTarget", "FailureTarget")] {
        if met && change.has(kind) {
            change.conditions(&format!("cannot set SuccessCriteriaMet=True and {shown}=true conditions"), errors);
        }
    }
    if change.new.path("spec.successPolicy").is_some() && !met && change.has("Complete") {
        let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        change.conditions(detail, errors);
    }
}

/// What a write may not take back. (`ValidateJobUpdateStatus`)
fn transitions(change: &Change<'_>, errors: &mut Errors) {
    let (status, before) = (&change.status, Spot::of(change.old, "status"));
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if change.had(kind) && !change.has(kind) {
            change.conditions(&format!("cannot disable the terminal {kind}=True condition"), errors);
        }
    }
    let job = change.new;
    let elastic =
        job.str_at("spec.completionMode") == "Indexed" && job.path("spec.completions") == job.path("spec.parallelism");
    for field in ["failed", "succeeded"] {
        let value = status.int(field).unwrap_or_default();
        if value < before.int(field).unwrap_or_default() && !(field == "succeeded" && elastic) {
            status.invalid_as(field, value, format!("cannot decrease the {field} counter"), errors);
        }
    }
    let resumes = change.had("Suspended") && print::condition_is(job, "status.conditions", "Suspended", "False");
    if before.has("startTime")
        && status.str("startTime") != before.str("startTime")
        && !job.bool_at("spec.suspend")
        && !resumes
    {
        status.invalid("startTime", format!("{IMMUTABLE} for unsuspended job once set"), errors);
    }
    if before.has("completionTime") && status.str("completionTime") != before.str("completionTime") {
        status.invalid("completionTime", "field is immutable once set", errors);
    }
}
