//! HTTP in, pipeline, HTTP out.
//!
//! [`Server::start`] listens and answers; [`Server::api_as`] is the same API without sockets, for the components of this
//! process. Both call the pipeline (`pipeline`): one function per verb, for every kind, for every caller. Only `http` knows
//! paths, headers and encodings.

mod addresses;
mod aggregation;
mod bootstrap;
mod channels;
mod core;
mod derived;
mod discovery;
mod eviction;
mod expiry;
mod families;
mod flow;
mod http;
mod local;
mod metrics;
mod openapi;
mod own;
mod pipeline;
mod portforward;
mod process;
mod proxy;
mod reviews;
mod server;
mod spdy;
mod streams;
mod swagger;
mod tokens;

pub use bootstrap::VERSION;
pub use corten_audit::{self as audit, Options as AuditOptions};
pub use corten_federation::{AuthenticationOptions, AuthorizationOptions, OidcFlags, TokenReviewOptions};
pub use corten_schema::scalars::duration::parse as parse_duration;
pub use flow::FlowLimits;
pub use http::{Anonymous, RequestHeader, started_with};
pub use server::{Authentication, Server, ServerConfig, StartError};

/// Reads a YAML body.
///
/// # Errors
/// 400 if it is none.
pub fn yaml_body(bytes: &[u8]) -> Result<corten_tree::Tree, corten_object::Status> {
    pipeline::yaml::parse(bytes).map(|body| body.tree)
}
