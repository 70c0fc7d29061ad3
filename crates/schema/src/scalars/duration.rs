//! Go's durations: `1h30m0s`, `1.5s`, `100ms`.

/// Reads as Go's `time.ParseDuration`. Returns nanoseconds; the error is Go's message.
pub fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (digits, after) = rest.split_at(number);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let letters = after.bytes().take_while(|b| *b != b'.' && !b.is_ascii_digit()).count();
        let (unit, more) = after.split_at(letters);
        let factor: i128 = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let kept = &fraction[..fraction.len().min(18)];
        let part: i128 = if kept.is_empty() { 0 } else { kept.parse().map_err(|_| invalid())? };
        total = total
            .checked_add(whole.checked_mul(factor).ok_or_else(invalid)?)
            .and_then(|sum| sum.checked_add(part * factor / 10i128.pow(kept.len() as u32)))
            .ok_or_else(invalid)?;
        rest = more;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// Prints as Go's `Duration.String`.
pub fn format(nanos: i64) -> String {
    let size = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let scaled = |unit: u64, name: &str| {
        let (whole, part) = (size / unit, size % unit);
        let digits = unit.ilog10() as usize;
        let fraction = format!("{part:0digits$}");
        let fraction = fraction.trim_end_matches('0');
        let dot = if part == 0 { "" } else { "." };
        format!("{sign}{whole}{dot}{}{name}", if part == 0 { "" } else { fraction })
    };
    match size {
        0 => "0s".into(),
        1..=999 => format!("{sign}{size}ns"),
        1_000..=999_999 => scaled(1_000, "µs"),
        1_000_000..=999_999_999 => scaled(1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (size / 60_000_000_000, size % 60_000_000_000);
            let (whole, part) = (rest / 1_000_000_000, rest % 1_000_000_000);
            let fraction = if part == 0 { String::new() } else { format!(".{part:09}") };
            let seconds = format!("{whole}{}s", fraction.trim_end_matches('0'));
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}"),
                (0, m) => format!("{sign}{m}m{seconds}"),
                (h, m) => format!("{sign}{h}h{m}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go() {
        for (text, nanos, printed) in [
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("-2m", -120_000_000_000, "-2m0s"),
            ("100ms", 100_000_000, "100ms"),
            ("1500us", 1_500_000, "1.5ms"),
            ("0", 0, "0s"),
            ("72h", 259_200_000_000_000, "72h0m0s"),
            ("1.000000001s", 1_000_000_001, "1.000000001s"),
            ("5ns", 5, "5ns"),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
            assert_eq!(format(nanos), printed);
        }
        assert_eq!(parse("5").unwrap_err(), r#"time: missing unit in duration "5""#);
        assert_eq!(parse("5x").unwrap_err(), r#"time: unknown unit "x" in duration "5x""#);
        assert_eq!(parse("").unwrap_err(), r#"time: invalid duration """#);
        assert!(parse(".s").is_err() && parse("9999999999h").is_err());
    }
}
