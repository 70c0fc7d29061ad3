//! The one HTTPS client for callouts: admission and conversion webhooks, and whatever else the API server asks of others.
//!
//! A [`Caller`] posts a JSON body to a [`ClientConfig`]'s URL or Service and returns the answer's body, or passes a whole request
//! on to a [`Destination`]. Connections are kept
//! and shared by all hooks with the same trust. Services are resolved through the watch cache: a ready endpoint if there is
//! one, else the cluster IP; the certificate must be for `NAME.NAMESPACE.svc`. Error texts are those of upstream's client
//! (`apiserver/pkg/util/webhook/client.go`, `apiserver/pkg/util/proxy/proxy.go`, `client-go/rest/request.go`).

mod config;
mod connections;
mod forward;
mod resolve;

pub use config::{ClientConfig, Target};
pub use connections::Connections;
pub use forward::{Destination, RequestBody, body};
pub use resolve::{Wanted, endpoint, resolve};

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_base::{Clock, Entropy};
use corten_cache::Cache;

use futures::future::{Either, select};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, Uri};

use connections::{ClientKey, reason};

/// Largest answer, in bytes.
const ANSWER_MAX: usize = 16 << 20;
/// What is said of a call without an answer in time.
const DEADLINE: &str = "context deadline exceeded";

/// Why a callout has no answer. The text is what follows `failed to call webhook: ` in upstream's messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// Nobody has answered.
    #[error("{verb} {url:?}: {why}")]
    Transport {
        /// `Post` or `Get`.
        verb: &'static str,
        /// Where the call went.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// An answer other than 2xx.
    #[error("{text}")]
    Answer {
        /// The HTTP code.
        code: u16,
        /// Upstream's words for it.
        text: String,
    },
}

impl CallError {
    /// Whether there was no answer in time.
    pub fn is_timeout(&self) -> bool {
        match self {
            CallError::Transport { why, .. } => why == DEADLINE,
            CallError::Answer { code, .. } => *code == 504,
            CallError::Config(_) => false,
        }
    }
}

/// How often a call is made that fails (`apiserver/pkg/util/webhook`, `DefaultRetryBackoffWithInitialDelay`): five times, each
/// wait half as long again as the one before, and up to a fifth more by chance.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// The first wait.
    pub initial: Duration,
    /// Which failures are worth it.
    pub retry: fn(&CallError) -> bool,
}

/// Attempts in all.
const ATTEMPTS: u32 = 5;

impl Retries {
    /// Those that may pass by themselves (`DefaultShouldRetry`): what the server says of itself, and broken connections.
    pub fn of_passing_faults(initial: Duration) -> Retries {
        Retries {
            initial,
            retry: |error| match error {
                CallError::Config(_) => false,
                CallError::Transport { why, .. } => why.ends_with("connection reset by peer") || why == "EOF",
                CallError::Answer { code, .. } => matches!(code, 429 | 500 | 504),
            },
        }
    }
}

/// The client. Clones share connections.
#[derive(Clone)]
pub struct Caller {
    cache: Cache,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    connections: Connections,
}

impl Caller {
    /// A client that resolves Services through the cache; nothing is connected yet.
    pub fn new(cache: Cache, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Caller {
        Caller { cache, clock, entropy, connections: Connections::default() }
    }

    /// A client with connections of its own, for another runtime than this one's.
    #[must_use]
    pub fn apart(&self) -> Caller {
        Caller { connections: Connections::default(), ..self.clone() }
    }

    /// Posts JSON and returns the answer's body, within the timeout (in whole seconds; it is told to the server, too).
    ///
    /// # Errors
    /// If the configuration is of no use, nobody answers in time, or the answer is no success.
    pub async fn post(&self, config: &ClientConfig, timeout: Duration, body: Bytes) -> Result<Bytes, CallError> {
        let place = Place::of(config, Some(timeout))?;
        self.call(config, &place, timeout, Some(body)).await
    }

    /// Posts JSON, again where that is worth it; `timeout` is for each attempt.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn post_again(
        &self,
        config: &ClientConfig,
        timeout: Duration,
        body: Bytes,
        retries: &Retries,
    ) -> Result<Bytes, CallError> {
        let mut wait = retries.initial;
        for _ in 1..ATTEMPTS {
            match self.post(config, timeout, body.clone()).await {
                Err(error) if (retries.retry)(&error) => {}
                answer => return answer,
            }
            let chance = (self.entropy.u64() % 1000) as f64 / 5000.0;
            self.clock.sleep(wait.mul_f64(1.0 + chance)).await;
            wait = wait.mul_f64(1.5);
        }
        self.post(config, timeout, body).await
    }

    /// Reads what is at a URL.
    ///
    /// # Errors
    /// As [`Caller::post`].
    pub async fn get(&self, config: &ClientConfig, timeout: Duration) -> Result<Bytes, CallError> {
        let place = Place::of(config, None)?;
        self.call(config, &place, timeout, None).await
    }

    async fn call(
        &self,
        config: &ClientConfig,
        place: &Place,
        timeout: Duration,
        body: Option<Bytes>,
    ) -> Result<Bytes, CallError> {
        let verb = if body.is_some() { "Post" } else { "Get" };
        let transport = |why: String| CallError::Transport { verb, url: place.shown.clone(), why };
        let connect = match &config.target {
            Target::Service { namespace, name, port, .. } => {
                let world = self.cache.read();
                Some(resolve(&world, namespace, name, *port, self.entropy.u64()).map_err(transport)?)
            }
            Target::Url(_) => None,
        };
        let key = ClientKey { trust: Some(config.trust()), server_name: place.server_name.clone(), keep: true };
        let client = self.connections.client(key).map_err(CallError::Config)?;
        let authority = connect.unwrap_or_else(|| place.authority.clone());
        let request = place.request(&authority, config, body).map_err(CallError::Config)?;
        let exchange = async {
            let answer = client.request(request).await.map_err(|e| transport(reason(&e, &authority)))?;
            let code = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|e| transport(e.to_string()))?.to_bytes();
            match code {
                200..=299 => Ok(body),
                _ => Err(CallError::Answer { code, text: answer_text(code, &body) }),
            }
        };
        futures::pin_mut!(exchange);
        match select(exchange, self.clock.sleep(timeout)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(transport(DEADLINE.into())),
        }
    }

    /// Sends a request to where it is told, and returns the answer as it begins.
    ///
    /// # Errors
    /// Why nobody has answered, in the words of Go's client.
    pub async fn send(
        &self,
        destination: &Destination,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, String> {
        self.connections.send(destination, request).await
    }

    /// An address of a Service's port, as `host:port` (see [`resolve`]).
    ///
    /// # Errors
    /// Upstream's words if there is no such Service, port or address.
    pub fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<String, String> {
        resolve(&self.cache.read(), namespace, name, port, self.entropy.u64())
    }
}

/// Where a call goes.
struct Place {
    /// The URL in messages.
    shown: String,
    /// The certificate must be for this name.
    server_name: String,
    /// `host:port` as in the Host header.
    authority: String,
    /// Path and query.
    path: String,
}

impl Place {
    /// `timeout` is told to the server in the query.
    fn of(config: &ClientConfig, timeout: Option<Duration>) -> Result<Place, CallError> {
        let query = timeout.map(|timeout| format!("timeout={}s", timeout.as_secs().max(1)));
        let (server_name, authority, path) = match &config.target {
            Target::Service { namespace, name, path, port } => {
                let server_name = format!("{name}.{namespace}.svc");
                let authority = format!("{server_name}:{port}");
                (server_name, authority, path.clone())
            }
            Target::Url(url) => {
                let uri: Uri = url.parse().map_err(|e| CallError::Config(format!("Unparsable URL: {e}")))?;
                let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                if uri.scheme_str() != Some("https") || host.is_empty() {
                    let why = format!("Unparsable URL: {url:?} is not https://host/path");
                    return Err(CallError::Config(why));
                }
                let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
                let server_name = if config.server_name.is_empty() { host } else { config.server_name.clone() };
                let own = uri.query().filter(|_| query.is_none()).map(|own| format!("?{own}"));
                (server_name, authority, format!("{}{}", uri.path(), own.unwrap_or_default()))
            }
        };
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("/{}{query}", path.trim_start_matches('/'));
        Ok(Place { shown: format!("https://{authority}{path}"), server_name, authority, path })
    }

    fn request(
        &self,
        authority: &str,
        config: &ClientConfig,
        content: Option<Bytes>,
    ) -> Result<Request<RequestBody>, String> {
        let mut request = Request::builder()
            .method(if content.is_some() { Method::POST } else { Method::GET })
            .uri(format!("https://{authority}{}", self.path))
            .header(HOST, &self.authority)
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, "kube-apiserver-admission");
        if content.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if !config.bearer.is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {}", config.bearer));
        }
        request.body(body(Full::new(content.unwrap_or_default()))).map_err(|e| e.to_string())
    }
}

/// `errors.NewGenericServerResponse` as `rest.Request` makes it of an answer that holds no Status.
fn answer_text(code: u16, body: &[u8]) -> String {
    if let Ok(tree) = corten_tree::json::parse(body)
        && tree.str_at("kind") == "Status"
    {
        return tree.str_at("message").to_owned();
    }
    let fixed = match code {
        401 => "the server has asked for the client to provide credentials",
        403 => return format!("{}: {}", "unknown", String::from_utf8_lossy(body).trim()),
        404 => "the server could not find the requested resource",
        405 => "the server does not allow this method on the requested resource",
        406 => "the server was unable to respond with a content type that the client supports",
        409 => "the server reported a conflict",
        415 => "the body of the request was in an unknown format - accepted media types include: application/json",
        422 => "the server rejected our request due to an error in our request",
        429 => "the server has received too many requests and has asked us to try again later",
        503 => "the server is currently unable to handle the request",
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
        }
        500.. => {
            let text = String::from_utf8_lossy(body);
            let text = if text.trim().is_empty() { "unknown".into() } else { text };
            return format!("an error on the server ({:?}) has prevented the request from succeeding", text.trim());
        }
        _ => "the server rejected our request for an unknown reason",
    };
    fixed.to_owned()
}
