//! A CronJob makes a Job whenever its schedule says so, and clears away the oldest that have finished.
//!
//! A Job's name follows from the minute it was due, so that none is made twice, whatever is forgotten in between. Jobs that
//! the CronJob controls and that people made by hand (`kubectl create job --from`) are cleared away too, but do not count as
//! running.

use std::sync::Arc;
use std::time::Duration;

use cron::Schedule;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::change::Change;
use crate::controller::{Controller, Failure, Key, Outcome};
use crate::moments::{Due, due, wait};
use crate::objects::{CronJob, CronJobStatus, Job, Kind, deleting};
use crate::ownership;
use crate::view::View;
use crate::write::{Happening, Target, Write};

const COMPONENT: &str = "cronjob-controller";
/// When the Job was due, in the time zone of the CronJob.
const DUE: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// `zone` is that of schedules which name none.
pub(crate) struct CronJobController {
    pub(crate) zone: TimeZone,
}

impl Controller for CronJobController {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn wakes(&self, change: &Change<'_>, _view: &View) -> Vec<Key> {
        match change.resource {
            CronJob::RESOURCE => vec![change.key.clone()],
            Job::RESOURCE => change.controllers("CronJob"),
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, key: &Key, view: &View, now: Timestamp) -> Outcome {
        let Some(cron) = view.cron_jobs.row(key) else { return Outcome::nothing() };
        let mut look = Look::begin(key, cron, view.controlled::<Job>(&cron.metadata), now);
        look.clear_away();
        look.count();
        if deleting(&cron.metadata).is_none() && !cron.spec.suspend {
            look.start(&self.zone, view);
        }
        look.end()
    }

    fn failed(&self, key: &Key, view: &View, failure: &Failure, now: Timestamp) -> Vec<Write> {
        let Some(cron) = view.cron_jobs.row(key) else { return Vec::new() };
        let (reason, message) = match (failure.verb, failure.resource.as_str()) {
            ("create", Job::RESOURCE) => ("FailedCreate", format!("Error creating job: {}", failure.message)),
            ("delete", Job::RESOURCE) => ("FailedDelete", format!("Deleted job: {}", failure.message)),
            _ => return Vec::new(),
        };
        vec![event(key, cron, true, reason, message, now)]
    }
}

fn event(key: &Key, cron: &CronJob, warning: bool, reason: &str, message: String, now: Timestamp) -> Write {
    Happening {
        component: COMPONENT,
        api_version: "batch/v1",
        kind: "CronJob",
        key,
        uid: cron.metadata.uid.as_deref().unwrap_or_default(),
        warning,
        reason,
        message,
        now,
    }
    .write()
}

/// One look at one CronJob: what is found, and what is written at its end.
struct Look<'a> {
    key: &'a Key,
    cron: &'a CronJob,
    jobs: Vec<&'a Arc<Job>>,
    now: Timestamp,
    status: CronJobStatus,
    writes: Vec<Write>,
    events: Vec<Write>,
    again: Option<Duration>,
}

impl<'a> Look<'a> {
    fn begin(key: &'a Key, cron: &'a CronJob, jobs: Vec<&'a Arc<Job>>, now: Timestamp) -> Self {
        let status = cron.status.clone();
        Self { key, cron, jobs, now, status, writes: Vec::new(), events: Vec::new(), again: None }
    }

    /// Everything that was decided: first the Jobs, then what is told of them.
    fn end(mut self) -> Outcome {
        self.writes.append(&mut self.events);
        if self.status != self.cron.status {
            let status = &self.status;
            let body = json!({ "status": {
                "active": status.active, "lastScheduleTime": status.last_schedule_time,
                "lastSuccessfulTime": status.last_successful_time,
            } });
            let target = Target::new("batch/v1", "cronjobs", self.key.clone());
            self.writes.push(Write::Patch { target, subresource: Some("status"), body });
        }
        Outcome { writes: self.writes, again: self.again, ..Outcome::default() }
    }

    fn tell(&mut self, warning: bool, reason: &str, message: String) {
        self.events.push(event(self.key, self.cron, warning, reason, message, self.now));
    }

    /// Deletes the oldest of the Jobs that ended, of each kind of end those beyond the limit.
    fn clear_away(&mut self) {
        let spec = &self.cron.spec;
        for (end, limit) in
            [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)]
        {
            let Some(limit) = limit else { continue };
            let mut ended: Vec<&Arc<Job>> =
                self.jobs.iter().filter(|job| end_of(job) == Some(end)).copied().collect();
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            ended.sort_by_key(|job| {
                let start = job.status.start_time.as_ref().map(|time| time.0);
                (start.is_none(), start, job.metadata.name.clone())
            });
            for job in &ended[..surplus] {
                self.delete(job);
            }
        }
    }

    fn delete(&mut self, job: &Job) {
        if deleting(&job.metadata).is_some() {
            return;
        }
        let name = job.metadata.name.clone().unwrap_or_default();
        self.tell(false, "SuccessfulDelete", format!("Deleted job {name}"));
        self.writes.push(Write::Delete {
            target: Target::new("batch/v1", "jobs", Key::new(&self.key.namespace, name)),
            uid: job.metadata.uid.clone().unwrap_or_default(),
            propagation: Some("Background"),
        });
    }

    /// Which Jobs run, which have ended since the last look, and when one succeeded last.
    fn count(&mut self) {
        let before = &self.cron.status.active;
        let mut told = Vec::new();
        for reference in before {
            let name = reference.name.as_deref().unwrap_or_default();
            let job = self.jobs.iter().find(|job| job.metadata.uid == reference.uid);
            match job.map(|job| end_of(job)) {
                None => told.push(("MissingJob", format!("Active job went missing: {name}"))),
                Some(Some(end)) => {
                    told.push(("SawCompletedJob", format!("Saw completed job: {name}, condition: {end}")));
                }
                Some(None) => {}
            }
        }
        let runs = |job: &&&Arc<Job>| {
            let is_known = before.iter().any(|reference| reference.uid == job.metadata.uid);
            end_of(job).is_none() && (is_known || is_scheduled(job))
        };
        self.status.active = self.jobs.iter().filter(runs).map(|job| reference(job, before)).collect();
        let succeeded = self.jobs.iter().filter(|job| end_of(job) == Some("Complete"));
        let times = succeeded.filter_map(|job| job.status.completion_time.clone());
        self.status.last_successful_time =
            times.chain(self.status.last_successful_time.take()).max_by_key(|time| time.0);
        for (reason, message) in told {
            self.tell(false, reason, message);
        }
    }

    /// Makes the Job that is due, if one is, and sees when the next will be.
    fn start(&mut self, local: &TimeZone, view: &View) {
        let spec = &self.cron.spec;
        let zone = match spec.time_zone.as_deref().map(cron::zone).transpose() {
            Ok(zone) => zone,
            Err(error) => {
                let name = spec.time_zone.as_deref().unwrap_or_default();
                return self.tell(true, "UnknownTimeZone", format!("invalid timeZone: {name:?}: {error}"));
            }
        };
        if spec.schedule.contains("TZ") {
            let message = format!(
                "CRON_TZ or TZ used in schedule {:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                spec.schedule
            );
            self.tell(true, "UnsupportedSchedule", message);
        }
        let schedule: Schedule = match spec.schedule.parse() {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                return self.tell(true, "UnparseableSchedule", message);
            }
        };
        let clock = zone.as_ref().unwrap_or(local);
        match due(self.cron, &schedule, clock, self.now) {
            Err(error) => {
                return self.tell(
                    true,
                    "InvalidSchedule",
                    format!("invalid schedule: {} : {error}", spec.schedule),
                );
            }
            Ok(Some(due)) => self.make(&due, zone.as_ref(), view),
            Ok(None) => {}
        }
        // A Job is made for `last_schedule_time`; what is after it is the next.
        let begun = CronJob { status: self.status.clone(), ..self.cron.clone() };
        self.again = wait(&begun, &schedule, clock, self.now);
    }

    fn make(&mut self, due: &Due, zone: Option<&TimeZone>, view: &View) {
        if due.is_one_of_many {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.tell(true, "TooManyMissedTimes", message.to_owned());
        }
        let last = self.status.last_schedule_time.as_ref().map(|time| time.0);
        let name = format!("{}-{}", self.key.name, due.time.as_second() / 60);
        let there = view.jobs.row(&Key::new(&self.key.namespace, &name));
        if last == Some(due.time) {
            return;
        }
        if let Some(there) = there {
            // Made before, and the status was not written; or somebody else's, who has the name.
            if self.jobs.iter().any(|job| job.metadata.uid == there.metadata.uid) {
                self.status.last_schedule_time = Some(Time(due.time));
            }
            return;
        }
        match self.cron.spec.concurrency_policy.as_str() {
            "Forbid" if !self.status.active.is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.tell(false, "JobAlreadyActive", message.to_owned());
            }
            "Replace" => self.replace(),
            _ => {}
        }
        self.tell(false, "SuccessfulCreate", format!("Created job {name}"));
        let body = job(&name, self.key, self.cron, due.time, zone);
        let target = Target::new("batch/v1", "jobs", Key::new(&self.key.namespace, name));
        self.writes.push(Write::Create { target, body });
        self.status.last_schedule_time = Some(Time(due.time));
    }

    /// Deletes what still runs.
    fn replace(&mut self) {
        let active = std::mem::take(&mut self.status.active);
        let running: Vec<&Arc<Job>> = self
            .jobs
            .iter()
            .filter(|job| active.iter().any(|one| one.uid == job.metadata.uid))
            .copied()
            .collect();
        for job in running {
            self.delete(job);
        }
    }
}

/// `Complete` or `Failed`, once it is one of them.
fn end_of(job: &Job) -> Option<&str> {
    let ends = |kind: &str| matches!(kind, "Complete" | "Failed");
    let ended = job.status.conditions.iter().find(|one| ends(&one.type_) && one.status == "True");
    ended.map(|one| one.type_.as_str())
}

/// Whether the Job was made for a time of the schedule.
fn is_scheduled(job: &Job) -> bool {
    job.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(DUE))
}

/// As it was noted first.
fn reference(job: &Job, before: &[ObjectReference]) -> ObjectReference {
    let noted = before.iter().find(|reference| reference.uid == job.metadata.uid);
    noted.cloned().unwrap_or_else(|| ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        resource_version: job.metadata.resource_version.clone(),
        uid: job.metadata.uid.clone(),
        ..ObjectReference::default()
    })
}

/// A Job of the CronJob's template.
fn job(name: &str, key: &Key, cron: &CronJob, due: Timestamp, zone: Option<&TimeZone>) -> Value {
    let template = &cron.spec.job_template;
    let mut metadata = json!({
        "name": name, "namespace": key.namespace,
        "annotations": template["metadata"]["annotations"].as_object().cloned().unwrap_or_default(),
        "ownerReferences": [ownership::reference("batch/v1", "CronJob", &cron.metadata)],
    });
    if let Some(labels) = template["metadata"].get("labels") {
        metadata["labels"] = labels.clone();
    }
    let shown = due.to_zoned(zone.cloned().unwrap_or(TimeZone::UTC));
    let form = if shown.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    metadata["annotations"][DUE] = json!(shown.strftime(form).to_string());
    json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"] })
}

#[cfg(test)]
#[path = "cronjob_tests.rs"]
mod tests;
