//! HTTP in, pipeline, HTTP out.

mod server;

pub use server::{Server, ServerConfig, StartError};
