//! How a request becomes a SPDY connection, and which protocol its streams follow (`streaming/pkg/httpstream`, `Handshake`).

use bytes::Bytes;
use corten_object::Status;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Request, Response, StatusCode};

use crate::http::{HttpBody, full, respond};

/// Names the protocols that a client offers, and the one that the server chose.
const OFFERED: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Names those that the server knows, if it knows none of the offered ones.
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// What a client and this server agree on.
pub(crate) enum Agreement {
    /// A protocol.
    On(&'static str),
    /// Nothing: the answer that says so.
    Refused(Box<Response<HttpBody>>),
}

/// The first of the client's protocols that is known.
///
/// # Errors
/// 400 if the request asks for no SPDY connection.
pub(crate) fn agree(headers: &HeaderMap, known: &[&'static str]) -> Result<Agreement, Status> {
    let upgrade = values(headers, &header::UPGRADE);
    if !upgrade.iter().any(|u| u.eq_ignore_ascii_case("SPDY/3.1")) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    if !headers.contains_key(OFFERED) {
        let why = format!(
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with {} headers",
            headers.keys_len()
        );
        return Ok(Agreement::Refused(Box::new(refusal(400, &why))));
    }
    let offered = values(headers, &OFFERED);
    if let Some(agreed) = offered.iter().find_map(|o| known.iter().find(|k| *k == o)) {
        return Ok(Agreement::On(agreed));
    }
    let why = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
        offered.join(" "),
        known.join(" ")
    );
    let mut response = refusal(403, &why);
    for known in known {
        response.headers_mut().append(ACCEPTED, HeaderValue::from_static(known));
    }
    Ok(Agreement::Refused(Box::new(response)))
}

/// The answer that begins the connection, and the connection once that is sent.
pub(crate) fn accept(mut request: Request<Incoming>, protocol: &'static str) -> (Response<HttpBody>, OnUpgrade) {
    let upgrade = hyper::upgrade::on(&mut request);
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(OFFERED, HeaderValue::from_static(protocol));
    (response, upgrade)
}

/// The values of a header, those of one line apart.
pub(crate) fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let all = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect()
}

/// An answer in plain words.
fn refusal(code: u16, why: &str) -> Response<HttpBody> {
    let mut response = respond(code, "text/plain; charset=utf-8", full(Bytes::from(format!("{why}\n"))));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(headers: &[(&'static str, &'static str)]) -> Result<String, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        match agree(&map, &["v4.channel.k8s.io", "channel.k8s.io"]) {
            Ok(Agreement::On(protocol)) => Ok(protocol.to_owned()),
            Ok(Agreement::Refused(response)) => Err(response.status().as_u16().to_string()),
            Err(status) => Err(status.message),
        }
    }

    #[test]
    fn spdy_protocols_are_chosen_in_the_clients_order() {
        let (upgrade, offers) = (("upgrade", "SPDY/3.1"), "x-stream-protocol-version");
        assert_eq!(
            agreed(&[upgrade, (offers, "x, channel.k8s.io"), (offers, "v4.channel.k8s.io")]),
            Ok("channel.k8s.io".into())
        );
        assert_eq!(agreed(&[upgrade, (offers, "x")]), Err("403".into()));
        assert_eq!(agreed(&[upgrade]), Err("400".into()));
        assert_eq!(agreed(&[(offers, "channel.k8s.io")]), Err("Upgrade request required".into()));
    }
}
