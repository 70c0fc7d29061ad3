//! CronJob: makes a job at each scheduled time (`pkg/controller/cronjob/cronjob_controllerv2.go`).

use std::sync::Arc;
use std::time::Duration;

use corten_base::Timestamp;
use corten_kinds::cron::{Schedule, time_zone};
use corten_kinds::id;
use corten_object::{ObjectKey, time};
use corten_tree::{Tree, tree};
use corten_views::{CronJob, Job};
use jiff::SignedDuration;
use jiff::tz::TimeZone;

use crate::{Action, Controller, EventNote, Key, Plan, Typed, Verb, Watch, World, owners, status};

/// The controller.
pub struct CronJobController;

/// Jobs are made a moment after their time, never before it.
const DELTA: Duration = Duration::from_millis(100);
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

const WATCHES: &[Watch] = &[Watch::itself(id::CRON_JOB), Watch::controller(id::JOB, id::CRON_JOB)];

impl Controller for CronJobController {
    fn name(&self) -> &'static str {
        "cronjob"
    }

    fn component(&self) -> &'static str {
        "cronjob-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(cron) = world.get::<CronJob>(key) else { return Plan::empty() };
        let jobs = world.controlled::<Job>(id::JOB, cron.namespace(), cron.uid());
        let tree = cron.tree();
        let status = status::of(&tree);
        let scheduled = cron.status.last_schedule_time;
        let mut sync = Sync { world, cron, jobs, tree, before: status.clone(), status, scheduled, plan: Plan::empty() };
        sync.note_made();
        sync.jobs_that_ended();
        let clean = sync.clean_up();
        sync.plan.stage(clean);
        if !sync.cron.head().is_deleting() {
            sync.schedule();
        }
        sync.finish()
    }
}

struct Sync<'s> {
    world: &'s World<'s>,
    cron: Typed<CronJob>,
    jobs: Vec<Typed<Job>>,
    tree: Tree,
    before: Tree,
    status: Tree,
    /// The last time that has its job.
    scheduled: Option<Timestamp>,
    plan: Plan,
}

/// The time whose job the key's last plan made. The reconcile that sees the job writes both into the status, the time and the job;
/// this is for a job that is gone again by then.
struct Made(Timestamp);

/// The times that were missed.
struct Missed {
    /// The latest of them.
    latest: Option<Timestamp>,
    many: bool,
}

impl Sync<'_> {
    fn event(&mut self, normal: bool, reason: &'static str, message: String) {
        let about = &self.cron.object;
        let note =
            if normal { EventNote::normal(about, reason, message) } else { EventNote::warning(about, reason, message) };
        self.plan.events.push(note);
    }

    fn replaces(&self) -> bool {
        self.cron.spec.concurrency_policy == "Replace"
    }

    /// Whether a job counts as running.
    fn is_active(&self, job: &Typed<Job>) -> bool {
        job.finished().is_none() && !(self.replaces() && job.head().is_deleting())
    }

    /// Writes down the time whose job was made.
    fn note_made(&mut self) {
        let made = self.world.kept::<Made>().map(|made| made.0).filter(|at| self.scheduled < Some(*at));
        let refused = self.world.last.is_some_and(|last| last.failures.iter().any(|f| f.verb == Verb::Create));
        if let Some(at) = made.filter(|_| !refused) {
            self.has_job(at);
        }
    }

    fn has_job(&mut self, at: Timestamp) {
        self.scheduled = Some(at);
        self.status.insert("lastScheduleTime", time::format(at));
        self.plan.keep = Some(Arc::new(Made(at)));
    }

    /// Brings the list of running jobs and the time of the last success up to date.
    fn jobs_that_ended(&mut self) {
        let listed: Vec<Tree> = self.before.list_at("active").to_vec();
        let mut active: Vec<Tree> = Vec::new();
        for reference in &listed {
            let uid = reference.str_at("uid");
            let job = self.jobs.iter().find(|j| j.uid() == uid).cloned();
            match job {
                Some(job) if self.is_active(&job) => active.push(reference.clone()),
                Some(job) => {
                    if let Some(condition) = job.finished() {
                        let text = format!("Saw completed job: {}, condition: {}", job.name(), condition.r#type);
                        self.event(true, "SawCompletedJob", text);
                    }
                }
                None if self.world.state.by_uid(uid).is_none() => {
                    let text = format!("Active job went missing: {}", reference.str_at("name"));
                    self.event(true, "MissingJob", text);
                }
                None => {}
            }
        }
        let running: Vec<_> = self.jobs.iter().filter(|j| self.is_active(j)).cloned().collect();
        for job in &running {
            if active.iter().any(|r| r.str_at("uid") == job.uid()) {
                continue;
            }
            if is_scheduled(&self.cron, job) {
                // This controller made it, and learns its uid only now.
                active.push(reference(job));
            } else if !job.head().is_deleting() {
                let text = format!("Saw a job that the controller did not create or forgot: {}", job.name());
                self.event(false, "UnexpectedJob", text);
            }
        }
        if active.is_empty() {
            self.status.remove("active");
        } else {
            self.status.insert("active", active);
        }
        let complete = |j: &&Typed<Job>| j.finished().is_some_and(|c| c.r#type == "Complete");
        let latest = self.jobs.iter().filter(complete).filter_map(|j| j.status.completion_time).max();
        if let Some(latest) = latest.filter(|at| self.cron.status.last_successful_time.is_none_or(|old| *at > old)) {
            self.status.insert("lastSuccessfulTime", time::format(latest));
        }
    }

    /// Finished jobs beyond the history's limits.
    fn clean_up(&self) -> Vec<Action> {
        let of = |kind: &str, limit: Option<i64>| -> Vec<Action> {
            let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else { return Vec::new() };
            let ended = |j: &&Typed<Job>| j.finished().is_some_and(|c| c.r#type == kind) && !j.head().is_deleting();
            let mut jobs: Vec<_> = self.jobs.iter().filter(ended).collect();
            jobs.sort_by_key(|j| (j.status.start_time.is_none(), j.status.start_time, j.name().to_owned()));
            let surplus = jobs.len().saturating_sub(limit);
            jobs.into_iter().take(surplus).map(|j| self.delete(j)).collect()
        };
        let mut out = of("Complete", self.cron.spec.successful_jobs_history_limit);
        out.extend(of("Failed", self.cron.spec.failed_jobs_history_limit));
        out
    }

    fn delete(&self, job: &Typed<Job>) -> Action {
        let about = &self.cron.object;
        Action::delete_with(&job.object, "Background")
            .on_success(EventNote::normal(about, "SuccessfulDelete", format!("Deleted job {}", job.name())))
            .on_failure(EventNote::warning(about, "FailedDelete", "Deleted job: "))
    }

    fn schedule(&mut self) {
        let name = self.cron.spec.time_zone.clone().unwrap_or_default();
        let Some(zone) = time_zone(&name) else {
            let text = format!("invalid timeZone: \"{name}\": unknown time zone {name}");
            return self.event(false, "UnknownTimeZone", text);
        };
        if self.cron.spec.suspend == Some(true) {
            return;
        }
        let schedule = match Schedule::parse(&self.cron.spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                let text = format!("unparseable schedule: \"{}\" : {error}", self.cron.spec.schedule);
                return self.event(false, "UnparseableSchedule", text);
            }
        };
        if schedule.next(self.earliest(), &zone).is_none() {
            // As of the 31st of February.
            const WHY: &str = "time difference between two schedules is less than 1 second";
            let text = format!("invalid schedule: {} : {WHY}", self.cron.spec.schedule);
            return self.event(false, "InvalidSchedule", text);
        }
        let missed = self.missed(&schedule, &zone, true);
        if missed.many && missed.latest.is_some() {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.event(false, "TooManyMissedTimes", text.into());
        }
        if let Some(at) = missed.latest {
            self.start(at, &zone);
        }
        self.next(&schedule, &zone);
    }

    /// `mostRecentScheduleTime`
    fn missed(&self, schedule: &Schedule, zone: &TimeZone, within_deadline: bool) -> Missed {
        let now = self.world.now;
        let mut earliest = self.earliest();
        if let Some(seconds) = self.cron.spec.starting_deadline_seconds.filter(|_| within_deadline)
            && let Ok(deadline) = now.checked_sub(SignedDuration::from_secs(seconds))
        {
            earliest = earliest.max(deadline);
        }
        let mut missed = Missed { latest: None, many: false };
        let Some(first) = schedule.next(earliest, zone).filter(|at| *at <= now) else { return missed };
        let Some(second) = schedule.next(first, zone).filter(|at| *at <= now) else {
            missed.latest = Some(first);
            return missed;
        };
        // Leaps to the last times, by the distance of the first two.
        let distance = second.duration_since(first).as_secs().max(1);
        let count = now.duration_since(first).as_secs() / distance + 1;
        missed.many = count > 100;
        let leap = SignedDuration::from_secs((count - 2).max(0) * distance);
        let mut at = first.checked_add(leap).ok().and_then(|from| schedule.next(from, zone));
        while let Some(time) = at.filter(|at| *at <= now) {
            missed.latest = Some(time);
            at = schedule.next(time, zone);
        }
        missed
    }

    fn earliest(&self) -> Timestamp {
        self.scheduled.or(self.cron.head().created).unwrap_or(self.world.now)
    }

    /// Makes the job of a scheduled time, if it is to be.
    fn start(&mut self, at: Timestamp, zone: &TimeZone) {
        let spec = &self.cron.spec;
        let deadline = spec.starting_deadline_seconds.and_then(|s| at.checked_add(SignedDuration::from_secs(s)).ok());
        if deadline.is_some_and(|deadline| deadline < self.world.now) {
            let text = format!("Missed scheduled time to start a job: {}", at.strftime("%a, %d %b %Y %H:%M:%S +0000"));
            return self.event(false, "MissSchedule", text);
        }
        let name = job_name(&self.cron, at);
        let active = self.status.list_at("active").to_vec();
        let listed = active.iter().any(|r| r.str_at("name") == name);
        if self.scheduled == Some(at) {
            return;
        }
        let key = ObjectKey::new(id::JOB, self.cron.namespace(), &name);
        if let Some(job) = self.world.state.get(&key) {
            // It is made already, but that was not written down; a foreign job of the name is left alone.
            if listed || job.head.controller().is_some_and(|c| *c.uid == *self.cron.uid()) {
                self.has_job(at);
            }
            return;
        }
        if spec.concurrency_policy == "Forbid" && !active.is_empty() {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return self.event(true, "JobAlreadyActive", text.into());
        }
        let listed = |j: &Typed<Job>| active.iter().any(|r| r.str_at("uid") == j.uid());
        if self.replaces() {
            let running = self.jobs.iter().filter(|j| self.is_active(j) && listed(j));
            let deletions: Vec<Action> = running.map(|j| self.delete(j)).collect();
            self.plan.stage(deletions);
        }
        let create = self.create(key, at, zone);
        self.plan.stage([create]);
        self.plan.keep = Some(Arc::new(Made(at)));
    }

    fn create(&self, key: ObjectKey, at: Timestamp, zone: &TimeZone) -> Action {
        let template = self.tree.path("spec.jobTemplate").cloned().unwrap_or_else(Tree::map);
        let mut metadata = tree!({"ownerReferences": [(owners::controller_reference(self.world, &self.cron.object))]});
        if let Some(labels) = template.path("metadata.labels") {
            metadata.insert("labels", labels.clone());
        }
        let mut annotations = template.path("metadata.annotations").cloned().unwrap_or_else(Tree::map);
        let local = at.to_zoned(zone.clone());
        let offset = local.offset();
        let text =
            if offset.seconds() == 0 { time::format(at) } else { local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string() };
        annotations.insert(SCHEDULED_AT, text);
        metadata.insert("annotations", annotations);
        let spec = template.path("spec").cloned().unwrap_or_else(Tree::map);
        let body = tree!({"apiVersion": "batch/v1", "kind": "Job", "metadata": (metadata), "spec": (spec)});
        let about = &self.cron.object;
        let done = format!("Created job {}", key.name);
        Action::create(key, body)
            .while_alive(about)
            .on_success(EventNote::normal(about, "SuccessfulCreate", done))
            .on_failure(EventNote::warning(about, "FailedCreate", "Error creating job: "))
    }

    /// Comes back at the next time.
    fn next(&mut self, schedule: &Schedule, zone: &TimeZone) {
        if let Some(at) = schedule.next(self.world.now, zone) {
            let wait = Duration::try_from(at.duration_since(self.world.now)).unwrap_or(Duration::ZERO);
            self.plan.requeue_after(wait + DELTA);
        }
    }

    fn finish(mut self) -> Plan {
        let write = status::write(&self.cron.object, &self.before, &self.status);
        self.plan.stage(write);
        self.plan
    }
}

/// The name of the job of a time (`getJobName`): the lock that keeps a time from having two.
fn job_name(cron: &Typed<CronJob>, at: Timestamp) -> String {
    format!("{}-{}", cron.name(), at.as_second().div_euclid(60))
}

/// Whether a job is that of a time; others were made by users (`kubectl create job --from`) and stand in nobody's way.
fn is_scheduled(cron: &Typed<CronJob>, job: &Typed<Job>) -> bool {
    let at = job.metadata.annotations.get(SCHEDULED_AT).and_then(|text| time::parse(text));
    at.is_some_and(|at| job.name() == job_name(cron, at))
}

fn reference(job: &Typed<Job>) -> Tree {
    tree!({
        "kind": "Job",
        "namespace": (job.namespace()),
        "name": (job.name()),
        "uid": (job.uid()),
        "apiVersion": "batch/v1",
        "resourceVersion": (job.head().revision.to_string())
    })
}
