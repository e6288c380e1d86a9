//! CronJobs, which make Jobs.

use cron::Schedule;
use serde_json::Value;

use super::Change;
use super::job::validate_job_spec;
use super::pod_spec::default_spec;
use crate::tree::{at, flag, int, set_default, text};
use crate::validate::Errors;

/// A Job's name is its CronJob's with eleven more letters, and has 63 at most.
const LONGEST_CRON_JOB: usize = 52;

pub fn default_cron_job(object: &mut Value) {
    default_spec(object, &["spec", "jobTemplate", "spec", "template", "spec"]);
    set_default(object, &["spec", "concurrencyPolicy"], "Allow");
    set_default(object, &["spec", "suspend"], false);
    set_default(object, &["spec", "successfulJobsHistoryLimit"], 3);
    set_default(object, &["spec", "failedJobsHistoryLimit"], 1);
}

pub fn validate_cron_job(change: &Change<'_>, errors: &mut Errors) {
    let object = &*change.new;
    let name = text(object, &["metadata", "name"]);
    if change.old.is_none() && name.len() > LONGEST_CRON_JOB {
        errors.invalid("metadata.name", &Value::from(name), "must be no more than 52 characters");
    }
    validate_schedule(change, errors);
    errors.not_negative("spec.startingDeadlineSeconds", int(object, &["spec", "startingDeadlineSeconds"]));
    let zone = at(object, &["spec", "timeZone"]);
    if change.old.is_none_or(|old| at(old, &["spec", "timeZone"]) != zone) {
        validate_zone(zone, errors);
    }
    let policies = ["Allow", "Forbid", "Replace"];
    errors.one_of("spec.concurrencyPolicy", text(object, &["spec", "concurrencyPolicy"]), &policies);
    let made = ["spec", "jobTemplate", "spec"];
    validate_job_spec(change, &made, errors);
    let selector = at(object, &["spec", "jobTemplate", "spec", "selector"]);
    if !selector.is_null() {
        errors.invalid("spec.jobTemplate.spec.selector", selector, "`selector` will be auto-generated");
    }
    if flag(object, &["spec", "jobTemplate", "spec", "manualSelector"]) {
        let known = [Value::from("nil"), Value::from("false")];
        errors.not_among("spec.jobTemplate.spec.manualSelector", &Value::Bool(true), &known);
    }
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.not_negative(format!("spec.{field}"), int(object, &["spec", field]));
    }
}

/// A schedule that named its zone before may go on to, unless the CronJob names one as well.
fn validate_schedule(change: &Change<'_>, errors: &mut Errors) {
    let schedule = text(change.new, &["spec", "schedule"]);
    if schedule.is_empty() {
        errors.required("spec.schedule", "");
        return;
    }
    let mut wrong = |why: &str| errors.invalid("spec.schedule", &Value::from(schedule), why);
    if let Err(error) = schedule.parse::<Schedule>() {
        wrong(&error.to_string());
    }
    let had_zone = change.old.is_some_and(|old| text(old, &["spec", "schedule"]).contains("TZ"));
    let has_field = !at(change.new, &["spec", "timeZone"]).is_null();
    if schedule.contains("TZ") && !had_zone {
        wrong("cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if schedule.contains("TZ") && has_field {
        wrong("cannot use both timeZone field and TZ or CRON_TZ in schedule");
    }
}

fn validate_zone(zone: &Value, errors: &mut Errors) {
    let Some(name) = zone.as_str() else { return };
    let mut wrong = |why: &str| errors.invalid("spec.timeZone", zone, why);
    if name.is_empty() {
        wrong("timeZone must be nil or non-empty string");
    } else if !name.split('/').all(is_part_of_zone) {
        wrong(&format!("unknown time zone {name}"));
    } else if name.eq_ignore_ascii_case("Local") {
        wrong("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
        if name != "Local" {
            wrong(&format!("unknown time zone {name}"));
        }
    } else if let Err(error) = cron::zone(name) {
        wrong(&error.to_string());
    }
}

/// One part of the name of a zone, as the database spells them.
fn is_part_of_zone(part: &str) -> bool {
    let fits = |letter: u8| letter.is_ascii_alphanumeric() || b".-_+".contains(&letter);
    !matches!(part, "." | "..")
        && !part.starts_with('-')
        && (1..=14).contains(&part.len())
        && part.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cron_job(spec: &Value) -> Value {
        let mut object = json!({"metadata": {"name": "tidy"}, "spec": {"schedule": "0 * * * *", "jobTemplate": {
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]}}}}}});
        json_patch::merge(&mut object["spec"], spec);
        default_cron_job(&mut object);
        object
    }

    fn causes(old: Option<&Value>, mut new: Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate_cron_job(&Change { old, new: &mut new }, &mut errors);
        let causes = errors.into_causes().into_iter();
        causes.map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn schedules_and_zones_are_those_that_can_be_read() {
        let both = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        let field = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        let old = cron_job(&json!({"schedule": "TZ=UTC 0 * * * *", "timeZone": "Mars"}));
        for (old, spec, want) in [
            (None, json!({}), vec![]),
            (None, json!({"schedule": "@daily", "timeZone": "Europe/Berlin"}), vec![]),
            (None, json!({"timeZone": "Etc/GMT+5"}), vec![]),
            (None, json!({"schedule": ""}), vec!["spec.schedule: Required value".to_owned()]),
            (
                None,
                json!({"schedule": "61 * * * *"}),
                vec![schedule("61 * * * *", "end of range (61) above maximum (59): 61")],
            ),
            (None, json!({"schedule": "TZ=UTC 0 * * * *"}), vec![schedule("TZ=UTC 0 * * * *", field)]),
            (Some(&old), json!({"schedule": "TZ=UTC 1 * * * *"}), vec![]),
            (
                Some(&old),
                json!({"schedule": "TZ=UTC 1 * * * *", "timeZone": "Mars"}),
                vec![schedule("TZ=UTC 1 * * * *", both)],
            ),
            (Some(&old), json!({"timeZone": "Mars"}), vec![]),
            (None, json!({"timeZone": ""}), vec![zone("", "timeZone must be nil or non-empty string")]),
            (None, json!({"timeZone": "Mars"}), vec![zone("Mars", "unknown time zone Mars")]),
            (None, json!({"timeZone": "utc"}), vec![zone("utc", "unknown time zone utc")]),
            (None, json!({"timeZone": "../UTC"}), vec![zone("../UTC", "unknown time zone ../UTC")]),
            (None, json!({"timeZone": "Europe/"}), vec![zone("Europe/", "unknown time zone Europe/")]),
            (None, json!({"timeZone": "Local"}), vec![zone("Local", EXPLICIT)]),
            (
                None,
                json!({"timeZone": "local"}),
                vec![zone("local", EXPLICIT), zone("local", "unknown time zone local")],
            ),
        ] {
            assert_eq!(causes(old, cron_job(&spec)), want, "{spec}");
        }
    }

    const EXPLICIT: &str =
        "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";

    fn schedule(text: &str, why: &str) -> String {
        format!("spec.schedule: Invalid value: {text:?}: {why}")
    }

    fn zone(text: &str, why: &str) -> String {
        format!("spec.timeZone: Invalid value: {text:?}: {why}")
    }

    #[test]
    fn a_new_cron_job_leaves_room_in_its_name_and_the_selector_to_its_jobs() {
        let mut long = cron_job(&json!({}));
        long["metadata"]["name"] = json!("a".repeat(53));
        let name =
            format!("metadata.name: Invalid value: {:?}: must be no more than 52 characters", "a".repeat(53));
        assert_eq!(causes(None, long.clone()), [name]);
        assert_eq!(causes(Some(&long), long.clone()), Vec::<String>::new());
        let selecting = json!({"jobTemplate": {"spec": {"selector": {}, "manualSelector": true}}});
        assert_eq!(
            causes(None, cron_job(&selecting)),
            [
                "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated",
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
            ]
        );
    }
}
