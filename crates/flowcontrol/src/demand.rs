//! How many seats a level could use over time: what limits are adjusted by (`fairqueuing/integrator.go`).

use crate::Nanos;

/// How much of the smoothed demand stays from one period to the next: half of it for five minutes.
const KEEPS: f64 = 0.977;

/// Integrates a number of seats over time.
#[derive(Debug, Clone, Default)]
pub struct Demand {
    since: Option<Nanos>,
    seats: f64,
    elapsed: f64,
    sum: f64,
    squares: f64,
    highest: f64,
}

/// What was wanted in the past periods.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Smoothed {
    /// The mean of the last period, in seats.
    pub average: f64,
    /// The standard deviation in the last period.
    pub deviation: f64,
    /// The most in the last period.
    pub highest: u64,
    /// The mean plus the deviation; it grows at once and decays slowly.
    pub smoothed: f64,
}

impl Demand {
    /// The number is another from now on.
    pub fn set(&mut self, now: Nanos, seats: u64) {
        self.pass(now);
        self.seats = seats as f64;
        self.highest = self.highest.max(self.seats);
    }

    fn pass(&mut self, now: Nanos) {
        let since = self.since.replace(now).unwrap_or(now);
        let seconds = now.saturating_sub(since) as f64 / 1e9;
        self.elapsed += seconds;
        self.sum += self.seats * seconds;
        self.squares += self.seats * self.seats * seconds;
    }

    /// Ends a period, which may be several of the usual length, and begins the next.
    pub fn take(&mut self, now: Nanos, before: Smoothed, periods: f64) -> Smoothed {
        self.pass(now);
        let highest = self.highest.round() as u64;
        let past = std::mem::replace(
            self,
            Demand { since: self.since, seats: self.seats, highest: self.seats, ..Demand::default() },
        );
        if past.elapsed <= 0.0 {
            return Smoothed { highest, ..before };
        }
        let average = past.sum / past.elapsed;
        let deviation = (past.squares / past.elapsed - average * average).max(0.0).sqrt();
        let envelope = average + deviation;
        let keeps = KEEPS.powf(periods.max(1.0));
        Smoothed {
            average,
            deviation,
            highest,
            smoothed: envelope.max(keeps * before.smoothed + (1.0 - keeps) * envelope),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seat_demand_is_averaged_and_decays_slowly() {
        let mut demand = Demand::default();
        demand.set(0, 10);
        demand.set(5_000_000_000, 20);
        demand.set(10_000_000_000, 0);
        let first = demand.take(10_000_000_000, Smoothed::default(), 1.0);
        assert_eq!((first.average, first.deviation, first.highest, first.smoothed), (15.0, 5.0, 20, 20.0));
        let next = demand.take(20_000_000_000, first, 1.0);
        assert_eq!((next.average, next.highest), (0.0, 0));
        assert!((next.smoothed - 20.0 * KEEPS).abs() < 1e-9, "{next:?}");
        // Thirty quiet periods in one are as thirty quiet periods.
        let after = demand.take(320_000_000_000, next, 30.0);
        assert!((after.smoothed - 20.0 * KEEPS.powi(31)).abs() < 1e-9, "{after:?}");
    }
}
