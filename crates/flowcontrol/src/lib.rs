//! API priority and fairness: which flow a request belongs to, and when it may begin.
//!
//! Everything here decides only: time comes in as nanoseconds, whoever waits is a token that is handed back. The API server
//! keeps one [`QueueSet`] per priority level behind a lock and the compiled [`FlowSchema`]s in one table.
//!
//! Upstream: `apiserver/pkg/util/flowcontrol`. A request matches the first schema in order of precedence ([`FlowSchema::matches`]),
//! which names a priority level. A level has a number of seats ([`limits`]); a request takes as many as it is wide
//! ([`work`]) for as long as it runs. When none are free it waits in one of the few queues that its flow is dealt
//! ([`shuffle`]), and the queues take turns by the seat-seconds that they were given so far ([`QueueSet`]).

pub mod bootstrap;
mod config;
mod demand;
pub mod limits;
mod matching;
mod queues;
mod retry;
pub mod shuffle;
mod stats;
pub mod work;

pub use config::{Capacity, FlowSchema, Method, PriorityLevel, Queuing, Response};
pub use demand::{Demand, Smoothed};
pub use matching::{Digest, What};
pub use queues::{Arrival, Begin, Ended, Id, QueueSet, Refusal, Shown, ShownQueue, State, Totals};
pub use retry::RetryAfter;
pub use stats::{FlowStats, Histogram};
pub use work::Work;

/// Nanoseconds, since any fixed moment or between two.
pub type Nanos = u64;

/// Names that upstream's code knows.
pub mod name {
    pub use corten_kinds::table::flow_mandatory::{CATCH_ALL, EXEMPT};
}
