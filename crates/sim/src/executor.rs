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
    now: Timestamp,
    ready: Vec<Arc<Task>>,
    timers: BTreeMap<(Timestamp, u64), Waker>,
    timers_made: u64,
    tasks_made: u64,
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
            let mut state = sim.lock();
            let at = state.ready.partition_point(|task| task.number < self.number);
            state.ready.insert(at, self);
        }
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
        let state = State { now, ready: Vec::new(), timers: BTreeMap::new(), timers_made: 0, tasks_made: 0 };
        Sim(Arc::new(Inner { state: Mutex::new(state), order: SeededEntropy::new(seed ^ 0x5eed) }))
    }

    /// The clock of this executor.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SimClock(self.clone()))
    }

    /// The virtual time.
    pub fn now(&self) -> Timestamp {
        self.0.lock().now
    }

    /// Starts a future.
    pub fn start(&self, future: BoxFuture<'static, ()>) {
        let sim = Arc::downgrade(&self.0);
        let number = {
            let mut state = self.0.lock();
            state.tasks_made += 1;
            state.tasks_made
        };
        Arc::new(Task { number, future: Mutex::new(Some(future)), queued: AtomicBool::new(false), sim }).wake();
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
            due.push(first.remove());
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
        self.0.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let deadline = self.now().checked_add(duration).unwrap_or(Timestamp::MAX);
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
        state.timers.insert(place, context.waker().clone());
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
