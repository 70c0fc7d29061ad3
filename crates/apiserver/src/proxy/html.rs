//! Links in pages (`apimachinery/pkg/util/proxy/transport.go`, `rewriteHTML`; Go's `golang.org/x/net/html` tokenizer).
//!
//! Start tags are written anew, in lower case and with quoted values; everything else stays byte for byte.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};

/// The attributes with links, by element.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose content is text up to their end tag.
const RAW: [&str; 10] =
    ["iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea", "title", "xmp"];

/// Rewrites a page in its encoding (`gzip`, `deflate`, none); `None` if that cannot be read, or holds more than `max` bytes.
pub fn recoded(encoding: &str, bytes: &[u8], max: usize, rewrite: impl Fn(&[u8]) -> Vec<u8>) -> Option<Vec<u8>> {
    let read = |reader: &mut dyn std::io::Read| {
        let mut page = Vec::new();
        reader.take(max as u64 + 1).read_to_end(&mut page).ok().filter(|n| *n <= max)?;
        Some(page)
    };
    match encoding {
        "" => Some(rewrite(bytes)),
        "gzip" => {
            let page = rewrite(&read(&mut GzDecoder::new(bytes))?);
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&page).ok()?;
            encoder.finish().ok()
        }
        "deflate" => {
            let page = rewrite(&read(&mut DeflateDecoder::new(bytes))?);
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&page).ok()?;
            encoder.finish().ok()
        }
        _ => None,
    }
}

/// Puts every link of a page through `link`.
pub fn rewrite(page: &[u8], link: impl Fn(&str) -> String) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + page.len() / 8);
    let mut rest = page;
    while let Some(at) = rest.iter().position(|b| *b == b'<') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with(b"<!--") {
            let end = find(rest, b"-->").map_or(rest.len(), |at| at + 3);
            out.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let Some((tag, length)) = tag(rest) else {
            out.push(b'<');
            rest = &rest[1..];
            continue;
        };
        write_tag(&tag, &link, &mut out);
        rest = &rest[length..];
        if RAW.contains(&tag.name.as_str()) && !tag.closed {
            let end = end_of_raw(rest, &tag.name);
            out.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out.extend_from_slice(rest);
    out
}

struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
    closed: bool,
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Where the text of a raw element ends: at its end tag.
fn end_of_raw(bytes: &[u8], name: &str) -> usize {
    let ends = |at: usize| {
        let after = at + 2 + name.len();
        let found = bytes.get(at + 2..after).is_some_and(|n| n.eq_ignore_ascii_case(name.as_bytes()));
        found && bytes.get(after).is_none_or(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/'))
    };
    let mut from = 0;
    while let Some(at) = find(&bytes[from..], b"</") {
        if ends(from + at) {
            return from + at;
        }
        from += at + 2;
    }
    bytes.len()
}

/// The start tag at the beginning, and its length.
fn tag(bytes: &[u8]) -> Option<(Tag, usize)> {
    let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&bytes[range]).into_owned();
    if !bytes.get(1)?.is_ascii_alphabetic() {
        return None;
    }
    let is_end = |b: u8| b.is_ascii_whitespace() || matches!(b, b'>' | b'/');
    let skip = |mut at: usize, while_: &dyn Fn(u8) -> bool| {
        while bytes.get(at).is_some_and(|b| while_(*b)) {
            at += 1;
        }
        at
    };
    let blank = |b: u8| b.is_ascii_whitespace();
    let mut at = skip(1, &|b| !is_end(b));
    let mut tag = Tag { name: text(1..at).to_ascii_lowercase(), attributes: Vec::new(), closed: false };
    loop {
        at = skip(at, &blank);
        match bytes.get(at)? {
            b'>' => return Some((tag, at + 1)),
            b'/' => {
                tag.closed = bytes.get(at + 1) == Some(&b'>');
                at += 1;
                continue;
            }
            _ => {}
        }
        // A mark at the very beginning belongs to the name.
        let end = skip(at + 1, &|b| !is_end(b) && b != b'=');
        let name = text(at..end).to_ascii_lowercase();
        at = skip(end, &blank);
        let mut value = String::new();
        if bytes.get(at) == Some(&b'=') {
            at = skip(at + 1, &blank);
            let end = match bytes.get(at)? {
                quote @ (b'"' | b'\'') => {
                    at += 1;
                    let end = skip(at, &|b| b != *quote);
                    bytes.get(end)?;
                    value = text(at..end);
                    end + 1
                }
                _ => {
                    let end = skip(at, &|b| !b.is_ascii_whitespace() && b != b'>');
                    value = text(at..end);
                    end
                }
            };
            at = end;
        }
        if !tag.attributes.iter().any(|(known, _)| *known == name) {
            tag.attributes.push((name, unescape(&value)));
        }
    }
}

fn write_tag(tag: &Tag, link: &impl Fn(&str) -> String, out: &mut Vec<u8>) {
    let links = LINKS.iter().find(|(name, _)| *name == tag.name).map_or(&[][..], |(_, links)| links);
    out.push(b'<');
    out.extend_from_slice(tag.name.as_bytes());
    for (name, value) in &tag.attributes {
        let rewritten = if links.contains(&name.as_str()) { link(value) } else { value.clone() };
        out.extend_from_slice(format!(" {name}=\"{}\"", escape(&rewritten)).as_bytes());
    }
    out.extend_from_slice(if tag.closed { b"/>" } else { b">" });
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&#39;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\r' => out.push_str("&#13;"),
            c => out.push(c),
        }
    }
    out
}

/// Reads character references: numbers, and the names that a value needs. Others stay as they are.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = rest.find(';').and_then(|end| Some((reference(&rest[1..end])?, end + 1)));
        match known {
            Some((c, length)) => {
                out.push(c);
                rest = &rest[length..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn reference(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(page: &str) -> String {
        let link = |l: &str| if l.starts_with('/') { format!("/proxy{l}") } else { l.to_owned() };
        String::from_utf8(rewrite(page.as_bytes(), link)).unwrap()
    }

    #[test]
    fn proxied_pages_have_their_links_rewritten() {
        for (page, expected) in [
            (r#"<a href="/x">y</a>"#, r#"<a href="/proxy/x">y</a>"#),
            ("<A HREF=/x CLASS='b\"'>y</A>", r#"<a href="/proxy/x" class="b&#34;">y</A>"#),
            (r#"<img src="/a&amp;b" alt="/a">"#, r#"<img src="/proxy/a&amp;b" alt="/a">"#),
            (r#"<br/><a href="x">"#, r#"<br/><a href="x">"#),
            (
                r#"<script>if (a < b) "<a href='/x'>"</script><a href="/x">"#,
                r#"<script>if (a < b) "<a href='/x'>"</script><a href="/proxy/x">"#,
            ),
            (r#"<!-- <a href="/x"> --><p>1 < 2"#, r#"<!-- <a href="/x"> --><p>1 < 2"#),
            (r#"<!DOCTYPE html><a href="/x"#, r#"<!DOCTYPE html><a href="/x"#),
            ("<input disabled>", r#"<input disabled="">"#),
        ] {
            assert_eq!(rewritten(page), expected);
        }
    }

    #[test]
    fn proxied_pages_are_rewritten_in_their_encoding() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(b"abc").unwrap();
        let zipped = gzip.finish().unwrap();
        let twice = |page: &[u8]| [page, page].concat();
        let again = recoded("gzip", &zipped, 10, twice).unwrap();
        let mut page = String::new();
        GzDecoder::new(&again[..]).read_to_string(&mut page).unwrap();
        assert_eq!(page, "abcabc");
        assert!(recoded("gzip", &zipped, 2, twice).is_none(), "it holds too much");
        assert!(recoded("br", b"x", 10, twice).is_none());
    }
}
