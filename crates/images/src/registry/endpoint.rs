//! One host that serves one repository, spoken to with one login: requests, challenges, redirects.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use corten_base::Clock;
use corten_client::{Trust, query_escape};
use corten_webhook::{Connections, Destination, body};
use futures::future::{Either, select};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, RANGE, USER_AGENT, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, Uri};
use serde::Deserialize;

use super::challenge::{self, Challenge};
use super::hosts::Host;
use super::{Login, PullError};

/// How long a registry may think before its answer begins.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Redirects in a row, as Go's client follows.
const REDIRECTS_MAX: usize = 10;
/// Largest answer of a token server, in bytes.
const TOKEN_BYTES_MAX: usize = 1 << 20;

/// One host that serves one repository.
pub(crate) struct Endpoint {
    pub host: Host,
    /// The repository's path in the registry, as `library/nginx`.
    pub repository: String,
    pub login: Option<Login>,
    pub connections: Connections,
    pub clock: Arc<dyn Clock>,
    /// The `Authorization` that the host took last.
    pub authorization: Mutex<Option<String>>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub method: &'static Method,
    /// Behind the repository, as `manifests/latest`.
    pub path: &'a str,
    pub accept: &'a str,
    /// Skip so many bytes.
    pub from: u64,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Endpoint {
    /// The answer to a request, if it is a success; challenges are met and redirects followed.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Response<Incoming>, PullError> {
        let mirror = self.host.namespace.as_ref().map(|registry| format!("?ns={}", query_escape(registry)));
        let url = format!("{}/{}/{}{}", self.host.base(), self.repository, ask.path, mirror.unwrap_or_default());
        let mut proven = false;
        loop {
            let answer = self.follow(&url, ask).await?;
            let code = answer.status().as_u16();
            if (200..300).contains(&code) {
                return Ok(answer);
            }
            if code == 401 {
                let headers = answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
                let headers: Vec<&str> = headers.collect();
                if proven {
                    let error = challenge::error(&headers);
                    let denied = error.map(|e| PullError::Denied(format!("server message: {e}: authorization failed")));
                    return Err(denied.unwrap_or_else(|| refused(&answer, ask.method, &url)));
                }
                let authorization = self.prove(challenge::parse(&headers)).await?;
                *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
                proven = true;
                continue;
            }
            return Err(refused(&answer, ask.method, &url));
        }
    }

    /// Follows redirects. What proves us is for the registry alone (compare CVE-2020-15157, CVE-2018-1000007 and the like).
    async fn follow(&self, url: &str, ask: Ask<'_>) -> Result<Response<Incoming>, PullError> {
        let mut at: Uri = url.parse().map_err(|e| PullError::Protocol(format!("{url:?}: {e}")))?;
        let first = at.authority().cloned();
        for _ in 0..=REDIRECTS_MAX {
            let own = at.authority() == first.as_ref() && at.scheme_str() == Some(self.host.scheme);
            let answer = self.send(&at, ask, own).await?;
            let code = answer.status().as_u16();
            if !matches!(code, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let to = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
            at = next(&at, to).ok_or_else(|| PullError::Protocol(format!("{at}: a redirect to {to:?}")))?;
        }
        Err(PullError::Protocol(format!("{url}: stopped after {REDIRECTS_MAX} redirects")))
    }

    async fn send(&self, uri: &Uri, ask: Ask<'_>, own: bool) -> Result<Response<Incoming>, PullError> {
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let mut request = Request::builder().method(ask.method).uri(uri.clone()).header(HOST, &authority);
        request = request.header(USER_AGENT, "corten").header(ACCEPT, ask.accept);
        if ask.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", ask.from));
        }
        if own {
            for (name, value) in &self.host.headers {
                request = request.header(name, value);
            }
            let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(authorization) = known {
                request = request.header(AUTHORIZATION, authorization);
            }
        }
        let request = request.body(body(Full::new(Bytes::new())));
        let request = request.map_err(|e| PullError::Protocol(e.to_string()))?;
        let verb = if ask.method == Method::HEAD { "Head" } else { "Get" };
        self.exchange(verb, uri, request, self.destination(uri, own)).await
    }

    /// Another host is trusted as this one, but sees no certificate of ours.
    fn destination(&self, uri: &Uri, own: bool) -> Destination {
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        if own {
            return Destination { authority, ..self.host.destination() };
        }
        let tls = uri.scheme_str() == Some("https");
        let trust = Trust { identity: None, ..self.host.trust.clone() };
        Destination { authority, trust: tls.then_some(trust), ..self.host.destination() }
    }

    async fn exchange(
        &self,
        verb: &str,
        uri: &Uri,
        request: Request<corten_webhook::RequestBody>,
        destination: Destination,
    ) -> Result<Response<Incoming>, PullError> {
        let told = |why: &str| PullError::Transport(format!("failed to do request: {verb} \"{uri}\": {why}"));
        let answer = std::pin::pin!(self.connections.send(&destination, request));
        match select(answer, self.clock.sleep(ANSWER_MAX)).await {
            Either::Left((answer, _)) => answer.map_err(|why| told(&why)),
            Either::Right(_) => Err(told("net/http: timeout awaiting response headers")),
        }
    }

    /// The `Authorization` that meets a challenge.
    async fn prove(&self, found: Option<Challenge>) -> Result<String, PullError> {
        let denied = |why: &str| PullError::Denied(why.to_owned());
        match (found, &self.login) {
            (None, _) => Err(denied("authorization failed: no challenge that can be met")),
            (Some(Challenge::Basic), None) => Err(denied("authorization failed: no basic auth credentials")),
            (Some(Challenge::Basic), Some(login)) => Ok(basic(login)),
            (Some(Challenge::Bearer { realm, service, scope }), login) => {
                let scope = if scope.is_empty() { format!("repository:{}:pull", self.repository) } else { scope };
                let token = self.token(&realm, &service, &scope, login.as_ref()).await?;
                Ok(format!("Bearer {token}"))
            }
        }
    }

    async fn token(&self, realm: &str, service: &str, scope: &str, login: Option<&Login>) -> Result<String, PullError> {
        let url = challenge::token_url(realm, service, scope, self.host.scheme == "https");
        let url = url.map_err(PullError::Protocol)?;
        let oauth = login.filter(|login| !login.identity_token.is_empty());
        let target = if oauth.is_some() { realm } else { &url };
        let uri: Uri = target.parse().map_err(|e| PullError::Protocol(format!("{target:?}: {e}")))?;
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let mut request = Request::builder().uri(uri.clone()).header(HOST, &authority).header(USER_AGENT, "corten");
        let mut content = Bytes::new();
        match (oauth, login) {
            (Some(login), _) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", service),
                    ("client_id", "corten"),
                    ("scope", scope),
                    ("refresh_token", &login.identity_token),
                ];
                let form = form.map(|(key, value)| format!("{key}={}", query_escape(value))).join("&");
                content = Bytes::from(form);
                request = request.method(Method::POST).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            }
            (None, Some(login)) => request = request.header(AUTHORIZATION, basic(login)),
            (None, None) => {}
        }
        let verb = if oauth.is_some() { "Post" } else { "Get" };
        let request = request.body(body(Full::new(content))).map_err(|e| PullError::Protocol(e.to_string()))?;
        let answer = self.exchange(verb, &uri, request, self.destination(&uri, false)).await?;
        let code = answer.status();
        if !code.is_success() {
            let told = format!(
                "failed to fetch {}: unexpected status: {code}",
                if login.is_some() { "oauth token" } else { "anonymous token" }
            );
            return match code.as_u16() {
                401 | 403 => Err(PullError::Denied(format!("authorization failed: {told}"))),
                _ => Err(PullError::Transport(told)),
            };
        }
        let bytes = self.read(answer, TOKEN_BYTES_MAX).await?;
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|_| PullError::Protocol(format!("{realm}: the answer is no token")))?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        let sound = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        sound.then_some(token).ok_or_else(|| PullError::Protocol(format!("{realm}: the answer is no token")))
    }

    /// A whole small body.
    pub(crate) async fn read(&self, answer: Response<Incoming>, bytes_max: usize) -> Result<Bytes, PullError> {
        let collect = std::pin::pin!(Limited::new(answer.into_body(), bytes_max).collect());
        match select(collect, self.clock.sleep(ANSWER_MAX)).await {
            Either::Left((Ok(body), _)) => Ok(body.to_bytes()),
            Either::Left((Err(error), _)) if error.is::<http_body_util::LengthLimitError>() => {
                Err(PullError::Protocol(format!("an answer of more than {bytes_max} bytes")))
            }
            Either::Left((Err(error), _)) => Err(PullError::Transport(error.to_string())),
            Either::Right(_) => Err(PullError::Transport("timeout while reading body".into())),
        }
    }
}

fn basic(login: &Login) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", login.username, login.password)))
}

/// Where a redirect leads; never from TLS to none.
fn next(at: &Uri, to: &str) -> Option<Uri> {
    let absolute = match to {
        path if path.starts_with('/') && !path.starts_with("//") => {
            format!("{}://{}{path}", at.scheme_str()?, at.authority()?)
        }
        _ => to.to_owned(),
    };
    let next: Uri = absolute.parse().ok()?;
    match (at.scheme_str()?, next.scheme_str()?) {
        ("https", "https") | ("http", "http" | "https") => {}
        _ => return None,
    }
    next.host().is_some_and(|host| !host.is_empty()).then_some(next)
}

/// An answer that is no success, in containerd's words.
fn refused(answer: &Response<Incoming>, method: &Method, url: &str) -> PullError {
    let code = answer.status();
    match code.as_u16() {
        404 => PullError::NotFound,
        number => {
            let may_pass = number == 429 || number >= 500;
            PullError::Status(format!("unexpected status from {method} request to {url}: {code}"), may_pass)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_stays_with_tls() {
        let at: Uri = "https://a:5000/v2/x/blobs/y".parse().unwrap();
        let to = |to: &str| next(&at, to).map(|uri| uri.to_string());
        assert_eq!(to("/z?q").as_deref(), Some("https://a:5000/z?q"));
        assert_eq!(to("https://cdn/z").as_deref(), Some("https://cdn/z"));
        for bad in ["http://cdn/z", "file:///etc/passwd", "z", "", "//evil/x"] {
            assert_eq!(to(bad), None, "{bad}");
        }
    }
}
