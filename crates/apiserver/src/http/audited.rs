//! What the audit wants to know of an HTTP request before anything is known of its caller.

use std::net::IpAddr;

use corten_audit::Asked;
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, header};

use super::Peer;
use crate::core::Core;

/// The id of a request: its own word for it, else a new one (`apiserver/pkg/endpoints/filters/audit_init.go`).
pub(super) fn id(core: &Core, headers: &HeaderMap) -> String {
    match text(headers, "audit-id") {
        "" => core.entropy.uid(),
        own => own.to_owned(),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// What is known of a request by itself.
pub(super) fn asked(core: &Core, peer: &Peer, request: &Request<Incoming>, id: String, long_running: bool) -> Asked {
    let headers = request.headers();
    let agent = headers.get(header::USER_AGENT).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    Asked {
        id,
        received: core.clock.now(),
        uri: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
        source_ips: source_ips(headers, peer.ip),
        user_agent: agent.unwrap_or_default(),
        long_running,
    }
}

/// Where a request came from (`apimachinery/pkg/util/net/http.go`, `SourceIPs`).
fn source_ips(headers: &HeaderMap, peer: IpAddr) -> Vec<String> {
    let parse = |text: &str| text.trim().parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    let mut found: Vec<IpAddr> = text(headers, "x-forwarded-for").split(',').filter_map(parse).collect();
    if let Some(ip) = parse(text(headers, "x-real-ip")).filter(|ip| !found.contains(ip)) {
        found.push(ip);
    }
    let peer = peer.to_canonical();
    if found.last() != Some(&peer) {
        found.push(peer);
    }
    found.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_source_ips_end_with_the_peer() {
        let of = |all: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in all {
                headers.insert(*name, value.parse().unwrap());
            }
            source_ips(&headers, [10, 0, 0, 9].into()).join(" ")
        };
        assert_eq!(of(&[]), "10.0.0.9");
        assert_eq!(of(&[("x-forwarded-for", "1.2.3.4, x, ::1"), ("x-real-ip", "1.2.3.4")]), "1.2.3.4 ::1 10.0.0.9");
        assert_eq!(of(&[("x-real-ip", "10.0.0.9")]), "10.0.0.9");
    }
}
