//! Formats of texts in custom resources, as upstream checks them.
//!
//! Names: `apiextensions-apiserver/pkg/apiserver/validation/formats.go`; checks: `kube-openapi/pkg/validation/strfmt` and the
//! validators that it uses. A format that is not in the table is not checked.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use corten_schema::re2;
use corten_schema::scalars::{base64, duration};

type Check = fn(&str) -> bool;

/// By name without dashes.
const CHECKS: &[(&str, Check)] = &[
    ("bsonobjectid", |text| text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit())),
    ("uri", uri),
    ("email", email),
    ("hostname", hostname),
    ("ipv4", ipv4),
    ("ipv6", |text| text.contains(':') && text.parse::<Ipv6Addr>().is_ok()),
    ("cidr", cidr),
    ("mac", mac),
    ("uuid", |text| uuid(text, None)),
    ("uuid3", |text| uuid(text, Some('3'))),
    ("uuid4", |text| uuid(text, Some('4'))),
    ("uuid5", |text| uuid(text, Some('5'))),
    ("isbn", |text| isbn10(text) || isbn13(text)),
    ("isbn10", isbn10),
    ("isbn13", isbn13),
    ("creditcard", credit_card),
    ("ssn", ssn),
    ("hexcolor", hex_color),
    ("rgbcolor", rgb_color),
    ("byte", |text| !text.is_empty() && !text.contains(char::is_whitespace) && base64::decode(text).is_ok()),
    ("password", |_| true),
    ("date", date),
    ("duration", |text| duration::parse(text).is_ok() || words_of_time(text)),
    ("datetime", date_time),
    ("k8sshortname", |text| text.len() <= 63 && label(text)),
    ("k8slongname", |text| text.len() <= 253 && text.split('.').all(label)),
];

fn find(format: &str) -> Option<Check> {
    let plain = format.replace('-', "");
    CHECKS.iter().find(|(name, _)| *name == plain).map(|(_, check)| *check)
}

/// Whether a format of texts is one that is checked.
pub(crate) fn is_known(format: &str) -> bool {
    find(format).is_some()
}

/// Whether a text has a format; true for formats that are not checked.
pub(crate) fn fits(format: &str, text: &str) -> bool {
    find(format).is_none_or(|check| check(text))
}

fn label(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    ends && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

/// Go's `url.ParseRequestURI`: an absolute path, or a scheme with something behind it.
fn uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return false;
    }
    let scheme = text.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
    let rest = match scheme {
        Some(at) if at > 0 && text.as_bytes()[at] == b':' && text.as_bytes()[0].is_ascii_alphabetic() => {
            &text[at + 1..]
        }
        Some(0) if text.starts_with('/') => text,
        _ => return text == "*",
    };
    if !rest.starts_with('/') {
        return true;
    }
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split(['/', '?']).next().unwrap_or_default());
    let host = authority.rsplit('@').next().unwrap_or_default();
    let port = match (host.rfind(']'), host.rfind(':')) {
        (Some(end), _) => host[end + 1..].strip_prefix(':').unwrap_or(&host[end + 1..]),
        (None, Some(colon)) => &host[colon + 1..],
        (None, None) => "",
    };
    let path = &rest[if authority.is_empty() { 0 } else { authority.len() + 2 }..];
    let path = path.split('?').next().unwrap_or_default();
    port.bytes().all(|b| b.is_ascii_digit()) && !host.contains(' ') && escapes_fit(path)
}

fn escapes_fit(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.iter().enumerate().filter(|(_, b)| **b == b'%').all(|(i, _)| {
        bytes.get(i + 1).is_some_and(u8::is_ascii_hexdigit) && bytes.get(i + 2).is_some_and(u8::is_ascii_hexdigit)
    })
}

/// An address, with or without a name before it (`net/mail.ParseAddress`).
fn email(text: &str) -> bool {
    let text = text.trim();
    let address = match (text.find('<'), text.strip_suffix('>')) {
        (Some(open), Some(inner)) => &inner[open + 1..],
        (None, None) => text,
        _ => return false,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii())
    };
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.starts_with('[') && domain.ends_with(']');
    (quoted || local.split('.').all(atom)) && (literal || domain.split('.').all(atom))
}

/// One label with a hyphen behind its first character at most, or labels with a word at the end.
fn hostname(text: &str) -> bool {
    static LETTER: LazyLock<Option<re2::Regex>> = LazyLock::new(|| re2::compile(r"^[\p{S}\p{L}]$").ok());
    let other = |c: char| {
        let fits = LETTER.as_ref().is_some_and(|letter| letter.is_match(c.encode_utf8(&mut [0; 4])));
        !c.is_ascii() && fits
    };
    // ASCII has symbols, too.
    let symbol = |c: char| matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~');
    let plain = |c: char| c.is_ascii_alphanumeric() || symbol(c) || other(c);
    if text.len() > 255 || text.split('.').any(|part| part.len() > 63) {
        return false;
    }
    let parts: Vec<&str> = text.split('.').collect();
    if let [single] = parts.as_slice() {
        let mut chars = single.chars();
        let first = chars.next().is_some_and(plain);
        let rest = chars.as_str();
        return first && rest.strip_prefix('-').unwrap_or(rest).chars().all(plain);
    }
    let Some((last, labels)) = parts.split_last() else { return false };
    let inner = |label: &&str| {
        let ends = label.chars().next().is_some_and(plain) && label.chars().next_back().is_some_and(plain);
        ends && label.chars().all(|c| c == '-' || plain(c))
    };
    let word = |c: char| c.is_ascii_alphabetic() || (other(c) && c.is_alphabetic());
    labels.iter().all(inner) && last.chars().count() >= 2 && last.chars().all(word)
}

/// Leading zeros are decimal (`ParseIPSloppy`).
fn sloppy_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u8> = text
        .split('.')
        .map(|part| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u8>().ok()).flatten())
        .collect::<Option<_>>()?;
    <[u8; 4]>::try_from(parts).ok().map(Ipv4Addr::from)
}

fn ipv4(text: &str) -> bool {
    text.contains('.') && (sloppy_ipv4(text).is_some() || text.parse::<Ipv6Addr>().is_ok())
}

fn cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match (sloppy_ipv4(address), address.parse::<Ipv6Addr>()) {
        (Some(_), _) => 32,
        (None, Ok(_)) => 128,
        _ => return false,
    };
    !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u32>().is_ok_and(|bits| bits <= most)
}

/// Groups of two digits by `:` or `-`, or of four by `.`; 6, 8 or 20 bytes (`net.ParseMAC`).
fn mac(text: &str) -> bool {
    let (separator, width) = match text.as_bytes().get(2) {
        Some(b':') => (':', 2),
        Some(b'-') => ('-', 2),
        _ => ('.', 4),
    };
    let groups: Vec<&str> = text.split(separator).collect();
    let bytes = groups.len() * width / 2;
    matches!(bytes, 6 | 8 | 20)
        && groups.iter().all(|group| group.len() == width && group.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn uuid(text: &str, version: Option<char>) -> bool {
    let mut rest = text;
    let mut groups = Vec::with_capacity(5);
    for width in [8, 4, 4, 4, 12] {
        let Some(group) = rest.get(..width) else { return false };
        if !group.bytes().all(|b| b.is_ascii_hexdigit()) {
            return false;
        }
        groups.push(group);
        rest = &rest[width..];
        if groups.len() < 5 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
    }
    let variant = matches!(version, Some('4' | '5'));
    rest.is_empty()
        && version.is_none_or(|version| groups[2].starts_with(version))
        && (!variant || groups[3].starts_with(['8', '9', 'a', 'b', 'A', 'B']))
}

fn digits(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, ' ' | '-' | '\t' | '\n')).collect()
}

fn isbn10(text: &str) -> bool {
    let plain = digits(text);
    let bytes = plain.as_bytes();
    if bytes.len() != 10 || !bytes[..9].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let last = match bytes[9] {
        b'X' => 10,
        digit if digit.is_ascii_digit() => u32::from(digit - b'0'),
        _ => return false,
    };
    let sum: u32 = (1..).zip(&bytes[..9]).map(|(i, digit)| i * u32::from(digit - b'0')).sum();
    (sum + 10 * last).is_multiple_of(11)
}

fn isbn13(text: &str) -> bool {
    let plain = digits(text);
    let bytes = plain.as_bytes();
    if bytes.len() != 13 || !bytes.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = (0..).zip(bytes).map(|(i, digit)| [1, 3][i % 2] * u32::from(digit - b'0')).sum();
    sum.is_multiple_of(10)
}

fn credit_card(text: &str) -> bool {
    let plain: String = text.chars().filter(char::is_ascii_digit).collect();
    const CARD: &str = r"^(4\d{12}(\d{3})?|5[1-5]\d{14}|(222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}|6(011|5\d\d)\d{12}|3[47]\d{13}|3(0[0-5]|[68]\d)\d{11}|(2131|1800|35\d{3})\d{11}|6[27]\d{14})$";
    static PATTERN: LazyLock<Option<re2::Regex>> = LazyLock::new(|| re2::compile(CARD).ok());
    if !PATTERN.as_ref().is_some_and(|pattern| pattern.is_match(&plain)) {
        return false;
    }
    let sum: u32 = (0..)
        .zip(plain.bytes().rev())
        .map(|(i, digit)| {
            let digit = u32::from(digit - b'0');
            match (i % 2, digit * 2) {
                (0, _) => digit,
                (_, double) if double >= 10 => double % 10 + 1,
                (_, double) => double,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn ssn(text: &str) -> bool {
    let bytes: Vec<u8> = text.bytes().collect();
    let plain: Vec<u8> = bytes.iter().copied().filter(u8::is_ascii_digit).collect();
    text.len() == 11 && plain.len() == 9 && [3, 6].iter().all(|at| matches!(bytes[*at], b'-' | b' '))
}

fn hex_color(text: &str) -> bool {
    let plain = text.strip_prefix('#').unwrap_or(text);
    matches!(plain.len(), 3 | 6) && plain.bytes().all(|b| b.is_ascii_hexdigit())
}

fn rgb_color(text: &str) -> bool {
    let Some(inner) = text.strip_prefix("rgb(").and_then(|text| text.strip_suffix(')')) else { return false };
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    let number = |part: &&str| {
        let decimal = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        decimal && (*part == "0" || !part.starts_with('0')) && part.parse::<u32>().is_ok_and(|n| n <= 255)
    };
    parts.len() == 3 && parts.iter().all(number)
}

fn date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = bytes.len() == 10
        && bytes.iter().enumerate().all(|(i, b)| if matches!(i, 4 | 7) { *b == b'-' } else { b.is_ascii_digit() });
    if !shape {
        return false;
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<u32>().unwrap_or(0);
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return false,
    };
    (1..=days).contains(&day)
}

fn date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let Some((day, time)) = lower.split_once('t') else { return false };
    let time = time.split('t').next().unwrap_or_default();
    let bytes = time.as_bytes();
    let two = |at: usize| bytes.get(at..at + 2).filter(|two| two.iter().all(u8::is_ascii_digit));
    let (Some(hours), Some(minutes), Some(seconds)) = (two(0), two(3), two(6)) else { return false };
    if !date(day)
        || bytes[2] != b':'
        || bytes[5] != b':'
        || hours > &b"23"[..]
        || minutes > &b"59"[..]
        || seconds > &b"59"[..]
    {
        return false;
    }
    let mut zone = &time[8..];
    if !zone.starts_with(['z', '+', '-']) || zone.len() > 6 {
        // Any one character, then digits: a fraction.
        let Some(separator) = zone.chars().next() else { return false };
        let fraction = &zone[separator.len_utf8()..];
        let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        if end == 0 {
            return false;
        }
        zone = &fraction[end..];
    }
    let offset = zone.as_bytes();
    let digits = |range: std::ops::Range<usize>| offset.get(range).is_some_and(|d| d.iter().all(u8::is_ascii_digit));
    zone == "z"
        || (offset.len() == 6 && matches!(offset[0], b'+' | b'-') && offset[3] == b':' && digits(1..3) && digits(4..6))
}

/// `3 days 2 minutes`: the form of Scala's durations.
fn words_of_time(text: &str) -> bool {
    const UNITS: &[&str] = &[
        "ns", "nano", "us", "µs", "micro", "ms", "milli", "s", "sec", "m", "min", "h", "hr", "hour", "d", "day", "w",
        "wk", "week",
    ];
    let mut found = false;
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let number = &rest[at..];
        let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        let after = number[end..].trim_start();
        let unit_end = after.find(|c: char| !(c.is_ascii_alphabetic() || c == 'µ')).unwrap_or(after.len());
        let unit = after[..unit_end].to_lowercase();
        if unit.is_empty() {
            rest = &number[end..];
            continue;
        }
        if number[..end].parse::<i64>().is_err() {
            return false;
        }
        let long = |known: &&&str| known.len() > 2 && unit.starts_with(**known);
        found |= UNITS.contains(&unit.as_str()) || UNITS.iter().any(|known| long(&known));
        rest = &after[unit_end..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_upstream_checks_them() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("bsonobjectid", &["507f1f77bcf86cd799439011"], &["x"]),
            ("uri", &["http://a/b?c", "/x", "urn:x:y", "https://a:8080/"], &["", "a b", "x", "http://a:port/"]),
            ("email", &["a@b.c", "A <a@b.c>"], &["a", "@b", "a@", "a b@c"]),
            ("hostname", &["a", "a.example.com", "xn--x.org"], &["-a", "a..b", "a.b_c.org"]),
            ("ipv4", &["1.2.3.4", "01.2.3.4"], &["1.2.3", "::1", "1.2.3.256"]),
            ("ipv6", &["::1", "fe80::1"], &["1.2.3.4", "fe80::1%eth0", ":"]),
            ("cidr", &["10.0.0.0/8", "::/0"], &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8"]),
            ("mac", &["00:00:5e:00:53:01", "0000.5e00.5301"], &["00:00", "00:00:5e:00:53:0g"]),
            ("uuid", &["0B8F26A2-1111-4111-8111-111111111111", "0b8f26a2111141118111111111111111"], &["x"]),
            ("uuid4", &["0b8f26a2-1111-4111-8111-111111111111"], &["0b8f26a2-1111-3111-8111-111111111111"]),
            ("isbn", &["0321751043", "978-0321751041"], &["0321751044"]),
            ("creditcard", &["4111 1111 1111 1111"], &["4111 1111 1111 1112"]),
            ("ssn", &["123-45-6789"], &["123456789"]),
            ("hexcolor", &["#FFFFFF", "abc"], &["#FFFF"]),
            ("rgbcolor", &["rgb(255, 0,1)"], &["rgb(256,0,1)", "rgb(1,2)"]),
            ("byte", &["YQ=="], &["a", "!"]),
            ("date", &["2024-02-29"], &["2023-02-29", "2024-2-9"]),
            (
                "date-time",
                &["2014-12-15T19:30:20.000Z", "2014-12-15t19:30:20+01:00"],
                &["2014-12-15", "2014-12-15T25:30:20Z"],
            ),
            ("duration", &["22ns", "22 ns", "3 days", "1h30m"], &["x", "3"]),
            ("k8s-short-name", &["a-b"], &["A", "-a", "a.b"]),
            ("k8s-long-name", &["a.b-c"], &["a..b", "a.-b"]),
            ("nothing-known", &["anything"], &[]),
        ];
        for (format, good, bad) in cases {
            good.iter().for_each(|text| assert!(fits(format, text), "{format}: {text}"));
            bad.iter().for_each(|text| assert!(!fits(format, text), "{format}: {text}"));
        }
    }
}
