//! Where requests are passed on to.

use bytes::Bytes;
use corten_client::Trust;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Body;

/// The body of a request that is sent.
pub type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A body to send.
pub fn body<B>(body: B) -> RequestBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A server that a request is passed on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// `host:port` to connect to.
    pub authority: String,
    /// Whom to trust there; `None` speaks without TLS.
    pub trust: Option<Trust>,
    /// For whom the certificate must be; empty: the host in `authority`.
    pub server_name: String,
    /// Whether the connection is kept for the next request: not where the other end may vanish without a word, as a pod does.
    pub keep: bool,
}
