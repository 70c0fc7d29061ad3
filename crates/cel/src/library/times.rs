//! Parts of points and lengths of time (cel-go's `common/stdlib/standard.go`, `common/types/timestamp.go`).

use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::time::{Civil, seconds_f64};
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 0),
    rows: &[
        Row("getFullYear", "timestamp_to_year", "timestamp.() -> int", year),
        Row("getFullYear", "timestamp_to_year_with_tz", "timestamp.(string) -> int", year),
        Row("getMonth", "timestamp_to_month", "timestamp.() -> int", month),
        Row("getMonth", "timestamp_to_month_with_tz", "timestamp.(string) -> int", month),
        Row("getDayOfYear", "timestamp_to_day_of_year", "timestamp.() -> int", day_of_year),
        Row("getDayOfYear", "timestamp_to_day_of_year_with_tz", "timestamp.(string) -> int", day_of_year),
        Row("getDayOfMonth", "timestamp_to_day_of_month", "timestamp.() -> int", day_of_month),
        Row("getDayOfMonth", "timestamp_to_day_of_month_with_tz", "timestamp.(string) -> int", day_of_month),
        Row("getDate", "timestamp_to_day_of_month_1_based", "timestamp.() -> int", date),
        Row("getDate", "timestamp_to_day_of_month_1_based_with_tz", "timestamp.(string) -> int", date),
        Row("getDayOfWeek", "timestamp_to_day_of_week", "timestamp.() -> int", day_of_week),
        Row("getDayOfWeek", "timestamp_to_day_of_week_with_tz", "timestamp.(string) -> int", day_of_week),
        Row("getHours", "timestamp_to_hours", "timestamp.() -> int", hours),
        Row("getHours", "timestamp_to_hours_with_tz", "timestamp.(string) -> int", hours),
        Row("getHours", "duration_to_hours", "duration.() -> int", hours),
        Row("getMinutes", "timestamp_to_minutes", "timestamp.() -> int", minutes),
        Row("getMinutes", "timestamp_to_minutes_with_tz", "timestamp.(string) -> int", minutes),
        Row("getMinutes", "duration_to_minutes", "duration.() -> int", minutes),
        Row("getSeconds", "timestamp_to_seconds", "timestamp.() -> int", seconds),
        Row("getSeconds", "timestamp_to_seconds_with_tz", "timestamp.(string) -> int", seconds),
        Row("getSeconds", "duration_to_seconds", "duration.() -> int", seconds),
        Row("getMilliseconds", "timestamp_to_milliseconds", "timestamp.() -> int", milliseconds),
        Row("getMilliseconds", "timestamp_to_milliseconds_with_tz", "timestamp.(string) -> int", milliseconds),
        Row("getMilliseconds", "duration_to_milliseconds", "duration.() -> int", milliseconds),
    ],
};

/// A part of a point in time, in UTC or in the zone that the second argument names.
fn part<'a>(args: &[Value<'a>], get: fn(Civil) -> i64) -> Answer<'a> {
    let (time, offset) = match args {
        [Value::Timestamp(time)] => (time, 0),
        [Value::Timestamp(time), Value::Str(zone)] => (time, time.offset_in(zone).map_err(EvalError::new)?),
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::Int(get(time.civil(offset))))
}

fn year<'a>(args: &[Value<'a>]) -> Answer<'a> {
    part(args, |t| t.year)
}

fn month<'a>(args: &[Value<'a>]) -> Answer<'a> {
    part(args, |t| t.month - 1)
}

fn day_of_year<'a>(args: &[Value<'a>]) -> Answer<'a> {
    part(args, |t| t.day_of_year)
}

fn day_of_month<'a>(args: &[Value<'a>]) -> Answer<'a> {
    part(args, |t| t.day - 1)
}

fn date<'a>(args: &[Value<'a>]) -> Answer<'a> {
    part(args, |t| t.day)
}

fn day_of_week<'a>(args: &[Value<'a>]) -> Answer<'a> {
    part(args, |t| t.weekday)
}

fn hours<'a>(args: &[Value<'a>]) -> Answer<'a> {
    if let [Value::Duration(nanos)] = args {
        return Ok(Value::Int((seconds_f64(*nanos) / 3600.0) as i64));
    }
    part(args, |t| t.hour)
}

fn minutes<'a>(args: &[Value<'a>]) -> Answer<'a> {
    if let [Value::Duration(nanos)] = args {
        return Ok(Value::Int((seconds_f64(*nanos) / 60.0) as i64));
    }
    part(args, |t| t.minute)
}

fn seconds<'a>(args: &[Value<'a>]) -> Answer<'a> {
    if let [Value::Duration(nanos)] = args {
        return Ok(Value::Int(seconds_f64(*nanos) as i64));
    }
    part(args, |t| t.second)
}

fn milliseconds<'a>(args: &[Value<'a>]) -> Answer<'a> {
    if let [Value::Duration(nanos)] = args {
        return Ok(Value::Int(nanos / 1_000_000));
    }
    part(args, |t| t.millisecond)
}
