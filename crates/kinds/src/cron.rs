//! Cron schedules as Kubernetes reads them: the grammar, error texts and next times of robfig/cron's standard parser.
//!
//! Five fields (minute, hour, day of month, month, day of week), names of months and days, `@hourly` and its like,
//! `@every <duration>`, an optional `TZ=` or `CRON_TZ=` in front. A day matches if the day of month *or* the day of week
//! does, unless one of them is `*`. Times are walked in absolute steps, so that a schedule inside the hour that summer
//! time skips does not run that day, and one inside the repeated hour runs twice, as upstream.

use corten_base::Timestamp;
use corten_schema::scalars::duration;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan, Zoned};

/// A parsed schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    form: Form,
    /// From `TZ=` in the schedule's text.
    zone: Option<TimeZone>,
}

#[derive(Debug, Clone, PartialEq)]
enum Form {
    /// Bits of the fields that match.
    Fields(Fields),
    /// A fixed delay in whole seconds.
    Every(SignedDuration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
}

/// Set in a field that was `*` or `?` without a step.
const STAR: u64 = 1 << 63;

struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
    /// What the first name stands for.
    first: u32,
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[], first: 0 };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[], first: 0 };
const DAYS: Bounds = Bounds { min: 1, max: 31, names: &[], first: 0 };
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    first: 1,
};
const WEEKDAYS: Bounds = Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"], first: 0 };

impl Schedule {
    /// Parses a schedule. The error is upstream's text.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        if text.is_empty() {
            return Err("empty spec string".into());
        }
        let (zone, rest) = match text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            None => (None, text),
            Some(zoned) => {
                let (name, rest) = zoned.split_once(' ').unwrap_or((zoned, ""));
                let zone =
                    time_zone(name).ok_or_else(|| format!("provided bad location {name}: unknown time zone {name}"))?;
                (Some(zone), rest.trim())
            }
        };
        let form = if rest.starts_with('@') { descriptor(rest)? } else { Form::Fields(fields(rest)?) };
        Ok(Schedule { form, zone })
    }

    /// The first time after `after` that matches in the zone (the schedule's own, if its text names one);
    /// `None` if there is none within five years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let whole = Timestamp::from_second(after.as_second()).ok()?;
        match self.form {
            Form::Every(delay) => whole.checked_add(delay).ok(),
            Form::Fields(fields) => {
                let zone = self.zone.clone().unwrap_or_else(|| zone.clone());
                let start = whole.checked_add(SignedDuration::from_secs(1)).ok()?.to_zoned(zone);
                fields.next(start).map(|at| at.timestamp())
            }
        }
    }
}

/// A time zone by its IANA name; `UTC` for the empty name, as Go's `LoadLocation`.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    match name {
        "" | "UTC" => Some(TimeZone::UTC),
        name => TimeZone::get(name).ok(),
    }
}

fn descriptor(text: &str) -> Result<Form, String> {
    let at = |text: &str| fields(text).map(Form::Fields);
    match text {
        "@yearly" | "@annually" => at("0 0 1 1 *"),
        "@monthly" => at("0 0 1 * *"),
        "@weekly" => at("0 0 * * 0"),
        "@daily" | "@midnight" => at("0 0 * * *"),
        "@hourly" => at("0 * * * *"),
        _ => {
            let Some(every) = text.strip_prefix("@every ") else {
                return Err(format!("unrecognized descriptor: {text}"));
            };
            let nanoseconds = duration::parse(every)
                .map_err(|_| format!("failed to parse duration {text}: time: invalid duration {every:?}"))?;
            Ok(Form::Every(SignedDuration::from_secs((nanoseconds / 1_000_000_000).max(1))))
        }
    }
}

fn fields(text: &str) -> Result<Fields, String> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = parts[..] else {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    };
    Ok(Fields {
        minute: field(minute, &MINUTES)?,
        hour: field(hour, &HOURS)?,
        day: field(day, &DAYS)?,
        month: field(month, &MONTHS)?,
        weekday: field(weekday, &WEEKDAYS)?,
    })
}

fn field(text: &str, bounds: &Bounds) -> Result<u64, String> {
    text.split(',').filter(|part| !part.is_empty()).try_fold(0, |bits, part| Ok(bits | range(part, bounds)?))
}

fn range(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let stepped: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = stepped[0].split('-').collect();
    let single = ends.len() == 1;
    let (start, mut end, mut extra) = match ends[..] {
        ["*" | "?", ..] => (bounds.min, bounds.max, STAR),
        [one] => {
            let value = number_or_name(one, bounds)?;
            (value, value, 0)
        }
        [low, high] => (number_or_name(low, bounds)?, number_or_name(high, bounds)?, 0),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match stepped[..] {
        [_] => 1,
        [_, step] => {
            let step = number(step)?;
            if single {
                end = bounds.max;
            }
            if step > 1 {
                extra = 0;
            }
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    let Bounds { min, max, .. } = bounds;
    if start < *min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {text}"));
    }
    if end > *max {
        return Err(format!("end of range ({end}) above maximum ({max}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok((start..=end).step_by(step as usize).fold(extra, |bits, value| bits | 1 << value))
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u32, String> {
    match bounds.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        Some(place) => Ok(bounds.first + place as u32),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(value) if value < 0 => Err(format!("negative number ({value}) not allowed: {text}")),
        // Far above every bound; the caller reports it.
        Ok(value) => Ok(u32::try_from(value).unwrap_or(u32::MAX)),
        Err(_) => Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")),
    }
}

/// How far ahead a match is looked for.
const YEARS_AHEAD: i16 = 5;

impl Fields {
    /// The first match at or after `t`. Each unit is advanced until it matches; when one wraps around, all are looked at again.
    fn next(self, mut t: Zoned) -> Option<Zoned> {
        let last_year = t.year() + YEARS_AHEAD;
        // Whether smaller units were already set to their start.
        let mut added = false;
        'wrap: while t.year() <= last_year {
            while self.month & (1 << t.month()) == 0 {
                if !added {
                    added = true;
                    t = t.first_of_month().ok()?.start_of_day().ok()?;
                }
                t = t.checked_add(1.month()).ok()?;
                if t.month() == 1 {
                    continue 'wrap;
                }
            }
            while !self.day_matches(&t) {
                if !added {
                    added = true;
                    t = t.start_of_day().ok()?;
                }
                t = midnight(t.checked_add(1.day()).ok()?)?;
                if t.day() == 1 {
                    continue 'wrap;
                }
            }
            while self.hour & (1 << t.hour()) == 0 {
                if !added {
                    added = true;
                    t = t.with().minute(0).second(0).build().ok()?;
                }
                t = t.checked_add(1.hour()).ok()?;
                if t.hour() == 0 {
                    continue 'wrap;
                }
            }
            while self.minute & (1 << t.minute()) == 0 {
                if !added {
                    added = true;
                    t = t.with().second(0).build().ok()?;
                }
                t = t.checked_add(1.minute()).ok()?;
                if t.minute() == 0 {
                    continue 'wrap;
                }
            }
            if t.second() != 0 {
                let rest = i64::from(60 - t.second());
                added = true;
                t = t.checked_add(rest.seconds()).ok()?;
                continue 'wrap;
            }
            return Some(t);
        }
        None
    }

    fn day_matches(&self, t: &Zoned) -> bool {
        let day = self.day & (1 << t.day()) != 0;
        let weekday = self.weekday & (1 << t.weekday().to_sunday_zero_offset()) != 0;
        if self.day & STAR != 0 || self.weekday & STAR != 0 { day && weekday } else { day || weekday }
    }
}

/// Where a day begins that has no midnight, upstream steps to the hour next to it.
fn midnight(t: Zoned) -> Option<Zoned> {
    match i64::from(t.hour()) {
        0 => Some(t),
        hour if hour > 12 => t.checked_add((24 - hour).hours()).ok(),
        hour => t.checked_sub(hour.hours()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone: &str) -> String {
        let zone = time_zone(zone).unwrap();
        let next = Schedule::parse(schedule).unwrap().next(after.parse().unwrap(), &zone);
        next.map_or("none".into(), |t| t.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
    }

    #[test]
    fn next_times() {
        for (schedule, after, expected) in [
            ("0/15 * * * *", "2012-07-09T14:45:00Z", "2012-07-09T15:00:00+00:00"),
            ("0/15 * * * *", "2012-07-09T14:59:59.5Z", "2012-07-09T15:00:00+00:00"),
            ("20-35/15 * * * *", "2012-07-09T14:45:00Z", "2012-07-09T15:20:00+00:00"),
            ("*/15 * * * *", "2012-12-31T23:59:45Z", "2013-01-01T00:00:00+00:00"),
            ("0 0 9 Apr-Oct ?", "2012-07-09T23:35:00Z", "2012-08-09T00:00:00+00:00"),
            ("0 0 */5 Apr,Aug,Oct Mon", "2012-07-09T23:35:00Z", "2012-08-01T00:00:00+00:00"),
            ("0 0 29 Feb ?", "2012-07-09T23:35:00Z", "2016-02-29T00:00:00+00:00"),
            ("0 0 30 Feb ?", "2012-07-09T23:35:00Z", "none"),
            ("0 12 1 * Mon", "2026-11-02T13:00:00Z", "2026-11-09T12:00:00+00:00"),
            ("@hourly", "2026-11-02T13:00:00Z", "2026-11-02T14:00:00+00:00"),
            ("@every 1h30m", "2026-11-02T13:00:00.7Z", "2026-11-02T14:30:00+00:00"),
            ("TZ=Europe/Berlin 0 6 * * *", "2026-07-01T00:00:00Z", "2026-07-01T04:00:00+00:00"),
        ] {
            assert_eq!(next(schedule, after, "UTC"), expected, "{schedule}");
        }
    }

    #[test]
    fn summer_time() {
        let zone = "America/New_York";
        // 02:30 is skipped on 2012-03-11.
        assert_eq!(next("30 2 11 Mar ?", "2012-03-11T05:00:00Z", zone), "2013-03-11T02:30:00-04:00");
        // 01:30 comes twice on 2012-11-04.
        assert_eq!(next("30 1 * * *", "2012-11-04T05:30:00Z", zone), "2012-11-04T01:30:00-05:00");
        assert_eq!(next("0 * * * *", "2012-03-11T06:00:00Z", zone), "2012-03-11T03:00:00-04:00");
        assert_eq!(next("0 3 * * *", "2012-03-11T05:00:00Z", zone), "2012-03-11T03:00:00-04:00");
    }

    #[test]
    fn faults() {
        for (schedule, error) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("@often", "unrecognized descriptor: @often"),
            ("TZ=Nowhere * * * * *", "provided bad location Nowhere: unknown time zone Nowhere"),
        ] {
            assert_eq!(Schedule::parse(schedule).unwrap_err(), error, "{schedule}");
        }
    }
}
