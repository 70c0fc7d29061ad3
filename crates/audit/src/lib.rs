//! What was asked of the API, by whom, and what became of it.
//!
//! A [`Policy`] says how much of a request is recorded; a [`Trail`] collects that along the request's way and gives an
//! [`Event`] to the [`Backends`] at each stage. The trail of the request that is being answered is the task's own
//! ([`trail::current`]): whoever has something to say calls [`trail::annotate`] and the like, which do nothing where nobody
//! listens. Upstream: `apiserver/pkg/audit`, `apiserver/plugin/pkg/audit`, `apiserver/pkg/server/options/audit.go`.

mod backend;
mod event;
mod hook;
mod log;
mod metrics;
mod options;
mod policy;
pub mod trail;

pub use backend::{Backends, Environment};
pub use event::{Event, ObjectRef, Stage};
pub use options::{BatchOptions, LogOptions, Mode, Options, OptionsError, TruncateOptions, WebhookOptions};
pub use policy::{Level, Policy, Ruling};
pub use trail::{Asked, Trail};
