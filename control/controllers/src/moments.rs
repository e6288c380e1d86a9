//! When a CronJob's next Job is due: the latest time that was missed, however many were.

use std::time::Duration;

use cron::Schedule;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::objects::CronJob;

/// Beyond this many times in a row that were missed, a clock is wrong or somebody should know.
const MANY: i64 = 100;
/// How long after the time a look is taken, so that it is not a moment too early (upstream's `nextScheduleDelta`).
const AFTER: Duration = Duration::from_millis(100);

/// A time for which there is no Job yet.
#[derive(Debug, PartialEq)]
pub(crate) struct Due {
    pub(crate) time: Timestamp,
    pub(crate) is_one_of_many: bool,
}

/// The schedule reads well but comes once at most: the 31st of February.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("time difference between two schedules is less than 1 second")]
pub(crate) struct Never;

/// The times since the last one that was kept.
#[derive(Debug)]
struct Moments {
    earliest: Timestamp,
    latest: Option<Timestamp>,
    missed: i64,
}

/// The latest time to make a Job for, if one has come. Times longer ago than the starting deadline do not count.
pub(crate) fn due(
    cron: &CronJob,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<Option<Due>, Never> {
    let moments = moments(cron, schedule, zone, now, cron.spec.starting_deadline_seconds)?;
    Ok(moments.latest.map(|time| Due { time, is_one_of_many: moments.missed > MANY }))
}

/// How long until the next time; `None` if none will come.
pub(crate) fn wait(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<Duration> {
    let from = match moments(cron, schedule, zone, now, None) {
        Err(Never) => now,
        Ok(Moments { latest: Some(latest), .. }) => latest,
        Ok(Moments { earliest, missed: 0, .. }) => earliest,
        Ok(_) => now,
    };
    let next = schedule.next(from, zone)?;
    Some(Duration::try_from(next.duration_since(now)).unwrap_or_default() + AFTER)
}

fn moments(
    cron: &CronJob,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
    deadline: Option<i64>,
) -> Result<Moments, Never> {
    let earliest = earliest(cron, now, deadline);
    let next = |time: Timestamp| schedule.next(time, zone).ok_or(Never);
    let first = next(earliest)?;
    if now < first {
        return Ok(Moments { earliest, latest: None, missed: 0 });
    }
    let second = next(first)?;
    if now < second {
        return Ok(Moments { earliest, latest: Some(first), missed: 0 });
    }
    // An estimate from the first pause, and exact from two pauses before it.
    let pause = second.duration_since(first).as_secs().max(1);
    let missed = now.duration_since(first).as_secs() / pause + 1;
    let before = SignedDuration::from_secs((missed - 2) * pause);
    let mut latest = None;
    let mut time = next(first.saturating_add(before).unwrap_or(first))?;
    while time <= now {
        latest = Some(time);
        time = next(time)?;
    }
    Ok(Moments { earliest, latest, missed })
}

/// The last time that was kept, or the CronJob's beginning; not longer ago than `deadline` seconds.
fn earliest(cron: &CronJob, now: Timestamp, deadline: Option<i64>) -> Timestamp {
    let last = cron.status.last_schedule_time.as_ref();
    let since = last.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
    let limit = deadline.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
    limit.map_or(since, |limit| limit.max(since))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(text: &str) -> Timestamp {
        format!("2026-01-{text}Z").parse().unwrap()
    }

    fn cron(made: &str, last: Option<&str>, deadline: Value) -> CronJob {
        serde_json::from_value(json!({
            "metadata": { "creationTimestamp": at(made).to_string() },
            "spec": { "startingDeadlineSeconds": deadline },
            "status": { "lastScheduleTime": last.map(|last| at(last).to_string()) },
        }))
        .unwrap()
    }

    #[test]
    fn the_latest_time_that_was_missed_is_due() {
        for (schedule, made, last, deadline, now, want, many) in [
            ("0 * * * *", "01T10:30:00", None, json!(null), "01T10:59:59", None, false),
            ("0 * * * *", "01T10:30:00", None, json!(null), "01T11:00:00", Some("01T11:00:00"), false),
            ("0 * * * *", "01T10:30:00", None, json!(null), "01T14:20:00", Some("01T14:00:00"), false),
            ("0 * * * *", "01T00:30:00", Some("01T11:00:00"), json!(null), "01T11:59:00", None, false),
            ("0 * * * *", "01T10:30:00", None, json!(3600), "01T14:20:00", Some("01T14:00:00"), false),
            ("0 * * * *", "01T10:30:00", None, json!(600), "01T14:20:00", None, false),
            ("* * * * *", "01T10:30:10", None, json!(null), "01T12:09:59", Some("01T12:09:00"), false),
            ("* * * * *", "01T10:30:10", None, json!(null), "01T12:11:01", Some("01T12:11:00"), true),
            ("* * * * *", "01T10:30:10", None, json!(300), "01T12:11:01", Some("01T12:11:00"), false),
            // Fridays' last time and Mondays' first are further apart than the others.
            (
                "30 6-16/4 * * 1-5",
                "02T13:00:00",
                None,
                json!(null),
                "05T12:00:00",
                Some("05T10:30:00"),
                false,
            ),
            ("@every 7m", "01T10:00:00", None, json!(null), "01T10:30:00", Some("01T10:28:00"), false),
        ] {
            let parsed = schedule.parse().unwrap();
            let found = due(&cron(made, last, deadline.clone()), &parsed, &TimeZone::UTC, at(now)).unwrap();
            let want = want.map(|time| Due { time: at(time), is_one_of_many: many });
            assert_eq!(found, want, "{schedule} {made} {last:?} {deadline} {now}");
        }
    }

    #[test]
    fn a_schedule_that_never_comes_is_said_to_be_one() {
        let schedule = "59 23 31 2 *".parse().unwrap();
        let cron = cron("01T00:00:00", None, json!(null));
        assert_eq!(due(&cron, &schedule, &TimeZone::UTC, at("02T00:00:00")), Err(Never));
        assert_eq!(wait(&cron, &schedule, &TimeZone::UTC, at("02T00:00:00")), None);
    }

    #[test]
    fn the_next_look_is_just_after_the_next_time() {
        for (schedule, last, now, want) in [
            ("0 * * * *", None, "01T10:30:00", 1_800_100),
            ("0 * * * *", Some("01T11:00:00"), "01T11:00:00.100", 3_600_000),
            ("0 * * * *", None, "01T14:20:00", 2_400_100),
            ("@every 7m", Some("01T10:28:00"), "01T10:30:00", 300_100),
        ] {
            let parsed = schedule.parse().unwrap();
            let found = wait(&cron("01T10:00:00", last, json!(null)), &parsed, &TimeZone::UTC, at(now));
            assert_eq!(found, Some(Duration::from_millis(want)), "{schedule} {last:?} {now}");
        }
    }
}
