//! The watch cache: all objects of all kinds in memory, indexed, and a ring of the latest changes.
//!
//! One task applies the store's ordered changes ([`Cache::start`]); everyone else reads. [`Cache::read`] is a [`World`]: all kinds
//! at one revision. A watcher, be it an HTTP client or a controller, is a [`Cursor`] into the ring plus a [`Filter`]. The cache
//! holds the present only: pages of an older revision are read from the store.

mod applied;
mod cache;
mod cursor;
mod event;
mod feed;
mod filter;
pub mod keys;
mod objects;
mod ring;

pub use cache::{Cache, CacheOptions, List, Unseal};
pub use cursor::{Cursor, Seen, Watcher};
pub use event::{Encoding, Event, Transition};
pub use filter::{Filter, UnsupportedField};
pub use objects::{Objects, World};
pub use ring::{Gone, RingLimits, Scope};
