//! A seeded simulator of a whole cluster: memory store, the real pipeline, cache, controllers and scheduler, nodes that
//! pretend, a virtual clock. Everything runs on one thread; the seed decides who moves next, when the store fails, who is held
//! up, which part dies, which node is lost, and what users do.
//!
//! What it checks is in `check`, after every revision and when nothing happens any more.

mod check;
mod cluster;
mod executor;
mod node;
mod run;
mod script;
#[cfg(test)]
mod storage;
mod users;

pub use check::Fault;
pub use executor::{Hiccups, Sim, SimClock};
pub use run::{Report, run, run_to_fault, shrink};
pub use script::Script;
