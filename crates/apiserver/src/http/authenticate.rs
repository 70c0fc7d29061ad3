//! Who asks (`apiserver/pkg/authentication`): the front proxy's word, the client certificate, a bearer token, nobody; then as
//! whom they want to ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use corten_audit::trail;
use corten_auth::{Attributes, User, group};
use corten_object::Status;
use hyper::{HeaderMap, header};

use super::Peer;
use super::impersonate::{impersonate, wants_impersonation};
use super::query::unescape;
use crate::core::Core;
use crate::families::{self, Identified};

/// Before a bearer token among the WebSocket protocols: browsers can set no other header.
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// Who may ask without proof.
#[derive(Debug, Clone, Default)]
pub struct Anonymous {
    /// Nobody may.
    pub disabled: bool,
    /// If there are any: only for these paths.
    pub paths: Vec<String>,
}

/// The proxy before this server: what it says of users is believed.
#[derive(Debug, Clone)]
pub struct RequestHeader {
    /// Common names of the proxy's certificate; none is any.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name, in order.
    pub username_headers: Vec<String>,
    /// Headers with the user's uid, in order.
    pub uid_headers: Vec<String>,
    /// Headers with groups.
    pub group_headers: Vec<String>,
    /// What headers with extra values begin with.
    pub extra_prefixes: Vec<String>,
}

/// As kubeadm sets it up.
impl Default for RequestHeader {
    fn default() -> RequestHeader {
        let one = |text: &str| vec![text.to_owned()];
        RequestHeader {
            allowed_names: one(corten_auth::PROXY_NAME),
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_prefixes: one("X-Remote-Extra-"),
        }
    }
}

/// As whom the request is to be answered; `version` is the API version that is asked for. The record of the request learns who
/// really asks.
///
/// # Errors
/// 401 if nobody vouches for the caller; what impersonation refuses; 500 if the request cannot be recorded and must be.
pub(super) async fn authenticate(
    core: &Core,
    peer: &Peer,
    headers: &HeaderMap,
    request: &Attributes<'_>,
    version: &str,
) -> Result<Arc<User>, Status> {
    let begun = Instant::now();
    let identified = identify(core, peer, headers, request.path).await;
    match &identified {
        Ok(user) => families::authenticated(Identified::Success, &user.name, begun.elapsed()),
        // Who shows nothing has failed; what was shown and is no good is an error.
        Err(_) if attempted(peer, headers).is_empty() => {
            families::authenticated(Identified::Failure, "", begun.elapsed())
        }
        Err(_) => families::authenticated(Identified::Error, "", begun.elapsed()),
    }
    if let Some(trail) = trail::current() {
        match &identified {
            Ok(user) => {
                if !Box::pin(trail.decided(&Attributes { user, ..*request }, version)).await {
                    return Err(Status::internal("failed to store audit event"));
                }
            }
            Err(_) => Box::pin(trail.unauthenticated(request, version, &attempted(peer, headers))).await,
        }
    }
    let user = identified?;
    let about = Attributes { user: &user, ..*request };
    let other = match wants_impersonation(headers) {
        true => Box::pin(impersonate(core, &user, headers, &about)).await?,
        false => None,
    };
    Ok(other.map_or(user, Arc::new))
}

/// The proofs that a caller has tried (`filters/authn_audit.go`, `getAuthMethods`).
fn attempted(peer: &Peer, headers: &HeaderMap) -> Vec<&'static str> {
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let scheme = given.trim().split_once(' ').map_or("", |(scheme, _)| scheme);
    let all = [
        (scheme.eq_ignore_ascii_case("basic"), "basic"),
        (scheme.eq_ignore_ascii_case("bearer"), "bearer"),
        (peer.user.is_some() || peer.proxy.is_some(), "x509"),
    ];
    all.into_iter().filter(|(tried, _)| *tried).map(|(_, name)| name).collect()
}

async fn identify(core: &Core, peer: &Peer, headers: &HeaderMap, path: &str) -> Result<Arc<User>, Status> {
    if let Some(user) = proxied(core, peer, headers) {
        return Ok(Arc::new(user));
    }
    if let Some(user) = &peer.user {
        return Ok(user.clone());
    }
    if let Some(token) = bearer(headers) {
        let found = Box::pin(core.whose_token(&token, &[])).await.map_err(|error| {
            tracing::debug!(%error, "a bearer token was refused");
            Status::unauthorized()
        })?;
        return Ok(Arc::new(found.user));
    }
    let open = match core.identities.anonymous() {
        Some(said) => said.enabled && among(&said.paths, path),
        None => !core.anonymous.disabled && among(&core.anonymous.paths, path),
    };
    if open { Ok(Arc::new(User::anonymous())) } else { Err(Status::unauthorized()) }
}

/// Whether a path is one of these; none is any.
fn among(paths: &[String], path: &str) -> bool {
    paths.is_empty() || paths.iter().any(|p| p == path)
}

/// The token of a request (`authentication/request/{bearertoken,websocket}`).
fn bearer(headers: &HeaderMap) -> Option<String> {
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| {
        let (scheme, token) = v.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start().split(' ').next().unwrap_or_default())
    });
    if let Some(token) = given.filter(|t| !t.is_empty()) {
        return Some(token.to_owned());
    }
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let token = protocols.flat_map(|v| v.split(',')).find_map(|p| p.trim().strip_prefix(WEBSOCKET_TOKEN))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).ok()?).ok()
}

/// Whom the front proxy names (`authentication/request/headerrequest`).
fn proxied(core: &Core, peer: &Peer, headers: &HeaderMap) -> Option<User> {
    let config = core.request_header.as_ref()?;
    let proxy = peer.proxy.as_deref()?;
    if !config.allowed_names.is_empty() && !config.allowed_names.iter().any(|n| n == proxy) {
        return None;
    }
    let all = |name: &str| headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    let first =
        |names: &[String]| names.iter().find_map(|n| all(n).map(str::trim).find(|v| !v.is_empty())).map(str::to_owned);
    let name = first(&config.username_headers)?;
    let groups = config.group_headers.iter().flat_map(|n| all(n)).map(str::to_owned).collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for prefix in config.extra_prefixes.iter().map(|p| p.to_lowercase()) {
        for header in headers.keys().filter_map(|h| h.as_str().strip_prefix(&prefix)) {
            let values = all(&format!("{prefix}{header}")).map(str::to_owned);
            extra.entry(unescape(header, false)).or_default().extend(values);
        }
    }
    let mut user = User { name, uid: first(&config.uid_headers).unwrap_or_default(), groups, extra };
    let known = user.in_group(group::AUTHENTICATED) || user.in_group(group::UNAUTHENTICATED);
    if !known && user.name != "system:anonymous" {
        user.groups.push(group::AUTHENTICATED.into());
    }
    Some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens_are_found_in_both_headers() {
        let of = |name: header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            bearer(&headers)
        };
        assert_eq!(of(header::AUTHORIZATION, "bearer abc").as_deref(), Some("abc"));
        assert_eq!(of(header::AUTHORIZATION, "Basic abc"), None);
        assert_eq!(of(header::AUTHORIZATION, "Bearer "), None);
        let protocols = "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj";
        assert_eq!(of(header::SEC_WEBSOCKET_PROTOCOL, protocols).as_deref(), Some("abc"));
    }
}
