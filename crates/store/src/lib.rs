//! A revisioned, ordered map from key to bytes: the trait, memory, embedded, and a fault-injecting wrapper.
//!
//! There is no Kubernetes in here: keys and values are bytes, and the only structure is the revision, a number that every
//! committed batch increments. Everything above (the watch cache, resourceVersions, continue tokens) stands on four
//! properties that each backend must have and that one conformance suite checks for all of them:
//!
//! 1. a batch is one compare-and-set: all of its writes happen, at one revision, or none does;
//! 2. a commit is answered only once it is durable and visible to every reader;
//! 3. a watch shows every revision exactly once, in order, or says `Compacted`;
//! 4. a read at an old revision shows exactly what was there, until that revision is compacted.
//!
//! Backends: [`MemoryStore`] (tests, the simulator) and [`SqliteStore`] (one file on a local disk).

mod error;
mod faulty;
mod feed;
mod memory;
mod retention;
mod sqlite;
mod store;
mod types;

pub use corten_base::Revision;
pub use error::{Conflict, Error, Result};
pub use faulty::{CommitFault, FaultPlan, FaultyStore, Scripted, Seeded, WatchFault};
pub use memory::MemoryStore;
pub use retention::{Ledger, Retention};
pub use sqlite::{Failpoints, SqliteOptions, SqliteStore, Stats, Verified};
pub use store::{Store, Watch};
pub use types::{Batch, Change, Changes, Compare, Entry, Got, KeyRange, Page, Write};
