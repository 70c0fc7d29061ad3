//! Cron jobs: at each time one job, never two, none too early, none missed, and only so many at once.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use corten_base::{Istr, Timestamp};
use corten_cache::Event;
use corten_kinds::cron::{Schedule, time_zone};
use corten_kinds::id;
use corten_object::{Object, time};
use corten_views::{CronJob, Job};

use super::Checker;
use crate::users::{NAMESPACE, TICK};

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// How late a job may come, held up on its way.
const LATE: Duration = Duration::from_secs(60);

/// What was seen of cron jobs.
#[derive(Default)]
pub(super) struct Crons {
    /// By cron job's uid: the times that had a job.
    made: HashMap<Istr, HashSet<Timestamp>>,
    /// Up to when the one whose every time counts was looked at.
    checked: Option<Timestamp>,
}

impl Checker {
    /// Remembers which time a job is for; `None` if it has none, false if that had one already.
    pub(super) fn cron_time(&mut self, object: &Object) -> Option<(Timestamp, bool)> {
        let owner = object.head.controller().filter(|o| *o.kind == *"CronJob")?;
        let job = object.view::<Job>().ok()?;
        let at = time::parse(job.metadata.annotations.get(SCHEDULED_AT)?)?;
        Some((at, self.crons.made.entry(owner.uid.clone()).or_default().insert(at)))
    }

    pub(super) fn cron_job_created(&mut self, event: &Event) {
        let Some(object) = &event.object else { return };
        let Some(cron) = self.owner(object).filter(|o| o.kind == id::CRON_JOB) else { return };
        let Ok(spec) = cron.view::<CronJob>() else { return };
        let name = &object.head.name;
        let Some((at, first)) = self.cron_time(object) else {
            return self.fault("jobs come at their times", format!("{name} has no time"));
        };
        // The name is what keeps a time from having two jobs when its controller forgets what it did (`getJobName`).
        if *name != *format!("{}-{}", cron.head.name, at.as_second().div_euclid(60)) {
            self.fault("jobs are named for their times", format!("{name} is the job of {at}"));
        }
        if !first {
            self.fault("no time has two jobs", format!("{name} is the second job of {at}"));
        }
        if self.is_calm() && self.sim.wall() < at {
            self.fault("jobs come at their times", format!("{name} comes before {at}"));
        }
        let running: Vec<_> = (self.controlled(&cron.head.uid, id::JOB).iter())
            .filter_map(|o| Some((o.head.is_deleting(), o.view::<Job>().ok()?)))
            .filter(|(_, other)| other.finished().is_none() && other.metadata.name != **name)
            .collect();
        let overlaps = match spec.spec.concurrency_policy.as_str() {
            "Forbid" => !running.is_empty(),
            "Replace" => running.iter().any(|(deleting, _)| !deleting),
            _ => false,
        };
        if overlaps {
            self.fault("jobs of a cron job do not overlap", format!("{name} was made while another one runs"));
        }
        if spec.spec.suspend == Some(true) && self.sim.wall().duration_since(at).unsigned_abs() > 2 * LATE {
            self.fault("suspended cron jobs make no jobs", format!("{name} was made"));
        }
    }

    /// Every time has had its job a little later.
    pub(super) fn cron_missed(&mut self) {
        let (now, calm) = (self.sim.wall(), self.is_calm());
        let cron = self.find(id::CRON_JOB, NAMESPACE, TICK);
        let view = cron.as_ref().and_then(|o| o.view::<CronJob>().ok());
        let due = now.checked_sub(LATE).unwrap_or(now);
        let (Some(cron), Some(view)) = (cron, view.filter(|v| calm && v.spec.suspend != Some(true))) else {
            // What falls into a disturbance is not judged.
            self.crons.checked = Some(now);
            return;
        };
        let Ok(schedule) = Schedule::parse(&view.spec.schedule) else { return };
        let Some(zone) = time_zone("") else { return };
        let from = self.crons.checked.or(cron.head.created).unwrap_or(now).max(cron.head.created.unwrap_or(now));
        let mut at = schedule.next(from, &zone);
        while let Some(time) = at.filter(|at| *at <= due) {
            if !self.crons.made.get(&cron.head.uid).is_some_and(|made| made.contains(&time)) {
                self.fault("no time is missed", format!("{TICK} has no job of {time}"));
            }
            self.crons.checked = Some(time);
            at = schedule.next(time, &zone);
        }
    }
}
