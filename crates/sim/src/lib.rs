//! A seeded simulator of a whole cluster.
//!
//! It runs the product: store, cache, the API server's pipeline, all controllers and the scheduler, on one thread, in virtual
//! time, with nodes that only pretend. A seed decides the order in which tasks run, how long pods take, what users do, which
//! commits fail and when the controllers are restarted. After each change the invariants are checked; in the end the cluster must
//! settle, and every controller must have nothing left to do.

mod check;
mod cluster;
mod executor;
mod node;
mod run;
#[cfg(test)]
mod storage;
mod users;

pub use executor::{Sim, SimClock};
pub use run::{Report, run};
