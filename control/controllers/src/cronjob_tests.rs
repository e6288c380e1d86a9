//! What one look at a CronJob makes, clears away and says.

use super::*;
use crate::view::tests::world;

/// A schedule that came at noon and comes again at one.
const NOW: &str = "2026-01-01T12:00:00.1Z";
const NOON: &str = "2026-01-01T12:00:00Z";
/// Its Job's name: minutes since 1970.
const NAME: &str = "tidy-29454480";

fn cron(spec: Value, status: Value) -> Value {
    let mut object = json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": { "name": "tidy", "namespace": "d", "uid": "cj", "creationTimestamp": "2026-01-01T11:30:00Z" },
        "spec": { "schedule": "0 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
                  "jobTemplate": { "metadata": { "labels": { "app": "tidy" }, "annotations": { "note": "x" } },
                                   "spec": { "template": { "spec": {} } } } },
        "status": status,
    });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

/// A Job of the CronJob that was made for the schedule; `end` is empty while it runs.
fn job(name: &str, end: &str, hour: u32) -> Value {
    let time = format!("2026-01-01T{hour:02}:00:00Z");
    let mut object = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": name, "namespace": "d", "uid": name, "resourceVersion": "5", "annotations": { DUE: time },
                      "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "CronJob", "name": "tidy", "uid": "cj",
                                            "controller": true }] },
        "status": { "startTime": time },
    });
    if !end.is_empty() {
        object["status"]["conditions"] = json!([{ "type": end, "status": "True" }]);
    }
    if end == "Complete" {
        object["status"]["completionTime"] = json!(time);
    }
    object
}

fn active(name: &str) -> Value {
    json!({ "apiVersion": "batch/v1", "kind": "Job", "name": name, "namespace": "d", "uid": name, "resourceVersion": "5" })
}

fn look_at(objects: &[Value], now: &str) -> Outcome {
    let controller = CronJobController { zone: TimeZone::UTC };
    controller.reconcile(&Key::new("d", "tidy"), &world(objects), now.parse().unwrap())
}

fn look(objects: &[Value]) -> Outcome {
    look_at(objects, NOW)
}

/// The writes as `verb resource name`, Events as their reasons.
fn lines(outcome: &Outcome) -> Vec<String> {
    let line = |write: &Write| match write {
        Write::Create { target, body } if target.plural == "events" => {
            body["reason"].as_str().unwrap().to_owned()
        }
        other => format!("{} {} {}", other.verb(), other.target().plural, other.target().key.name),
    };
    outcome.writes.iter().map(line).collect()
}

fn status(outcome: &Outcome) -> &Value {
    let Some(Write::Patch { body, subresource: Some("status"), .. }) = outcome.writes.last() else {
        panic!("{outcome:?}")
    };
    &body["status"]
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_job_is_made_when_it_is_due_and_the_next_look_is_at_the_next_time() {
    let outcome = look(&[cron(json!({}), json!({}))]);
    let made = format!("create jobs {NAME}");
    assert_eq!(lines(&outcome), [made.as_str(), "SuccessfulCreate", "patch cronjobs tidy"]);
    assert_eq!(outcome.again, Some(HOUR), "a hundred milliseconds after one");
    assert_eq!(status(&outcome)["lastScheduleTime"], NOON);
    let Write::Create { body, .. } = &outcome.writes[0] else { panic!() };
    let meta = &body["metadata"];
    assert_eq!(meta["labels"], json!({ "app": "tidy" }));
    assert_eq!(meta["annotations"], json!({ "note": "x", DUE: NOON }));
    let owner = json!({ "apiVersion": "batch/v1", "kind": "CronJob", "name": "tidy", "uid": "cj",
                        "controller": true, "blockOwnerDeletion": true });
    assert_eq!(meta["ownerReferences"], json!([owner]));
    assert_eq!(body["spec"], json!({ "template": { "spec": {} } }));
}

#[test]
fn before_its_time_nothing_is_made() {
    let outcome = look_at(&[cron(json!({}), json!({}))], "2026-01-01T11:59:00Z");
    assert_eq!((lines(&outcome).len(), outcome.again), (0, Some(Duration::from_millis(60_100))));
}

#[test]
fn a_job_that_runs_is_noted_once_and_not_made_again() {
    let begun = json!({ "lastScheduleTime": NOON });
    let outcome = look(&[cron(json!({}), begun), job(NAME, "", 12)]);
    assert_eq!(lines(&outcome), ["patch cronjobs tidy"]);
    assert_eq!(status(&outcome)["active"], json!([active(NAME)]));
    let mut later = job(NAME, "", 12);
    later["metadata"]["resourceVersion"] = json!("9");
    let noted = json!({ "lastScheduleTime": NOON, "active": [active(NAME)] });
    assert_eq!(lines(&look(&[cron(json!({}), noted), later])).len(), 0);
}

#[test]
fn what_was_made_before_the_status_was_written_is_not_made_twice() {
    let outcome = look(&[cron(json!({}), json!({})), job(NAME, "", 12)]);
    assert_eq!(lines(&outcome), ["patch cronjobs tidy"]);
    assert_eq!(status(&outcome)["lastScheduleTime"], NOON);
    let mut foreign = job(NAME, "", 12);
    foreign["metadata"]["ownerReferences"] = json!([]);
    assert_eq!(lines(&look(&[cron(json!({}), json!({})), foreign])).len(), 0, "the name is taken");
}

#[test]
fn policies_say_what_becomes_of_jobs_that_still_run() {
    let running = json!({ "active": [active("tidy-1")], "lastScheduleTime": "2026-01-01T11:00:00Z" });
    let made = format!("create jobs {NAME}");
    let of = |policy: &str| {
        look(&[cron(json!({ "concurrencyPolicy": policy }), running.clone()), job("tidy-1", "", 11)])
    };
    assert_eq!(lines(&of("Allow"))[0], made);
    assert_eq!(status(&of("Allow"))["active"], json!([active("tidy-1")]));
    let forbidden = of("Forbid");
    assert_eq!(lines(&forbidden), ["JobAlreadyActive"]);
    assert_eq!(forbidden.again, Some(HOUR));
    let replaced = of("Replace");
    assert_eq!(lines(&replaced)[..2], ["delete jobs tidy-1".to_owned(), made]);
    assert!(matches!(&replaced.writes[0], Write::Delete { propagation: Some("Background"), .. }));
    assert_eq!(status(&replaced)["active"], json!([]));
}

#[test]
fn what_is_suspended_late_or_going_makes_nothing() {
    let suspended = cron(json!({ "suspend": true }), json!({}));
    assert_eq!(look(&[suspended]), Outcome::nothing());
    let mut going = cron(json!({}), json!({}));
    going["metadata"]["deletionTimestamp"] = json!(NOON);
    assert_eq!(look(&[going]), Outcome::nothing());
    let strict = || cron(json!({ "startingDeadlineSeconds": 60 }), json!({}));
    let outcome = look_at(&[strict()], "2026-01-01T12:00:59Z");
    assert_eq!(lines(&outcome)[0], format!("create jobs {NAME}"));
    let outcome = look_at(&[strict()], "2026-01-01T12:01:01Z");
    assert_eq!((lines(&outcome).len(), outcome.again.is_some()), (0, true));
}

#[test]
fn many_missed_times_are_told_and_the_last_is_made_up_for() {
    let outcome = look(&[cron(
        json!({ "schedule": "* * * * *" }),
        json!({ "lastScheduleTime": "2026-01-01T03:00:00Z" }),
    )]);
    let made = format!("create jobs {NAME}");
    assert_eq!(lines(&outcome)[..2], [made.as_str(), "TooManyMissedTimes"]);
}

#[test]
fn finished_jobs_are_noted_and_the_oldest_cleared_away() {
    let noted = json!({ "active": [active("tidy-4"), active("tidy-9")], "lastScheduleTime": NOON,
                        "lastSuccessfulTime": "2026-01-01T02:00:00Z" });
    let limits = json!({ "successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1 });
    let jobs = [
        job("tidy-1", "Complete", 1),
        job("tidy-2", "Complete", 3),
        job("tidy-3", "Complete", 2),
        job("tidy-4", "Complete", 4),
        job("tidy-5", "Failed", 5),
        job("tidy-6", "Failed", 6),
    ];
    let outcome = look(&[vec![cron(limits, noted.clone())], jobs.to_vec()].concat());
    let told = lines(&outcome);
    assert_eq!(told[..3], ["delete jobs tidy-1", "delete jobs tidy-3", "delete jobs tidy-5"]);
    let deleted = vec!["SuccessfulDelete"; 3];
    assert_eq!(told[3..], [deleted, vec!["SawCompletedJob", "MissingJob", "patch cronjobs tidy"]].concat());
    assert_eq!(status(&outcome)["active"], json!([]));
    assert_eq!(status(&outcome)["lastSuccessfulTime"], "2026-01-01T04:00:00Z");
    let unlimited = look(&[vec![cron(json!({}), noted)], jobs.to_vec()].concat());
    assert_eq!(lines(&unlimited), ["SawCompletedJob", "MissingJob", "patch cronjobs tidy"]);
}

#[test]
fn jobs_made_by_hand_are_cleared_away_but_do_not_run_for_the_schedule() {
    let mut by_hand = job("mine", "", 11);
    by_hand["metadata"]["annotations"] = json!({ "cronjob.kubernetes.io/instantiate": "manual" });
    let begun = json!({ "lastScheduleTime": NOON });
    let forbid = json!({ "concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 0 });
    assert_eq!(lines(&look(&[cron(forbid.clone(), begun.clone()), by_hand.clone()])).len(), 0);
    by_hand["status"]["conditions"] = json!([{ "type": "Complete", "status": "True" }]);
    assert_eq!(lines(&look(&[cron(forbid, begun), by_hand]))[0], "delete jobs mine");
}

#[test]
fn a_time_zone_moves_the_clock_and_shows_on_the_job() {
    let spec = json!({ "schedule": "30 21 * * *", "timeZone": "Asia/Tokyo" });
    let outcome = look_at(&[cron(spec, json!({}))], "2026-01-01T12:30:01Z");
    let Write::Create { body, .. } = &outcome.writes[0] else { panic!("{outcome:?}") };
    assert_eq!(body["metadata"]["annotations"][DUE], "2026-01-01T21:30:00+09:00");
    let controller = CronJobController { zone: TimeZone::get("Asia/Tokyo").unwrap() };
    let view = world(&[cron(json!({ "schedule": "30 21 * * *" }), json!({}))]);
    let outcome =
        controller.reconcile(&Key::new("d", "tidy"), &view, "2026-01-01T12:30:01Z".parse().unwrap());
    let Write::Create { body, .. } = &outcome.writes[0] else { panic!("{outcome:?}") };
    assert_eq!(body["metadata"]["annotations"][DUE], "2026-01-01T12:30:00Z");
}

#[test]
fn what_cannot_be_read_is_told_and_not_looked_at_again() {
    for (spec, want) in [
        (json!({ "schedule": "daily" }), vec!["UnparseableSchedule"]),
        (json!({ "timeZone": "Nowhere/Here" }), vec!["UnknownTimeZone"]),
        (json!({ "schedule": "0 0 31 2 *" }), vec!["InvalidSchedule"]),
        (
            json!({ "schedule": "TZ=Nowhere/Here * * * * *" }),
            vec!["UnsupportedSchedule", "UnparseableSchedule"],
        ),
    ] {
        let outcome = look(&[cron(spec.clone(), json!({}))]);
        assert_eq!(
            (lines(&outcome), outcome.again),
            (want.iter().map(ToString::to_string).collect(), None),
            "{spec}"
        );
    }
}

#[test]
fn jobs_wake_the_cron_job_that_controls_them_and_refusals_are_told() {
    let controller = CronJobController { zone: TimeZone::UTC };
    let view = world(&[cron(json!({}), json!({}))]);
    let meta = serde_json::from_value(job("tidy-1", "", 1)["metadata"].clone()).unwrap();
    let key = Key::new("d", "tidy-1");
    let change = Change { resource: "jobs.batch", key: &key, old: Some(&meta), new: None };
    assert_eq!(controller.wakes(&change, &view), [Key::new("d", "tidy")]);
    let failed = |verb, resource: &str| {
        let failure = Failure { verb, resource: resource.to_owned(), message: "no".to_owned() };
        let writes = controller.failed(&Key::new("d", "tidy"), &view, &failure, NOW.parse().unwrap());
        lines(&Outcome::writes(writes))
    };
    assert_eq!(failed("create", "jobs.batch"), ["FailedCreate"]);
    assert_eq!(failed("delete", "jobs.batch"), ["FailedDelete"]);
    assert_eq!(failed("patch", "cronjobs.batch").len(), 0);
}
