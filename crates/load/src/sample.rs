//! What a load gave.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a load gave.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// How long the load went on.
    pub span: Duration,
    /// How long each request took, in nanoseconds, in order.
    pub nanos: Vec<u64>,
    /// CPU that the server used, in ticks of 10 ms.
    pub ticks: u64,
}

impl Sample {
    /// How much was done in a second.
    pub fn per_second(&self) -> f64 {
        self.nanos.len() as f64 / self.span.as_secs_f64().max(1e-9)
    }

    /// The time below which a part of the requests were answered.
    pub fn quantile(&self, part: f64) -> Duration {
        let last = self.nanos.len().saturating_sub(1);
        Duration::from_nanos(self.nanos.get((last as f64 * part) as usize).copied().unwrap_or_default())
    }

    /// CPU of the server for one request.
    pub fn cpu(&self) -> Duration {
        Duration::from_millis(10).mul_f64(self.ticks as f64 / self.nanos.len().max(1) as f64)
    }

    /// This and another round of the same load.
    #[must_use]
    pub fn and(mut self, other: Sample) -> Sample {
        self.span += other.span;
        self.ticks += other.ticks;
        self.nanos.extend(other.nanos);
        self.nanos.sort_unstable();
        self
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |part: f64| self.quantile(part).as_secs_f64() * 1000.0;
        write!(f, "{}/s, p50 {:.2} ms, p99 {:.2} ms", thousands(self.per_second()), ms(0.5), ms(0.99))
    }
}

/// A count for people: `12,345`, and one decimal below ten.
pub fn thousands(count: f64) -> String {
    if count < 10.0 {
        return format!("{count:.1}");
    }
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// CPU time that processes have used, in ticks of 10 ms.
pub fn cpu_ticks(pids: &[i32]) -> u64 {
    let of = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(')') else { return 0 };
        let fields: Vec<u64> = fields.split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
        fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0)
    };
    pids.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_of_a_load_add_up() {
        let of = |times: &[u64]| Sample {
            span: Duration::from_secs(2),
            nanos: times.iter().map(|t| t * 1_000_000).collect(),
            ticks: 3,
        };
        let both = of(&[1, 9]).and(of(&[2, 3]));
        assert_eq!((both.per_second(), both.quantile(0.5), both.ticks), (1.0, Duration::from_millis(2), 6));
        assert_eq!(both.cpu(), Duration::from_millis(15));
        assert_eq!(both.to_string(), "1.0/s, p50 2.00 ms, p99 3.00 ms");
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!([1.25, 999.0, 1000.0, 1_234_567.0].map(thousands), ["1.2", "999", "1,000", "1,234,567"]);
    }
}
