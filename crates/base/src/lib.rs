//! Clock, backoff, interning, the task tree: what std lacks.
//!
//! What the simulator runs takes time, randomness and tasks only from here: [`Clock`], [`Entropy`] and [`Tasks`] each have
//! a real and a virtual backend.

pub mod backoff;
pub mod clock;
pub mod entropy;
pub mod fd;
pub mod intern;
pub mod metrics;
pub mod revision;
pub mod task;
pub mod workqueue;

pub use backoff::Backoff;
pub use clock::{Clock, SystemClock, Timestamp};
pub use entropy::{Entropy, SystemEntropy};
pub use futures::future::BoxFuture;
pub use intern::Istr;
pub use revision::Revision;
pub use task::{Executor, OnError, OnStop, Tasks, TokioExecutor};
