//! One thread, virtual time, an order that a seed decides.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use corten_base::entropy::SeededEntropy;
use corten_base::task::Executor;
use corten_base::{BoxFuture, Clock, Entropy, Timestamp};

/// The executor; clones share it.
#[derive(Clone)]
pub struct Sim(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    order: SeededEntropy,
}

struct State {
    /// The time that passes evenly: sleeps are measured by it.
    now: Timestamp,
    /// What the wall clock shows beyond that, in seconds.
    skew: i64,
    /// All that were started, some of which are done.
    tasks: Vec<Weak<Task>>,
    ready: Vec<Arc<Task>>,
    timers: BTreeMap<(Timestamp, u64), Timer>,
    hiccups: Option<Hiccups>,
    timers_made: u64,
    tasks_made: u64,
}

/// What happens at a time.
enum Timer {
    /// Someone who slept is woken.
    Wake(Waker),
    /// A task that was held up goes on.
    Resume(Arc<Task>),
}

/// How often, and for how long at most, a task that could run is held up.
#[derive(Debug, Clone, Copy)]
pub struct Hiccups {
    /// Of a thousand turns, so many.
    pub permille: u64,
    /// The longest pause, in milliseconds of virtual time.
    pub millis_max: u64,
}

struct Task {
    number: u64,
    future: Mutex<Option<BoxFuture<'static, ()>>>,
    queued: AtomicBool,
    sim: Weak<Inner>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(sim) = self.sim.upgrade() {
            sim.lock().enqueue(self);
        }
    }
}

impl State {
    fn enqueue(&mut self, task: Arc<Task>) {
        let at = self.ready.partition_point(|other| other.number < task.number);
        self.ready.insert(at, task);
    }

    fn add_timer(&mut self, at: Timestamp, timer: Timer) {
        self.timers_made += 1;
        self.timers.insert((at, self.timers_made), timer);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sim {
    /// An executor at 2026-01-01T00:00:00Z.
    pub fn new(seed: u64) -> Sim {
        let now = Timestamp::from_second(1_767_225_600).expect("a time within range");
        let (ready, timers) = (Vec::new(), BTreeMap::new());
        let tasks = Vec::new();
        let state = State { now, skew: 0, tasks, ready, timers, hiccups: None, timers_made: 0, tasks_made: 0 };
        Sim(Arc::new(Inner { state: Mutex::new(state), order: SeededEntropy::new(seed ^ 0x5eed) }))
    }

    /// The clock of this executor.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SimClock(self.clone()))
    }

    /// The virtual time, as it passes evenly.
    pub fn now(&self) -> Timestamp {
        self.0.lock().now
    }

    /// The virtual time, as clocks on the wall show it.
    pub fn wall(&self) -> Timestamp {
        let state = self.0.lock();
        state.now.checked_add(jiff::SignedDuration::from_secs(state.skew)).unwrap_or(state.now)
    }

    /// Puts all clocks forward or back; who sleeps sleeps as long as before.
    pub fn set_clocks(&self, seconds: i64) {
        self.0.lock().skew += seconds;
    }

    /// Lets time pass in which nothing runs, as when the machine is suspended.
    pub fn suspend(&self, duration: Duration) {
        let mut state = self.0.lock();
        state.now = state.now.checked_add(duration).expect("within jiff's range");
    }

    /// From now on tasks are held up by chance.
    pub fn set_hiccups(&self, hiccups: Option<Hiccups>) {
        self.0.lock().hiccups = hiccups;
    }

    /// Starts a future.
    pub fn start(&self, future: BoxFuture<'static, ()>) {
        let sim = Arc::downgrade(&self.0);
        let number = {
            let mut state = self.0.lock();
            state.tasks_made += 1;
            state.tasks_made
        };
        let task = Arc::new(Task { number, future: Mutex::new(Some(future)), queued: AtomicBool::new(false), sim });
        let mut state = self.0.lock();
        if state.tasks.len() == state.tasks.capacity() {
            state.tasks.retain(|task| task.strong_count() > 0);
        }
        state.tasks.push(Arc::downgrade(&task));
        drop(state);
        task.wake();
    }

    /// Drops all tasks: they hold the executor through their clocks, and it holds them, so none would ever go by itself.
    pub fn end(&self) {
        let mut state = self.0.lock();
        let (tasks, timers) = (std::mem::take(&mut state.tasks), std::mem::take(&mut state.timers));
        drop(state);
        for task in tasks.iter().filter_map(Weak::upgrade) {
            let future = task.future.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(future);
        }
        drop(timers);
        // What that has woken has nothing to run any more.
        let ready = std::mem::take(&mut self.0.lock().ready);
        drop(ready);
    }

    /// Runs one task that can run, chosen by the seed; false if none can.
    pub fn step(&self) -> bool {
        let mut state = self.0.lock();
        if state.ready.is_empty() {
            return false;
        }
        // By number, so that the order in which tasks were woken makes no difference.
        let at = (self.0.order.u64() % state.ready.len() as u64) as usize;
        let task = state.ready.remove(at);
        if let Some(hiccups) = state.hiccups
            && self.0.order.u64() % 1000 < hiccups.permille
        {
            let pause = Duration::from_millis(self.0.order.u64() % hiccups.millis_max.max(1));
            let until = state.now.checked_add(pause).expect("within jiff's range");
            state.add_timer(until, Timer::Resume(task));
            return true;
        }
        drop(state);
        task.queued.store(false, Ordering::Release);
        let waker = Waker::from(task.clone());
        let mut slot = task.future.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(future) = slot.as_mut()
            && future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        {
            *slot = None;
        }
        true
    }

    /// Moves the time to the next timer, at most to `limit`, and wakes who waits for it; false if `limit` is reached.
    pub fn advance(&self, limit: Timestamp) -> bool {
        let mut state = self.0.lock();
        let next = state.timers.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= limit);
        let Some(at) = next else {
            state.now = state.now.max(limit);
            return false;
        };
        state.now = state.now.max(at);
        let now = state.now;
        let mut due = Vec::new();
        while let Some(first) = state.timers.first_entry().filter(|e| e.key().0 <= now) {
            match first.remove() {
                Timer::Wake(waker) => due.push(waker),
                Timer::Resume(task) => state.enqueue(task),
            }
        }
        drop(state);
        due.into_iter().for_each(Waker::wake);
        true
    }

    /// Runs a future to its end, and everything else beside it.
    ///
    /// # Panics
    /// If nothing can run any more before it ends.
    pub fn block_on<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let result = Arc::new(Mutex::new(None));
        let slot = result.clone();
        self.start(Box::pin(async move {
            let value = future.await;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        }));
        loop {
            while self.step() {}
            if let Some(value) = result.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return value;
            }
            assert!(self.advance(Timestamp::MAX), "nothing can run any more");
        }
    }
}

impl Executor for Sim {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.start(future);
    }
}

/// The virtual time as a clock.
pub struct SimClock(Sim);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.0.wall()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let deadline = self.0.now().checked_add(duration).unwrap_or(Timestamp::MAX);
        Box::pin(Sleep { sim: self.0.clone(), deadline, place: None })
    }
}

struct Sleep {
    sim: Sim,
    deadline: Timestamp,
    place: Option<(Timestamp, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let sim = self.sim.clone();
        let mut state = sim.0.lock();
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        let place = self.place.unwrap_or_else(|| {
            state.timers_made += 1;
            (self.deadline, state.timers_made)
        });
        state.timers.insert(place, Timer::Wake(context.waker().clone()));
        drop(state);
        self.place = Some(place);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.sim.0.lock().timers.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_drops_what_waits() {
        let (sim, held) = (Sim::new(1), Arc::new(()));
        let (clock, kept) = (sim.clock(), held.clone());
        sim.start(Box::pin(async move {
            clock.sleep(Duration::from_secs(3600)).await;
            drop(kept);
        }));
        assert!(sim.step());
        assert_eq!(Arc::strong_count(&held), 2);
        sim.end();
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn time_jumps_and_the_order_follows_the_seed() {
        let order = |seed| {
            let sim = Sim::new(seed);
            let seen = Arc::new(Mutex::new(Vec::new()));
            for i in 0..8 {
                let (clock, seen) = (sim.clock(), seen.clone());
                sim.start(Box::pin(async move {
                    clock.sleep(Duration::from_secs(3600)).await;
                    seen.lock().unwrap().push(i);
                }));
            }
            let clock = sim.clock();
            sim.block_on(async move { clock.sleep(Duration::from_secs(3601)).await });
            Arc::into_inner(seen).unwrap().into_inner().unwrap()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
