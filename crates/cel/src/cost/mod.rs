//! What expressions cost: beforehand as a range, and while they run (cel-go's `common/cost.go`, `common/cost/cost.go`).
//!
//! Costs are part of the API: which rules a custom resource may have, and when an evaluation ends, depends on them.

mod actual;
mod estimate;
mod functions;

pub(crate) use actual::{call, equality};
pub use estimate::SizeEstimator;
pub(crate) use estimate::estimate;

/// Reading a variable or a field.
pub(crate) const SELECT: u64 = 1;
/// Making a list.
pub(crate) const LIST_CREATE: u64 = 10;
/// Making a map.
pub(crate) const MAP_CREATE: u64 = 30;
/// Making a message.
pub(crate) const STRUCT_CREATE: u64 = 40;
/// Going over a text, per character.
const TRAVERSAL: f64 = 0.1;
/// A pattern, per character.
const REGEX: f64 = 0.25;
/// A check of the authorizer.
const CHECK: u64 = 350_000;

/// A range of sizes or costs; `u64::MAX` is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

/// What an evaluation costs, at least and at most.
pub type CostEstimate = Range;
/// How large a value is, at least and at most.
pub type SizeEstimate = Range;

impl Range {
    const UNKNOWN: Range = Range { min: 0, max: u64::MAX };

    /// Exactly this.
    pub const fn fixed(n: u64) -> Range {
        Range { min: n, max: n }
    }

    fn plus(self, other: Range) -> Range {
        Range { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Range) -> Range {
        Range { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn by(self, factor: f64) -> Range {
        Range { min: times(self.min, factor), max: times(self.max, factor) }
    }

    fn union(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// The product, rounded up, at most `u64::MAX`.
fn times(n: u64, factor: f64) -> u64 {
    if n as f64 > u64::MAX as f64 / factor && n > 0 && factor > 0.0 {
        return u64::MAX;
    }
    (n as f64 * factor).ceil() as u64
}
