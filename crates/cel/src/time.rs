//! Points and lengths of time with Go's texts (cel-go's `common/types/timestamp.go`, `duration.go`).

use std::fmt;

const NANOS: i64 = 1_000_000_000;

/// A point in time between the years 1 and 9999, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

/// A calendar's fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// 1 to 12
    pub(crate) month: i64,
    /// 1 to 31
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
    pub(crate) millisecond: i64,
    /// 0 is Sunday
    pub(crate) weekday: i64,
    /// from 0
    pub(crate) day_of_year: i64,
}

/// Days from 1970-01-01 of a day of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let of_era = y.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_day(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * of_year + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * mp + 2) / 5 + 1)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Timestamp {
    /// 0001-01-01T00:00:00Z
    pub const MIN: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };
    /// 9999-12-31T23:59:59.999999999Z
    pub const MAX: Timestamp = Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 };

    /// A point in time; `None` outside of the years 1 to 9999.
    pub fn new(seconds: i64, nanos: u32) -> Option<Timestamp> {
        let time = Timestamp { seconds, nanos };
        (nanos < NANOS as u32 && (Timestamp::MIN..=Timestamp::MAX).contains(&time)).then_some(time)
    }

    /// Whole seconds since 1970-01-01.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Reads RFC 3339.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let bytes = text.as_bytes();
        let date = Timestamp::parse_date(text.get(..10)?)?;
        if !matches!(bytes.get(10)?, b'T' | b't') || bytes.get(13) != Some(&b':') || bytes.get(16) != Some(&b':') {
            return None;
        }
        let (hour, minute, second) = (two(bytes, 11)?, two(bytes, 14)?, two(bytes, 17)?);
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let mut at = 19;
        let mut nanos = 0;
        if bytes.get(at) == Some(&b'.') {
            at += 1;
            let digits = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            for place in 0..9 {
                let digit = if place < digits { u32::from(bytes[at + place] - b'0') } else { 0 };
                nanos = nanos * 10 + digit;
            }
            at += digits;
        }
        let offset = match bytes.get(at)? {
            b'Z' | b'z' if bytes.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if bytes.len() == at + 6 && bytes[at + 3] == b':' => {
                let (hours, minutes) = (two(bytes, at + 1)?, two(bytes, at + 4)?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                let offset = hours * 3600 + minutes * 60;
                if *sign == b'-' { -offset } else { offset }
            }
            _ => return None,
        };
        Timestamp::new(date.seconds + hour * 3600 + minute * 60 + second - offset, nanos)
    }

    /// Reads `2006-01-02`.
    pub fn parse_date(text: &str) -> Option<Timestamp> {
        let bytes = text.as_bytes();
        if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
            return None;
        }
        let year = two(bytes, 0)? * 100 + two(bytes, 2)?;
        let (month, day) = (two(bytes, 5)?, two(bytes, 8)?);
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return None;
        }
        Timestamp::new(days(year, month, day) * 86_400, 0)
    }

    /// This and `nanos` later.
    pub fn plus(self, nanos: i64) -> Option<Timestamp> {
        let sum = i128::from(self.seconds) * i128::from(NANOS) + i128::from(self.nanos) + i128::from(nanos);
        let seconds = i64::try_from(sum.div_euclid(i128::from(NANOS))).ok()?;
        Timestamp::new(seconds, sum.rem_euclid(i128::from(NANOS)) as u32)
    }

    /// Nanoseconds since `earlier`, if they fit.
    pub fn since(self, earlier: Timestamp) -> Option<i64> {
        let seconds = i128::from(self.seconds) - i128::from(earlier.seconds);
        let nanos = i128::from(self.nanos) - i128::from(earlier.nanos);
        i64::try_from(seconds * i128::from(NANOS) + nanos).ok()
    }

    /// The calendar's fields at an offset east of UTC.
    pub(crate) fn civil(self, offset_seconds: i64) -> Civil {
        let local = self.seconds + offset_seconds;
        let (day_number, of_day) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        let (year, month, day) = civil_day(day_number);
        Civil {
            year,
            month,
            day,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            millisecond: i64::from(self.nanos) / 1_000_000,
            weekday: (day_number + 4).rem_euclid(7),
            day_of_year: day_number - days(year, 1, 1),
        }
    }

    /// Seconds east of UTC in a zone: a name, or `+hh:mm`.
    pub(crate) fn offset_in(self, zone: &str) -> Result<i64, String> {
        if let Some((hours, minutes)) = zone.split_once(':') {
            let bad = |text: &str| format!("strconv.Atoi: parsing {text:?}: invalid syntax");
            let number = |text: &str| text.parse::<i32>().map(i64::from).map_err(|_| bad(text));
            let (hours, minutes) = (number(hours)?, number(minutes)?);
            let minutes = if zone.starts_with('-') { hours * 60 - minutes } else { hours * 60 + minutes };
            return Ok(minutes * 60);
        }
        if zone.is_empty() || zone == "UTC" {
            return Ok(0);
        }
        let unknown = || format!("unknown time zone {zone}");
        let zone = jiff::tz::TimeZone::get(zone).map_err(|_| unknown())?;
        let instant = jiff::Timestamp::new(self.seconds, self.nanos as i32).map_err(|_| unknown())?;
        Ok(i64::from(zone.to_offset(instant).seconds()))
    }
}

fn two(bytes: &[u8], at: usize) -> Option<i64> {
    let digit = |at: usize| bytes.get(at).filter(|b| b.is_ascii_digit()).map(|b| i64::from(b - b'0'));
    Some(digit(at)? * 10 + digit(at + 1)?)
}

/// Prints as Go's RFC3339Nano in UTC.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.civil(0);
        write!(f, "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", t.year, t.month, t.day, t.hour, t.minute, t.second)?;
        if self.nanos > 0 {
            write!(f, ".{}", format!("{:09}", self.nanos).trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// Reads a length of time as Go's `time.ParseDuration`: `1h30m`, `-1.5s`; in nanoseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum: i128 = 0;
    while !rest.is_empty() {
        let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, after) = rest.split_at(digits(rest));
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let letters = after.bytes().take_while(|b| *b != b'.' && !b.is_ascii_digit()).count();
        let (unit, after) = after.split_at(letters);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok().filter(|n| *n < 1 << 64)? };
        sum += whole * scale;
        let mut weight = scale as f64;
        let mut part = 0f64;
        for digit in fraction.bytes() {
            weight /= 10.0;
            part += f64::from(digit - b'0') * weight;
        }
        sum += part as i128;
        if sum > 1 << 63 {
            return None;
        }
        rest = after;
    }
    i64::try_from(if negative { -sum } else { sum }).ok()
}

/// Prints a length of time in seconds: `90s`, `1.5s`.
pub fn duration_text(nanos: i64) -> String {
    format!("{}s", seconds_f64(nanos))
}

pub(crate) fn seconds_f64(nanos: i64) -> f64 {
    (nanos / NANOS) as f64 + (nanos % NANOS) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_read_and_print() {
        for (text, shown) in [
            ("2009-02-13T23:31:30Z", Some("2009-02-13T23:31:30Z")),
            ("2009-02-13T23:31:30.123456789+01:00", Some("2009-02-13T22:31:30.123456789Z")),
            ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z")),
            ("9999-12-31T23:59:59.999999999Z", Some("9999-12-31T23:59:59.999999999Z")),
            ("9999-12-31T23:59:59-01:00", None),
            ("2009-02-30T23:31:30Z", None),
            ("2009-02-13 23:31:30Z", None),
            ("2009-02-13T23:31:30", None),
        ] {
            assert_eq!(Timestamp::parse(text).map(|t| t.to_string()).as_deref(), shown, "{text}");
        }
        let t = Timestamp::parse("2009-02-13T23:31:30Z").unwrap().civil(0);
        assert_eq!((t.weekday, t.day_of_year, t.day), (5, 43, 13));
        assert_eq!(Timestamp::parse("2009-02-13T23:31:30Z").unwrap().offset_in("-02:30"), Ok(-9000));
        assert_eq!(Timestamp::parse("2009-07-13T23:31:30Z").unwrap().offset_in("Europe/Berlin"), Ok(7200));
    }

    #[test]
    fn durations_read_and_print() {
        for (text, nanos) in [
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("0", Some(0)),
            ("1", None),
            ("", None),
            ("1x", None),
            ("9223372036s", Some(9_223_372_036_000_000_000)),
            ("9223372037s", None),
        ] {
            assert_eq!(parse_duration(text), nanos, "{text}");
        }
        assert_eq!(duration_text(90_000_000_000), "90s");
        assert_eq!(duration_text(1_500_000_000), "1.5s");
    }
}
