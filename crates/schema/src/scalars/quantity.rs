//! Resource quantities: `500m`, `1.5Gi`, `2e3`.
//!
//! Parsing, canonical form and arithmetic follow `k8s.io/apimachinery/pkg/api/resource/quantity.go`, its odd corners
//! included where they show on the wire: a text that is canonical but for some digits is kept as given (`1.500`).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Why a text is not a quantity, in upstream's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// How a quantity is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QuantityFormat {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    #[default]
    DecimalSi,
}

/// A decimal amount with the format that it prints in. At least nine decimal places are exact.
#[derive(Debug, Clone, Default)]
pub struct Quantity {
    /// The amount is `unscaled` × 10^`scale`.
    unscaled: i128,
    scale: i32,
    format: QuantityFormat,
    /// The text as given, where upstream keeps it.
    text: Option<Box<str>>,
}

/// The smallest scale kept: nano. Smaller amounts are rounded away from zero.
const SCALE_MIN: i32 = -9;
/// Digits that surely fit, also with two zeros more.
const DIGITS_MAX: usize = 36;
/// The largest scale kept, a multiple of three: amounts beyond it, which no real one is, end here.
const SCALE_MAX: i32 = 99_000;
/// Upstream's bound of digits for its fast path (`maxInt64Factors`).
const FAST_DIGITS: i32 = 18;

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

/// Splits as `parseQuantityString` does: the whole part without leading zeros, but at least one digit.
fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let stripped = unsigned.trim_start_matches('0');
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (mut whole, mut rest) = stripped.split_at(digits(stripped));
    if whole.is_empty() {
        whole = "0";
    }
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        (fraction, rest) = after.split_at(digits(after));
    }
    let letters = rest.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let tail = &rest[letters..];
    let exponent = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if digits(exponent) != exponent.len() {
        return Err(QuantityError::Format);
    }
    Ok(Parts { negative: text.starts_with('-'), whole, fraction, suffix: rest })
}

/// Base, exponent and format of a suffix.
fn interpret(suffix: &str) -> Result<(i32, i32, QuantityFormat), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((10, *exponent, QuantityFormat::DecimalSi));
    }
    if let Some(at) = BINARY.iter().position(|s| *s == suffix) {
        return Ok((2, 10 * (at as i32 + 1), QuantityFormat::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).and_then(|e| e.parse::<i64>().ok()).ok_or(QuantityError::Suffix)?;
    Ok((10, exponent.clamp(-100_000, 100_000) as i32, QuantityFormat::DecimalExponent))
}

fn pow10(exponent: u32) -> Option<i128> {
    10i128.checked_pow(exponent)
}

/// `value` / 10^`places`, away from zero.
fn divide_away(value: i128, places: u32) -> i128 {
    match pow10(places) {
        Some(divisor) => {
            let quotient = value / divisor;
            if value % divisor == 0 { quotient } else { quotient + value.signum() }
        }
        None => value.signum(),
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    /// `ParseQuantity`.
    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let parts = split(text)?;
        let (base, exponent, mut format) = interpret(parts.suffix)?;
        let digits = format!("{}{}", parts.whole, parts.fraction);
        let text = keeps_text(&parts, &digits, exponent, format).then(|| text.into());
        // Digits beyond what fits only move the scale; no real amount has them.
        let leading = if digits.len() > DIGITS_MAX { digits.len() - digits.trim_start_matches('0').len() } else { 0 };
        let (kept, dropped) = digits[leading..].split_at((digits.len() - leading).min(DIGITS_MAX));
        let mut unscaled: i128 = if kept.is_empty() { 0 } else { kept.parse().map_err(|_| QuantityError::Numeric)? };
        let places = |text: &str| i32::try_from(text.len()).unwrap_or(i32::MAX);
        let mut scale = places(dropped).saturating_sub(places(parts.fraction));
        if base == 10 {
            scale = scale.saturating_add(exponent);
        } else {
            unscaled = unscaled.saturating_mul(1i128 << exponent);
        }
        if scale < SCALE_MIN {
            let rest = i128::from(dropped.bytes().any(|digit| digit != b'0'));
            let places = SCALE_MIN.saturating_sub(scale).unsigned_abs();
            (unscaled, scale) = (divide_away(unscaled.saturating_add(rest), places), SCALE_MIN);
        }
        if scale > SCALE_MAX {
            while unscaled != 0 && unscaled % 10 == 0 {
                unscaled /= 10;
            }
            scale = SCALE_MAX;
        }
        let mut quantity = Quantity { unscaled, scale, format, text };
        if format == QuantityFormat::BinarySi {
            if quantity.cmp_int(i64::MAX) == Ordering::Greater {
                (quantity.unscaled, quantity.scale, quantity.text) = (i64::MAX.into(), 0, None);
            } else if quantity.unscaled > 0 && quantity.cmp_int(1) == Ordering::Less {
                format = QuantityFormat::DecimalSi;
            }
        }
        quantity.format = format;
        if parts.negative {
            quantity.unscaled = -quantity.unscaled;
        }
        Ok(quantity)
    }
}

/// Whether upstream keeps the given text as the canonical one (its fast path in `ParseQuantity`).
fn keeps_text(parts: &Parts<'_>, digits: &str, exponent: i32, format: QuantityFormat) -> bool {
    let fraction = parts.fraction.len() as i32;
    if format == QuantityFormat::BinarySi {
        let precision = 15 - parts.whole.len() as i32 - exponent * 3 / 10 - 1;
        let low_bits = digits.parse::<u64>().map_or(0, |value| value & 7);
        return fraction == 0 && precision >= 0 && low_bits != 0;
    }
    let scale = exponent - fraction;
    let precision = FAST_DIGITS - parts.whole.len() as i32 - fraction;
    precision >= 0 && scale >= SCALE_MIN && scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0')
}

impl Quantity {
    /// A whole amount.
    pub fn from_int(value: i64, format: QuantityFormat) -> Quantity {
        Quantity { unscaled: value.into(), scale: 0, format, text: None }
    }

    /// An amount of thousandths.
    pub fn from_milli(value: i64, format: QuantityFormat) -> Quantity {
        Quantity { unscaled: value.into(), scale: -3, format, text: None }
    }

    /// The format it prints in.
    pub fn format(&self) -> QuantityFormat {
        self.format
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.unscaled == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.unscaled.signum() as i32
    }

    /// The amount in units of 10^`scale`, rounded away from zero, at the bounds of `i64` if it does not fit.
    pub fn scaled(&self, scale: i32) -> i64 {
        let value = if self.scale >= scale {
            pow10((self.scale - scale) as u32).and_then(|factor| self.unscaled.checked_mul(factor))
        } else {
            Some(divide_away(self.unscaled, (scale - self.scale) as u32))
        };
        let bound = if self.unscaled < 0 { i64::MIN } else { i64::MAX };
        value.and_then(|v| i64::try_from(v).ok()).unwrap_or(if self.is_zero() { 0 } else { bound })
    }

    /// Whole units (bytes, cores), rounded up.
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// Thousandths (millicores), rounded up.
    pub fn milli_value(&self) -> i64 {
        self.scaled(-3)
    }

    /// The amount, as near as a float comes.
    pub fn to_f64(&self) -> f64 {
        self.unscaled as f64 * 10f64.powi(self.scale)
    }

    /// Whether it is a whole number of 10^`scale`.
    pub fn is_whole_at(&self, scale: i32) -> bool {
        let Some(places) = u32::try_from(scale - self.scale).ok() else { return true };
        pow10(places).map_or(self.is_zero(), |unit| self.unscaled % unit == 0)
    }

    fn cmp_int(&self, other: i64) -> Ordering {
        self.cmp(&Quantity::from_int(other, self.format))
    }

    /// Both amounts at the smaller scale, or `None` if one does not fit there.
    fn align(&self, other: &Quantity) -> Option<(i128, i128, i32)> {
        let scale = self.scale.min(other.scale);
        let at = |q: &Quantity| match q.unscaled {
            0 => Some(0),
            unscaled => pow10((q.scale - scale) as u32)?.checked_mul(unscaled),
        };
        Some((at(self)?, at(other)?, scale))
    }

    fn combine(&self, other: &Quantity, op: fn(i128, i128) -> i128) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        let (a, b, scale) = self.align(other).unwrap_or((self.scaled(0).into(), other.scaled(0).into(), 0));
        Quantity { unscaled: op(a, b), scale, format, text: None }
    }

    /// The sum. Zero takes the other's format.
    #[must_use]
    pub fn plus(&self, other: &Quantity) -> Quantity {
        self.combine(other, i128::saturating_add)
    }

    /// The difference. Zero takes the other's format.
    #[must_use]
    pub fn minus(&self, other: &Quantity) -> Quantity {
        self.combine(other, i128::saturating_sub)
    }

    /// The amount `times` times.
    #[must_use]
    pub fn times(&self, times: i64) -> Quantity {
        Quantity { unscaled: self.unscaled.saturating_mul(times.into()), text: None, ..*self }
    }

    /// Rounded away from zero to a multiple of 10^`scale` (`RoundUp`).
    #[must_use]
    pub fn rounded_up(&self, scale: i32) -> Quantity {
        if self.scale >= scale || self.is_whole_at(scale) {
            return self.clone();
        }
        Quantity { unscaled: divide_away(self.unscaled, (scale - self.scale) as u32), scale, text: None, ..*self }
    }
}

impl PartialEq for Quantity {
    /// Equal amounts, whatever the format.
    fn eq(&self, other: &Quantity) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        match self.align(other) {
            Some((a, b, _)) => a.cmp(&b),
            // One is beyond all bounds: the one with the larger scale.
            None if self.scale > other.scale => self.unscaled.cmp(&0),
            None => 0.cmp(&other.unscaled),
        }
    }
}

impl fmt::Display for Quantity {
    /// The canonical text (`CanonicalizeBytes`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            return f.write_str(text);
        }
        if self.is_zero() {
            return f.write_str("0");
        }
        let small = self.cmp_int(-1024) == Ordering::Greater && self.cmp_int(1024) == Ordering::Less;
        if self.format == QuantityFormat::BinarySi && !small && self.is_whole_at(0) {
            let (mut amount, mut power) = (self.scaled(0), 0);
            while amount.unsigned_abs() >= 1024 && amount % 1024 == 0 && power < BINARY.len() {
                (amount, power) = (amount / 1024, power + 1);
            }
            let suffix = power.checked_sub(1).map_or("", |at| BINARY[at]);
            return write!(f, "{amount}{suffix}");
        }
        let (mut amount, mut exponent) = (self.unscaled, self.scale);
        while amount % 10 == 0 {
            (amount, exponent) = (amount / 10, exponent + 1);
        }
        let surplus = exponent.rem_euclid(3);
        (amount, exponent) = (amount.saturating_mul(10i128.pow(surplus as u32)), exponent - surplus);
        if self.format == QuantityFormat::DecimalExponent {
            return if exponent == 0 { write!(f, "{amount}") } else { write!(f, "{amount}e{exponent}") };
        }
        let zeros = (exponent - 18).max(0) as usize;
        let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent.min(18)).map_or("", |(s, _)| s);
        write!(f, "{amount}{:0<zeros$}{suffix}", "")
    }
}

/// The canonical form of a quantity's text; the text itself if it is canonical.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, QuantityError> {
    // The common forms without any work: digits without a leading zero and not in thousands, with a plain suffix.
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let plain = matches!(&text[digits..], "" | "m" | "k" | "M" | "G" | "T");
    if plain && (1..=15).contains(&digits) && !text.starts_with('0') && !text[..digits].ends_with("000") {
        return Ok(Cow::Borrowed(text));
    }
    let binary = matches!(&text[digits..], "Ki" | "Mi" | "Gi" | "Ti");
    if binary && (1..=3).contains(&digits) && !text.starts_with('0') {
        return Ok(Cow::Borrowed(text));
    }
    let quantity: Quantity = text.parse()?;
    Ok(match quantity.text {
        Some(_) => Cow::Borrowed(text),
        None => Cow::Owned(quantity.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canon(text: &str) -> String {
        canonical(text).map_or_else(|e| format!("{e:?}"), Cow::into_owned)
    }

    #[test]
    fn canonical_forms() {
        for (text, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1000m", "1"),
            ("1100m", "1100m"),
            ("1000", "1k"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1023Mi", "1023Mi"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1e3", "1e3"),
            ("1E3", "1E3"),
            ("1000e0", "1e3"),
            ("12e5", "1200e3"),
            ("+5", "+5"),
            ("010", "010"),
            ("1.500", "1.500"),
            ("1234567890", "1234567890"),
            ("0.0000000000000000000000000000000000000001", "1n"),
            ("0.1000000000000000000000000000000000000001", "100000001n"),
            ("1000000000000000000000000000000000000000e1", "10e39"),
            ("0.0000000001", "1n"),
            ("-1.5", "-1500m"),
            ("16Ei", "9223372036854775807"),
            ("8Gi", "8Gi"),
            (".5", "500m"),
            ("1.", "1."),
            ("", "Format"),
            ("abc", "Format"),
            ("1x", "Format"),
            ("1Kx", "Format"),
            ("1KK", "Suffix"),
            ("1e", "Suffix"),
        ] {
            assert_eq!(canon(text), expected, "{text}");
        }
    }

    #[test]
    fn arithmetic_and_comparison() {
        let q = |s: &str| s.parse::<Quantity>().unwrap();
        assert_eq!(q("1Gi").plus(&q("512Mi")).to_string(), "1536Mi");
        assert_eq!(q("0").plus(&q("512Mi")).to_string(), "512Mi");
        assert_eq!(q("1").minus(&q("300m")).to_string(), "700m");
        assert_eq!(q("250m").times(3).to_string(), "750m");
        assert!(q("1Gi") > q("1G") && q("1000m") == q("1") && q("1e40") > q("5"));
        assert!(q("-1e40") < q("5") && q("1") < q("1e100"));
        assert_eq!((q("1500m").value(), q("1500m").milli_value(), q("1Ki").value()), (2, 1500, 1024));
        assert_eq!(q("1e30").value(), i64::MAX);
        assert_eq!(q("100.5m").rounded_up(-3).to_string(), "101m");
        assert_eq!(Quantity::from_milli(2000, QuantityFormat::DecimalSi).to_string(), "2");
    }
}
