//! Paths and links on their way through a proxy (`apimachinery/pkg/util/proxy/transport.go`, `rewriteURL`).

use std::fmt::Write as _;

/// How links are rewritten.
pub(crate) struct Links<'a> {
    /// What a path must begin with to come back through the proxy.
    pub prefix: &'a str,
    /// The `host:port` that was connected to.
    pub server: &'a str,
    /// The Host header of the request.
    pub host: &'a str,
}

impl Links<'_> {
    /// A link that goes through the proxy if it leads to the server that sent it; others stay as they are.
    pub fn rewrite(&self, link: &str) -> String {
        let (rest, fragment) = split(link, '#');
        let (rest, query) = split(rest, '?');
        let (scheme, rest) = match rest.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
            _ => ("", rest),
        };
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let elsewhere = !host.is_empty() && host != self.server && host != self.host;
        if elsewhere || !path.starts_with('/') {
            return link.to_owned();
        }
        let mut out = String::new();
        if !host.is_empty() && host == self.host {
            let colon = if scheme.is_empty() { "" } else { ":" };
            let _ = write!(out, "{scheme}{colon}//{host}");
        }
        match path.starts_with(self.prefix) {
            true => out.push_str(path),
            false => out.push_str(&join(self.prefix, path)),
        }
        out.push_str(query);
        out.push_str(fragment);
        out
    }
}

/// What is before a mark, and the mark with what follows it.
fn split(text: &str, mark: char) -> (&str, &str) {
    text.split_at(text.find(mark).unwrap_or(text.len()))
}

fn is_scheme(text: &str) -> bool {
    let mut letters = text.bytes();
    letters.next().is_some_and(|b| b.is_ascii_alphabetic())
        && letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// Two paths as one without empty and dotted parts; a slash at the end stays (`JoinPreservingTrailingSlash`).
pub(crate) fn join(first: &str, second: &str) -> String {
    let rooted = first.starts_with('/') || (first.is_empty() && second.starts_with('/'));
    let mut parts: Vec<&str> = Vec::new();
    for part in first.split('/').chain(second.split('/')) {
        match part {
            "" | "." => {}
            ".." if rooted || parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut out = String::from(if rooted { "/" } else { "" });
    out.push_str(&parts.join("/"));
    let last = if second.is_empty() { first } else { second };
    if last.ends_with('/') && !out.ends_with('/') {
        out.push('/');
    }
    out
}

/// `X-Forwarded-Uri`: the path as the client knows it.
pub(super) fn forwarded(prefix: &str, path: &str) -> String {
    join(prefix, path)
}

/// A path with what cannot stand in one escaped (Go's `url.URL.EscapedPath`).
pub(crate) fn escape(path: &str) -> String {
    escape_but(path, b"-_.~$&+,/:;=@")
}

/// Text in which all but letters, digits and `kept` is escaped by percent signs.
pub(crate) fn escape_but(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxied_links_to_the_server_get_the_prefix() {
        let links =
            Links { prefix: "/api/v1/namespaces/d/pods/p:80/proxy", server: "10.42.0.3:80", host: "localhost:8001" };
        let p = links.prefix;
        for (link, expected) in [
            ("/a/b?x=1#y", format!("{p}/a/b?x=1#y")),
            ("/a/", format!("{p}/a/")),
            ("/", format!("{p}/")),
            ("a/b", "a/b".into()),
            ("", String::new()),
            ("#top", "#top".into()),
            ("mailto:a@b", "mailto:a@b".into()),
            ("http://10.42.0.3:80/x", format!("{p}/x")),
            ("http://localhost:8001/x", format!("http://localhost:8001{p}/x")),
            ("http://example.com/x", "http://example.com/x".into()),
            ("//example.com/x", "//example.com/x".into()),
            ("http://10.42.0.3:80", "http://10.42.0.3:80".into()),
            (&format!("{p}/known"), format!("{p}/known")),
        ] {
            assert_eq!(links.rewrite(link), expected, "{link}");
        }
    }

    #[test]
    fn proxied_paths_are_joined_and_escaped() {
        assert_eq!(join("", "/a//b/../c"), "/a/c");
        assert_eq!(join("", "/a/"), "/a/");
        assert_eq!(join("/x", "/"), "/x/");
        assert_eq!(join("/x", ""), "/x");
        assert_eq!(join("", ""), "");
        assert_eq!(join("", "/"), "/");
        assert_eq!(join("", "/../.."), "/");
        assert_eq!(escape("/a b/é?*"), "/a%20b/%C3%A9%3F%2A");
    }
}
