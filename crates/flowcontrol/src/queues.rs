//! The requests of one level: who runs, who waits, who is next (`fairqueuing/queueset/queueset.go`).
//!
//! Fair queueing for requests: every queue that has something to do should get the same seats. A meter, R, runs as fast as
//! one of them would be served: it is what each was due so far, in seat-seconds. A queue's next request may begin when R
//! reaches what the queue was given before; the one that would so be through first is next. As nobody knows how long a
//! request will run, an estimate is charged when it begins and corrected when it ends.

use std::collections::VecDeque;

use crate::shuffle::{Dealer, HAND_MAX};
use crate::stats::FlowStats;
use crate::{Demand, Nanos, Response, Smoothed, Work};

/// What a request is charged for each of its seats when it begins.
const ESTIMATE_NANOS: i128 = 3_000_000;
/// Seats and nanoseconds, multiplied. They do not overflow in the life of any machine.
type SeatNanos = i128;

/// A request that is in the set; good until it has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(usize);

/// A request that comes in.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The place of its schema (see [`QueueSet::schema`]).
    pub schema: usize,
    /// The hash of its flow.
    pub hash: u64,
    /// What it takes.
    pub work: Work,
    /// Whether it is a watch, which takes seats only until it has begun.
    pub watch: bool,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its queue is full.
    QueueFull,
    /// There is no seat, and no queue.
    ConcurrencyLimit,
}

/// What becomes of a request that comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// It runs.
    Runs(Id),
    /// It waits; its token is woken when it may run.
    Waits(Id),
    /// It is turned away.
    Refused(Refusal),
}

/// What is left of a request that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing.
    Gone,
    /// Its seats stay taken for so long; [`QueueSet::release`] frees them.
    Lingers(Nanos),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running,
    Lingering,
}

struct Entry<T> {
    phase: Phase,
    /// The number of its queue, if it came by one.
    queue: Option<usize>,
    arrival: Arrival,
    /// What it is charged at its beginning.
    charge: SeatNanos,
    arrived: Nanos,
    arrived_r: SeatNanos,
    began: Nanos,
    token: T,
}

/// A queue that has something to do. One that has not needs no memory: it begins anew at the present R.
struct Queue {
    number: usize,
    waiting: VecDeque<usize>,
    /// What those that wait will be charged.
    waiting_charge: SeatNanos,
    next_r: SeatNanos,
    running: usize,
    seats: u64,
}

/// Numbers of one level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that wait.
    pub waiting: u64,
    /// Requests that run.
    pub executing: u64,
    /// Seats that are taken.
    pub seats_in_use: u64,
    /// Seats that those that wait will take.
    pub seats_waiting: u64,
    /// Requests that were let in.
    pub dispatched: u64,
    /// Requests that were turned away, for whatever reason.
    pub rejected: u64,
    /// Requests that did not wait any longer.
    pub cancelled: u64,
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In a queue, at this place.
    Waiting(usize),
    /// It runs.
    Running,
}

/// One request, to be shown.
pub struct Shown<'a, T> {
    /// The number of its queue, if it has one.
    pub queue: Option<usize>,
    /// Where it is.
    pub state: State,
    /// Its schema.
    pub schema: &'a str,
    /// What it takes.
    pub work: Work,
    /// When it came.
    pub arrived: Nanos,
    /// When it began.
    pub began: Nanos,
    /// What was given with it.
    pub token: &'a T,
}

/// One queue, to be shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShownQueue {
    /// Its number.
    pub number: usize,
    /// Requests that wait in it.
    pub waiting: usize,
    /// Requests of it that run.
    pub running: usize,
    /// Seats that they have.
    pub seats: u64,
    /// The R at which its next request may begin, in seat-seconds.
    pub next_r: f64,
    /// Seats with which those that wait will begin.
    pub first_seats: u64,
    /// Seats that are kept for them.
    pub widths: u64,
    /// Their work, in seat-seconds.
    pub work: f64,
}

/// The requests of one level. `T` goes along with each.
pub struct QueueSet<T> {
    /// `None`: whoever comes runs.
    response: Option<Response>,
    dealer: Option<Dealer>,
    limit: u64,
    /// In the order of their numbers.
    queues: Vec<Queue>,
    entries: Vec<Option<Entry<T>>>,
    free: Vec<usize>,
    stats: Vec<FlowStats>,
    totals: Totals,
    /// Queues that are due seats.
    active: u64,
    /// Seats that queues have or will have.
    queued_seats: u64,
    r: SeatNanos,
    r_at: Nanos,
    /// The number of the queue that was served last.
    robin: usize,
    enqueues: usize,
    demand: Demand,
}

impl<T> QueueSet<T> {
    /// An empty one.
    pub fn new(response: Option<Response>, limit: u64, now: Nanos) -> QueueSet<T> {
        let mut set = QueueSet {
            response: None,
            dealer: None,
            limit: 0,
            queues: Vec::new(),
            entries: Vec::new(),
            free: Vec::new(),
            stats: Vec::new(),
            totals: Totals::default(),
            active: 0,
            queued_seats: 0,
            r: 0,
            r_at: now,
            robin: 0,
            enqueues: 0,
            demand: Demand::default(),
        };
        set.configure(response, limit, now, &mut |_| {});
        set
    }

    /// Goes on with another configuration. What waits stays where it is.
    pub fn configure(&mut self, response: Option<Response>, limit: u64, now: Nanos, wake: &mut impl FnMut(&mut T)) {
        self.pass(now);
        self.response = response;
        self.dealer = match response {
            Some(Response::Queue(queuing)) => Dealer::new(queuing.queues, queuing.hand_size),
            _ => None,
        };
        self.limit = limit;
        self.dispatch(now, wake);
    }

    /// Sets the number of seats.
    pub fn set_limit(&mut self, limit: u64, now: Nanos, wake: &mut impl FnMut(&mut T)) {
        self.configure(self.response, limit, now, wake);
    }

    /// The place of a schema in the counts. Places of schemas that are not `kept` and have no requests are used again.
    pub fn schema(&mut self, name: &str, kept: impl Fn(&str) -> bool) -> usize {
        if let Some(found) = self.stats.iter().position(|stats| stats.schema == name) {
            return found;
        }
        let stats = FlowStats::new(name);
        match self.stats.iter().position(|old| old.is_idle() && !kept(&old.schema)) {
            Some(place) => {
                self.stats[place] = stats;
                place
            }
            None => {
                self.stats.push(stats);
                self.stats.len() - 1
            }
        }
    }

    /// Lets a request in, or into a queue, or not.
    pub fn begin(&mut self, now: Nanos, arrival: Arrival, token: T, wake: &mut impl FnMut(&mut T)) -> Begin {
        self.pass(now);
        let width = arrival.work.width();
        self.stats[arrival.schema].seats.observe(width as f64);
        let Some(dealer) = self.dealer else {
            if self.response.is_some() && !self.fits(width) {
                self.totals.rejected += 1;
                self.stats[arrival.schema].rejected[1] += 1;
                self.waited(arrival.schema, false, 0);
                return Begin::Refused(Refusal::ConcurrencyLimit);
            }
            let id = self.enter(now, arrival, None, token);
            self.runs(id, now);
            return Begin::Runs(Id(id));
        };
        let number = self.deal(&dealer, arrival.hash);
        let waiting = self.queue(number).map_or(0, |at| self.queues[at].waiting.len());
        if self.totals.seats_in_use >= self.limit && waiting >= self.length_limit() {
            self.totals.rejected += 1;
            self.stats[arrival.schema].rejected[0] += 1;
            self.waited(arrival.schema, false, 0);
            return Begin::Refused(Refusal::QueueFull);
        }
        let at = self.open(number);
        let id = self.enter(now, arrival, Some(number), token);
        self.stats[arrival.schema].queue_length.observe(waiting as f64 + 1.0);
        if self.totals.waiting == 0 && self.totals.seats_in_use < self.limit && self.fits(width) {
            // It would be the only one that waits: nothing to choose from.
            self.robin = number;
            self.queued_seats += width;
            self.start(id, at, now);
            return Begin::Runs(Id(id));
        }
        let charge = self.entry(id).charge;
        let queue = &mut self.queues[at];
        queue.waiting.push_back(id);
        queue.waiting_charge += charge;
        self.bound(at);
        self.queued_seats += width;
        self.totals.waiting += 1;
        self.totals.seats_waiting += width;
        let stats = &mut self.stats[arrival.schema];
        stats.waiting = (stats.waiting.0 + 1, stats.waiting.1 + width);
        self.note_demand(now);
        self.dispatch_others(now, Some(id), wake);
        match self.entry(id).phase {
            Phase::Waiting => Begin::Waits(Id(id)),
            _ => Begin::Runs(Id(id)),
        }
    }

    /// What goes along with a request.
    pub fn token(&mut self, id: Id) -> &mut T {
        &mut self.entry(id.0).token
    }

    /// A request does not wait any longer. True if it is gone; false if it has been let in meanwhile.
    pub fn give_up(&mut self, id: Id, now: Nanos) -> bool {
        if self.entry(id.0).phase != Phase::Waiting {
            return false;
        }
        self.pass(now);
        let (number, charge) = (self.entry(id.0).queue, self.entry(id.0).charge);
        if let Some(at) = number.and_then(|number| self.queue(number)) {
            let queue = &mut self.queues[at];
            queue.waiting.retain(|waiting| *waiting != id.0);
            queue.waiting_charge -= charge;
            self.active -= u64::from(queue.running == 0 && queue.waiting.is_empty());
            self.bound(at);
        }
        let entry = self.leave(id.0);
        let (schema, width) = (entry.arrival.schema, entry.arrival.work.width());
        self.no_longer_waiting(schema, width);
        self.queued_seats -= width;
        self.close(number);
        self.totals.rejected += 1;
        self.totals.cancelled += 1;
        self.stats[schema].rejected[2] += 1;
        self.waited(schema, false, now.saturating_sub(entry.arrived));
        self.note_demand(now);
        true
    }

    /// A request that ran is over. If its seats linger, [`QueueSet::release`] must follow.
    pub fn end(&mut self, id: Id, now: Nanos, wake: &mut impl FnMut(&mut T)) -> Ended {
        self.pass(now);
        let entry = self.entry(id.0);
        if entry.phase != Phase::Running {
            return Ended::Gone;
        }
        entry.phase = Phase::Lingering;
        let ran = now.saturating_sub(entry.began);
        let (number, arrival) = (entry.queue, entry.arrival);
        self.totals.executing -= 1;
        let stats = &mut self.stats[arrival.schema];
        stats.executing.0 -= 1;
        stats.run_seconds[usize::from(!arrival.watch)].observe(ran as f64 / 1e9);
        if let Some(at) = number.and_then(|number| self.queue(number)) {
            let queue = &mut self.queues[at];
            queue.running -= 1;
            queue.next_r -= i128::from(arrival.work.seats) * (ESTIMATE_NANOS - i128::from(ran));
            self.active -= u64::from(queue.running == 0 && queue.waiting.is_empty());
            self.bound(at);
        }
        if arrival.work.lingers > 0 {
            self.dispatch(now, wake);
            return Ended::Lingers(arrival.work.lingers);
        }
        self.free_seats(id.0, now);
        self.dispatch(now, wake);
        Ended::Gone
    }

    /// The seats of a request that is over are free now.
    pub fn release(&mut self, id: Id, now: Nanos, wake: &mut impl FnMut(&mut T)) {
        self.pass(now);
        self.free_seats(id.0, now);
        self.dispatch(now, wake);
    }

    /// Counts the watchers of a write.
    pub fn note_watchers(&mut self, schema: usize, watchers: u64) {
        self.stats[schema].watchers.observe(watchers as f64);
    }

    /// Whether nothing waits, runs or lingers.
    pub fn is_idle(&self) -> bool {
        self.totals.waiting == 0 && self.totals.executing == 0 && self.totals.seats_in_use == 0
    }

    /// The number of seats.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The numbers of now.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// What each queue was due so far, in seat-seconds.
    pub fn progress(&self) -> f64 {
        self.r as f64 / 1e9
    }

    /// What was counted, by schema.
    pub fn stats(&self) -> &[FlowStats] {
        &self.stats
    }

    /// Ends a period of the demand for seats.
    pub fn take_demand(&mut self, now: Nanos, before: Smoothed, periods: f64) -> Smoothed {
        self.demand.take(now, before, periods)
    }

    /// The requests that are here, in no order.
    pub fn requests(&self) -> impl Iterator<Item = Shown<'_, T>> {
        self.entries.iter().enumerate().filter_map(|(id, entry)| {
            let entry = entry.as_ref()?;
            let state = match entry.phase {
                Phase::Waiting => State::Waiting(self.place(entry.queue, id)),
                Phase::Running => State::Running,
                Phase::Lingering => return None,
            };
            Some(Shown {
                queue: entry.queue,
                state,
                schema: &self.stats[entry.arrival.schema].schema,
                work: entry.arrival.work,
                arrived: entry.arrived,
                began: entry.began,
                token: &entry.token,
            })
        })
    }

    /// Each queue that has something to do.
    pub fn queues(&self) -> impl Iterator<Item = ShownQueue> {
        self.queues.iter().map(|queue| {
            let works =
                queue.waiting.iter().filter_map(|id| self.entries[*id].as_ref()).map(|entry| entry.arrival.work);
            let (first_seats, widths) = works.fold((0, 0), |(a, b), work| (a + work.seats, b + work.width()));
            ShownQueue {
                number: queue.number,
                waiting: queue.waiting.len(),
                running: queue.running,
                seats: queue.seats,
                next_r: queue.next_r as f64 / 1e9,
                first_seats,
                widths,
                work: queue.waiting_charge as f64 / 1e9,
            }
        })
    }

    fn place(&self, queue: Option<usize>, id: usize) -> usize {
        let at = queue.and_then(|number| self.queue(number));
        at.and_then(|at| self.queues[at].waiting.iter().position(|w| *w == id)).unwrap_or_default()
    }

    fn entry(&mut self, id: usize) -> &mut Entry<T> {
        self.entries[id].as_mut().expect("an id is used only until its request has left")
    }

    fn enter(&mut self, now: Nanos, arrival: Arrival, queue: Option<usize>, token: T) -> usize {
        let work = arrival.work;
        let charge = i128::from(work.seats) * ESTIMATE_NANOS + i128::from(work.last_seats) * i128::from(work.lingers);
        let arrived_r = self.r;
        let entry = Entry { phase: Phase::Waiting, queue, arrival, charge, arrived: now, arrived_r, began: now, token };
        match self.free.pop() {
            Some(id) => {
                self.entries[id] = Some(entry);
                id
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() - 1
            }
        }
    }

    fn leave(&mut self, id: usize) -> Entry<T> {
        let entry = self.entries[id].take().expect("a request leaves once");
        self.free.push(id);
        entry
    }

    fn length_limit(&self) -> usize {
        match self.response {
            Some(Response::Queue(queuing)) => queuing.length_limit,
            _ => 0,
        }
    }

    /// R goes on as it went since it was last looked at (`syncTimeLocked`).
    fn pass(&mut self, now: Nanos) {
        let passed = now.saturating_sub(self.r_at);
        self.r_at = self.r_at.max(now);
        if self.active > 0 {
            self.r += i128::from(self.queued_seats.min(self.limit)) * i128::from(passed) / i128::from(self.active);
        }
    }

    /// `canAccommodateSeatsLocked`
    fn fits(&self, width: u64) -> bool {
        match width > self.limit {
            // What is wider than the level runs alone.
            true => self.totals.executing == 0,
            false => self.totals.seats_in_use + width <= self.limit,
        }
    }

    /// The queue of a flow's hand with the least work waiting. Where the search begins changes, so that flows which share a
    /// queue do not always prefer the same.
    fn deal(&mut self, dealer: &Dealer, hash: u64) -> usize {
        let mut hand = [0; HAND_MAX];
        let hand = dealer.deal(hash, &mut hand);
        let offset = self.enqueues % hand.len();
        self.enqueues = self.enqueues.wrapping_add(1);
        let cards = (0..hand.len()).map(|i| hand[(offset + i) % hand.len()]);
        let charge = |number: &usize| self.queue(*number).map_or(0, |at| self.queues[at].waiting_charge);
        cards.min_by_key(charge).unwrap_or_default()
    }

    fn queue(&self, number: usize) -> Option<usize> {
        self.queues.binary_search_by_key(&number, |queue| queue.number).ok()
    }

    /// The queue of a number, which begins at the present R if it had nothing to do; it has now.
    fn open(&mut self, number: usize) -> usize {
        let r = self.r;
        let at = match self.queues.binary_search_by_key(&number, |queue| queue.number) {
            Ok(at) => at,
            Err(at) => {
                let queue =
                    Queue { number, waiting: VecDeque::new(), waiting_charge: 0, next_r: r, running: 0, seats: 0 };
                self.queues.insert(at, queue);
                at
            }
        };
        let queue = &mut self.queues[at];
        if queue.running == 0 && queue.waiting.is_empty() {
            queue.next_r = r;
            self.active += 1;
        }
        at
    }

    /// Forgets a queue that has nothing to do. The last that waited has just left it, or the last seats.
    fn close(&mut self, number: Option<usize>) {
        let Some(at) = number.and_then(|number| self.queue(number)) else { return };
        let queue = &self.queues[at];
        if queue.waiting.is_empty() && queue.running == 0 && queue.seats == 0 {
            self.queues.remove(at);
        }
    }

    /// A queue's next request does not begin before it came (`boundNextDispatchLocked`): a queue that cannot use its part does
    /// not save it up.
    fn bound(&mut self, at: usize) {
        if let Some(oldest) = self.queues[at].waiting.front().copied() {
            let arrived_r = self.entry(oldest).arrived_r;
            let queue = &mut self.queues[at];
            queue.next_r = queue.next_r.max(arrived_r);
        }
    }

    fn dispatch(&mut self, now: Nanos, wake: &mut impl FnMut(&mut T)) {
        self.dispatch_others(now, None, wake);
    }

    /// Lets in as many as fit, and wakes them, all but `own`.
    fn dispatch_others(&mut self, now: Nanos, own: Option<usize>, wake: &mut impl FnMut(&mut T)) {
        while self.totals.waiting > 0 && self.totals.seats_in_use < self.limit {
            let Some(id) = self.dispatch_one(now) else { return };
            if own != Some(id) {
                wake(&mut self.entry(id).token);
            }
        }
    }

    /// The request that would be through first, if it fits (`findDispatchQueueToBoundLocked`).
    fn dispatch_one(&mut self, now: Nanos) -> Option<usize> {
        let after = self.queues.partition_point(|queue| queue.number <= self.robin);
        let count = self.queues.len();
        let mut best: Option<(SeatNanos, usize, usize)> = None;
        for at in (0..count).map(|i| (after + i) % count) {
            let queue = &self.queues[at];
            let Some(oldest) = queue.waiting.front().copied() else { continue };
            let through = queue.next_r + self.entries[oldest].as_ref().map_or(0, |entry| entry.charge);
            if best.is_none_or(|(least, _, _)| through < least) {
                best = Some((through, at, oldest));
            }
        }
        let (_, at, id) = best?;
        let arrival = self.entry(id).arrival;
        let width = arrival.work.width();
        if !self.fits(width) {
            self.stats[arrival.schema].no_accommodation += 1;
            return None;
        }
        let charge = self.entry(id).charge;
        let queue = &mut self.queues[at];
        queue.waiting.pop_front();
        queue.waiting_charge -= charge;
        self.robin = queue.number;
        self.no_longer_waiting(arrival.schema, width);
        let narrowed = arrival.work.narrowed(self.limit);
        self.entry(id).arrival.work = narrowed;
        self.queued_seats -= width - narrowed.width();
        self.start(id, at, now);
        self.bound(at);
        Some(id)
    }

    fn no_longer_waiting(&mut self, schema: usize, width: u64) {
        self.totals.waiting -= 1;
        self.totals.seats_waiting -= width;
        let stats = &mut self.stats[schema];
        stats.waiting = (stats.waiting.0 - 1, stats.waiting.1 - width);
    }

    /// A request of a queue begins.
    fn start(&mut self, id: usize, at: usize, now: Nanos) {
        let (charge, width) = (self.entry(id).charge, self.entry(id).arrival.work.width());
        let queue = &mut self.queues[at];
        queue.running += 1;
        queue.seats += width;
        queue.next_r += charge;
        self.runs(id, now);
    }

    fn runs(&mut self, id: usize, now: Nanos) {
        let entry = self.entry(id);
        entry.phase = Phase::Running;
        entry.began = now;
        let (arrival, waited) = (entry.arrival, now.saturating_sub(entry.arrived));
        let width = arrival.work.width();
        self.totals.executing += 1;
        self.totals.dispatched += 1;
        self.totals.seats_in_use += width;
        let stats = &mut self.stats[arrival.schema];
        stats.dispatched += 1;
        stats.executing = (stats.executing.0 + 1, stats.executing.1 + width);
        self.waited(arrival.schema, true, waited);
        self.note_demand(now);
    }

    /// Nobody waits for a level without a limit, so that is not counted.
    fn waited(&mut self, schema: usize, let_in: bool, waited: Nanos) {
        if self.response.is_some() {
            self.stats[schema].wait_seconds[usize::from(let_in)].observe(waited as f64 / 1e9);
        }
    }

    fn free_seats(&mut self, id: usize, now: Nanos) {
        let entry = self.leave(id);
        let width = entry.arrival.work.width();
        self.totals.seats_in_use -= width;
        self.stats[entry.arrival.schema].executing.1 -= width;
        if let Some(at) = entry.queue.and_then(|number| self.queue(number)) {
            self.queues[at].seats -= width;
            self.queued_seats -= width;
            self.close(entry.queue);
        }
        self.note_demand(now);
    }

    fn note_demand(&mut self, now: Nanos) {
        self.demand.set(now, self.totals.seats_in_use + self.totals.seats_waiting);
    }
}

#[cfg(test)]
mod tests;
