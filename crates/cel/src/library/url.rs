//! URLs (`k8s.io/apiserver/pkg/cel/library/urls.go`), read as Go's `net/url` reads them.

use std::fmt;
use std::sync::Arc;

use crate::collection::MapValue;
use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::library::take;
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 0),
    rows: &[
        Row("url", "string_to_url", "(string) -> kubernetes.URL", url),
        Row("getScheme", "url_get_scheme", "kubernetes.URL.() -> string", get_scheme),
        Row("getHost", "url_get_host", "kubernetes.URL.() -> string", get_host),
        Row("getHostname", "url_get_hostname", "kubernetes.URL.() -> string", get_hostname),
        Row("getPort", "url_get_port", "kubernetes.URL.() -> string", get_port),
        Row("getEscapedPath", "url_get_escaped_path", "kubernetes.URL.() -> string", get_escaped_path),
        Row("getQuery", "url_get_query", "kubernetes.URL.() -> map(string, list(string))", get_query),
        Row("isURL", "is_url_string", "(string) -> bool", is_url),
    ],
};

/// A URL in parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    /// What follows a scheme without a slash.
    opaque: String,
    user: Option<String>,
    host: String,
    /// As given, escapes included.
    path: String,
    query: Option<String>,
    fragment: Option<String>,
}

/// Prints the URL.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.scheme.is_empty() {
            write!(f, "{}:", self.scheme)?;
        }
        if !self.opaque.is_empty() {
            f.write_str(&self.opaque)?;
        } else {
            if !self.host.is_empty() || self.user.is_some() {
                f.write_str("//")?;
                if let Some(user) = &self.user {
                    write!(f, "{user}@")?;
                }
                f.write_str(&self.host)?;
            }
            f.write_str(&self.escaped_path())?;
        }
        if let Some(query) = &self.query {
            write!(f, "?{query}")?;
        }
        if let Some(fragment) = &self.fragment {
            write!(f, "#{fragment}")?;
        }
        Ok(())
    }
}

impl Url {
    /// Reads a URL (`url.Parse`); with `request`, only what an HTTP request may carry (`url.ParseRequestURI`).
    pub(crate) fn parse(text: &str, request: bool) -> Result<Url, String> {
        let (main, fragment) = match text.split_once('#').filter(|_| !request) {
            Some((main, fragment)) => (main, Some(fragment)),
            None => (text, None),
        };
        let mut url = Url::parse_main(main, request).map_err(|why| format!("parse {text:?}: {why}"))?;
        url.fragment = fragment.filter(|fragment| !fragment.is_empty()).map(str::to_owned);
        Ok(url)
    }

    fn parse_main(text: &str, request: bool) -> Result<Url, String> {
        if text.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err("net/url: invalid control character in URL".into());
        }
        if text.is_empty() && request {
            return Err("empty url".into());
        }
        if text == "*" {
            return Ok(Url { path: "*".into(), ..Url::default() });
        }
        let (scheme, rest) = split_scheme(text)?;
        let mut url = Url { scheme: scheme.to_ascii_lowercase(), ..Url::default() };
        let (mut rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_owned())),
            None => (rest, None),
        };
        url.query = query;
        if !rest.starts_with('/') {
            if !url.scheme.is_empty() {
                url.opaque = rest.to_owned();
                return Ok(url);
            }
            if request {
                return Err("invalid URI for request".into());
            }
            if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
                return Err("first path segment in URL cannot contain colon".into());
            }
        }
        let has_authority = !url.scheme.is_empty() || (!request && !rest.starts_with("///"));
        if let Some(after) = rest.strip_prefix("//").filter(|_| has_authority) {
            let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
            url.authority(authority)?;
            rest = path;
        }
        unescape(rest, false)?;
        url.path = rest.to_owned();
        Ok(url)
    }

    fn authority(&mut self, text: &str) -> Result<(), String> {
        let host = match text.rsplit_once('@') {
            Some((user, host)) => {
                if !user.chars().all(|c| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c)) {
                    return Err("net/url: invalid userinfo".into());
                }
                self.user = Some(user.to_owned());
                host
            }
            None => text,
        };
        let port = if host.starts_with('[') {
            let end = host.rfind(']').ok_or("missing ']' in host")?;
            &host[end + 1..]
        } else {
            &host[host.rfind(':').unwrap_or(host.len())..]
        };
        let valid =
            port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
        if !valid {
            return Err(format!("invalid port {port:?} after host"));
        }
        if let Some(bad) = host
            .chars()
            .find(|c| c.is_ascii() && !(c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"%".contains(*c)))
        {
            return Err(format!("invalid character {:?} in host name", bad.to_string()));
        }
        self.host = unescape(host, false)?;
        Ok(())
    }

    fn hostname(&self) -> &str {
        if let Some(rest) = self.host.strip_prefix('[') {
            return rest.split(']').next().unwrap_or_default();
        }
        self.host.rsplit_once(':').map_or(&self.host, |(host, _)| host)
    }

    fn port(&self) -> &str {
        let after = if self.host.starts_with('[') {
            self.host.rfind(']').map_or("", |at| &self.host[at..])
        } else {
            &self.host
        };
        after.rsplit_once(':').map_or("", |(_, port)| port)
    }

    fn escaped_path(&self) -> String {
        let valid = |c: char| c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:@[]%/".contains(c);
        if self.path.chars().all(valid) {
            return self.path.clone();
        }
        let mut out = String::new();
        for b in unescape(&self.path, false).unwrap_or_default().bytes() {
            match b {
                b if b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b) => out.push(b as char),
                b => out.push_str(&format!("%{b:02X}")),
            }
        }
        out
    }

    /// Keys with their values in order; what cannot be read is left out (`url.Values`).
    fn query(&self) -> Vec<(String, Vec<String>)> {
        let mut out: Vec<(String, Vec<String>)> = Vec::new();
        for pair in self.query.as_deref().unwrap_or_default().split('&') {
            if pair.is_empty() || pair.contains(';') {
                continue;
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Ok(key), Ok(value)) = (unescape(key, true), unescape(value, true)) else { continue };
            match out.iter_mut().find(|(have, _)| *have == key) {
                Some((_, values)) => values.push(value),
                None => out.push((key, vec![value])),
            }
        }
        out
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

fn unescape(text: &str, query: bool) -> Result<String, String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digits = bytes.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                let Some(digits) = digits else {
                    let shown = String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 3)]);
                    return Err(format!("invalid URL escape {shown:?}"));
                };
                let hex = |b: u8| (b as char).to_digit(16).unwrap_or_default() as u8;
                out.push(hex(digits[0]) * 16 + hex(digits[1]));
                at += 3;
                continue;
            }
            b'+' if query => out.push(b' '),
            b => out.push(b),
        }
        at += 1;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn url<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text));
    let parsed = Url::parse(text, true).and_then(|_| Url::parse(text, false));
    parsed
        .map(|url| Value::Url(Arc::new(url)))
        .map_err(|why| EvalError::new(format!("URL parse error during conversion from string: {why}")))
}

fn is_url<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(text));
    Ok(Value::Bool(Url::parse(text, true).is_ok()))
}

fn get_scheme<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Url(url));
    Ok(Value::str(url.scheme.as_str()))
}

fn get_host<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Url(url));
    Ok(Value::str(url.host.as_str()))
}

fn get_hostname<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Url(url));
    Ok(Value::str(url.hostname()))
}

fn get_port<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Url(url));
    Ok(Value::str(url.port()))
}

fn get_escaped_path<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Url(url));
    Ok(Value::str(url.escaped_path()))
}

fn get_query<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Url(url));
    let mut map = MapValue::default();
    for (key, values) in url.query() {
        map.insert(Value::str(key), Value::list(values.into_iter().map(Value::str).collect()));
    }
    Ok(Value::Map(Arc::new(map)))
}
