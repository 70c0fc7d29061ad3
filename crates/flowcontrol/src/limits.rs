//! How many seats each level has: its part of the server's by its shares, and what levels lend each other
//! (`apiserver/pkg/util/flowcontrol/{apf_controller,conc_alloc}.go`).

use crate::{Capacity, Smoothed};

/// The seats of a level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// By its shares.
    pub nominal: u64,
    /// What it never lends.
    pub min: u64,
    /// What it has when it borrows all that it may.
    pub max: u64,
}

/// Divides the server's seats. Rounded up, so that the sum may be a little more.
pub fn divide(total: u64, levels: &[Capacity]) -> Vec<Limits> {
    let shares: u64 = levels.iter().map(|level| level.shares).sum();
    let percent = |of: u64, percent: u64| (of as f64 * percent as f64 / 100.0).round() as u64;
    let one = |level: &Capacity| {
        let nominal = if shares == 0 { 0 } else { (total as f64 * level.shares as f64 / shares as f64).ceil() as u64 };
        let borrows = level.borrowing_percent.map_or(total, |p| percent(nominal, p));
        Limits { nominal, min: nominal - percent(nominal, level.lendable_percent).min(nominal), max: nominal + borrows }
    };
    levels.iter().map(one).collect()
}

/// A level whose present limit is to be found.
#[derive(Debug, Clone, Copy)]
pub struct Wants {
    /// Its seats.
    pub limits: Limits,
    /// Whether it is never limited.
    pub exempt: bool,
    /// What it wanted.
    pub demand: Smoothed,
    /// Its limit until now.
    pub current: u64,
}

/// The limits for now.
#[derive(Debug, Clone, PartialEq)]
pub struct Adjusted {
    /// Per level: its limit, and what it was meant to be before all had to fit.
    pub levels: Vec<(u64, f64)>,
    /// How much of its target each level gets that is not held back by a bound.
    pub fair_fraction: f64,
}

/// Lends the seats of levels that do not use them (`updateBorrowingLocked`).
pub fn adjust(levels: &[Wants]) -> Adjusted {
    let nominal: u64 = levels.iter().map(|level| level.limits.nominal).sum();
    let highest = |level: &Wants| level.demand.highest;
    let least = |level: &Wants| match level.exempt {
        true => level.limits.min.max(highest(level)),
        false => level.limits.min.max(highest(level).min(level.limits.nominal)),
    };
    let exempt: u64 = levels.iter().filter(|level| level.exempt).map(&least).sum();
    let limited: Vec<&Wants> = levels.iter().filter(|level| !level.exempt).collect();
    let (mins, leasts): (u64, u64) =
        (limited.iter().map(|level| level.limits.min).sum(), limited.iter().map(|level| least(level)).sum());
    let left = nominal as i128 - i128::from(exempt);
    let target = |level: &Wants| (least(level) as f64).max(level.demand.smoothed);
    let (mins_left, leasts_left) = (left - i128::from(mins), left - i128::from(leasts));
    let mut fair_fraction = 0.0;
    let mut current: Vec<u64> = Vec::with_capacity(limited.len());
    if mins_left <= 0 {
        current.extend(limited.iter().map(|level| level.limits.min));
    } else if leasts_left <= 0 {
        let fraction = mins_left as f64 / (leasts - mins) as f64;
        let more = |level: &Wants| ((least(level) - level.limits.min) as f64 * fraction).round() as u64;
        current.extend(limited.iter().map(|level| level.limits.min + more(level)));
    } else {
        let bounds =
            |level: &&Wants| Bounds { low: least(level) as f64, high: level.limits.max as f64, target: target(level) };
        let bounds: Vec<Bounds> = limited.iter().map(bounds).collect();
        match allocate(nominal as f64, &bounds) {
            Some((found, fraction)) => {
                current.extend(found.iter().map(|seats| seats.round() as u64));
                fair_fraction = fraction;
            }
            None => current.extend(limited.iter().map(|level| level.current)),
        }
    }
    let mut current = current.into_iter();
    let levels = levels.iter().map(|level| match level.exempt {
        true => (least(level), target(level)),
        false => (current.next().unwrap_or(level.current), target(level)),
    });
    Adjusted { levels: levels.collect(), fair_fraction }
}

/// What one class may get, and should.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// At least.
    pub low: f64,
    /// At most.
    pub high: f64,
    /// In proportion to this.
    pub target: f64,
}

const TARGET_MIN: f64 = 0.001;
const EPSILON: f64 = 0.000_000_1;

/// Divides `sum`: every class gets the same multiple of its target, or the bound that this would pass; with that multiple.
/// `None` if the bounds do not allow it (`computeConcurrencyAllocation`).
pub fn allocate(sum: f64, classes: &[Bounds]) -> Option<(Vec<f64>, f64)> {
    let low: f64 = classes.iter().map(|class| class.low).sum();
    let high: f64 = classes.iter().map(|class| class.high).sum();
    let sound = |class: &Bounds| class.low >= 0.0 && class.target >= class.low && class.high >= class.low;
    if !classes.iter().all(sound) || low - sum > EPSILON || sum - high > EPSILON || sum < 0.0 {
        return None;
    }
    let target = |class: &Bounds| class.target.max(TARGET_MIN);
    let at = |multiple: f64| move |class: &Bounds| (multiple * target(class)).clamp(class.low, class.high);
    let given = |multiple: f64| classes.iter().map(at(multiple)).sum::<f64>();
    // What is given is a rising, piecewise linear function of the multiple, with corners where a class meets a bound.
    let mut corners: Vec<f64> =
        classes.iter().flat_map(|class| [class.low / target(class), class.high / target(class)]).collect();
    corners.sort_unstable_by(f64::total_cmp);
    let after = corners.iter().position(|corner| given(*corner) >= sum - EPSILON);
    let multiple = match after {
        None | Some(0) => corners.get(after.unwrap_or(corners.len().saturating_sub(1))).copied().unwrap_or_default(),
        Some(n) => {
            let (from, to) = (corners[n - 1], corners[n]);
            let (a, b) = (given(from), given(to));
            if b - a > EPSILON { from + (to - from) * ((sum - a) / (b - a)).clamp(0.0, 1.0) } else { to }
        }
    };
    Some((classes.iter().map(at(multiple)).collect(), multiple))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(shares: u64, lendable_percent: u64) -> Capacity {
        Capacity { shares, lendable_percent, borrowing_percent: None }
    }

    #[test]
    fn nominal_seats_of_the_bootstrap_levels_are_upstreams() {
        // catch-all, exempt, global-default, leader-election, node-high, system, workload-high, workload-low
        let levels =
            [(5, 0), (0, 0), (20, 50), (10, 0), (40, 25), (30, 33), (40, 50), (100, 90)].map(|(s, l)| capacity(s, l));
        let limits = divide(600, &levels);
        let nominal: Vec<u64> = limits.iter().map(|l| l.nominal).collect();
        assert_eq!(nominal, [13, 0, 49, 25, 98, 74, 98, 245]);
        let min: Vec<u64> = limits.iter().map(|l| l.min).collect();
        assert_eq!(min, [13, 0, 24, 25, 73, 50, 49, 24]);
        assert_eq!(limits[7].max, 845);
    }

    fn quiet(limits: Limits) -> Wants {
        Wants { limits, exempt: false, demand: Smoothed::default(), current: 0 }
    }

    fn busy(limits: Limits, seats: u64) -> Wants {
        let demand = Smoothed { average: seats as f64, deviation: 0.0, highest: seats, smoothed: seats as f64 };
        Wants { demand, ..quiet(limits) }
    }

    #[test]
    fn borrowing_gives_a_busy_level_what_quiet_ones_lend() {
        let limits = divide(100, &[capacity(50, 50), capacity(50, 50)]);
        let adjusted = adjust(&[busy(limits[0], 200), quiet(limits[1])]);
        assert_eq!(adjusted.levels.iter().map(|l| l.0).collect::<Vec<_>>(), [75, 25]);
        // Both busy: each has its own.
        let adjusted = adjust(&[busy(limits[0], 200), busy(limits[1], 200)]);
        assert_eq!(adjusted.levels.iter().map(|l| l.0).collect::<Vec<_>>(), [50, 50]);
    }

    #[test]
    fn borrowing_is_bounded_by_borrowing_limit_percent() {
        let bounded = Capacity { borrowing_percent: Some(10), ..capacity(50, 50) };
        let limits = divide(100, &[bounded, capacity(50, 50)]);
        assert_eq!((limits[0].max, limits[1].max), (55, 150));
        let adjusted = adjust(&[busy(limits[0], 200), quiet(limits[1])]);
        assert_eq!(adjusted.levels.iter().map(|l| l.0).collect::<Vec<_>>(), [55, 45]);
    }

    #[test]
    fn exempt_seats_are_taken_from_what_can_be_lent() {
        let limits = divide(100, &[capacity(0, 0), capacity(50, 0), capacity(50, 80)]);
        let exempt = Wants { exempt: true, ..busy(limits[0], 1000) };
        let adjusted = adjust(&[exempt, quiet(limits[1]), quiet(limits[2])]);
        assert_eq!(adjusted.levels.iter().map(|l| l.0).collect::<Vec<_>>(), [1000, 50, 10]);
        let exempt = Wants { exempt: true, ..busy(limits[0], 30) };
        let adjusted = adjust(&[exempt, quiet(limits[1]), busy(limits[2], 50)]);
        // 100 - 30 are left, 60 are never lent, and 100 are wanted: a quarter of what is above.
        assert_eq!(adjusted.levels.iter().map(|l| l.0).collect::<Vec<_>>(), [30, 50, 20]);
    }

    #[test]
    fn allocation_meets_its_sum_and_its_bounds() {
        let class = |low, high, target| Bounds { low, high, target };
        assert_eq!(allocate(10.0, &[class(0.0, 20.0, 1.0), class(0.0, 20.0, 1.0)]).unwrap(), (vec![5.0, 5.0], 5.0));
        assert_eq!(allocate(10.0, &[class(8.0, 20.0, 8.0), class(0.0, 20.0, 8.0)]).unwrap().0, [8.0, 2.0]);
        assert_eq!(allocate(10.0, &[class(0.0, 3.0, 1.0), class(0.0, 20.0, 1.0)]).unwrap().0, [3.0, 7.0]);
        assert_eq!(allocate(6.0, &[class(3.0, 5.0, 4.0), class(3.0, 5.0, 4.0)]).unwrap().0, [3.0, 3.0]);
        assert_eq!(allocate(10.0, &[class(3.0, 5.0, 4.0), class(3.0, 5.0, 4.0)]).unwrap().0, [5.0, 5.0]);
        assert!(allocate(11.0, &[class(3.0, 5.0, 4.0), class(3.0, 5.0, 4.0)]).is_none());
        assert!(allocate(5.0, &[class(3.0, 5.0, 4.0), class(3.0, 5.0, 4.0)]).is_none());
        assert!(allocate(5.0, &[class(3.0, 5.0, 2.0)]).is_none());
        // Many random problems: the sum is met, and everyone who is not at a bound has the same multiple.
        let mut seed = 7u64;
        let mut next = move |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        for _ in 0..500 {
            let classes: Vec<Bounds> = (0..1 + next(8))
                .map(|_| {
                    let low = next(50) as f64;
                    class(low, low + next(100) as f64, low + next(100) as f64)
                })
                .collect();
            let (low, high) = classes.iter().fold((0.0, 0.0), |(l, h), c| (l + c.low, h + c.high));
            let sum = low + (high - low) * next(101) as f64 / 100.0;
            let (given, multiple) = allocate(sum, &classes).unwrap();
            assert!((given.iter().sum::<f64>() - sum).abs() < 1e-6, "{classes:?} {sum} {given:?}");
            for (class, seats) in classes.iter().zip(&given) {
                let fair = class.target.max(TARGET_MIN) * multiple;
                let at_bound = *seats == class.low && fair <= class.low + 1e-6
                    || *seats == class.high && fair >= class.high - 1e-6;
                assert!(at_bound || (seats - fair).abs() < 1e-6, "{class:?} {seats} {fair}");
            }
        }
    }
}
