//! Syntax of names, label keys and other texts: each function gives what is wrong, in upstream's words.
//!
//! `k8s.io/apimachinery/pkg/util/validation/validation.go`, `pkg/api/validate/content/`, `pkg/api/validation/generic.go`.

/// The longest DNS label.
pub const LABEL_MAX: usize = 63;
/// The longest DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn regex(message: &str, pattern: &str, examples: &[&str]) -> String {
    let mut out = format!("{message} (");
    for (i, example) in examples.iter().enumerate() {
        out.push_str(if i == 0 { "e.g. " } else { " or " });
        out.push_str(&format!("'{example}', "));
    }
    out + &format!("regex used for validation is '{pattern}')")
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn too_long_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// `must be between A and B, inclusive`
pub fn range(min: i64, max: i64) -> String {
    format!("must be between {min} and {max}, inclusive")
}

fn lower_or_digit(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn matches_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    lower_or_digit(*first) && lower_or_digit(*last) && bytes.iter().all(|c| lower_or_digit(*c) || *c == b'-')
}

fn matches_subdomain(text: &str) -> bool {
    text.split('.').all(matches_label)
}

fn matches_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let inner = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() && bytes.iter().all(inner)
}

/// A DNS-1123 label.
pub fn dns_label(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > LABEL_MAX {
        out.push(too_long(LABEL_MAX));
    }
    if !matches_label(text) {
        out.push(if matches_subdomain(text) {
            "must not contain dots".into()
        } else {
            let rule = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                        and end with an alphanumeric character";
            regex(rule, LABEL, &["my-name", "123-abc"])
        });
    }
    out
}

/// A DNS-1123 subdomain.
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        out.push(too_long(SUBDOMAIN_MAX));
    }
    if !matches_subdomain(text) {
        let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
                    start and end with an alphanumeric character";
        out.push(regex(rule, SUBDOMAIN, &["example.com"]));
    }
    out
}

/// A DNS-1123 subdomain in either case.
pub fn dns_subdomain_caseless(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        out.push(too_long_bytes(SUBDOMAIN_MAX));
    }
    if !matches_subdomain(&text.to_ascii_lowercase()) {
        let rule = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an \
                    alphanumeric character";
        out.push(regex(rule, SUBDOMAIN, &["Example.com"]));
    }
    out
}

/// A label's key that has a prefix.
pub fn prefixed_label_key(text: &str) -> Vec<String> {
    let faults = label_key(text);
    match text.split('/').count() {
        2 => faults,
        _ if !faults.is_empty() => faults,
        _ => vec!["must include a prefix (e.g. 'example.com/key')".into()],
    }
}

/// A DNS-1123 subdomain whose labels may contain underscores (search paths).
pub fn dns_subdomain_with_underscore(text: &str) -> Vec<String> {
    const PATTERN: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
    let label = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        let plain = part.replace('_', "-");
        matches_label(&plain) && part.as_bytes().last().is_some_and(|c| lower_or_digit(*c))
    };
    let mut out = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        out.push(too_long(SUBDOMAIN_MAX));
    }
    if !text.split('.').all(label) {
        let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
                    must start and end with an alphanumeric character";
        out.push(regex(rule, PATTERN, &["example.com"]));
    }
    out
}

/// A DNS-1035 label.
pub fn dns_1035_label(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > LABEL_MAX {
        out.push(too_long(LABEL_MAX));
    }
    if !matches_label(text) || !text.as_bytes()[0].is_ascii_lowercase() {
        let rule = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                    character, and end with an alphanumeric character";
        out.push(regex(rule, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    out
}

/// A wildcard DNS-1123 subdomain (`*.example.com`).
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        out.push(too_long(SUBDOMAIN_MAX));
    }
    if !text.strip_prefix("*.").is_some_and(matches_subdomain) {
        let rule = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
                    consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        out.push(regex(rule, &format!(r"\*\.{SUBDOMAIN}"), &["*.example.com"]));
    }
    out
}

/// A label key: a name with an optional DNS prefix.
pub fn label_key(text: &str) -> Vec<String> {
    const RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let mut out = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".into());
            }
            let faults = if prefix.is_empty() { Vec::new() } else { dns_subdomain(prefix) };
            // Here upstream counts in bytes (the content package), elsewhere in characters.
            let bytes = |m: String| if m == too_long(SUBDOMAIN_MAX) { too_long_bytes(SUBDOMAIN_MAX) } else { m };
            out.extend(faults.into_iter().map(|m| format!("prefix part {}", bytes(m))));
            name
        }
        _ => {
            let rule = regex(&format!("a valid label key {RULE}"), QUALIFIED, EXAMPLES);
            return vec![format!("{rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".into());
    } else if name.len() > LABEL_MAX {
        out.push(format!("name part {}", too_long_bytes(LABEL_MAX)));
    }
    if !matches_qualified(name) {
        out.push(format!("name part {}", regex(RULE, QUALIFIED, EXAMPLES)));
    }
    out
}

/// A label value.
pub fn label_value(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > LABEL_MAX {
        out.push(too_long_bytes(LABEL_MAX));
    }
    if !text.is_empty() && !matches_qualified(text) {
        let rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
                    start and end with an alphanumeric character";
        out.push(regex(rule, &format!("({QUALIFIED})?"), &["MyValue", "my_value", "12345"]));
    }
    out
}

/// A port number.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![range(1, 65535)] }
}

/// A port's name (IANA service name).
pub fn port_name(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    if text.len() > 15 {
        out.push(too_long(15));
    }
    if text.is_empty() || !text.bytes().all(|c| lower_or_digit(c) || c == b'-') {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|c| c.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        out.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        out.push("must not begin or end with a hyphen".into());
    }
    out
}

/// A percentage.
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) {
        return Vec::new();
    }
    let rule = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex(rule, "[0-9]+%", &["1%", "93%"])]
}

/// An HTTP header's name.
pub fn http_header(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Vec::new();
    }
    let rule = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex(rule, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// An environment variable's name, by the relaxed rule (GA since 1.34).
pub fn env_name(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    if text.is_empty() {
        out.push("environment variable name must be non-empty".into());
    }
    if !text.chars().all(|c| matches!(c, ' '..='~') && c != '=') {
        out.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".into(),
        );
    }
    out
}

/// A key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        out.push(too_long(SUBDOMAIN_MAX));
    }
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
        let rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        out.push(regex(rule, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match text {
        "." => out.push("must not be '.'".into()),
        ".." => out.push("must not be '..'".into()),
        _ if text.starts_with("..") => out.push("must not start with '..'".into()),
        _ => {}
    }
    out
}

/// A C identifier.
pub fn c_identifier(text: &str) -> Vec<String> {
    let first = |c: u8| c.is_ascii_alphabetic() || c == b'_';
    let fits = text.bytes().next().is_some_and(first) && text.bytes().all(|c| first(c) || c.is_ascii_digit());
    if fits {
        return Vec::new();
    }
    let rule = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
                characters or '_'";
    vec![regex(rule, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// A path segment: a name that may stand in a URL path (`path.IsValidPathSegmentName`).
pub fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => return vec![format!("may not be '{text}'")],
        _ => {}
    }
    let contained = ["/", "%"].into_iter().filter(|c| text.contains(c));
    contained.map(|c| format!("may not contain '{c}'")).collect()
}

/// A name check that knows whether more will be appended (generateName).
pub type NameCheck = fn(&str) -> Vec<String>;

/// Checks a generateName: a trailing dash is fine, because something follows it.
pub fn with_suffix(check: NameCheck, text: &str) -> Vec<String> {
    match text.len() {
        n if n > 1 && text.ends_with('-') && text.is_char_boundary(n - 2) => check(&format!("{}a", &text[..n - 2])),
        _ => check(text),
    }
}

/// An IP address, by the strict rule (on since 1.36).
pub fn ip(text: &str) -> Vec<String> {
    use std::net::IpAddr;
    let one = |message: &str| vec![message.to_owned()];
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => one("must not be an IPv4-mapped IPv6 address"),
        Ok(_) => Vec::new(),
        // Go's lenient parser reads octets with leading zeros as decimal.
        Err(_) if without_leading_zeros(text).parse::<IpAddr>().is_ok() => one("must not have leading 0s"),
        Err(_) => one("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
    }
}

/// An IP address in its canonical form. (`IsValidIP`)
pub fn canonical_ip(text: &str) -> Vec<String> {
    let faults = ip(text);
    match text.parse::<std::net::IpAddr>() {
        Ok(address) if faults.is_empty() && address.to_string() != text => {
            vec![format!("must be in canonical form ({:?})", address.to_string())]
        }
        _ => faults,
    }
}

/// An address and the size of its network, in canonical form: `10.9.8.7/24`. (`IsValidInterfaceAddress`)
pub fn interface_address(text: &str) -> Vec<String> {
    use std::net::IpAddr;
    let parsed = || {
        let (ip, bits) = text.split_once('/')?;
        let ip = without_leading_zeros(ip).parse::<IpAddr>().ok()?;
        let max = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.parse::<u32>().ok().filter(|n| *n <= max && bits.bytes().all(|c| c.is_ascii_digit()))?;
        Some((ip, bits))
    };
    let Some((ip, bits)) = parsed() else {
        return vec!["must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".to_owned()];
    };
    // Go writes a mapped address as one of IPv4, and its size so.
    let plain = ip.to_canonical();
    let bits = if plain.is_ipv4() && bits > 32 { bits - 96 } else { bits };
    let canonical = format!("{plain}/{bits}");
    if canonical == text { Vec::new() } else { vec![format!("must be in canonical form ({canonical:?})")] }
}

/// An address range, by the strict rule: `10.9.8.0/24`. (`parseCIDR` in `k8s.io/apimachinery/pkg/util/validation/ip.go`)
pub fn cidr(text: &str) -> Vec<String> {
    use std::net::IpAddr;
    let one = |message: &str| vec![message.to_owned()];
    let lenient = || {
        let (ip, bits) = text.split_once('/')?;
        let ip = without_leading_zeros(ip).parse::<IpAddr>().ok()?;
        let max = if ip.is_ipv4() { 32 } else { 128 };
        let number = bits.parse::<u32>().ok().filter(|n| *n <= max && bits.bytes().all(|c| c.is_ascii_digit()))?;
        Some((ip, number))
    };
    let Some((ip, bits)) = lenient() else {
        return one("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    };
    let strict = text
        .split_once('/')
        .is_some_and(|(ip, bits)| ip.parse::<IpAddr>().is_ok() && (bits == "0" || !bits.starts_with('0')));
    if !strict {
        return one("must not have leading 0s in IP or prefix length");
    }
    let below = match ip {
        IpAddr::V4(v4) => u32::from(v4).checked_shl(bits).unwrap_or(0) != 0,
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => return one("must not have an IPv4-mapped IPv6 address"),
        IpAddr::V6(v6) => u128::from(v6).checked_shl(bits).unwrap_or(0) != 0,
    };
    if below { one("must not have bits set beyond the prefix length") } else { Vec::new() }
}

/// What is dubious about an address that is accepted. (`GetWarningsForIP`)
pub fn ip_warning(text: &str) -> Option<String> {
    use std::net::IpAddr;
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => Some(format!("non-standard IP address {text:?} is invalid: use \"{v4}\"")),
            None if v6.to_string() != text => {
                Some(format!("IPv6 address {text:?} should be in RFC 5952 canonical format (\"{v6}\")"))
            }
            None => None,
        },
        Ok(IpAddr::V4(_)) => None,
        Err(_) => {
            let plain = without_leading_zeros(text).parse::<IpAddr>().ok()?;
            Some(format!("non-standard IP address {text:?} is invalid: use \"{plain}\""))
        }
    }
}

/// What is dubious about a range that is accepted. (`GetWarningsForCIDR`)
pub fn cidr_warnings(text: &str) -> Vec<String> {
    use std::net::IpAddr;
    let Some((ip, bits)) = text.split_once('/') else { return Vec::new() };
    let (strict, lenient) = (ip.parse::<IpAddr>().ok(), without_leading_zeros(ip).parse::<IpAddr>().ok());
    let (Some(address), Ok(length)) = (strict.or(lenient), bits.parse::<u32>()) else { return Vec::new() };
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let range = match address {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & !u32::MAX.checked_shr(length).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::MAX.checked_shr(length).unwrap_or(0)).into()),
    };
    // Go shows a range of mapped addresses as one of IPv4.
    let shown = match (range, length) {
        (IpAddr::V6(v6), 96..) if mapped => format!("{}/{}", v6.to_canonical(), length - 96),
        _ => format!("{range}/{length}"),
    };
    let mut out = Vec::new();
    if address != range {
        let single = format!("{}/{}", address.to_canonical(), if address.is_ipv4() { 32 } else { 128 });
        out.push(format!("CIDR value {text:?} is ambiguous in this context (should be {shown:?} or {single:?}?)"));
    }
    if strict.is_none() || mapped || (bits.len() > 1 && bits.starts_with('0')) {
        out.push(format!("non-standard CIDR value {text:?} is invalid: use {shown:?}"));
    }
    let canonical = format!("{address}/{length}");
    if out.is_empty() && address.is_ipv6() && canonical != text {
        out.push(format!("IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({canonical:?})"));
    }
    out
}

/// An IPv4 address as Go's lenient parser reads it: octets with leading zeros are decimal.
pub fn without_leading_zeros(text: &str) -> String {
    let octet = |part: &str| match part.trim_start_matches('0') {
        "" if part.is_empty() => String::new(),
        "" => "0".to_owned(),
        rest => rest.to_owned(),
    };
    text.split('.').map(octet).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_dubious() {
        for (range, warnings) in [
            ("10.0.0.0/8", &[][..]),
            ("2001:db8::/64", &[]),
            (
                "10.1.2.3/8",
                &[r#"CIDR value "10.1.2.3/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.1.2.3/32"?)"#],
            ),
            ("010.0.0.0/8", &[r#"non-standard CIDR value "010.0.0.0/8" is invalid: use "10.0.0.0/8""#]),
            ("::ffff:10.0.0.0/104", &[r#"non-standard CIDR value "::ffff:10.0.0.0/104" is invalid: use "10.0.0.0/8""#]),
            (
                "2001:db8:0:0::/64",
                &[r#"IPv6 CIDR value "2001:db8:0:0::/64" should be in RFC 5952 canonical format ("2001:db8::/64")"#],
            ),
        ] {
            assert_eq!(cidr_warnings(range), warnings, "{range}");
        }
    }

    #[test]
    fn texts() {
        for (check, good, bad) in [
            (dns_label as NameCheck, &["a", "a-1", "1a"][..], &["", "A", "-a", "a-", "a.b", "a_b"][..]),
            (dns_subdomain, &["a", "a.b-c.d"], &["", "a..b", ".a", "A"]),
            (dns_1035_label, &["a1"], &["1a", "a.b"]),
            (label_key, &["a", "A.b_c", "example.com/x"], &["", "/a", "a/", "a/b/c", "A_/x", "-a"]),
            (label_value, &["", "a", "A.b_c"], &["-a", "a b"]),
            (port_name, &["http", "a-1"], &["", "1", "A", "a--b", "-a", "averyveryverylong"]),
            (env_name, &["A", "1 x"], &["a=b", "é"]),
            (config_key, &["a.b", "_"], &["", "a/b", "..", "..a"]),
            (percent, &["1%", "100%"], &["%", "1", "x%"]),
            (dns_subdomain_with_underscore, &["_a.b_c", "a"], &["a_", "a..b"]),
            (wildcard_subdomain, &["*.a.b"], &["*a", "a.b", "*."]),
            (
                cidr,
                &["10.0.0.0/8", "0.0.0.0/0", "fd00::/112"],
                &["x", "10.0.0.1/8", "010.0.0.0/8", "10.0.0.0/08", "::ffff:1.2.3.0/120"],
            ),
        ] {
            assert!(good.iter().all(|t| check(t).is_empty()), "{good:?}");
            assert!(bad.iter().all(|t| !check(t).is_empty()), "{bad:?}");
        }
        assert!(with_suffix(dns_label, "web-").is_empty());
    }
}
