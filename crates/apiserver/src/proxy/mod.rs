//! Passing a request on to another server and its answer back: aggregated API servers, and the `proxy` subresources
//! (`apimachinery/pkg/util/proxy/upgradeaware.go`). Bodies are streamed both ways; an upgrade (WebSocket, SPDY) becomes a pipe.

pub(crate) mod connect;
mod headers;
mod html;
mod url;

use std::sync::Arc;

use bytes::Bytes;
use corten_auth::User;
use corten_base::OnStop;
use corten_webhook::{Destination, RequestBody, body};
use futures::FutureExt as _;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

pub(crate) use headers::as_user;
pub(crate) use url::{escape, join};

use crate::core::Core;
use crate::http::{Call, HttpBody, Passed, full};

/// Largest page whose links are rewritten, in bytes; larger ones pass as they are.
const PAGE_MAX: usize = 8 << 20;

/// Where a request goes on to.
pub(crate) struct Onward<'a> {
    /// The server.
    pub destination: Destination,
    /// The path there, escaped.
    pub path: String,
    /// The query, without `?`.
    pub query: Option<&'a str>,
    /// The Host header; `None` is that of the client.
    pub host: Option<String>,
    /// What links in answers must begin with to come back here; empty where paths are the same on both sides.
    pub prefix: String,
    /// As whom the request is to be answered: for a server that believes this one's certificate.
    pub user: Option<&'a User>,
    /// Whether the other side may send the client elsewhere.
    pub redirects: bool,
}

/// Why a request could not be passed on.
pub(crate) enum Failed {
    /// The other side cannot be reached; upstream's words.
    Unreachable(String),
    /// It answered with what cannot be passed back.
    Answer(String),
}

/// Passes a request on.
pub(crate) async fn pass(
    core: &Arc<Core>,
    call: &Call,
    mut request: Request<Incoming>,
    onward: Onward<'_>,
) -> Result<Response<HttpBody>, Failed> {
    let upgrade = headers::is_upgrade(&call.headers);
    let client = upgrade.then(|| hyper::upgrade::on(&mut request));
    let wanted = ask(call, request, &onward, upgrade);
    let host = host_of(&onward, &call.headers);
    let answer = core.caller.send(&onward.destination, wanted).await;
    let mut answer = answer.map_err(|why| {
        Failed::Unreachable(match upgrade {
            true => format!("error dialing backend: {why}"),
            false => format!("error trying to reach service: {why}"),
        })
    })?;
    let Some(client) = client else { return back(core, call, answer, &onward, &host).await };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        if answer.status().as_u16() < 400 {
            return Err(Failed::Answer(format!("invalid upgrade response: status code {}", answer.status().as_u16())));
        }
        return back(core, call, answer, &onward, &host).await;
    }
    let server = hyper::upgrade::on(&mut answer);
    let record = corten_audit::trail::current();
    core.tasks.spawn("proxied stream", OnStop::Abort, async move {
        let _record = record;
        let (Ok(client), Ok(server)) = futures::future::join(client, server).await else { return };
        let (mut to_client, mut to_server) = (TokioIo::new(client), TokioIo::new(server));
        if let Err(error) = tokio::io::copy_bidirectional(&mut to_client, &mut to_server).await {
            tracing::debug!(%error, "a proxied stream ended");
        }
    });
    let (parts, _) = answer.into_parts();
    Ok(Response::from_parts(parts, full(Bytes::new())))
}

fn host_of(onward: &Onward<'_>, headers: &HeaderMap) -> String {
    let client = || headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    onward.host.clone().unwrap_or_else(client)
}

/// The request as the other side sees it.
fn ask(call: &Call, request: Request<Incoming>, onward: &Onward<'_>, upgrade: bool) -> Request<RequestBody> {
    let (mut parts, content) = request.into_parts();
    let mut headers = headers::onward(&call.headers, call.ip, upgrade);
    let forwarded = url::forwarded(&onward.prefix, &onward.path);
    if let (Ok(uri), false) = (HeaderValue::from_str(&forwarded), upgrade) {
        headers.insert("x-forwarded-uri", uri);
    }
    if let Some(user) = onward.user {
        as_user(&mut headers, user);
    }
    // In HTTP/2 the host stands in the request's address.
    let host = match host_of(onward, &headers) {
        host if host.is_empty() => parts.uri.authority().map(|a| a.to_string()).unwrap_or_default(),
        host => host,
    };
    let host = if host.is_empty() { onward.destination.authority.clone() } else { host };
    if let Ok(host) = HeaderValue::from_str(&host) {
        headers.insert(header::HOST, host);
    }
    let path = if onward.path.is_empty() { "/" } else { &onward.path };
    let target = match onward.query.filter(|q| !q.is_empty()) {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    parts.uri = target.parse().unwrap_or_default();
    parts.headers = headers;
    parts.extensions.clear();
    Request::from_parts(parts, body(content))
}

/// The answer as the client sees it.
async fn back(
    core: &Arc<Core>,
    call: &Call,
    answer: Response<Incoming>,
    onward: &Onward<'_>,
    host: &str,
) -> Result<Response<HttpBody>, Failed> {
    let (mut parts, content) = answer.into_parts();
    headers::back(&mut parts.headers);
    let location = parts.headers.get(header::LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let links = url::Links { prefix: &onward.prefix, server: &onward.destination.authority, host };
    if let Some(location) = location {
        if !onward.redirects && parts.status.is_redirection() {
            let why = "the backend attempted to redirect this request, which is not permitted";
            let mut refused = Response::new(full(why));
            *refused.status_mut() = StatusCode::BAD_GATEWAY;
            return Ok(refused);
        }
        if let Ok(rewritten) = HeaderValue::from_str(&links.rewrite(&location)) {
            parts.headers.insert(header::LOCATION, rewritten);
        }
    } else if call.method != Method::HEAD && headers::is_html(&parts.headers) && !onward.prefix.is_empty() {
        if let Some(page) = page(&parts.headers, content, &links).await? {
            parts.headers.remove(header::CONTENT_LENGTH);
            return Ok(Response::from_parts(parts, full(page)));
        }
        return Err(Failed::Answer(format!("a page of more than {PAGE_MAX} bytes cannot be rewritten")));
    }
    let until = headers::is_lasting(call).then(|| core.tasks.stopping().boxed());
    Ok(Response::from_parts(
        parts,
        HttpBody::Passed(Passed { body: content, until, _record: corten_audit::trail::current() }),
    ))
}

/// A page with its links rewritten; `None` if it is too large for that.
async fn page(headers: &HeaderMap, content: Incoming, links: &url::Links<'_>) -> Result<Option<Bytes>, Failed> {
    use http_body_util::{BodyExt as _, LengthLimitError, Limited};
    let bytes = match Limited::new(content, PAGE_MAX).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Ok(None),
        Err(error) => return Err(Failed::Answer(error.to_string())),
    };
    let encoding = headers.get(header::CONTENT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let rewritten = html::recoded(encoding, &bytes, PAGE_MAX, |page| html::rewrite(page, |link| links.rewrite(link)));
    Ok(Some(rewritten.map_or(bytes, Bytes::from)))
}
