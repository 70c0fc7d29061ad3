//! Headers on their way through a proxy (Go's `net/http/httputil/reverseproxy.go`; `apimachinery/pkg/util/proxy`).

use std::net::IpAddr;

use corten_auth::User;
use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

use crate::http::Call;

/// What is between two servers only.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// What says who asks: it was believed here or not, and is nobody's business further on.
const CREDENTIALS: [&str; 8] = [
    "authorization",
    "x-remote-user",
    "x-remote-uid",
    "x-remote-group",
    "impersonate-user",
    "impersonate-uid",
    "impersonate-group",
    "x-forwarded-uri",
];
const CREDENTIAL_PREFIXES: [&str; 2] = ["x-remote-extra-", "impersonate-extra-"];
/// What a server says of who may read its answer: for its own address, not for this one.
const CORS: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];
/// A bearer token among the WebSocket protocols.
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// Whether a request asks to change the protocol (`httpstream.IsUpgradeRequest`).
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    values.into_iter().any(|v| v.to_ascii_lowercase().contains("upgrade"))
}

/// Whether an answer is a page.
pub fn is_html(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    media.split(';').next().map(str::trim) == Some("text/html")
}

/// Whether an answer may last for as long as the client stays.
pub fn is_lasting(call: &Call) -> bool {
    call.query.flag("watch")
        || call.query.flag("follow")
        || call.path.contains("/watch/")
        || call.path.contains("/proxy")
}

fn strip_hops(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in named.iter().map(String::as_str).chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The headers of a request that goes on.
pub fn onward(from: &HeaderMap, ip: IpAddr, upgrade: bool) -> HeaderMap {
    let mut headers = from.clone();
    let protocol = headers.get(header::UPGRADE).filter(|_| upgrade).cloned();
    strip_hops(&mut headers);
    for name in CREDENTIALS {
        headers.remove(name);
    }
    let prefixed: Vec<HeaderName> =
        headers.keys().filter(|k| CREDENTIAL_PREFIXES.iter().any(|p| k.as_str().starts_with(p))).cloned().collect();
    for name in prefixed {
        headers.remove(name);
    }
    strip_socket_token(&mut headers);
    let before = headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok());
    let chain: Vec<String> = before.map(str::to_owned).chain([ip.to_canonical().to_string()]).collect();
    if let Ok(value) = HeaderValue::from_str(&chain.join(", ")) {
        headers.insert("x-forwarded-for", value);
    }
    if let Some(protocol) = protocol {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    headers
}

/// Takes a bearer token out of the WebSocket protocols (`authentication/request/websocket/protocol.go`).
fn strip_socket_token(headers: &mut HeaderMap) {
    let name = header::SEC_WEBSOCKET_PROTOCOL;
    let all: Vec<String> = headers
        .get_all(&name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|p| p.trim().to_owned())
        .collect();
    if !all.iter().any(|p| p.starts_with(WEBSOCKET_TOKEN)) {
        return;
    }
    headers.remove(&name);
    let rest: Vec<&str> = all.iter().map(String::as_str).filter(|p| !p.starts_with(WEBSOCKET_TOKEN)).collect();
    if let (false, Ok(value)) = (rest.is_empty(), HeaderValue::from_str(&rest.join(","))) {
        headers.insert(name, value);
    }
}

/// Cleans the headers of an answer that goes back.
pub fn back(headers: &mut HeaderMap) {
    strip_hops(headers);
    for name in CORS {
        headers.remove(name);
    }
}

/// Says who asks, to a server that believes this one (`client-go/transport/round_trippers.go`, `SetAuthProxyHeaders`).
pub fn as_user(headers: &mut HeaderMap, user: &User) {
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid);
    }
    for group in &user.groups {
        add("x-remote-group", group);
    }
    for (key, values) in &user.extra {
        for value in values {
            add(&format!("x-remote-extra-{}", escaped_key(key)), value);
        }
    }
}

/// A key as part of a header's name (`headerKeyEscape`).
fn escaped_key(key: &str) -> String {
    super::url::escape_but(key, b"!#$&'*+-.^_`|~")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(k, v): &(&str, &str)| (HeaderName::try_from(*k).unwrap(), HeaderValue::from_str(v).unwrap());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn proxied_requests_carry_no_credentials_and_no_hop_by_hop_headers() {
        let from = of(&[
            ("authorization", "Bearer x"),
            ("x-remote-user", "evil"),
            ("x-remote-extra-a", "b"),
            ("impersonate-user", "root"),
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("te", "gzip"),
            ("accept", "*/*"),
            ("x-forwarded-for", "192.0.2.1"),
            ("sec-websocket-protocol", "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj"),
        ]);
        let headers = onward(&from, "192.0.2.9".parse().unwrap(), false);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "sec-websocket-protocol", "x-forwarded-for"]);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1, 192.0.2.9");
        assert_eq!(headers["sec-websocket-protocol"], "v4.channel.k8s.io");
    }

    #[test]
    fn proxied_upgrades_keep_what_makes_them() {
        let headers = onward(&of(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]), [1, 2, 3, 4].into(), true);
        assert_eq!(
            (headers["connection"].as_bytes(), headers["upgrade"].as_bytes()),
            (&b"Upgrade"[..], &b"SPDY/3.1"[..])
        );
    }

    #[test]
    fn proxied_users_are_named_in_headers() {
        let mut user = User::new("jane", &["devs"]);
        user.extra.insert("acme.com/project %".into(), vec!["a".into(), "b".into()]);
        let mut headers = HeaderMap::new();
        as_user(&mut headers, &user);
        assert_eq!(headers["x-remote-user"], "jane");
        assert_eq!(headers.get_all("x-remote-group").iter().count(), 2);
        assert_eq!(headers.get_all("x-remote-extra-acme.com%2fproject%20%25").iter().count(), 2);
    }
}
