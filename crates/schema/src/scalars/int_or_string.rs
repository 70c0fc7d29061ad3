//! A number or a text: ports by number or name, amounts or percentages. (`apimachinery/pkg/util/intstr`)

use corten_tree::Tree;

/// A number or a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntOrString {
    /// A number.
    Int(i32),
    /// A text.
    Str(String),
}

/// Which way a percentage of a total is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the next larger whole number.
    Up,
    /// To the next smaller one.
    Down,
}

impl IntOrString {
    /// The value of a tree, if it is a number in range or a text.
    pub fn of(tree: &Tree) -> Option<IntOrString> {
        match tree {
            Tree::Str(text) => Some(IntOrString::Str(text.clone())),
            other => other.as_i64().and_then(|n| i32::try_from(n).ok()).map(IntOrString::Int),
        }
    }

    /// The percentage, if this is one (`GetScaledValueFromIntOrPercent`'s notion of it).
    pub fn percent(&self) -> Option<i64> {
        let IntOrString::Str(text) = self else { return None };
        text.strip_suffix('%')?.parse().ok()
    }

    /// The number, or the percentage of `total`.
    pub fn resolve(&self, total: i64, rounding: Rounding) -> Option<i64> {
        if let IntOrString::Int(n) = self {
            return Some(i64::from(*n));
        }
        let hundredfold = self.percent()?.checked_mul(total)?;
        Some(match rounding {
            Rounding::Up => hundredfold.div_euclid(100) + i64::from(hundredfold.rem_euclid(100) != 0),
            Rounding::Down => hundredfold.div_euclid(100),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        let of = |s: &str| IntOrString::Str(s.into());
        assert_eq!(of("25%").resolve(10, Rounding::Up), Some(3));
        assert_eq!(of("25%").resolve(10, Rounding::Down), Some(2));
        assert_eq!(of("100%").resolve(10, Rounding::Up), Some(10));
        assert_eq!(of("a").resolve(10, Rounding::Up), None);
        assert_eq!(IntOrString::Int(4).resolve(10, Rounding::Up), Some(4));
    }
}
