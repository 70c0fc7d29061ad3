//! Times on the wire: RFC 3339 in UTC, with seconds or with microseconds, and Go's messages for what is not one.

use std::fmt::Write as _;

/// A moment: seconds since 1970 and nanoseconds within the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

/// Go's zero time (year 1), which prints as `null`.
pub const ZERO_SECONDS: i64 = -62_135_596_800;

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The date of a day since 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Which layout a text must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `2006-01-02T15:04:05Z07:00`, with any fraction allowed.
    Seconds,
    /// `2006-01-02T15:04:05.000000Z07:00`: exactly six digits of fraction.
    Micros,
}

impl Layout {
    fn go(self) -> &'static str {
        match self {
            Layout::Seconds => "2006-01-02T15:04:05Z07:00",
            Layout::Micros => "2006-01-02T15:04:05.000000Z07:00",
        }
    }
}

struct Parser<'a> {
    whole: &'a str,
    rest: &'a str,
    layout: Layout,
}

impl<'a> Parser<'a> {
    fn fail(&self, element: &str) -> String {
        let (whole, rest) = (self.whole, self.rest);
        format!("parsing time {whole:?} as {:?}: cannot parse {rest:?} as {element:?}", self.layout.go())
    }

    fn out_of_range(&self, what: &str) -> String {
        format!("parsing time {:?}: {what} out of range", self.whole)
    }

    fn number(&mut self, width: usize, element: &str) -> Result<i64, String> {
        let digits = self.rest.get(..width).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
        let digits = digits.ok_or_else(|| self.fail(element))?;
        self.rest = &self.rest[width..];
        Ok(digits.bytes().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
    }

    fn literal(&mut self, text: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(text).ok_or_else(|| self.fail(text))?;
        Ok(())
    }

    fn ranged(&mut self, low: i64, high: i64, element: &str, what: &str) -> Result<i64, String> {
        let n = self.number(2, element)?;
        if (low..=high).contains(&n) { Ok(n) } else { Err(self.out_of_range(what)) }
    }

    fn fraction(&mut self) -> Result<u32, String> {
        let Some(after) = self.rest.strip_prefix(['.', ',']) else {
            return if self.layout == Layout::Micros { Err(self.fail(".000000")) } else { Ok(0) };
        };
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let kept = if self.layout == Layout::Micros { 6 } else { digits };
        if digits < kept || digits == 0 {
            return Err(self.fail(if self.layout == Layout::Micros { ".000000" } else { "Z07:00" }));
        }
        let nanos = (0..9).fold(0, |n, i| {
            let digit = if i < kept { after.as_bytes()[i] - b'0' } else { 0 };
            n * 10 + u32::from(digit)
        });
        self.rest = &after[kept..];
        Ok(nanos)
    }

    /// The zone's offset in seconds.
    fn zone(&mut self) -> Result<i64, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bytes = self.rest.as_bytes();
        let formed = bytes.len() >= 6
            && matches!(bytes[0], b'+' | b'-')
            && bytes[3] == b':'
            && [1, 2, 4, 5].iter().all(|i| bytes[*i].is_ascii_digit());
        if !formed {
            return Err(self.fail("Z07:00"));
        }
        let two = |i: usize| i64::from(bytes[i] - b'0') * 10 + i64::from(bytes[i + 1] - b'0');
        let (hours, minutes) = (two(1), two(4));
        if hours > 24 {
            return Err(self.out_of_range("time zone offset hour"));
        }
        if minutes > 60 {
            return Err(self.out_of_range("time zone offset minute"));
        }
        let offset = (hours * 60 + minutes) * 60;
        self.rest = &self.rest[6..];
        Ok(if bytes[0] == b'-' { -offset } else { offset })
    }
}

/// Reads a time as Go's `time.Parse` does with `layout`. The error is Go's message.
pub fn parse(text: &str, layout: Layout) -> Result<Timestamp, String> {
    let mut p = Parser { whole: text, rest: text, layout };
    let year = p.number(4, "2006")?;
    p.literal("-")?;
    let month = p.ranged(1, 12, "01", "month")?;
    p.literal("-")?;
    let day = p.number(2, "02")?;
    p.literal("T")?;
    let hour = p.ranged(0, 23, "15", "hour")?;
    p.literal(":")?;
    let minute = p.ranged(0, 59, "04", "minute")?;
    p.literal(":")?;
    let second = p.ranged(0, 59, "05", "second")?;
    let nanos = p.fraction()?;
    let offset = p.zone()?;
    if !p.rest.is_empty() {
        return Err(format!("parsing time {:?}: extra text: {:?}", p.whole, p.rest));
    }
    if day < 1 || day > days_in(year, month) {
        return Err(p.out_of_range("day"));
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Ok(Timestamp { seconds, nanos })
}

impl Timestamp {
    /// Go's zero time, which prints as `null`.
    pub fn is_zero(self) -> bool {
        self.seconds == ZERO_SECONDS && self.nanos == 0
    }

    fn date_time(self) -> String {
        let (days, second) = (self.seconds.div_euclid(86_400), self.seconds.rem_euclid(86_400));
        // Beyond the years that RFC 3339 knows only hostile protobuf leads.
        let (year, month, day) = civil_from_days(days.clamp(-719_528, 2_932_896));
        format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
    }

    /// `2026-01-02T03:04:05Z`, as `metav1.Time` prints it.
    pub fn to_seconds_text(self) -> String {
        let mut text = self.date_time();
        text.push('Z');
        text
    }

    /// `2026-01-02T03:04:05.000006Z`, as `metav1.MicroTime` prints it.
    pub fn to_micros_text(self) -> String {
        let mut text = self.date_time();
        write!(text, ".{:06}Z", self.nanos / 1000).expect("writing to a text does not fail");
        text
    }
}

/// Whether a text is already `dddd-dd-ddTdd:dd:ddZ` with every part surely in range: needs no normalising.
pub(crate) fn is_canonical_seconds(text: &str) -> bool {
    let b = text.as_bytes();
    let shape = b.len() == 20
        && b.iter().enumerate().all(|(i, c)| match i {
            4 | 7 => *c == b'-',
            10 => *c == b'T',
            13 | 16 => *c == b':',
            19 => *c == b'Z',
            _ => c.is_ascii_digit(),
        });
    // Two digits as text compare like numbers. Days up to 28 and years from 1000 need no further thought.
    shape
        && b[0] != b'0'
        && (b"01"..=b"12").contains(&&[b[5], b[6]])
        && (b"01"..=b"28").contains(&&[b[8], b[9]])
        && [b[11], b[12]] <= *b"23"
        && b[14] <= b'5'
        && b[17] <= b'5'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_normalises() {
        for (text, expected) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05.999Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"),
            ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z"),
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            (
                "yesterday",
                r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
            ),
            ("2026-13-02T03:04:05Z", r#"parsing time "2026-13-02T03:04:05Z": month out of range"#),
            ("2026-02-29T03:04:05Z", r#"parsing time "2026-02-29T03:04:05Z": day out of range"#),
            ("2026-01-02T03:04:05Zx", r#"parsing time "2026-01-02T03:04:05Zx": extra text: "x""#),
            ("", r#"parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#),
        ] {
            let got = parse(text, Layout::Seconds).map_or_else(|e| e, Timestamp::to_seconds_text);
            assert_eq!(got, expected);
            assert!(!is_canonical_seconds(text) || got == text);
        }
        let micro = parse("2026-01-02T03:04:05.123456Z", Layout::Micros).unwrap();
        assert_eq!(micro.to_micros_text(), "2026-01-02T03:04:05.123456Z");
        assert!(parse("2026-01-02T03:04:05Z", Layout::Micros).is_err());
        assert_eq!(parse("0001-01-01T00:00:00Z", Layout::Seconds).unwrap().seconds, ZERO_SECONDS);
    }

    #[test]
    fn dates_agree_both_ways() {
        for days in (-719_000..100_000).step_by(97) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
    }
}
