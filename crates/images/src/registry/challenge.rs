//! What a registry demands with 401, and what its token server is asked (the `distribution` project's token specification).

use corten_client::query_escape;

/// How to prove oneself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

/// Longest header that is looked at, in bytes.
const HEADER_MAX: usize = 8 << 10;

/// The challenge of a `WWW-Authenticate` header that can be met; a token is preferred, as by containerd.
pub(crate) fn parse(headers: &[&str]) -> Option<Challenge> {
    let mut basic = None;
    for header in headers.iter().filter(|h| h.len() <= HEADER_MAX) {
        for (scheme, parameters) in challenges(header) {
            let get = |name: &str| {
                let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            };
            if scheme.eq_ignore_ascii_case("bearer") && !get("realm").is_empty() {
                return Some(Challenge::Bearer { realm: get("realm"), service: get("service"), scope: get("scope") });
            }
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

/// What a header says is wrong with the proof that it was given; only bearer challenges say that.
pub(crate) fn error(headers: &[&str]) -> Option<String> {
    let all = headers.iter().filter(|h| h.len() <= HEADER_MAX).flat_map(|header| challenges(header));
    let mut errors = all.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).flat_map(|(_, found)| found);
    errors.find(|(key, value)| key.eq_ignore_ascii_case("error") && !value.is_empty()).map(|(_, value)| value)
}

type Parameters = Vec<(String, String)>;

/// The challenges of one header: a scheme, then `key=value` pairs divided by commas.
fn challenges(header: &str) -> Vec<(String, Parameters)> {
    let mut out: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        if rest.is_empty() {
            return out;
        }
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match after.strip_prefix('=') {
            Some(value) => {
                let (value, after) = value_of(value);
                if let Some((_, parameters)) = out.last_mut() {
                    parameters.push((word.to_owned(), value));
                }
                rest = after;
            }
            None => {
                out.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(c),
        }
    }
    (value, "")
}

/// The URL of a token. A registry with TLS must not send us, and our password, to a server without (compare CVE-2020-15157).
pub(crate) fn token_url(realm: &str, service: &str, scope: &str, needs_tls: bool) -> Result<String, String> {
    let uri: hyper::Uri = realm.parse().map_err(|_| format!("the token server {realm:?} is no URL"))?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if !needs_tls => {}
        _ => return Err(format!("the token server {realm:?} is not https://")),
    }
    let mut query = Vec::new();
    if !service.is_empty() {
        query.push(format!("service={}", query_escape(service)));
    }
    query.extend(scope.split(' ').filter(|s| !s.is_empty()).map(|s| format!("scope={}", query_escape(s))));
    let first = if uri.query().is_some() { '&' } else { '?' };
    let query = if query.is_empty() { String::new() } else { format!("{first}{}", query.join("&")) };
    Ok(format!("{realm}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_understood() {
        let bearer = |realm: &str, service: &str, scope: &str| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into() })
        };
        for (header, expected) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a/b:pull\"",
                bearer("https://a/t", "s", "repository:a/b:pull"),
            ),
            ("Basic realm=\"x\", Bearer realm=\"https://a/\\\"t\"", bearer("https://a/\"t", "", "")),
            ("bearer realm=https://a/t, error=\"invalid_token\"", bearer("https://a/t", "", "")),
            ("Bearer", None),
            ("Negotiate", None),
            ("=,==\"", None),
            ("", None),
        ] {
            assert_eq!(parse(&[header]), expected, "{header}");
        }
        assert_eq!(error(&["bearer realm=https://a/t, error=\"invalid_token\""]).as_deref(), Some("invalid_token"));
        assert_eq!(error(&["Basic realm=\"x\", error=\"y\"", "Bearer realm=\"x\""]), None);
    }

    #[test]
    fn a_password_is_not_sent_where_everybody_reads_it() {
        let url = token_url("https://a/t", "s r", "repository:a/b:pull x", true).unwrap();
        assert_eq!(url, "https://a/t?service=s%20r&scope=repository%3Aa%2Fb%3Apull&scope=x");
        assert_eq!(token_url("http://a/t?x=y", "s", "", false).unwrap(), "http://a/t?x=y&service=s");
        for realm in ["http://a/t", "ftp://a", "/token", "file:///etc/passwd"] {
            assert!(token_url(realm, "s", "", true).is_err(), "{realm}");
        }
    }
}
