//! How wide a request is: how many seats it takes, and for how long (`apiserver/pkg/util/flowcontrol/request`).

use crate::Nanos;

/// Objects' bytes that one seat stands for.
const BYTES_PER_SEAT: u64 = 100_000;
/// What a list from the cache has in memory at once, at most, in bytes.
const STREAMED_BYTES_MAX: u64 = 1_000_000;
/// Seats of a list, at most.
const LIST_SEATS_MAX: u64 = 100;
/// Seats of a write, at most.
const WRITE_SEATS_MAX: u64 = 10;
/// Watchers whose work after a write is one seat's.
const WATCHERS_PER_SEAT: u64 = 10;
/// How long a seat is busy with the watchers of one event.
const EVENT_NANOS: Nanos = 5_000_000;

/// What a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Seats while it runs.
    pub seats: u64,
    /// Seats that stay taken after it, for what it sets in motion.
    pub last_seats: u64,
    /// For how long they do.
    pub lingers: Nanos,
}

impl Work {
    /// One seat, and nothing afterwards.
    pub const ONE: Work = Work { seats: 1, last_seats: 0, lingers: 0 };

    /// The seats that are kept for it throughout.
    pub fn width(&self) -> u64 {
        self.seats.max(self.last_seats)
    }

    /// The same work in at most so many seats at its end.
    pub(crate) fn narrowed(self, seats: u64) -> Work {
        if self.last_seats <= seats || seats == 0 {
            return self;
        }
        let total = u128::from(self.last_seats) * u128::from(self.lingers);
        let lingers = Nanos::try_from(total / u128::from(seats)).unwrap_or(Nanos::MAX);
        Work { last_seats: seats, lingers, ..self }
    }
}

/// A list, or a watch that begins with one.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListAsked {
    /// How many objects of the kind there are.
    pub objects: u64,
    /// The bytes of all of them.
    pub bytes: u64,
    /// `limit`; zero is none.
    pub limit: u64,
    /// Whether it selects by labels or fields.
    pub selects: bool,
    /// Whether it can only find the one object that it names.
    pub single: bool,
    /// Whether it is of an older state, which only the store has.
    pub from_store: bool,
}

/// The width of a list. `level_max` is the bound of its level, if that has one (`listWorkEstimator`).
pub fn of_list(asked: &ListAsked, level_max: Option<u64>) -> Work {
    let average = asked.bytes.checked_div(asked.objects).unwrap_or_default();
    let limited = if asked.limit > 0 { asked.limit.min(asked.objects) } else { asked.objects };
    let loaded = match asked {
        ListAsked { single: true, .. } => 1,
        ListAsked { from_store: true, selects: true, .. } => limited.max(asked.objects / 2),
        _ => limited,
    };
    let at_once = loaded.saturating_mul(average);
    let at_once = if asked.from_store { at_once } else { at_once.min(STREAMED_BYTES_MAX) };
    let max = level_max.unwrap_or(LIST_SEATS_MAX).min(LIST_SEATS_MAX);
    Work { seats: at_once.div_ceil(BYTES_PER_SEAT).clamp(1, max.max(1)), ..Work::ONE }
}

/// The width of a write that so many watchers will hear of (`mutatingWorkEstimator`).
pub fn of_write(watchers: u64, level_max: Option<u64>) -> Work {
    if watchers < WATCHERS_PER_SEAT {
        return Work::ONE;
    }
    let seats = watchers.div_ceil(WATCHERS_PER_SEAT);
    let max = level_max.unwrap_or(WRITE_SEATS_MAX).min(WRITE_SEATS_MAX);
    Work { seats: 1, last_seats: seats, lingers: EVENT_NANOS }.narrowed(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_width_grows_with_the_bytes_up_to_the_levels_bound() {
        let all = ListAsked { objects: 1000, bytes: 5_000_000, ..ListAsked::default() };
        for (asked, level_max, expected) in [
            (all, None, 10),
            (ListAsked { from_store: true, ..all }, None, 50),
            (ListAsked { from_store: true, limit: 100, ..all }, None, 5),
            (ListAsked { from_store: true, limit: 100, selects: true, ..all }, None, 25),
            (ListAsked { limit: 100, ..all }, None, 5),
            (ListAsked { single: true, ..all }, None, 1),
            (all, Some(4), 4),
            (ListAsked { bytes: 500_000_000, from_store: true, ..all }, Some(400), 100),
            (ListAsked::default(), Some(0), 1),
        ] {
            let work = of_list(&asked, level_max);
            assert_eq!((work.seats, work.last_seats), (expected, 0), "{asked:?} {level_max:?}");
        }
    }

    #[test]
    fn mutating_width_reshapes_what_watchers_cost() {
        for (watchers, level_max, expected) in [
            (0, None, Work::ONE),
            (9, None, Work::ONE),
            (10, None, Work { seats: 1, last_seats: 1, lingers: 5_000_000 }),
            (91, None, Work { seats: 1, last_seats: 10, lingers: 5_000_000 }),
            (1000, None, Work { seats: 1, last_seats: 10, lingers: 50_000_000 }),
            (1000, Some(5), Work { seats: 1, last_seats: 5, lingers: 100_000_000 }),
        ] {
            assert_eq!(of_write(watchers, level_max), expected, "{watchers}");
        }
    }
}
