//! What a server said, as text that is equal for servers that behave alike.
//!
//! Uids, times, allocated addresses, ports and random suffixes are replaced by what they are. A success is shown as what the server
//! made of the object that was sent.

use std::collections::BTreeMap;

use serde_json::Value;

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// The texts of the Warning headers.
    pub warnings: Vec<String>,
    /// The body; a text if it is not JSON.
    pub body: Value,
}

/// What Corten says besides, of kinds that nothing acts on yet.
pub(crate) const UNSERVED: &str = "is stored, but nothing in Corten acts on it yet";

/// The answer to `sent` as text: lines without a final line break.
pub fn show(answer: &Answer, sent: &Value) -> String {
    let mut lines = Vec::new();
    if answer.code < 400 {
        lines.push(answer.code.to_string());
        success(answer, sent, &mut lines);
    } else {
        failure(answer, &mut lines);
    }
    for warning in answer.warnings.iter().filter(|w| !w.ends_with(UNSERVED)) {
        lines.push(format!("W {}", neutral(warning)));
    }
    lines.join("\n")
}

fn failure(answer: &Answer, lines: &mut Vec<String>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (body, details) = (&answer.body, &answer.body["details"]);
    if body["kind"] != "Status" {
        lines.push(format!("{} no Status: {}", answer.code, neutral(&body.to_string())));
        return;
    }
    let (name, group, kind) = (text(&details["name"]), text(&details["group"]), text(&details["kind"]));
    let reason = text(&body["reason"]);
    lines.push(format!("{} {reason} group={group} kind={kind} name={}", answer.code, neutral(&name)));
    let causes = details["causes"].as_array().cloned().unwrap_or_default();
    let mut told = Vec::new();
    for cause in &causes {
        let (reason, field, message) = (text(&cause["reason"]), text(&cause["field"]), text(&cause["message"]));
        lines.push(format!("! {reason} {field}: {}", neutral(&message)));
        let one = format!("{field}: {message}");
        if !told.contains(&one) {
            told.push(one);
        }
    }
    let message = text(&body["message"]);
    let all = if told.len() == 1 { told[0].clone() } else { format!("[{}]", told.join(", ")) };
    let of = if group.is_empty() { kind } else { format!("{kind}.{group}") };
    if causes.is_empty() || message != format!("{of} {name:?} is invalid: {all}") {
        lines.push(format!(": {}", neutral(&message)));
    }
}

fn success(answer: &Answer, sent: &Value, lines: &mut Vec<String>) {
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    flatten(sent, String::new(), &mut before);
    flatten(&answer.body, String::new(), &mut after);
    for (path, value) in &after {
        if ignored(path) {
            continue;
        }
        match before.get(path) {
            Some(same) if same == value => {}
            // Whether a second has passed in between is the machine's affair.
            Some(before) if shown(path, value) == "\"<time>\"" && shown(path, before) == "\"<time>\"" => {}
            Some(_) => lines.push(format!("~ {path} = {}", shown(path, value))),
            None => lines.push(format!("+ {path} = {}", shown(path, value))),
        }
    }
    for path in before.keys().filter(|p| !after.contains_key(*p) && !ignored(p)) {
        lines.push(format!("- {path}"));
    }
    lines[1..].sort_by(|a, b| a[2..].cmp(&b[2..]));
    lines.dedup();
}

/// All of an object: lines `path = value`, by path.
pub(crate) fn whole(object: &Value) -> Vec<String> {
    const RUN: [&str; 3] = ["metadata.uid", "metadata.resourceVersion", "metadata.creationTimestamp"];
    let mut flat = BTreeMap::new();
    flatten(object, String::new(), &mut flat);
    let told = flat.iter().filter(|(path, _)| !RUN.contains(&path.as_str()));
    told.map(|(path, value)| format!("{path} = {}", shown(path, value))).collect()
}

/// A value with what differs from run to run replaced.
pub(crate) fn masked(value: &Value) -> String {
    let Some(text) = value.as_str() else { return shown("", value) };
    // `80:30123/TCP`
    let port = |part: &str| match part.split_once('/') {
        Some((number, rest)) if number.parse::<u32>().is_ok_and(|n| (30_000..32_768).contains(&n)) => {
            format!("<port>/{rest}")
        }
        _ => part.to_owned(),
    };
    let parts: Vec<String> = text.split(':').map(port).collect();
    shown("", &Value::from(parts.join(":")))
}

fn ignored(path: &str) -> bool {
    ["metadata.uid", "metadata.creationTimestamp", "metadata.resourceVersion", "metadata.selfLink"].contains(&path)
        || path.starts_with("metadata.managedFields")
}

fn flatten(value: &Value, path: String, out: &mut BTreeMap<String, Value>) {
    let below = |key: &str| match key {
        key if key.contains(['.', '[']) => format!("{path}[{key:?}]"),
        key if path.is_empty() => key.to_owned(),
        key => format!("{path}.{key}"),
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, value)| flatten(value, below(key), out));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(i, value)| flatten(value, format!("{path}[{i}]"), out));
        }
        value => {
            out.insert(path, value.clone());
        }
    }
}

fn shown(path: &str, value: &Value) -> String {
    // A dry run allocates no port in upstream: it counts on from the range's end.
    let port = value.as_i64().is_some_and(|n| (30_000..=33_000).contains(&n));
    if port && (path.ends_with(".nodePort") || path.ends_with("healthCheckNodePort")) {
        return "<port>".into();
    }
    match value {
        Value::String(text) => Value::from(neutral(text)).to_string(),
        value => value.to_string(),
    }
}

/// The text with what differs from run to run replaced.
fn neutral(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = SHAPES.iter().find_map(|(name, length)| length(rest, out.as_bytes()).map(|n| (*name, n)));
        match taken {
            Some((name, length)) => {
                out.push_str(name);
                rest = &rest[length..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

/// How many bytes at the start of a text have a shape, knowing what came before.
type Shape = fn(&str, &[u8]) -> Option<usize>;

const SHAPES: &[(&str, Shape)] = &[
    ("<uid>", |text, before| matches(text, before, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")),
    ("<time>", |text, before| {
        let day = text.starts_with(&today());
        let whole = matches(text, before, "dddd-dd-ddTdd:dd:ddZ");
        let micro = matches(text, before, "dddd-dd-ddTdd:dd:dd.ddddddZ");
        whole.or(micro).filter(|_| day)
    }),
    ("<ip>", |text, before| {
        let rest = text.strip_prefix("10.43.").filter(|_| !before.last().is_some_and(u8::is_ascii_digit))?;
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        (!rest.contains('/')).then_some(6 + length)
    }),
    ("<certificate>", |text, before| {
        before.ends_with(b"X509SHA256=").then(|| text.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(text.len()))
    }),
    ("<5>", |text, before| {
        // The names that `generateName: Web-` gives.
        let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
        (before.ends_with(b"Web-") && end == 5).then_some(5)
    }),
    ("<revision>", |text, before| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        (before.ends_with(b"\\\"resourceVersion\\\":\\\"") && end > 0).then_some(end)
    }),
    ("<5>", |text, before| {
        let random = before.ends_with(b"kube-api-access-") && text.len() >= 5;
        random.then_some(5).filter(|n| text.is_char_boundary(*n))
    }),
];

/// The date, as far as it cannot change during a run.
fn today() -> String {
    corten_object::time::format(corten_base::Clock::now(&corten_base::SystemClock))[..8].to_owned()
}

/// Whether the text begins with a pattern: `d` a digit, `x` a hexadecimal one, others themselves.
fn matches(text: &str, before: &[u8], pattern: &str) -> Option<usize> {
    let inside = before.last().is_some_and(u8::is_ascii_alphanumeric);
    let fits = |(c, p): (u8, u8)| match p {
        b'd' => c.is_ascii_digit(),
        b'x' => c.is_ascii_hexdigit(),
        p => c == p,
    };
    let enough = text.len() >= pattern.len();
    (!inside && enough && text.bytes().zip(pattern.bytes()).all(fits)).then_some(pattern.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn failures_and_successes() {
        let cause = json!({"reason": "FieldValueInvalid", "field": "spec.x", "message": "Invalid value: -1: no"});
        let body = json!({"kind": "Status", "reason": "Invalid", "message": "X \"a\" is invalid: spec.x: Invalid value: -1: no",
            "details": {"name": "a", "kind": "X", "causes": [cause]}});
        let answer = Answer { code: 422, warnings: vec!["w".into()], body };
        let text = "422 Invalid group= kind=X name=a\n! FieldValueInvalid spec.x: Invalid value: -1: no\nW w";
        assert_eq!(show(&answer, &Value::Null), text);
        let body = json!({"spec": {"a": 1, "clusterIP": "10.43.7.7"}, "metadata": {"uid": "x"}});
        let answer = Answer { code: 201, warnings: Vec::new(), body };
        assert_eq!(
            show(&answer, &json!({"spec": {"a": 2, "b": {}}})),
            "201\n~ spec.a = 1\n- spec.b\n+ spec.clusterIP = \"<ip>\""
        );
        let at = |second: u8| json!({"status": {"at": format!("{}01T00:00:0{second}Z", today())}});
        let answer = Answer { code: 200, warnings: Vec::new(), body: at(2) };
        assert_eq!(show(&answer, &at(1)), "200", "two times of today");
        assert_eq!(neutral("uid 123e4567-e89b-12d3-a456-426614174000!"), "uid <uid>!");
        assert_eq!(neutral("kube-api-access-x7vkq"), "kube-api-access-<5>");
    }
}
