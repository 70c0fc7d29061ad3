//! What is computed of objects, and anew when they change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A value made of objects: made on the first use after one of them was written.
pub(crate) struct Derived<T> {
    made: RwLock<(u64, Arc<T>)>,
    /// Grows with every write; whoever sees it ahead of what is made makes it anew.
    wanted: AtomicU64,
    making: Mutex<()>,
}

impl<T: Default> Default for Derived<T> {
    fn default() -> Derived<T> {
        let made = RwLock::new((0, Arc::new(T::default())));
        Derived { made, wanted: AtomicU64::new(1), making: Mutex::new(()) }
    }
}

impl<T> Derived<T> {
    /// Notes that one of the objects was written, before the write is answered.
    pub fn outdate(&self) {
        self.wanted.fetch_add(1, Ordering::AcqRel);
    }

    /// The value as of the last write that was answered.
    pub fn get(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let current = || {
            let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
            (made.0 >= self.wanted.load(Ordering::Acquire)).then(|| made.1.clone())
        };
        if let Some(value) = current() {
            return value;
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = current() {
            return value;
        }
        let wanted = self.wanted.load(Ordering::Acquire);
        let value = Arc::new(make());
        *self.made.write().unwrap_or_else(PoisonError::into_inner) = (wanted, value.clone());
        value
    }
}
