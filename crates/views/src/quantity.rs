//! Resource quantities: the text as stored, and its value.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};

/// A resource quantity (`500m`, `2Gi`, `1e3`): its value in nanounits, and its text.
///
/// (`k8s.io/apimachinery/pkg/api/resource/quantity.go`; the server has stored the canonical text, an unreadable one is zero.)
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quantity {
    text: String,
    nano: i128,
}

/// Amounts by resource name.
pub type ResourceList = BTreeMap<String, Quantity>;

impl Quantity {
    /// From its text; `None` if that is no quantity.
    pub fn parse(text: &str) -> Option<Quantity> {
        Some(Quantity { text: text.to_owned(), nano: nano(text)? })
    }

    /// The text as stored.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The value, rounded up (bytes, counts).
    pub fn value(&self) -> i64 {
        clamp(ceil(self.nano, 1_000_000_000))
    }

    /// The value in thousandths, rounded up (millicores).
    pub fn milli(&self) -> i64 {
        clamp(ceil(self.nano, 1_000_000))
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<std::cmp::Ordering> {
        Some(self.nano.cmp(&other.nano))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn clamp(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

/// Away from zero, as upstream's `ScaledValue`.
fn ceil(n: i128, unit: i128) -> i128 {
    let (quotient, rest) = (n / unit, n % unit);
    quotient + rest.signum()
}

fn nano(text: &str) -> Option<i128> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let decimals = i32::try_from(fraction.len()).ok()?;
    let power = |exponent: i32| -> Option<i128> {
        let exponent = exponent + 9 - decimals;
        if exponent >= 0 {
            digits.checked_mul(10i128.checked_pow(exponent.unsigned_abs())?)
        } else {
            Some(ceil(digits, 10i128.checked_pow(exponent.unsigned_abs())?))
        }
    };
    let binary = |shift: u32| -> Option<i128> {
        let scaled = digits.checked_mul(1_000_000_000)?.checked_mul(1i128 << shift)?;
        Some(ceil(scaled, 10i128.checked_pow(decimals.unsigned_abs())?))
    };
    let nano = match suffix {
        "n" => power(-9),
        "u" => power(-6),
        "m" => power(-3),
        "" => power(0),
        "k" => power(3),
        "M" => power(6),
        "G" => power(9),
        "T" => power(12),
        "P" => power(15),
        "E" => power(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        other => power(other.strip_prefix(['e', 'E'])?.parse().ok().filter(|e: &i32| e.abs() <= 27)?),
    }?;
    Some(sign * nano)
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quantity, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity")
            }
            fn visit_str<E>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity { text: text.to_owned(), nano: nano(text).unwrap_or(0) })
            }
            fn visit_i64<E>(self, n: i64) -> Result<Quantity, E> {
                Ok(Quantity { text: n.to_string(), nano: i128::from(n) * 1_000_000_000 })
            }
            fn visit_u64<E>(self, n: u64) -> Result<Quantity, E> {
                Ok(Quantity { text: n.to_string(), nano: i128::from(n) * 1_000_000_000 })
            }
            fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Quantity, E> {
                self.visit_str(&n.to_string())
            }
            fn visit_unit<E>(self) -> Result<Quantity, E> {
                Ok(Quantity { text: String::from("0"), nano: 0 })
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_thousandths() {
        let q = |text| Quantity::parse(text).unwrap();
        let rows: Vec<(i64, i64)> = ["100m", "0.5", "2Gi", "1e3", "1.5Ki", "12E", "3n", "-1500m"]
            .iter()
            .map(|t| (q(t).value(), q(t).milli()))
            .collect();
        let g = 2 << 30;
        assert_eq!(
            rows,
            [
                (1, 100),
                (1, 500),
                (g, g * 1000),
                (1000, 1_000_000),
                (1536, 1_536_000),
                (12_000_000_000_000_000_000i128.min(i64::MAX.into()) as i64, i64::MAX),
                (1, 1),
                (-2, -1500)
            ]
        );
        assert!(Quantity::parse("x").is_none() && Quantity::parse("").is_none() && Quantity::parse("1Xi").is_none());
    }
}
