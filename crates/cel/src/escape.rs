//! Names of properties that are no identifiers, as expressions write them (`k8s.io/apiserver/pkg/cel/escaping.go`).

/// Words of the language and words kept for later: not usable as names of variables.
pub(crate) const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "null",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// The field name for a property: `foo-bar` is `foo__dash__bar`, `namespace` is `__namespace__`. `None` for a name that has
/// other characters than letters, digits, `_`, `-`, `.` and `/`, or starts with a digit.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("__") {
            out.push_str("__underscores__");
            rest = &rest[2..];
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

/// The property that an escaped field name stands for.
pub fn unescape(field: &str) -> Option<String> {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find("__") {
        out.push_str(&rest[..at]);
        let body = &rest[at + 2..];
        let end = body.find("__").filter(|end| *end > 0 && !body[..*end].contains('_'));
        let Some(end) = end else {
            let step = if body.starts_with('_') { 1 } else { 2 };
            out.push_str(&rest[at..at + step]);
            rest = &rest[at + step..];
            continue;
        };
        match &body[..end] {
            "underscores" => out.push_str("__"),
            "dot" => out.push('.'),
            "dash" => out.push('-'),
            "slash" => out.push('/'),
            word if RESERVED.contains(&word) && word.len() + 4 == field.len() => out.push_str(word),
            _ => return None,
        }
        rest = &body[end + 2..];
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_escape_and_come_back() {
        for (name, field) in [
            ("replicas", "replicas"),
            ("namespace", "__namespace__"),
            ("foo-bar.baz/x", "foo__dash__bar__dot__baz__slash__x"),
            ("a__b", "a__underscores__b"),
            ("_x_", "_x_"),
        ] {
            assert_eq!(escape(name).as_deref(), Some(field));
            assert_eq!(unescape(field).as_deref(), Some(name));
        }
        assert_eq!(escape("1a"), None);
        assert_eq!(escape("ä"), None);
        assert_eq!(unescape("a__nothing__b"), None);
    }
}
