//! The newest events of all kinds, in order, bounded by count and bytes.
//!
//! Events are numbered. Each kind keeps the numbers of its own events, so that a watcher finds its next one without looking at
//! the others', and so that a watcher of a quiet kind never falls off: it is behind only when an event *of its kind* was dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use corten_base::Revision;
use corten_object::KindId;

use crate::Event;

/// Bounds of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLimits {
    pub events_max: usize,
    /// Counts each event's object in full, although the newest are the cache's own as well.
    pub bytes_max: usize,
}

impl Default for RingLimits {
    fn default() -> RingLimits {
        RingLimits { events_max: 20_000, bytes_max: 16 << 20 }
    }
}

/// The events of which kinds a cursor sees, and is woken by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Everything,
    Kind(KindId),
    /// See [`Scope::kinds`].
    Kinds(Arc<[KindId]>),
}

impl Scope {
    /// Several kinds, in any order.
    pub fn kinds(mut kinds: Vec<KindId>) -> Scope {
        kinds.sort_unstable();
        kinds.dedup();
        Scope::Kinds(kinds.into())
    }
}

/// The cursor's place is before the oldest event that it would have to see: it must list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {requested} ({oldest})")]
pub struct Gone {
    pub requested: Revision,
    /// The oldest revision from which following is possible.
    pub oldest: Revision,
}

pub(crate) struct Ring {
    limits: RingLimits,
    events: VecDeque<Arc<Event>>,
    /// The number of `events[0]`.
    first: u64,
    bytes: usize,
    /// Everything up to here has been pushed.
    revision: Revision,
    all: Track,
    kinds: Vec<Track>,
    /// Counts reloads; cursors of another life are gone.
    life: u64,
}

/// The events of one scope.
#[derive(Clone, Default)]
struct Track {
    /// Numbers in the ring; unused for the whole ring, which needs none.
    numbers: VecDeque<u64>,
    /// Changes up to this revision may be missing.
    floor: Revision,
    /// The number after the newest event that was dropped.
    dropped: u64,
}

/// A place in the ring: all events with smaller numbers have been seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) next: u64,
    life: u64,
    /// What to name when it is gone.
    pub(crate) seen: Revision,
}

impl Ring {
    pub(crate) fn new(kinds: usize, limits: RingLimits) -> Ring {
        Ring {
            limits,
            events: VecDeque::new(),
            first: 0,
            bytes: 0,
            revision: Revision::ZERO,
            all: Track::default(),
            kinds: vec![Track::default(); kinds],
            life: 0,
        }
    }

    /// Begins anew at a revision: nothing before it is known, and all cursors are gone.
    pub(crate) fn reset(&mut self, revision: Revision) {
        self.first += self.events.len() as u64;
        self.events.clear();
        self.bytes = 0;
        self.revision = revision;
        self.life += 1;
        let track = Track { numbers: VecDeque::new(), floor: revision, dropped: self.first };
        self.all = track.clone();
        self.kinds.fill(track);
    }

    /// Makes room for more kinds, which have had no events before now.
    pub(crate) fn grow(&mut self, kinds: usize) {
        if kinds > self.kinds.len() {
            let next = self.first + self.events.len() as u64;
            let track = Track { numbers: VecDeque::new(), floor: self.revision, dropped: next };
            self.kinds.resize(kinds, track);
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn push(&mut self, event: Arc<Event>) {
        let number = self.first + self.events.len() as u64;
        self.bytes += event.size_bytes();
        if let Some(track) = self.kinds.get_mut(event.kind.0 as usize) {
            track.numbers.push_back(number);
        }
        self.events.push_back(event);
        while self.events.len() > self.limits.events_max
            || (self.bytes > self.limits.bytes_max && self.events.len() > 1)
        {
            self.drop_oldest();
        }
    }

    /// Says that all events up to a revision have been pushed.
    pub(crate) fn advance(&mut self, revision: Revision) {
        self.revision = revision;
    }

    fn drop_oldest(&mut self) {
        let Some(event) = self.events.pop_front() else { return };
        self.bytes -= event.size_bytes();
        self.first += 1;
        let own = self.kinds.get_mut(event.kind.0 as usize);
        for track in [Some(&mut self.all), own].into_iter().flatten() {
            track.numbers.pop_front_if_before(self.first);
            track.floor = event.revision;
            track.dropped = self.first;
        }
    }

    /// The place behind all events up to a revision.
    pub(crate) fn place_after(&self, scope: &Scope, after: Revision) -> Result<Place, Gone> {
        let floor = self.floor(scope);
        if after < floor {
            return Err(Gone { requested: after, oldest: floor });
        }
        let skipped = self.events.partition_point(|event| event.revision <= after);
        Ok(Place { next: self.first + skipped as u64, life: self.life, seen: after })
    }

    /// The events at and after a place, at most `limit`, and the place behind them.
    pub(crate) fn read(&self, scope: &Scope, place: Place, limit: usize) -> Result<(Vec<Arc<Event>>, Place), Gone> {
        let dropped = self.tracks(scope).map(|track| track.dropped).max().unwrap_or_default();
        if place.life != self.life || place.next < dropped {
            return Err(Gone { requested: place.seen, oldest: self.floor(scope) });
        }
        let numbers: Vec<u64> = match scope {
            Scope::Everything => {
                let end = self.first + self.events.len() as u64;
                (place.next.max(self.first)..end).take(limit).collect()
            }
            Scope::Kind(_) => self.tracks(scope).flat_map(|track| track.after(place.next).take(limit)).collect(),
            Scope::Kinds(_) => {
                let each = self.tracks(scope).flat_map(|track| track.after(place.next).take(limit));
                let mut numbers: Vec<u64> = each.collect();
                numbers.sort_unstable();
                numbers.truncate(limit);
                numbers
            }
        };
        let found: Vec<Arc<Event>> =
            numbers.iter().map(|number| self.events[(number - self.first) as usize].clone()).collect();
        let place = match (numbers.last(), found.last()) {
            // There may be more. Events of the last revision may still follow, so what is surely seen is the one before.
            (Some(number), Some(event)) if found.len() == limit => {
                Place { next: number + 1, seen: Revision(event.revision.0 - 1), ..place }
            }
            _ => Place { next: self.first + self.events.len() as u64, seen: self.revision, ..place },
        };
        Ok((found, place))
    }

    /// The revision from which on nothing of a scope is missing.
    fn floor(&self, scope: &Scope) -> Revision {
        self.tracks(scope).map(|track| track.floor).max().unwrap_or_default()
    }

    fn tracks<'r>(&'r self, scope: &'r Scope) -> impl Iterator<Item = &'r Track> {
        let (all, kinds) = match scope {
            Scope::Everything => (Some(&self.all), &[][..]),
            Scope::Kind(kind) => (None, std::slice::from_ref(kind)),
            Scope::Kinds(kinds) => (None, &**kinds),
        };
        all.into_iter().chain(kinds.iter().map(|kind| &self.kinds[kind.0 as usize]))
    }
}

impl Track {
    /// The numbers from one on.
    fn after(&self, next: u64) -> impl Iterator<Item = u64> {
        let at = self.numbers.partition_point(|number| *number < next);
        self.numbers.iter().skip(at).copied()
    }
}

trait PopBefore {
    fn pop_front_if_before(&mut self, first: u64);
}

impl PopBefore for VecDeque<u64> {
    /// Forgets the first number if the ring no longer has it.
    fn pop_front_if_before(&mut self, first: u64) {
        if self.front().is_some_and(|number| *number < first) {
            self.pop_front();
        }
    }
}
