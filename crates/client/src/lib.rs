//! The [`Api`] trait and its HTTP implementation, kubeconfig; the reverse trait [`NodeApi`].
//!
//! Components talk to the API through [`Api`] only. In the server's process its implementation calls the pipeline directly
//! (crate `apiserver`), from elsewhere it is HTTPS. Both authenticate as a user of upstream's names and pass the same pipeline.

mod api;
pub mod config_file;
pub mod events;
pub mod exec;
pub mod http;
mod http_api;
pub mod kubeconfig;
mod node_api;
mod trust;

pub use api::{
    Api, ApiList, DeleteOptions, Failure, ListOptions, PatchKind, Propagation, Target, WatchEvent, WatchEventKind,
    Write, WriteOptions, Written,
};
pub use http::HttpClient;
pub use http_api::{HttpApi, collection_path, query_escape};
pub use node_api::{
    ByteStream, Duplex, ExecExit, ExecRequest, ExecSession, LogRequest, NodeAnswer, NodeApi, NodeRequest, PodTarget,
    PortForwardRequest, TerminalSize,
};
pub use trust::Trust;
